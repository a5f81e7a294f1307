//! The 16550 against its data sheet.

use super::*;

const DATA: u8 = 0;
const IER: u8 = 1;
const IIR: u8 = 2;
const FCR: u8 = 2;
const LCR: u8 = 3;
const MCR: u8 = 4;
const LSR: u8 = 5;
const MSR: u8 = 6;
const SCRATCH: u8 = 7;

/// A port whose interrupt line is gated through.
fn uart() -> Uart {
    let mut uart = Uart::new();
    uart.write(MCR, 0x0B);
    uart
}

#[test]
fn a_boot_loader_left_it_so() {
    let mut uart = Uart::new();
    assert_eq!(uart.read(IER), 0);
    assert_eq!(uart.read(IIR), 0x01);
    assert_eq!(uart.read(LCR), 0x03);
    assert_eq!(uart.read(MCR), 0x03);
    assert_eq!(uart.read(LSR), 0x60);
    assert_eq!(uart.read(MSR), 0xB0);
    uart.write(LCR, 0x83);
    assert_eq!((uart.read(DATA), uart.read(IER)), (1, 0));
}

#[test]
fn transmits_at_once() {
    let mut uart = uart();
    assert_eq!(uart.write(DATA, b'x'), Some(b'x'));
    assert_eq!(uart.read(LSR), 0x60);
    uart.write(LCR, 0x83);
    assert_eq!(uart.write(DATA, 12), None);
    assert_eq!(uart.write(IER, 3), None);
    assert_eq!((uart.read(DATA), uart.read(IER)), (12, 3));
    uart.write(SCRATCH, 0x5A);
    assert_eq!(uart.read(SCRATCH), 0x5A);
}

#[test]
fn transmitter_empty_interrupt() {
    let mut uart = uart();
    uart.write(IER, 0x02);
    assert!(uart.line());
    assert_eq!(uart.read(IIR), 0x02, "enabling raises it");
    assert!(!uart.line());
    assert_eq!(uart.read(IIR), 0x01, "reading clears it");
    uart.write(IER, 0x02);
    assert!(!uart.line(), "it was enabled already");
    uart.write(DATA, b'x');
    assert!(uart.line());
    uart.write(IER, 0x00);
    assert!(!uart.line());
}

#[test]
fn out2_gates_the_line() {
    let mut uart = Uart::new();
    uart.write(IER, 0x02);
    assert!(!uart.line());
    uart.write(MCR, 0x08);
    assert!(uart.line());
    uart.write(MCR, 0x18);
    assert!(!uart.line(), "the pin is inactive in loopback");
}

#[test]
fn receives_one_character_without_fifos() {
    let mut uart = uart();
    uart.write(IER, 0x01);
    assert_eq!(uart.room(), 1);
    assert_eq!(uart.receive(b"ab"), 1);
    assert_eq!(uart.room(), 0);
    assert!(uart.line());
    assert_eq!(uart.read(IIR), 0x04);
    assert_eq!(uart.read(LSR), 0x61);
    assert_eq!(uart.read(DATA), b'a');
    assert!(!uart.line());
    assert_eq!(uart.read(LSR), 0x60);
}

#[test]
fn trigger_levels_and_the_character_timeout() {
    for (control, trigger) in [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)] {
        let mut uart = uart();
        uart.write(FCR, control);
        uart.write(IER, 0x01);
        assert_eq!(uart.receive(&[0; 20]), 16);
        for left in (1..=16).rev() {
            let expected = if left >= trigger { 0xC4 } else { 0xCC };
            assert_eq!(uart.read(IIR), expected, "{left} of {trigger}");
            assert!(uart.line());
            uart.read(DATA);
        }
        assert_eq!(uart.read(IIR), 0xC1);
        assert!(!uart.line());
    }
}

#[test]
fn fifo_control_clears() {
    let mut uart = uart();
    uart.write(FCR, 0x01);
    uart.receive(b"abc");
    uart.write(FCR, 0x03);
    assert_eq!(uart.read(LSR), 0x60);
    uart.receive(b"abc");
    uart.write(FCR, 0xC0);
    assert_eq!(uart.read(LSR), 0x60, "toggling the enable clears");
    assert_eq!(uart.read(IIR), 0x01);
    assert_eq!(uart.room(), 1);
}

#[test]
fn loopback_of_data_and_modem_lines() {
    let mut uart = uart();
    uart.write(MCR, 0x10);
    assert_eq!(uart.read(MSR), 0x0B, "CTS, DSR and DCD fell");
    assert_eq!(uart.read(MSR), 0x00);
    uart.write(MCR, 0x1A);
    assert_eq!(uart.read(MSR), 0x90 | 0x09);
    uart.write(MCR, 0x1F);
    assert_eq!(uart.read(MSR), 0xF0 | 0x02, "a rising RI tells nothing");
    uart.write(MCR, 0x1B);
    assert_eq!(uart.read(MSR), 0xB0 | 0x04);
    assert_eq!(uart.room(), 0);
    assert_eq!(uart.receive(b"lost?"), 0);
    assert_eq!(uart.write(DATA, b'x'), None);
    assert_eq!(uart.read(DATA), b'x');
}

#[test]
fn overrun_is_the_highest_interrupt() {
    let mut uart = uart();
    uart.write(IER, 0x0F);
    uart.write(MCR, 0x1B);
    uart.write(DATA, b'a');
    uart.write(DATA, b'b');
    uart.write(MCR, 0x0B);
    assert_eq!(uart.read(IIR), 0x06);
    assert_eq!(uart.read(LSR), 0x63);
    assert_eq!(uart.read(IIR), 0x04);
    assert_eq!(uart.read(DATA), b'b');
    assert_eq!(uart.read(IIR), 0x02);
    assert_eq!(uart.read(IIR), 0x01);
    uart.write(MCR, 0x10);
    assert_eq!(uart.read(IIR), 0x00);
    uart.read(MSR);
    assert_eq!(uart.read(IIR), 0x01);
}

#[test]
fn a_full_fifo_keeps_what_it_has() {
    let mut uart = uart();
    uart.write(FCR, 0x01);
    uart.write(MCR, 0x10);
    for byte in 0..20 {
        uart.write(DATA, byte);
    }
    assert_eq!(uart.read(LSR), 0x63);
    let kept: Vec<u8> = (0..16).map(|_| uart.read(DATA)).collect();
    assert_eq!(kept, (0..16).collect::<Vec<u8>>());
}

#[test]
fn save_and_restore() {
    let mut uart = uart();
    uart.write(FCR, 0x81);
    uart.write(IER, 0x0F);
    uart.receive(b"hello");
    uart.read(DATA);
    let state = uart.save();
    let again = Uart::restore(&state).expect("its own state");
    assert_eq!(again.save(), state);
    assert!(again.line());
    let spoil: [fn(&mut UartStateV1); 4] = [
        |s| s.received = vec![0; 17],
        |s| s.fifo_control = 0,
        |s| s.modem_status = 0,
        |s| s.enable = 0x10,
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut state = state.clone();
        spoil(&mut state);
        assert!(Uart::restore(&state).is_err(), "case {index}");
    }
}

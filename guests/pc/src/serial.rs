//! COM1, polled: the console of probes, and the last words of everything else.

use core::fmt::{self, Write};

use crate::port::{inb, outb};

const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const DATA_READY: u8 = 1;
const HOLDING_EMPTY: u8 = 1 << 5;
/// A missing UART must not hang the guest: so often is the line status asked for one byte.
const PATIENCE: u32 = 1_000_000;

/// Sets 115200 baud, eight bits, no parity, FIFOs on, interrupts off.
pub(crate) fn init() {
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 0x80);
    outb(COM1, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 0x03);
    outb(COM1 + 2, 0x07);
    outb(COM1 + 4, 0x0b);
}

/// Sends one byte, as it is.
pub fn send(byte: u8) {
    for _ in 0..PATIENCE {
        if inb(LINE_STATUS) & HOLDING_EMPTY != 0 {
            break;
        }
    }
    outb(COM1, byte);
}

/// Takes a received byte, if there is one.
#[must_use]
pub fn receive() -> Option<u8> {
    (inb(LINE_STATUS) & DATA_READY != 0).then(|| inb(COM1))
}

/// Waits until the transmitter has sent everything.
pub fn drain() {
    for _ in 0..PATIENCE {
        if inb(LINE_STATUS) & 0x60 == 0x60 {
            break;
        }
    }
}

/// Writes text to COM1, with a carriage return before each line feed.
#[derive(Debug)]
pub struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(b'\r');
            }
            send(byte);
        }
        Ok(())
    }
}

/// What the macros expand to.
#[doc(hidden)]
pub fn write(arguments: fmt::Arguments<'_>) {
    // `Serial` never fails.
    let _ = Serial.write_fmt(arguments);
}

/// Prints to COM1, polled.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::serial::write(::core::format_args!($($argument)*)) };
}

/// Prints a line to COM1, polled.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => { $crate::serial::write(::core::format_args!("{}\n", ::core::format_args!($($argument)*))) };
}

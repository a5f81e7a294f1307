//! Interrupts as fast as they can come.

use core::sync::atomic::{AtomicU32, Ordering};

use pc::{
    cpu,
    handover::Boot,
    idt,
    port::{inb, outb},
    println, serial,
};

use crate::{
    probe::{Verdict, ensure},
    time,
};

const CLOCK: u8 = 0x20;
const COM1: u8 = CLOCK + 4;
const COM1_PORT: u16 = 0x3f8;
const TICKS: u32 = 50_000;
const BYTES: u32 = 64;

static CLOCKS: AtomicU32 = AtomicU32::new(0);
static SENT: AtomicU32 = AtomicU32::new(0);

/// The clock at its highest rate, and a serial port that wants a byte each time.
pub(crate) fn storm(_: &Boot) -> Verdict {
    CLOCKS.store(0, Ordering::Relaxed);
    SENT.store(0, Ordering::Relaxed);
    println!("probe storm: about to begin");
    serial::drain();
    idt::set_handler(CLOCK, |_| {
        if CLOCKS.fetch_add(1, Ordering::Relaxed) + 1 == TICKS {
            outb(0x21, inb(0x21) | 1);
        }
        outb(0x20, 0x20);
    });
    idt::set_handler(COM1, |_| {
        let _ = inb(COM1_PORT + 2);
        if SENT.fetch_add(1, Ordering::Relaxed) < BYTES {
            outb(COM1_PORT, b'.');
        } else {
            outb(COM1_PORT + 1, 0);
        }
        outb(0x20, 0x20);
    });
    // What is gone by the time it is asked for comes as the lowest, and is not acknowledged.
    idt::set_handler(CLOCK + 7, |_| {});
    time::start_at(CLOCK, 2, 0xff);
    // Interrupt when the transmitter is empty. This program may come to nothing once both are let in.
    outb(COM1_PORT + 1, 2);
    outb(0x21, 0xee);
    loop {
        // The last interrupt must not come between this look and the halt.
        cpu::disable_interrupts();
        if CLOCKS.load(Ordering::Relaxed) == TICKS && SENT.load(Ordering::Relaxed) > BYTES {
            break;
        }
        cpu::wait_for_interrupt();
    }
    time::stop();
    outb(COM1_PORT + 1, 0);
    let (clocks, sent) = (CLOCKS.load(Ordering::Relaxed), SENT.load(Ordering::Relaxed));
    println!();
    println!("probe storm: {clocks} clock interrupts, {sent} of the serial port");
    ensure(clocks == TICKS, "clock interrupts", clocks)
}

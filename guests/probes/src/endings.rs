//! Probes that end the guest.

use core::arch::asm;

use pc::{cpu, handover::Boot, port, power, println, serial};

use crate::probe::{Failure, Verdict};

/// Time-stamp ticks that no reset needs: a few seconds at most.
const PATIENCE: u64 = 1 << 31;

/// Shuts the processor down.
pub(crate) fn triple_fault(_: &Boot) -> Verdict {
    println!("probe triple-fault: about to fault without a descriptor table");
    serial::drain();
    power::triple_fault()
}

/// Resets through the keyboard controller.
pub(crate) fn reset_by_keyboard_controller(_: &Boot) -> Verdict {
    reset(
        "the keyboard controller",
        power::reset_by_keyboard_controller,
    )
}

/// Resets through system control port A.
pub(crate) fn reset_by_port_92(_: &Boot) -> Verdict {
    reset("port 0x92", power::reset_by_port_92)
}

/// Resets through the chipset.
pub(crate) fn reset_by_cf9(_: &Boot) -> Verdict {
    reset("port 0xcf9", power::reset_by_cf9)
}

fn reset(name: &str, way: fn()) -> Verdict {
    println!("probe reset: resetting by {name}");
    serial::drain();
    way();
    let start = cpu::tsc();
    while cpu::tsc() - start < PATIENCE {}
    Err(Failure {
        what: "still here",
        found: 0,
    })
}

/// Keeps the processor busy for ever, with interrupts off.
pub(crate) fn spin(_: &Boot) -> Verdict {
    println!("probe spin: about to spin with interrupts off");
    serial::drain();
    cpu::disable_interrupts();
    loop {
        // SAFETY: does nothing. The loop's only instruction besides its jump.
        unsafe { asm!("", options(nomem, nostack, preserves_flags)) }
    }
}

/// Halts for ever with interrupts off, before the eyes of a watchdog that waits for a second: the 6300ESB's, the only
/// device behind the chipset's.
pub(crate) fn hang(_: &Boot) -> Verdict {
    /// PCI configuration mechanism 1, and the watchdog's device number in it.
    const ADDRESS: u16 = 0xCF8;
    const DATA: u16 = 0xCFC;
    const DEVICE: u32 = 0x8000_0000 | 2 << 11;
    /// The configuration register: counts of a microsecond, no interrupt. The lock register: enabled, free-running, so
    /// that there is one stage, which has the greatest count after a reset.
    const SETTINGS: [(u32, u32); 2] = [(0x60, 0x07), (0x68, 0x06)];
    println!("probe hang: about to halt with interrupts off");
    serial::drain();
    for (register, value) in SETTINGS {
        port::outl(ADDRESS, DEVICE | register);
        port::outl(DATA, value);
    }
    cpu::halt_forever()
}

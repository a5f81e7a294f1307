//! Probes that end the guest.

use core::arch::asm;

use pc::{cpu, handover::Boot, power, println, serial};

use crate::probe::{Failure, Verdict};

/// Time-stamp ticks that no reset needs: a few seconds at most.
const PATIENCE: u64 = 1 << 31;

/// Shuts the processor down.
pub(crate) fn triple_fault(_: &Boot) -> Verdict {
    println!("probe triple-fault: about to fault without a descriptor table");
    serial::drain();
    power::triple_fault()
}

/// Resets by the way that the second word names: `kbd`, `92` or `cf9`.
pub(crate) fn reset(boot: &Boot) -> Verdict {
    let (name, way): (_, fn()) = match boot.command_line().words().nth(1) {
        Some("92") => ("port 0x92", power::reset_by_port_92),
        Some("cf9") => ("port 0xcf9", power::reset_by_cf9),
        _ => (
            "the keyboard controller",
            power::reset_by_keyboard_controller,
        ),
    };
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

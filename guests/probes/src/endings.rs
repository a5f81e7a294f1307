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

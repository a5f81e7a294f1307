//! Instructions that the standard library has no name for.

use std::arch::asm;
use std::arch::x86_64::_rdtsc;

/// The time-stamp counter.
pub(crate) fn tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux leaves it to programs.
    unsafe { _rdtsc() }
}

/// Bochs's magic breakpoint: stops its debugger, which tells the tick; nothing happens elsewhere.
pub(crate) fn magic_break() {
    // SAFETY: exchanges a register with itself.
    unsafe { asm!("xchg bx, bx", options(nomem, nostack, preserves_flags)) };
}

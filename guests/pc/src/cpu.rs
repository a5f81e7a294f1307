//! The processor: interrupts, time stamps, registers.

use core::arch::asm;

/// The interrupt flag in EFLAGS.
pub const INTERRUPT_FLAG: u32 = 1 << 9;

/// Stops taking interrupts.
#[inline]
pub fn disable_interrupts() {
    // SAFETY: clearing IF breaks no invariant of Rust. Not `nomem`: this is a fence for the compiler.
    unsafe { asm!("cli", options(nostack)) }
}

/// Takes interrupts from the instruction after the next.
#[inline]
pub fn enable_interrupts() {
    // SAFETY: handlers save what they change. Not `nomem`: they may write memory that they share.
    unsafe { asm!("sti", options(nostack)) }
}

/// Takes interrupts and sleeps until one came.
#[inline]
pub fn wait_for_interrupt() {
    // SAFETY: as in `enable_interrupts`; STI holds interrupts off until HLT has begun, so none is slept over.
    unsafe { asm!("sti", "hlt", options(nostack)) }
}

/// Stops for good.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: with IF clear nothing wakes the processor but NMI, and then it halts again.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// EFLAGS.
#[inline]
#[must_use]
pub fn flags() -> u32 {
    let flags: u32;
    // SAFETY: pushes one word on a valid stack and takes it back.
    unsafe { asm!("pushfd", "pop {}", out(reg) flags, options(nomem, preserves_flags)) }
    flags
}

/// Runs `body` with interrupts off, and then leaves them as they were.
#[inline]
pub fn without_interrupts<T>(body: impl FnOnce() -> T) -> T {
    let enabled = flags() & INTERRUPT_FLAG != 0;
    disable_interrupts();
    let result = body();
    if enabled {
        enable_interrupts();
    }
    result
}

/// The time-stamp counter.
#[inline]
#[must_use]
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: every processor this runs on has a TSC, and CR4.TSD matters only outside ring 0.
    // Not `nomem`: so that it is not moved across memory accesses that are being timed.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nostack, preserves_flags)) }
    u64::from(high) << 32 | u64::from(low)
}

/// What CPUID says in EAX, EBX, ECX, EDX.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let (a, b, c, d);
    // SAFETY: reads no memory and changes only these registers.
    unsafe {
        asm!("cpuid", inout("eax") leaf => a, out("ebx") b, inout("ecx") subleaf => c, out("edx") d,
             options(nomem, nostack, preserves_flags));
    }
    [a, b, c, d]
}

/// CR0.
#[must_use]
pub fn cr0() -> u32 {
    let value;
    // SAFETY: a read without side effects in ring 0.
    unsafe { asm!("mov {}, cr0", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// CR4.
#[must_use]
pub fn cr4() -> u32 {
    let value;
    // SAFETY: a read without side effects in ring 0.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// CR2, the address of the last page fault.
#[must_use]
pub fn cr2() -> u32 {
    let value;
    // SAFETY: a read without side effects in ring 0.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Executes UD2.
pub fn undefined_instruction() {
    // SAFETY: raises an exception, whose handler leaves memory alone; if it returns, execution goes on behind.
    unsafe { asm!("ud2", options(nomem, nostack)) }
}

/// Clears what keeps FPU instructions from being executed: CR0.EM and CR0.TS.
pub fn allow_fpu() {
    const EMULATION_OR_SWITCHED: u32 = 1 << 2 | 1 << 3;
    let value = cr0() & !EMULATION_OR_SWITCHED;
    // SAFETY: the two bits only decide about FPU instructions.
    unsafe { asm!("mov cr0, {}", in(reg) value, options(nomem, nostack, preserves_flags)) }
}

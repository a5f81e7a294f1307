//! The end: a defect of the hypervisor, or broken hardware.
//!
//! The first processor to panic stops the others, then prints what happened, its registers and the
//! return addresses on its stack, one per line as `  at 0x…`, which `cargo xtask symbolize` reads.

use super::interrupts::TrapFrame;
use alloc::vec::Vec;
use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use drivers::local_apic::{Ipi, LocalApic};
use drivers::tsc;
use spin::Once;
use x86_64::registers::control::{Cr2, Cr3};

static APIC: Once<LocalApic> = Once::new();
/// APIC IDs of the processors that run.
static PROCESSORS: Once<Vec<u32>> = Once::new();
static IN_PROGRESS: AtomicBool = AtomicBool::new(false);

/// Return addresses are printed up to this depth.
const DEPTH: usize = 32;
/// Where the hypervisor's stacks and image are.
const UPPER_HALF: u64 = 0xffff_8000_0000_0000;

/// Lets a panic reach the other processors.
pub(super) fn remember_apic(apic: LocalApic) {
    APIC.call_once(|| apic);
}

/// Names the processors that a panic must stop.
pub(super) fn remember_processors(apic_ids: &[u32]) {
    PROCESSORS.call_once(|| apic_ids.to_vec());
}

pub(super) fn in_progress() -> bool {
    IN_PROGRESS.load(Ordering::Acquire)
}

pub(super) fn stop_here() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// An exception in the hypervisor.
pub(super) fn exception(what: &str, frame: &TrapFrame) -> ! {
    begin();
    let TrapFrame {
        vector,
        error_code,
        rip,
        ..
    } = frame;
    say(format_args!(
        "PANIC: {what} {vector} (error code {error_code:#x}) at {rip:#x}\n"
    ));
    say(format_args!("{frame:x?}\n"));
    say_control_registers();
    say(format_args!("  at {rip:#x}\n"));
    backtrace(frame.rbp);
    stop_here()
}

/// A panic in the hypervisor's code.
#[cfg_attr(
    not(target_os = "none"),
    expect(dead_code, reason = "the image's panic handler is not linked on hosts")
)]
pub(super) fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    begin();
    say(format_args!("PANIC: {info}\n"));
    say_control_registers();
    let frame: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    backtrace(frame);
    stop_here()
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic_handler(info: &core::panic::PanicInfo<'_>) -> ! {
    panic(info)
}

/// Stops the other processors and the network cards; a second panic stops at once.
fn begin() {
    x86_64::instructions::interrupts::disable();
    if IN_PROGRESS.swap(true, Ordering::AcqRel) {
        stop_here();
    }
    stop_others();
    hypervisor::stop_network();
}

/// Stops the other processors for good, whatever they do.
pub(super) fn stop_others() {
    /// Long enough for a processor to leave its guest and take the NMI.
    const PATIENCE: u64 = 1_000_000;
    IN_PROGRESS.store(true, Ordering::Release);
    let Some(apic) = APIC.get() else { return };
    let own = apic.id();
    for id in PROCESSORS
        .get()
        .into_iter()
        .flatten()
        .filter(|id| **id != own)
    {
        apic.send(*id, Ipi::Nmi);
    }
    let start = tsc::read();
    while tsc::read().wrapping_sub(start) < PATIENCE {
        core::hint::spin_loop();
    }
}

fn say(arguments: fmt::Arguments<'_>) {
    // SAFETY: the others were stopped, and nobody returns from a panic.
    unsafe { hypervisor::console::write_last_words(arguments) };
}

fn say_control_registers() {
    let cr2 = Cr2::read_raw();
    let cr3 = Cr3::read().0.start_address().as_u64();
    let rsp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    say(format_args!("  rsp {rsp:#x}  cr2 {cr2:#x}  cr3 {cr3:#x}\n"));
}

/// Follows the chain of saved frame pointers.
fn backtrace(mut frame: u64) {
    for _ in 0..DEPTH {
        // Frames grow toward higher addresses; anything else is the end or damage.
        if frame < UPPER_HALF || !frame.is_multiple_of(8) {
            return;
        }
        let pointer = frame as *const u64;
        // SAFETY: an aligned address in the upper half that a frame pointer held. If it is damaged the
        // read faults and the second panic stops the processor: nothing is lost that was not lost.
        let (next, address) = unsafe { (pointer.read_volatile(), pointer.add(1).read_volatile()) };
        if address < UPPER_HALF {
            return;
        }
        say(format_args!("  at {address:#x}\n"));
        if next <= frame {
            return;
        }
        frame = next;
    }
}

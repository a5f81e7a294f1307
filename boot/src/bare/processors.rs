//! Starting the other processors (Intel SDM volume 3, section 9.4).

use super::boot_info::Area;
use super::interrupts;
use super::paging::AddressSpace;
use super::stacks::{Purpose, Stacks};
use super::{BootError, DIRECT_MAP};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use drivers::local_apic::{Ipi, LocalApic};
use drivers::tsc;
use hypervisor::memory::PhysicalMemory;
use log::warn;

/// Where the start-up code is copied: a page that PC firmware leaves free.
const TRAMPOLINE: u64 = 0x8000;

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static mut ap_cr3: u64;
    static mut ap_stack_top: u64;
}

/// Number of the processor that is being started and of its stacks, and how many have come up.
static STARTING: AtomicUsize = AtomicUsize::new(0);
static STACKS: AtomicUsize = AtomicUsize::new(0);
static ARRIVED: AtomicUsize = AtomicUsize::new(1);

/// Starts every processor but this one; returns the APIC IDs of those that run, this one first.
pub(super) fn start_others(
    apic_ids: &[u32],
    ram: &[Area],
    local_apic: LocalApic,
    tables: &mut AddressSpace,
    memory: &mut PhysicalMemory,
    tsc_hz: u64,
) -> Result<Vec<u32>, BootError> {
    let own = local_apic.id();
    let mut running = alloc::vec![own];
    let others: Vec<u32> = apic_ids.iter().copied().filter(|id| *id != own).collect();
    if others.is_empty() {
        return Ok(running);
    }
    let page = TRAMPOLINE..TRAMPOLINE + 4096;
    if !ram
        .iter()
        .any(|area| area.range.start <= page.start && page.end <= area.range.end)
    {
        warn!("no memory at {TRAMPOLINE:#x} to start other processors from: they stay off");
        return Ok(running);
    }
    copy_trampoline();
    for (attempt, apic_id) in others.into_iter().enumerate() {
        let number = running.len();
        // A processor that failed to start keeps its stacks: it could still wake up.
        let stacks = Stacks::of(attempt + 1);
        tables.map_stacks(stacks, memory)?;
        STARTING.store(number, Ordering::Release);
        STACKS.store(attempt + 1, Ordering::Release);
        // SAFETY: read by the processor that is about to be started, and by no other: those before
        // it have announced themselves or were sent back to sleep.
        unsafe {
            (&raw mut ap_cr3).write_volatile(tables.root());
            (&raw mut ap_stack_top).write_volatile(stacks.top(Purpose::Main));
        }
        local_apic.send(apic_id, Ipi::Init);
        wait(tsc_hz / 100, || false);
        for _ in 0..2 {
            local_apic.send(apic_id, Ipi::StartUp((TRAMPOLINE >> 12) as u8));
            if wait(tsc_hz / 10, || ARRIVED.load(Ordering::Acquire) > number) {
                break;
            }
        }
        if ARRIVED.load(Ordering::Acquire) > number {
            running.push(apic_id);
        } else {
            local_apic.send(apic_id, Ipi::Init);
            warn!("the processor with APIC ID {apic_id} does not start");
        }
    }
    Ok(running)
}

fn copy_trampoline() {
    let start = &raw const trampoline_start;
    let length = (&raw const trampoline_end as usize) - start as usize;
    // SAFETY: the code lies in the image's read-only data; the page is in the first megabyte, which
    // is kept out of the free memory.
    unsafe {
        DIRECT_MAP
            .pointer(TRAMPOLINE)
            .copy_from_nonoverlapping(start, length)
    };
}

/// Waits up to `ticks` TSC ticks for `done`; returns whether it came.
fn wait(ticks: u64, done: impl Fn() -> bool) -> bool {
    let start = tsc::read();
    while !done() {
        if tsc::read().wrapping_sub(start) > ticks {
            return done();
        }
        core::hint::spin_loop();
    }
    true
}

/// The first Rust code of a started processor, on its own stack.
#[unsafe(no_mangle)]
extern "sysv64" fn ap_main() -> ! {
    let number = STARTING.load(Ordering::Acquire);
    let host = interrupts::set_up(number, Stacks::of(STACKS.load(Ordering::Acquire)));
    ARRIVED.store(number + 1, Ordering::Release);
    // SAFETY: once on this processor, whose tables `set_up` made for good; interrupts are off since
    // its reset.
    unsafe { hypervisor::run(number, host) }
}

/// Enters the hypervisor on the first processor.
pub(super) fn enter_first() -> ! {
    let host = interrupts::host_state(0);
    // SAFETY: as in `ap_main`; interrupts are off since the entry.
    unsafe { hypervisor::run(0, host) }
}

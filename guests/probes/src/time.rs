//! The clock interrupt: its rate, and waking from HLT by it.

use core::sync::atomic::{AtomicU32, Ordering};

use pc::{
    cpu,
    handover::Boot,
    idt,
    port::{inb, outb},
    println,
};

use crate::probe::{Failure, Verdict, ensure};

const VECTOR: u8 = 0x20;
const SECONDS: u32 = 3;
/// So often is the RTC asked for its next second.
const PATIENCE: u32 = 100_000_000;

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

/// Lets only the PIT interrupt, by vector 0x20, at 1193182 / `divisor` Hz.
pub(crate) fn start(divisor: u16) {
    INTERRUPTS.store(0, Ordering::Relaxed);
    idt::set_handler(VECTOR, |_| {
        INTERRUPTS.fetch_add(1, Ordering::Relaxed);
        outb(0x20, 0x20);
    });
    start_at(VECTOR, divisor, 0xfe);
}

/// As [`start`], by another vector, a multiple of eight, whose handler is there; `mask` says which interrupts
/// are held back.
pub(crate) fn start_at(vector: u8, divisor: u16, mask: u8) {
    for (chip, base, wiring) in [(0x20, vector, 4), (0xa0, vector + 8, 2)] {
        outb(chip, 0x11);
        outb(chip + 1, base);
        outb(chip + 1, wiring);
        outb(chip + 1, 1);
    }
    outb(0x21, mask);
    outb(0xa1, 0xff);
    outb(0x43, 0x34);
    let [low, high] = divisor.to_le_bytes();
    outb(0x40, low);
    outb(0x40, high);
    cpu::enable_interrupts();
}

/// Masks all interrupts.
pub(crate) fn stop() {
    cpu::disable_interrupts();
    outb(0x21, 0xff);
}

/// Waits for the RTC's next second; interrupts and time stamp then.
fn second() -> Result<(u32, u64), Failure> {
    let seconds = || {
        outb(0x70, 0);
        inb(0x71)
    };
    let before = seconds();
    for _ in 0..PATIENCE {
        if seconds() != before {
            return Ok((INTERRUPTS.load(Ordering::Relaxed), cpu::tsc()));
        }
    }
    Err(Failure {
        what: "the rtc stands still",
        found: before.into(),
    })
}

/// Counts interrupts and time stamps by the seconds of the RTC.
pub(crate) fn timer(_: &Boot) -> Verdict {
    start(1193);
    let (first, start_time) = second()?;
    let (mut last, mut end_time) = (first, start_time);
    for _ in 0..SECONDS {
        (last, end_time) = second()?;
    }
    stop();
    let (interrupts, ticks) = (last - first, end_time - start_time);
    println!("probe timer: {SECONDS} s by rtc, {interrupts} interrupts, {ticks} tsc ticks");
    // 1000.15 Hz; the edges of the RTC's seconds are found to some 10 us.
    let expected = SECONDS * 1000;
    ensure(
        interrupts.abs_diff(expected) <= expected / 200,
        "interrupts",
        interrupts,
    )
}

/// Halts a hundred times, and is woken each time.
pub(crate) fn halts(_: &Boot) -> Verdict {
    const HALTS: u32 = 100;
    start(11_932);
    let begin = cpu::tsc();
    for _ in 0..HALTS {
        cpu::wait_for_interrupt();
    }
    let ticks = cpu::tsc() - begin;
    stop();
    let interrupts = INTERRUPTS.load(Ordering::Relaxed);
    println!("probe hlt: {HALTS} halts, {interrupts} interrupts, {ticks} tsc ticks");
    ensure(
        (HALTS..=HALTS + 2).contains(&interrupts),
        "interrupts",
        interrupts,
    )
}

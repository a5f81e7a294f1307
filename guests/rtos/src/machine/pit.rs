//! The 8254: the tick, and the finest clock the board has.

use pc::{
    cpu,
    port::{inb, outb},
};
use rtos::latency::PIT_HZ;

use super::{
    pic,
    shared::{Late, Shared},
};
use crate::system;

const COUNTER: u16 = 0x40;
const CONTROL: u16 = 0x43;
const LATCH: u8 = 0x00;
/// Counter 0, low byte then high, mode 2.
const RATE_GENERATOR: u8 = 0x34;
const LINE: u8 = 0;

/// The chip's clocks per tick.
pub(crate) const DIVISOR: u32 = 1193;

static TSC_HZ: Late<u64> = Late::new();
static TICKS: Shared<u64> = Shared::new(0);

/// The counter, latched, and the time stamp in the middle of the latching.
pub(crate) fn latch() -> (u32, u64) {
    let before = cpu::tsc();
    outb(CONTROL, LATCH);
    let after = cpu::tsc();
    let count = u32::from(inb(COUNTER)) | u32::from(inb(COUNTER)) << 8;
    (count, before + (after - before) / 2)
}

/// Clocks since the counter's output last rose, and the time stamp of the latching.
pub(crate) fn phase() -> (u32, u64) {
    let (count, time) = latch();
    // The counter runs from the divisor down to 1.
    (DIVISOR.saturating_sub(count), time)
}

fn run(divisor: u32) {
    outb(CONTROL, RATE_GENERATOR);
    outb(COUNTER, divisor as u8);
    outb(COUNTER, (divisor >> 8) as u8);
}

/// Measures the time-stamp counter against the chip: the median of three spans of some 40 ms.
///
/// Each span lies within one pass of the counter, so that it is right however long anything takes.
pub(crate) fn calibrate() -> u64 {
    const SPAN: u32 = 47_727;
    let mut rates = [0_u64; 3];
    for rate in &mut rates {
        for _ in 0..10 {
            run(0);
            let (mut first, mut start) = latch();
            while first == 0 {
                (first, start) = latch();
            }
            let (mut last, mut end) = (first, start);
            // 65536 clocks from the start, the counter begins anew: then this span is lost.
            while last <= first && first - last < SPAN {
                (last, end) = latch();
            }
            if last < first {
                *rate = (end - start) * PIT_HZ / u64::from(first - last);
                break;
            }
        }
    }
    rates.sort_unstable();
    TSC_HZ.set(rates[1]);
    rates[1]
}

/// The measured rate of the time-stamp counter.
pub(crate) fn tsc_hz() -> u64 {
    TSC_HZ.get().unwrap_or(0)
}

/// Starts the tick.
pub(crate) fn start() {
    run(DIVISOR);
    pic::connect(LINE, || {
        TICKS.with(|ticks| *ticks += 1);
        system::tick();
    });
}

/// Ticks, and clocks of the chip, since the tick was started; and the time stamp of that instant.
pub(crate) fn now() -> (u64, u64, u64) {
    cpu::without_interrupts(|| {
        let (phase, time) = phase();
        let mut ticks = TICKS.with(|ticks| *ticks);
        // A rise just before the latching may not have interrupted yet.
        if phase < DIVISOR / 2 && pic::requested(LINE) {
            ticks += 1;
        }
        (ticks, ticks * u64::from(DIVISOR) + u64::from(phase), time)
    })
}

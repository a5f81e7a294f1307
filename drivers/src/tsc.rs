//! The time-stamp counter and its calibration.

use crate::{pit, port};
use core::arch::x86_64::{__cpuid, __cpuid_count};
use x86_64::registers::model_specific::Msr;

/// Reads the time-stamp counter.
#[must_use]
#[inline(always)]
pub fn read() -> u64 {
    // SAFETY: RDTSC exists on every 64-bit processor and has no side effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Whether the counter runs at one rate in every power state (CPUID leaf 0x8000_0007, EDX bit 8).
#[must_use]
pub fn is_invariant() -> bool {
    const LEAF: u32 = 0x8000_0007;
    __cpuid(0x8000_0000).eax >= LEAF && __cpuid(LEAF).edx & (1 << 8) != 0
}

/// IA32_TSC_ADJUST (Intel SDM volume 3, section 18.17.3).
const TSC_ADJUST: u32 = 0x3b;

/// What this processor's counter has been moved by since its reset, where the processor tells (CPUID leaf 7, EBX bit 1).
#[must_use]
pub fn adjustment() -> Option<u64> {
    const LEAF: u32 = 7;
    let there = __cpuid(0).eax >= LEAF && __cpuid_count(LEAF, 0).ebx & (1 << 1) != 0;
    // SAFETY: CPUID says that the register exists; reading it has no side effect.
    there.then(|| unsafe { Msr::new(TSC_ADJUST).read() })
}

/// Moves this processor's counter to where it has been moved by so much since its reset.
///
/// # Safety
///
/// [`adjustment`] must have said that the register exists, and nobody may rely on the counter's value across this.
pub unsafe fn set_adjustment(value: u64) {
    // SAFETY: passed on to the caller.
    unsafe { Msr::new(TSC_ADJUST).write(value) }
}

/// The frequency of the ACPI power-management timer in Hz (ACPI 6.5, section 4.8.3.3).
const PM_TIMER_FREQUENCY: u64 = 3_579_545;

/// A measured frequency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// TSC ticks per second.
    pub hz: u64,
    /// What the PM timer says, where the board has one.
    pub pm_timer_hz: Option<u64>,
}

/// Measures the TSC against the 8254, and against the PM timer at this port, which counts alone where
/// the firmware has stopped the 8254's clock. `None` when the board has neither.
///
/// # Safety
///
/// The caller must own the 8254's counter 2 and port 0x61, and `pm_timer` must be the PM timer.
#[must_use]
pub unsafe fn calibrate(pm_timer: Option<u16>) -> Option<Calibration> {
    /// Some 50 ms: long against the reading's error, short against the boot.
    const COUNT: u16 = 59_659;
    /// An SMI or a host's pause only lengthens a measurement, so the shortest is the truest.
    const TRIALS: usize = 3;
    let mut best = None;
    for _ in 0..TRIALS {
        // SAFETY: passed on to the caller.
        let Some(ticks) = (unsafe { pit::tsc_ticks_during(COUNT) }) else {
            break;
        };
        best = Some(best.map_or(ticks, |best: u64| best.min(ticks)));
    }
    let pit_hz = best.map(|ticks| ticks * pit::FREQUENCY / u64::from(COUNT));
    // SAFETY: passed on to the caller.
    let pm_timer_hz = pm_timer.and_then(|port| unsafe { measure_by_pm_timer(port) });
    Some(Calibration {
        hz: truest(pit_hz, pm_timer_hz)?,
        pm_timer_hz,
    })
}

/// The truer of two measurements: the 8254's, which is the finer one, unless pauses have lengthened it.
fn truest(pit: Option<u64>, pm_timer: Option<u64>) -> Option<u64> {
    /// This part of a frequency is more than both timers' steps make out.
    const PART: u64 = 4096;
    match (pit, pm_timer) {
        (Some(pit), Some(pm_timer)) if pm_timer < pit - pit / PART => Some(pm_timer),
        (pit, pm_timer) => pit.or(pm_timer),
    }
}

/// The TSC when a timer was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    timer: u32,
    tsc: u64,
}

/// Reads a timer between two readings of the TSC, some times, and takes the time when these were nearest to each other: any
/// of them may have been interrupted.
fn moment(mut timer: impl FnMut() -> u32, mut tsc: impl FnMut() -> u64) -> Moment {
    const READINGS: usize = 16;
    let mut reading = || {
        let before = tsc();
        let timer = timer();
        let width = tsc().wrapping_sub(before);
        let tsc = before.wrapping_add(width / 2);
        (width, Moment { timer, tsc })
    };
    let mut best = reading();
    for _ in 1..READINGS {
        let next = reading();
        if next.0 < best.0 {
            best = next;
        }
    }
    best.1
}

/// What the PM timer says, some 30 ms long. A pause in between does no harm: the timer goes on meanwhile.
///
/// # Safety
///
/// `timer` must be the port of the PM timer.
unsafe fn measure_by_pm_timer(timer: u16) -> Option<u64> {
    const TICKS: u32 = 100_000;
    const MASK: u32 = 0x00ff_ffff;
    /// A second or so, whatever the processor.
    const PATIENCE: u64 = 4_000_000_000;
    // SAFETY: reading the PM timer has no side effect.
    let now = || unsafe { port::read_u32(timer) } & MASK;
    let start = moment(now, read);
    while now().wrapping_sub(start.timer) & MASK < TICKS {
        if read().wrapping_sub(start.tsc) > PATIENCE {
            return None;
        }
    }
    let end = moment(now, read);
    let passed = end.timer.wrapping_sub(start.timer) & MASK;
    let ticks = u128::from(end.tsc.wrapping_sub(start.tsc));
    let hz = ticks * u128::from(PM_TIMER_FREQUENCY) / u128::from(passed.max(1));
    u64::try_from(hz).ok()
}

#[cfg(test)]
mod tests {
    use super::{Moment, moment, truest};

    #[test]
    fn a_measurement_that_pauses_lengthened_does_not_count() {
        const HZ: u64 = 2_000_000_000;
        for (pit, pm_timer, wanted) in [
            (Some(HZ), Some(HZ + 90_000), Some(HZ)),
            (Some(HZ), Some(HZ - 90_000), Some(HZ)),
            (Some(HZ + 20_000_000), Some(HZ), Some(HZ)),
            (Some(HZ), Some(HZ + 20_000_000), Some(HZ)),
            (None, Some(HZ), Some(HZ)),
            (Some(HZ), None, Some(HZ)),
            (None, None, None),
        ] {
            assert_eq!(truest(pit, pm_timer), wanted, "{pit:?} {pm_timer:?}");
        }
    }

    #[test]
    fn a_reading_that_was_interrupted_does_not_count() {
        // A clock of the TSC's, of which the timer's tick is 100; each reading takes 10, and all but one are interrupted.
        let clock = core::cell::Cell::new(1000_u64);
        let mut readings = 0;
        let mut tsc = || {
            clock.set(clock.get() + 10);
            clock.get()
        };
        let timer = || {
            readings += 1;
            let pauses = if readings == 5 { [0, 0] } else { [7000, 300] };
            clock.set(clock.get() + pauses[0] + 10);
            let timer = (clock.get() / 100) as u32;
            clock.set(clock.get() + pauses[1]);
            timer
        };
        let Moment { timer, tsc } = moment(timer, &mut tsc);
        assert!(tsc.abs_diff(u64::from(timer) * 100) < 120, "{timer} {tsc}");
    }
}

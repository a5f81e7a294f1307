//! Guest time, and its conversion to the clocks of devices.

use serde::{Deserialize, Serialize};

/// Absolute guest time in guest TSC ticks.
#[derive(
    Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Ticks(pub u64);

impl Ticks {
    /// A time that never comes.
    pub const NEVER: Self = Self(u64::MAX);
}

/// Conversion between guest TSC ticks and the cycles of a device's clock.
///
/// Both clocks start together at tick 0. The ratio is a 64-bit binary fraction, computed once: it is too great by
/// less than 2^-64 cycles a tick, so a device gains less than one cycle in the 2^64 ticks there are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Device cycles in a tick, times 2^64.
    cycles_per_tick: u64,
    /// Whole ticks in a device cycle.
    ticks_per_cycle: u64,
    /// The rest of a tick in a device cycle, times 2^64.
    ticks_per_cycle_fraction: u64,
}

impl Rate {
    /// The rate of a clock of `device_hz` beside a TSC of `tsc_hz`.
    ///
    /// The device must be the slower of the two and must run: `device_hz` is taken as at least 1 Hz, `tsc_hz` as at
    /// least 1 Hz more than the device.
    #[must_use]
    pub const fn new(device_hz: u64, tsc_hz: u64) -> Self {
        let device_hz = match device_hz {
            0 => 1,
            u64::MAX => u64::MAX - 1,
            hz => hz,
        };
        let tsc_hz = if tsc_hz > device_hz {
            tsc_hz
        } else {
            device_hz + 1
        };
        // Not 0, and below 2^64 because the device is slower.
        let cycles_per_tick = ((device_hz as u128) << 64).div_ceil(tsc_hz as u128) as u64;
        let inverse = u128::MAX / cycles_per_tick as u128;
        Self {
            cycles_per_tick,
            ticks_per_cycle: (inverse >> 64) as u64,
            ticks_per_cycle_fraction: inverse as u64,
        }
    }

    /// Device cycles that have begun by `now`.
    #[inline]
    #[must_use]
    pub const fn count(&self, now: Ticks) -> u64 {
        high_half(now.0, self.cycles_per_tick)
    }

    /// The first tick at which [`count`](Self::count) is `cycles`; [`Ticks::NEVER`] where that lies beyond 64 bits.
    #[must_use]
    pub const fn at(&self, cycles: u64) -> Ticks {
        let whole = cycles as u128 * self.ticks_per_cycle as u128;
        let part = high_half(cycles, self.ticks_per_cycle_fraction) as u128;
        let estimate = whole + part;
        if estimate >= u64::MAX as u128 {
            return Ticks::NEVER;
        }
        // The reciprocal is rounded down, so the estimate is early by two ticks at most.
        let mut tick = estimate as u64;
        while tick < u64::MAX && self.count(Ticks(tick)) < cycles {
            tick += 1;
        }
        Ticks(tick)
    }
}

/// The upper 64 bits of a product.
const fn high_half(a: u64, b: u64) -> u64 {
    ((a as u128 * b as u128) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn at_is_the_exact_inverse_of_count(
            device_hz in 1u64..100_000_000,
            extra in 1u64..10_000_000_000,
            cycles in 1u64..1 << 40,
        ) {
            let rate = Rate::new(device_hz, device_hz + extra);
            let at = rate.at(cycles);
            prop_assume!(at != Ticks::NEVER);
            prop_assert_eq!(rate.count(at), cycles);
            prop_assert_eq!(rate.count(Ticks(at.0 - 1)), cycles - 1);
        }

        #[test]
        fn any_rate_is_total(device_hz: u64, tsc_hz: u64, tick: u64, cycles: u64) {
            let rate = Rate::new(device_hz, tsc_hz);
            let _ = rate.count(Ticks(tick));
            let at = rate.at(cycles);
            prop_assert!(at == Ticks::NEVER || rate.count(at) == cycles);
        }
    }

    #[test]
    fn a_second_has_the_device_frequency_in_cycles() {
        let rate = Rate::new(1_193_182, 2_500_000_000);
        assert_eq!(rate.at(0), Ticks(0));
        for seconds in [1, 60, 365 * 86_400] {
            assert_eq!(
                rate.count(Ticks(2_500_000_000 * seconds)),
                1_193_182 * seconds
            );
        }
        assert_eq!(rate.count(Ticks(2_500_000_000 - 1)), 1_193_182 - 1);
    }
}

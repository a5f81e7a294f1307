//! A board's clock, against the time of the simulation.

use mirror::Instant;

/// A clock that shows something else than the time of the simulation, and goes a little faster or slower. Times of the simulation are in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// When the board started.
    pub(crate) started: u64,
    /// What it showed then, in nanoseconds.
    pub(crate) offset: u64,
    /// How much faster it goes, in millionths.
    pub(crate) rate: i64,
}

impl Clock {
    /// What it shows at a time, which is not before its start.
    pub(crate) fn shows(&self, now: u64) -> Instant {
        let passed = i128::from(now.saturating_sub(self.started));
        let passed = passed + passed * i128::from(self.rate) / 1_000_000;
        Instant(self.offset + passed as u64)
    }

    /// The first time at which it shows `then` or more.
    pub(crate) fn when(&self, then: Instant) -> u64 {
        let passed = i128::from(then.0.saturating_sub(self.offset));
        let passed = passed * 1_000_000 / (1_000_000 + i128::from(self.rate));
        let mut time = self.started.saturating_add(passed as u64);
        while self.shows(time) < then && time < u64::MAX {
            time += 1;
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for rate in [-400, 0, 1, 399] {
            let clock = Clock {
                started: 5_000_000,
                offset: 77,
                rate,
            };
            assert_eq!(clock.when(Instant(0)), clock.started);
            for then in [78, 1_000_000_007, 86_400_000_000_000] {
                let time = clock.when(Instant(then));
                assert!(clock.shows(time).0 >= then && clock.shows(time - 1).0 < then);
            }
        }
    }
}

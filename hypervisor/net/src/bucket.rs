//! Limits of rates.

/// A limit of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes a second, not 0.
    pub bytes_per_second: u64,
    /// Bytes that may pass at once after a rest; below 4 GiB.
    pub burst: u32,
}

/// A token bucket. It counts in bytes times ticks a second, so that nothing need be divided.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    rate: u64,
    ticks_per_second: u64,
    full: u64,
    /// Ticks after which it is full in any case.
    fills_in: u64,
    level: u64,
    seen: u64,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate: Rate, ticks_per_second: u64) -> Self {
        let full = u64::from(rate.burst).saturating_mul(ticks_per_second);
        let bytes = rate.bytes_per_second.max(1);
        Self {
            rate: bytes,
            ticks_per_second,
            full,
            fills_in: full / bytes + 1,
            level: full,
            seen: 0,
        }
    }

    /// Takes `bytes` out at a time; whether there were as many.
    #[inline]
    pub(crate) fn take(&mut self, bytes: usize, now: u64) -> bool {
        // Processors' times differ a little: none goes back.
        let passed = now.saturating_sub(self.seen).min(self.fills_in);
        self.seen = self.seen.max(now);
        self.level = self
            .level
            .saturating_add(passed.saturating_mul(self.rate))
            .min(self.full);
        let price = (bytes as u64).saturating_mul(self.ticks_per_second);
        match self.level.checked_sub(price) {
            Some(left) => {
                self.level = left;
                true
            }
            None => false,
        }
    }
}

impl Bucket {
    /// Puts `bytes` back that were taken for nothing.
    pub(crate) fn give(&mut self, bytes: usize) {
        let price = (bytes as u64).saturating_mul(self.ticks_per_second);
        self.level = self.level.saturating_add(price).min(self.full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_more_passes_than_the_rate_and_a_burst(
            rate in 1u64..1_000_000_000,
            burst in 0u32..100_000,
            hz in 1_000_000u64..5_000_000_000,
            steps in prop::collection::vec((0u64..10_000_000, 0usize..9000), 1..200),
        ) {
            let limit = Rate { bytes_per_second: rate, burst };
            let mut bucket = Bucket::new(limit, hz);
            let (mut now, mut passed) = (1_u64 << 40, 0_u128);
            let start = now;
            for (ticks, bytes) in steps {
                now += ticks;
                if bucket.take(bytes, now) {
                    passed += bytes as u128;
                }
                let allowed = u128::from(burst) * u128::from(hz)
                    + u128::from(now - start) * u128::from(rate);
                prop_assert!(passed * u128::from(hz) <= allowed);
            }
        }
    }

    #[test]
    fn it_fills_again() {
        let limit = Rate {
            bytes_per_second: 1000,
            burst: 500,
        };
        let mut bucket = Bucket::new(limit, 1_000_000);
        assert!(bucket.take(500, 0));
        assert!(!bucket.take(1, 999));
        assert!(bucket.take(1, 1000));
        // Half a second fills it, and no more than that.
        assert!(!bucket.take(501, 10_000_000));
        assert!(bucket.take(500, 10_000_000));
        // Time that goes back fills nothing.
        assert!(!bucket.take(1, 5_000_000));
    }
}

//! How long an answer takes (RFC 6298, section 2).

use core::time::Duration;

/// The estimate of the round trip.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundTrip {
    /// None before the first sample.
    smooth: Option<Duration>,
    deviation: Duration,
    floor: Duration,
    ceiling: Duration,
}

impl RoundTrip {
    /// Nothing is known but the limits of a timeout.
    pub(super) const fn new(floor: Duration, ceiling: Duration) -> Self {
        Self {
            smooth: None,
            deviation: Duration::ZERO,
            floor,
            ceiling,
        }
    }

    /// An answer took so long, without the time that the peer kept it.
    pub(super) fn sample(&mut self, took: Duration) {
        let Some(smooth) = self.smooth else {
            (self.smooth, self.deviation) = (Some(took), took / 2);
            return;
        };
        self.deviation = (self.deviation * 3 + smooth.abs_diff(took)) / 4;
        self.smooth = Some((smooth * 7 + took) / 8);
    }

    /// How long after a frame one that was sent later may be answered before this one counts as lost (RFC 9002, section 6.1.2).
    pub(super) fn reordering(&self) -> Duration {
        self.smooth.map_or(self.ceiling, |smooth| smooth * 9 / 8)
    }

    /// After how long without an answer, the `tries`-th time in a row, something is sent again.
    pub(super) fn timeout(&self, answer_delay: Duration, tries: u32) -> Duration {
        let once = match self.smooth {
            // Nothing is known; a link of one's own is fast.
            None => self.floor * 4,
            Some(smooth) => (smooth + self.deviation * 4 + answer_delay).max(self.floor),
        };
        once.saturating_mul(1 << tries.min(16)).min(self.ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_timeout_follows_the_samples_within_its_limits() {
        let mut trip = RoundTrip::new(MS, 100 * MS);
        assert_eq!(trip.timeout(MS, 0), 4 * MS);
        trip.sample(10 * MS);
        assert_eq!(trip.timeout(MS, 0), 31 * MS);
        assert_eq!(trip.reordering(), 90 * MS / 8);
        for _ in 0..100 {
            trip.sample(MS / 10);
        }
        let steady = trip.timeout(Duration::ZERO, 0);
        assert_eq!(steady, MS);
        assert_eq!(trip.timeout(Duration::ZERO, 3), 8 * MS);
        assert_eq!(trip.timeout(Duration::ZERO, 99), 100 * MS);
    }
}

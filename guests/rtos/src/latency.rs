//! Release latency of a task that the clock interrupt releases at every period.
//!
//! The clock chip's output rises once per period; that instant is the deadline. At each release the task notes
//! the time-stamp counter, and the chip's latched counter with the time stamp of the latching. The chip tells
//! how long ago its output rose, but only in its own clocks of 838 ns; the time stamps are fine, but have no
//! common zero with the chip. A straight line through all pairs of (chip clocks, time stamp) joins the two: it
//! gives the time stamp of every rise, with the chip's coarseness averaged out and without any belief in a
//! calibration. The calibrated rate only tells how many whole periods lie between two releases.

/// Clocks per second of the 8254.
pub const PIT_HZ: u64 = 1_193_182;

/// What is noted at a release.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Release {
    /// Time stamp as the first thing the task does.
    pub released: u64,
    /// Time stamp around the latching of the counter.
    pub latched: u64,
    /// Whole clocks since the output rose, as latched.
    pub phase: u32,
}

/// The figures of a run, in ticks of the time-stamp counter.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// Releases.
    pub count: usize,
    /// The smallest latency.
    pub min: u64,
    /// The mean.
    pub mean: u64,
    /// The latency that half of the releases do not exceed.
    pub p50: u64,
    /// The latency that 99 % of the releases do not exceed.
    pub p99: u64,
    /// The latency that 99.9 % of the releases do not exceed.
    pub p999: u64,
    /// The greatest.
    pub max: u64,
    /// Periods that had passed entirely before their release.
    pub overruns: u64,
    /// Length of a period.
    pub period: u64,
}

/// A straight line from half clocks of the chip to time stamps, both counted from the first release.
///
/// Sums are taken about a point in the middle of the run, which keeps their products within 128 bits for the
/// longest run on the fastest processor.
struct Line {
    count: i128,
    /// The point, and the sums of the distances from it.
    middle: (i128, i128),
    sum: (i128, i128),
    /// The slope, as a fraction.
    rise: i128,
    run: i128,
}

impl Line {
    fn through(points: impl Iterator<Item = (i128, i128)> + Clone) -> Self {
        let (mut count, mut total) = (0, (0, 0));
        for (x, y) in points.clone() {
            count += 1;
            total = (total.0 + x, total.1 + y);
        }
        let middle = (total.0 / count.max(1), total.1 / count.max(1));
        let (mut sum, mut rise, mut run) = ((0, 0), 0, 0);
        for (x, y) in points {
            let (x, y) = (x - middle.0, y - middle.1);
            sum = (sum.0 + x, sum.1 + y);
            rise += x * y;
            run += x * x;
        }
        Self {
            count,
            middle,
            sum,
            // What the rounding of the middle leaves.
            rise: rise - sum.0 * sum.1 / count.max(1),
            run: run - sum.0 * sum.0 / count.max(1),
        }
    }

    fn at(&self, x: i128) -> i128 {
        let distance = (x - self.middle.0) * self.count - self.sum.0;
        self.middle.1 + (self.sum.1 + distance * self.rise / self.run) / self.count
    }
}

/// Longest run that there is room for.
pub const MOST_RELEASES: usize = 32_768;

/// Works out the latencies of a run. Overwrites `releases`: each `released` becomes a latency, sorted.
///
/// `divisor` is the chip's clocks per period, `tsc_hz` the calibrated rate. `None` for fewer than two releases,
/// for more than [`MOST_RELEASES`], or if no time passed between them.
pub fn analyse(releases: &mut [Release], divisor: u32, tsc_hz: u64) -> Option<Statistics> {
    let first = *releases.first()?;
    if releases.len() < 2 || releases.len() > MOST_RELEASES || tsc_hz == 0 || divisor == 0 {
        return None;
    }
    let divisor = i128::from(divisor);
    // Turn each phase into half clocks since the rise before the first release: `phase` counts whole clocks, so
    // the middle of the clock is the best guess. Kept in `phase`, which has room for half an hour.
    let mut clocks = i128::from(first.phase);
    let mut previous = first;
    for release in &mut *releases {
        let passed = i128::from(release.latched.saturating_sub(previous.latched))
            * i128::from(PIT_HZ)
            / i128::from(tsc_hz);
        let about = clocks + passed - i128::from(release.phase);
        let periods = (about + divisor / 2).div_euclid(divisor);
        clocks = periods * divisor + i128::from(release.phase);
        previous = *release;
        release.phase = u32::try_from(clocks * 2 + 1).ok()?;
    }
    let since_first = |time: u64| i128::from(time) - i128::from(first.latched);
    let point = |release: &Release| (i128::from(release.phase), since_first(release.latched));
    let line = Line::through(releases.iter().map(point));
    if line.run == 0 {
        return None;
    }
    let rise_at = |period: i128| line.at(2 * divisor * period);
    let (mut due, mut overruns, mut sum) = (0_i128, 0, 0_i128);
    for release in &mut *releases {
        let time = since_first(release.released);
        let happened = i128::from(release.phase) / 2 / divisor;
        // A release cannot be due later than it happens: one that was counted as lost has come after all.
        due = due.min(happened);
        let latency = (time - rise_at(due)).max(0);
        let lost = happened - due;
        overruns += lost;
        due = happened + 1;
        sum += latency;
        release.released = u64::try_from(latency).ok()?;
    }
    releases.sort_unstable_by_key(|release| release.released);
    let count = releases.len();
    let within = |per_mille: usize| releases[(count * per_mille).div_ceil(1000) - 1].released;
    Some(Statistics {
        count,
        min: releases[0].released,
        mean: u64::try_from(sum / count as i128).ok()?,
        p50: within(500),
        p99: within(990),
        p999: within(999),
        max: releases[count - 1].released,
        overruns: u64::try_from(overruns).ok()?,
        period: u64::try_from((2 * divisor * line.rise + line.run / 2) / line.run).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MOST_RELEASES, PIT_HZ, Release, Statistics, analyse};

    const DIVISOR: u32 = 1193;

    /// A run on a machine of a given rate, with an offset between chip and time stamps. `late` gives the latency
    /// of each release in time stamps, and how many periods after the previous one it was due.
    fn run(hz: u64, offset: u64, late: &[(u64, u64)]) -> Vec<Release> {
        let mut period = 0;
        late.iter()
            .map(|&(latency, periods)| {
                period += periods;
                let rise =
                    u128::from(period) * u128::from(DIVISOR) * u128::from(hz) / u128::from(PIT_HZ);
                let released = offset + rise as u64 + latency;
                let latched = released + 30;
                let clocks = u128::from(latched - offset) * u128::from(PIT_HZ) / u128::from(hz);
                Release {
                    released,
                    latched,
                    phase: (clocks % u128::from(DIVISOR)) as u32,
                }
            })
            .collect()
    }

    #[test]
    fn known_latencies() {
        let mut late = vec![(500, 1); 1000];
        late[300].0 = 9000;
        late[700].0 = 100;
        for release in &mut late[800..820] {
            release.0 = 700;
        }
        let mut releases = run(50_000_000, 123_456_789, &late);
        let Statistics {
            count,
            min,
            mean,
            p50,
            p99,
            p999,
            max,
            overruns,
            period,
        } = analyse(&mut releases, DIVISOR, 50_000_000).unwrap();
        assert_eq!((count, overruns, period), (1000, 0, 49_992));
        assert!(
            min.abs_diff(100) < 10 && max.abs_diff(9000) < 10,
            "{min} {max}"
        );
        assert!(
            mean.abs_diff(512) < 10 && p50.abs_diff(500) < 10,
            "{mean} {p50}"
        );
        assert!(
            p99.abs_diff(700) < 10 && p999.abs_diff(700) < 10,
            "{p99} {p999}"
        );
    }

    #[test]
    fn a_lost_period_is_one_late_release() {
        let mut late = vec![(500, 1); 100];
        // The release is due, two periods pass, and the next rise releases again.
        late[50] = (500 + 2 * 49_992, 1);
        late[51] = (500, 3);
        let mut releases = run(50_000_000, 7, &late);
        let figures = analyse(&mut releases, DIVISOR, 50_000_000).unwrap();
        assert_eq!(figures.overruns, 2);
        assert!(
            figures.max.abs_diff(500 + 2 * 49_992) < 20 && figures.min.abs_diff(500) < 20,
            "{figures:?}"
        );
    }

    #[test]
    fn the_longest_run_on_a_fast_processor_fits() {
        const HZ: u64 = 10_000_000_000;
        let mut late = vec![(40_000, 1); MOST_RELEASES];
        late[MOST_RELEASES / 3].0 = 900_000;
        let mut releases = run(HZ, 1 << 62, &late);
        let figures = analyse(&mut releases, DIVISOR, HZ).unwrap();
        assert!(figures.p50.abs_diff(40_000) < 4000, "{figures:?}");
        assert!(figures.max.abs_diff(900_000) < 4000, "{figures:?}");
    }

    #[test]
    fn too_little_is_nothing() {
        assert_eq!(analyse(&mut [], DIVISOR, 1), None);
        assert_eq!(analyse(&mut [Release::default()], DIVISOR, 1), None);
        assert_eq!(analyse(&mut [Release::default(); 3], DIVISOR, 1), None);
    }

    proptest! {
        /// At any rate, and with a calibration that is off by 200 ppm, the figures are right to half a clock
        /// of the chip.
        #[test]
        fn any_rate(
            hz in 20_000_000_u64..4_000_000_000,
            error in -200_i64..200,
            offset in 0_u64..1 << 60,
            late in prop::collection::vec(0_u64..100, 50..400),
        ) {
            let clock = hz / PIT_HZ + 1;
            // Up to a tenth of a period, and well after the rise, so that no phase wraps.
            let late: Vec<_> = late.into_iter().map(|part| (part * clock + 3 * clock, 1)).collect();
            let believed = hz.checked_add_signed(hz as i64 / 1_000_000 * error).unwrap();
            let mut releases = run(hz, offset, &late);
            let figures = analyse(&mut releases, DIVISOR, believed).unwrap();
            let latencies = || late.iter().map(|&(latency, _)| latency);
            prop_assert_eq!(figures.overruns, 0);
            for (figure, truth) in [
                (figures.min, latencies().min().unwrap()),
                (figures.max, latencies().max().unwrap()),
                (figures.mean, latencies().sum::<u64>() / late.len() as u64),
            ] {
                prop_assert!(figure.abs_diff(truth) <= clock * 3 / 4 + 2, "{} is not {}", figure, truth);
            }
        }
    }
}

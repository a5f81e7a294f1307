//! What is told of a guest's epochs.

use crate::machine::Figures;
use alloc::collections::VecDeque;
use core::fmt::{self, Write};
use mirror::Epoch;

/// The upper bounds of a histogram's buckets, in microseconds.
const BOUNDS: [u64; 16] = [
    10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000,
];
const MICROSECOND: u64 = 1000;

/// How often times of what length were measured.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// By buckets, and those above.
    counts: [u64; BOUNDS.len() + 1],
    /// In nanoseconds.
    sum: u64,
}

impl Histogram {
    /// Adds a time in nanoseconds.
    pub(super) fn add(&mut self, time: u64) {
        let bucket = BOUNDS.partition_point(|bound| bound * MICROSECOND < time);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(time);
    }

    /// Writes it as Prometheus wants it: in seconds, each bucket with those below.
    pub(super) fn write(&self, to: &mut impl Write, name: &str, guest: &str) -> fmt::Result {
        let mut total = 0;
        for (count, bound) in self.counts.iter().zip(BOUNDS) {
            total += count;
            let seconds = Seconds(bound * MICROSECOND);
            writeln!(
                to,
                "understudy_{name}_bucket{{guest=\"{guest}\",le=\"{seconds}\"}} {total}"
            )?;
        }
        total += self.counts.last().copied().unwrap_or(0);
        let sum = Seconds(self.sum);
        writeln!(
            to,
            "understudy_{name}_bucket{{guest=\"{guest}\",le=\"+Inf\"}} {total}\n\
             understudy_{name}_sum{{guest=\"{guest}\"}} {sum}\n\
             understudy_{name}_count{{guest=\"{guest}\"}} {total}"
        )
    }
}

/// Nanoseconds, shown as seconds.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECOND: u64 = 1_000_000_000;
        write!(f, "{}.{:09}", self.0 / SECOND, self.0 % SECOND)
    }
}

/// A guest's epochs, since the board's start.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// How long the guest stood still.
    pub(super) pause: Histogram,
    /// From one epoch's end to the next one's.
    pub(super) length: Histogram,
    /// From an epoch's end until the backup had it.
    pub(super) delay: Histogram,
    /// What they cost, in the board's ticks.
    pub(super) cost: Figures,
    pub(super) pages: u64,
    /// Epochs of the understudy that were compared with the guest, and those that differed.
    pub(super) inspected: u64,
    pub(super) differing: u64,
    /// When the last one ended, in nanoseconds of the board's time; none if the next does not follow on it.
    pub(super) ended: Option<u64>,
    /// Epochs that the backup does not have, and when they ended.
    awaited: VecDeque<(Epoch, u64)>,
}

impl Epochs {
    /// This epoch has ended at a time, with a pause, both in nanoseconds, and so many pages.
    pub(super) fn end(&mut self, epoch: Epoch, now: u64, pause: u64, pages: u64) {
        self.pause.add(pause);
        if let Some(before) = self.ended.replace(now) {
            self.length.add(now.saturating_sub(before));
        }
        self.awaited.push_back((epoch, now));
        self.pages += pages;
    }

    /// The backup has an epoch, and those before it.
    pub(super) fn acknowledge(&mut self, epoch: Epoch, now: u64) {
        while let Some((_, ended)) = self.awaited.pop_front_if(|(awaited, _)| *awaited <= epoch) {
            self.delay.add(now.saturating_sub(ended));
        }
    }

    /// The next epoch does not follow on the last one.
    pub(super) fn interrupt(&mut self) {
        self.ended = None;
        self.awaited.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    #[test]
    fn a_histogram_is_written_cumulatively_and_in_seconds() {
        let mut histogram = Histogram::default();
        for time in [10_000, 10_001, 1_500_000, 3_000_000_000] {
            histogram.add(time);
        }
        let mut text = String::new();
        histogram.write(&mut text, "x_seconds", "rtos").unwrap();
        let lines: alloc::vec::Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), BOUNDS.len() + 3);
        let line = |at: usize| lines.get(at).copied().unwrap_or("");
        assert_eq!(
            line(0),
            "understudy_x_seconds_bucket{guest=\"rtos\",le=\"0.000010000\"} 1"
        );
        assert_eq!(
            line(1),
            "understudy_x_seconds_bucket{guest=\"rtos\",le=\"0.000020000\"} 2"
        );
        assert_eq!(
            line(7),
            "understudy_x_seconds_bucket{guest=\"rtos\",le=\"0.002000000\"} 3"
        );
        assert_eq!(
            line(16),
            "understudy_x_seconds_bucket{guest=\"rtos\",le=\"+Inf\"} 4"
        );
        assert_eq!(
            line(17),
            "understudy_x_seconds_sum{guest=\"rtos\"} 3.001520001"
        );
        assert_eq!(line(18), "understudy_x_seconds_count{guest=\"rtos\"} 4");
    }

    #[test]
    fn epochs_are_as_long_as_from_end_to_end() {
        let mut epochs = Epochs::default();
        epochs.end(Epoch(4), 1_000_000, 5000, 7);
        epochs.end(Epoch(5), 2_000_000, 5000, 7);
        epochs.acknowledge(Epoch(4), 3_000_000);
        epochs.end(Epoch(6), 21_000_000, 5000, 8);
        epochs.acknowledge(Epoch(6), 22_000_000);
        epochs.end(Epoch(7), 23_000_000, 5000, 8);
        epochs.interrupt();
        epochs.acknowledge(Epoch(7), 24_000_000);
        epochs.end(Epoch(8), 90_000_000, 5000, 1);
        assert_eq!(epochs.pages, 31);
        let sums = [&epochs.pause, &epochs.length, &epochs.delay].map(|it| it.sum);
        assert_eq!(sums, [25_000, 22_000_000, 23_000_000]);
    }
}

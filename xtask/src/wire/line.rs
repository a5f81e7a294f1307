//! One direction of a cable, and what it does to frames. All times are since the wire was laid.

use super::random::{Random, Share};
use std::fmt;
use std::time::Duration;

/// How much longer a frame takes that others are to overtake.
const DETOUR: Duration = Duration::from_millis(2);
/// How long frames wait at most where the rate is limited; those for which there is no more room are lost.
const QUEUE: Duration = Duration::from_millis(100);
/// What Ethernet adds to a frame: checksum, preamble and the gap behind it (IEEE 802.3, 3.1.1 and 4.4.2).
const OVERHEAD: usize = 4 + 8 + 12;

/// What a direction does to frames while it is not cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// How long a frame takes.
    pub delay: Duration,
    /// How much longer at most, by chance. Frames stay in order.
    pub jitter: Duration,
    /// Frames that are lost.
    pub loss: Share,
    /// Frames that come twice.
    pub duplicate: Share,
    /// Frames that those of the next 2 ms overtake.
    pub reorder: Share,
    /// Frames of which one bit is inverted.
    pub corrupt: Share,
    /// Bits per second; none for no limit. Frames wait for up to 100 ms.
    pub rate: Option<u64>,
    /// Frames with more bytes than this are lost; none for no limit.
    pub longest: Option<usize>,
}

/// Why a frame was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The direction was cut.
    Cut,
    /// By chance.
    Chance,
    /// Too many waited already.
    Full,
    /// It was too long.
    Long,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It does not arrive.
    Lost(Loss),
    /// It arrives.
    Carried {
        /// When.
        due: Duration,
        /// When it does so for a second time.
        again: Option<Duration>,
        /// Others overtake it.
        late: bool,
        /// This bit was inverted, counted from the first byte's lowest one.
        inverted: Option<usize>,
    },
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(Loss::Cut) => f.write_str("lost: cut"),
            Self::Lost(Loss::Chance) => f.write_str("lost"),
            Self::Lost(Loss::Full) => f.write_str("lost: queue full"),
            Self::Lost(Loss::Long) => f.write_str("lost: too long"),
            Self::Carried {
                again,
                late,
                inverted,
                ..
            } => {
                let mut words = Vec::new();
                words.extend(again.map(|_| "duplicated".to_owned()));
                words.extend(late.then(|| "overtaken".to_owned()));
                words.extend(inverted.map(|bit| format!("bit {} of byte {}", bit % 8, bit / 8)));
                f.write_str(&words.join(", "))
            }
        }
    }
}

/// One direction of a cable.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) faults: Faults,
    pub(super) cut: bool,
    /// Until when it is interrupted.
    down_until: Duration,
    random: Random,
    /// When the frames sent so far have left, where the rate is limited.
    free_at: Duration,
    /// When the last frame arrives that is not on a detour.
    last_due: Duration,
}

impl Line {
    pub(super) fn new(random: Random) -> Self {
        Self {
            faults: Faults::default(),
            cut: false,
            down_until: Duration::ZERO,
            random,
            free_at: Duration::ZERO,
            last_due: Duration::ZERO,
        }
    }

    pub(super) fn seed(&mut self, random: Random) {
        self.random = random;
    }

    /// Interrupts it for a while.
    pub(super) fn flap(&mut self, now: Duration, length: Duration) {
        self.down_until = now + length;
    }

    /// Mends everything.
    pub(super) fn clear(&mut self) {
        self.faults = Faults::default();
        self.cut = false;
        self.down_until = Duration::ZERO;
    }

    /// Sends a frame, in which a bit may be inverted.
    pub(super) fn send(&mut self, frame: &mut [u8], now: Duration) -> Fate {
        if self.cut || now < self.down_until {
            return Fate::Lost(Loss::Cut);
        }
        let Faults {
            delay,
            jitter,
            loss,
            duplicate,
            reorder,
            corrupt,
            rate,
            longest,
        } = self.faults;
        if longest.is_some_and(|longest| frame.len() > longest) {
            return Fate::Lost(Loss::Long);
        }
        if self.random.hits(loss) {
            return Fate::Lost(Loss::Chance);
        }
        let mut left = now;
        if let Some(rate) = rate {
            let start = self.free_at.max(now);
            if start > now + QUEUE {
                return Fate::Lost(Loss::Full);
            }
            let bits = (frame.len() + OVERHEAD) as u64 * 8;
            left = start + Duration::from_nanos(bits * 1_000_000_000 / rate.max(1));
            self.free_at = left;
        }
        let jitter = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX);
        let jitter = Duration::from_nanos(self.random.below(jitter));
        let mut due = (left + delay + jitter).max(self.last_due);
        let late = self.random.hits(reorder);
        if late {
            due += DETOUR;
        } else {
            self.last_due = due;
        }
        let again = self.random.hits(duplicate).then_some(due);
        let inverted = self.random.hits(corrupt).then(|| {
            let bit = self.random.below(frame.len() as u64 * 8) as usize;
            if let Some(byte) = frame.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            bit
        });
        Fate::Carried {
            due,
            again,
            late,
            inverted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn line(faults: Faults) -> Line {
        let mut line = Line::new(Random::new(1, 0));
        line.faults = faults;
        line
    }

    fn due(fate: Fate) -> Duration {
        match fate {
            Fate::Carried { due, .. } => due,
            lost @ Fate::Lost(_) => panic!("{lost}"),
        }
    }

    #[test]
    fn a_good_line_carries_at_once_and_changes_nothing() {
        let mut line = line(Faults::default());
        let mut frame = *b"0123456789abcdef";
        let fate = line.send(&mut frame, MS);
        assert_eq!(due(fate), MS);
        assert_eq!(fate.to_string(), "");
        assert_eq!(&frame, b"0123456789abcdef");
    }

    #[test]
    fn a_cut_line_carries_nothing_until_it_is_restored() {
        let mut line = line(Faults::default());
        line.flap(MS, 2 * MS);
        assert_eq!(line.send(&mut [0; 60], 2 * MS), Fate::Lost(Loss::Cut));
        assert_eq!(due(line.send(&mut [0; 60], 3 * MS)), 3 * MS);
        line.cut = true;
        assert_eq!(line.send(&mut [0; 60], 9 * MS), Fate::Lost(Loss::Cut));
        line.clear();
        assert_eq!(due(line.send(&mut [0; 60], 9 * MS)), 9 * MS);
    }

    #[test]
    fn a_rate_spaces_frames_and_drops_what_would_wait_too_long() {
        // 1000 bytes with all that is added, a millisecond each.
        let mut line = line(Faults {
            rate: Some(8_000_000),
            ..Faults::default()
        });
        let fates: Vec<_> = (0..200)
            .map(|_| line.send(&mut [0; 1000 - OVERHEAD], MS))
            .collect();
        assert_eq!(due(fates[0]), 2 * MS);
        assert_eq!(due(fates[9]), 11 * MS);
        let lost = fates.iter().filter(|fate| **fate == Fate::Lost(Loss::Full));
        assert_eq!(lost.count(), 99);
    }

    #[test]
    fn long_frames_are_lost_and_short_ones_are_not() {
        let mut line = line(Faults {
            longest: Some(100),
            ..Faults::default()
        });
        assert_eq!(due(line.send(&mut [0; 100], MS)), MS);
        assert_eq!(line.send(&mut [0; 101], MS), Fate::Lost(Loss::Long));
    }

    #[test]
    fn one_bit_is_inverted_where_it_says() {
        let mut line = line(Faults {
            corrupt: Share::percent(100),
            ..Faults::default()
        });
        for _ in 0..1000 {
            let mut frame = [0_u8; 60];
            let Fate::Carried {
                inverted: Some(bit),
                ..
            } = line.send(&mut frame, MS)
            else {
                panic!("nothing was inverted");
            };
            let ones: u32 = frame.iter().map(|byte| byte.count_ones()).sum();
            assert_eq!((ones, frame[bit / 8]), (1, 1 << (bit % 8)));
        }
    }

    proptest! {
        /// Jitter keeps order; only frames on a detour are overtaken; nothing comes before its time.
        #[test]
        fn frames_come_in_order_but_for_those_on_a_detour(
            seed: u64,
            gaps in prop::collection::vec(0_u64..3_000, 1..100),
            (delay, jitter, reorder) in (0_u64..5_000, 0_u64..5_000, 0_u32..=100),
        ) {
            let mut line = Line::new(Random::new(seed, 0));
            line.faults = Faults {
                delay: Duration::from_micros(delay),
                jitter: Duration::from_micros(jitter),
                reorder: Share::percent(reorder),
                ..Faults::default()
            };
            let (mut now, mut last) = (Duration::ZERO, Duration::ZERO);
            for gap in gaps {
                now += Duration::from_micros(gap);
                let Fate::Carried { due, late, .. } = line.send(&mut [0; 60], now) else {
                    panic!("nothing is lost");
                };
                prop_assert!(due >= now + line.faults.delay);
                prop_assert!(due >= last);
                if !late {
                    last = due;
                }
            }
        }

        /// The same frames on the same line with the same seed have the same fate.
        #[test]
        fn chance_repeats_itself(seed: u64, share in 0_u32..=100) {
            let share = Share::percent(share);
            let faults = Faults {
                jitter: MS,
                loss: share,
                duplicate: share,
                reorder: share,
                corrupt: share,
                ..Faults::default()
            };
            let run = || -> Vec<Fate> {
                let mut line = Line::new(Random::new(seed, 3));
                line.faults = faults;
                (0..100).map(|n| line.send(&mut [0; 100], n * MS)).collect()
            };
            prop_assert_eq!(run(), run());
        }
    }
}

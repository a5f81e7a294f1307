//! Who transmitted for a guest, as a capture tells it: at any time one board, and after another has begun never the first
//! one again, unless it has taken over anew.

use super::packets::Packet;
use mirror::{ETHER_TYPE, Side};
use std::fmt;
use std::time::Duration;

/// Where a frame's source is.
const SOURCE: std::ops::Range<usize> = 6..12;
/// And its type.
const TYPE: std::ops::Range<usize> = 12..14;

/// A time for which one board alone transmitted for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spell {
    /// The board.
    board: Side,
    /// When its first frame was sent ...
    first: Duration,
    /// ... and its last.
    last: Duration,
    /// How many it sent.
    frames: u64,
}

/// A board transmitted for a guest though the other one had taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    /// The board that went on.
    pub(crate) board: Side,
    /// How long after the other's first frame.
    pub(crate) late: Duration,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "board {} still transmitted {:.3} ms after board {} had taken over",
            self.board,
            self.late.as_secs_f64() * 1e3,
            self.board.peer()
        )
    }
}

impl fmt::Display for Spells {
    /// A line for each, with times since the first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.spells.first().map_or(Duration::ZERO, |it| it.first);
        if self.spells.is_empty() {
            return writeln!(f, "    nobody");
        }
        let mut before: Option<Duration> = None;
        for spell in &self.spells {
            let seconds = |time: Duration| time.saturating_sub(start).as_secs_f64();
            write!(
                f,
                "    board {} from {:.3} s to {:.3} s, {} frames",
                spell.board,
                seconds(spell.first),
                seconds(spell.last),
                spell.frames
            )?;
            match before.replace(spell.last) {
                None => writeln!(f)?,
                Some(last) => {
                    let silent = spell.first.saturating_sub(last).as_secs_f64() * 1e3;
                    writeln!(f, ", after a silence of {silent:.1} ms")?;
                }
            }
        }
        Ok(())
    }
}

/// All that was transmitted for one guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spells {
    spells: Vec<Spell>,
    silence: Duration,
}

impl Spells {
    /// Looks for the frames of a guest's address among those that the two boards' ends sent, whatever became of them.
    pub(crate) fn of(packets: &[Packet], ends: [usize; 2], guest: [u8; 6]) -> Self {
        let mut found = Self::default();
        let mut times = packets.iter().filter_map(|packet| {
            let [a, b] = ends.map(|end| packet.end == end);
            let board = if a { Side::A } else { Side::B };
            // A board's own frames are no guest's, though a card and a guest can have one address.
            let own = packet.bytes.get(SOURCE) == Some(&guest[..])
                && packet.bytes.get(TYPE) != Some(&ETHER_TYPE.to_be_bytes()[..]);
            (own && (a || b)).then_some((packet.time, board))
        });
        for (time, board) in &mut times {
            if let Some(before) = found.spells.last() {
                found.silence = found.silence.max(time.saturating_sub(before.last));
            }
            match found.spells.last_mut() {
                Some(spell) if spell.board == board => {
                    spell.last = time;
                    spell.frames += 1;
                }
                _ => found.spells.push(Spell {
                    board,
                    first: time,
                    last: time,
                    frames: 1,
                }),
            }
        }
        found
    }

    /// The boards that transmitted, in turn.
    pub(crate) fn boards(&self) -> Vec<Side> {
        self.spells.iter().map(|spell| spell.board).collect()
    }

    /// The longest time without a frame, from the first to the last.
    pub(crate) const fn longest_silence(&self) -> Duration {
        self.silence
    }

    /// The first time that a board went on after the other one had taken over: it transmitted again within `quarantine`,
    /// before it can have been brought up to date.
    pub(crate) fn overlap(&self, quarantine: Duration) -> Option<Overlap> {
        self.spells.windows(3).find_map(|turns| match turns {
            [old, new, again] if again.first.saturating_sub(old.last) < quarantine => {
                Some(Overlap {
                    board: again.board,
                    late: again.first.saturating_sub(new.first),
                })
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 7];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 8];
    const QUARANTINE: Duration = Duration::from_secs(1);

    /// Frames, each with its time in milliseconds, the end that sends it and its source.
    fn packets(frames: &[(u32, usize, [u8; 6])]) -> Vec<Packet> {
        let packet = |(time, end, source): &(u32, usize, [u8; 6])| Packet {
            end: *end,
            time: MS * *time,
            bytes: [&[0xff; 6][..], source, &[8, 6]].concat(),
            comment: String::new(),
        };
        frames.iter().map(packet).collect()
    }

    fn spells(frames: &[(u32, usize, [u8; 6])]) -> Spells {
        Spells::of(&packets(frames), [3, 1], GUEST)
    }

    #[test]
    fn a_takeover_gives_two_spells_and_a_silence_between_them() {
        let found = spells(&[
            (10, 3, GUEST),
            (15, 1, OTHER),
            (20, 3, GUEST),
            // A client that uses the guest's address is no board.
            (100, 0, GUEST),
            (120, 1, GUEST),
            (130, 3, OTHER),
            (150, 1, GUEST),
        ]);
        let spell = |board, first, last, frames| Spell {
            board,
            first: MS * first,
            last: MS * last,
            frames,
        };
        let expected = [spell(Side::A, 10, 20, 2), spell(Side::B, 120, 150, 2)];
        assert_eq!(found.spells, expected);
        assert_eq!(found.boards(), [Side::A, Side::B]);
        assert_eq!(found.longest_silence(), 100 * MS);
        assert_eq!(found.overlap(QUARANTINE), None);
    }

    #[test]
    fn an_old_owner_that_goes_on_is_caught() {
        let found = spells(&[(0, 3, GUEST), (500, 1, GUEST), (501, 3, GUEST)]);
        let overlap = found.overlap(QUARANTINE).unwrap();
        assert_eq!((overlap.board, overlap.late), (Side::A, MS));
        assert_eq!(
            overlap.to_string(),
            "board a still transmitted 1.000 ms after board b had taken over"
        );
        // Also where it does so much later, if it had never stopped until then.
        let found = spells(&[
            (0, 3, GUEST),
            (500, 1, GUEST),
            (900, 3, GUEST),
            (5000, 3, GUEST),
        ]);
        assert_eq!(found.overlap(QUARANTINE).unwrap().late, 400 * MS);
    }

    #[test]
    fn boards_that_take_over_in_turn_are_good() {
        let turns: Vec<_> = (0..7)
            .map(|turn| (turn * 2000, [3, 1][turn as usize % 2], GUEST))
            .collect();
        let found = spells(&turns);
        assert_eq!(found.spells.len(), 7);
        assert_eq!(found.overlap(QUARANTINE), None);
        assert!(found.overlap(5 * QUARANTINE).is_some());
    }

    #[test]
    fn nothing_is_found_where_nothing_was_sent() {
        let found = Spells::of(&[], [0, 1], GUEST);
        assert_eq!(found, Spells::default());
        let short = Packet {
            end: 0,
            time: MS,
            bytes: vec![2; 11],
            comment: String::new(),
        };
        assert_eq!(Spells::of(&[short], [0, 1], GUEST), found);
    }
}

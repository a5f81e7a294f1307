//! Frames that came for guests on the board that hands them over, and that go with them: the backup keeps them, and gives them to the
//! guests once it has these.
//!
//! A frame belongs behind the epoch that ended before it came. Only a takeover from that very epoch hands it to the guest: a
//! guest that went on over there has it already, which the next epoch says.

use crate::time::{Epoch, Instant};
use crate::understudy::Violation;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

/// Most bytes of a frame: with a tag, and as long as IPv4 allows.
pub const INPUT_MAX: usize = 18 + 0xffff;
/// Least bytes of a frame: an Ethernet header.
pub const INPUT_MIN: usize = 14;
/// Bytes of a group's frames that are kept: what comes at a gigabit in two milliseconds, or a thousand requests.
const ROOM: usize = 256 << 10;
/// What a frame takes beside its bytes.
const OVERHEAD: usize = 64;

/// A frame for a guest.
#[derive(Clone, Debug)]
struct Input {
    guest: u8,
    card: u8,
    /// The epoch that it came behind.
    epoch: Epoch,
    bytes: Vec<u8>,
}

impl Input {
    const fn room(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

/// A piece of a frame, as [`Record::Input`](crate::Record::Input) tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputPiece<'a> {
    /// For which guest.
    pub guest: u8,
    /// For which of its cards.
    pub card: u8,
    /// The epoch that the frame came behind.
    pub epoch: Epoch,
    /// Where the bytes belong.
    pub offset: u32,
    /// Whether it is the last one.
    pub last: bool,
    /// Bytes of the frame.
    pub bytes: &'a [u8],
}

/// How many frames there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputCounters {
    /// Told to the peer.
    pub told: u64,
    /// Given to guests.
    pub delivered: u64,
    /// For which there was no room, or that no guest took.
    pub dropped: u64,
}

/// The frames for a group's guests, in their order.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    whole: VecDeque<Input>,
    /// The frame of which pieces are still to come.
    open: Option<Input>,
    /// What all whole ones take.
    taken: usize,
    /// The epoch that the guests went on from here.
    served: Option<Epoch>,
    /// Since when the first one is not taken.
    refused: Option<Instant>,
    counters: InputCounters,
}

impl Inputs {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What became of those that came. Nothing is told here.
    #[must_use]
    pub const fn counters(&self) -> &InputCounters {
        &self.counters
    }

    /// A piece of a frame came. Frames for which there is no room are dropped: whoever sent them will ask again.
    ///
    /// # Errors
    ///
    /// [`Violation::Input`] for a piece that does not follow the one before it, and for a frame that is too long or too short. What there is of
    /// it is forgotten.
    pub fn receive(&mut self, piece: &InputPiece<'_>) -> Result<(), Violation> {
        let InputPiece {
            guest, card, epoch, ..
        } = *piece;
        let known = self.open.take().filter(|_| piece.offset != 0);
        let length = known.as_ref().map_or(0, |open| open.bytes.len());
        let violation = Violation::Input {
            guest,
            offset: piece.offset,
            length,
        };
        let mut input = match known {
            Some(open) => Some(open)
                .filter(|open| (open.guest, open.card, open.epoch) == (guest, card, epoch)),
            None => Some(Input {
                guest,
                card,
                epoch,
                bytes: Vec::new(),
            }),
        }
        .filter(|_| piece.offset as usize == length)
        .filter(|_| length + piece.bytes.len() <= INPUT_MAX)
        .ok_or(violation)?;
        input.bytes.extend_from_slice(piece.bytes);
        if !piece.last {
            self.open = Some(input);
        } else if input.bytes.len() < INPUT_MIN {
            return Err(violation);
        } else {
            self.keep(input);
        }
        Ok(())
    }

    fn keep(&mut self, input: Input) {
        if self.served.is_some_and(|served| served != input.epoch) {
            // The guests that it is for are others.
            return;
        }
        if self.taken + input.room() > ROOM {
            self.counters.dropped += 1;
            return;
        }
        self.taken += input.room();
        self.whole.push_back(input);
    }

    fn retain(&mut self, belongs: impl Fn(Epoch) -> bool) {
        self.whole.retain(|input| belongs(input.epoch));
        self.taken = self.whole.iter().map(Input::room).sum();
        self.refused = None;
    }

    /// An epoch is there for good: frames that came before its end are in it.
    pub fn committed(&mut self, epoch: Epoch) {
        self.served = None;
        self.retain(|of| of >= epoch);
    }

    /// The guests go on here from this epoch, or from none.
    pub fn take_over(&mut self, epoch: Option<Epoch>) {
        self.served = epoch;
        self.retain(|of| Some(of) == epoch);
    }

    /// The pieces to come do not follow those that came.
    pub fn interrupt(&mut self) {
        self.open = None;
        if self.served.is_none() {
            self.retain(|_| false);
        }
    }

    /// Nothing of what came counts any more. The rest of a frame may still come.
    pub fn forget(&mut self) {
        self.served = None;
        self.retain(|_| false);
    }

    /// Hands the frames to `take`, with guest and card, if the guests have gone on: until one is not taken, which comes again. If that is so for as long as
    /// `patience`, there is nobody who would take them, and they are dropped. Whether there are more.
    pub fn deliver(
        &mut self,
        now: Instant,
        patience: Duration,
        mut take: impl FnMut(u8, u8, &[u8]) -> bool,
    ) -> bool {
        if self.served.is_none() {
            return false;
        }
        while let Some(input) = self.whole.front() {
            if !take(input.guest, input.card, &input.bytes) {
                let since = *self.refused.get_or_insert(now);
                if now.since(since) < patience {
                    return true;
                }
                self.counters.dropped += self.whole.len() as u64;
                self.retain(|_| false);
                return false;
            }
            self.taken = self.taken.saturating_sub(input.room());
            self.whole.pop_front();
            self.counters.delivered += 1;
            self.refused = None;
        }
        false
    }
}

#[cfg(test)]
mod tests;

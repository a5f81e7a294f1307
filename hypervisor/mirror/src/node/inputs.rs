//! The primary's part in what comes for guests that it hands over: telling the backup of it, behind the last epoch and for a while after
//! the guests went.

use super::Board;
use crate::inputs::{INPUT_MAX, INPUT_MIN, InputPiece};
use crate::link::{Lane, Link};
use crate::record::{INPUT_HEADER, Record};
use crate::time::{Epoch, Instant};
use alloc::vec::Vec;
use core::time::Duration;

/// How long what still comes for a guest is sent after it: longer than the other board announces the guest.
const FOLLOWS: Duration = Duration::from_secs(1);

/// A group's.
#[derive(Debug)]
struct Group {
    number: u8,
    /// The frame that is being told, and for whom it is.
    frame: Vec<u8>,
    of: Option<(u8, u8)>,
    /// Bytes of it that are told.
    told: usize,
    /// The guests went from this epoch to the other board, and until when frames follow them.
    gone: Option<(Epoch, Instant)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Departing {
    groups: Vec<Group>,
    /// Frames that were told.
    pub(super) count: u64,
}

impl Departing {
    /// Those of the groups with these numbers.
    pub(super) fn new(numbers: impl Iterator<Item = u8>) -> Self {
        let groups = numbers.map(|number| Group {
            number,
            frame: Vec::new(),
            of: None,
            told: 0,
            gone: None,
        });
        Self {
            groups: groups.collect(),
            count: 0,
        }
    }

    /// Puts what came for a group's guests behind an epoch on the link, as far as there is room.
    pub(super) fn tell(
        &mut self,
        number: u8,
        epoch: Epoch,
        link: &mut Link,
        board: &mut impl Board,
    ) {
        let mut groups = self.groups.iter_mut();
        let Some(group) = groups.find(|group| group.number == number) else {
            return;
        };
        while link.room(Lane::Inputs) > 0 && group.fetch(board) {
            let fill = |out: &mut [u8]| group.fill(epoch, out, board, &mut self.count);
            if link.send(Lane::Inputs, fill).is_err() {
                return;
            }
        }
    }

    /// A group's guests are on the other board, where they go on from this epoch. Behind [`Self::tell`].
    pub(super) fn leave(&mut self, number: u8, epoch: Epoch, now: Instant) {
        let mut groups = self.groups.iter_mut();
        if let Some(group) = groups.find(|group| group.number == number) {
            group.gone = Some((epoch, now + FOLLOWS));
        }
    }

    /// Tells of what still comes for guests that went, until that is over.
    pub(super) fn turn(&mut self, link: &mut Link, now: Instant, board: &mut impl Board) {
        for at in 0..self.groups.len() {
            let Some(group) = self.groups.get_mut(at) else {
                return;
            };
            let number = group.number;
            match group.gone {
                Some((epoch, until)) if now < until => self.tell(number, epoch, link, board),
                Some(_) => group.end(board),
                None => {}
            }
        }
    }

    /// The board has the guests, or will: nothing that comes follows them any more.
    pub(super) fn end(&mut self, board: &mut impl Board) {
        for group in &mut self.groups {
            group.end(board);
        }
    }

    /// There is a new session: what was told in part is told anew.
    pub(super) fn session(&mut self) {
        for group in &mut self.groups {
            group.told = 0;
        }
    }

    /// When the next of these is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let all = self.groups.iter().filter_map(|group| group.gone);
        all.map(|(_, until)| until).min()
    }
}

impl Group {
    fn end(&mut self, board: &mut impl Board) {
        self.of = None;
        if self.gone.take().is_some() {
            board.end_inputs(self.number);
        }
    }

    /// Gets the next frame, unless there is one; whether there is. What the peer would not take is passed over.
    fn fetch(&mut self, board: &mut impl Board) -> bool {
        while self.of.is_none() {
            self.frame.clear();
            let Some(of) = board.input(self.number, &mut self.frame) else {
                return false;
            };
            if (INPUT_MIN..=INPUT_MAX).contains(&self.frame.len()) {
                (self.of, self.told) = (Some(of), 0);
            }
        }
        true
    }

    /// Fills a segment.
    fn fill(
        &mut self,
        epoch: Epoch,
        out: &mut [u8],
        board: &mut impl Board,
        count: &mut u64,
    ) -> usize {
        let mut length = 0;
        while let Some((guest, card)) = self.of {
            let out = out.get_mut(length..).unwrap_or(&mut []);
            let room = out.len().saturating_sub(INPUT_HEADER);
            let left = self.frame.get(self.told..).unwrap_or(&[]);
            let bytes = left
                .get(..room.min(usize::from(u16::MAX) / 2))
                .unwrap_or(left);
            let last = bytes.len() == left.len();
            let record = Record::Input(InputPiece {
                guest,
                card,
                offset: self.told as u32,
                last,
                epoch,
                bytes,
            });
            let Some(written) = record.write(out).filter(|_| room > 0) else {
                break;
            };
            length += written;
            self.told += bytes.len();
            if last {
                self.of = None;
                *count += 1;
                self.fetch(board);
            }
        }
        length
    }
}

#[cfg(test)]
mod tests;

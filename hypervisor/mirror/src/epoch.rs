//! The primary's side of epochs: telling the backup what a checkpoint holds, and keeping what left the guests since the last one
//! that the backup has.

use crate::page::{Encoder, PIECE_MIN, Page};
use crate::record::{COMMIT_LEN, RECORD_HEADER, Record};
use crate::role::Bond;
use crate::time::Epoch;
use crate::understudy::Place;
use alloc::collections::VecDeque;

/// What a checkpoint holds, to be told page by page.
pub trait Checkpoint {
    /// The page that is to be told next, if there is one.
    fn front(&self) -> Option<Place>;
    /// Shows `look` that page, and the version of it that the backup has, if it has one.
    fn look<R>(&self, look: impl FnOnce(&Page, Option<&Page>) -> R) -> R;
    /// That page has been told: the backup has this version now.
    fn told(&mut self);
    /// The next bytes of the guests' states, as many as fit into `out`: whose, at which offset, how many. `None` once all are told.
    fn state(&mut self, out: &mut [u8]) -> Option<(u8, u32, usize)>;
}

/// Where the telling of an epoch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The backup must be told that everything is told anew.
    Begin,
    /// Pages, as they come.
    Pages,
    /// The states, once all pages are told.
    States,
}

/// How an epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    epoch: Epoch,
    time: u64,
}

/// Tells the backup the epochs of a group of guests.
#[derive(Clone, Debug)]
pub struct Teller {
    group: u8,
    bond: Bond,
    stage: Stage,
    /// The page that is told in part.
    encoder: Option<Encoder>,
    end: Option<End>,
    pages: u32,
    states: u32,
}

impl Teller {
    /// One that begins anew, for this bond.
    #[must_use]
    pub const fn new(group: u8, bond: Bond) -> Self {
        Self {
            group,
            bond,
            stage: Stage::Begin,
            encoder: None,
            end: None,
            pages: 0,
            states: 0,
        }
    }

    /// The checkpoint's pages are all there, and it is this epoch's, at this time of the guests' in nanoseconds: behind its pages its
    /// states are told, and the commit.
    pub const fn end_with(&mut self, epoch: Epoch, time: u64) {
        self.end = Some(End { epoch, time });
    }

    /// Whether an epoch is being told whose end is known.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    /// Whether there is something to tell now.
    #[must_use]
    pub fn is_ready(&self, checkpoint: &impl Checkpoint) -> bool {
        self.stage == Stage::Begin || self.end.is_some() || checkpoint.front().is_some()
    }

    /// Fills a segment with what comes next; returns its length, which is 0 if there is nothing to tell now. `out` has room for a
    /// commit at least.
    pub fn fill(&mut self, checkpoint: &mut impl Checkpoint, out: &mut [u8]) -> usize {
        let mut length = 0;
        while let Some(more) = self.next_record(checkpoint, &mut out[length..]) {
            length += more;
        }
        length
    }

    /// Writes the next record; `None` if there is none now, or no room for it.
    fn next_record(&mut self, checkpoint: &mut impl Checkpoint, out: &mut [u8]) -> Option<usize> {
        match self.stage {
            Stage::Begin => {
                let (bond, group) = (self.bond, self.group);
                let length = Record::Begin { bond, group }.write(out)?;
                (self.stage, self.encoder) = (Stage::Pages, None);
                (self.pages, self.states) = (0, 0);
                Some(length)
            }
            Stage::Pages => match checkpoint.front() {
                Some(place) => self.piece(place, checkpoint, out),
                None => {
                    self.end?;
                    self.stage = Stage::States;
                    self.next_record(checkpoint, out)
                }
            },
            Stage::States => {
                let room = out.get_mut(RECORD_HEADER..)?;
                if room.len() < COMMIT_LEN - RECORD_HEADER {
                    return None;
                }
                let most = room.len().min(usize::from(u16::MAX));
                match checkpoint.state(&mut room[..most]) {
                    Some((guest, offset, length)) => {
                        self.states = self.states.wrapping_add(length as u32);
                        let record = Record::State {
                            guest,
                            offset,
                            bytes: &[],
                        };
                        record.write_head(out, length)?;
                        Some(RECORD_HEADER + length)
                    }
                    None => {
                        let End { epoch, time } = self.end?;
                        let record = Record::Commit {
                            group: self.group,
                            epoch,
                            pages: self.pages,
                            time,
                            states: self.states,
                        };
                        let length = record.write(out)?;
                        (self.stage, self.end) = (Stage::Pages, None);
                        (self.pages, self.states) = (0, 0);
                        Some(length)
                    }
                }
            }
        }
    }

    /// Writes the next piece of a page.
    fn piece(
        &mut self,
        place: Place,
        checkpoint: &mut impl Checkpoint,
        out: &mut [u8],
    ) -> Option<usize> {
        let room = out.get_mut(RECORD_HEADER..)?;
        if room.len() < PIECE_MIN {
            return None;
        }
        let first = self.encoder.is_none();
        let encoder = &mut self.encoder;
        let (base, length, last) = checkpoint.look(|page, known| {
            let encoder = encoder.get_or_insert_with(|| Encoder::new(page, known));
            let (length, last) = encoder.fill(page, known, room);
            (encoder.base(), length, last)
        });
        let record = Record::Page {
            guest: place.guest,
            area: place.area,
            number: place.number,
            first: first.then_some(base),
            last,
            runs: &[],
        };
        record.write_head(out, length)?;
        if last {
            self.encoder = None;
            self.pages = self.pages.wrapping_add(1);
            checkpoint.told();
        }
        Some(RECORD_HEADER + length)
    }
}

/// How many of the outputs that wait in a queue, first come, first served, may leave: those of epochs that the backup has.
#[derive(Clone, Debug, Default)]
pub struct OutputGate {
    /// The epoch to which outputs belong now.
    epoch: Epoch,
    /// Outputs of each epoch that has some and that the backup is not known to have.
    held: VecDeque<(Epoch, usize)>,
    free: usize,
}

impl OutputGate {
    /// A gate before the first epoch, with nothing behind it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            epoch: Epoch::default().next(),
            ..Self::default()
        }
    }

    /// An output was put behind the others.
    pub fn put(&mut self) {
        match self.held.back_mut() {
            Some((epoch, count)) if *epoch == self.epoch => *count += 1,
            _ => self.held.push_back((self.epoch, 1)),
        }
    }

    /// Ends the epoch: what comes from now on is the next one's. Returns which one ended.
    pub const fn seal(&mut self) -> Epoch {
        let sealed = self.epoch;
        self.epoch = sealed.next();
        sealed
    }

    /// What comes from now on is this epoch's. If that has ended once already, it was not told: what came since then waits for the one
    /// behind it.
    pub const fn begin(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// The backup has an epoch: what it and those before it put out may leave.
    pub fn acknowledge(&mut self, acknowledged: Epoch) {
        while let Some((epoch, count)) = self.held.front()
            && *epoch <= acknowledged
        {
            self.free += count;
            self.held.pop_front();
        }
    }

    /// Everything may leave, as long as nothing is put: nobody else keeps these guests.
    pub fn release(&mut self) {
        self.free += self.held.drain(..).map(|(_, count)| count).sum::<usize>();
    }

    /// The outputs are gone, unseen. Epochs are counted on.
    pub fn forget(&mut self) {
        self.held.clear();
        self.free = 0;
    }

    /// Whether the first output may leave, which it then does.
    pub const fn take(&mut self) -> bool {
        match self.free.checked_sub(1) {
            Some(free) => {
                self.free = free;
                true
            }
            None => false,
        }
    }

    /// Outputs that may leave.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.free
    }
}

#[cfg(test)]
mod tests;

//! The understudy: what the backup keeps of a group of guests, brought forward epoch by epoch.
//!
//! What arrives is staged beside the live image, which is that of the last epoch that arrived in full. A commit flips the staged
//! pages into it: from then on the new epoch counts, and the copying is a redo that may be done at any time later, by
//! steps, and again. So there is no moment at which a takeover finds half an epoch. Before the first commit nothing could be gone on
//! from: until then, pages are flipped as they come.

use crate::page::{BadPiece, Base, PAGE_SIZE, decode};
use crate::record::{Area, BadRecord, Record};
use crate::time::Epoch;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// Most bytes of a guest's state beside its memory.
pub const STATE_MAX: usize = 4 << 20;

/// A page of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which guest's, by its number on the board.
    pub guest: u8,
    /// In which part of it.
    pub area: Area,
    /// Which page of that.
    pub number: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            guest,
            area: Area(area),
            number,
        } = self;
        write!(f, "page {number:#x} of area {area} of guest {guest}")
    }
}

/// The memory of understudies: each page is there live, as a takeover would find it, and staged. It is asked for no pages but
/// those that it said to have.
pub trait Memory {
    /// Fills a staged page with zeroes.
    fn clear(&mut self, place: Place);
    /// Copies a live page over the staged one.
    fn bring(&mut self, place: Place);
    /// Writes to a staged page. The bytes end within it.
    fn write(&mut self, place: Place, offset: usize, bytes: &[u8]);
    /// Copies a staged page over the live one.
    fn flip(&mut self, place: Place);
}

/// What is known of a guest's memory: pages of each of its areas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The guest's number on the board.
    pub guest: u8,
    /// Pages of its memory and of each of its disks.
    pub areas: Vec<u32>,
}

/// What came of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is where it belongs.
    Taken,
    /// With it this epoch is there for good, to be acknowledged.
    Committed(Epoch),
    /// It must come again, once [`Understudy::flip`] has nothing left.
    Busy,
}

/// The primary said what it cannot have meant. The image is that of the last commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A segment is no sequence of records.
    Record(BadRecord),
    /// A page's piece is no sequence of runs.
    Piece(BadPiece),
    /// There is no such page here.
    NoPage(Place),
    /// A piece that does not go on with the page before it.
    Order(Place),
    /// There is no such guest in the group.
    NoGuest(u8),
    /// A piece of a state that does not follow the one before it, or makes it too long.
    State {
        /// Whose.
        guest: u8,
        /// Where the bytes were to go.
        offset: u32,
        /// Bytes that are there.
        length: usize,
    },
    /// A commit of another epoch than the next.
    Epoch {
        /// The last one.
        last: Epoch,
        /// The one that came.
        found: Epoch,
    },
    /// An epoch with other pages or state bytes than arrived.
    Incomplete {
        /// Pages that it has, and that arrived.
        pages: (u32, u32),
        /// The same of the states' bytes.
        states: (u32, u32),
    },
    /// A record of a group or a guest that is in none.
    NoGroup,
    /// A record that is the backup's to send.
    Direction,
    /// A record on a lane that is not its.
    Lane,
    /// A piece of a frame for a guest that does not follow the one before it, or makes it too long.
    Input {
        /// The guest.
        guest: u8,
        /// Where the bytes were to go.
        offset: u32,
        /// Bytes that are there.
        length: usize,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(error) => error.fmt(f),
            Self::Piece(error) => error.fmt(f),
            Self::NoPage(place) => write!(f, "there is no {place} here"),
            Self::Order(place) => write!(f, "a piece of {place} came out of order"),
            Self::NoGuest(guest) => write!(f, "guest {guest} is not of the group"),
            Self::State {
                guest,
                offset,
                length,
            } => write!(
                f,
                "bytes at {offset} of the state of guest {guest}, of which {length} are there"
            ),
            Self::Epoch { last, found } => write!(f, "epoch {found} came behind epoch {last}"),
            Self::Incomplete { pages, states } => write!(
                f,
                "an epoch of {} pages and {} bytes of state, of which {} and {} arrived",
                pages.0, states.0, pages.1, states.1
            ),
            Self::NoGroup => f.write_str("a record of nobody who is mirrored"),
            Self::Direction => f.write_str("an acknowledgement of something that was never sent"),
            Self::Lane => f.write_str("a record on a lane that is not its"),
            Self::Input {
                guest,
                offset,
                length,
            } => write!(
                f,
                "bytes at {offset} of a frame for guest {guest}, of which {length} are there"
            ),
        }
    }
}

impl core::error::Error for Violation {}

impl From<BadRecord> for Violation {
    fn from(error: BadRecord) -> Self {
        Self::Record(error)
    }
}

/// A mark for each page of an area.
#[derive(Clone, Debug)]
struct Marks {
    pages: u32,
    words: Vec<u64>,
}

impl Marks {
    fn new(pages: u32) -> Self {
        Self {
            pages,
            words: vec![0; pages.div_ceil(64) as usize],
        }
    }

    fn position(number: u32) -> (usize, u64) {
        ((number / 64) as usize, 1 << (number % 64))
    }

    fn has(&self, number: u32) -> bool {
        let (word, bit) = Self::position(number);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    fn set(&mut self, number: u32, mark: bool) {
        let (word, bit) = Self::position(number);
        if let Some(word) = self.words.get_mut(word) {
            if mark {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }

    /// The first marked page from the one with this number on.
    fn next(&self, from: u32) -> Option<u32> {
        let (first, bit) = Self::position(from);
        let words = self.words.iter().enumerate().skip(first);
        let mut seen = words.map(|(at, word)| {
            let hidden = if at == first { bit - 1 } else { 0 };
            (at, word & !hidden)
        });
        let (at, word) = seen.find(|(_, word)| *word != 0)?;
        Some(at as u32 * 64 + word.trailing_zeros())
    }
}

/// An area of a guest.
#[derive(Clone, Debug)]
struct AreaMarks {
    /// Pages of the epoch to come that are staged.
    staged: Marks,
    /// Pages of the committed epoch that are not yet copied into the live image.
    flipping: Marks,
}

/// A guest of the group.
#[derive(Clone, Debug)]
struct Guest {
    number: u8,
    areas: Vec<AreaMarks>,
    /// Its state as of the last commit, and what arrived of the next.
    state: Vec<u8>,
    staged_state: Vec<u8>,
}

/// Which records count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reception {
    /// None up to the next beginning: something of the epoch to come is missing, so those behind it would not be whole.
    Closed,
    /// The image is being told anew: the next commit may be of any epoch.
    Anew,
    /// Those of the next epoch.
    Following,
}

/// The last commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its epoch.
    pub epoch: Epoch,
    /// The guests' time at its end, in nanoseconds.
    pub time: u64,
}

/// What the backup keeps of a group of guests.
#[derive(Clone, Debug)]
pub struct Understudy {
    guests: Vec<Guest>,
    committed: Option<Committed>,
    reception: Reception,
    /// The page of which pieces are still to come.
    open: Option<Place>,
    /// What arrived since the last commit.
    pages: u32,
    states: u32,
    /// Where the flip goes on: guest, area, page.
    cursor: Option<(usize, usize, u32)>,
}

impl Understudy {
    /// One of which nothing is known yet.
    #[must_use]
    pub fn new(extents: &[Extent]) -> Self {
        let area = |pages: &u32| AreaMarks {
            staged: Marks::new(*pages),
            flipping: Marks::new(*pages),
        };
        let guests = extents.iter().map(|extent| Guest {
            number: extent.guest,
            areas: extent.areas.iter().map(area).collect(),
            state: Vec::new(),
            staged_state: Vec::new(),
        });
        Self {
            guests: guests.collect(),
            committed: None,
            reception: Reception::Closed,
            open: None,
            pages: 0,
            states: 0,
            cursor: None,
        }
    }

    /// The guests' numbers.
    pub fn guests(&self) -> impl Iterator<Item = u8> + '_ {
        self.guests.iter().map(|guest| guest.number)
    }

    /// Whether a guest is of the group.
    #[must_use]
    pub fn has(&self, guest: u8) -> bool {
        self.guests().any(|number| number == guest)
    }

    /// The epoch that a takeover would resume, if there is one.
    #[must_use]
    pub const fn committed(&self) -> Option<Committed> {
        self.committed
    }

    /// The state of a guest beside its memory, as of the last commit.
    #[must_use]
    pub fn state(&self, guest: u8) -> Option<&[u8]> {
        self.committed?;
        let guest = self.guests.iter().find(|it| it.number == guest)?;
        Some(&guest.state)
    }

    /// Forgets what was staged since the last commit, whose image stays. Nothing more is taken until the primary begins anew.
    pub fn forget_staged(&mut self) {
        for guest in &mut self.guests {
            guest.staged_state.clear();
            for area in &mut guest.areas {
                area.staged.words.fill(0);
            }
        }
        (self.open, self.pages, self.states) = (None, 0, 0);
        self.reception = Reception::Closed;
    }

    /// Forgets everything: there is no image.
    pub fn forget(&mut self) {
        self.forget_staged();
        for guest in &mut self.guests {
            guest.state.clear();
            for area in &mut guest.areas {
                area.flipping.words.fill(0);
            }
        }
        (self.committed, self.cursor) = (None, None);
    }

    /// Takes a record of the primary's. Before it begins, and behind a violation, records are passed over.
    ///
    /// # Errors
    ///
    /// [`Violation`], after which nothing of the epoch to come counts.
    pub fn receive(
        &mut self,
        record: &Record<'_>,
        memory: &mut impl Memory,
    ) -> Result<Progress, Violation> {
        let begins = matches!(record, Record::Begin { .. });
        if self.reception == Reception::Closed && !begins {
            return Ok(Progress::Taken);
        }
        let result = self.take(record, memory);
        if result.is_err() {
            self.forget_staged();
        }
        result
    }

    fn take(
        &mut self,
        record: &Record<'_>,
        memory: &mut impl Memory,
    ) -> Result<Progress, Violation> {
        match *record {
            Record::Begin { .. } => {
                self.forget_staged();
                self.reception = Reception::Anew;
                Ok(Progress::Taken)
            }
            Record::Page {
                guest,
                area,
                number,
                first,
                last,
                runs,
            } => {
                let place = Place {
                    guest,
                    area,
                    number,
                };
                self.page(place, first, last, runs, memory)
            }
            Record::State {
                guest,
                offset,
                bytes,
            } => self.piece_of_state(guest, offset, bytes),
            Record::Commit {
                epoch,
                pages,
                time,
                states,
                ..
            } => self.commit(Committed { epoch, time }, pages, states),
            Record::Acknowledged { .. } => Err(Violation::Direction),
            Record::Input(_) => Err(Violation::Lane),
        }
    }

    fn page(
        &mut self,
        place: Place,
        first: Option<Base>,
        last: bool,
        runs: &[u8],
        memory: &mut impl Memory,
    ) -> Result<Progress, Violation> {
        let area = self
            .guests
            .iter_mut()
            .find(|guest| guest.number == place.guest)
            .and_then(|guest| guest.areas.get_mut(usize::from(place.area.0)))
            .filter(|area| place.number < area.staged.pages)
            .ok_or(Violation::NoPage(place))?;
        let goes_on = (self.open == Some(place), self.open.is_none());
        match (first, goes_on) {
            (None, (true, _)) => {}
            (Some(base), (_, true)) => {
                // What the staged page holds of the committed epoch is copied before it is written over.
                if area.flipping.has(place.number) {
                    memory.flip(place);
                    area.flipping.set(place.number, false);
                }
                match base {
                    Base::Zero => memory.clear(place),
                    Base::Last if area.staged.has(place.number) => {}
                    Base::Last => memory.bring(place),
                }
                area.staged.set(place.number, true);
            }
            _ => return Err(Violation::Order(place)),
        }
        decode(runs, |offset, bytes| {
            debug_assert!(offset + bytes.len() <= PAGE_SIZE);
            memory.write(place, offset, bytes);
        })
        .map_err(Violation::Piece)?;
        if last && self.committed.is_none() {
            // There is no image that anybody could go on from: the first one comes about as its pages come, not all at once with its commit.
            memory.flip(place);
            area.staged.set(place.number, false);
        }
        self.open = (!last).then_some(place);
        self.pages = self.pages.wrapping_add(u32::from(last));
        Ok(Progress::Taken)
    }

    fn piece_of_state(
        &mut self,
        number: u8,
        offset: u32,
        bytes: &[u8],
    ) -> Result<Progress, Violation> {
        let guest = self
            .guests
            .iter_mut()
            .find(|guest| guest.number == number)
            .ok_or(Violation::NoGuest(number))?;
        let state = &mut guest.staged_state;
        if offset as usize != state.len() || state.len() + bytes.len() > STATE_MAX {
            return Err(Violation::State {
                guest: number,
                offset,
                length: state.len(),
            });
        }
        state.extend_from_slice(bytes);
        self.states = self.states.wrapping_add(bytes.len() as u32);
        Ok(Progress::Taken)
    }

    fn commit(
        &mut self,
        commit: Committed,
        pages: u32,
        states: u32,
    ) -> Result<Progress, Violation> {
        if self.cursor.is_some() {
            return Ok(Progress::Busy);
        }
        let last = self.committed.map_or(Epoch::default(), |it| it.epoch);
        if self.reception == Reception::Following && commit.epoch != last.next() {
            return Err(Violation::Epoch {
                last,
                found: commit.epoch,
            });
        }
        if let Some(place) = self.open {
            return Err(Violation::Order(place));
        }
        if (pages, states) != (self.pages, self.states) {
            return Err(Violation::Incomplete {
                pages: (pages, self.pages),
                states: (states, self.states),
            });
        }
        for guest in &mut self.guests {
            core::mem::swap(&mut guest.state, &mut guest.staged_state);
            guest.staged_state.clear();
            for area in &mut guest.areas {
                core::mem::swap(&mut area.staged, &mut area.flipping);
            }
        }
        (self.pages, self.states) = (0, 0);
        self.reception = Reception::Following;
        self.cursor = Some((0, 0, 0));
        self.committed = Some(commit);
        Ok(Progress::Committed(commit.epoch))
    }

    /// Goes on with the copying of committed pages into the live image, at most so many. Whether there are more.
    pub fn flip(&mut self, memory: &mut impl Memory, most: usize) -> bool {
        for _ in 0..most {
            let Some(place) = self.next_to_flip() else {
                self.cursor = None;
                return false;
            };
            memory.flip(place);
        }
        self.cursor.is_some()
    }

    /// The next page to be copied, whose mark is taken.
    fn next_to_flip(&mut self) -> Option<Place> {
        let (mut guest, mut area, mut from) = self.cursor?;
        loop {
            let entry = self.guests.get_mut(guest)?;
            let Some(marks) = entry.areas.get_mut(area) else {
                (guest, area, from) = (guest + 1, 0, 0);
                continue;
            };
            let Some(number) = marks.flipping.next(from) else {
                (area, from) = (area + 1, 0);
                continue;
            };
            marks.flipping.set(number, false);
            self.cursor = Some((guest, area, number));
            return Some(Place {
                guest: entry.number,
                area: Area(area as u8),
                number,
            });
        }
    }
}

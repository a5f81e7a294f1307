//! What the segments of the link hold: records, one behind the other.
//!
//! ```text
//! offset  size  what (numbers are little-endian)
//!      0     1  kind: 1 page, 2 state, 3 commit, 4 acknowledgement, 5 begin, 6 input
//!      1     1  guest (page, state, input), or group
//!      2     1  area of a guest's pages: 0 its memory, 1 and up its disks; card that an input is for
//!      3     1  flags of a page: bit 0 its first piece, bit 1 its last, bit 2 laid over the version that the backup has;
//!               of an input: bit 1 its last piece
//!      4     4  number of the page; offset of a state's or an input's bytes; pages of the epoch (commit); number of the bond
//!               (acknowledgement, begin)
//!      8     2  bytes that follow
//!     10     -  page: runs of words; state: bytes of it; commit: epoch u64, time u64,
//!               bytes of the states u32; acknowledgement: epoch u64; begin: nothing; input: epoch u64, bytes of the frame
//! ```

use crate::inputs::InputPiece;
use crate::page::Base;
use crate::role::Bond;
use crate::time::Epoch;
use core::fmt;

/// Bytes before a record's own.
pub(crate) const RECORD_HEADER: usize = 10;
/// Bytes of a commit.
pub(crate) const COMMIT_LEN: usize = RECORD_HEADER + 20;
/// Bytes of an acknowledgement.
pub(crate) const ACKNOWLEDGED_LEN: usize = RECORD_HEADER + 8;
/// Bytes of an input before the frame's.
pub(crate) const INPUT_HEADER: usize = RECORD_HEADER + EPOCH;
/// Bytes of an epoch's number.
const EPOCH: usize = 8;

const PAGE: u8 = 1;
const STATE: u8 = 2;
const COMMIT: u8 = 3;
const ACKNOWLEDGED: u8 = 4;
const BEGIN: u8 = 5;
const INPUT: u8 = 6;

const FIRST: u8 = 1 << 0;
const LAST: u8 = 1 << 1;
const OVER_LAST: u8 = 1 << 2;

/// Part of a guest's memory that is counted in pages by itself: 0 its memory, 1 and up its disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Area(pub u8);

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A piece of a page.
    Page {
        /// Which guest's.
        guest: u8,
        /// Which part of it.
        area: Area,
        /// Which page of that.
        number: u32,
        /// What the runs are laid over, where this is the page's first piece.
        first: Option<Base>,
        /// Whether this is the page's last piece.
        last: bool,
        /// Runs of words.
        runs: &'a [u8],
    },
    /// A piece of a guest's state beside its memory.
    State {
        /// Which guest's.
        guest: u8,
        /// Where the bytes belong.
        offset: u32,
        /// Bytes of it.
        bytes: &'a [u8],
    },
    /// The epoch of a group is told in full.
    Commit {
        /// Which group.
        group: u8,
        /// Which epoch.
        epoch: Epoch,
        /// Pages in it.
        pages: u32,
        /// The guests' time at its end, in nanoseconds.
        time: u64,
        /// Bytes of the guests' states in it.
        states: u32,
    },
    /// The backup has an epoch of a group for good.
    Acknowledged {
        /// By which bond.
        bond: Bond,
        /// Which group.
        group: u8,
        /// Which epoch.
        epoch: Epoch,
    },
    /// A group's image is told anew: nothing of what was staged counts.
    Begin {
        /// By which bond.
        bond: Bond,
        /// Which group.
        group: u8,
    },
    /// A piece of a frame that came for a guest after the end of an epoch, and that the guest has not seen in it.
    Input(InputPiece<'a>),
}

/// A segment holds something that is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecord {
    /// It ends within one.
    Short,
    /// A kind that is not known.
    Kind(u8),
    /// A length that does not fit the kind.
    Length {
        /// The kind.
        kind: u8,
        /// The length.
        length: u16,
    },
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("a segment ends within a record"),
            Self::Kind(kind) => write!(f, "a record of kind {kind}, which is not known"),
            Self::Length { kind, length } => {
                write!(f, "a record of kind {kind} with {length} bytes")
            }
        }
    }
}

impl core::error::Error for BadRecord {}

impl Record<'_> {
    /// Writes the record at the start of `out`; returns its bytes. `None` where there is no room for it.
    #[must_use]
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let length = match self {
            Self::Page { runs, .. } => runs.len(),
            Self::State { bytes, .. } => bytes.len(),
            Self::Commit { .. } => COMMIT_LEN - RECORD_HEADER,
            Self::Acknowledged { .. } => ACKNOWLEDGED_LEN - RECORD_HEADER,
            Self::Begin { .. } => 0,
            Self::Input(piece) => EPOCH + piece.bytes.len(),
        };
        let out = out.get_mut(..RECORD_HEADER + length)?;
        let (head, body) = out.split_at_mut(RECORD_HEADER);
        match self {
            Self::Page { runs, .. } => body.copy_from_slice(runs),
            Self::State { bytes, .. } => body.copy_from_slice(bytes),
            Self::Commit {
                epoch,
                time,
                states,
                ..
            } => {
                body[..8].copy_from_slice(&epoch.0.to_le_bytes());
                body[8..16].copy_from_slice(&time.to_le_bytes());
                body[16..].copy_from_slice(&states.to_le_bytes());
            }
            Self::Acknowledged { epoch, .. } => body.copy_from_slice(&epoch.0.to_le_bytes()),
            Self::Begin { .. } => {}
            Self::Input(InputPiece { epoch, bytes, .. }) => {
                let (head, rest) = body.split_at_mut(EPOCH);
                head.copy_from_slice(&epoch.0.to_le_bytes());
                rest.copy_from_slice(bytes);
            }
        }
        self.write_head(head, length)?;
        Some(RECORD_HEADER + length)
    }

    /// Writes the first [`RECORD_HEADER`] bytes of a record of which the other `length` bytes are there already.
    pub(crate) fn write_head(&self, head: &mut [u8], length: usize) -> Option<()> {
        let (kind, of, area, flags, number) = match *self {
            Self::Page {
                guest,
                area,
                number,
                first,
                last,
                ..
            } => {
                let mut flags = if last { LAST } else { 0 };
                if let Some(base) = first {
                    flags |= FIRST;
                    if base == Base::Last {
                        flags |= OVER_LAST;
                    }
                }
                (PAGE, guest, area.0, flags, number)
            }
            Self::State { guest, offset, .. } => (STATE, guest, 0, 0, offset),
            Self::Commit { group, pages, .. } => (COMMIT, group, 0, 0, pages),
            Self::Acknowledged { bond, group, .. } => (ACKNOWLEDGED, group, 0, 0, bond.0),
            Self::Begin { bond, group } => (BEGIN, group, 0, 0, bond.0),
            Self::Input(InputPiece {
                guest,
                card,
                offset,
                last,
                ..
            }) => (INPUT, guest, card, if last { LAST } else { 0 }, offset),
        };
        let length = u16::try_from(length).ok()?;
        head[..4].copy_from_slice(&[kind, of, area, flags]);
        head[4..8].copy_from_slice(&number.to_le_bytes());
        head[8..RECORD_HEADER].copy_from_slice(&length.to_le_bytes());
        Some(())
    }
}

/// The records of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    /// Those of this segment.
    #[must_use]
    pub const fn new(segment: &'a [u8]) -> Self {
        Self(segment)
    }

    fn read(&mut self) -> Result<Record<'a>, BadRecord> {
        let (head, rest) = self
            .0
            .split_first_chunk::<RECORD_HEADER>()
            .ok_or(BadRecord::Short)?;
        let [kind, of, area, flags, n0, n1, n2, n3, l0, l1] = *head;
        let number = u32::from_le_bytes([n0, n1, n2, n3]);
        let length = u16::from_le_bytes([l0, l1]);
        let (body, rest) = rest
            .split_at_checked(usize::from(length))
            .ok_or(BadRecord::Short)?;
        self.0 = rest;
        let bad = BadRecord::Length { kind, length };
        let word = |at: usize| {
            let bytes = body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u64::from_le_bytes).ok_or(bad)
        };
        let exactly = |wanted: usize| (body.len() == wanted).then_some(()).ok_or(bad);
        Ok(match kind {
            PAGE => Record::Page {
                guest: of,
                area: Area(area),
                number,
                first: (flags & FIRST != 0).then_some(if flags & OVER_LAST != 0 {
                    Base::Last
                } else {
                    Base::Zero
                }),
                last: flags & LAST != 0,
                runs: body,
            },
            STATE => Record::State {
                guest: of,
                offset: number,
                bytes: body,
            },
            COMMIT => {
                exactly(COMMIT_LEN - RECORD_HEADER)?;
                Record::Commit {
                    group: of,
                    epoch: Epoch(word(0)?),
                    pages: number,
                    time: word(8)?,
                    states: word(12)?.wrapping_shr(32) as u32,
                }
            }
            ACKNOWLEDGED => {
                exactly(ACKNOWLEDGED_LEN - RECORD_HEADER)?;
                Record::Acknowledged {
                    bond: Bond(number),
                    group: of,
                    epoch: Epoch(word(0)?),
                }
            }
            BEGIN => {
                exactly(0)?;
                Record::Begin {
                    bond: Bond(number),
                    group: of,
                }
            }
            INPUT => Record::Input(InputPiece {
                guest: of,
                card: area,
                offset: number,
                last: flags & LAST != 0,
                epoch: Epoch(word(0)?),
                bytes: body.get(EPOCH..).ok_or(bad)?,
            }),
            _ => return Err(BadRecord::Kind(kind)),
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            // What follows something broken is nothing.
            self.0 = &[];
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn records_come_back_one_behind_the_other() {
        let records = [
            Record::Begin {
                bond: Bond(77),
                group: 3,
            },
            Record::Page {
                guest: 1,
                area: Area(2),
                number: 0x12_3456,
                first: Some(Base::Last),
                last: false,
                runs: &[1, 2, 3],
            },
            Record::Page {
                guest: 1,
                area: Area(2),
                number: 0x12_3456,
                first: None,
                last: true,
                runs: &[],
            },
            Record::State {
                guest: 7,
                offset: 70_000,
                bytes: &[9; 100],
            },
            Record::Commit {
                group: 3,
                epoch: Epoch(5),
                pages: 1,
                time: u64::MAX,
                states: 0x8765_4321,
            },
            Record::Acknowledged {
                bond: Bond(77),
                group: 3,
                epoch: Epoch(5),
            },
            Record::Input(InputPiece {
                guest: 7,
                card: 1,
                offset: 1400,
                last: true,
                epoch: Epoch(5),
                bytes: &[8; 60],
            }),
        ];
        let mut segment = [0; 500];
        let mut length = 0;
        for record in &records {
            length += record.write(&mut segment[length..]).unwrap();
        }
        let read: Result<Vec<_>, _> = Records::new(&segment[..length]).collect();
        assert_eq!(read.unwrap(), records);
        for short in 1..length {
            let mut fine = 0;
            let broken = Records::new(&segment[..short]).any(|record| {
                fine += usize::from(record.is_ok());
                record == Err(BadRecord::Short)
            });
            assert!(broken || fine < records.len(), "{short}");
        }
        assert_eq!(records[3].write(&mut [0; 109]), None);
    }

    #[test]
    fn what_is_no_record_is_named() {
        let mut segment = [0; 20];
        assert_eq!(Records::new(&segment).next(), Some(Err(BadRecord::Kind(0))));
        segment[0] = 3;
        let bad = BadRecord::Length { kind: 3, length: 0 };
        assert_eq!(Records::new(&segment).next(), Some(Err(bad)));
        (segment[0], segment[8]) = (INPUT, 7);
        let bad = BadRecord::Length { kind: 6, length: 7 };
        assert_eq!(Records::new(&segment).next(), Some(Err(bad)));
    }

    proptest! {
        #[test]
        fn any_bytes_end(segment in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Records::new(&segment).count() <= segment.len());
        }
    }
}

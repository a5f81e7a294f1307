//! The ring of pages in which a DP8390 stores frames (National Semiconductor DP8390D, "Packet Reception").
//!
//! The chip writes each frame behind a header of four bytes, from one page of 256 bytes to the next, and around from the
//! last page to the first. CURR is the page that it writes next; BNRY is the last page that it must not reach.

use core::fmt;

use super::FRAME_MAX;

/// Bytes of a page.
const PAGE: u16 = 256;
/// Bytes of the header before a frame.
pub const HEADER: u16 = 4;
/// In a header's status: the frame was received without errors.
const INTACT: u8 = 1;
/// Bytes of the checksum, which may be in the ring and counted or not.
const CHECKSUM: u16 = 4;

/// The pages of the ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pages {
    /// The first.
    pub start: u8,
    /// The one after the last.
    pub stop: u8,
}

/// Why a header cannot be true: the ring must be emptied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Defect {
    /// The frame was received with errors, and should not be there.
    Status(u8),
    /// No frame is that long.
    Length(u16),
    /// The next frame cannot begin there.
    Next(u8),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status:#04x}"),
            Self::Length(length) => write!(f, "length {length}"),
            Self::Next(page) => write!(f, "next page {page:#04x}"),
        }
    }
}

/// A frame in the ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stored {
    /// Its bytes, of which a checksum at the end may be left out.
    pub length: u16,
    /// The page of the next frame.
    pub next: u8,
}

impl Pages {
    const fn count(self) -> u8 {
        self.stop - self.start
    }

    /// Whether a page is in the ring.
    #[must_use]
    pub const fn contains(self, page: u8) -> bool {
        self.start <= page && page < self.stop
    }

    /// The page so many behind another of the ring.
    fn behind(self, page: u8, more: u16) -> u8 {
        let offset = (u16::from(page - self.start) + more) % u16::from(self.count());
        self.start + offset as u8
    }

    /// The page after another of the ring.
    #[must_use]
    pub fn after(self, page: u8) -> u8 {
        self.behind(page, 1)
    }

    /// The page before another of the ring.
    #[must_use]
    pub fn before(self, page: u8) -> u8 {
        self.behind(page, u16::from(self.count()) - 1)
    }

    /// Reads the header of a frame that begins at a page of the ring.
    ///
    /// # Errors
    /// If it cannot be true.
    pub fn header(self, page: u8, header: [u8; HEADER as usize]) -> Result<Stored, Defect> {
        let [status, next, low, high] = header;
        if status & INTACT == 0 {
            return Err(Defect::Status(status));
        }
        let count = u16::from_le_bytes([low, high]);
        let length = count.checked_sub(HEADER).ok_or(Defect::Length(count))?;
        if !(1..=FRAME_MAX + usize::from(CHECKSUM)).contains(&usize::from(length)) {
            return Err(Defect::Length(count));
        }
        let ends = [count, count + CHECKSUM].map(|end| self.behind(page, end.div_ceil(PAGE)));
        if !ends.contains(&next) {
            return Err(Defect::Next(next));
        }
        Ok(Stored {
            length: length.min(FRAME_MAX as u16),
            next,
        })
    }

    /// Where a frame's bytes lie, as (address, length): up to the end of the ring, and on from its start.
    #[must_use]
    pub fn spans(self, page: u8, length: u16) -> [(u16, u16); 2] {
        let begin = u16::from(page) * PAGE + HEADER;
        let before_end = u16::from(self.stop)
            .saturating_mul(PAGE)
            .saturating_sub(begin)
            .min(length);
        [
            (begin, before_end),
            (u16::from(self.start) * PAGE, length - before_end),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Defect, HEADER, Pages, Stored};

    const PAGES: Pages = Pages {
        start: 0x46,
        stop: 0x80,
    };

    #[test]
    fn pages_go_around() {
        assert_eq!((PAGES.after(0x46), PAGES.after(0x7f)), (0x47, 0x46));
        assert_eq!((PAGES.before(0x47), PAGES.before(0x46)), (0x46, 0x7f));
        assert!(PAGES.contains(0x46) && PAGES.contains(0x7f));
        assert!(!PAGES.contains(0x45) && !PAGES.contains(0x80));
    }

    #[test]
    fn headers_are_checked() {
        let header = |status, next, count: u16| {
            let [low, high] = count.to_le_bytes();
            PAGES.header(0x7e, [status, next, low, high])
        };
        assert_eq!(
            header(1, 0x7f, 64),
            Ok(Stored {
                length: 60,
                next: 0x7f
            })
        );
        // The checksum may need a page more, and the frame may go around.
        assert_eq!(
            header(0x21, 0x7f, 254),
            Ok(Stored {
                length: 250,
                next: 0x7f
            })
        );
        assert_eq!(
            header(0x21, 0x46, 254),
            Ok(Stored {
                length: 250,
                next: 0x46
            })
        );
        assert_eq!(
            header(1, 0x4a, 1518),
            Ok(Stored {
                length: 1514,
                next: 0x4a
            })
        );
        assert_eq!(
            header(1, 0x4a, 1522),
            Ok(Stored {
                length: 1514,
                next: 0x4a
            })
        );
        assert_eq!(header(0x80, 0x7f, 64), Err(Defect::Status(0x80)));
        for count in [0, 3, 4, 1523, u16::MAX] {
            assert_eq!(header(1, 0x7f, count), Err(Defect::Length(count)));
        }
        for next in [0x7e, 0x46, 0x80, 0, 255] {
            assert_eq!(header(1, next, 64), Err(Defect::Next(next)));
        }
    }

    proptest! {
        /// Frames of any length, one behind the other, are all found where a chip has put them.
        #[test]
        fn frames_are_found(lengths in prop::collection::vec(1_u16..=1514, 1..100)) {
            let (mut ring, mut page) = (vec![0_u8; 0x8000], PAGES.start);
            for (number, length) in lengths.into_iter().enumerate() {
                let count = length + HEADER;
                let next = (0..count.div_ceil(256)).fold(page, |page, _| PAGES.after(page));
                let frame: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(7) ^ number as u8).collect();
                let [low, high] = count.to_le_bytes();
                let mut at = usize::from(page) * 256;
                for byte in [1, next, low, high].into_iter().chain(frame.iter().copied()) {
                    ring[at] = byte;
                    at += 1;
                    if at == usize::from(PAGES.stop) * 256 {
                        at = usize::from(PAGES.start) * 256;
                    }
                }
                let start = usize::from(page) * 256;
                let header = ring[start..start + 4].try_into().unwrap();
                let stored = PAGES.header(page, header).unwrap();
                prop_assert_eq!(stored, Stored { length, next });
                let spans = PAGES.spans(page, stored.length);
                let read: Vec<u8> = spans
                    .into_iter()
                    .flat_map(|(address, length)| &ring[usize::from(address)..usize::from(address + length)])
                    .copied()
                    .collect();
                prop_assert_eq!(read, frame);
                page = next;
            }
        }

        /// Whatever a header says, what is read of it stays in the ring.
        #[test]
        fn any_header(page in PAGES.start..PAGES.stop, header: [u8; 4]) {
            if let Ok(stored) = PAGES.header(page, header) {
                prop_assert!(PAGES.contains(stored.next));
                for (address, length) in PAGES.spans(page, stored.length) {
                    prop_assert!(address >= 0x4600 && address + length <= 0x8000);
                }
            }
        }
    }
}

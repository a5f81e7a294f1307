//! Pages on the link: as runs of words that differ from what the backup has, or from zero.
//!
//! A run is `first u16 | count u16 | count × 8 bytes`, in words of 8 bytes, little-endian. Runs ascend, and a long one may be
//! cut anywhere, so that a page goes in as many pieces as the segments of the link demand. There is no other compression: at
//! a gigabit a second the wire takes 33 µs for a whole page, less than a processor of 1 GHz takes to squeeze it, while to
//! find the words that changed takes it two.

use core::fmt;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;
/// A page's bytes.
pub type Page = [u8; PAGE_SIZE];

/// Bytes of a word.
const WORD: usize = 8;
/// Words of a page.
const WORDS: usize = PAGE_SIZE / WORD;
/// Bytes before a run's words.
const RUN_HEADER: usize = 4;
/// The least room in which a piece of a page gets on.
pub const PIECE_MIN: usize = RUN_HEADER + WORD;

/// What a page's runs are laid over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Zeroes.
    Zero,
    /// The newest version of the page that the backup has.
    Last,
}

/// Takes a page apart into pieces of any size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoder {
    base: Base,
    /// The word from which on nothing is told yet.
    next: usize,
}

impl Encoder {
    /// Begins with a page of which the backup has `last`, if it has one: chooses the base from which less differs.
    #[must_use]
    pub fn new(page: &Page, last: Option<&Page>) -> Self {
        let base = match last {
            None => Base::Zero,
            Some(_) if words(page).all(|word| word == 0) => Base::Zero,
            Some(_) => Base::Last,
        };
        Self { base, next: 0 }
    }

    /// What the runs are laid over.
    #[must_use]
    pub const fn base(&self) -> Base {
        self.base
    }

    /// Writes the next runs into `out`, of [`PIECE_MIN`] bytes at least, as many as fit. `page` and `last` are what they were.
    /// Returns the number of bytes, and whether that is all of the page.
    #[must_use]
    pub fn fill(&mut self, page: &Page, last: Option<&Page>, out: &mut [u8]) -> (usize, bool) {
        let last = last.filter(|_| self.base == Base::Last);
        let differs = |at: usize| {
            let word = word(page, at);
            word != last.map_or(0, |last| self::word(last, at))
        };
        let mut length = 0;
        while let Some(first) = (self.next..WORDS).find(|at| differs(*at)) {
            let room = out.len() - length;
            let Some(most) = room.checked_sub(RUN_HEADER).map(|room| room / WORD) else {
                return (length, false);
            };
            if most == 0 {
                return (length, false);
            }
            let end = (first + 1..WORDS)
                .take(most - 1)
                .find(|at| !differs(*at))
                .unwrap_or(WORDS.min(first + most));
            let bytes = &page[first * WORD..end * WORD];
            let run = &mut out[length..length + RUN_HEADER + bytes.len()];
            run[..2].copy_from_slice(&(first as u16).to_le_bytes());
            run[2..RUN_HEADER].copy_from_slice(&((end - first) as u16).to_le_bytes());
            run[RUN_HEADER..].copy_from_slice(bytes);
            length += run.len();
            self.next = end;
        }
        self.next = WORDS;
        (length, true)
    }
}

fn word(page: &Page, at: usize) -> u64 {
    let mut bytes = [0; WORD];
    bytes.copy_from_slice(&page[at * WORD..(at + 1) * WORD]);
    u64::from_le_bytes(bytes)
}

fn words(page: &Page) -> impl Iterator<Item = u64> + '_ {
    (0..WORDS).map(|at| word(page, at))
}

/// A piece of a page is no sequence of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPiece;

impl fmt::Display for BadPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a piece of a page is no sequence of runs")
    }
}

impl core::error::Error for BadPiece {}

/// Shows each run of a piece to `write`, as its offset in bytes and its bytes, which lie within the page.
///
/// # Errors
///
/// [`BadPiece`] where something is no run; those before it have been shown.
pub fn decode(mut piece: &[u8], mut write: impl FnMut(usize, &[u8])) -> Result<(), BadPiece> {
    while !piece.is_empty() {
        let (header, rest) = piece.split_first_chunk::<RUN_HEADER>().ok_or(BadPiece)?;
        let [a, b, c, d] = *header;
        let first = usize::from(u16::from_le_bytes([a, b]));
        let count = usize::from(u16::from_le_bytes([c, d]));
        if count == 0 || first + count > WORDS {
            return Err(BadPiece);
        }
        let (bytes, rest) = rest.split_at_checked(count * WORD).ok_or(BadPiece)?;
        write(first * WORD, bytes);
        piece = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// Sends a page in pieces of these sizes; returns what comes out at the other end, and the bytes that it took.
    fn sent(page: &Page, last: Option<&Page>, sizes: &[usize]) -> (Page, usize) {
        let mut encoder = Encoder::new(page, last);
        let mut got = match encoder.base() {
            Base::Zero => [0; PAGE_SIZE],
            Base::Last => *last.unwrap(),
        };
        let mut total = 0;
        for size in sizes.iter().cycle() {
            let mut piece = vec![0; *size];
            let (length, done) = encoder.fill(page, last, &mut piece);
            assert!(done || length > size - PIECE_MIN, "{length} of {size}");
            total += length;
            decode(&piece[..length], |at, bytes| {
                got[at..at + bytes.len()].copy_from_slice(bytes);
            })
            .unwrap();
            if done {
                break;
            }
        }
        (got, total)
    }

    fn pages() -> impl Strategy<Value = Page> {
        let runs = prop::collection::vec((0..PAGE_SIZE, 1..600_usize, any::<u8>()), 0..12);
        runs.prop_map(|runs| {
            let mut page = [0; PAGE_SIZE];
            for (at, length, byte) in runs {
                let end = PAGE_SIZE.min(at + length);
                page[at..end].fill(byte);
            }
            page
        })
    }

    proptest! {
        #[test]
        fn any_page_comes_through_in_pieces(
            page in pages(),
            last in prop::option::of(pages()),
            sizes in prop::collection::vec(PIECE_MIN..1500_usize, 1..5),
        ) {
            prop_assert_eq!(sent(&page, last.as_ref(), &sizes).0, page);
        }

        #[test]
        fn any_bytes_are_runs_within_the_page_or_none(piece in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut ends: Vec<usize> = Vec::new();
            let _ = decode(&piece, |at, bytes| ends.push(at + bytes.len()));
            prop_assert!(ends.iter().all(|end| *end <= PAGE_SIZE));
        }
    }

    #[test]
    fn little_is_sent_where_little_changed() {
        let last = [7; PAGE_SIZE];
        let mut page = last;
        page[100] = 1;
        page[3000] = 1;
        assert_eq!(sent(&page, Some(&last), &[1440]), (page, 2 * PIECE_MIN));
        assert_eq!(sent(&last, Some(&last), &[1440]), (last, 0));
        assert_eq!(sent(&[0; PAGE_SIZE], Some(&last), &[1440]).1, 0);
        assert_eq!(sent(&[0; PAGE_SIZE], None, &[1440]).1, 0);
        assert_eq!(sent(&page, None, &[8900]).1, PAGE_SIZE + RUN_HEADER);
    }
}

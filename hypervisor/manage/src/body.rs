//! A page on its way out.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

/// Bytes of a piece of memory.
const PIECE: usize = 4 << 10;

/// What an answer says: as long as there is room for it. It lies in pieces of memory, so that none is copied while it grows,
/// and each is given back when it is said.
#[derive(Debug)]
pub struct Body {
    pieces: VecDeque<Vec<u8>>,
    /// How much of the first one is said.
    said: usize,
    length: usize,
    /// How many more pieces there may be.
    room: usize,
    whole: bool,
}

impl Body {
    /// An empty one, for which there are `room` bytes of memory.
    pub(crate) fn new(room: usize) -> Self {
        Self {
            pieces: VecDeque::new(),
            said: 0,
            length: 0,
            room: room / PIECE,
            whole: true,
        }
    }

    /// Appends bytes. If there is no room for them, nothing of it all is kept.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while self.whole && !bytes.is_empty() {
            let Some(piece) = self.pieces.back_mut().filter(|piece| piece.len() < PIECE) else {
                self.grow();
                continue;
            };
            let count = bytes.len().min(PIECE - piece.len());
            let (now, later) = bytes.split_at(count);
            piece.extend_from_slice(now);
            self.length += count;
            bytes = later;
        }
    }

    fn grow(&mut self) {
        let mut piece = Vec::new();
        let possible = self.room > 0
            && self.pieces.try_reserve(1).is_ok()
            && piece.try_reserve_exact(PIECE).is_ok();
        if possible {
            self.room -= 1;
            self.pieces.push_back(piece);
        } else {
            self.pieces.clear();
            self.length = 0;
            self.whole = false;
        }
    }

    /// Whether there was room for all that it was to say.
    pub(crate) const fn is_whole(&self) -> bool {
        self.whole
    }

    /// Bytes that are left to be said.
    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// Bytes of memory that it takes.
    pub(crate) fn held(&self) -> usize {
        self.pieces.len() * PIECE
    }

    /// Puts bytes before all others, of which nothing is said yet.
    pub(crate) fn begin_with(&mut self, bytes: Vec<u8>) {
        self.length += bytes.len();
        self.pieces.push_front(bytes);
    }

    /// Some of what is to be said next; nothing, if all is said.
    pub(crate) fn next(&self) -> &[u8] {
        let first = self.pieces.front();
        first
            .and_then(|piece| piece.get(self.said..))
            .unwrap_or(&[])
    }

    /// So many bytes of those were said.
    pub(crate) fn advance(&mut self, count: usize) {
        let count = count.min(self.next().len());
        self.said += count;
        self.length -= count;
        if self.next().is_empty() {
            self.pieces.pop_front();
            self.said = 0;
        }
    }
}

impl fmt::Write for Body {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        if self.whole { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_said_is_what_was_written(
            head in prop::collection::vec(any::<u8>(), 1..100),
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 0..8),
            pace in 1usize..6000,
            room in 0usize..40_000,
        ) {
            let mut body = Body::new(room);
            for part in &parts {
                body.push(part);
            }
            let written = parts.concat();
            let fits = written.len().div_ceil(PIECE) <= room / PIECE;
            prop_assert_eq!(body.is_whole(), fits);
            prop_assert!(body.held() <= room);
            prop_assert_eq!(body.len(), if fits { written.len() } else { 0 });
            body.begin_with(head.clone());
            let mut said = Vec::new();
            while !body.next().is_empty() {
                prop_assert_eq!(body.len() + said.len(), head.len() + if fits { written.len() } else { 0 });
                let count = body.next().len().min(pace);
                said.extend_from_slice(&body.next()[..count]);
                body.advance(count);
            }
            let expected = if fits { [head, written].concat() } else { head };
            prop_assert_eq!(said, expected);
            prop_assert_eq!((body.len(), body.held()), (0, 0));
        }
    }
}

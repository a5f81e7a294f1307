//! A bounded queue of whole frames.

use alloc::boxed::Box;
use alloc::vec;

/// Bytes of a frame's length in the queue, and of its alignment there.
const WORD: usize = 4;
/// In place of a length: the next frame is at the start of the memory.
const WRAP: u32 = u32::MAX;

/// Frames in the order in which they came, in one piece of memory.
#[derive(Clone, Debug)]
pub struct FrameQueue {
    memory: Box<[u8]>,
    /// Where the first frame is, and behind the last.
    first: usize,
    end: usize,
    /// How many there are.
    count: usize,
}

const fn padded(length: usize) -> usize {
    length.div_ceil(WORD) * WORD
}

impl FrameQueue {
    /// An empty queue that takes `size` bytes with the frames' lengths.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            memory: vec![0; padded(size)].into_boxed_slice(),
            first: 0,
            end: 0,
            count: 0,
        }
    }

    /// Whether there are no frames.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many frames there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Forgets all frames.
    pub const fn clear(&mut self) {
        (self.first, self.end, self.count) = (0, 0, 0);
    }

    /// Puts a frame of `length` bytes in, which `fill` writes; whether there is room. If not, `fill` is not called.
    pub fn push(&mut self, length: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let needed = WORD + padded(length);
        if self.count == 0 {
            self.clear();
        }
        let size = self.memory.len();
        let wrapped = self.count > 0 && self.end <= self.first;
        let limit = if wrapped { self.first } else { size };
        let at = if limit - self.end >= needed {
            self.end
        } else if !wrapped && self.first >= needed {
            // The rest of the memory stays empty.
            self.put_length(self.end, WRAP);
            0
        } else {
            return false;
        };
        let Ok(word) = u32::try_from(length) else {
            return false;
        };
        self.put_length(at, word);
        let start = at + WORD;
        if let Some(place) = self.memory.get_mut(start..start + length) {
            fill(place);
        }
        self.end = at + needed;
        self.count += 1;
        true
    }

    fn put_length(&mut self, at: usize, word: u32) {
        if let Some(place) = self.memory.get_mut(at..at + WORD) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }

    fn length(&self, at: usize) -> Option<u32> {
        let bytes = self.memory.get(at..at + WORD)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }

    /// Shows all frames in their order.
    pub fn visit(&self, mut show: impl FnMut(&[u8])) {
        let mut at = self.first;
        for _ in 0..self.count {
            if matches!(self.length(at), None | Some(WRAP)) {
                at = 0;
            }
            let length = self.length(at).unwrap_or(0) as usize;
            let start = at + WORD;
            show(self.memory.get(start..start + length).unwrap_or(&[]));
            at = start + padded(length);
        }
    }

    /// Shows the first frame to `take`, if there is one; it is gone if that says so. Returns whether one is gone.
    pub fn pop_if(&mut self, take: impl FnOnce(&[u8]) -> bool) -> bool {
        if self.count == 0 {
            return false;
        }
        if matches!(self.length(self.first), None | Some(WRAP)) {
            self.first = 0;
        }
        let length = self.length(self.first).unwrap_or(0) as usize;
        let start = self.first + WORD;
        let frame = self.memory.get(start..start + length).unwrap_or(&[]);
        if !take(frame) {
            return false;
        }
        self.first = start + padded(length);
        self.count -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            size in 0usize..300,
            steps in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..80).prop_map(Some),
                Just(None),
            ], 0..200),
        ) {
            let mut queue = FrameQueue::new(size);
            let mut model = VecDeque::<Vec<u8>>::new();
            for step in steps {
                match step {
                    Some(frame) => {
                        let room = queue.push(frame.len(), |into| into.copy_from_slice(&frame));
                        let held: usize = model.iter().map(|it| 4 + it.len().div_ceil(4) * 4).sum();
                        let needed = 4 + frame.len().div_ceil(4) * 4;
                        if room {
                            prop_assert!(held + needed <= size.div_ceil(4) * 4);
                            model.push_back(frame);
                        } else {
                            // Less than the longest frame is lost to each being in one piece.
                            prop_assert!(held + needed + 84 > size.div_ceil(4) * 4);
                        }
                    }
                    None => {
                        let mut seen = None;
                        let popped = queue.pop_if(|frame| {
                            seen = Some(frame.to_vec());
                            false
                        });
                        prop_assert!(!popped);
                        prop_assert_eq!(seen.as_ref(), model.front());
                        let popped = queue.pop_if(|_| true);
                        prop_assert_eq!(popped, model.pop_front().is_some());
                    }
                }
                let mut all = VecDeque::new();
                queue.visit(|frame| all.push_back(frame.to_vec()));
                prop_assert_eq!(&all, &model);
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
            }
        }
    }
}

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
    /// How many of them were [passed](FrameQueue::pass), and where the next one is.
    passed: usize,
    next: usize,
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
            passed: 0,
            next: 0,
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
        (self.passed, self.next) = (0, 0);
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

    /// The frame whose length is here, or at the start of the memory, and where the next one's is.
    fn frame(&self, at: usize) -> (&[u8], usize) {
        let at = match self.length(at) {
            None | Some(WRAP) => 0,
            Some(_) => at,
        };
        let length = self.length(at).unwrap_or(0) as usize;
        let start = at + WORD;
        let frame = self.memory.get(start..start + length).unwrap_or(&[]);
        (frame, start + padded(length))
    }

    /// Shows all frames in their order.
    pub fn visit(&self, mut show: impl FnMut(&[u8])) {
        let mut at = self.first;
        for _ in 0..self.count {
            let (frame, next) = self.frame(at);
            show(frame);
            at = next;
        }
    }

    /// Passes over the first frame that was not passed yet, which stays where it is, and shows it to `look`; none if all were passed.
    pub fn pass<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if self.passed == self.count {
            return None;
        }
        let (frame, next) = self.frame(self.next);
        let shown = look(frame);
        (self.passed, self.next) = (self.passed + 1, next);
        Some(shown)
    }

    /// Forgets the frames that were passed.
    pub fn drop_passed(&mut self) {
        self.count -= self.passed;
        (self.first, self.passed) = (self.next, 0);
    }

    /// Shows the first frame to `take`, if there is one; it is gone if that says so. Returns whether one is gone.
    pub fn pop_if(&mut self, take: impl FnOnce(&[u8]) -> bool) -> bool {
        if self.count == 0 {
            return false;
        }
        let (frame, next) = self.frame(self.first);
        if !take(frame) {
            return false;
        }
        (self.first, self.count) = (next, self.count - 1);
        match self.passed.checked_sub(1) {
            Some(passed) => self.passed = passed,
            None => self.next = next,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<u8>),
        Pop,
        Pass,
        DropPassed,
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            size in 0usize..300,
            steps in prop::collection::vec(prop_oneof![
                3 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Step::Push),
                2 => Just(Step::Pop),
                2 => Just(Step::Pass),
                1 => Just(Step::DropPassed),
            ], 0..200),
        ) {
            let mut queue = FrameQueue::new(size);
            let mut model = VecDeque::<Vec<u8>>::new();
            let mut passed = 0;
            for step in steps {
                match step {
                    Step::Push(frame) => {
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
                    Step::Pass => {
                        let seen = queue.pass(<[u8]>::to_vec);
                        prop_assert_eq!(seen.as_ref(), model.get(passed));
                        passed += usize::from(seen.is_some());
                    }
                    Step::DropPassed => {
                        queue.drop_passed();
                        model.drain(..passed);
                        passed = 0;
                    }
                    Step::Pop => {
                        let mut seen = None;
                        let popped = queue.pop_if(|frame| {
                            seen = Some(frame.to_vec());
                            false
                        });
                        prop_assert!(!popped);
                        prop_assert_eq!(seen.as_ref(), model.front());
                        let popped = queue.pop_if(|_| true);
                        prop_assert_eq!(popped, model.pop_front().is_some());
                        passed = passed.saturating_sub(1);
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

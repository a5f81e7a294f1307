//! A byte ring.

use alloc::boxed::Box;

/// A bounded queue of bytes. Without an allocation it holds one small chunk, so that the console
/// works before the heap does.
pub(crate) struct Ring {
    small: [u8; SMALL],
    large: Option<Box<[u8]>>,
    /// Total bytes ever taken out.
    head: usize,
    /// Total bytes ever put in.
    tail: usize,
}

const SMALL: usize = 64;

impl Ring {
    pub(crate) const fn new() -> Self {
        Self {
            small: [0; SMALL],
            large: None,
            head: 0,
            tail: 0,
        }
    }

    /// Gives the ring `capacity` bytes, keeping its content; 0 keeps the small chunk.
    pub(crate) fn allocate(&mut self, capacity: usize) {
        if capacity <= SMALL {
            return;
        }
        let mut new = Self {
            large: Some(alloc::vec![0; capacity].into_boxed_slice()),
            ..Self::new()
        };
        while !self.front().is_empty() {
            let moved = new.push(self.front());
            self.consume(moved);
        }
        *self = new;
    }

    fn storage(&self) -> &[u8] {
        self.large.as_deref().unwrap_or(&self.small)
    }

    fn storage_mut(&mut self) -> &mut [u8] {
        self.large.as_deref_mut().unwrap_or(&mut self.small)
    }

    fn len(&self) -> usize {
        self.tail - self.head
    }

    /// Bytes that fit.
    pub(crate) fn room(&self) -> usize {
        self.storage().len() - self.len()
    }

    /// Puts in what fits of `bytes`; returns how many that were.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        let accepted = bytes.len().min(self.room());
        for byte in &bytes[..accepted] {
            let at = self.tail % self.storage().len();
            self.storage_mut()[at] = *byte;
            self.tail += 1;
        }
        accepted
    }

    /// Puts in a byte, over the oldest one when full.
    pub(crate) fn push_over(&mut self, byte: u8) {
        if self.room() == 0 {
            self.head += 1;
        }
        self.push(&[byte]);
    }

    /// The oldest bytes, as many as lie in one piece.
    pub(crate) fn front(&self) -> &[u8] {
        let storage = self.storage();
        let start = self.head % storage.len();
        let end = (start + self.len()).min(storage.len());
        &storage[start..end]
    }

    /// Copies bytes from the `from`th oldest on without taking them out; returns how many.
    pub(crate) fn peek(&self, from: usize, into: &mut [u8]) -> usize {
        let storage = self.storage();
        let count = self.len().saturating_sub(from).min(into.len());
        for (at, slot) in into[..count].iter_mut().enumerate() {
            *slot = storage[(self.head + from + at) % storage.len()];
        }
        count
    }

    /// Takes out the `count` oldest bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.head += count.min(self.len());
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn old_bytes_give_way_when_asked() {
        let mut ring = Ring::new();
        for byte in 0..100 {
            ring.push_over(byte);
        }
        assert_eq!(ring.room(), 0);
        assert_eq!(ring.front()[0], 36);
        assert_eq!(ring.push(&[1]), 0);
        let mut tail = [0; 8];
        assert_eq!(ring.peek(60, &mut tail), 4);
        assert_eq!(tail[..4], [96, 97, 98, 99]);
        assert_eq!(ring.peek(64, &mut tail), 0);
    }

    proptest! {
        #[test]
        fn a_ring_is_a_bounded_queue(steps in prop::collection::vec((0usize..200, 0usize..200), 1..50)) {
            let mut ring = Ring::new();
            ring.allocate(150);
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for (put, take) in steps {
                let bytes: Vec<u8> = (0..put).map(|i| next.wrapping_add(i as u8)).collect();
                let accepted = ring.push(&bytes);
                prop_assert_eq!(accepted, put.min(150 - model.len()));
                model.extend(&bytes[..accepted]);
                next = next.wrapping_add(accepted as u8);
                let mut taken = 0;
                while taken < take && !ring.front().is_empty() {
                    let chunk = ring.front().len().min(take - taken);
                    for byte in &ring.front()[..chunk] {
                        prop_assert_eq!(Some(*byte), model.pop_front());
                    }
                    ring.consume(chunk);
                    taken += chunk;
                }
            }
        }
    }
}

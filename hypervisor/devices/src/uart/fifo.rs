//! The receiver FIFO.

/// Characters that it holds.
pub(super) const SIZE: usize = 16;

/// A ring of characters.
#[derive(Clone, Debug)]
pub(super) struct Fifo {
    bytes: [u8; SIZE],
    first: usize,
    len: usize,
}

impl Fifo {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; SIZE],
            first: 0,
            len: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends a character; a full FIFO drops it.
    pub(super) fn push(&mut self, byte: u8) {
        if self.len < SIZE {
            self.bytes[(self.first + self.len) % SIZE] = byte;
            self.len += 1;
        }
    }

    /// Takes the oldest character, or 0 from an empty FIFO.
    pub(super) fn pop(&mut self) -> u8 {
        if self.len == 0 {
            return 0;
        }
        let byte = self.bytes[self.first % SIZE];
        self.first = (self.first + 1) % SIZE;
        self.len -= 1;
        byte
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..self.len).map(|index| self.bytes[(self.first + index) % SIZE])
    }
}

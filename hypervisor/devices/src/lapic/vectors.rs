//! Sets of interrupt vectors: the 256-bit registers of a local APIC.

use crate::msi::FIRST_VECTOR;

/// A set of vectors.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Vectors([u64; 4]);

/// The word that holds a vector, and the vector's bit in it.
const fn place(vector: u8) -> (usize, u64) {
    ((vector >> 6) as usize, 1 << (vector & 63))
}

impl Vectors {
    /// A set in words of 64, the lowest vectors first; `None` if it has vectors that no interrupt may have.
    pub(super) const fn from_words(words: [u64; 4]) -> Option<Self> {
        if words[0] & ((1 << FIRST_VECTOR) - 1) == 0 {
            Some(Self(words))
        } else {
            None
        }
    }

    /// Adds the vectors of such words, but for those that no interrupt may have.
    pub(super) fn merge(&mut self, words: [u64; 4]) {
        for (word, add) in self.0.iter_mut().zip(words) {
            *word |= add;
        }
        self.0[0] &= !((1 << FIRST_VECTOR) - 1);
    }

    pub(super) const fn words(&self) -> [u64; 4] {
        self.0
    }

    #[inline]
    pub(super) const fn contains(&self, vector: u8) -> bool {
        let (word, bit) = place(vector);
        self.0[word] & bit != 0
    }

    /// Adds a vector; returns whether it was not there.
    #[inline]
    pub(super) const fn insert(&mut self, vector: u8) -> bool {
        let (word, bit) = place(vector);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    #[inline]
    pub(super) const fn remove(&mut self, vector: u8) {
        let (word, bit) = place(vector);
        self.0[word] &= !bit;
    }

    /// Whether there are no two vectors.
    #[inline]
    pub(super) const fn at_most_one(&self) -> bool {
        let [first, second, third, last] = self.0;
        // Alone, a word's bit is in the union too; two words' bits may coincide there.
        let words =
            (first != 0) as u8 + (second != 0) as u8 + (third != 0) as u8 + (last != 0) as u8;
        let union = first | second | third | last;
        words <= 1 && union & union.wrapping_sub(1) == 0
    }

    /// The highest vector; 0, which no interrupt has, for the empty set.
    #[inline]
    pub(super) const fn highest(&self) -> u8 {
        let (base, word) = match self.0 {
            [_, _, _, word @ 1..=u64::MAX] => (192, word),
            [_, _, word @ 1..=u64::MAX, _] => (128, word),
            [_, word @ 1..=u64::MAX, _, _] => (64, word),
            [0, _, _, _] => return 0,
            [word, _, _, _] => (0, word),
        };
        base + word.ilog2() as u8
    }

    /// One of the eight 32-bit registers that show the set.
    #[inline]
    pub(super) const fn register(&self, index: u8) -> u32 {
        let word = self.0[(index >> 1 & 3) as usize];
        (word >> ((index & 1) * 32)) as u32
    }
}

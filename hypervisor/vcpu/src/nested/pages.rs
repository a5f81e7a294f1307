//! Sets of 4 KiB pages.

use core::ops::BitOrAssign;

/// The memory that a [`PageSet`] is about, in bytes: what one table of 4 KiB pages maps.
pub const REGION_SIZE: u64 = 1 << 21;

const WORDS: usize = 8;

/// Some of the 512 pages of a region of 2 MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageSet([u64; WORDS]);

impl PageSet {
    /// No page.
    pub const EMPTY: Self = Self([0; WORDS]);
    /// Every page.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    /// The pages whose bits are set, the region's first page being bit 0 of the first word.
    #[must_use]
    pub const fn from_words(words: [u64; WORDS]) -> Self {
        Self(words)
    }

    /// Adds the page with this number in the region, modulo 512.
    pub const fn insert(&mut self, page: usize) {
        self.0[page / 64 % WORDS] |= 1 << (page % 64);
    }

    /// The first `count` pages, at most all.
    #[must_use]
    pub fn first(count: u64) -> Self {
        let word = |index: u64| match count.saturating_sub(64 * index) {
            0 => 0,
            some => u64::MAX >> (64 - some.min(64)),
        };
        Self(core::array::from_fn(|index| word(index as u64)))
    }

    /// Whether it has no page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Takes the page with the lowest number in the region out.
    pub fn take_first(&mut self) -> Option<u64> {
        let words = self.0.iter_mut().enumerate();
        let (index, word) = words.into_iter().find(|(_, word)| **word != 0)?;
        let page = 64 * index as u64 + u64::from(word.trailing_zeros());
        *word &= *word - 1;
        Some(page)
    }

    /// How many pages it has.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The numbers of its pages in the region, ascending.
    pub fn iter(self) -> impl Iterator<Item = u64> {
        (0..).step_by(64).zip(self.0).flat_map(|(first, word)| {
            let rest = |bits: &u64| Some(bits & (bits - 1)).filter(|bits| *bits != 0);
            core::iter::successors(Some(word).filter(|bits| *bits != 0), rest)
                .map(move |bits| first + u64::from(bits.trailing_zeros()))
        })
    }
}

impl BitOrAssign for PageSet {
    fn bitor_assign(&mut self, more: Self) {
        for (word, more) in self.0.iter_mut().zip(more.0) {
            *word |= more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_is_a_set(first: BTreeSet<u16>, second: BTreeSet<u16>) {
            let set = |numbers: &BTreeSet<u16>| {
                let mut set = PageSet::EMPTY;
                numbers.iter().for_each(|number| set.insert(usize::from(*number)));
                set
            };
            let mut union = set(&first);
            union |= set(&second);
            let numbers: BTreeSet<_> = first.union(&second).map(|number| u64::from(number % 512)).collect();
            prop_assert_eq!(union.count(), numbers.len() as u64);
            prop_assert_eq!(union.iter().collect::<Vec<_>>(), numbers.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_come_first() {
        for count in [0, 1, 63, 64, 65, 511, 512, 513] {
            let mut set = PageSet::first(count);
            assert_eq!(set.count(), count.min(512));
            let taken: Vec<_> = core::iter::from_fn(|| set.take_first()).collect();
            assert!(taken.into_iter().eq(0..count.min(512)));
        }
    }

    #[test]
    fn all_are_512() {
        assert!(PageSet::ALL.iter().eq(0..512));
        assert_eq!(PageSet::ALL.count(), 512);
        assert_eq!(PageSet::EMPTY.iter().next(), None);
    }
}

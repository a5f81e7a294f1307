//! Sets of a guest's pages.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Range;
use vcpu::{PageSet, REGION_SIZE};

const PAGE: u64 = 4096;
const PAGES: u64 = REGION_SIZE / PAGE;

/// A page of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageId {
    /// 0 is its memory; its first disk is 1.
    pub(crate) area: u8,
    /// The page's number in the area.
    pub(crate) number: u64,
}

impl PageId {
    /// Where the page is in its area.
    pub(crate) const fn range(self) -> Range<u64> {
        let start = self.number.saturating_mul(PAGE);
        start..start.saturating_add(PAGE)
    }
}

/// Some pages of memory of a certain size, by their numbers.
#[derive(Debug)]
pub(super) struct Pages {
    regions: Vec<PageSet>,
    /// No region before this one has a page.
    first: usize,
}

impl Pages {
    /// None of the pages of memory of `size` bytes, which is of whole pages.
    ///
    /// # Errors
    ///
    /// [`TryReserveError`].
    pub(super) fn none_of(size: u64) -> Result<Self, TryReserveError> {
        let count = size.div_ceil(REGION_SIZE) as usize;
        let mut regions = Vec::new();
        regions.try_reserve_exact(count)?;
        regions.resize(count, PageSet::EMPTY);
        Ok(Self {
            regions,
            first: count,
        })
    }

    /// Adds the first `count` pages.
    pub(super) fn add_first(&mut self, count: u64) {
        for (region, pages) in (0..).zip(&mut self.regions) {
            *pages |= PageSet::first(count.saturating_sub(region * PAGES));
        }
        self.first = 0;
    }

    /// Adds these pages of the region around an address.
    pub(super) fn add(&mut self, address: u64, pages: PageSet) {
        let region = (address / REGION_SIZE) as usize;
        if let Some(there) = self.regions.get_mut(region) {
            *there |= pages;
            self.first = self.first.min(region);
        }
    }

    /// Takes the first page out.
    pub(super) fn take(&mut self) -> Option<u64> {
        while let Some(pages) = self.regions.get_mut(self.first) {
            if let Some(page) = pages.take_first() {
                return Some(self.first as u64 * PAGES + page);
            }
            self.first += 1;
        }
        None
    }

    /// Whether there are none.
    pub(super) fn is_empty(&mut self) -> bool {
        while let Some(pages) = self.regions.get(self.first) {
            if !pages.is_empty() {
                return false;
            }
            self.first += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn pages_come_once_and_ascending(
            pages in 1u64..2000, first: BTreeSet<u16>, second: BTreeSet<u16>, taken in 0usize..100, all: bool
        ) {
            let mut set = Pages::none_of(pages * PAGE).unwrap();
            let mut expected = BTreeSet::new();
            let add = |set: &mut Pages, numbers: BTreeSet<u16>, expected: &mut BTreeSet<u64>| {
                for page in numbers.into_iter().map(u64::from).filter(|page| *page < pages) {
                    let mut one = PageSet::EMPTY;
                    one.insert(page as usize % 512);
                    set.add(page * PAGE, one);
                    expected.insert(page);
                }
            };
            add(&mut set, first, &mut expected);
            for _ in 0..taken {
                prop_assert_eq!(set.take(), expected.pop_first());
            }
            add(&mut set, second, &mut expected);
            if all {
                set.add_first(pages);
                expected.extend(0..pages);
            }
            prop_assert_eq!(set.is_empty(), expected.is_empty());
            let rest: Vec<_> = core::iter::from_fn(|| set.take()).collect();
            prop_assert_eq!(rest, expected.into_iter().collect::<Vec<_>>());
            prop_assert!(set.is_empty());
        }
    }
}

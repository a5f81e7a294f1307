//! Which pages of a guest's memory the hypervisor wrote: its writes do not go through the guest's page tables, so
//! those know nothing of them.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use spin::Once;
use vcpu::{PageSet, REGION_SIZE};

const PAGE: u64 = 4096;
/// Words of a region's pages.
const WORDS: usize = (REGION_SIZE / PAGE / 64) as usize;

/// A mark for each page, once they are wanted for the first time.
#[derive(Debug, Default)]
pub(super) struct Written {
    wanted: AtomicBool,
    marks: Once<Marks>,
    /// How many pages are marked. One that is taken before it is counted makes it one less for a moment.
    count: AtomicI64,
}

/// Marks of whole regions.
#[derive(Debug)]
struct Marks {
    pages: Vec<[AtomicU64; WORDS]>,
    /// A bit for each region that perhaps has marked pages: so that the others need not be looked at.
    regions: Vec<AtomicU64>,
}

impl Marks {
    fn new(size: u64) -> Result<Self, TryReserveError> {
        let count = size.div_ceil(REGION_SIZE) as usize;
        let (mut pages, mut regions) = (Vec::new(), Vec::new());
        pages.try_reserve_exact(count)?;
        pages.resize_with(count, Default::default);
        let words = count.div_ceil(64);
        regions.try_reserve_exact(words)?;
        regions.resize_with(words, Default::default);
        Ok(Self { pages, regions })
    }
}

impl Written {
    /// Begins to mark pages, of memory of `size` bytes. Marks of an earlier time are still there.
    ///
    /// # Errors
    ///
    /// [`TryReserveError`] where there is no memory for the marks.
    pub(super) fn begin(&self, size: u64) -> Result<(), TryReserveError> {
        self.marks.try_call_once(|| Marks::new(size))?;
        self.wanted.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Marks pages no more.
    pub(super) fn end(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }

    /// Marks the pages of a range that was written. It is called behind the write: a page whose mark was taken holds
    /// what was written.
    #[inline(always)]
    pub(super) fn mark(&self, address: u64, length: u64) {
        if self.wanted.load(Ordering::Relaxed) {
            self.mark_pages(address, length);
        }
    }

    #[cold]
    fn mark_pages(&self, address: u64, length: u64) {
        let (Some(marks), Some(last)) = (self.marks.get(), length.checked_sub(1)) else {
            return;
        };
        for page in address / PAGE..=(address + last) / PAGE {
            let word = (page / 64) as usize;
            let region = word / WORDS;
            let (Some(pages), Some(regions)) =
                (marks.pages.get(region), marks.regions.get(region / 64))
            else {
                return;
            };
            let mark = 1 << (page % 64);
            if pages[word % WORDS].fetch_or(mark, Ordering::SeqCst) & mark == 0 {
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            // Who takes the page's mark has cleared the region's before; or the region is found once more.
            let bit = 1 << (region % 64);
            if regions.load(Ordering::SeqCst) & bit == 0 {
                regions.fetch_or(bit, Ordering::SeqCst);
            }
        }
    }

    /// How many pages are marked.
    #[inline(always)]
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    /// The first region with marked pages at or behind an address, and those pages, which are marked no more; `None` if
    /// there is none.
    pub(super) fn take_next(&self, address: u64) -> Option<(u64, PageSet)> {
        let marks = self.marks.get()?;
        let first = (address / REGION_SIZE) as usize;
        let mut skip = !0 << (first % 64);
        for (index, word) in marks.regions.iter().enumerate().skip(first / 64) {
            loop {
                let left = word.load(Ordering::Relaxed) & skip;
                if left == 0 {
                    break;
                }
                word.fetch_and(!(left & left.wrapping_neg()), Ordering::SeqCst);
                let region = 64 * index + left.trailing_zeros() as usize;
                let pages = PageSet::from_words(marks.pages.get(region)?.each_ref().map(
                    // Most words have no marks, and a load is cheaper.
                    |word| match word.load(Ordering::SeqCst) {
                        0 => 0,
                        _ => word.swap(0, Ordering::SeqCst),
                    },
                ));
                if !pages.is_empty() {
                    self.count
                        .fetch_sub(pages.count() as i64, Ordering::Relaxed);
                    return Some((region as u64 * REGION_SIZE, pages));
                }
            }
            skip = !0;
        }
        None
    }
}

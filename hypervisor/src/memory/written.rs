//! Which pages of a guest's memory the hypervisor wrote: its writes do not go through the guest's page tables, so
//! those know nothing of them.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::Once;
use vcpu::{PageSet, REGION_SIZE};

const PAGE: u64 = 4096;
/// Words of a region's pages.
const WORDS: usize = (REGION_SIZE / PAGE / 64) as usize;

/// A mark for each page, once they are wanted for the first time.
#[derive(Debug, Default)]
pub(super) struct Written {
    wanted: AtomicBool,
    /// Whole regions.
    marks: Once<Vec<[AtomicU64; WORDS]>>,
}

impl Written {
    /// Begins to mark pages, of memory of `size` bytes. Marks of an earlier time are still there.
    ///
    /// # Errors
    ///
    /// [`TryReserveError`] where there is no memory for the marks.
    pub(super) fn begin(&self, size: u64) -> Result<(), TryReserveError> {
        self.marks.try_call_once(|| {
            let regions = size.div_ceil(REGION_SIZE) as usize;
            let mut marks = Vec::new();
            marks.try_reserve_exact(regions)?;
            marks.resize_with(regions, Default::default);
            Ok::<_, TryReserveError>(marks)
        })?;
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
            if let Some(region) = marks.get(word / WORDS) {
                region[word % WORDS].fetch_or(1 << (page % 64), Ordering::Release);
            }
        }
    }

    /// The marked pages of the region around an address; they are marked no more.
    pub(super) fn take(&self, address: u64) -> PageSet {
        let region = (address / REGION_SIZE) as usize;
        match self.marks.get().and_then(|marks| marks.get(region)) {
            // Most regions have no marks, and a load is cheaper.
            Some(words) => {
                PageSet::from_words(words.each_ref().map(
                    |word| match word.load(Ordering::Relaxed) {
                        0 => 0,
                        _ => word.swap(0, Ordering::Acquire),
                    },
                ))
            }
            None => PageSet::EMPTY,
        }
    }
}

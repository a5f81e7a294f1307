//! The board's free physical memory.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;
use vcpu::{DirectMap, FRAME_SIZE, Frame, FrameSource};

/// Memory is exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes that were asked for, in one piece.
    pub wanted: u64,
    /// Bytes free in all.
    pub free: u64,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the board has no {} KiB of memory in one piece ({} KiB are free in all)",
            self.wanted / 1024,
            self.free / 1024
        )
    }
}

impl core::error::Error for OutOfMemory {}

/// Free ranges of physical memory, sorted and disjoint. Memory taken is never given back: guests'
/// memory is a partition of the board that lasts as long as the board runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreeRanges {
    ranges: Vec<Range<u64>>,
}

impl FreeRanges {
    /// No memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Adds a range; overlaps with what is there are merged.
    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.ranges.push(range);
        self.ranges.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(self.ranges.len());
        for range in self.ranges.drain(..) {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        self.ranges = merged;
    }

    /// Removes a range, free or not.
    pub fn remove(&mut self, gone: Range<u64>) {
        if gone.is_empty() {
            return;
        }
        let mut left = Vec::with_capacity(self.ranges.len() + 1);
        for range in self.ranges.drain(..) {
            let below = range.start..range.end.min(gone.start);
            let above = range.start.max(gone.end)..range.end;
            left.extend([below, above].into_iter().filter(|range| !range.is_empty()));
        }
        self.ranges = left;
    }

    /// Takes `size` bytes aligned to `align` (a power of two) from the top, below `limit`.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when no free range is large enough.
    pub fn take(&mut self, size: u64, align: u64, limit: u64) -> Result<u64, OutOfMemory> {
        let start = self
            .ranges
            .iter()
            .rev()
            .find_map(|range| {
                let start = range.end.min(limit).checked_sub(size)? & !(align - 1);
                (start >= range.start).then_some(start)
            })
            .ok_or(OutOfMemory {
                wanted: size,
                free: self.total(),
            })?;
        self.remove(start..start + size);
        Ok(start)
    }

    /// Bytes free in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    /// The free ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.ranges.iter()
    }
}

/// Free memory together with the map through which it is reached.
#[derive(Debug)]
pub struct PhysicalMemory {
    free: FreeRanges,
    map: DirectMap,
    /// Bytes taken for the hypervisor's own structures.
    own: u64,
}

impl PhysicalMemory {
    /// # Safety
    ///
    /// Every free range must be RAM that nothing uses, mapped writable through `map`.
    #[must_use]
    pub const unsafe fn new(free: FreeRanges, map: DirectMap) -> Self {
        Self { free, map, own: 0 }
    }

    /// Takes memory for a guest: `size` bytes, aligned so that large pages fit.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn take_for_guest(&mut self, size: u64) -> Result<u64, OutOfMemory> {
        const PAGE_2M: u64 = 1 << 21;
        const PAGE_1G: u64 = 1 << 30;
        if size >= PAGE_1G
            && let Ok(start) = self.free.take(size, PAGE_1G, u64::MAX)
        {
            return Ok(start);
        }
        self.free.take(size, PAGE_2M, u64::MAX)
    }

    /// Takes zeroed memory for the hypervisor itself, below `limit`; returns its physical address.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn take_zeroed(&mut self, size: u64, limit: u64) -> Result<u64, OutOfMemory> {
        let size = size.next_multiple_of(FRAME_SIZE as u64);
        let start = self.free.take(size, FRAME_SIZE as u64, limit)?;
        // SAFETY: the range was free: mapped, writable and nobody's.
        unsafe { self.map.pointer(start).write_bytes(0, size as usize) };
        self.own += size;
        Ok(start)
    }

    /// Bytes free in all.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free.total()
    }

    /// Bytes taken for the hypervisor's own structures.
    #[must_use]
    pub fn own(&self) -> u64 {
        self.own
    }

    /// The free ranges, in order.
    pub fn free_ranges(&self) -> impl Iterator<Item = &Range<u64>> {
        self.free.iter()
    }
}

impl FrameSource for PhysicalMemory {
    fn frame(&mut self) -> Option<Frame> {
        self.frames(1)?.pop()
    }

    fn frames(&mut self, count: usize) -> Option<Vec<Frame>> {
        let size = (count * FRAME_SIZE) as u64;
        let start = self.take_zeroed(size, u64::MAX).ok()?;
        let addresses = (start..start + size).step_by(FRAME_SIZE);
        let frame = |physical| {
            let virt = NonNull::new(self.map.pointer(physical))?;
            // SAFETY: taken just now, zeroed, mapped for good by the contract of `new`.
            Some(unsafe { Frame::new(physical, virt) })
        };
        addresses.map(frame).collect()
    }

    fn direct_map(&self) -> DirectMap {
        self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(free: &FreeRanges) -> Vec<Range<u64>> {
        free.iter().cloned().collect()
    }

    #[test]
    fn touching_ranges_merge_and_holes_split() {
        let mut free = FreeRanges::new();
        free.add(0x3000..0x5000);
        free.add(0x1000..0x3000);
        assert_eq!(ranges(&free), vec![0x1000..0x5000]);
        free.remove(0x2000..0x3000);
        assert_eq!(ranges(&free), [0x1000..0x2000, 0x3000..0x5000]);
        assert_eq!(free.take(0x1000, 0x1000, u64::MAX), Ok(0x4000));
        assert_eq!(free.take(0x1000, 0x1000, 0x3000), Ok(0x1000));
        assert_eq!(
            free.take(0x2000, 0x1000, u64::MAX),
            Err(OutOfMemory {
                wanted: 0x2000,
                free: 0x1000
            })
        );
    }

    proptest! {
        #[test]
        fn a_piece_taken_is_aligned_was_free_and_is_no_longer(
            adds in prop::collection::vec((0u64..1000, 1u64..100), 1..10),
            size in 1u64..50, shift in 0u32..6, limit in 1u64..1200
        ) {
            let mut free = FreeRanges::new();
            for (start, length) in adds {
                free.add(start..start + length);
            }
            let before = free.clone();
            if let Ok(start) = free.take(size, 1 << shift, limit) {
                prop_assert_eq!(start % (1 << shift), 0);
                prop_assert!(start + size <= limit);
                prop_assert!(before.iter().any(|r| r.start <= start && start + size <= r.end));
                prop_assert!(free.iter().all(|r| r.end <= start || r.start >= start + size));
                prop_assert_eq!(free.total(), before.total() - size);
            } else {
                prop_assert_eq!(free, before);
            }
        }
    }
}

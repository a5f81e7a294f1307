//! Second-level page tables: a guest's physical addresses to the board's. Intel's extended page tables (SDM volume
//! 3, section 29.3) and AMD's nested page tables (APM volume 2, section 15.25) have the same shape and differ in
//! the bits of their entries.

mod encoding;
mod pages;
mod tracking;

pub use encoding::{Encoding, Format, Permissions};
pub use pages::{PageSet, REGION_SIZE};
pub use tracking::Method;

use crate::memory::{DirectMap, Frame, FrameSource};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use encoding::{EXECUTABLE_WHEN_SMALL, LARGE, WRITABLE_WHEN_NOTED};

const PAGE_4K: u64 = 1 << 12;
const PAGE_2M: u64 = 1 << 21;
const PAGE_1G: u64 = 1 << 30;
/// A four-level walk translates this many bits of guest-physical address.
const ADDRESS_BITS: u32 = 48;
const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;
const ENTRIES: usize = 512;

/// Why a mapping was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TablesError {
    /// An address or the length is not a multiple of 4 KiB, or the length is zero.
    Unaligned,
    /// The range does not fit into 48 bits of guest-physical or 52 bits of host-physical address.
    OutOfRange,
    /// Part of the guest-physical range is mapped already.
    Overlap,
    /// No memory for another table.
    OutOfMemory,
}

impl fmt::Display for TablesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unaligned => "mapping is not a multiple of 4 KiB",
            Self::OutOfRange => "mapping is out of the address range",
            Self::Overlap => "mapping overlaps another one",
            Self::OutOfMemory => "no memory for page tables",
        })
    }
}

impl core::error::Error for TablesError {}

/// The page tables of one guest: guest-physical to host-physical addresses.
#[derive(Debug)]
pub struct NestedTables {
    root: u64,
    map: DirectMap,
    /// Every table, root included; owned here, linked by physical address.
    tables: Vec<Frame>,
    /// Tables that are linked no more: for the next pages that are made small.
    spare: Vec<Frame>,
    format: Format,
    tracking: Option<Method>,
}

/// An entry, and where it is.
struct Link {
    table: u64,
    slot: usize,
    entry: u64,
    level: u32,
}

impl NestedTables {
    /// An empty address space.
    ///
    /// # Errors
    ///
    /// [`TablesError::OutOfMemory`].
    pub fn new(format: Format, frames: &mut impl FrameSource) -> Result<Self, TablesError> {
        let root = frames.frame().ok_or(TablesError::OutOfMemory)?;
        let map = frames.direct_map();
        Ok(Self {
            root: root.physical(),
            map,
            tables: alloc::vec![root],
            spare: Vec::new(),
            format,
            tracking: None,
        })
    }

    /// Maps `[guest, guest + length)` to `[host, host + length)` with the largest pages that fit.
    /// A refused mapping leaves the tables as they were, save for empty tables it added.
    ///
    /// # Errors
    ///
    /// [`TablesError`] says what is wrong with the range.
    ///
    /// # Safety
    ///
    /// The host range becomes the guest's: nothing else may rely on what is in it.
    pub unsafe fn map(
        &mut self,
        guest: u64,
        host: u64,
        length: u64,
        permissions: Permissions,
        frames: &mut impl FrameSource,
    ) -> Result<(), TablesError> {
        if length == 0 || !(guest | host | length).is_multiple_of(PAGE_4K) {
            return Err(TablesError::Unaligned);
        }
        let guest_end = guest.checked_add(length).ok_or(TablesError::OutOfRange)?;
        let host_end = host.checked_add(length).ok_or(TablesError::OutOfRange)?;
        if guest_end > 1 << ADDRESS_BITS || host_end > 1 << 52 {
            return Err(TablesError::OutOfRange);
        }
        if self.any_mapped(guest, guest_end) {
            return Err(TablesError::Overlap);
        }
        let mut done = 0;
        while done < length {
            let at = guest + done;
            let size = self.page_size_for(at | (host + done), length - done);
            self.set_leaf(at, host + done, size, permissions, frames)?;
            done += size;
        }
        Ok(())
    }

    /// Makes the page around `guest` executable after a fetch from it was refused: on processors
    /// that can die of executable large pages (CVE-2018-12207), those start out not executable, and the
    /// ones that hold code are made of 4 KiB pages at their first execution.
    ///
    /// Returns whether the fetch may be tried again; `false` means that it is not allowed at all.
    /// Translations that processors cache must be dropped then.
    ///
    /// # Errors
    ///
    /// [`TablesError::OutOfMemory`].
    pub fn make_executable(
        &mut self,
        guest: u64,
        frames: &mut impl FrameSource,
    ) -> Result<bool, TablesError> {
        let Some((leaf, size)) = self.walk(guest) else {
            return Ok(false);
        };
        if leaf & EXECUTABLE_WHEN_SMALL != 0 {
            self.make_small(guest, frames)?;
            return Ok(true);
        }
        Ok(size == PAGE_4K && self.permissions(leaf).contains(Permissions::EXECUTE))
    }

    /// Makes the page around `guest`, if there is one, of 4 KiB pages.
    fn make_small(&mut self, guest: u64, frames: &mut impl FrameSource) -> Result<(), TablesError> {
        while let Some(link) = self.descend(guest, 1)
            && link.entry & LARGE != 0
        {
            let entry = self.split(link.entry, link.level, frames)?;
            self.set_entry(link.table, link.slot, entry);
        }
        Ok(())
    }

    /// A table that maps what the large page `entry` of `level` maps, in pages one size smaller;
    /// returns the entry that points to it. What the processor noted in `entry` is dropped.
    fn split(
        &mut self,
        entry: u64,
        level: u32,
        frames: &mut impl FrameSource,
    ) -> Result<u64, TablesError> {
        let encoding = self.encoding();
        let (size, granted) = (page_size(level - 1), self.granted(entry));
        let frame = match self.spare.pop() {
            Some(frame) => frame,
            None => frames.frame().ok_or(TablesError::OutOfMemory)?,
        };
        let address = frame.physical();
        self.tables.push(frame);
        let part = self.leaf(entry & ADDRESS_MASK, granted, level - 1);
        for slot in 0..ENTRIES {
            self.set_entry(address, slot, part + slot as u64 * size);
        }
        Ok(encoding.table(address))
    }

    /// The host-physical address and the permissions of a guest-physical one.
    #[must_use]
    pub fn translate(&self, guest: u64) -> Option<(u64, Permissions)> {
        let (entry, size) = self.walk(guest)?;
        let host = (entry & ADDRESS_MASK & !(size - 1)) | (guest & (size - 1));
        Some((host, self.permissions(entry)))
    }

    /// Bytes that the tables take.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        (self.tables.len() + self.spare.len()) as u64 * PAGE_4K
    }

    /// What leads the processor to the tables: the EPT pointer of a VMCS (Intel SDM volume 3, section 25.6.11:
    /// write-back, four levels), or N_CR3 of a VMCB.
    #[must_use]
    pub fn pointer(&self) -> u64 {
        const WRITE_BACK: u64 = 6;
        const WALK_LENGTH_4: u64 = 3 << 3;
        const ACCESSED_DIRTY: u64 = 1 << 6;
        match self.encoding() {
            Encoding::Nested => self.root,
            Encoding::Extended if self.format.accessed_dirty => {
                self.root | WRITE_BACK | WALK_LENGTH_4 | ACCESSED_DIRTY
            }
            Encoding::Extended => self.root | WRITE_BACK | WALK_LENGTH_4,
        }
    }

    const fn encoding(&self) -> Encoding {
        self.format.encoding
    }

    const fn permissions(&self, entry: u64) -> Permissions {
        self.encoding().permissions(entry)
    }

    fn page_size_for(&self, alignment: u64, left: u64) -> u64 {
        [
            (PAGE_1G, self.format.pages_1g),
            (PAGE_2M, self.format.pages_2m),
        ]
        .into_iter()
        .find(|(size, there)| *there && alignment.is_multiple_of(*size) && left >= *size)
        .map_or(PAGE_4K, |(size, _)| size)
    }

    /// What a leaf of `level` grants once it is made of 4 KiB pages, and its first write was noticed.
    const fn granted(&self, entry: u64) -> Permissions {
        let mut granted = self.permissions(entry);
        if entry & EXECUTABLE_WHEN_SMALL != 0 {
            granted = granted.union(Permissions::EXECUTE);
        }
        if entry & WRITABLE_WHEN_NOTED != 0 {
            granted = granted.union(Permissions::WRITE);
        }
        granted
    }

    /// A leaf of `level` that grants this, as far as that is wise at its size.
    fn leaf(&self, host: u64, granted: Permissions, level: u32) -> u64 {
        let (mut allowed, mut more) = (granted, 0);
        if level > 0 {
            more = LARGE;
            if !self.format.large_executable && granted.contains(Permissions::EXECUTE) {
                allowed.remove(Permissions::EXECUTE);
                more |= EXECUTABLE_WHEN_SMALL;
            }
        }
        self.encoding().leaf(host, allowed) | more
    }

    /// An entry. The processor sets bits in it at any time: what is there already is changed by atomic operations.
    fn slot(&self, table: u64, index: usize) -> &AtomicU64 {
        let entry = self.map.pointer(table).cast::<u64>().wrapping_add(index);
        // SAFETY: `table` is the address of one of our tables, which live as long as `self`, and `index` is below 512.
        // Every access from here is atomic, as the processor's are.
        unsafe { AtomicU64::from_ptr(entry) }
    }

    fn entry(&self, table: u64, index: usize) -> u64 {
        self.slot(table, index).load(Ordering::Relaxed)
    }

    /// Writes an entry that was not present, or one that is replaced as a whole: by one that maps the same memory. A
    /// table that it links is written before.
    fn set_entry(&mut self, table: u64, index: usize, value: u64) {
        self.slot(table, index).store(value, Ordering::Release);
    }

    /// The leaf entry for an address, and the size of its page.
    fn walk(&self, guest: u64) -> Option<(u64, u64)> {
        let leaf = self.descend(guest, 0)?;
        Some((leaf.entry, page_size(leaf.level)))
    }

    /// The entry of level `to` that an address leads to, or the leaf above; `None` where nothing is mapped.
    fn descend(&self, guest: u64, to: u32) -> Option<Link> {
        if guest >> ADDRESS_BITS != 0 {
            return None;
        }
        let mut table = self.root;
        for level in (0..4).rev() {
            let slot = index(guest, level);
            let entry = self.entry(table, slot);
            if !self.encoding().is_present(entry) {
                return None;
            }
            if level == to || entry & LARGE != 0 {
                return Some(Link {
                    table,
                    slot,
                    entry,
                    level,
                });
            }
            table = entry & ADDRESS_MASK;
        }
        None
    }

    fn any_mapped(&self, start: u64, end: u64) -> bool {
        self.any_mapped_below(self.root, 3, start, end)
    }

    /// Whether a leaf below `table`, whose entries each span a page of `level`, is in the range.
    fn any_mapped_below(&self, table: u64, level: u32, start: u64, end: u64) -> bool {
        let span = page_size(level);
        let base = start & !(span * ENTRIES as u64 - 1);
        (index(start, level)..=index(end - 1, level)).any(|slot| {
            let entry = self.entry(table, slot);
            if !self.encoding().is_present(entry) {
                return false;
            }
            if level == 0 || entry & LARGE != 0 {
                return true;
            }
            let slot_start = base + slot as u64 * span;
            let (start, end) = (start.max(slot_start), end.min(slot_start + span));
            self.any_mapped_below(entry & ADDRESS_MASK, level - 1, start, end)
        })
    }

    fn set_leaf(
        &mut self,
        guest: u64,
        host: u64,
        size: u64,
        permissions: Permissions,
        frames: &mut impl FrameSource,
    ) -> Result<(), TablesError> {
        let leaf_level = (0..3).find(|level| page_size(*level) == size).unwrap_or(0);
        let mut table = self.root;
        for level in (leaf_level + 1..4).rev() {
            let slot = index(guest, level);
            let entry = self.entry(table, slot);
            table = if !self.encoding().is_present(entry) {
                let frame = frames.frame().ok_or(TablesError::OutOfMemory)?;
                let address = frame.physical();
                self.tables.push(frame);
                self.set_entry(table, slot, self.encoding().table(address));
                address
            } else {
                entry & ADDRESS_MASK
            };
        }
        let value = self.leaf(host, permissions, leaf_level);
        self.set_entry(table, index(guest, leaf_level), value);
        Ok(())
    }
}

/// The size of a page that is a leaf at `level` (0: 4 KiB, 1: 2 MiB, 2: 1 GiB).
const fn page_size(level: u32) -> u64 {
    PAGE_4K << (9 * level)
}

/// The index into the table of `level` for an address.
const fn index(guest: u64, level: u32) -> usize {
    (guest >> (12 + 9 * level)) as usize % ENTRIES
}

#[cfg(test)]
mod tests;

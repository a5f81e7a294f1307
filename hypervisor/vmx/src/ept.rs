//! Extended page tables (Intel SDM volume 3, section 29.3).

use crate::caps::Capabilities;
use crate::memory::{DirectMap, Frame, FrameSource};
use alloc::vec::Vec;
use bitflags::bitflags;
use core::fmt;

const PAGE_4K: u64 = 1 << 12;
const PAGE_2M: u64 = 1 << 21;
const PAGE_1G: u64 = 1 << 30;
/// A four-level walk translates this many bits of guest-physical address.
const ADDRESS_BITS: u32 = 48;
const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;
const ENTRIES: usize = 512;

bitflags! {
    /// What a guest may do with a page.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Permissions: u64 {
        /// Read.
        const READ = 1 << 0;
        /// Write.
        const WRITE = 1 << 1;
        /// Fetch instructions.
        const EXECUTE = 1 << 2;
        /// All of these.
        const ALL = 0b111;
    }
}

bitflags! {
    /// Bits of an EPT entry beside permissions and address.
    struct EntryBits: u64 {
        const LARGE = 1 << 7;
        const ACCESSED = 1 << 8;
        const DIRTY = 1 << 9;
        /// Ours (the processor ignores it): the page may be executed once it is made of 4 KiB pages.
        const EXECUTABLE_WHEN_SMALL = 1 << 52;
    }
}

/// Memory types of leaf entries (table 29-6 and section 12.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum MemoryType {
    /// Uncacheable: device registers.
    Uncacheable = 0,
    /// Write-combining.
    WriteCombining = 1,
    /// Write-through.
    WriteThrough = 4,
    /// Write-protected.
    WriteProtected = 5,
    /// Write-back: ordinary memory.
    WriteBack = 6,
}

/// Why a mapping was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EptError {
    /// An address or the length is not a multiple of 4 KiB, or the length is zero.
    Unaligned,
    /// The range does not fit into 48 bits of guest-physical or 52 bits of host-physical address.
    OutOfRange,
    /// Part of the guest-physical range is mapped already.
    Overlap,
    /// No memory for another table.
    OutOfMemory,
}

impl fmt::Display for EptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unaligned => "mapping is not a multiple of 4 KiB",
            Self::OutOfRange => "mapping is out of the address range",
            Self::Overlap => "mapping overlaps another one",
            Self::OutOfMemory => "no memory for page tables",
        })
    }
}

impl core::error::Error for EptError {}

/// The page tables of one guest: guest-physical to host-physical addresses.
#[derive(Debug)]
pub struct Ept {
    root: u64,
    map: DirectMap,
    /// Every table, root included; owned here, linked by physical address.
    tables: Vec<Frame>,
    largest: u64,
    /// Whether large pages may be executable (see [`Ept::make_executable`]).
    large_executable: bool,
    accessed_dirty: bool,
}

impl Ept {
    /// An empty address space that uses the largest pages and the bits that the processor has.
    ///
    /// # Errors
    ///
    /// [`EptError::OutOfMemory`].
    pub fn new(caps: &Capabilities, frames: &mut impl FrameSource) -> Result<Self, EptError> {
        let largest = match (caps.ept_1g, caps.ept_2m) {
            (true, _) => PAGE_1G,
            (false, true) => PAGE_2M,
            (false, false) => PAGE_4K,
        };
        let mut new = Self::with_pages(largest, caps.ept_accessed_dirty, frames)?;
        new.large_executable = caps.ept_large_executable;
        Ok(new)
    }

    fn with_pages(
        largest: u64,
        accessed_dirty: bool,
        frames: &mut impl FrameSource,
    ) -> Result<Self, EptError> {
        let root = frames.frame().ok_or(EptError::OutOfMemory)?;
        let map = frames.direct_map();
        Ok(Self {
            root: root.physical(),
            map,
            tables: alloc::vec![root],
            largest,
            large_executable: true,
            accessed_dirty,
        })
    }

    /// Maps `[guest, guest + length)` to `[host, host + length)` with the largest pages that fit.
    /// A refused mapping leaves the tables as they were, save for empty tables it added.
    ///
    /// # Errors
    ///
    /// [`EptError`] says what is wrong with the range.
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
        memory_type: MemoryType,
        frames: &mut impl FrameSource,
    ) -> Result<(), EptError> {
        if length == 0 || !(guest | host | length).is_multiple_of(PAGE_4K) {
            return Err(EptError::Unaligned);
        }
        let guest_end = guest.checked_add(length).ok_or(EptError::OutOfRange)?;
        let host_end = host.checked_add(length).ok_or(EptError::OutOfRange)?;
        if guest_end > 1 << ADDRESS_BITS || host_end > 1 << 52 {
            return Err(EptError::OutOfRange);
        }
        if self.any_mapped(guest, guest_end) {
            return Err(EptError::Overlap);
        }
        let mut done = 0;
        while done < length {
            let at = guest + done;
            let size = self.page_size_for(at | (host + done), length - done);
            self.set_leaf(at, host + done, size, permissions, memory_type, frames)?;
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
    /// [`EptError::OutOfMemory`].
    pub fn make_executable(
        &mut self,
        guest: u64,
        frames: &mut impl FrameSource,
    ) -> Result<bool, EptError> {
        if guest >> ADDRESS_BITS != 0 {
            return Ok(false);
        }
        let mut table = self.root;
        for level in (1..4).rev() {
            let slot = index(guest, level);
            let mut entry = self.entry(table, slot);
            if entry & Permissions::ALL.bits() == 0 {
                return Ok(false);
            }
            if entry & EntryBits::LARGE.bits() != 0 {
                if entry & EntryBits::EXECUTABLE_WHEN_SMALL.bits() == 0 {
                    return Ok(false);
                }
                entry = self.split(entry, level, frames)?;
                self.set_entry(table, slot, entry);
            }
            table = entry & ADDRESS_MASK;
        }
        let leaf = self.entry(table, index(guest, 0));
        Ok(leaf & Permissions::EXECUTE.bits() != 0)
    }

    /// A table that maps what the large page `entry` of `level` maps, in pages one size smaller;
    /// returns the entry that points to it.
    fn split(
        &mut self,
        entry: u64,
        level: u32,
        frames: &mut impl FrameSource,
    ) -> Result<u64, EptError> {
        let size = page_size(level - 1);
        let mut part = entry;
        if level == 1 {
            part &= !(EntryBits::LARGE | EntryBits::EXECUTABLE_WHEN_SMALL).bits();
            part |= Permissions::EXECUTE.bits();
        }
        let frame = frames.frame().ok_or(EptError::OutOfMemory)?;
        let address = frame.physical();
        self.tables.push(frame);
        for slot in 0..ENTRIES {
            self.set_entry(address, slot, part + slot as u64 * size);
        }
        Ok(address | Permissions::ALL.bits())
    }

    /// The host-physical address and the permissions of a guest-physical one.
    #[must_use]
    pub fn translate(&self, guest: u64) -> Option<(u64, Permissions)> {
        let (entry, size) = self.walk(guest)?;
        let host = (entry & ADDRESS_MASK & !(size - 1)) | (guest & (size - 1));
        Some((host, Permissions::from_bits_truncate(entry)))
    }

    /// Bytes that the tables take.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        self.tables.len() as u64 * PAGE_4K
    }

    /// The EPT pointer for the VMCS (section 25.6.11): write-back, four levels.
    pub(crate) fn pointer(&self) -> u64 {
        const WALK_LENGTH_4: u64 = 3 << 3;
        const ACCESSED_DIRTY: u64 = 1 << 6;
        let flags = if self.accessed_dirty {
            ACCESSED_DIRTY
        } else {
            0
        };
        self.root | MemoryType::WriteBack as u64 | WALK_LENGTH_4 | flags
    }

    fn page_size_for(&self, alignment: u64, left: u64) -> u64 {
        [PAGE_1G, PAGE_2M]
            .into_iter()
            .find(|size| *size <= self.largest && alignment.is_multiple_of(*size) && left >= *size)
            .unwrap_or(PAGE_4K)
    }

    fn entry_pointer(&self, table: u64, index: usize) -> *mut u64 {
        self.map.pointer(table).cast::<u64>().wrapping_add(index)
    }

    fn entry(&self, table: u64, index: usize) -> u64 {
        // SAFETY: `table` is the address of one of our tables and `index` is below 512. The
        // processor may set accessed and dirty bits meanwhile, hence volatile.
        unsafe { self.entry_pointer(table, index).read_volatile() }
    }

    fn set_entry(&mut self, table: u64, index: usize, value: u64) {
        // SAFETY: as in `entry`. Entries written here were not present, or are replaced by ones that map
        // the same memory with more rights.
        unsafe { self.entry_pointer(table, index).write_volatile(value) }
    }

    /// The leaf entry for an address, and the size of its page.
    fn walk(&self, guest: u64) -> Option<(u64, u64)> {
        if guest >> ADDRESS_BITS != 0 {
            return None;
        }
        let mut table = self.root;
        for level in (0..4).rev() {
            let entry = self.entry(table, index(guest, level));
            if entry & Permissions::ALL.bits() == 0 {
                return None;
            }
            if level == 0 || entry & EntryBits::LARGE.bits() != 0 {
                return Some((entry, page_size(level)));
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
            if entry & Permissions::ALL.bits() == 0 {
                return false;
            }
            if level == 0 || entry & EntryBits::LARGE.bits() != 0 {
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
        memory_type: MemoryType,
        frames: &mut impl FrameSource,
    ) -> Result<(), EptError> {
        let leaf_level = (0..3).find(|level| page_size(*level) == size).unwrap_or(0);
        let mut table = self.root;
        for level in (leaf_level + 1..4).rev() {
            let slot = index(guest, level);
            let entry = self.entry(table, slot);
            table = if entry & Permissions::ALL.bits() == 0 {
                let frame = frames.frame().ok_or(EptError::OutOfMemory)?;
                let address = frame.physical();
                self.tables.push(frame);
                self.set_entry(table, slot, address | Permissions::ALL.bits());
                address
            } else {
                entry & ADDRESS_MASK
            };
        }
        let mut value = host | permissions.bits() | ((memory_type as u64) << 3);
        if leaf_level > 0 {
            value |= EntryBits::LARGE.bits();
            if !self.large_executable && permissions.contains(Permissions::EXECUTE) {
                value =
                    value & !Permissions::EXECUTE.bits() | EntryBits::EXECUTABLE_WHEN_SMALL.bits();
            }
        }
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
mod tests {
    use super::*;
    use crate::memory::fake::Heap;
    use proptest::prelude::*;

    fn map_all(ept: &mut Ept, guest: u64, host: u64, length: u64) -> Result<(), EptError> {
        let mut heap = Heap { left: 4096 };
        // SAFETY: no processor uses these tables.
        unsafe {
            ept.map(
                guest,
                host,
                length,
                Permissions::ALL,
                MemoryType::WriteBack,
                &mut heap,
            )
        }
    }

    fn empty(largest: u64) -> Ept {
        Ept::with_pages(largest, true, &mut Heap { left: 1 }).unwrap()
    }

    #[test]
    fn aligned_ranges_use_large_pages() {
        let mut ept = empty(PAGE_1G);
        map_all(&mut ept, 0, PAGE_1G, 2 * PAGE_1G).unwrap();
        assert_eq!(ept.table_bytes(), 2 * PAGE_4K);
        let mut ept = empty(PAGE_2M);
        map_all(&mut ept, 0, PAGE_1G, PAGE_1G).unwrap();
        assert_eq!(ept.table_bytes(), 3 * PAGE_4K);
        assert_eq!(
            ept.translate(PAGE_1G - 1),
            Some((2 * PAGE_1G - 1, Permissions::ALL))
        );
        assert_eq!(ept.translate(PAGE_1G), None);
    }

    #[test]
    fn bad_ranges_are_refused() {
        let mut ept = empty(PAGE_1G);
        assert_eq!(map_all(&mut ept, 1, 0, PAGE_4K), Err(EptError::Unaligned));
        assert_eq!(map_all(&mut ept, 0, 0, 0), Err(EptError::Unaligned));
        assert_eq!(
            map_all(&mut ept, 1 << 48, 0, PAGE_4K),
            Err(EptError::OutOfRange)
        );
        assert_eq!(
            map_all(&mut ept, 0, !0xfff, PAGE_2M),
            Err(EptError::OutOfRange)
        );
        map_all(&mut ept, PAGE_2M, 0, PAGE_4K).unwrap();
        assert_eq!(map_all(&mut ept, 0, 0, PAGE_1G), Err(EptError::Overlap));
        assert_eq!(ept.translate(0), None);
    }

    #[test]
    fn code_in_large_pages_is_split_at_its_first_execution() {
        let mut ept = empty(PAGE_1G);
        ept.large_executable = false;
        map_all(&mut ept, 0, 4 * PAGE_1G, 2 * PAGE_1G).unwrap();
        let tables = ept.table_bytes();
        let data = Permissions::READ | Permissions::WRITE;
        let at = PAGE_1G + 3 * PAGE_2M + 0x5123;
        assert_eq!(ept.translate(at), Some((at + 4 * PAGE_1G, data)));
        let mut heap = Heap { left: 8 };
        assert_eq!(ept.make_executable(at, &mut heap), Ok(true));
        assert_eq!(ept.table_bytes(), tables + 2 * PAGE_4K);
        assert_eq!(
            ept.translate(at),
            Some((at + 4 * PAGE_1G, Permissions::ALL))
        );
        // The neighbourhood in the same 2 MiB follows, the rest does not, and every address stays.
        for (address, permissions) in [
            (at - 0x5123, Permissions::ALL),
            (PAGE_1G + 4 * PAGE_2M - 1, Permissions::ALL),
            (PAGE_1G + 4 * PAGE_2M, data),
            (PAGE_1G + 3 * PAGE_2M - 1, data),
            (0, data),
            (2 * PAGE_1G - 1, data),
        ] {
            assert_eq!(
                ept.translate(address),
                Some((address + 4 * PAGE_1G, permissions))
            );
        }
        assert_eq!(ept.make_executable(at, &mut heap), Ok(true));
        assert_eq!(ept.make_executable(2 * PAGE_1G, &mut heap), Ok(false));
        assert_eq!(ept.make_executable(1 << 48, &mut heap), Ok(false));
        heap.left = 0;
        assert_eq!(
            ept.make_executable(0, &mut heap),
            Err(EptError::OutOfMemory)
        );
    }

    #[test]
    fn exhausted_memory_is_reported() {
        let mut ept = empty(PAGE_4K);
        let mut heap = Heap { left: 2 };
        // SAFETY: no processor uses these tables.
        let result = unsafe {
            ept.map(
                0,
                0,
                PAGE_4K,
                Permissions::ALL,
                MemoryType::WriteBack,
                &mut heap,
            )
        };
        assert_eq!(result, Err(EptError::OutOfMemory));
    }

    #[test]
    fn leaf_bits_are_the_manuals() {
        let mut ept = empty(PAGE_1G);
        let mut heap = Heap { left: 16 };
        // SAFETY: no processor uses these tables.
        unsafe {
            ept.map(
                0,
                0,
                PAGE_2M,
                Permissions::READ,
                MemoryType::WriteBack,
                &mut heap,
            )
        }
        .unwrap();
        let (entry, size) = ept.walk(0).unwrap();
        assert_eq!((entry, size), (0b1011_0001, PAGE_2M));
        assert_eq!(ept.pointer() & 0xfff, 0b101_1110);
    }

    proptest! {
        #[test]
        fn translation_is_linear_inside_and_absent_outside(
            guest_page in 0u64..(1 << 21), offset_pages in 0u64..1024, pages in 1u64..2000, largest in 0u32..3
        ) {
            let mut ept = empty(page_size(largest));
            let (guest, length) = (guest_page * PAGE_4K, pages * PAGE_4K);
            let host = guest + offset_pages * PAGE_2M;
            map_all(&mut ept, guest, host, length).unwrap();
            for at in [guest, guest + length / 2, guest + length - 1] {
                prop_assert_eq!(ept.translate(at), Some((at - guest + host, Permissions::ALL)));
            }
            prop_assert_eq!(ept.translate(guest + length), None);
            if let Some(before) = guest.checked_sub(1) {
                prop_assert_eq!(ept.translate(before), None);
            }
            prop_assert_eq!(map_all(&mut ept, guest, host, PAGE_4K), Err(EptError::Overlap));
        }
    }
}

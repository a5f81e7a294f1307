//! Second-level page tables: a guest's physical addresses to the board's. Intel's extended page tables (SDM volume
//! 3, section 29.3) and AMD's nested page tables (APM volume 2, section 15.25) have the same shape and differ in
//! the bits of their entries.

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

/// The entry maps a large page, in either encoding.
const LARGE: u64 = 1 << 7;
/// Ours (processors ignore it): the page may be executed once it is made of 4 KiB pages.
const EXECUTABLE_WHEN_SMALL: u64 = 1 << 52;

/// Whose entries they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Intel's: permissions as in [`Permissions`], the memory type in each leaf.
    Extended,
    /// AMD's: entries of ordinary page tables, walked as for user accesses.
    Nested,
}

/// Bits of AMD's entries (APM volume 2, section 5.3).
mod page {
    pub(super) const PRESENT: u64 = 1 << 0;
    pub(super) const WRITABLE: u64 = 1 << 1;
    pub(super) const USER: u64 = 1 << 2;
    pub(super) const NO_EXECUTE: u64 = 1 << 63;
}

impl Encoding {
    /// A table that everything may be reached through.
    const fn table(self, address: u64) -> u64 {
        // READ, WRITE and EXECUTE here, PRESENT, WRITABLE and USER there.
        address | 0b111
    }

    /// A leaf for a page of ordinary memory (write-back).
    const fn leaf(self, address: u64, permissions: Permissions) -> u64 {
        const WRITE_BACK: u64 = 6 << 3;
        let bits = self.permission_bits(permissions);
        match self {
            Self::Extended => address | bits | WRITE_BACK,
            // The host's PAT has write-back as its first type.
            Self::Nested => address | bits,
        }
    }

    const fn permission_bits(self, permissions: Permissions) -> u64 {
        match self {
            Self::Extended => permissions.bits(),
            Self::Nested => {
                let mut bits = 0;
                if permissions.contains(Permissions::READ) {
                    bits |= page::PRESENT | page::USER;
                }
                if permissions.contains(Permissions::WRITE) {
                    bits |= page::WRITABLE;
                }
                if !permissions.contains(Permissions::EXECUTE) {
                    bits |= page::NO_EXECUTE;
                }
                bits
            }
        }
    }

    const fn is_present(self, entry: u64) -> bool {
        match self {
            Self::Extended => entry & Permissions::ALL.bits() != 0,
            Self::Nested => entry & page::PRESENT != 0,
        }
    }

    const fn permissions(self, entry: u64) -> Permissions {
        match self {
            Self::Extended => Permissions::from_bits_truncate(entry),
            Self::Nested => {
                let mut found = Permissions::READ;
                if entry & page::WRITABLE != 0 {
                    found = found.union(Permissions::WRITE);
                }
                if entry & page::NO_EXECUTE == 0 {
                    found = found.union(Permissions::EXECUTE);
                }
                found
            }
        }
    }

    /// The entry with execution allowed.
    const fn executable(self, entry: u64) -> u64 {
        match self {
            Self::Extended => entry | Permissions::EXECUTE.bits(),
            Self::Nested => entry & !page::NO_EXECUTE,
        }
    }
}

/// How tables are written for a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Whose entries they are.
    pub encoding: Encoding,
    /// There are leaves of 2 MiB.
    pub pages_2m: bool,
    /// There are leaves of 1 GiB.
    pub pages_1g: bool,
    /// The processor sets the accessed and dirty bits of leaves.
    pub accessed_dirty: bool,
    /// Large pages may be executable (see [`NestedTables::make_executable`]).
    pub large_executable: bool,
}

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
    format: Format,
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
            format,
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
        if guest >> ADDRESS_BITS != 0 {
            return Ok(false);
        }
        let mut table = self.root;
        for level in (1..4).rev() {
            let slot = index(guest, level);
            let mut entry = self.entry(table, slot);
            if !self.encoding().is_present(entry) {
                return Ok(false);
            }
            if entry & LARGE != 0 {
                if entry & EXECUTABLE_WHEN_SMALL == 0 {
                    return Ok(false);
                }
                entry = self.split(entry, level, frames)?;
                self.set_entry(table, slot, entry);
            }
            table = entry & ADDRESS_MASK;
        }
        let leaf = self.entry(table, index(guest, 0));
        Ok(self.encoding().is_present(leaf)
            && self.permissions(leaf).contains(Permissions::EXECUTE))
    }

    /// A table that maps what the large page `entry` of `level` maps, in pages one size smaller;
    /// returns the entry that points to it.
    fn split(
        &mut self,
        entry: u64,
        level: u32,
        frames: &mut impl FrameSource,
    ) -> Result<u64, TablesError> {
        let size = page_size(level - 1);
        let mut part = entry;
        if level == 1 {
            part = self
                .encoding()
                .executable(part & !(LARGE | EXECUTABLE_WHEN_SMALL));
        }
        let frame = frames.frame().ok_or(TablesError::OutOfMemory)?;
        let address = frame.physical();
        self.tables.push(frame);
        for slot in 0..ENTRIES {
            self.set_entry(address, slot, part + slot as u64 * size);
        }
        Ok(self.encoding().table(address))
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
        self.tables.len() as u64 * PAGE_4K
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
            if !self.encoding().is_present(entry) {
                return None;
            }
            if level == 0 || entry & LARGE != 0 {
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
        let mut allowed = permissions;
        let mut large = 0;
        if leaf_level > 0 {
            large = LARGE;
            if !self.format.large_executable && permissions.contains(Permissions::EXECUTE) {
                allowed.remove(Permissions::EXECUTE);
                large |= EXECUTABLE_WHEN_SMALL;
            }
        }
        let value = self.encoding().leaf(host, allowed) | large;
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

    fn map_all(
        tables: &mut NestedTables,
        guest: u64,
        host: u64,
        length: u64,
    ) -> Result<(), TablesError> {
        let mut heap = Heap { left: 4096 };
        // SAFETY: no processor uses these tables.
        unsafe { tables.map(guest, host, length, Permissions::ALL, &mut heap) }
    }

    fn format(encoding: Encoding, largest: u64) -> Format {
        Format {
            encoding,
            pages_2m: largest >= PAGE_2M,
            pages_1g: largest >= PAGE_1G,
            accessed_dirty: true,
            large_executable: true,
        }
    }

    fn empty(largest: u64) -> NestedTables {
        let format = format(Encoding::Extended, largest);
        NestedTables::new(format, &mut Heap { left: 1 }).unwrap()
    }

    #[test]
    fn aligned_ranges_use_large_pages() {
        let mut tables = empty(PAGE_1G);
        map_all(&mut tables, 0, PAGE_1G, 2 * PAGE_1G).unwrap();
        assert_eq!(tables.table_bytes(), 2 * PAGE_4K);
        let mut tables = empty(PAGE_2M);
        map_all(&mut tables, 0, PAGE_1G, PAGE_1G).unwrap();
        assert_eq!(tables.table_bytes(), 3 * PAGE_4K);
        assert_eq!(
            tables.translate(PAGE_1G - 1),
            Some((2 * PAGE_1G - 1, Permissions::ALL))
        );
        assert_eq!(tables.translate(PAGE_1G), None);
    }

    #[test]
    fn bad_ranges_are_refused() {
        let mut tables = empty(PAGE_1G);
        assert_eq!(
            map_all(&mut tables, 1, 0, PAGE_4K),
            Err(TablesError::Unaligned)
        );
        assert_eq!(map_all(&mut tables, 0, 0, 0), Err(TablesError::Unaligned));
        assert_eq!(
            map_all(&mut tables, 1 << 48, 0, PAGE_4K),
            Err(TablesError::OutOfRange)
        );
        assert_eq!(
            map_all(&mut tables, 0, !0xfff, PAGE_2M),
            Err(TablesError::OutOfRange)
        );
        map_all(&mut tables, PAGE_2M, 0, PAGE_4K).unwrap();
        assert_eq!(
            map_all(&mut tables, 0, 0, PAGE_1G),
            Err(TablesError::Overlap)
        );
        assert_eq!(tables.translate(0), None);
    }

    #[test]
    fn code_in_large_pages_is_split_at_its_first_execution() {
        code_is_split(Encoding::Extended);
        code_is_split(Encoding::Nested);
    }

    fn code_is_split(encoding: Encoding) {
        let format = Format {
            large_executable: false,
            ..format(encoding, PAGE_1G)
        };
        let mut tables = NestedTables::new(format, &mut Heap { left: 1 }).unwrap();
        map_all(&mut tables, 0, 4 * PAGE_1G, 2 * PAGE_1G).unwrap();
        let before = tables.table_bytes();
        let data = Permissions::READ | Permissions::WRITE;
        let at = PAGE_1G + 3 * PAGE_2M + 0x5123;
        assert_eq!(tables.translate(at), Some((at + 4 * PAGE_1G, data)));
        let mut heap = Heap { left: 8 };
        assert_eq!(tables.make_executable(at, &mut heap), Ok(true));
        assert_eq!(tables.table_bytes(), before + 2 * PAGE_4K);
        assert_eq!(
            tables.translate(at),
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
                tables.translate(address),
                Some((address + 4 * PAGE_1G, permissions))
            );
        }
        assert_eq!(tables.make_executable(at, &mut heap), Ok(true));
        assert_eq!(tables.make_executable(2 * PAGE_1G, &mut heap), Ok(false));
        assert_eq!(tables.make_executable(1 << 48, &mut heap), Ok(false));
        heap.left = 0;
        assert_eq!(
            tables.make_executable(0, &mut heap),
            Err(TablesError::OutOfMemory)
        );
    }

    #[test]
    fn exhausted_memory_is_reported() {
        let mut tables = empty(PAGE_4K);
        let mut heap = Heap { left: 2 };
        // SAFETY: no processor uses these tables.
        let result = unsafe { tables.map(0, 0, PAGE_4K, Permissions::ALL, &mut heap) };
        assert_eq!(result, Err(TablesError::OutOfMemory));
    }

    #[test]
    fn leaf_bits_are_the_manuals() {
        let mut tables = empty(PAGE_1G);
        let mut heap = Heap { left: 16 };
        // SAFETY: no processor uses these tables.
        unsafe { tables.map(0, 0, PAGE_2M, Permissions::READ, &mut heap) }.unwrap();
        let (entry, size) = tables.walk(0).unwrap();
        assert_eq!((entry, size), (0b1011_0001, PAGE_2M));
        assert_eq!(tables.pointer() & 0xfff, 0b101_1110);
        let format = format(Encoding::Nested, PAGE_1G);
        let mut npt = NestedTables::new(format, &mut heap).unwrap();
        assert_eq!(npt.pointer() & 0xfff, 0);
        let code = Permissions::READ | Permissions::EXECUTE;
        for (at, permissions, entry) in [
            (0, Permissions::READ, 0x8000_0000_0000_0085),
            (PAGE_2M, Permissions::ALL, 0x20_0087),
            (2 * PAGE_2M, code, 0x40_0085),
        ] {
            // SAFETY: no processor uses these tables.
            unsafe { npt.map(at, at, PAGE_2M, permissions, &mut heap) }.unwrap();
            assert_eq!(npt.walk(at), Some((entry, PAGE_2M)));
            assert_eq!(npt.translate(at), Some((at, permissions)));
        }
    }

    proptest! {
        #[test]
        fn translation_is_linear_inside_and_absent_outside(
            guest_page in 0u64..(1 << 21), offset_pages in 0u64..1024, pages in 1u64..2000, largest in 0u32..3,
            amd: bool
        ) {
            let encoding = if amd { Encoding::Nested } else { Encoding::Extended };
            let format = format(encoding, page_size(largest));
            let mut tables = NestedTables::new(format, &mut Heap { left: 1 }).unwrap();
            let (guest, length) = (guest_page * PAGE_4K, pages * PAGE_4K);
            let host = guest + offset_pages * PAGE_2M;
            map_all(&mut tables, guest, host, length).unwrap();
            for at in [guest, guest + length / 2, guest + length - 1] {
                prop_assert_eq!(tables.translate(at), Some((at - guest + host, Permissions::ALL)));
            }
            prop_assert_eq!(tables.translate(guest + length), None);
            if let Some(before) = guest.checked_sub(1) {
                prop_assert_eq!(tables.translate(before), None);
            }
            prop_assert_eq!(map_all(&mut tables, guest, host, PAGE_4K), Err(TablesError::Overlap));
        }
    }
}

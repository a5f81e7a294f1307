//! The hypervisor's address space.
//!
//! * `0xffff_8000_0000_0000`: physical memory, writable, never executable; without the image.
//! * `0xffff_c000_0000_0000`: stacks, each above an unmapped guard page.
//! * `0xffff_ffff_8000_0000`: the image; code is not writable, data are not executable.
//!
//! Nothing is mapped in the lower half: a null pointer faults.

use super::boot_info::Area;
use super::stacks::{Purpose, Stacks};
use super::{BOOT_MAP_END, BootError, DIRECT_MAP};
use core::ops::Range;
use core::ptr::NonNull;
use hypervisor::memory::{FreeRanges, PhysicalMemory};
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::mapper::TranslateResult;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame,
    Size2MiB, Size4KiB, Translate,
};
use x86_64::{PhysAddr, VirtAddr};

const PAGE_4K: u64 = Size4KiB::SIZE;
const PAGE_2M: u64 = Size2MiB::SIZE;
/// Virtual address of the image minus its physical one.
const IMAGE_OFFSET: u64 = 0xffff_ffff_8000_0000;

unsafe extern "C" {
    static image_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static image_end: u8;
}

fn linked(symbol: *const u8) -> u64 {
    symbol as u64 - IMAGE_OFFSET
}

/// The physical range of the image.
pub(super) fn image() -> Range<u64> {
    linked(&raw const image_start)..linked(&raw const image_end)
}

/// Frames for tables, from where the first tables reach.
struct TableFrames<'a>(&'a mut PhysicalMemory);

// SAFETY: the frames were free, so they are unused, and each is handed out once.
unsafe impl FrameAllocator<Size4KiB> for TableFrames<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let address = self.0.take_zeroed(PAGE_4K, BOOT_MAP_END).ok()?;
        PhysFrame::from_start_address(PhysAddr::new(address)).ok()
    }
}

/// The final page tables.
pub(super) struct AddressSpace {
    root: PhysFrame,
}

const DATA: PageTableFlags = PageTableFlags::PRESENT
    .union(PageTableFlags::WRITABLE)
    .union(PageTableFlags::NO_EXECUTE);
const READ_ONLY: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::NO_EXECUTE);
const DEVICE: PageTableFlags = DATA
    .union(PageTableFlags::NO_CACHE)
    .union(PageTableFlags::WRITE_THROUGH);

impl AddressSpace {
    /// Builds tables that map the image, memory and the first processor's stacks.
    pub(super) fn build(memory: &mut PhysicalMemory, ram: &[Area]) -> Result<Self, BootError> {
        let root = TableFrames(memory)
            .allocate_frame()
            .ok_or(BootError::Mapping)?;
        let mut space = Self { root };
        let bounds = [
            linked(&raw const image_start),
            linked(&raw const text_end),
            linked(&raw const rodata_end),
            linked(&raw const image_end),
        ];
        let rights = [PageTableFlags::PRESENT, READ_ONLY, DATA];
        for (pair, flags) in bounds.windows(2).zip(rights) {
            space.map_range(IMAGE_OFFSET, pair[0]..pair[1], flags, memory)?;
        }
        // Areas may meet inside a page, or overlap: merged, each page is mapped once.
        let mut pages = FreeRanges::new();
        for area in ram {
            pages.add(pages_of(&area.range));
        }
        pages.remove(image());
        for range in pages.iter() {
            space.map_range(offset(), range.clone(), DATA, memory)?;
        }
        space.map_stacks(Stacks::of(0), memory)?;
        Ok(space)
    }

    /// Switches this processor to these tables.
    ///
    /// # Safety
    ///
    /// Code, stack and data in use must be mapped here as they are now.
    pub(super) unsafe fn activate(&self) {
        // SAFETY: passed on to the caller.
        unsafe { Cr3::write(self.root, Cr3Flags::empty()) };
    }

    /// Value of CR3.
    pub(super) fn root(&self) -> u64 {
        self.root.start_address().as_u64()
    }

    pub(super) fn first_stacks(&self) -> Stacks {
        Stacks::of(0)
    }

    pub(super) fn first_stack(&self) -> u64 {
        self.first_stacks().top(Purpose::Main)
    }

    /// Maps a processor's stacks.
    pub(super) fn map_stacks(
        &mut self,
        stacks: Stacks,
        memory: &mut PhysicalMemory,
    ) -> Result<(), BootError> {
        for purpose in Purpose::ALL {
            let range = stacks.range(purpose);
            let physical = memory.take_zeroed(range.end - range.start, BOOT_MAP_END)?;
            let end = physical + (range.end - range.start);
            self.map_range(range.start - physical, physical..end, DATA, memory)?;
        }
        Ok(())
    }

    /// Maps device registers uncached into the direct map, with all of the pages that hold them.
    pub(super) fn map_device(
        &mut self,
        physical: Range<u64>,
        memory: &mut PhysicalMemory,
    ) -> Result<NonNull<u8>, BootError> {
        self.map_missing(pages_of(&physical), DEVICE, memory)?;
        NonNull::new(DIRECT_MAP.pointer(physical.start)).ok_or(BootError::Mapping)
    }

    /// Maps firmware tables read-only into the direct map, where they are not mapped yet.
    pub(super) fn map_tables(
        &mut self,
        physical: Range<u64>,
        memory: &mut PhysicalMemory,
    ) -> Result<(), BootError> {
        self.map_missing(pages_of(&physical), READ_ONLY, memory)
    }

    fn map_missing(
        &mut self,
        pages: Range<u64>,
        flags: PageTableFlags,
        memory: &mut PhysicalMemory,
    ) -> Result<(), BootError> {
        for page in pages.step_by(PAGE_4K as usize) {
            let at = VirtAddr::new(offset() + page);
            if let TranslateResult::NotMapped = self.mapper().translate(at) {
                self.map_range(offset(), page..page + PAGE_4K, flags, memory)?;
            }
        }
        Ok(())
    }

    /// Maps a physical range at its address plus `offset`, with 2 MiB pages where they fit.
    fn map_range(
        &mut self,
        offset: u64,
        range: Range<u64>,
        flags: PageTableFlags,
        memory: &mut PhysicalMemory,
    ) -> Result<(), BootError> {
        let mut frames = TableFrames(memory);
        let mut mapper = self.mapper();
        let mut at = range.start;
        while at < range.end {
            let virt = VirtAddr::new(offset.wrapping_add(at));
            let large = (at | virt.as_u64()).is_multiple_of(PAGE_2M) && range.end - at >= PAGE_2M;
            if large {
                let (page, frame) = pair::<Size2MiB>(virt, at);
                let flags = flags | PageTableFlags::HUGE_PAGE;
                // SAFETY: the caller describes memory that exists; nothing is mapped twice.
                let result = unsafe { mapper.map_to(page, frame, flags, &mut frames) };
                // Nothing was mapped there before, so nothing can be cached.
                result.map_err(|_| BootError::Mapping)?.ignore();
                at += PAGE_2M;
            } else {
                let (page, frame) = pair::<Size4KiB>(virt, at);
                // SAFETY: as above.
                let result = unsafe { mapper.map_to(page, frame, flags, &mut frames) };
                result.map_err(|_| BootError::Mapping)?.ignore();
                at += PAGE_4K;
            }
        }
        Ok(())
    }

    fn mapper(&mut self) -> OffsetPageTable<'static> {
        let table = DIRECT_MAP.pointer(self.root()).cast::<PageTable>();
        // SAFETY: the root and all tables below it are frames that belong to this value alone, and the
        // direct map reaches them, before and after the tables are active.
        unsafe { OffsetPageTable::new(&mut *table, VirtAddr::new(offset())) }
    }
}

/// The pages that hold a range.
fn pages_of(range: &Range<u64>) -> Range<u64> {
    range.start & !(PAGE_4K - 1)..range.end.next_multiple_of(PAGE_4K)
}

fn offset() -> u64 {
    DIRECT_MAP.pointer(0) as u64
}

fn pair<S: PageSize>(virt: VirtAddr, physical: u64) -> (Page<S>, PhysFrame<S>) {
    (
        Page::containing_address(virt),
        PhysFrame::containing_address(PhysAddr::new(physical)),
    )
}

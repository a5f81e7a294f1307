//! What the boot loader says: memory map, modules, ACPI pointer.

use super::BootError;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use hypervisor::BootModule;
use hypervisor::memory::FreeRanges;
use multiboot2::{BootInformation, BootInformationHeader, MemoryArea, MemoryAreaType};

/// The first megabyte belongs to the firmware and to the start-up of processors.
const LOW_MEMORY_END: u64 = 1 << 20;

/// A range of physical memory that the direct map covers.
pub(super) struct Area {
    pub(super) range: Range<u64>,
    pub(super) kind: &'static str,
}

/// The boot loader's information, copied out of its memory.
pub(super) struct BootInfo {
    pub(super) ram: Vec<Area>,
    pub(super) modules: Vec<BootModule>,
    pub(super) rsdp: Option<Rsdp>,
    pub(super) command_line: String,
}

/// A copy of the root system description pointer.
#[derive(Clone, Copy)]
pub(super) struct Rsdp {
    pub(super) revision: u8,
    pub(super) root_table: usize,
}

/// # Safety
///
/// `pointer` must be what a multiboot2 boot loader gave, mapped.
pub(super) unsafe fn load(pointer: *const u8) -> Result<BootInformation<'static>, BootError> {
    // SAFETY: passed on to the caller; the structure's own checks do the rest.
    unsafe { BootInformation::load(pointer.cast::<BootInformationHeader>()) }
        .map_err(|_| BootError::BadBootInformation)
}

fn areas<'a>(information: &'a BootInformation<'_>) -> Result<&'a [MemoryArea], BootError> {
    Ok(information
        .memory_map_tag()
        .ok_or(BootError::NoMemoryMap)?
        .memory_areas())
}

fn is_available(area: &MemoryArea) -> bool {
    area.typ() == MemoryAreaType::Available
}

fn physical(information: &BootInformation<'_>) -> Range<u64> {
    let start = information.start_address() as u64 - super::DIRECT_MAP.pointer(0) as u64;
    start..start + information.total_size() as u64
}

/// Everything that is in use although the memory map calls it available.
fn occupied<'a>(
    information: &'a BootInformation<'_>,
    image: Range<u64>,
) -> impl Iterator<Item = Range<u64>> + 'a {
    let modules = information
        .module_tags()
        .map(|module| u64::from(module.start_address())..u64::from(module.end_address()));
    [0..LOW_MEMORY_END, image, physical(information)]
        .into_iter()
        .chain(modules)
}

/// Finds room for the heap below 4 GiB without allocating: lifts a candidate over whatever it
/// overlaps until it fits.
pub(super) fn find_heap(
    information: &BootInformation<'_>,
    image: Range<u64>,
    size: u64,
) -> Result<u64, BootError> {
    const PAGE: u64 = 4096;
    for area in areas(information)?.iter().filter(|area| is_available(area)) {
        let mut start = area.start_address().next_multiple_of(PAGE);
        while start + size <= area.end_address().min(super::BOOT_MAP_END) {
            let clash = occupied(information, image.clone())
                .find(|taken| taken.start < start + size && start < taken.end);
            match clash {
                Some(taken) => start = taken.end.next_multiple_of(PAGE),
                None => return Ok(start),
            }
        }
    }
    Err(BootError::OutOfMemory(hypervisor::memory::OutOfMemory {
        wanted: size,
        free: 0,
    }))
}

/// The memory that nothing uses yet, in whole pages.
pub(super) fn free_memory(information: &BootInformation<'_>, image: Range<u64>) -> FreeRanges {
    const PAGE: u64 = 4096;
    let mut free = FreeRanges::new();
    for area in areas(information)
        .unwrap_or(&[])
        .iter()
        .filter(|area| is_available(area))
    {
        free.add(area.start_address().next_multiple_of(PAGE)..area.end_address() & !(PAGE - 1));
    }
    for taken in occupied(information, image) {
        free.remove(taken.start & !(PAGE - 1)..taken.end.next_multiple_of(PAGE));
    }
    free
}

impl BootInfo {
    /// Copies what is needed later.
    pub(super) fn copy(information: &BootInformation<'_>) -> Self {
        let ram = areas(information)
            .unwrap_or(&[])
            .iter()
            .filter_map(|area| {
                let kind = match area.typ() {
                    MemoryAreaType::Available => "available",
                    MemoryAreaType::AcpiAvailable => "ACPI tables",
                    MemoryAreaType::ReservedHibernate => "ACPI storage",
                    _ => return None,
                };
                Some(Area {
                    range: area.start_address()..area.end_address(),
                    kind,
                })
            })
            .collect();
        let modules = information
            .module_tags()
            .map(|module| {
                let start = super::DIRECT_MAP.pointer(u64::from(module.start_address()));
                let length = module.module_size() as usize;
                BootModule {
                    name: String::from(module.cmdline().unwrap_or("")),
                    // SAFETY: the boot loader put the module there; the memory is kept out of the
                    // free ranges, mapped for good, and written by nobody.
                    bytes: unsafe { core::slice::from_raw_parts(start, length) },
                }
            })
            .collect();
        let new = information.rsdp_v2_tag().map(|tag| Rsdp {
            revision: tag.revision(),
            root_table: tag.xsdt_address(),
        });
        let old = information.rsdp_v1_tag().map(|tag| Rsdp {
            revision: tag.revision(),
            root_table: tag.rsdt_address(),
        });
        let command_line = information
            .command_line_tag()
            .and_then(|tag| tag.cmdline().ok())
            .map_or_else(String::new, String::from);
        Self {
            ram,
            modules,
            rsdp: new.or(old),
            command_line,
        }
    }
}

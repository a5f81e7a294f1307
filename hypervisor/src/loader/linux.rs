//! Linux kernels (bzImage), by the 64-bit boot protocol.
//!
//! Sources: Documentation/x86/boot.rst and Documentation/x86/zero-page.rst of Linux 6.1; Intel SDM,
//! volume 3A, 3.4.5 (segment descriptors) and 4.5 (4-level paging).
//!
//! The image is untrusted: each field that is used is checked, and a bad image gets an error that
//! names the cause.
//!
//! Guest memory after loading: everything that the loader makes lies below [`LOW_END`], in memory
//! that the kernel reads before it gives it to anyone; the kernel where it prefers to be, from 1 MiB
//! up; the initial RAM disk as high as the kernel allows. The 64-bit entry is the only one used, so
//! the real-mode part stays out of memory, and with it the fields that serve that part only.

mod header;

use super::{
    AVAILABLE, CODE_64, DATA_64, LOW_MEMORY_END, Loaded, MIB, Module, PAGE, RESERVED,
    write_bios_data_area,
};
use crate::memory::{GuestMemory, OutOfBounds};
use alloc::collections::VecDeque;
use core::fmt;
use header::{Kernel, Placement, field};
use vcpu::StartState;

/// The descriptor table.
const GDT: u64 = 0x6000;
/// The boot parameters, one page.
const BOOT_PARAMS: u64 = 0x7000;
/// The page tables: one PML4, one page directory pointer table, four page directories.
const PML4: u64 = 0x8000;
const POINTERS: u64 = PML4 + PAGE;
const DIRECTORIES: u64 = POINTERS + PAGE;
const DIRECTORY_COUNT: u64 = 4;
/// The command line, which may fill the space up to [`LOW_END`].
const COMMAND_LINE: u64 = 0x2_0000;
/// End of what the loader makes in low memory.
const LOW_END: u64 = 0x4_0000;

/// The loader's number: none was assigned to this one.
const LOADER_UNDEFINED: u8 = 0xff;
/// `vid_mode`: the mode in use.
const VIDEO_NORMAL: u16 = 0xffff;

/// Fields of the boot parameters in front of the setup header and behind it.
const ACPI_RSDP_ADDR: usize = 0x070;
const E820_ENTRIES: usize = 0x1e8;
const E820_TABLE: usize = 0x2d0;

/// Least memory of a guest: the low megabyte and one for the kernel.
const MEMORY_MIN: u64 = 2 * MIB;
/// End of what 32-bit addresses reach.
const ADDRESSES_END: u64 = 1 << 32;

/// Why an image cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// No boot flag, or no "HdrS" behind it.
    NotABzImage,
    /// The boot protocol is older than 2.12.
    OldProtocol(u16),
    /// The setup header ends in its middle, or where other boot parameters must be.
    BadHeaderLength(usize),
    /// The image ends before what its header announces.
    Truncated,
    /// A zImage, which belongs below 1 MiB.
    NotLoadedHigh,
    /// A 32-bit kernel.
    No64BitEntry,
    /// A kernel that can be moved, but to no address.
    BadAlignment(u32),
    /// The protected-mode part ends before its entry point.
    NoCode,
    /// The kernel does not fit into the guest's memory.
    DoesNotFit {
        /// First byte needed.
        start: u64,
        /// Behind the last byte needed.
        end: u64,
    },
    /// The command line is longer than the kernel or this loader takes.
    CommandLineTooLong {
        /// The most bytes.
        limit: u64,
    },
    /// A module has a command line, for which the protocol has no place.
    ModuleCommandLine,
    /// The modules do not fit between the kernel and the end of memory.
    ModulesDoNotFit,
    /// The guest has less than 2 MiB of memory.
    TooLittleMemory,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotABzImage => write!(f, "the image is not a Linux kernel (bzImage)"),
            Self::OldProtocol(version) => write!(
                f,
                "the kernel knows the Linux boot protocol only up to {}.{:02}; 2.12 is needed",
                version >> 8,
                version & 0xff
            ),
            Self::BadHeaderLength(end) => {
                write!(
                    f,
                    "the kernel's setup header ends at {end:#x}, which cannot be"
                )
            }
            Self::Truncated => write!(f, "the image is shorter than its header says"),
            Self::NotLoadedHigh => write!(f, "the kernel is a zImage, which is not supported"),
            Self::No64BitEntry => write!(f, "the kernel has no 64-bit entry point"),
            Self::BadAlignment(alignment) => {
                write!(
                    f,
                    "the kernel asks for an alignment of {alignment:#x}, which cannot be"
                )
            }
            Self::NoCode => write!(f, "the image has no code at its 64-bit entry point"),
            Self::DoesNotFit { start, end } => write!(
                f,
                "the kernel needs memory {start:#x} to {end:#x}, which the guest does not have"
            ),
            Self::CommandLineTooLong { limit } => {
                write!(f, "the command line is longer than {limit} bytes")
            }
            Self::ModuleCommandLine => {
                write!(f, "a Linux kernel's modules cannot have command lines")
            }
            Self::ModulesDoNotFit => write!(f, "the modules do not fit behind the kernel"),
            Self::TooLittleMemory => write!(f, "the guest has less than 2 MiB of memory"),
        }
    }
}

impl core::error::Error for LoadError {}

/// Memory that the loader believed to be there is not.
impl From<OutOfBounds> for LoadError {
    fn from(_: OutOfBounds) -> Self {
        Self::TooLittleMemory
    }
}

/// Finds room for the kernel `image` in `memory`, which must be scrubbed, and writes what the kernel
/// is told there.
///
/// The modules become the initial RAM disk, one behind the other: the kernel unpacks any number of
/// archives. `rsdp` is where the guest's ACPI tables start, if it has any.
///
/// # Errors
///
/// [`LoadError`]; the guest's memory is then in no defined state.
pub fn load<'a>(
    image: &'a [u8],
    command_line: &str,
    modules: &[Module<'a, '_>],
    rsdp: Option<u64>,
    memory: &GuestMemory,
) -> Result<Loaded<'a>, LoadError> {
    let top = memory.size().min(ADDRESSES_END);
    if top < MEMORY_MIN {
        return Err(LoadError::TooLittleMemory);
    }
    let kernel = Kernel::parse(image)?;
    let placement = kernel.place(top)?;
    if !memory.contains(placement.load, kernel.code.len() as u64) {
        return Err(LoadError::TooLittleMemory);
    }
    let mut copies = VecDeque::with_capacity(1 + modules.len());
    copies.push_back((placement.load, kernel.code));
    write_bios_data_area(memory)?;
    write_command_line(&kernel, command_line, memory)?;
    let ramdisk = place_ramdisk(&kernel, &placement, modules, memory, &mut copies)?;
    let parameters = BootParameters::new(&kernel, &placement, ramdisk, rsdp, memory.size());
    memory.write(BOOT_PARAMS, &parameters.0)?;
    write_page_tables(memory)?;
    let start = StartState::Long64 {
        rip: placement.entry,
        rsi: BOOT_PARAMS,
        cr3: PML4,
        gdt_base: GDT,
        gdt_limit: write_descriptors(memory)?,
        code: CODE_64,
        data: DATA_64,
    };
    Ok(Loaded::new(start, copies))
}

fn write_command_line(
    kernel: &Kernel<'_>,
    text: &str,
    memory: &GuestMemory,
) -> Result<(), LoadError> {
    let limit = u64::from(kernel.cmdline_size).min(LOW_END - COMMAND_LINE - 1);
    if text.len() as u64 > limit {
        return Err(LoadError::CommandLineTooLong { limit });
    }
    memory.write(COMMAND_LINE, text.as_bytes())?;
    memory.write(COMMAND_LINE + text.len() as u64, &[0])?;
    Ok(())
}

/// Where the initial RAM disk is.
#[derive(Clone, Copy, Debug, Default)]
struct Ramdisk {
    start: u32,
    size: u32,
}

fn place_ramdisk<'a>(
    kernel: &Kernel<'_>,
    placement: &Placement,
    modules: &[Module<'a, '_>],
    memory: &GuestMemory,
    copies: &mut VecDeque<(u64, &'a [u8])>,
) -> Result<Ramdisk, LoadError> {
    /// The alignment of an archive behind another (initramfs buffer format).
    const ARCHIVE: u64 = 4;
    if modules.iter().any(|module| !module.command_line.is_empty()) {
        return Err(LoadError::ModuleCommandLine);
    }
    let sizes = modules.iter().map(|module| module.bytes.len() as u64);
    let size = sizes.fold(0u64, |sum, size| {
        sum.next_multiple_of(ARCHIVE).saturating_add(size)
    });
    if size == 0 {
        return Ok(Ramdisk::default());
    }
    let top = memory.size().min(u64::from(kernel.initrd_addr_max) + 1);
    let start = top
        .checked_sub(size)
        .map(|start| start & !(PAGE - 1))
        .filter(|start| *start >= placement.end)
        .ok_or(LoadError::ModulesDoNotFit)?;
    let mut at = start;
    for module in modules {
        at = at.next_multiple_of(ARCHIVE);
        copies.push_back((at, module.bytes));
        at += module.bytes.len() as u64;
    }
    // Both are below 4 GiB: the disk ends at `initrd_addr_max` at the latest.
    Ok(Ramdisk {
        start: start as u32,
        size: size as u32,
    })
}

/// `struct boot_params`, also called the zero page.
struct BootParameters([u8; PAGE as usize]);

impl BootParameters {
    fn new(
        kernel: &Kernel<'_>,
        placement: &Placement,
        ramdisk: Ramdisk,
        rsdp: Option<u64>,
        memory_size: u64,
    ) -> Self {
        let mut this = Self([0; PAGE as usize]);
        this.set(field::SETUP_SECTS, kernel.header);
        this.set(field::VID_MODE, &VIDEO_NORMAL.to_le_bytes());
        this.set(field::TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
        // For the real-mode part, which is not there.
        this.set(field::SETUP_MOVE_SIZE, &[0; 2]);
        this.set(field::CODE32_START, &(placement.load as u32).to_le_bytes());
        this.set(field::RAMDISK_IMAGE, &ramdisk.start.to_le_bytes());
        this.set(field::RAMDISK_SIZE, &ramdisk.size.to_le_bytes());
        this.set(field::CMD_LINE_PTR, &(COMMAND_LINE as u32).to_le_bytes());
        // An ordinary PC, and no further data.
        this.set(field::HARDWARE_SUBARCH, &[0; 4]);
        this.set(field::SETUP_DATA, &[0; 8]);
        this.set(ACPI_RSDP_ADDR, &rsdp.unwrap_or(0).to_le_bytes());
        let map = memory_map(memory_size);
        this.set(E820_ENTRIES, &[map.len() as u8]);
        for (index, (start, end, kind)) in map.into_iter().enumerate() {
            /// Size of an entry.
            const ENTRY: usize = 20;
            let at = E820_TABLE + index * ENTRY;
            this.set(at, &start.to_le_bytes());
            this.set(at + 8, &(end - start).to_le_bytes());
            this.set(at + 16, &kind.to_le_bytes());
        }
        this
    }

    /// Sets a field. Fields lie inside by their definition; the header's length was checked.
    fn set(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The memory map: start, end and type. The hole below 1 MiB holds the firmware's tables.
fn memory_map(top: u64) -> [(u64, u64, u32); 3] {
    [
        (0, LOW_MEMORY_END, AVAILABLE),
        (LOW_MEMORY_END, MIB, RESERVED),
        (MIB, top, AVAILABLE),
    ]
}

/// Maps the first 4 GiB onto themselves with pages of 2 MiB.
fn write_page_tables(memory: &GuestMemory) -> Result<(), OutOfBounds> {
    const TABLE: u64 = 1 << 0 | 1 << 1; // present, writable
    const LARGE: u64 = TABLE | 1 << 7;
    const ENTRIES: u64 = 512;
    memory.write(PML4, &(POINTERS | TABLE).to_le_bytes())?;
    for directory in 0..DIRECTORY_COUNT {
        let address = DIRECTORIES + directory * PAGE;
        memory.write(POINTERS + directory * 8, &(address | TABLE).to_le_bytes())?;
        let mut entries = [0; PAGE as usize];
        for (index, entry) in (0..ENTRIES).zip(entries.chunks_exact_mut(8)) {
            let page = (directory * ENTRIES + index) * 2 * MIB;
            entry.copy_from_slice(&(page | LARGE).to_le_bytes());
        }
        memory.write(address, &entries)?;
    }
    Ok(())
}

/// Writes the descriptor table; returns its limit.
fn write_descriptors(memory: &GuestMemory) -> Result<u16, OutOfBounds> {
    /// Execute and read, accessed, present; 64-bit, in pages up to 4 GiB.
    const CODE: u64 = 0x00af_9b00_0000_ffff;
    /// Read and write, accessed, present; 32-bit, in pages up to 4 GiB.
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    memory.write(GDT + u64::from(CODE_64), &CODE.to_le_bytes())?;
    memory.write(GDT + u64::from(DATA_64), &DATA.to_le_bytes())?;
    Ok(DATA_64 + 7)
}

#[cfg(test)]
mod tests;

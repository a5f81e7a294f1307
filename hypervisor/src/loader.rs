//! Putting a kernel into a guest's memory, by open protocols.

pub mod linux;
pub mod multiboot;

use crate::memory::{GuestMemory, OutOfBounds};

/// Selector of the code segment in the descriptor table of 64-bit kernels.
pub const CODE_64: u16 = 0x10;
/// Selector of its data segment.
pub const DATA_64: u16 = 0x18;

/// A file for the guest's kernel.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its command line.
    pub command_line: &'a str,
}

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
/// End of conventional memory: the kilobyte above belongs to the extended BIOS data area.
const LOW_MEMORY_END: u64 = 0x9_fc00;
/// Start of the hole for adapters and firmware, which ends at 1 MiB.
const HOLE: u64 = 0xa_0000;

/// The types of memory in a memory map (ACPI 6.4, table 15.3; multiboot takes over the first two).
const AVAILABLE: u32 = 1;
const RESERVED: u32 = 2;

/// The fields of the BIOS data area that kernels read: the serial port, the size of conventional
/// memory and the segment of the extended data area.
fn write_bios_data_area(memory: &mut GuestMemory) -> Result<(), OutOfBounds> {
    const COM1_BASE: u64 = 0x400;
    const EBDA_SEGMENT: u64 = 0x40e;
    const LOW_MEMORY_KIB: u64 = 0x413;
    memory.write(COM1_BASE, &0x3f8_u16.to_le_bytes())?;
    memory.write(EBDA_SEGMENT, &((LOW_MEMORY_END >> 4) as u16).to_le_bytes())?;
    memory.write(
        LOW_MEMORY_KIB,
        &((LOW_MEMORY_END / 1024) as u16).to_le_bytes(),
    )
}

//! Putting a kernel into a guest's memory, by open protocols.

pub mod linux;
pub mod multiboot;

use crate::memory::{GuestMemory, OutOfBounds};
use alloc::collections::VecDeque;
use vcpu::StartState;

/// Selector of the code segment in the descriptor table of 64-bit kernels.
pub const CODE_64: u16 = 0x10;
/// Selector of its data segment.
pub const DATA_64: u16 = 0x18;

/// A file for the guest's kernel.
#[derive(Clone, Copy, Debug)]
pub struct Module<'bytes, 'text> {
    /// Its bytes.
    pub bytes: &'bytes [u8],
    /// Its command line.
    pub command_line: &'text str,
}

/// A kernel that was found sound and has its place: what is left is to copy it there.
///
/// Kernels and their files are large, and copying them all at once would keep the processor from a
/// guest with deadlines: [`Loaded::step`] copies a piece at a time.
#[derive(Debug)]
pub struct Loaded<'a> {
    start: StartState,
    /// What goes where, in this order. All of it was found to be in the guest's memory.
    copies: VecDeque<(u64, &'a [u8])>,
}

impl<'a> Loaded<'a> {
    const fn new(start: StartState, copies: VecDeque<(u64, &'a [u8])>) -> Self {
        Self { start, copies }
    }

    /// Copies up to `most` bytes. Once all are where they belong, returns how the vCPU starts.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] where `memory` is another one than the kernel was loaded for.
    pub fn step(
        &mut self,
        memory: &GuestMemory,
        most: usize,
    ) -> Result<Option<StartState>, OutOfBounds> {
        let Some((address, bytes)) = self.copies.front_mut() else {
            return Ok(Some(self.start));
        };
        let (now, later) = bytes.split_at(most.min(bytes.len()));
        memory.write(*address, now)?;
        *address += now.len() as u64;
        *bytes = later;
        if later.is_empty() {
            self.copies.pop_front();
        }
        Ok(None)
    }

    /// Copies all that is left, however long that takes.
    ///
    /// # Errors
    ///
    /// As [`Loaded::step`].
    pub fn finish(mut self, memory: &GuestMemory) -> Result<StartState, OutOfBounds> {
        loop {
            if let Some(start) = self.step(memory, usize::MAX)? {
                return Ok(start);
            }
        }
    }
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
fn write_bios_data_area(memory: &GuestMemory) -> Result<(), OutOfBounds> {
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

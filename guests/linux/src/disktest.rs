//! Writes a disk, reads it back, compares, and tells how many ticks that took.
//!
//! Past the page cache, so that the disk does the work. What was on the disk is lost.

use crate::cpu;
use crate::programs::{Outcome, number};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

const MIB_DEFAULT: u64 = 4;
/// Bytes of one transfer.
const BLOCK: usize = 64 << 10;
/// What O_DIRECT wants of addresses, by far.
const ALIGNMENT: usize = 4096;

/// A block of memory that the kernel can transfer from and to directly.
pub(crate) struct Block {
    bytes: *mut u8,
}

impl Block {
    const LAYOUT: Layout = match Layout::from_size_align(BLOCK, ALIGNMENT) {
        Ok(layout) => layout,
        Err(_) => panic!("the block's size and alignment do not go together"),
    };

    pub(crate) fn new() -> Self {
        // SAFETY: the layout has a size.
        let bytes = unsafe { alloc_zeroed(Self::LAYOUT) };
        if bytes.is_null() {
            handle_alloc_error(Self::LAYOUT);
        }
        Self { bytes }
    }

    /// Fills the block with what belongs at an offset of the disk in a pass: no two 8-byte words of a
    /// disk are the same.
    pub(crate) fn fill(&mut self, offset: u64, pass: u64) {
        let (words, _) = self.as_chunks_mut::<8>();
        for (at, word) in (offset..).step_by(8).zip(words) {
            *word = (at ^ pass << 48).to_le_bytes();
        }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: allocated with this size, initialised, and owned.
        unsafe { std::slice::from_raw_parts(self.bytes, BLOCK) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.bytes, BLOCK) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.bytes, Self::LAYOUT) };
    }
}

/// A disk, or part of it, that is written and read block by block.
pub(crate) struct Disk {
    file: File,
    blocks: u64,
    written: Block,
    read: Block,
}

impl Disk {
    /// Opens a device for transfers that pass by the page cache.
    ///
    /// # Errors
    ///
    /// Where it is not there or too small.
    pub(crate) fn open(device: &str, mib: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DIRECT);
        Ok(Self {
            file: options.open(device)?,
            blocks: (mib << 20) / BLOCK as u64,
            written: Block::new(),
            read: Block::new(),
        })
    }

    fn offsets(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.blocks).map(|block| block * BLOCK as u64)
    }

    /// Writes everything, and has the disk make it last.
    ///
    /// # Errors
    ///
    /// Where a transfer fails.
    pub(crate) fn write(&mut self, pass: u64) -> io::Result<()> {
        for offset in self.offsets() {
            self.written.fill(offset, pass);
            self.file.write_all_at(&self.written, offset)?;
        }
        self.file.sync_all()
    }

    /// Reads everything and compares it.
    ///
    /// # Errors
    ///
    /// Where a transfer fails, or something else is on the disk.
    pub(crate) fn verify(&mut self, pass: u64) -> io::Result<()> {
        for offset in self.offsets() {
            self.file.read_exact_at(&mut self.read, offset)?;
            self.written.fill(offset, pass);
            if *self.read != *self.written {
                let error =
                    format!("what was written is not what is read in the block at {offset}");
                return Err(io::Error::other(error));
            }
        }
        Ok(())
    }
}

/// `disktest DEVICE [MIB]`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let device = arguments.first().ok_or("which device?")?;
    let mib = number(arguments, 1, MIB_DEFAULT)?;
    let mut disk = Disk::open(device, mib).map_err(|error| format!("{device}: {error}"))?;
    let start = cpu::tsc();
    disk.write(1)?;
    let written = cpu::tsc();
    disk.verify(1)?;
    let verified = cpu::tsc();
    // Other values, so that nothing old can pass.
    disk.write(2)?;
    disk.verify(2)?;
    println!(
        "disktest: {mib} MiB of {device} written in {} ticks, read and compared in {} ticks",
        written - start,
        verified - written
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Block};

    #[test]
    fn blocks_differ_by_place_and_pass() {
        let mut block = Block::new();
        let mut of = |offset, pass| {
            block.fill(offset, pass);
            block.to_vec()
        };
        let block_size = BLOCK as u64;
        assert_ne!(of(0, 1), of(block_size, 1));
        assert_ne!(of(0, 1), of(0, 2));
        assert_eq!(of(block_size, 2), of(block_size, 2));
        assert_ne!(of(0, 1)[..8], of(0, 1)[8..16]);
    }
}

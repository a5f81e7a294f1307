//! Memory that a device reads and writes by itself.

use core::ops::Range;
use core::ptr::NonNull;

/// Physically contiguous memory that one device and its driver share.
///
/// The device may write any part of it that it was told of, so words are read and written by volatile accesses; slices are for
/// parts that the driver knows to be its own at that time.
#[derive(Debug)]
pub struct Dma {
    physical: u64,
    bytes: NonNull<u8>,
    length: usize,
}

// SAFETY: plain memory that belongs to whoever has this value, whichever processor that is.
unsafe impl Send for Dma {}

impl Dma {
    /// Gives memory to a device and its driver: `length` bytes at `physical`, which are mapped at `bytes`.
    ///
    /// # Safety
    ///
    /// The memory must be mapped writable and cached, all zero, page-aligned, and nobody else's, for good: a device may write
    /// it as long as it has power.
    #[must_use]
    pub unsafe fn new(physical: u64, bytes: NonNull<u8>, length: usize) -> Self {
        Self {
            physical,
            bytes,
            length,
        }
    }

    /// Bytes of it.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Where the device finds it.
    #[must_use]
    pub fn physical(&self) -> u64 {
        self.physical
    }

    /// Cuts it behind `length` bytes, a multiple of a page. `None` if there are not as many.
    #[must_use]
    pub fn split(self, length: usize) -> Option<(Self, Self)> {
        let rest = self.length.checked_sub(length)?;
        // SAFETY: within the memory, or one behind its end.
        let behind = unsafe { self.bytes.add(length) };
        let second = Self {
            physical: self.physical + length as u64,
            bytes: behind,
            length: rest,
        };
        Some((Self { length, ..self }, second))
    }

    /// Reads the 64-bit word with this index.
    ///
    /// # Panics
    ///
    /// If it is not within the memory.
    #[must_use]
    pub fn word(&self, index: usize) -> u64 {
        // SAFETY: mapped and aligned by the contract of `new`, and within it by the check.
        unsafe { self.word_pointer(index).read_volatile() }
    }

    /// Writes the 64-bit word with this index.
    ///
    /// # Panics
    ///
    /// If it is not within the memory.
    pub fn set_word(&mut self, index: usize, value: u64) {
        // SAFETY: as in `word`.
        unsafe { self.word_pointer(index).write_volatile(value) };
    }

    fn word_pointer(&self, index: usize) -> *mut u64 {
        assert!(index < self.length / size_of::<u64>());
        // SAFETY: within the memory.
        unsafe { self.bytes.cast::<u64>().add(index).as_ptr() }
    }

    /// A part of the memory.
    ///
    /// # Safety
    ///
    /// The device must not write this part as long as the slice lives.
    ///
    /// # Panics
    ///
    /// If it is not within the memory.
    #[must_use]
    pub unsafe fn slice(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: within the memory; nobody writes it by the contracts of `new` and of this function.
        unsafe { core::slice::from_raw_parts(self.bytes.as_ptr().add(range.start), range.len()) }
    }

    /// A part of the memory, to be written.
    ///
    /// # Safety
    ///
    /// The device must neither read nor write this part as long as the slice lives.
    ///
    /// # Panics
    ///
    /// If it is not within the memory.
    #[must_use]
    pub unsafe fn slice_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: within the memory; nobody uses it by the contracts of `new` and of this function.
        unsafe {
            core::slice::from_raw_parts_mut(self.bytes.as_ptr().add(range.start), range.len())
        }
    }
}

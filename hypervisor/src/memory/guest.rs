//! The memory of a guest, as the hypervisor reaches it.

use super::written::Written;
use alloc::collections::TryReserveError;
use core::fmt;
use core::ops::Range;
use vcpu::{DirectMap, PageSet, REGION_SIZE};

/// An access outside the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBounds {
    /// Guest-physical address of the access.
    pub address: u64,
    /// Its length in bytes.
    pub length: u64,
}

impl fmt::Display for OutOfBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes at {:#x} are outside the guest's memory",
            self.length, self.address
        )
    }
}

impl core::error::Error for OutOfBounds {}

/// A guest's RAM, guest-physical 0 to its size. All host accesses to it go through here: they are
/// bounds-checked, they copy (so a guest that changes memory meanwhile is seen once), no
/// reference into guest memory ever exists, and the pages that they write are marked while that is wanted.
#[derive(Debug)]
pub struct GuestMemory {
    base: *mut u8,
    size: u64,
    written: Written,
}

// SAFETY: the memory belongs to this value and the guest; the pointer is valid on every processor.
unsafe impl Send for GuestMemory {}

// SAFETY: accesses only copy bytes in and out, and no reference into the memory exists: what one
// processor writes while another reads is seen torn at worst, as what the guest itself writes is.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// # Safety
    ///
    /// `map` must map the `size` bytes of RAM at `host_physical` writable for good, and nothing but
    /// the guest and this value may use them.
    #[must_use]
    pub unsafe fn new(map: DirectMap, host_physical: u64, size: u64) -> Self {
        Self {
            base: map.pointer(host_physical),
            size,
            written: Written::default(),
        }
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Copies from guest memory.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`]; nothing was copied.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), OutOfBounds> {
        let at = self.locate(address, into.len())?;
        // SAFETY: in bounds; `into` is ours and cannot overlap guest memory, to which no reference exists.
        unsafe { core::ptr::copy_nonoverlapping(at, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies into guest memory.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`]; nothing was copied.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), OutOfBounds> {
        let at = self.locate(address, from.len())?;
        // SAFETY: as in `read`.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), at, from.len()) };
        self.written.mark(address, from.len() as u64);
        Ok(())
    }

    /// Copies `length` bytes from other memory of this kind.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`], of whichever of the two it is; nothing was copied.
    pub fn transfer(
        &self,
        address: u64,
        source: &Self,
        source_address: u64,
        length: usize,
    ) -> Result<(), OutOfBounds> {
        let from = source.locate(source_address, length)?;
        let to = self.locate(address, length)?;
        // SAFETY: both are in bounds; `copy` does not mind if they are the same memory.
        unsafe { core::ptr::copy(from, to, length) };
        self.written.mark(address, length as u64);
        Ok(())
    }

    /// Reads a little-endian 32-bit word.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`].
    pub fn read_u32(&self, address: u64) -> Result<u32, OutOfBounds> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads a little-endian 64-bit word.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`].
    pub fn read_u64(&self, address: u64) -> Result<u64, OutOfBounds> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads a little-endian 16-bit word in one access: one that the guest writes meanwhile is seen as it
    /// was before or after.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`], also for an odd address.
    pub fn load_u16(&self, address: u64) -> Result<u16, OutOfBounds> {
        let at = self.locate_u16(address)?;
        // SAFETY: in bounds and aligned.
        Ok(u16::from_le(unsafe { at.read_volatile() }))
    }

    /// Writes a little-endian 16-bit word in one access.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`], also for an odd address; nothing was written.
    pub fn store_u16(&self, address: u64, value: u16) -> Result<(), OutOfBounds> {
        let at = self.locate_u16(address)?;
        // SAFETY: as in `load_u16`.
        unsafe { at.write_volatile(value.to_le()) };
        self.written.mark(address, 2);
        Ok(())
    }

    fn locate_u16(&self, address: u64) -> Result<*mut u16, OutOfBounds> {
        let at = self.locate(address, 2)?.cast::<u16>();
        if at.is_aligned() {
            Ok(at)
        } else {
            Err(OutOfBounds { address, length: 2 })
        }
    }

    /// Whether a range is inside.
    #[must_use]
    pub fn contains(&self, address: u64, length: u64) -> bool {
        address
            .checked_add(length)
            .is_some_and(|end| end <= self.size)
    }

    /// Zeroes a range, as far as it is inside: a guest never sees what was there before.
    pub fn scrub(&self, range: Range<u64>) {
        let end = range.end.min(self.size);
        if let Some(length) = end.checked_sub(range.start) {
            // SAFETY: in bounds, and the memory is ours by the contract of `new`.
            unsafe {
                self.base
                    .wrapping_add(range.start as usize)
                    .write_bytes(0, length as usize)
            };
            self.written.mark(range.start, length);
        }
    }

    /// Copies a range from another guest's memory, or from a store of its own, as far as it is inside both.
    pub fn copy_from(&self, from: &Self, range: Range<u64>) {
        let end = range.end.min(self.size).min(from.size);
        if let Some(length) = end.checked_sub(range.start) {
            let at = range.start as usize;
            // SAFETY: in bounds of both, which may be the same memory.
            unsafe {
                core::ptr::copy(
                    from.base.wrapping_add(at),
                    self.base.wrapping_add(at),
                    length as usize,
                );
            };
            self.written.mark(range.start, length);
        }
    }

    /// Begins to mark the pages that are written from here: the guest's own writes are not seen. A write that is under
    /// way on another processor is perhaps not marked.
    ///
    /// # Errors
    ///
    /// [`TryReserveError`] where there is no memory for the marks.
    pub fn begin_marking(&self) -> Result<(), TryReserveError> {
        self.written.begin(self.size)
    }

    /// Marks pages no more.
    pub fn end_marking(&self) {
        self.written.end();
    }

    /// Marks the page around an address, which the guest wrote itself.
    pub fn mark(&self, address: u64) {
        self.written.mark(address, 1);
    }

    /// The first region with marked pages at or behind an address, and those pages, which are marked no more; `None` if
    /// there is none. A page that is marked at any time later is found behind its region's address, or from zero on.
    pub fn take_marked(&self, address: u64) -> Option<(u64, PageSet)> {
        self.written.take_next(address)
    }

    /// How many pages are marked.
    #[inline(always)]
    pub fn marked(&self) -> u64 {
        self.written.count()
    }

    /// Forgets all marks.
    pub fn forget_marked(&self) {
        let mut from = 0;
        while let Some((region, _)) = self.take_marked(from) {
            from = region + REGION_SIZE;
        }
    }

    fn locate(&self, address: u64, length: usize) -> Result<*mut u8, OutOfBounds> {
        let length = length as u64;
        if self.contains(address, length) {
            Ok(self.base.wrapping_add(address as usize))
        } else {
            Err(OutOfBounds { address, length })
        }
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use super::{DirectMap, GuestMemory};

    /// Guest memory in a leaked heap block.
    pub(crate) fn memory(size: usize) -> GuestMemory {
        let block = Vec::leak(vec![0xaa_u8; size]);
        // SAFETY: the block is leaked, so it lives on and nobody else uses it.
        unsafe { GuestMemory::new(DirectMap::new(0), block.as_mut_ptr() as u64, size as u64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_stay_inside() {
        let memory = fake::memory(0x1000);
        memory.scrub(0..0x1000);
        memory.write(0xffc, &[1, 2, 3, 4]).unwrap();
        assert_eq!(memory.read_u32(0xffc), Ok(0x0403_0201));
        assert_eq!(memory.read_u64(0xff8), Ok(0x0403_0201_0000_0000));
        assert_eq!(
            memory.read_u32(0xffd),
            Err(OutOfBounds {
                address: 0xffd,
                length: 4
            })
        );
        let other = fake::memory(0x10);
        other.transfer(8, &memory, 0xffc, 4).unwrap();
        assert_eq!(other.read_u32(8), Ok(0x0403_0201));
        assert!(other.transfer(13, &memory, 0xffc, 4).is_err());
        assert!(other.transfer(0, &memory, 0xffd, 4).is_err());
        assert_eq!(memory.load_u16(0xffe), Ok(0x0403));
        memory.store_u16(0xffe, 0x0605).unwrap();
        assert_eq!(memory.load_u16(0xffe), Ok(0x0605));
        assert!(memory.load_u16(0xffd).is_err());
        assert!(memory.store_u16(0x1000, 0).is_err());
        assert!(memory.write(u64::MAX, &[0]).is_err());
        assert!(memory.write(0x1000, &[]).is_ok());
        assert!(memory.write(0x1001, &[]).is_err());
    }

    /// The numbers of the marked pages.
    fn take_all(memory: &GuestMemory) -> Vec<u64> {
        core::iter::from_fn(|| memory.take_marked(0))
            .flat_map(|(at, pages)| pages.iter().map(move |page| at / 0x1000 + page))
            .collect()
    }

    #[test]
    fn every_write_marks_its_pages() {
        let (memory, other) = (fake::memory(0x20_3000), fake::memory(0x20_3000));
        memory.write(0x5000, &[1]).unwrap();
        assert_eq!(take_all(&memory), []);
        memory.begin_marking().unwrap();
        other.transfer(0, &memory, 0x5000, 0x2000).unwrap();
        assert_eq!(take_all(&memory), []);
        memory.write(0x5fff, &[1, 2]).unwrap();
        memory.write(0x9000, &[]).unwrap();
        memory.write(0x20_2fff, &[1]).unwrap();
        assert!(memory.write(0x20_2fff, &[1, 2]).is_err());
        memory.write(0x5000, &[1]).unwrap();
        assert_eq!((memory.marked(), other.marked()), (3, 0));
        assert_eq!(take_all(&memory), [5, 6, 0x202]);
        assert_eq!(take_all(&memory), []);
        assert_eq!(memory.marked(), 0);
        memory.transfer(0x1f_ffff, &other, 0, 0x1002).unwrap();
        assert_eq!(take_all(&memory), [0x1ff, 0x200, 0x201]);
        memory.store_u16(0x7ffe, 1).unwrap();
        memory.scrub(0x20_1fff..0x30_0000);
        assert_eq!(take_all(&memory), [7, 0x201, 0x202]);
        memory.copy_from(&other, 0x10_0000..0x10_1000);
        memory.read_u64(0).unwrap();
        assert_eq!(take_all(&memory), [0x100]);
        memory.end_marking();
        memory.write(0x5000, &[1]).unwrap();
        assert_eq!(take_all(&memory), []);
        assert_eq!(take_all(&other), []);
    }

    #[test]
    fn copies_stay_inside_both() {
        let (large, small) = (fake::memory(0x2000), fake::memory(0x1000));
        large.scrub(0..0x2000);
        small.copy_from(&large, 0x800..0x2000);
        assert_eq!(small.read_u64(0x800), Ok(0));
        assert_eq!(small.read_u64(0xff8), Ok(0));
        assert_eq!(small.read_u64(0x7f8), Ok(0xaaaa_aaaa_aaaa_aaaa));
        large.copy_from(&small, 0x1000..0x3000);
        large.copy_from(&small, 0..8);
        assert_eq!(large.read_u64(0), Ok(0xaaaa_aaaa_aaaa_aaaa));
        assert_eq!(large.read_u64(0x1000), Ok(0));
    }
}

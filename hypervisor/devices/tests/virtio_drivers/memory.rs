//! Guest memory that driver and device share, and the driver's side of it.

use std::alloc::{Layout, alloc_zeroed};
use std::cell::RefCell;
use std::ptr::NonNull;

use devices::OutsideMemory;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Pages of guest memory. Page 0 is never given out: address 0 means failure to the drivers.
const PAGES: usize = 1024;

/// The guest memory of a test, which is a thread's.
pub(crate) struct Arena {
    base: NonNull<u8>,
    used: Vec<bool>,
}

thread_local! {
    static ARENA: RefCell<Arena> = RefCell::new(Arena::new());
}

impl Arena {
    fn new() -> Self {
        let layout = Layout::from_size_align(PAGES * PAGE_SIZE, PAGE_SIZE).expect("a layout");
        // SAFETY: the size is not 0. The memory is leaked, so it lives as long as whoever has a pointer to it.
        let base = unsafe { alloc_zeroed(layout) };
        let mut used = vec![false; PAGES];
        used[0] = true;
        Self {
            base: NonNull::new(base).expect("memory"),
            used,
        }
    }

    fn allocate(&mut self, pages: usize) -> (PhysAddr, NonNull<u8>) {
        let free = |window: &[bool]| window.iter().all(|used| !used);
        let first = self.used.windows(pages).position(free).expect("room");
        self.used[first..first + pages].fill(true);
        let pointer = self.at(first * PAGE_SIZE);
        // SAFETY: the pages are inside the arena and nobody else's from here on.
        unsafe { pointer.write_bytes(0, pages * PAGE_SIZE) };
        ((first * PAGE_SIZE) as u64, pointer)
    }

    fn free(&mut self, address: PhysAddr, pages: usize) {
        let first = address as usize / PAGE_SIZE;
        self.used[first..first + pages].fill(false);
    }

    fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < PAGES * PAGE_SIZE);
        // SAFETY: inside the allocation.
        unsafe { self.base.add(offset) }
    }

    fn locate(address: u64, length: usize) -> Result<NonNull<u8>, OutsideMemory> {
        let end = (PAGES * PAGE_SIZE) as u64;
        let fits = address
            .checked_add(length as u64)
            .is_some_and(|last| last <= end);
        if !fits || address == end {
            return Err(OutsideMemory(address));
        }
        Ok(ARENA.with_borrow(|arena| arena.at(address as usize)))
    }

    /// The device reads.
    pub(crate) fn read(address: u64, bytes: &mut [u8]) -> Result<(), OutsideMemory> {
        let from = Self::locate(address, bytes.len())?;
        // SAFETY: inside the arena, to which there are no references; driver and device share a thread.
        unsafe { from.copy_to_nonoverlapping(NonNull::from(&mut *bytes).cast(), bytes.len()) };
        Ok(())
    }

    /// The device writes.
    pub(crate) fn write(address: u64, bytes: &[u8]) -> Result<(), OutsideMemory> {
        let to = Self::locate(address, bytes.len())?;
        // SAFETY: as in `read`.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        Ok(())
    }
}

fn pages(buffer: NonNull<[u8]>) -> usize {
    buffer.len().div_ceil(PAGE_SIZE)
}

// SAFETY: pages are zeroed, aligned, and nobody else's until they are given back; buffers are copied to such pages when
// they are shared and back when they are not any more.
unsafe impl Hal for Arena {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        ARENA.with_borrow_mut(|arena| arena.allocate(pages))
    }

    unsafe fn dma_dealloc(address: PhysAddr, _pointer: NonNull<u8>, pages: usize) -> i32 {
        ARENA.with_borrow_mut(|arena| arena.free(address, pages));
        0
    }

    unsafe fn mmio_phys_to_virt(_address: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("the transport has ports")
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let (address, pointer) = Self::dma_alloc(pages(buffer), direction);
        if direction != BufferDirection::DeviceToDriver {
            // SAFETY: the buffer is valid by the contract of this function, the pages are as large and ours.
            unsafe { pointer.copy_from_nonoverlapping(buffer.cast(), buffer.len()) };
        }
        address
    }

    unsafe fn unshare(address: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let pointer = ARENA.with_borrow(|arena| arena.at(address as usize));
        if direction != BufferDirection::DriverToDevice {
            // SAFETY: as in `share`, which these pages are from.
            unsafe { pointer.copy_to_nonoverlapping(buffer.cast(), buffer.len()) };
        }
        ARENA.with_borrow_mut(|arena| arena.free(address, pages(buffer)));
    }
}

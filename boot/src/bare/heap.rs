//! The hypervisor's heap.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use linked_list_allocator::Heap;
use spin::Mutex;

/// A heap behind a lock. Interrupts are off wherever the hypervisor allocates, so the lock's holder
/// is never interrupted by another user of it.
pub(super) struct LockedHeap(Mutex<Heap>);

impl LockedHeap {
    pub(super) const fn empty() -> Self {
        Self(Mutex::new(Heap::empty()))
    }

    /// # Safety
    ///
    /// The memory must be mapped, unused, and stay so; to be called once.
    pub(super) unsafe fn init(&self, start: *mut u8, size: usize) {
        // SAFETY: passed on to the caller.
        unsafe { self.0.lock().init(start, size) };
    }
}

// SAFETY: the allocator hands out disjoint blocks that fit their layouts, or null.
unsafe impl GlobalAlloc for LockedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.0.lock().allocate_first_fit(layout);
        block.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller passes a block of ours and its layout.
            unsafe { self.0.lock().deallocate(block, layout) };
        }
    }
}

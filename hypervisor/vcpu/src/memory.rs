//! Page frames, and how the shell reaches them.

use alloc::vec::Vec;
use core::ptr::NonNull;

/// Size of a page frame in bytes.
pub const FRAME_SIZE: usize = 4096;

/// The linear map of physical memory: virtual address = physical address + offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectMap {
    offset: u64,
}

impl DirectMap {
    /// A map in which physical address 0 is at virtual address `offset`.
    #[must_use]
    pub const fn new(offset: u64) -> Self {
        Self { offset }
    }

    /// Where `physical` is mapped. The address is formed, not touched.
    #[must_use]
    pub const fn pointer(self, physical: u64) -> *mut u8 {
        self.offset.wrapping_add(physical) as *mut u8
    }
}

/// A zeroed 4 KiB page frame that belongs to its holder and to the hardware the holder gives it to.
#[derive(Debug)]
pub struct Frame {
    physical: u64,
    virt: NonNull<u8>,
}

// SAFETY: a frame is plain memory that one holder owns; nothing about it is tied to a processor.
unsafe impl Send for Frame {}

impl Frame {
    /// Takes ownership of a frame.
    ///
    /// # Safety
    ///
    /// `virt` must be 4 KiB aligned and map the 4 KiB at physical address `physical` readable and
    /// writable for as long as the program runs; the memory must be zeroed and unused by others.
    #[must_use]
    pub const unsafe fn new(physical: u64, virt: NonNull<u8>) -> Self {
        Self { physical, virt }
    }

    /// The physical address, 4 KiB aligned.
    #[must_use]
    pub const fn physical(&self) -> u64 {
        self.physical
    }

    /// The frame's bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8; FRAME_SIZE] {
        // SAFETY: by the contract of `new` the frame is mapped, writable and ours alone, and any
        // byte pattern is a valid `[u8; 4096]`.
        unsafe { self.virt.cast::<[u8; FRAME_SIZE]>().as_mut() }
    }

    /// The frame's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; FRAME_SIZE] {
        // SAFETY: as in `bytes_mut`; the shared borrow keeps writers out.
        unsafe { self.virt.cast::<[u8; FRAME_SIZE]>().as_ref() }
    }
}

/// Where the shell gets frames for its hardware structures.
pub trait FrameSource {
    /// A zeroed frame, or `None` when memory is exhausted.
    fn frame(&mut self) -> Option<Frame>;

    /// Zeroed frames that follow each other in physical memory, or `None` where there are none.
    fn frames(&mut self, count: usize) -> Option<Vec<Frame>>;

    /// The map through which frames are reached by physical address.
    fn direct_map(&self) -> DirectMap;
}

#[cfg(any(test, feature = "fake-frames"))]
pub mod fake {
    //! Frames from the test process's heap, at "physical" addresses equal to their virtual ones.

    use super::{DirectMap, FRAME_SIZE, Frame, FrameSource};
    use alloc::alloc::{Layout, alloc_zeroed};
    use alloc::vec::Vec;
    use core::ptr::NonNull;

    /// Hands out a limited number of leaked heap pages.
    #[derive(Debug)]
    pub struct Heap {
        /// How many are left.
        pub left: usize,
    }

    impl FrameSource for Heap {
        fn frame(&mut self) -> Option<Frame> {
            self.frames(1)?.pop()
        }

        fn frames(&mut self, count: usize) -> Option<Vec<Frame>> {
            self.left = self.left.checked_sub(count)?;
            let layout = Layout::from_size_align(count * FRAME_SIZE, FRAME_SIZE).ok()?;
            // SAFETY: no layout of zero size is asked for.
            let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            let frame = |index: usize| {
                // SAFETY: freshly allocated, zeroed, aligned, and leaked, so it lives on.
                unsafe {
                    let virt = start.add(index * FRAME_SIZE);
                    Frame::new(virt.as_ptr() as u64, virt)
                }
            };
            Some((0..count).map(frame).collect())
        }

        fn direct_map(&self) -> DirectMap {
            DirectMap::new(0)
        }
    }
}

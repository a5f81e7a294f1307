//! Which ports and MSRs exit (Intel SDM volume 3, sections 25.6.4 and 25.6.9).

use crate::memory::{FRAME_SIZE, Frame, FrameSource};

/// The two I/O bitmaps: a set bit makes the port exit.
#[derive(Debug)]
pub struct IoBitmaps {
    low: Frame,
    high: Frame,
}

impl IoBitmaps {
    /// Bitmaps in which every port exits. `None` when memory is exhausted.
    pub fn all_exit(frames: &mut impl FrameSource) -> Option<Self> {
        let mut new = Self {
            low: frames.frame()?,
            high: frames.frame()?,
        };
        new.low.bytes_mut().fill(0xff);
        new.high.bytes_mut().fill(0xff);
        Some(new)
    }

    pub(crate) fn addresses(&self) -> (u64, u64) {
        (self.low.physical(), self.high.physical())
    }
}

/// The MSR bitmap: a set bit makes the access exit. MSRs outside its two ranges always do.
#[derive(Debug)]
pub struct MsrBitmap {
    frame: Frame,
}

impl MsrBitmap {
    /// A bitmap in which every access exits. `None` when memory is exhausted.
    pub fn all_exit(frames: &mut impl FrameSource) -> Option<Self> {
        let mut frame = frames.frame()?;
        frame.bytes_mut().fill(0xff);
        Some(Self { frame })
    }

    /// Lets the guest read and write an MSR without an exit.
    ///
    /// The value then lives in the processor, so only MSRs that are switched with the guest may be
    /// passed through: those in the VMCS guest state and those that the shell keeps resident.
    pub(crate) fn pass_through(&mut self, msr: u32) {
        const WRITES: usize = FRAME_SIZE / 2;
        let (half, index) = match msr {
            0..=0x1fff => (0, msr),
            0xc000_0000..=0xc000_1fff => (FRAME_SIZE / 4, msr - 0xc000_0000),
            _ => return,
        };
        let byte = half + index as usize / 8;
        let bytes = self.frame.bytes_mut();
        bytes[byte] &= !(1 << (index % 8));
        bytes[byte + WRITES] &= !(1 << (index % 8));
    }

    pub(crate) fn address(&self) -> u64 {
        self.frame.physical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake::Heap;

    #[test]
    fn passing_an_msr_through_clears_its_read_and_write_bit_only() {
        let mut bitmap = MsrBitmap::all_exit(&mut Heap { left: 1 }).unwrap();
        bitmap.pass_through(0x174);
        bitmap.pass_through(0xc000_0102);
        bitmap.pass_through(0x4000_0000);
        let clear: Vec<usize> = (0..FRAME_SIZE * 8)
            .filter(|bit| bitmap.frame.bytes()[bit / 8] & (1 << (bit % 8)) == 0)
            .collect();
        let quarter = FRAME_SIZE * 2;
        assert_eq!(
            clear,
            [
                0x174,
                quarter + 0x102,
                2 * quarter + 0x174,
                3 * quarter + 0x102
            ]
        );
    }

    #[test]
    fn running_out_of_memory_is_reported() {
        assert!(IoBitmaps::all_exit(&mut Heap { left: 1 }).is_none());
    }
}

//! Which ports and MSRs exit (Intel SDM volume 3, sections 25.6.4 and 25.6.9).

use vcpu::{FRAME_SIZE, Frame, FrameSource};

/// The two I/O bitmaps: a set bit makes the port exit.
#[derive(Debug)]
pub(crate) struct IoBitmaps {
    low: Frame,
    high: Frame,
}

impl IoBitmaps {
    /// Bitmaps in which every port exits. `None` when memory is exhausted.
    pub(crate) fn all_exit(frames: &mut impl FrameSource) -> Option<Self> {
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

/// Which half of the MSR bitmap an access looks into: its offset.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
enum Access {
    Read = 0,
    Write = FRAME_SIZE / 2,
}

/// MSRs of a local APIC in x2APIC mode (Intel SDM volume 3, table 11-6).
mod x2apic {
    pub(super) const TASK_PRIORITY: u32 = 0x808;
    /// Task and processor priority.
    pub(super) const PRIORITIES: [u32; 2] = [TASK_PRIORITY, 0x80a];
    pub(super) const END_OF_INTERRUPT: u32 = 0x80b;
    pub(super) const IN_SERVICE: core::ops::RangeInclusive<u32> = 0x810..=0x817;
}

/// The MSR bitmap: a set bit makes the access exit. MSRs outside its two ranges always do.
#[derive(Debug)]
pub(crate) struct MsrBitmap {
    frame: Frame,
}

impl MsrBitmap {
    /// A bitmap in which every access exits. `None` when memory is exhausted.
    pub(crate) fn all_exit(frames: &mut impl FrameSource) -> Option<Self> {
        let mut frame = frames.frame()?;
        frame.bytes_mut().fill(0xff);
        Some(Self { frame })
    }

    /// Lets the guest read and write an MSR without an exit.
    ///
    /// The value then lives in the processor, so only MSRs that are switched with the guest may be
    /// passed through: those in the VMCS guest state and those that the shell keeps resident.
    pub(crate) fn pass_through(&mut self, msr: u32) {
        self.set(msr, Access::Read, false);
        self.set(msr, Access::Write, false);
    }

    /// Whether the local APIC's MSRs exit that the processor can virtualize in x2APIC mode (section
    /// 30.5). While it does not, they must: else they are the host's own.
    ///
    /// Reads of requests and trigger modes exit all the same: the processor keeps neither all the requests
    /// ([`vcpu::ApicLending::request_interrupt`]) nor the modes. So do self-IPIs, which are requests, too.
    pub(crate) fn intercept_apic(&mut self, exit: bool) {
        use x2apic::{END_OF_INTERRUPT, IN_SERVICE, PRIORITIES, TASK_PRIORITY};
        for msr in PRIORITIES.into_iter().chain(IN_SERVICE) {
            self.set(msr, Access::Read, exit);
        }
        for msr in [TASK_PRIORITY, END_OF_INTERRUPT] {
            self.set(msr, Access::Write, exit);
        }
    }

    /// Whether this access to an MSR exits. Those outside the two ranges stay as they are.
    fn set(&mut self, msr: u32, access: Access, exit: bool) {
        let (quarter, index) = match msr {
            0..=0x1fff => (0, msr),
            0xc000_0000..=0xc000_1fff => (FRAME_SIZE / 4, msr - 0xc000_0000),
            _ => return,
        };
        let byte = access as usize + quarter + index as usize / 8;
        let bit = 1 << (index % 8);
        let byte = &mut self.frame.bytes_mut()[byte];
        if exit {
            *byte |= bit;
        } else {
            *byte &= !bit;
        }
    }

    pub(crate) fn address(&self) -> u64 {
        self.frame.physical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vcpu::fake::Heap;

    fn clear_bits(bitmap: &MsrBitmap) -> Vec<usize> {
        (0..FRAME_SIZE * 8)
            .filter(|bit| bitmap.frame.bytes()[bit / 8] & (1 << (bit % 8)) == 0)
            .collect()
    }

    #[test]
    fn a_virtual_apic_lets_through_what_the_processor_keeps_and_no_more() {
        let mut bitmap = MsrBitmap::all_exit(&mut Heap { left: 1 }).unwrap();
        bitmap.intercept_apic(false);
        let writes = FRAME_SIZE * 4;
        let mut expected = vec![0x808, 0x80a];
        expected.extend(0x810..0x818);
        expected.extend([0x808, 0x80b].map(|msr| writes + msr));
        assert_eq!(clear_bits(&bitmap), expected);
        bitmap.intercept_apic(true);
        assert!(clear_bits(&bitmap).is_empty());
    }

    #[test]
    fn passing_an_msr_through_clears_its_read_and_write_bit_only() {
        let mut bitmap = MsrBitmap::all_exit(&mut Heap { left: 1 }).unwrap();
        bitmap.pass_through(0x174);
        bitmap.pass_through(0xc000_0102);
        bitmap.pass_through(0x4000_0000);
        let clear = clear_bits(&bitmap);
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

//! Segment registers between the VMCB and the rest.
//!
//! The VMCB packs the access rights into 12 bits, and has no bit for a segment that cannot be used: such a one is not
//! present (APM volume 2, section 15.5.1).

use crate::vmcb::{Vmcb, VmcbSegment};
use vcpu::{Segment, SegmentRegister};

/// Access rights as [`Segment`] has them (Intel SDM volume 3, table 25-2).
mod access {
    pub(super) const LOW: u32 = 0xff;
    pub(super) const HIGH: u32 = 0xf000;
    pub(super) const PRESENT: u32 = 1 << 7;
    pub(super) const UNUSABLE: u32 = 1 << 16;
}

/// In the VMCB's attributes: 64-bit code.
pub(crate) const LONG: u16 = 1 << 9;
/// In the VMCB's attributes: 32-bit code or stack.
pub(crate) const BIG: u16 = 1 << 10;

impl From<Segment> for VmcbSegment {
    fn from(segment: Segment) -> Self {
        let mut attributes = segment.access & access::LOW | (segment.access & access::HIGH) >> 4;
        if segment.access & access::UNUSABLE != 0 {
            attributes &= !access::PRESENT;
        }
        Self {
            selector: segment.selector,
            attributes: attributes as u16,
            limit: segment.limit,
            base: segment.base,
        }
    }
}

impl From<VmcbSegment> for Segment {
    fn from(segment: VmcbSegment) -> Self {
        let attributes = u32::from(segment.attributes);
        let mut rights = attributes & access::LOW | (attributes << 4) & access::HIGH;
        if rights & access::PRESENT == 0 {
            rights |= access::UNUSABLE;
        }
        Self {
            selector: segment.selector,
            base: segment.base,
            limit: segment.limit,
            access: rights,
        }
    }
}

impl Vmcb {
    pub(crate) fn segment(&self, register: SegmentRegister) -> &VmcbSegment {
        match register {
            SegmentRegister::Es => &self.es,
            SegmentRegister::Cs => &self.cs,
            SegmentRegister::Ss => &self.ss,
            SegmentRegister::Ds => &self.ds,
            SegmentRegister::Fs => &self.fs,
            SegmentRegister::Gs => &self.gs,
            SegmentRegister::Ldtr => &self.ldtr,
            SegmentRegister::Tr => &self.tr,
        }
    }

    pub(crate) fn segment_mut(&mut self, register: SegmentRegister) -> &mut VmcbSegment {
        match register {
            SegmentRegister::Es => &mut self.es,
            SegmentRegister::Cs => &mut self.cs,
            SegmentRegister::Ss => &mut self.ss,
            SegmentRegister::Ds => &mut self.ds,
            SegmentRegister::Fs => &mut self.fs,
            SegmentRegister::Gs => &mut self.gs,
            SegmentRegister::Ldtr => &mut self.ldtr,
            SegmentRegister::Tr => &mut self.tr,
        }
    }
}

/// A segment register as saved states and the layers above have it. SS tells the current privilege level. What processors
/// do not keep in the VMCB is what it must have been: granularity, that a TSS in use is busy, and that a descriptor in use
/// was accessed.
pub(crate) fn seen(vmcb: &Vmcb, register: SegmentRegister) -> Segment {
    const DPL: u32 = 0b11 << 5;
    const ACCESSED: u32 = 1 << 0;
    const BUSY: u32 = 1 << 1;
    const GRANULAR: u32 = 1 << 15;
    const LARGEST_IN_BYTES: u32 = 0xf_ffff;
    let mut segment = Segment::from(*vmcb.segment(register));
    if segment.access & access::UNUSABLE == 0 {
        segment.access &= !GRANULAR;
        if segment.limit > LARGEST_IN_BYTES {
            segment.access |= GRANULAR;
        }
        segment.access |= match register {
            SegmentRegister::Tr => BUSY,
            SegmentRegister::Ldtr => 0,
            _ => ACCESSED,
        };
    }
    if register == SegmentRegister::Ss {
        segment.access = segment.access & !DPL | u32::from(vmcb.cpl & 3) << 5;
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmcb::VmcbFrame;
    use proptest::prelude::*;
    use vcpu::FrameSource;
    use vcpu::fake::Heap;

    #[test]
    fn rights_are_packed_as_the_manual_has_them() {
        let code = VmcbSegment::from(Segment::flat_code_64(0x10));
        assert_eq!((code.selector, code.attributes), (0x10, 0xa9b));
        assert_eq!(code.attributes & (LONG | BIG), LONG);
        let unusable = Segment {
            access: 0x1_0000,
            ..Segment::real_mode(0)
        };
        assert_eq!(VmcbSegment::from(unusable).attributes, 0);
        assert_eq!(Segment::from(VmcbSegment::from(unusable)), unusable);
    }

    /// What a processor leaves there of a flat 64-bit guest in user mode, and what is saved of it.
    #[test]
    fn what_processors_do_not_keep_is_filled_in() {
        let mut frame = VmcbFrame::new(Heap { left: 1 }.frame().unwrap());
        let vmcb = frame.get_mut();
        vmcb.cs = VmcbSegment {
            attributes: 0x2fb,
            limit: !0,
            ..VmcbSegment::default()
        };
        vmcb.tr = VmcbSegment {
            attributes: 0x89,
            limit: 0x2087,
            ..VmcbSegment::default()
        };
        vmcb.ds = VmcbSegment {
            attributes: 0xcf2,
            limit: !0,
            ..VmcbSegment::default()
        };
        vmcb.cpl = 3;
        let access = |register| seen(vmcb, register).access;
        assert_eq!(access(SegmentRegister::Cs), 0xa0fb);
        assert_eq!(access(SegmentRegister::Tr), 0x8b);
        assert_eq!(access(SegmentRegister::Ds), 0xc0f3);
        assert_eq!(access(SegmentRegister::Ss), 0x1_0060);
        assert_eq!(access(SegmentRegister::Es), 0x1_0000);
    }

    proptest! {
        #[test]
        fn a_usable_segment_comes_back(selector: u16, base: u64, limit: u32, low in 0x80u32..0x100, high in 0u32..16) {
            let segment = Segment { selector, base, limit, access: low | high << 12 };
            prop_assert_eq!(Segment::from(VmcbSegment::from(segment)), segment);
        }
    }
}

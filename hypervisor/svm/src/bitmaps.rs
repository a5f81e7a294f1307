//! Which ports and MSRs exit (APM volume 2, sections 15.10 and 15.11). Ports are the same for all guests, and
//! so are MSRs, since the processor keeps no local APIC for any: one pair serves all vCPUs of a processor.

use alloc::vec::Vec;
use vcpu::{FRAME_SIZE, Frame, FrameSource};

/// A permission map over several frames that follow each other: a set bit makes an access exit.
#[derive(Debug)]
pub(crate) struct PermissionMap {
    frames: Vec<Frame>,
}

impl PermissionMap {
    /// A map in which every port exits.
    pub(crate) fn io(frames: &mut impl FrameSource) -> Option<Self> {
        // 65,536 ports, and three bits behind for accesses that begin at the last ones.
        Self::all_exit(3, frames)
    }

    /// A map in which every MSR exits but these. Those outside its three ranges always exit.
    pub(crate) fn msrs(passed: &[u32], frames: &mut impl FrameSource) -> Option<Self> {
        let mut map = Self::all_exit(2, frames)?;
        for msr in passed {
            map.pass_through(*msr);
        }
        Some(map)
    }

    fn all_exit(count: usize, frames: &mut impl FrameSource) -> Option<Self> {
        let mut frames = frames.frames(count)?;
        for frame in &mut frames {
            frame.bytes_mut().fill(0xff);
        }
        Some(Self { frames })
    }

    /// Lets guests read and write an MSR without an exit. The value then lives in the processor, so only MSRs that
    /// are switched with the guest may be passed through.
    fn pass_through(&mut self, msr: u32) {
        const RANGE_BYTES: usize = 0x800;
        let (range, index) = match msr {
            0..=0x1fff => (0, msr),
            0xc000_0000..=0xc000_1fff => (1, msr - 0xc000_0000),
            0xc001_0000..=0xc001_1fff => (2, msr - 0xc001_0000),
            _ => return,
        };
        // Two bits each, for reads and for writes.
        let byte = range * RANGE_BYTES + index as usize / 4;
        let bits = 0b11 << (index % 4 * 2);
        if let Some(frame) = self.frames.get_mut(byte / FRAME_SIZE) {
            frame.bytes_mut()[byte % FRAME_SIZE] &= !bits;
        }
    }

    /// The physical address.
    pub(crate) fn address(&self) -> u64 {
        self.frames.first().map_or(0, Frame::physical)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vcpu::fake::Heap;

    fn clear_bits(map: &PermissionMap) -> Vec<usize> {
        let bytes = map.frames.iter().flat_map(|frame| frame.bytes());
        let clear = |(at, byte): (usize, &u8)| {
            let byte = *byte;
            (0..8)
                .filter(move |bit| byte & (1 << bit) == 0)
                .map(move |bit| at * 8 + bit)
        };
        bytes.enumerate().flat_map(clear).collect()
    }

    #[test]
    fn passing_an_msr_through_clears_its_two_bits_only() {
        let passed = [0x174, 0xc000_0102, 0xc001_0117, 0x4000_0000];
        let map = PermissionMap::msrs(&passed, &mut Heap { left: 2 }).unwrap();
        let first = 0x174 * 2;
        let second = (0x2000 + 0x102) * 2;
        let third = (0x4000 + 0x117) * 2;
        assert_eq!(
            clear_bits(&map),
            [first, first + 1, second, second + 1, third, third + 1]
        );
    }

    #[test]
    fn every_port_exits_and_the_map_is_in_one_piece() {
        let map = PermissionMap::io(&mut Heap { left: 3 }).unwrap();
        assert!(clear_bits(&map).is_empty());
        for (frame, index) in map.frames.iter().zip(0..) {
            assert_eq!(frame.physical(), map.address() + index * FRAME_SIZE as u64);
        }
        assert!(PermissionMap::io(&mut Heap { left: 2 }).is_none());
    }
}

//! The virtual-APIC page: where the processor keeps the interrupts of a guest's local APIC by itself (Intel SDM
//! volume 3, chapter 30 "APIC Virtualization and Virtual Interrupts").

use vcpu::{ApicState, Frame};

/// Offsets of registers in the page (section 30.1.1). Those of 256 bits are 8 of 32, 16 bytes apart.
mod register {
    pub(super) const TASK_PRIORITY: usize = 0x80;
    pub(super) const IN_SERVICE: usize = 0x100;
    pub(super) const REQUESTS: usize = 0x200;
    pub(super) const STRIDE: usize = 0x10;
}

/// The page of a vCPU, and what the VMCS says of it.
#[derive(Debug)]
pub(crate) struct VirtualApic {
    page: Frame,
    /// The controls are on: what of the local APIC the guest may touch by itself is on the page.
    pub(crate) on: bool,
    /// There are no vectors on the page, and the guest interrupt status is zero.
    blank: bool,
    /// The EOI-exit bitmap; only valid while the controls are on.
    pub(crate) eoi_exits: [u64; 4],
}

impl VirtualApic {
    /// Makes a page of a zeroed frame.
    pub(crate) fn new(page: Frame) -> Self {
        Self {
            page,
            on: false,
            blank: true,
            eoi_exits: [0; 4],
        }
    }

    pub(crate) fn address(&self) -> u64 {
        self.page.physical()
    }

    /// Writes a state without requests; returns the guest interrupt status that belongs to it, unless that is zero and
    /// was so when the state was last read.
    pub(crate) fn load(&mut self, task_priority: u8, in_service: [u64; 4]) -> Option<u16> {
        // The processor priority is computed by the entry (section 27.3.2.5).
        self.set(register::TASK_PRIORITY, u32::from(task_priority));
        let blank = core::mem::replace(&mut self.blank, false);
        let served = highest(in_service);
        if blank && served == 0 {
            return None;
        }
        self.set_vectors(register::REQUESTS, [0; 4]);
        self.set_vectors(register::IN_SERVICE, in_service);
        Some(status(0, served))
    }

    /// Reads the whole state, which belongs to this guest interrupt status: that is zero where a set is empty, as
    /// most are most of the time.
    pub(crate) fn state(&mut self, status: u16) -> ApicState {
        let [requested, in_service] = status.to_le_bytes();
        self.blank = status == 0;
        let vectors = |highest, first| {
            if highest == 0 {
                [0; 4]
            } else {
                self.vectors(first)
            }
        };
        ApicState {
            task_priority: self.get(register::TASK_PRIORITY) as u8,
            requests: vectors(requested, register::REQUESTS),
            in_service: vectors(in_service, register::IN_SERVICE),
        }
    }

    /// Adds a request, if its priority lets it be delivered at once; returns the guest interrupt status that `now`
    /// becomes by that.
    pub(crate) fn request(&mut self, vector: u8, now: u16) -> Option<u16> {
        let [requested, in_service] = now.to_le_bytes();
        let priority = in_service.max(self.get(register::TASK_PRIORITY) as u8);
        if requested != 0 || vector >> 4 <= priority >> 4 {
            return None;
        }
        let at = register::REQUESTS + register::STRIDE * usize::from(vector >> 5);
        self.set(at, self.get(at) | 1 << (vector & 31));
        Some(status(vector, in_service))
    }

    fn vectors(&self, first: usize) -> [u64; 4] {
        core::array::from_fn(|word| {
            let [low, high] = places(first, word);
            u64::from(self.get(low)) | u64::from(self.get(high)) << 32
        })
    }

    fn set_vectors(&mut self, first: usize, vectors: [u64; 4]) {
        for (word, bits) in vectors.into_iter().enumerate() {
            let [low, high] = places(first, word);
            self.set(low, bits as u32);
            self.set(high, (bits >> 32) as u32);
        }
    }

    #[inline(always)]
    fn get(&self, offset: usize) -> u32 {
        let bytes = &self.page.bytes()[offset..offset + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    #[inline(always)]
    fn set(&mut self, offset: usize, value: u32) {
        self.page.bytes_mut()[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// Where the two registers of a word of a set are.
const fn places(first: usize, word: usize) -> [usize; 2] {
    let low = first + 2 * word * register::STRIDE;
    [low, low + register::STRIDE]
}

/// The guest interrupt status (section 25.4.2): the requesting vector (RVI) and the servicing one (SVI).
const fn status(requested: u8, in_service: u8) -> u16 {
    u16::from_le_bytes([requested, in_service])
}

/// The highest vector of a set; 0, which no interrupt has, for the empty set.
const fn highest(vectors: [u64; 4]) -> u8 {
    let mut word = vectors.len();
    while word > 0 {
        word -= 1;
        if vectors[word] != 0 {
            return (64 * word) as u8 + vectors[word].ilog2() as u8;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use vcpu::FrameSource;
    use vcpu::fake::Heap;

    fn page() -> VirtualApic {
        VirtualApic::new(Heap { left: 1 }.frame().unwrap())
    }

    fn set(words: [u64; 4]) -> BTreeSet<u8> {
        (0..=255)
            .filter(|vector| words[usize::from(vector / 64)] >> (vector % 64) & 1 != 0)
            .collect()
    }

    /// Sets of vectors that interrupts may have; the empty one is not rare.
    fn words() -> impl Strategy<Value = [u64; 4]> {
        let word = || prop_oneof![2 => Just(0), 1 => any::<u64>()];
        [word(), word(), word(), word()]
            .prop_map(|[first, second, third, last]| [first & !0xffff, second, third, last])
    }

    /// The vectors of a register on the page, found the long way.
    fn on_page(apic: &VirtualApic, register: usize) -> BTreeSet<u8> {
        (0..=255)
            .filter(|vector| {
                let byte = register + usize::from(vector / 32) * 16 + usize::from(vector % 32 / 8);
                apic.page.bytes()[byte] >> (vector % 8) & 1 != 0
            })
            .collect()
    }

    fn highest_of(set: &BTreeSet<u8>) -> u8 {
        set.last().copied().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn a_state_lies_on_the_page_as_the_manual_says(
            request: u8,
            in_service in words(),
            task_priority: u8,
            other in words(),
            taken: bool,
        ) {
            let mut apic = page();
            // Something else was there before, and taken or not.
            let before = apic.load(!task_priority, other).unwrap_or(0);
            if taken {
                let expected = ApicState { task_priority: !task_priority, requests: [0; 4], in_service: other };
                prop_assert_eq!(apic.state(before), expected);
            }
            let mut status = apic.load(task_priority, in_service).unwrap_or(0);
            let served = highest_of(&set(in_service));
            prop_assert_eq!(status, u16::from(served) << 8);
            let mut requests = BTreeSet::new();
            let fits = request / 16 > task_priority / 16 && request / 16 > served / 16;
            let after = apic.request(request, status);
            prop_assert_eq!(after.is_some(), fits);
            if let Some(after) = after {
                requests.insert(request);
                status = after;
                // Only one at a time.
                prop_assert_eq!(apic.request(255, status), None);
            }
            prop_assert_eq!(apic.page.bytes()[0x80], task_priority);
            prop_assert_eq!(on_page(&apic, 0x200), requests.clone());
            prop_assert_eq!(on_page(&apic, 0x100), set(in_service));
            prop_assert_eq!(status & 0xff, u16::from(highest_of(&requests)));
            prop_assert_eq!(status >> 8, u16::from(served));
            let state = apic.state(status);
            prop_assert_eq!((state.task_priority, state.in_service), (task_priority, in_service));
            prop_assert_eq!(set(state.requests), requests);
            // Reads of 64 bits by the guest find zero in the upper half, and nothing else is touched.
            let mut registers = vec![0x80];
            registers.extend((0x10..0x18).chain(0x20..0x28).map(|index| index * 16));
            for (at, byte) in apic.page.bytes().iter().enumerate() {
                prop_assert!(*byte == 0 || registers.contains(&(at & !3)), "{at:#x}");
            }
        }
    }

    #[test]
    fn the_status_is_written_unless_it_is_zero_already() {
        let mut apic = page();
        assert_eq!(apic.load(0x20, [0; 4]), None);
        // The guest has run: nothing is known.
        assert_eq!(apic.load(0x20, [0; 4]), Some(0));
        let _ = apic.state(0x3000);
        assert_eq!(apic.load(0x20, [0, 1, 0, 0]), Some(0x4000));
        let _ = apic.state(0);
        assert_eq!(apic.load(0x20, [0; 4]), None);
    }

    #[test]
    fn the_empty_set_has_no_vector() {
        assert_eq!(highest([0; 4]), 0);
        assert_eq!(highest([0, 0, 0, 1 << 63]), 255);
        assert_eq!(highest([1 << 16, 1, 0, 0]), 64);
    }
}

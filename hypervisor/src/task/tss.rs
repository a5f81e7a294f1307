//! The task-state segment (Intel SDM volume 3, figures 8-2 and 8-10).

use core::ops::Range;

/// EFLAGS bits.
pub(crate) mod flag {
    /// The task was called by the one that its TSS links to.
    pub(crate) const NESTED: u32 = 1 << 14;
    /// An instruction breakpoint is ignored once.
    pub(crate) const RESUME: u32 = 1 << 16;
    /// Virtual-8086 mode.
    pub(crate) const VIRTUAL_8086: u32 = 1 << 17;
}

/// Where ESP is among the general registers.
pub(super) const ESP: usize = 4;

/// What a task switch saves and loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) eip: u32,
    pub(crate) eflags: u32,
    /// EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI.
    pub(crate) gprs: [u32; 8],
    /// ES, CS, SS, DS, FS, GS.
    pub(crate) selectors: [u16; 6],
    /// LDTR; loaded, never saved.
    pub(crate) local_table: u16,
    /// CR3, where the TSS has it; loaded, never saved.
    pub(crate) cr3: Option<u32>,
    /// The task begins with a debug exception; loaded, never saved.
    pub(crate) trap: bool,
}

impl Registers {
    pub(crate) const fn is_virtual_8086(&self) -> bool {
        self.eflags & flag::VIRTUAL_8086 != 0
    }

    pub(crate) const fn privilege_level(&self) -> u8 {
        if self.is_virtual_8086() {
            3
        } else {
            self.selectors[1] as u8 & 3
        }
    }
}

/// The two layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Of the 80286.
    Narrow,
    /// Of the 80386.
    Wide,
}

impl Format {
    /// Bytes of the larger layout.
    pub(super) const LARGEST: usize = 104;

    /// The layout that a descriptor with these access rights stands for, busy or not.
    pub(super) const fn of(access: u32) -> Option<Self> {
        /// The type without its busy bit, and the bit that system descriptors lack.
        const KIND: u32 = 0b1_1101;
        match access & KIND {
            0b0001 => Some(Self::Narrow),
            0b1001 => Some(Self::Wide),
            _ => None,
        }
    }

    /// In bytes; the segment must be as large.
    pub(super) const fn size(self) -> u32 {
        match self {
            Self::Narrow => 44,
            Self::Wide => Self::LARGEST as u32,
        }
    }

    /// The bytes that saving a task may change: from EIP to the last segment register.
    pub(super) const fn saved(self) -> Range<u32> {
        match self {
            Self::Narrow => 14..42,
            Self::Wide => 32..94,
        }
    }

    /// Puts a task into the bytes of [`Format::saved`]. What is reserved stays.
    pub(super) fn save(self, registers: &Registers, bytes: &mut [u8]) {
        let Registers { eip, eflags, .. } = *registers;
        let words = [eip, eflags].into_iter().chain(registers.gprs);
        let size = self.word();
        let selectors = match self {
            Self::Narrow => &registers.selectors[..4],
            Self::Wide => &registers.selectors[..],
        };
        let mut slots = bytes.chunks_mut(size);
        for (value, slot) in words.zip(&mut slots) {
            slot.copy_from_slice(&value.to_le_bytes()[..size]);
        }
        for (selector, slot) in selectors.iter().zip(slots) {
            slot[..2].copy_from_slice(&selector.to_le_bytes());
        }
    }

    /// Reads a task from all the bytes of a TSS. The narrow layout has no upper halves of general
    /// registers, no FS, no GS and no CR3; the first three become zero.
    pub(super) fn load(self, bytes: &[u8]) -> Registers {
        let half = |at: usize| match bytes.get(at..at + 2) {
            Some(&[low, high]) => u16::from_le_bytes([low, high]),
            _ => 0,
        };
        let size = self.word();
        let word = |at: usize| {
            let high = if size == 4 { half(at + 2) } else { 0 };
            u32::from(half(at)) | u32::from(high) << 16
        };
        let start = self.saved().start as usize;
        let gprs = start + 2 * size;
        let selectors = gprs + 8 * size;
        let mut registers = Registers {
            eip: word(start),
            eflags: word(start + size),
            ..Registers::default()
        };
        for (index, register) in registers.gprs.iter_mut().enumerate() {
            *register = word(gprs + index * size);
        }
        let present = match self {
            Self::Narrow => 4,
            Self::Wide => 6,
        };
        for (index, selector) in registers.selectors.iter_mut().take(present).enumerate() {
            *selector = half(selectors + index * size);
        }
        registers.local_table = half(selectors + present * size);
        if self == Self::Wide {
            registers.cr3 = Some(word(28));
            registers.trap = half(100) & 1 != 0;
        }
        registers
    }

    /// Bytes of a slot.
    const fn word(self) -> usize {
        match self {
            Self::Narrow => 2,
            Self::Wide => 4,
        }
    }
}

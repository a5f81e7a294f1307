//! Where stacks lie: a region of their own, with an unmapped page below each.

/// Start of the region.
const REGION: u64 = 0xffff_c000_0000_0000;
/// Address space per processor.
const PER_CPU: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// A processor's stacks, by purpose. The order is their order in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Everything but the following.
    Main,
    /// Non-maskable interrupts.
    Nmi,
    /// Double faults, as after an overflow of the main stack.
    DoubleFault,
    /// Machine checks.
    MachineCheck,
}

impl Purpose {
    pub(super) const ALL: [Self; 4] =
        [Self::Main, Self::Nmi, Self::DoubleFault, Self::MachineCheck];

    /// Usable bytes.
    const fn size(self) -> u64 {
        match self {
            Self::Main => 64 * 1024,
            _ => 16 * 1024,
        }
    }
}

/// The stacks of one processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stacks {
    cpu: u64,
}

impl Stacks {
    pub(super) const fn of(cpu: usize) -> Self {
        Self { cpu: cpu as u64 }
    }

    /// First usable byte and the end of a stack; the page below the first byte is the guard.
    pub(super) fn range(self, purpose: Purpose) -> core::ops::Range<u64> {
        let mut start = REGION + self.cpu * PER_CPU + PAGE;
        for earlier in Purpose::ALL
            .into_iter()
            .take_while(|earlier| *earlier != purpose)
        {
            start += earlier.size() + PAGE;
        }
        start..start + purpose.size()
    }

    /// Where the stack pointer starts.
    pub(super) fn top(self, purpose: Purpose) -> u64 {
        self.range(purpose).end
    }
}

//! IA32_APIC_BASE and the modes it selects (SDM 11.4.4, 11.12.1, 11.12.5).

use super::Fault;

const BOOTSTRAP: u64 = 1 << 8;
const X2APIC: u64 = 1 << 10;
const ENABLE: u64 = 1 << 11;
/// Where the page is after a reset.
const PAGE: u64 = 0xFEE0_0000;
const PAGE_MASK: u64 = !0xFFF;

/// The mode of a local APIC.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As if there were none.
    Disabled,
    /// Registers are memory.
    XApic,
    /// Registers are MSRs.
    X2Apic,
}

/// The MSR. Never invalid: x2APIC mode without the enable bit does not exist.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Base(u64);

impl Base {
    pub(super) const fn reset(bootstrap: bool) -> Self {
        Self(PAGE | ENABLE | if bootstrap { BOOTSTRAP } else { 0 })
    }

    /// A value of the MSR; a fault if it is none.
    pub(super) fn decode(value: u64, physical_bits: u8, x2apic: bool) -> Result<Self, Fault> {
        let space = 1u64
            .checked_shl(u32::from(physical_bits))
            .map_or(u64::MAX, |size| size - 1);
        let mut known = BOOTSTRAP | ENABLE | (PAGE_MASK & space);
        if x2apic {
            known |= X2APIC;
        }
        if value & !known != 0 || value & (ENABLE | X2APIC) == X2APIC {
            return Err(Fault);
        }
        Ok(Self(value))
    }

    /// What a write makes of the MSR: x2APIC mode is entered from xAPIC mode only, and left for disabled only (SDM
    /// figure 11-27).
    pub(super) fn change(self, to: Self) -> Result<Self, Fault> {
        match (self.mode(), to.mode()) {
            (Mode::Disabled, Mode::X2Apic) | (Mode::X2Apic, Mode::XApic) => Err(Fault),
            _ => Ok(to),
        }
    }

    pub(super) const fn value(self) -> u64 {
        self.0
    }

    pub(super) const fn bootstrap(self) -> bool {
        self.0 & BOOTSTRAP != 0
    }

    pub(super) const fn page(self) -> u64 {
        self.0 & PAGE_MASK
    }

    #[inline]
    pub(super) const fn mode(self) -> Mode {
        if self.0 & X2APIC != 0 {
            Mode::X2Apic
        } else if self.0 & ENABLE != 0 {
            Mode::XApic
        } else {
            Mode::Disabled
        }
    }
}

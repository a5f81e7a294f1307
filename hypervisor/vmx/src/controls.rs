//! VM-execution, VM-exit and VM-entry controls (Intel SDM volume 3, sections 25.6 to 25.8).

use bitflags::bitflags;

bitflags! {
    /// Pin-based VM-execution controls (table 25-5).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PinControls: u32 {
        /// External interrupts cause VM exits.
        const EXTERNAL_INTERRUPT_EXITING = 1 << 0;
        /// Non-maskable interrupts cause VM exits.
        const NMI_EXITING = 1 << 3;
        /// NMI blocking is tracked for the guest, not the processor.
        const VIRTUAL_NMIS = 1 << 5;
        /// The VMX-preemption timer counts down in the guest.
        const PREEMPTION_TIMER = 1 << 6;
        /// Posted interrupts are processed.
        const POSTED_INTERRUPTS = 1 << 7;
        const _ = !0;
    }

    /// Primary processor-based VM-execution controls (table 25-6).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PrimaryControls: u32 {
        /// Exit as soon as the guest can take an interrupt.
        const INTERRUPT_WINDOW = 1 << 2;
        /// The TSC offset applies to the guest's reads.
        const TSC_OFFSETTING = 1 << 3;
        /// HLT exits.
        const HLT_EXITING = 1 << 7;
        /// INVLPG exits.
        const INVLPG_EXITING = 1 << 9;
        /// MWAIT exits.
        const MWAIT_EXITING = 1 << 10;
        /// RDPMC exits.
        const RDPMC_EXITING = 1 << 11;
        /// RDTSC exits.
        const RDTSC_EXITING = 1 << 12;
        /// Writes of CR3 exit.
        const CR3_LOAD_EXITING = 1 << 15;
        /// Reads of CR3 exit.
        const CR3_STORE_EXITING = 1 << 16;
        /// Writes of CR8 exit.
        const CR8_LOAD_EXITING = 1 << 19;
        /// Reads of CR8 exit.
        const CR8_STORE_EXITING = 1 << 20;
        /// The virtual task-priority register is used.
        const TPR_SHADOW = 1 << 21;
        /// Exit as soon as the guest can take an NMI.
        const NMI_WINDOW = 1 << 22;
        /// Debug-register accesses exit.
        const MOV_DR_EXITING = 1 << 23;
        /// Every I/O instruction exits.
        const UNCONDITIONAL_IO_EXITING = 1 << 24;
        /// The I/O bitmaps decide which ports exit.
        const IO_BITMAPS = 1 << 25;
        /// Exit after each guest instruction.
        const MONITOR_TRAP_FLAG = 1 << 27;
        /// The MSR bitmap decides which MSRs exit.
        const MSR_BITMAPS = 1 << 28;
        /// MONITOR exits.
        const MONITOR_EXITING = 1 << 29;
        /// PAUSE exits.
        const PAUSE_EXITING = 1 << 30;
        /// The secondary controls are used.
        const SECONDARY_CONTROLS = 1 << 31;
        const _ = !0;
    }

    /// Secondary processor-based VM-execution controls (table 25-7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SecondaryControls: u32 {
        /// Accesses to the APIC page are virtualized.
        const VIRTUALIZE_APIC = 1 << 0;
        /// Extended page tables translate guest-physical addresses.
        const EPT = 1 << 1;
        /// LGDT, LIDT, LLDT, LTR and their stores exit.
        const DESCRIPTOR_TABLE_EXITING = 1 << 2;
        /// RDTSCP works in the guest.
        const RDTSCP = 1 << 3;
        /// x2APIC MSRs are virtualized.
        const VIRTUALIZE_X2APIC = 1 << 4;
        /// Cached translations are tagged by a VPID.
        const VPID = 1 << 5;
        /// WBINVD exits.
        const WBINVD_EXITING = 1 << 6;
        /// The guest may run in real mode and without paging.
        const UNRESTRICTED_GUEST = 1 << 7;
        /// APIC registers are virtualized.
        const APIC_REGISTER_VIRTUALIZATION = 1 << 8;
        /// Virtual interrupts are delivered by the processor.
        const VIRTUAL_INTERRUPT_DELIVERY = 1 << 9;
        /// A loop around PAUSE exits.
        const PAUSE_LOOP_EXITING = 1 << 10;
        /// INVPCID works in the guest.
        const INVPCID = 1 << 12;
        /// VM functions are available.
        const VM_FUNCTIONS = 1 << 13;
        /// Page-modification logging.
        const PML = 1 << 17;
        /// XSAVES and XRSTORS work in the guest.
        const XSAVES = 1 << 20;
        /// The TSC multiplier applies to the guest's reads.
        const TSC_SCALING = 1 << 25;
        /// Those that let the processor keep the interrupts of a local APIC in x2APIC mode.
        const APIC_VIRTUALIZATION = Self::VIRTUALIZE_X2APIC.bits()
            | Self::APIC_REGISTER_VIRTUALIZATION.bits()
            | Self::VIRTUAL_INTERRUPT_DELIVERY.bits();
        const _ = !0;
    }

    /// VM-exit controls (table 25-13).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ExitControls: u32 {
        /// DR7 and IA32_DEBUGCTL are saved.
        const SAVE_DEBUG = 1 << 2;
        /// The host runs in 64-bit mode.
        const HOST_64_BIT = 1 << 9;
        /// The interrupt controller is acknowledged on an external-interrupt exit.
        const ACKNOWLEDGE_INTERRUPT = 1 << 15;
        /// IA32_PAT is saved.
        const SAVE_PAT = 1 << 18;
        /// IA32_PAT is loaded.
        const LOAD_PAT = 1 << 19;
        /// IA32_EFER is saved.
        const SAVE_EFER = 1 << 20;
        /// IA32_EFER is loaded.
        const LOAD_EFER = 1 << 21;
        /// The preemption timer's value is saved.
        const SAVE_PREEMPTION_TIMER = 1 << 22;
        const _ = !0;
    }

    /// VM-entry controls (table 25-15).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EntryControls: u32 {
        /// DR7 and IA32_DEBUGCTL are loaded.
        const LOAD_DEBUG = 1 << 2;
        /// The guest is in IA-32e mode.
        const IA32E_GUEST = 1 << 9;
        /// IA32_PAT is loaded.
        const LOAD_PAT = 1 << 14;
        /// IA32_EFER is loaded.
        const LOAD_EFER = 1 << 15;
        const _ = !0;
    }
}

/// What a capability MSR says of one group of controls (Intel SDM volume 3, appendix A.3): a bit
/// of the low half must be one, a bit that is zero in the high half must be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    must_be_one: u32,
    may_be_one: u32,
}

impl Allowed {
    /// Decodes a capability MSR.
    pub(crate) const fn from_msr(value: u64) -> Self {
        Self {
            must_be_one: value as u32,
            may_be_one: (value >> 32) as u32,
        }
    }

    /// The value to write for `required` and as much of `wanted` as the processor has; or the
    /// required bits that it lacks.
    pub(crate) const fn mask(self, required: u32, wanted: u32) -> Result<u32, u32> {
        let missing = required & !self.may_be_one;
        if missing != 0 {
            return Err(missing);
        }
        Ok((required | wanted | self.must_be_one) & self.may_be_one)
    }

    /// Whether these bits can be both set and clear.
    pub(crate) const fn is_free(self, bits: u32) -> bool {
        bits & self.may_be_one & !self.must_be_one == bits
    }
}

#[cfg(test)]
mod tests {
    use super::Allowed;
    use proptest::prelude::*;

    #[test]
    fn required_bits_that_are_absent_are_named() {
        let allowed = Allowed::from_msr(0x0000_00ff_0000_0016);
        assert_eq!(allowed.mask(0x101, 0), Err(0x100));
        assert_eq!(allowed.mask(0x1, 0x300), Ok(0x17));
    }

    proptest! {
        #[test]
        fn a_masked_value_obeys_the_capability(one: u32, may: u32, required: u32, wanted: u32) {
            let may = may | one;
            let allowed = Allowed::from_msr((u64::from(may) << 32) | u64::from(one));
            match allowed.mask(required, wanted) {
                Ok(value) => {
                    prop_assert_eq!(value & one, one);
                    prop_assert_eq!(value & !may, 0);
                    prop_assert_eq!(value & required, required);
                    prop_assert_eq!(value & !(required | wanted | one), 0);
                    prop_assert!(!allowed.is_free(required) || one & required == 0);
                }
                Err(missing) => prop_assert_eq!(missing, required & !may),
            }
        }
    }
}

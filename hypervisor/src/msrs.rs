//! What RDMSR and WRMSR do in a guest: one readable table. MSRs that the guest owns in the VMCS or VMCB or
//! in the processor (SYSENTER, SYSCALL, FS and GS bases, PAT, TSC_AUX) never get here.

use crate::machine::pvclock;

/// What an MSR access comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// The value.
    Value(u64),
    /// The guest's time-stamp counter.
    Tsc,
    /// IA32_EFER.
    Efer,
    /// One of the local APIC's, if there is one.
    LocalApic,
    /// One of the paravirtual clock's, if there is one.
    Clock,
    /// #GP(0).
    Fault,
}

/// What an MSR write comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// Accepted without an effect.
    Ignore,
    /// Sets the guest's time-stamp counter.
    Tsc,
    /// Sets IA32_EFER, if the value is one that it takes.
    Efer,
    /// One of the local APIC's, if there is one.
    LocalApic,
    /// One of the paravirtual clock's, if there is one.
    Clock,
    /// #GP(0).
    Fault,
}

const TSC: u32 = 0x10;
const APIC_BASE: u32 = 0x1b;
const TSC_DEADLINE: u32 = 0x6e0;
const X2APIC_FIRST: u32 = 0x800;
const X2APIC_SPURIOUS: u32 = 0x80f;
const X2APIC_LAST: u32 = 0x8ff;
const PLATFORM_ID: u32 = 0x17;
const BIOS_SIGN_ID: u32 = 0x8b;
const MISC_ENABLE: u32 = 0x1a0;
const XSS: u32 = 0xda0;
const EFER: u32 = 0xc000_0080;
/// AMD's northbridge configuration.
const NB_CFG: u32 = 0xc001_001f;

/// IA32_MISC_ENABLE: fast strings, and branch trace and PEBS unavailable.
const MISC_ENABLE_VALUE: u64 = 1 | (1 << 11) | (1 << 12);

#[inline(always)]
pub(crate) fn read(msr: u32) -> Read {
    match msr {
        TSC => Read::Tsc,
        // A PC's kernel reads these without asking CPUID; zero says "nothing special".
        PLATFORM_ID | BIOS_SIGN_ID | NB_CFG => Read::Value(0),
        MISC_ENABLE => Read::Value(MISC_ENABLE_VALUE),
        XSS => Read::Value(0),
        EFER => Read::Efer,
        APIC_BASE | TSC_DEADLINE | X2APIC_FIRST..=X2APIC_LAST => Read::LocalApic,
        pvclock::WALL_CLOCK..=pvclock::LAST => Read::Clock,
        _ => Read::Fault,
    }
}

pub(crate) fn write(msr: u32, value: u64) -> Write {
    match msr {
        TSC => Write::Tsc,
        // Written with zero before CPUID to make the processor report its microcode revision.
        BIOS_SIGN_ID => Write::Ignore,
        MISC_ENABLE => Write::Ignore,
        // Linux asks AMD's northbridge for ports that reach all of PCI's configuration space.
        NB_CFG => Write::Ignore,
        // No supervisor state components are offered.
        XSS if value == 0 => Write::Ignore,
        EFER => Write::Efer,
        APIC_BASE | TSC_DEADLINE | X2APIC_FIRST..=X2APIC_LAST => Write::LocalApic,
        pvclock::WALL_CLOCK..=pvclock::LAST => Write::Clock,
        _ => Write::Fault,
    }
}

/// Whether a write of this MSR can change the mode of a local APIC, or whether it takes interrupts.
pub(crate) const fn sets_apic_mode(msr: u32) -> bool {
    matches!(msr, APIC_BASE | X2APIC_SPURIOUS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_msrs_fault() {
        assert_eq!(read(0x4fff_fff0), Read::Fault);
        assert_eq!(write(0x4fff_fff0, 0), Write::Fault);
        // Feature control and the VMX capabilities are not there: CPUID hides VT-x.
        assert!(
            (0x480..=0x493)
                .chain([0x3a])
                .all(|msr| read(msr) == Read::Fault)
        );
        assert_eq!(write(XSS, 1), Write::Fault);
        assert_eq!(write(PLATFORM_ID, 0), Write::Fault);
    }
}

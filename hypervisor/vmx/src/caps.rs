//! What the processor's VT-x can do, and whether that is enough (Intel SDM volume 3, appendix A).

use crate::controls::{
    Allowed, EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls,
};
use alloc::string::String;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::fmt;
use vcpu::msr::{self, Msr};
use vcpu::{AddressWidths, Barriers, Encoding, Format};

/// Why this processor cannot run guests. The message is one sentence for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// CPUID reports no VMX.
    NoVmx,
    /// The firmware locked VT-x off in IA32_FEATURE_CONTROL.
    LockedOff,
    /// VT-x is there, but without extended page tables.
    NoEpt,
    /// VT-x is there, but without unrestricted guest mode.
    NoUnrestrictedGuest,
    /// EPT lacks a property that the shell relies on.
    Ept(&'static str),
    /// A control that the shell relies on cannot be set: the group's name and the missing bits.
    Control(&'static str, u32),
    /// The processor has no XSAVE and FXSAVE alone is not supported.
    NoXsave,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NEEDS: &str = "Understudy needs Intel VT-x with EPT and unrestricted guest";
        match self {
            Self::NoVmx => write!(
                f,
                "this processor has no VT-x (CPUID reports no VMX): {NEEDS}"
            ),
            Self::LockedOff => write!(
                f,
                "VT-x is locked off by the firmware (IA32_FEATURE_CONTROL): enable virtualization in the \
                 firmware set-up and power-cycle the board; {NEEDS}"
            ),
            Self::NoEpt => write!(
                f,
                "this processor's VT-x has no EPT (extended page tables): {NEEDS}"
            ),
            Self::NoUnrestrictedGuest => {
                write!(
                    f,
                    "this processor's VT-x has EPT but no unrestricted guest mode: {NEEDS}"
                )
            }
            Self::Ept(what) => write!(f, "this processor's EPT lacks {what}: {NEEDS}"),
            Self::Control(group, bits) => {
                write!(
                    f,
                    "this processor's VT-x lacks required {group} controls {bits:#x}: {NEEDS}"
                )
            }
            Self::NoXsave => write!(
                f,
                "this processor has no XSAVE; Understudy needs it to keep guests' FPU state"
            ),
        }
    }
}

impl core::error::Error for Unsupported {}

/// The facts of one processor's VT-x that the shell uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) revision: u32,
    pub(crate) pin: PinControls,
    pub(crate) primary: PrimaryControls,
    pub(crate) secondary: SecondaryControls,
    pub(crate) exit: ExitControls,
    pub(crate) entry: EntryControls,
    pub(crate) cr0_fixed0: u64,
    pub(crate) cr0_fixed1: u64,
    pub(crate) cr4_fixed0: u64,
    pub(crate) cr4_fixed1: u64,
    /// The preemption timer counts down once per `1 << preemption_timer_shift` TSC ticks.
    pub(crate) preemption_timer_shift: u8,
    /// What EPT can do.
    pub(crate) tables: Format,
    /// INVVPID of a single context works.
    pub(crate) invvpid: bool,
    /// The processor can keep the interrupts of a local APIC in x2APIC mode by itself.
    pub(crate) apic: bool,
    pub(crate) widths: AddressWidths,
    pub(crate) barriers: Barriers,
}

/// IA32_VMX_EPT_VPID_CAP (Intel SDM volume 3, appendix A.10).
mod ept_cap {
    pub(super) const WALK_4: u64 = 1 << 6;
    pub(super) const WRITE_BACK: u64 = 1 << 14;
    pub(super) const PAGE_2M: u64 = 1 << 16;
    pub(super) const PAGE_1G: u64 = 1 << 17;
    pub(super) const INVEPT: u64 = 1 << 20;
    pub(super) const ACCESSED_DIRTY: u64 = 1 << 21;
    pub(super) const INVEPT_SINGLE: u64 = 1 << 25;
    pub(super) const INVVPID: u64 = 1 << 32;
    pub(super) const INVVPID_SINGLE: u64 = 1 << 41;
}

/// IA32_FEATURE_CONTROL: the register may no longer be written.
const FEATURE_CONTROL_LOCKED: u64 = 1 << 0;
/// IA32_FEATURE_CONTROL: VMXON works outside SMX operation.
const FEATURE_CONTROL_VMXON: u64 = 1 << 2;
/// IA32_VMX_BASIC: the TRUE capability MSRs exist.
const BASIC_TRUE_CONTROLS: u64 = 1 << 55;

impl Capabilities {
    /// Whether CPUID reports VT-x at all.
    pub(crate) fn has_vmx() -> bool {
        const VMX: u32 = 1 << 5;
        __cpuid(1).ecx & VMX != 0
    }

    /// Reads what this processor offers and enables VT-x in IA32_FEATURE_CONTROL where the firmware
    /// left that open.
    ///
    /// # Errors
    ///
    /// [`Unsupported`] names the first thing that is missing.
    pub(crate) fn probe() -> Result<Self, Unsupported> {
        if !Self::has_vmx() {
            return Err(Unsupported::NoVmx);
        }
        enable_vmxon()?;
        // SAFETY: CPUID reports VMX, so the basic capability MSRs exist (appendix A.1).
        let basic = unsafe { msr::read(Msr::VmxBasic) };
        let true_controls = basic & BASIC_TRUE_CONTROLS != 0;
        let allowed = |plain: Msr, precise: Msr| {
            // SAFETY: the plain MSR exists with VMX, the precise one where bit 55 of the basic MSR says so.
            Allowed::from_msr(unsafe { msr::read(if true_controls { precise } else { plain }) })
        };

        let allowed_primary = allowed(Msr::VmxProcbasedCtls, Msr::VmxTrueProcbasedCtls);
        let primary =
            required("processor-based", allowed_primary, PRIMARY.bits(), 0).map_err(|error| {
                match error {
                    // A processor without secondary controls has neither EPT nor unrestricted guest.
                    Unsupported::Control(_, bits)
                        if bits & PrimaryControls::SECONDARY_CONTROLS.bits() != 0 =>
                    {
                        Unsupported::NoEpt
                    }
                    other => other,
                }
            })?;
        // SAFETY: the secondary controls can be activated, so their capability MSR exists.
        let allowed_secondary = Allowed::from_msr(unsafe { msr::read(Msr::VmxProcbasedCtls2) });
        let secondary = required(
            "secondary",
            allowed_secondary,
            SECONDARY.bits(),
            SECONDARY_WANTED.bits(),
        )
        .map_err(|error| match error {
            Unsupported::Control(_, bits) if bits & SecondaryControls::EPT.bits() != 0 => {
                Unsupported::NoEpt
            }
            Unsupported::Control(_, bits)
                if bits & SecondaryControls::UNRESTRICTED_GUEST.bits() != 0 =>
            {
                Unsupported::NoUnrestrictedGuest
            }
            other => other,
        })?;
        let pin = allowed(Msr::VmxPinbasedCtls, Msr::VmxTruePinbasedCtls);
        let pin = required("pin-based", pin, PIN.bits(), 0)?;
        let exit = allowed(Msr::VmxExitCtls, Msr::VmxTrueExitCtls);
        let exit = required("VM-exit", exit, EXIT.bits(), 0)?;
        let entry = allowed(Msr::VmxEntryCtls, Msr::VmxTrueEntryCtls);
        let entry = required("VM-entry", entry, ENTRY.bits(), 0)?;

        // SAFETY: EPT can be enabled, so its capability MSR exists; the others exist with VMX.
        let (ept, misc, cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1) = unsafe {
            (
                msr::read(Msr::VmxEptVpidCap),
                msr::read(Msr::VmxMisc),
                msr::read(Msr::VmxCr0Fixed0),
                msr::read(Msr::VmxCr0Fixed1),
                msr::read(Msr::VmxCr4Fixed0),
                msr::read(Msr::VmxCr4Fixed1),
            )
        };
        for (bit, name) in [
            (ept_cap::WALK_4, "four-level walks"),
            (ept_cap::WRITE_BACK, "write-back paging structures"),
            (ept_cap::INVEPT, "INVEPT"),
            (ept_cap::INVEPT_SINGLE, "single-context INVEPT"),
        ] {
            if ept & bit == 0 {
                return Err(Unsupported::Ept(name));
            }
        }
        if __cpuid(1).ecx & (1 << 26) == 0 {
            return Err(Unsupported::NoXsave);
        }
        Ok(Self {
            revision: basic as u32 & 0x7fff_ffff,
            pin: PinControls::from_bits_retain(pin),
            primary: PrimaryControls::from_bits_retain(primary),
            secondary: SecondaryControls::from_bits_retain(secondary),
            exit: ExitControls::from_bits_retain(exit),
            entry: EntryControls::from_bits_retain(entry),
            cr0_fixed0,
            cr0_fixed1,
            cr4_fixed0,
            cr4_fixed1,
            preemption_timer_shift: (misc & 0x1f) as u8,
            tables: Format {
                encoding: Encoding::Extended,
                pages_2m: ept & ept_cap::PAGE_2M != 0,
                pages_1g: ept & ept_cap::PAGE_1G != 0,
                accessed_dirty: ept & ept_cap::ACCESSED_DIRTY != 0,
                write_log: ept & ept_cap::ACCESSED_DIRTY != 0
                    && allowed_secondary.is_free(SecondaryControls::PML.bits()),
                large_executable: large_pages_are_safe(),
            },
            invvpid: ept & ept_cap::INVVPID != 0 && ept & ept_cap::INVVPID_SINGLE != 0,
            apic: allowed_primary.is_free(APIC_PRIMARY.bits())
                && allowed_secondary.is_free(SecondaryControls::APIC_VIRTUALIZATION.bits()),
            widths: AddressWidths::probe(),
            barriers: Barriers::probe(),
        })
    }

    /// What distinguishes this processor's VT-x from the least that is needed, in words.
    pub(crate) fn extras(&self) -> String {
        vcpu::listed(&[
            (self.tables.pages_2m, "2 MiB pages"),
            (self.tables.pages_1g, "1 GiB pages"),
            (self.tables.accessed_dirty, "accessed and dirty bits"),
            (self.tables.write_log, "page-modification log"),
            (self.secondary.contains(SecondaryControls::RDTSCP), "RDTSCP"),
            (
                self.secondary.contains(SecondaryControls::INVPCID),
                "INVPCID",
            ),
            (self.apic, "APIC virtualization"),
        ])
    }
}

fn leaf_7_edx() -> u32 {
    if __cpuid(0).eax < 7 {
        0
    } else {
        __cpuid_count(7, 0).edx
    }
}

/// Whether the processor does not die of a page that changes its size while its translation is cached for fetches
/// (CVE-2018-12207). IA32_ARCH_CAPABILITIES says so where the processor is immune; elsewhere it is not trusted.
fn large_pages_are_safe() -> bool {
    const ARCH_CAPABILITIES: u32 = 1 << 29;
    const PSCHANGE_MC_NO: u64 = 1 << 6;
    // SAFETY: CPUID reports the register.
    leaf_7_edx() & ARCH_CAPABILITIES != 0
        && unsafe { msr::read(Msr::ArchCapabilities) } & PSCHANGE_MC_NO != 0
}

const PIN: PinControls = PinControls::EXTERNAL_INTERRUPT_EXITING
    .union(PinControls::NMI_EXITING)
    .union(PinControls::VIRTUAL_NMIS)
    .union(PinControls::PREEMPTION_TIMER);
const PRIMARY: PrimaryControls = PrimaryControls::TSC_OFFSETTING
    .union(PrimaryControls::HLT_EXITING)
    .union(PrimaryControls::CR8_LOAD_EXITING)
    .union(PrimaryControls::CR8_STORE_EXITING)
    .union(PrimaryControls::RDPMC_EXITING)
    .union(PrimaryControls::MWAIT_EXITING)
    .union(PrimaryControls::MONITOR_EXITING)
    .union(PrimaryControls::IO_BITMAPS)
    .union(PrimaryControls::MSR_BITMAPS)
    .union(PrimaryControls::SECONDARY_CONTROLS);
/// What APIC virtualization turns on or off.
const APIC_PRIMARY: PrimaryControls = PrimaryControls::TPR_SHADOW
    .union(PrimaryControls::CR8_LOAD_EXITING)
    .union(PrimaryControls::CR8_STORE_EXITING);
const SECONDARY: SecondaryControls = SecondaryControls::EPT
    .union(SecondaryControls::VPID)
    .union(SecondaryControls::UNRESTRICTED_GUEST);
const SECONDARY_WANTED: SecondaryControls = SecondaryControls::RDTSCP
    .union(SecondaryControls::PAUSE_LOOP_EXITING)
    .union(SecondaryControls::INVPCID)
    .union(SecondaryControls::WBINVD_EXITING);
const EXIT: ExitControls = ExitControls::HOST_64_BIT
    .union(ExitControls::SAVE_DEBUG)
    .union(ExitControls::SAVE_PAT)
    .union(ExitControls::LOAD_PAT)
    .union(ExitControls::SAVE_EFER)
    .union(ExitControls::LOAD_EFER);
const ENTRY: EntryControls = EntryControls::LOAD_DEBUG
    .union(EntryControls::LOAD_PAT)
    .union(EntryControls::LOAD_EFER);

fn required(
    group: &'static str,
    allowed: Allowed,
    required: u32,
    wanted: u32,
) -> Result<u32, Unsupported> {
    allowed
        .mask(required, wanted)
        .map_err(|missing| Unsupported::Control(group, missing))
}

/// Makes sure that IA32_FEATURE_CONTROL lets VMXON through (Intel SDM volume 3, section 24.7).
fn enable_vmxon() -> Result<(), Unsupported> {
    // SAFETY: CPUID reports VMX, with which the register exists.
    let value = unsafe { msr::read(Msr::FeatureControl) };
    if value & FEATURE_CONTROL_LOCKED == 0 {
        // SAFETY: the register is unlocked; setting and locking the VMXON bit is what firmware does.
        unsafe {
            msr::write(
                Msr::FeatureControl,
                value | FEATURE_CONTROL_LOCKED | FEATURE_CONTROL_VMXON,
            )
        };
        Ok(())
    } else if value & FEATURE_CONTROL_VMXON == 0 {
        Err(Unsupported::LockedOff)
    } else {
        Ok(())
    }
}

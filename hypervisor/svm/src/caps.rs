//! What the processor's AMD-V can do, and whether that is enough (CPUID leaves 0x8000_0001 and 0x8000_000A; APM
//! volume 2, section 15.4).

use alloc::format;
use alloc::string::String;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::fmt;
use vcpu::msr::{self, Msr};
use vcpu::{AddressWidths, Barriers, Encoding, Format};
use x86_64::registers::control::Cr4Flags;

/// Why this processor cannot run guests. The message is one sentence for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// CPUID reports no SVM.
    NoSvm,
    /// The firmware disabled AMD-V in VM_CR.
    Disabled {
        /// And locked it, with a key perhaps.
        locked: bool,
    },
    /// AMD-V is there, but without nested paging.
    NoNestedPaging,
    /// There are no ASIDs for guests.
    NoAsids,
    /// The processor has no XSAVE and FXSAVE alone is not supported.
    NoXsave,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NEEDS: &str = "Understudy needs AMD-V with nested paging";
        match self {
            Self::NoSvm => write!(
                f,
                "this processor has no AMD-V (CPUID reports no SVM): {NEEDS}"
            ),
            Self::Disabled { locked } => write!(
                f,
                "AMD-V is disabled by the firmware (VM_CR.SVMDIS{}): enable virtualization (SVM) in the \
                 firmware set-up and power-cycle the board; {NEEDS}",
                if *locked { ", locked" } else { "" }
            ),
            Self::NoNestedPaging => write!(
                f,
                "this processor's AMD-V has no nested paging (CPUID reports no NP): {NEEDS}"
            ),
            Self::NoAsids => write!(
                f,
                "this processor's AMD-V has no address-space identifiers: {NEEDS}"
            ),
            Self::NoXsave => write!(
                f,
                "this processor has no XSAVE; Understudy needs it to keep guests' FPU state"
            ),
        }
    }
}

impl core::error::Error for Unsupported {}

/// The facts of one processor's AMD-V that the shell uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// ASIDs are below this number; 0 is the host's.
    pub(crate) asids: u32,
    /// VMRUN can drop the translations of one ASID.
    pub(crate) flush_by_asid: bool,
    /// Exits tell where the instruction ends.
    pub(crate) next_rip: bool,
    /// PAUSE exits after a number of executions in a short time.
    pub(crate) pause_filter: bool,
    /// INVLPGB and TLBSYNC exist.
    pub(crate) broadcasts: bool,
    /// EFER.AIBRSE exists: indirect branches of the host are not steered by its guests.
    pub(crate) automatic_ibrs: bool,
    pub(crate) rdtscp: bool,
    pub(crate) invpcid: bool,
    /// CR4 bits that guests may set.
    pub(crate) guest_cr4: u64,
    pub(crate) tables: Format,
    pub(crate) widths: AddressWidths,
    pub(crate) barriers: Barriers,
}

/// CPUID leaf 0x8000_000A, EDX.
mod feature {
    pub(super) const NESTED_PAGING: u32 = 1 << 0;
    pub(super) const NEXT_RIP: u32 = 1 << 3;
    pub(super) const FLUSH_BY_ASID: u32 = 1 << 6;
    pub(super) const PAUSE_FILTER: u32 = 1 << 10;
    pub(super) const PAUSE_THRESHOLD: u32 = 1 << 12;
}

impl Capabilities {
    /// Whether CPUID reports AMD-V at all.
    pub(crate) fn has_svm() -> bool {
        const SVM: u32 = 1 << 2;
        __cpuid(0x8000_0000).eax >= 0x8000_000a && __cpuid(0x8000_0001).ecx & SVM != 0
    }

    /// Reads what this processor offers.
    ///
    /// # Errors
    ///
    /// [`Unsupported`] names the first thing that is missing.
    pub(crate) fn probe() -> Result<Self, Unsupported> {
        const XSAVE: u32 = 1 << 26;
        const PAGES_1G: u32 = 1 << 26;
        const RDTSCP: u32 = 1 << 27;
        const INVPCID: u32 = 1 << 10;
        const INVLPGB: u32 = 1 << 3;
        const AUTOMATIC_IBRS: u32 = 1 << 8;
        if !Self::has_svm() {
            return Err(Unsupported::NoSvm);
        }
        // SAFETY: VM_CR exists on every processor with SVM.
        let control = VmControl(unsafe { msr::read(Msr::VmCr) });
        let leaf = __cpuid(0x8000_000a);
        control.check(leaf.edx)?;
        let has = |bits: u32| leaf.edx & bits == bits;
        if !has(feature::NESTED_PAGING) {
            return Err(Unsupported::NoNestedPaging);
        }
        if leaf.ebx < 2 {
            return Err(Unsupported::NoAsids);
        }
        if __cpuid(1).ecx & XSAVE == 0 {
            return Err(Unsupported::NoXsave);
        }
        let extended = __cpuid(0x8000_0001).edx;
        let last = __cpuid(0x8000_0000).eax;
        let leaf_8 = if last < 0x8000_0008 {
            0
        } else {
            __cpuid(0x8000_0008).ebx
        };
        let leaf_21 = if last < 0x8000_0021 {
            0
        } else {
            __cpuid(0x8000_0021).eax
        };
        let structured = if __cpuid(0).eax < 7 {
            [0; 2]
        } else {
            let leaf = __cpuid_count(7, 0);
            [leaf.ebx, leaf.ecx]
        };
        Ok(Self {
            asids: leaf.ebx,
            flush_by_asid: has(feature::FLUSH_BY_ASID),
            next_rip: has(feature::NEXT_RIP),
            pause_filter: has(feature::PAUSE_FILTER | feature::PAUSE_THRESHOLD),
            broadcasts: leaf_8 & INVLPGB != 0,
            automatic_ibrs: leaf_21 & AUTOMATIC_IBRS != 0,
            rdtscp: extended & RDTSCP != 0,
            invpcid: structured[0] & INVPCID != 0,
            guest_cr4: guest_cr4(__cpuid(1).ecx, structured),
            tables: Format {
                encoding: Encoding::Nested,
                pages_2m: true,
                pages_1g: extended & PAGES_1G != 0,
                accessed_dirty: true,
                write_log: false,
                large_executable: true,
            },
            widths: AddressWidths::probe(),
            barriers: Barriers::probe(),
        })
    }

    /// What distinguishes this processor's AMD-V from the least that is needed, in words.
    pub(crate) fn extras(&self) -> String {
        let features = vcpu::listed(&[
            (self.tables.pages_1g, "1 GiB pages"),
            (self.flush_by_asid, "flush by ASID"),
            (self.next_rip, "next RIP"),
            (self.pause_filter, "PAUSE filter"),
            (self.automatic_ibrs, "automatic IBRS"),
            (self.rdtscp, "RDTSCP"),
            (self.invpcid, "INVPCID"),
        ]);
        format!("{} ASIDs, {features}", self.asids)
    }
}

/// The CR4 bits that guests may set: those of every 64-bit processor, and those that CPUID reports in ECX of leaf 1, and
/// in EBX and ECX of leaf 7.
fn guest_cr4(leaf_1: u32, [ebx, ecx]: [u32; 2]) -> u64 {
    let always = Cr4Flags::VIRTUAL_8086_MODE_EXTENSIONS
        | Cr4Flags::PROTECTED_MODE_VIRTUAL_INTERRUPTS
        | Cr4Flags::TIMESTAMP_DISABLE
        | Cr4Flags::DEBUGGING_EXTENSIONS
        | Cr4Flags::PAGE_SIZE_EXTENSION
        | Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
        | Cr4Flags::MACHINE_CHECK_EXCEPTION
        | Cr4Flags::PAGE_GLOBAL
        | Cr4Flags::PERFORMANCE_MONITOR_COUNTER
        | Cr4Flags::OSFXSR
        | Cr4Flags::OSXMMEXCPT_ENABLE;
    let reported = [
        (leaf_1, 17, Cr4Flags::PCID),
        (leaf_1, 26, Cr4Flags::OSXSAVE),
        (ebx, 0, Cr4Flags::FSGSBASE),
        (ebx, 7, Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION),
        (ebx, 20, Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION),
        (ecx, 2, Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION),
        (ecx, 3, Cr4Flags::PROTECTION_KEY_USER),
    ];
    reported
        .into_iter()
        .filter(|(leaf, bit, _)| leaf & (1 << bit) != 0)
        .fold(always, |all, (_, _, flag)| all | flag)
        .bits()
}

/// VM_CR (APM volume 2, section 15.30.1).
#[derive(Clone, Copy, Debug)]
struct VmControl(u64);

impl VmControl {
    const LOCK: u64 = 1 << 3;
    const SVM_DISABLED: u64 = 1 << 4;

    /// Whether EFER.SVME can be set; `features` is what CPUID tells of AMD-V.
    fn check(self, features: u32) -> Result<(), Unsupported> {
        const SVM_LOCK: u32 = 1 << 2;
        if self.0 & Self::SVM_DISABLED == 0 {
            return Ok(());
        }
        let locked = self.0 & Self::LOCK != 0 || features & SVM_LOCK != 0;
        Err(Unsupported::Disabled { locked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_by_the_firmware_is_told() {
        assert_eq!(VmControl(0).check(0), Ok(()));
        assert_eq!(VmControl(1 << 3).check(4), Ok(()));
        let refused = VmControl(1 << 4 | 1 << 3).check(0).unwrap_err();
        assert_eq!(refused, Unsupported::Disabled { locked: true });
        assert!(refused.to_string().contains("VM_CR.SVMDIS, locked"));
        let refused = VmControl(1 << 4).check(0).unwrap_err();
        assert_eq!(refused, Unsupported::Disabled { locked: false });
    }
}

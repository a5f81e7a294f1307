//! Writing a VMCS from scratch (Intel SDM volume 3, chapter 27 lists what entry checks).

use crate::caps::Capabilities;
use crate::controls::EntryControls;
use crate::cpu::HostFields;
use crate::enter::exit_rip;
use crate::fields::{Field16, Field32, Field64, FieldNatural};
use crate::state::{Segment, SegmentRegister, StartState};
use crate::vmcs::{Current, VmcsError, vmx_instruction};
use core::arch::asm;
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};

/// CR0 bits that the guest sees but does not set: VMX demands NE, and CD and NW are not switched
/// by entry and exit, so a guest that disabled its caches would disable the host's.
pub(crate) const CR0_HOST: u64 = Cr0Flags::NUMERIC_ERROR.bits()
    | Cr0Flags::CACHE_DISABLE.bits()
    | Cr0Flags::NOT_WRITE_THROUGH.bits();

/// CR4 bits that the guest may set in the processor. It may also set MCE, which stays set beneath
/// it: a machine check in a guest without MCE would shut the board down. Every other bit is #GP.
pub(crate) const CR4_GUEST: u64 = Cr4Flags::VIRTUAL_8086_MODE_EXTENSIONS.bits()
    | Cr4Flags::PROTECTED_MODE_VIRTUAL_INTERRUPTS.bits()
    | Cr4Flags::TIMESTAMP_DISABLE.bits()
    | Cr4Flags::DEBUGGING_EXTENSIONS.bits()
    | Cr4Flags::PAGE_SIZE_EXTENSION.bits()
    | Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits()
    | Cr4Flags::PAGE_GLOBAL.bits()
    | Cr4Flags::PERFORMANCE_MONITOR_COUNTER.bits()
    | Cr4Flags::OSFXSR.bits()
    | Cr4Flags::OSXMMEXCPT_ENABLE.bits()
    | Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION.bits()
    | Cr4Flags::FSGSBASE.bits()
    | Cr4Flags::PCID.bits()
    | Cr4Flags::OSXSAVE.bits()
    | Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION.bits()
    | Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION.bits()
    | Cr4Flags::PROTECTION_KEY_USER.bits();

/// CR4 bits that stay set in the processor, whatever the guest sees.
pub(crate) const CR4_ALWAYS: u64 =
    Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS.bits() | Cr4Flags::MACHINE_CHECK_EXCEPTION.bits();

/// IA32_PAT after reset (Intel SDM volume 3, table 12-12).
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// The vector of #MC, the one exception that exits.
const MACHINE_CHECK: u32 = 18;

/// Addresses of the structures that a VMCS points to.
pub(crate) struct Tables {
    pub(crate) ept_pointer: u64,
    pub(crate) vpid: u16,
    pub(crate) tsc_offset: u64,
    pub(crate) io: (u64, u64),
    pub(crate) msrs: u64,
}

/// # Safety
///
/// The tables must be the vCPU's and live as long as the VMCS is used.
pub(crate) unsafe fn write_controls(
    vmcs: &Current,
    caps: &Capabilities,
    tables: &Tables,
) -> Result<(), VmcsError> {
    // SAFETY: controls masked by their capabilities; the tables are the caller's to vouch for.
    unsafe {
        vmcs.write32(Field32::PinControls, caps.pin.bits())?;
        vmcs.write32(Field32::PrimaryControls, caps.primary.bits())?;
        vmcs.write32(Field32::SecondaryControls, caps.secondary.bits())?;
        vmcs.write32(Field32::ExitControls, caps.exit.bits())?;
        vmcs.write32(Field32::EntryControls, caps.entry.bits())?;
        vmcs.write32(Field32::ExceptionBitmap, 1 << MACHINE_CHECK)?;
        for field in [
            Field32::PageFaultErrorCodeMask,
            Field32::PageFaultErrorCodeMatch,
            Field32::Cr3TargetCount,
            Field32::ExitMsrStoreCount,
            Field32::ExitMsrLoadCount,
            Field32::EntryMsrLoadCount,
            Field32::EntryInterruptionInfo,
        ] {
            vmcs.write32(field, 0)?;
        }
        vmcs.write64(Field64::IoBitmapA, tables.io.0)?;
        vmcs.write64(Field64::IoBitmapB, tables.io.1)?;
        vmcs.write64(Field64::MsrBitmap, tables.msrs)?;
        vmcs.write64(Field64::TscOffset, tables.tsc_offset)?;
        vmcs.write64(Field64::EptPointer, tables.ept_pointer)?;
        vmcs.write16(Field16::Vpid, tables.vpid)?;
        vmcs.write_natural(FieldNatural::Cr0Mask, CR0_HOST)?;
        vmcs.write_natural(FieldNatural::Cr4Mask, !CR4_GUEST)
    }
}

/// # Safety
///
/// `host` must be this processor's context, and `exit_rsp` the end of the register area that
/// entries of this VMCS use.
pub(crate) unsafe fn write_host_state(
    vmcs: &Current,
    host: &HostFields,
    exit_rsp: u64,
) -> Result<(), VmcsError> {
    /// The host selectors' RPL and TI must be zero (section 27.2.3).
    const RPL_TI: u16 = 0b111;
    // SAFETY: exits come back into exactly the context that is running now.
    unsafe {
        vmcs.write_natural(FieldNatural::HostCr0, host.cr0)?;
        vmcs.write_natural(FieldNatural::HostCr3, host.cr3)?;
        vmcs.write_natural(FieldNatural::HostCr4, host.cr4)?;
        vmcs.write16(Field16::HostCsSelector, host.cs & !RPL_TI)?;
        vmcs.write16(Field16::HostSsSelector, host.ss & !RPL_TI)?;
        for field in [
            Field16::HostDsSelector,
            Field16::HostEsSelector,
            Field16::HostFsSelector,
            Field16::HostGsSelector,
        ] {
            vmcs.write16(field, 0)?;
        }
        vmcs.write16(Field16::HostTrSelector, host.tables.tss_selector)?;
        vmcs.write_natural(FieldNatural::HostFsBase, host.fs_base)?;
        vmcs.write_natural(FieldNatural::HostGsBase, host.gs_base)?;
        vmcs.write_natural(FieldNatural::HostTrBase, host.tables.tss_base)?;
        vmcs.write_natural(FieldNatural::HostGdtrBase, host.tables.gdt_base)?;
        vmcs.write_natural(FieldNatural::HostIdtrBase, host.tables.idt_base)?;
        vmcs.write32(Field32::HostSysenterCs, 0)?;
        vmcs.write_natural(FieldNatural::HostSysenterEsp, 0)?;
        vmcs.write_natural(FieldNatural::HostSysenterEip, 0)?;
        vmcs.write64(Field64::HostPat, host.pat)?;
        vmcs.write64(Field64::HostEfer, host.efer)?;
        vmcs.write_natural(FieldNatural::HostRsp, exit_rsp)?;
        vmcs.write_natural(FieldNatural::HostRip, exit_rip())
    }
}

/// What distinguishes the modes in which vCPUs start.
struct Mode {
    code: Segment,
    data: Segment,
    /// As the guest sees it.
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: EferFlags,
    rip: u64,
    gdt: (u64, u32),
}

impl Mode {
    fn of(start: &StartState) -> Self {
        let protected = Cr0Flags::PROTECTED_MODE_ENABLE | Cr0Flags::EXTENSION_TYPE;
        match *start {
            StartState::RealMode { page } => Self {
                code: Segment::real_mode(u16::from(page) << 8),
                data: Segment::real_mode(0),
                cr0: (Cr0Flags::CACHE_DISABLE
                    | Cr0Flags::NOT_WRITE_THROUGH
                    | Cr0Flags::EXTENSION_TYPE)
                    .bits(),
                cr3: 0,
                cr4: 0,
                efer: EferFlags::empty(),
                rip: 0,
                gdt: (0, 0xffff),
            },
            StartState::Protected32 { eip, .. } => Self {
                code: Segment::flat_code_32(0x8),
                data: Segment::flat_data_32(0x10),
                cr0: protected.bits(),
                cr3: 0,
                cr4: 0,
                efer: EferFlags::empty(),
                rip: u64::from(eip),
                gdt: (0, 0xffff),
            },
            StartState::Long64 {
                rip,
                cr3,
                gdt_base,
                gdt_limit,
                code,
                data,
                ..
            } => Self {
                code: Segment::flat_code_64(code),
                data: Segment::flat_data_32(data),
                cr0: (protected | Cr0Flags::PAGING).bits(),
                cr3,
                cr4: Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits(),
                efer: EferFlags::LONG_MODE_ENABLE | EferFlags::LONG_MODE_ACTIVE,
                rip,
                gdt: (gdt_base, u32::from(gdt_limit)),
            },
        }
    }
}

/// # Safety
///
/// The VMCS must be one that is being set up, with its controls written.
pub(crate) unsafe fn write_guest_state(
    vmcs: &Current,
    caps: &Capabilities,
    start: &StartState,
) -> Result<(), VmcsError> {
    const DR7_RESET: u64 = 0x400;
    const RFLAGS_RESERVED: u64 = 1 << 1;
    // Unrestricted guest lifts the demand for PE and PG.
    let cr0_fixed = caps.cr0_fixed0 & !(Cr0Flags::PROTECTED_MODE_ENABLE | Cr0Flags::PAGING).bits();
    let mode = Mode::of(start);
    for register in SegmentRegister::ALL {
        let segment = match register {
            SegmentRegister::Cs => mode.code,
            SegmentRegister::Ldtr => Segment::null_ldt(),
            SegmentRegister::Tr => Segment::busy_tss_32(),
            _ => mode.data,
        };
        // SAFETY: guest state of a VMCS that is being set up.
        unsafe { write_segment(vmcs, register, segment)? };
    }
    // SAFETY: guest state of a VMCS that is being set up; entry checks it.
    unsafe {
        vmcs.write_natural(FieldNatural::GuestCr0, (mode.cr0 & !CR0_HOST) | cr0_fixed)?;
        vmcs.write_natural(FieldNatural::Cr0Shadow, mode.cr0)?;
        vmcs.write_natural(FieldNatural::GuestCr3, mode.cr3)?;
        vmcs.write_natural(
            FieldNatural::GuestCr4,
            mode.cr4 | CR4_ALWAYS | caps.cr4_fixed0,
        )?;
        vmcs.write_natural(FieldNatural::Cr4Shadow, mode.cr4)?;
        vmcs.write_natural(FieldNatural::GuestRip, mode.rip)?;
        vmcs.write_natural(FieldNatural::GuestGdtrBase, mode.gdt.0)?;
        vmcs.write32(Field32::GuestGdtrLimit, mode.gdt.1)?;
        vmcs.write_natural(FieldNatural::GuestDr7, DR7_RESET)?;
        vmcs.write_natural(FieldNatural::GuestRflags, RFLAGS_RESERVED)?;
        for field in [
            FieldNatural::GuestRsp,
            FieldNatural::GuestIdtrBase,
            FieldNatural::GuestPendingDebug,
            FieldNatural::GuestSysenterEsp,
            FieldNatural::GuestSysenterEip,
        ] {
            vmcs.write_natural(field, 0)?;
        }
        vmcs.write32(Field32::GuestIdtrLimit, 0xffff)?;
        vmcs.write32(Field32::GuestSysenterCs, 0)?;
        vmcs.write32(Field32::GuestInterruptibility, 0)?;
        vmcs.write32(Field32::GuestActivity, 0)?;
        vmcs.write64(Field64::VmcsLinkPointer, !0)?;
        vmcs.write64(Field64::GuestDebugCtl, 0)?;
        vmcs.write64(Field64::GuestPat, PAT_RESET)?;
        vmcs.write64(Field64::GuestEfer, mode.efer.bits())?;
        let mut entry = caps.entry;
        entry.set(
            EntryControls::IA32E_GUEST,
            mode.efer.contains(EferFlags::LONG_MODE_ACTIVE),
        );
        vmcs.write32(Field32::EntryControls, entry.bits())
    }
}

/// # Safety
///
/// The VMCS must be this vCPU's; entry checks the segment.
pub(crate) unsafe fn write_segment(
    vmcs: &Current,
    register: SegmentRegister,
    segment: Segment,
) -> Result<(), VmcsError> {
    let (selector, base, limit, access) = register.fields();
    // SAFETY: guest state only.
    unsafe {
        vmcs.write16(selector, segment.selector)?;
        vmcs.write_natural(base, segment.base)?;
        vmcs.write32(limit, segment.limit)?;
        vmcs.write32(access, segment.access)
    }
}

/// Drops cached translations of an EPT pointer, and of a VPID where the processor can
/// (Intel SDM volume 3, section 29.4.3).
pub(crate) fn invalidate(ept_pointer: u64, vpid: Option<u16>) -> Result<(), VmcsError> {
    const SINGLE_CONTEXT: u64 = 1;
    let descriptor = [ept_pointer, 0u64];
    // SAFETY: the callers hold a current VMCS, so INVEPT is valid; it only drops cached translations.
    let mut failed = unsafe {
        vmx_instruction!("invept {kind}, [{descriptor}]", kind = in(reg) SINGLE_CONTEXT,
            descriptor = in(reg) &descriptor)
    };
    if let Some(vpid) = vpid {
        let descriptor = [u64::from(vpid), 0u64];
        // SAFETY: as above; probing showed that INVVPID of a single context exists.
        failed |= unsafe {
            vmx_instruction!("invvpid {kind}, [{descriptor}]", kind = in(reg) SINGLE_CONTEXT,
                descriptor = in(reg) &descriptor)
        };
    }
    if failed {
        Err(VmcsError::Invalidate)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_up_ipi_starts_at_its_page_in_real_mode() {
        let start = StartState::RealMode { page: 0x9f };
        let mode = Mode::of(&start);
        assert_eq!((mode.code.selector, mode.code.base), (0x9f00, 0x9_f000));
        assert_eq!((mode.code.limit, mode.rip), (0xffff, 0));
        assert_eq!((mode.data.selector, mode.data.base), (0, 0));
        // Table 10-1: caches off, real mode.
        assert_eq!((mode.cr0, mode.cr4), (0x6000_0010, 0));
        let gprs = start.gprs();
        assert_ne!(gprs.rdx, 0);
        let rest = crate::state::Gprs { rdx: 0, ..gprs };
        assert_eq!(rest, crate::state::Gprs::default());
    }
}

//! Writing a VMCS from scratch (Intel SDM volume 3, chapter 27 lists what entry checks).

use crate::caps::Capabilities;
use crate::controls::{EntryControls, SecondaryControls};
use crate::cpu::HostFields;
use crate::enter::exit_rip;
use crate::fields::{self, Field16, Field32, Field64, FieldNatural};
use crate::vmcs::{Current, failed, vmx_instruction};
use core::arch::asm;
use vcpu::{Event, Segment, SegmentRegister, ShellError, VcpuStateV1, exception};
use x86_64::registers::control::{Cr0Flags, Cr4Flags};

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

/// CR4 bits that the guest may see set on this processor.
pub(crate) const fn guest_cr4(caps: &Capabilities) -> u64 {
    (CR4_GUEST | Cr4Flags::MACHINE_CHECK_EXCEPTION.bits()) & caps.cr4_fixed1
}

/// CR4 bits that stay set in the processor, whatever the guest sees.
pub(crate) const CR4_ALWAYS: u64 =
    Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS.bits() | Cr4Flags::MACHINE_CHECK_EXCEPTION.bits();

/// TSC ticks between two executions of PAUSE that are still of one loop (Intel SDM volume 3, section 26.1.3).
const PAUSE_LOOP_GAP: u32 = 128;
/// TSC ticks in such a loop after which it exits: practically never.
const PAUSE_LOOP_NEVER: u32 = u32::MAX;

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
) -> Result<(), ShellError> {
    // SAFETY: controls masked by their capabilities; the tables are the caller's to vouch for.
    unsafe {
        vmcs.write32(Field32::PinControls, caps.pin.bits())?;
        vmcs.write32(Field32::PrimaryControls, caps.primary.bits())?;
        vmcs.write32(Field32::SecondaryControls, caps.secondary.bits())?;
        vmcs.write32(Field32::ExitControls, caps.exit.bits())?;
        vmcs.write32(Field32::EntryControls, caps.entry.bits())?;
        vmcs.write32(Field32::ExceptionBitmap, exception::EXITING)?;
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
        if caps
            .secondary
            .contains(SecondaryControls::PAUSE_LOOP_EXITING)
        {
            vmcs.write32(Field32::PauseLoopGap, PAUSE_LOOP_GAP)?;
            vmcs.write32(Field32::PauseLoopWindow, PAUSE_LOOP_NEVER)?;
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
) -> Result<(), ShellError> {
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

/// # Safety
///
/// The VMCS must be one that is being set up, with its controls written.
pub(crate) unsafe fn write_guest_state(
    vmcs: &Current,
    caps: &Capabilities,
    state: &VcpuStateV1,
) -> Result<(), ShellError> {
    // Unrestricted guest lifts the demand for PE and PG.
    let cr0_fixed = caps.cr0_fixed0 & !(Cr0Flags::PROTECTED_MODE_ENABLE | Cr0Flags::PAGING).bits();
    for register in SegmentRegister::ALL {
        // SAFETY: guest state of a VMCS that is being set up.
        unsafe { write_segment(vmcs, register, state.segment(register))? };
    }
    // SAFETY: guest state of a VMCS that is being set up; entry checks it.
    unsafe {
        for (field, value) in [
            (FieldNatural::GuestCr0, (state.cr0 & !CR0_HOST) | cr0_fixed),
            (FieldNatural::Cr0Shadow, state.cr0),
            (FieldNatural::GuestCr3, state.cr3),
            (
                FieldNatural::GuestCr4,
                state.cr4 | CR4_ALWAYS | caps.cr4_fixed0,
            ),
            (FieldNatural::Cr4Shadow, state.cr4),
            (FieldNatural::GuestRip, state.rip),
            (FieldNatural::GuestRsp, state.rsp),
            (FieldNatural::GuestRflags, state.rflags),
            (FieldNatural::GuestGdtrBase, state.gdtr.base),
            (FieldNatural::GuestIdtrBase, state.idtr.base),
            (FieldNatural::GuestDr7, state.dr7),
            (FieldNatural::GuestPendingDebug, state.pending_debug),
            (FieldNatural::GuestSysenterEsp, state.sysenter_esp),
            (FieldNatural::GuestSysenterEip, state.sysenter_eip),
        ] {
            vmcs.write_natural(field, value)?;
        }
        vmcs.write32(Field32::GuestGdtrLimit, state.gdtr.limit)?;
        vmcs.write32(Field32::GuestIdtrLimit, state.idtr.limit)?;
        vmcs.write32(Field32::GuestSysenterCs, state.sysenter_cs)?;
        vmcs.write32(Field32::GuestInterruptibility, state.interruptibility)?;
        vmcs.write32(Field32::GuestActivity, 0)?;
        vmcs.write64(Field64::VmcsLinkPointer, !0)?;
        vmcs.write64(Field64::GuestDebugCtl, 0)?;
        vmcs.write64(Field64::GuestPat, state.pat)?;
        vmcs.write64(Field64::GuestEfer, state.efer)?;
        for (field, entry) in Field64::GUEST_PDPTES.into_iter().zip(state.pdptes) {
            vmcs.write64(field, entry)?;
        }
        let mut entry = caps.entry;
        entry.set(EntryControls::IA32E_GUEST, state.is_long());
        vmcs.write32(Field32::EntryControls, entry.bits())?;
        if let Some(queued) = state.event {
            let length = u32::from(queued.instruction_length);
            write_event(vmcs, queued.event, length)?;
        }
        Ok(())
    }
}

/// Makes the next entry deliver an event; `length` is that of the instruction that raised it, if one
/// did.
///
/// # Safety
///
/// The VMCS must be this vCPU's; entry checks the event.
pub(crate) unsafe fn write_event(
    vmcs: &Current,
    event: Event,
    length: u32,
) -> Result<(), ShellError> {
    // SAFETY: entry delivers the event into the guest only, and checks it.
    unsafe {
        if let Some(code) = event.error_code {
            vmcs.write32(Field32::EntryExceptionErrorCode, code)?;
        }
        if event.is_software() {
            vmcs.write32(Field32::EntryInstructionLength, length)?;
        }
        vmcs.write32(Field32::EntryInterruptionInfo, event.info())
    }
}

/// # Safety
///
/// The VMCS must be this vCPU's; entry checks the segment.
pub(crate) unsafe fn write_segment(
    vmcs: &Current,
    register: SegmentRegister,
    segment: Segment,
) -> Result<(), ShellError> {
    let (selector, base, limit, access) = fields::of_segment(register);
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
pub(crate) fn invalidate(ept_pointer: u64, vpid: Option<u16>) -> Result<(), ShellError> {
    const SINGLE_CONTEXT: u64 = 1;
    let descriptor = [ept_pointer, 0u64];
    // SAFETY: the callers hold a current VMCS, so INVEPT is valid; it only drops cached translations.
    let mut refused = unsafe {
        vmx_instruction!("invept {kind}, [{descriptor}]", kind = in(reg) SINGLE_CONTEXT,
            descriptor = in(reg) &descriptor)
    };
    if let Some(vpid) = vpid {
        let descriptor = [u64::from(vpid), 0u64];
        // SAFETY: as above; probing showed that INVVPID of a single context exists.
        refused |= unsafe {
            vmx_instruction!("invvpid {kind}, [{descriptor}]", kind = in(reg) SINGLE_CONTEXT,
                descriptor = in(reg) &descriptor)
        };
    }
    if refused {
        Err(failed("INVEPT or INVVPID", ept_pointer))
    } else {
        Ok(())
    }
}

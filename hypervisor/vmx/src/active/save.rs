//! Taking the whole state of the vCPU out.

use super::VmxActive;
use crate::fields::{Field32, Field64, FieldNatural};
use vcpu::{
    Active, ControlRegisters, Segment, SegmentRegister, ShellError, TableRegister, VcpuStateV1,
};

impl VmxActive<'_> {
    /// The vCPU's state, which may run on afterwards.
    ///
    /// An event that was to be delivered at the next entry is part of it.
    ///
    /// # Errors
    ///
    /// [`ShellError::Read`].
    pub(super) fn state(&mut self) -> Result<VcpuStateV1, ShellError> {
        // SAFETY: the state in the processor is this vCPU's.
        unsafe { self.vcpu.resident.copy(self.cpu.xcr0) };
        let vmcs = &self.vmcs;
        let paging = self.paging()?;
        let mut segments = [Segment::real_mode(0); SegmentRegister::ALL.len()];
        for (segment, register) in segments.iter_mut().zip(SegmentRegister::ALL) {
            *segment = self.segment(register)?;
        }
        let mut state = VcpuStateV1 {
            gprs: *self.gprs(),
            rsp: vmcs.read_natural(FieldNatural::GuestRsp)?,
            rip: vmcs.read_natural(FieldNatural::GuestRip)?,
            rflags: vmcs.read_natural(FieldNatural::GuestRflags)?,
            cr0: paging.cr0,
            cr3: paging.cr3,
            cr4: paging.cr4,
            efer: paging.efer,
            segments,
            gdtr: TableRegister {
                base: vmcs.read_natural(FieldNatural::GuestGdtrBase)?,
                limit: vmcs.read32(Field32::GuestGdtrLimit)?,
            },
            idtr: TableRegister {
                base: vmcs.read_natural(FieldNatural::GuestIdtrBase)?,
                limit: vmcs.read32(Field32::GuestIdtrLimit)?,
            },
            dr7: vmcs.read_natural(FieldNatural::GuestDr7)?,
            sysenter_cs: vmcs.read32(Field32::GuestSysenterCs)?,
            sysenter_esp: vmcs.read_natural(FieldNatural::GuestSysenterEsp)?,
            sysenter_eip: vmcs.read_natural(FieldNatural::GuestSysenterEip)?,
            pat: vmcs.read64(Field64::GuestPat)?,
            interruptibility: vmcs.read32(Field32::GuestInterruptibility)?,
            pending_debug: vmcs.read_natural(FieldNatural::GuestPendingDebug)?,
            event: self.queued_event()?,
            ..VcpuStateV1::at_reset()
        };
        self.vcpu.resident.fill(&mut state);
        if state.uses_pdptes() {
            for (entry, field) in state.pdptes.iter_mut().zip(Field64::GUEST_PDPTES) {
                *entry = vmcs.read64(field)?;
            }
        }
        Ok(state)
    }
}

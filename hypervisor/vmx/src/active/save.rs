//! Taking the whole state of the vCPU out.

use super::Active;
use crate::fields::{Field32, Field64, FieldNatural};
use crate::residency::set_xcr0;
use crate::saved::{TableRegister, VcpuStateV1};
use crate::state::{Segment, SegmentRegister};
use crate::vmcs::VmcsError;

impl Active<'_> {
    /// The vCPU's state, which may run on afterwards.
    ///
    /// An event that was to be delivered at the next entry is part of it.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn save(&mut self) -> Result<VcpuStateV1, VmcsError> {
        // SAFETY: the state in the processor is this vCPU's; XCR0, which the processor holds for
        // the guest, is put back.
        unsafe {
            self.vcpu.resident.store(self.cpu.xcr0);
            set_xcr0(self.vcpu.resident.xcr0);
        }
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
            ..self.vcpu.resident.state()
        };
        if state.uses_pdptes() {
            for (entry, field) in state.pdptes.iter_mut().zip(Field64::GUEST_PDPTES) {
                *entry = vmcs.read64(field)?;
            }
        }
        Ok(state)
    }
}

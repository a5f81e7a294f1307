//! Interrupts and exceptions for the guest (APM volume 2, sections 15.20 and 15.21).

use super::SvmActive;
use crate::setup;
use crate::vmcb::INTERRUPT_SHADOW;
use vcpu::{Event, EventKind, Events, ShellError, rflags};
use x86_64::registers::control::Cr0Flags;

impl SvmActive<'_> {
    fn event_is_queued(&self) -> bool {
        self.vcpu.queued().is_some()
    }

    fn in_shadow(&self) -> bool {
        self.vmcb().interrupt_shadow & INTERRUPT_SHADOW != 0
    }

    /// Takes up what a memory fault interrupted: the delivery of an event begins anew at the next entry. One that an
    /// instruction raised does so by itself: the guest is still at that instruction.
    #[cold]
    pub(super) fn resume_interrupted(&mut self) {
        if let Some((event, by_instruction)) = setup::interrupted_event(self.vmcb()) {
            if !by_instruction {
                self.vcpu.queue(event);
            }
            self.delivering = true;
        }
    }

    /// The guest is about to execute IRET, behind which NMIs are let in again. Until then the interrupt shadow keeps
    /// them out; should the IRET fault, one may come too early.
    pub(super) fn begin_iret(&mut self) {
        self.vcpu.block_nmis(false);
        self.vmcb_mut().interrupt_shadow |= INTERRUPT_SHADOW;
    }
}

impl Events for SvmActive<'_> {
    #[inline(always)]
    fn can_take_interrupt(&self) -> Result<bool, ShellError> {
        Ok(self.vmcb().rflags & rflags::IF != 0 && !self.in_shadow() && !self.event_is_queued())
    }

    fn interrupts_enabled(&self) -> Result<bool, ShellError> {
        Ok(self.vmcb().rflags & rflags::IF != 0)
    }

    #[inline(always)]
    fn want_interrupt_window(&mut self, wanted: bool) -> Result<(), ShellError> {
        self.vcpu.window = wanted;
        Ok(())
    }

    fn inject(&mut self, mut event: Event) -> Result<(), ShellError> {
        if self.vmcb().cr0 & Cr0Flags::PROTECTED_MODE_ENABLE.bits() == 0 {
            // In real mode no exception pushes an error code.
            event.error_code = None;
        }
        self.vcpu.queue(event);
        Ok(())
    }

    /// There is no exit for when an NMI can be taken: but IRET exits while they are blocked, and all else that keeps one
    /// out lasts for an instruction, behind which a look at the clock brings it in.
    fn inject_nmi(&mut self) -> Result<bool, ShellError> {
        const VECTOR: u8 = 2;
        if self.vcpu.nmi_blocked {
            return Ok(false);
        }
        self.vcpu.nmi_wanted = self.in_shadow() || self.event_is_queued();
        if self.vcpu.nmi_wanted {
            return Ok(false);
        }
        self.inject(Event {
            kind: EventKind::Nmi,
            vector: VECTOR,
            error_code: None,
        })?;
        self.vcpu.block_nmis(true);
        Ok(true)
    }

    fn inject_page_fault(&mut self, linear: u64, code: u32) -> Result<(), ShellError> {
        const PAGE_FAULT: u8 = 14;
        self.vmcb_mut().cr2 = linear;
        self.inject(Event::exception(PAGE_FAULT, code))
    }

    fn is_delivering_event(&self) -> Result<bool, ShellError> {
        Ok(self.delivering)
    }
}

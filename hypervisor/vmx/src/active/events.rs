//! Interrupts and exceptions for the guest (Intel SDM volume 3, section 27.6).

use super::VmxActive;
use crate::controls::PrimaryControls;
use crate::fields::{Field32, FieldNatural};
use crate::residency::{dr6, set_cr2, set_dr6};
use crate::setup;
use vcpu::{
    Event, EventKind, Events, QueuedEvent, ShellError, TaskSwitching, blocking, exception, rflags,
};
use x86_64::registers::control::Cr0Flags;

impl Events for VmxActive<'_> {
    #[inline(always)]
    fn can_take_interrupt(&self) -> Result<bool, ShellError> {
        if self.vmcs.read_natural(FieldNatural::GuestRflags)? & rflags::IF == 0 {
            return Ok(false);
        }
        let shadow = self.vmcs.read32(Field32::GuestInterruptibility)?;
        if shadow & (blocking::STI | blocking::MOV_SS) != 0 {
            return Ok(false);
        }
        Ok(self.vmcs.read32(Field32::EntryInterruptionInfo)? >> 31 == 0)
    }

    fn interrupts_enabled(&self) -> Result<bool, ShellError> {
        Ok(self.vmcs.read_natural(FieldNatural::GuestRflags)? & rflags::IF != 0)
    }

    fn inject(&mut self, mut event: Event) -> Result<(), ShellError> {
        if event.error_code.is_some()
            && self.vmcs.read_natural(FieldNatural::GuestCr0)?
                & Cr0Flags::PROTECTED_MODE_ENABLE.bits()
                == 0
        {
            // In real mode no exception pushes an error code, and entry refuses one.
            event.error_code = None;
        }
        let length = if event.is_software() {
            self.vmcs.read32(Field32::ExitInstructionLength)?
        } else {
            0
        };
        // SAFETY: the VMCS is this vCPU's.
        unsafe { setup::write_event(&self.vmcs, event, length) }
    }

    fn inject_nmi(&mut self) -> Result<bool, ShellError> {
        let blocked = self.vmcs.read32(Field32::GuestInterruptibility)?
            & (blocking::STI | blocking::MOV_SS | blocking::NMI)
            != 0
            || self.vmcs.read32(Field32::EntryInterruptionInfo)? >> 31 != 0;
        let mut primary = self.vcpu.primary;
        primary.set(PrimaryControls::NMI_WINDOW, blocked);
        if primary != self.vcpu.primary {
            // SAFETY: a control that comes with virtual NMIs; it only adds exits.
            unsafe {
                self.vmcs
                    .write32(Field32::PrimaryControls, primary.bits())?
            };
            self.vcpu.primary = primary;
        }
        if !blocked {
            self.inject(Event {
                kind: EventKind::Nmi,
                vector: 2,
                error_code: None,
            })?;
        }
        Ok(!blocked)
    }

    fn is_delivering_event(&self) -> Result<bool, ShellError> {
        Ok(self.vmcs.read32(Field32::IdtVectoringInfo)? >> 31 != 0)
    }

    fn inject_page_fault(&mut self, linear: u64, code: u32) -> Result<(), ShellError> {
        set_cr2(linear);
        self.inject(Event::exception(14, code))
    }

    #[inline(always)]
    fn want_interrupt_window(&mut self, wanted: bool) -> Result<(), ShellError> {
        if self
            .vcpu
            .primary
            .contains(PrimaryControls::INTERRUPT_WINDOW)
            == wanted
        {
            return Ok(());
        }
        let mut primary = self.vcpu.primary;
        primary.set(PrimaryControls::INTERRUPT_WINDOW, wanted);
        // SAFETY: a control that the processor always allows; it only adds exits.
        unsafe {
            self.vmcs
                .write32(Field32::PrimaryControls, primary.bits())?
        };
        self.vcpu.primary = primary;
        Ok(())
    }
}

impl VmxActive<'_> {
    /// Delivers an exception of the guest's that exited. An event that it came in the delivery of is lost, as it is on a
    /// processor. The exit of a debug exception has changed no debug register (section 28.1): that is done here. One that
    /// comes between STI or MOV SS and the next instruction leaves the single step pending that the entry wants to see.
    #[cold]
    pub(super) fn reflect(&mut self, event: Event) -> Result<(), ShellError> {
        const CONDITIONS: u64 = 0b1111 | DR6_GENERAL_DETECT | SINGLE_STEP;
        const DR6_BREAKPOINTS: u64 = 0b1111;
        const DR6_GENERAL_DETECT: u64 = 1 << 13;
        const DR7_GENERAL_DETECT: u64 = 1 << 13;
        const SINGLE_STEP: u64 = 1 << 14;
        if event.vector == exception::DEBUG && event.kind == EventKind::HardwareException {
            let met = self.vmcs.read_natural(FieldNatural::ExitQualification)? & CONDITIONS;
            set_dr6(dr6() & !DR6_BREAKPOINTS | met);
            let dr7 = self.vmcs.read_natural(FieldNatural::GuestDr7)? & !DR7_GENERAL_DETECT;
            let shadow = self.vmcs.read32(Field32::GuestInterruptibility)?
                & (blocking::STI | blocking::MOV_SS);
            let stepping = self.vmcs.read_natural(FieldNatural::GuestRflags)? & rflags::TF != 0;
            // SAFETY: guest state only.
            unsafe {
                self.vmcs.write_natural(FieldNatural::GuestDr7, dr7)?;
                if shadow != 0 && stepping {
                    self.vmcs
                        .write_natural(FieldNatural::GuestPendingDebug, SINGLE_STEP)?;
                }
            }
        }
        self.inject(event)
    }

    /// The event that the next entry delivers.
    pub(super) fn queued_event(&self) -> Result<Option<QueuedEvent>, ShellError> {
        let info = self.vmcs.read32(Field32::EntryInterruptionInfo)?;
        let code = self.vmcs.read32(Field32::EntryExceptionErrorCode)?;
        let Some(event) = Event::from_info(info, code) else {
            return Ok(None);
        };
        let length = if event.is_software() {
            self.vmcs.read32(Field32::EntryInstructionLength)?
        } else {
            0
        };
        Ok(Some(QueuedEvent {
            event,
            instruction_length: length as u8,
        }))
    }

    /// Takes up what a memory fault interrupted: the delivery of an event begins anew at the next entry
    /// (section 28.2.4), and an IRET that had ended the blocking of NMIs is to be executed with
    /// them blocked again (section 28.2.3).
    ///
    /// Of the exits that the controls allow, only memory faults can come in the middle of a delivery
    /// and be resumed: interrupts, NMIs and the timer come before or after it, and machine checks and
    /// task switches are not resumed.
    #[cold]
    pub(super) fn resume_interrupted(&mut self) -> Result<(), ShellError> {
        const NMI_UNBLOCKED_BY_IRET: u64 = 1 << 12;
        let blocking = self.vmcs.read32(Field32::GuestInterruptibility)?;
        let next = match self.event_in_delivery()? {
            Some(event) => {
                let length = self.vmcs.read32(Field32::ExitInstructionLength)?;
                // SAFETY: the VMCS is this vCPU's, and the processor was delivering this event.
                unsafe { setup::write_event(&self.vmcs, event, length)? };
                if event.kind == EventKind::Nmi {
                    // Its delivery blocks NMIs, and the entry demands that they are not blocked yet.
                    blocking & !blocking::NMI
                } else {
                    blocking
                }
            }
            None => {
                let qualification = self.vmcs.read_natural(FieldNatural::ExitQualification)?;
                if qualification & NMI_UNBLOCKED_BY_IRET != 0 {
                    blocking | blocking::NMI
                } else {
                    blocking
                }
            }
        };
        if next != blocking {
            // SAFETY: guest state only.
            unsafe { self.vmcs.write32(Field32::GuestInterruptibility, next)? };
        }
        Ok(())
    }
}

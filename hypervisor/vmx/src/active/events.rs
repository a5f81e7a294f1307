//! Interrupts and exceptions for the guest (Intel SDM volume 3, section 27.6).

use super::{Active, RFLAGS_IF, blocking};
use crate::controls::PrimaryControls;
use crate::fields::{Field32, FieldNatural};
use crate::residency::set_cr2;
use crate::state::{Event, EventKind};
use crate::vmcs::VmcsError;
use x86_64::registers::control::Cr0Flags;

impl Active<'_> {
    /// Whether an interrupt can be injected now.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    #[inline(always)]
    pub fn can_take_interrupt(&self) -> Result<bool, VmcsError> {
        if self.vmcs.read_natural(FieldNatural::GuestRflags)? & RFLAGS_IF == 0 {
            return Ok(false);
        }
        let shadow = self.vmcs.read32(Field32::GuestInterruptibility)?;
        if shadow & (blocking::STI | blocking::MOV_SS) != 0 {
            return Ok(false);
        }
        Ok(self.vmcs.read32(Field32::EntryInterruptionInfo)? >> 31 == 0)
    }

    /// Whether the guest has interrupts enabled, shadows aside.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn interrupts_enabled(&self) -> Result<bool, VmcsError> {
        Ok(self.vmcs.read_natural(FieldNatural::GuestRflags)? & RFLAGS_IF != 0)
    }

    /// Delivers `event` at the next entry. One event at a time: a second one replaces the first.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    pub fn inject(&mut self, mut event: Event) -> Result<(), VmcsError> {
        if self.vmcs.read_natural(FieldNatural::GuestCr0)? & Cr0Flags::PROTECTED_MODE_ENABLE.bits()
            == 0
        {
            // In real mode no exception pushes an error code, and entry refuses one.
            event.error_code = None;
        }
        // SAFETY: entry delivers the event into the guest only, and checks it.
        unsafe {
            if let Some(code) = event.error_code {
                self.vmcs.write32(Field32::EntryExceptionErrorCode, code)?;
            }
            if matches!(
                event.kind,
                EventKind::SoftwareInterrupt
                    | EventKind::SoftwareException
                    | EventKind::PrivilegedSoftwareException
            ) {
                let length = self.vmcs.read32(Field32::ExitInstructionLength)?;
                self.vmcs.write32(Field32::EntryInstructionLength, length)?;
            }
            self.vmcs
                .write32(Field32::EntryInterruptionInfo, event.info())
        }
    }

    /// Delivers an NMI at the next entry if the guest can take one; else asks for an exit when it can
    /// and returns `false`.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn inject_nmi(&mut self) -> Result<bool, VmcsError> {
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

    /// Whether the exit came while an event was being delivered to the guest.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn is_delivering_event(&self) -> Result<bool, VmcsError> {
        Ok(self.vmcs.read32(Field32::IdtVectoringInfo)? >> 31 != 0)
    }

    /// Raises #PF for a linear address.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    pub fn inject_page_fault(&mut self, linear: u64, code: u32) -> Result<(), VmcsError> {
        set_cr2(linear);
        self.inject(Event {
            kind: EventKind::HardwareException,
            vector: 14,
            error_code: Some(code),
        })
    }

    /// Asks for an exit as soon as the guest can take an interrupt, or no longer.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    #[inline(always)]
    pub fn want_interrupt_window(&mut self, wanted: bool) -> Result<(), VmcsError> {
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

//! What a hardware task switch needs of the vCPU, beside general registers and flags.

use super::{Active, blocking};
use crate::fields::{Field32, FieldNatural};
use crate::residency::{dr6, set_dr6};
use crate::setup;
use crate::state::{Event, Segment, SegmentRegister};
use crate::vmcs::VmcsError;
use x86_64::registers::control::Cr0Flags;

impl Active<'_> {
    /// Base and limit in bytes of the global descriptor table.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn global_descriptor_table(&self) -> Result<(u64, u32), VmcsError> {
        Ok((
            self.vmcs.read_natural(FieldNatural::GuestGdtrBase)?,
            self.vmcs.read32(Field32::GuestGdtrLimit)?,
        ))
    }

    /// Sets a segment register, hidden part included. The next entry checks it (Intel SDM volume 3,
    /// section 27.3.1.2).
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    pub fn set_segment(
        &mut self,
        register: SegmentRegister,
        segment: Segment,
    ) -> Result<(), VmcsError> {
        // SAFETY: the VMCS is this vCPU's.
        unsafe { setup::write_segment(&self.vmcs, register, segment) }
    }

    /// Sets the instruction pointer, and ends an interrupt shadow: what was in progress is over.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn jump(&mut self, rip: u64) -> Result<(), VmcsError> {
        // SAFETY: guest state only.
        unsafe { self.vmcs.write_natural(FieldNatural::GuestRip, rip)? };
        self.end_interrupt_shadow()
    }

    /// The length in bytes of the instruction that exited, or that raised the software event in
    /// whose delivery the exit came.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn instruction_length(&self) -> Result<u32, VmcsError> {
        self.vmcs.read32(Field32::ExitInstructionLength)
    }

    /// The event that was being delivered to the guest as it exited, if one was (section 28.2.4).
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn event_in_delivery(&self) -> Result<Option<Event>, VmcsError> {
        let info = self.vmcs.read32(Field32::IdtVectoringInfo)?;
        let code = self.vmcs.read32(Field32::IdtVectoringErrorCode)?;
        Ok(Event::from_info(info, code))
    }

    /// What every task switch leaves in control and debug registers (section 8.3): CR0.TS is set, and
    /// the local breakpoints of DR7 are off.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn mark_task_switched(&mut self) -> Result<(), VmcsError> {
        /// L0 to L3 and LE.
        const LOCAL: u64 = 0b1_0101_0101;
        let cr0 = self.vmcs.read_natural(FieldNatural::GuestCr0)?;
        let dr7 = self.vmcs.read_natural(FieldNatural::GuestDr7)?;
        // SAFETY: guest state only; the guest owns CR0.TS.
        unsafe {
            let switched = cr0 | Cr0Flags::TASK_SWITCHED.bits();
            self.vmcs.write_natural(FieldNatural::GuestCr0, switched)?;
            self.vmcs
                .write_natural(FieldNatural::GuestDr7, dr7 & !LOCAL)?;
            // A single step of the old task ends with it.
            self.vmcs.write_natural(FieldNatural::GuestPendingDebug, 0)
        }
    }

    /// Raises the debug exception of a task whose TSS asks for it. Entry delivers the exception only; what
    /// else it does to the debug registers is done here (section 18.2.3).
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn inject_task_trap(&mut self) -> Result<(), VmcsError> {
        const DR6_TASK_SWITCH: u64 = 1 << 15;
        const DR7_GENERAL_DETECT: u64 = 1 << 13;
        set_dr6(dr6() | DR6_TASK_SWITCH);
        let dr7 = self.vmcs.read_natural(FieldNatural::GuestDr7)?;
        // SAFETY: guest state only.
        unsafe {
            self.vmcs
                .write_natural(FieldNatural::GuestDr7, dr7 & !DR7_GENERAL_DETECT)?;
        }
        self.inject(Event::DEBUG)
    }

    /// Blocks NMIs, as the delivery of one does, or lets them in again, as IRET does.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn block_nmis(&mut self, blocked: bool) -> Result<(), VmcsError> {
        let mut state = self.vmcs.read32(Field32::GuestInterruptibility)?;
        state &= !blocking::NMI;
        if blocked {
            state |= blocking::NMI;
        }
        // SAFETY: guest state only.
        unsafe { self.vmcs.write32(Field32::GuestInterruptibility, state) }
    }
}

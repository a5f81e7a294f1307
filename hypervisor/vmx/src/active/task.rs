//! What a hardware task switch needs of the vCPU, beside general registers and flags.

use super::VmxActive;
use crate::fields::{Field32, FieldNatural};
use crate::residency::{dr6, set_dr6};
use crate::setup;
use vcpu::{
    ControlRegisters, Event, Events, Paging, Segment, SegmentRegister, ShellError, TaskSwitching,
    blocking,
};
use x86_64::registers::control::Cr0Flags;

impl TaskSwitching for VmxActive<'_> {
    fn global_descriptor_table(&self) -> Result<(u64, u32), ShellError> {
        Ok((
            self.vmcs.read_natural(FieldNatural::GuestGdtrBase)?,
            self.vmcs.read32(Field32::GuestGdtrLimit)?,
        ))
    }

    fn set_segment(
        &mut self,
        register: SegmentRegister,
        segment: Segment,
    ) -> Result<(), ShellError> {
        // SAFETY: the VMCS is this vCPU's.
        unsafe { setup::write_segment(&self.vmcs, register, segment) }
    }

    fn jump(&mut self, rip: u64) -> Result<(), ShellError> {
        // SAFETY: guest state only.
        unsafe { self.vmcs.write_natural(FieldNatural::GuestRip, rip)? };
        self.end_interrupt_shadow()
    }

    fn switch_cr3(&mut self, value: u32) -> Result<bool, ShellError> {
        let now = self.paging()?;
        let next = Paging {
            cr3: u64::from(value),
            ..now
        };
        if !self.load_pdptes(&now, &next)? {
            return Ok(false);
        }
        // SAFETY: guest state only.
        unsafe { self.vmcs.write_natural(FieldNatural::GuestCr3, next.cr3)? };
        self.flush()?;
        Ok(true)
    }

    fn instruction_length(&self) -> Result<u32, ShellError> {
        self.vmcs.read32(Field32::ExitInstructionLength)
    }

    fn event_in_delivery(&self) -> Result<Option<Event>, ShellError> {
        let info = self.vmcs.read32(Field32::IdtVectoringInfo)?;
        let code = self.vmcs.read32(Field32::IdtVectoringErrorCode)?;
        Ok(Event::from_info(info, code))
    }

    fn mark_task_switched(&mut self) -> Result<(), ShellError> {
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

    fn inject_task_trap(&mut self) -> Result<(), ShellError> {
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

    fn block_nmis(&mut self, blocked: bool) -> Result<(), ShellError> {
        let mut state = self.vmcs.read32(Field32::GuestInterruptibility)?;
        state &= !blocking::NMI;
        if blocked {
            state |= blocking::NMI;
        }
        // SAFETY: guest state only.
        unsafe { self.vmcs.write32(Field32::GuestInterruptibility, state) }
    }
}

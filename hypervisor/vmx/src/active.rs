//! The vCPU that this processor runs now.

mod apic;
mod control;
mod events;
mod save;
mod task;

use crate::controls::SecondaryControls;
use crate::cpu::VmxCpu;
use crate::dump::VmcsDump;
use crate::enter::enter;
use crate::exit::{self, Exit, RareExit, RareReason};
use crate::fields::{Field32, Field64, FieldNatural};
use crate::state::{Gprs, Segment, SegmentRegister};
use crate::vcpu::{EntryFailure, Refusal, Vcpu};
use crate::vmcs::{Current, VmcsError};
use alloc::boxed::Box;
pub use control::Paging;
use x86_64::registers::control::EferFlags;

/// Guest interruptibility state (Intel SDM volume 3, table 25-3).
pub(crate) mod blocking {
    pub(crate) const STI: u32 = 1 << 0;
    pub(crate) const MOV_SS: u32 = 1 << 1;
    pub(crate) const NMI: u32 = 1 << 3;
}

const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;

/// Access to the vCPU whose VMCS is current and whose state is in this processor.
pub struct Active<'a> {
    vcpu: &'a mut Vcpu,
    cpu: &'a mut VmxCpu,
    vmcs: Current,
    timer_shift: u8,
    timer_round: u32,
}

impl<'a> Active<'a> {
    pub(crate) fn new(vcpu: &'a mut Vcpu, cpu: &'a mut VmxCpu, vmcs: Current) -> Self {
        let timer_shift = cpu.capabilities().preemption_timer_shift;
        Self {
            vcpu,
            cpu,
            vmcs,
            timer_shift,
            timer_round: u32::from(timer_shift != 0),
        }
    }

    /// Runs the guest until it exits, at the latest some `ticks` TSC ticks from now, rounded up to
    /// the timer's granularity.
    ///
    /// # Errors
    ///
    /// [`EntryFailure`]; the guest did not run. A refused guest state shows as a rare exit first.
    #[inline(always)]
    pub fn run(&mut self, ticks: u32) -> Result<Exit, EntryFailure> {
        // Where nothing is shifted there is nothing to round, so the sum does not overflow.
        let timer = (ticks >> self.timer_shift).wrapping_add(self.timer_round);
        // SAFETY: the timer only makes the guest exit.
        unsafe { self.vmcs.write32(Field32::PreemptionTimer, timer)? };
        // SAFETY: the VMCS is current, its host state was written for this processor and this
        // context, the resident state is loaded (`activate`); `launched` is kept below.
        let failed = unsafe { enter(&raw mut *self.vcpu.context, self.vcpu.launched) };
        if failed != 0 {
            return Err(self.instruction_failure());
        }
        self.vcpu.launched = 1;
        Ok(exit::decode(
            &self.vmcs,
            self.vmcs.read32(Field32::ExitReason)?,
        )?)
    }

    #[cold]
    fn instruction_failure(&mut self) -> EntryFailure {
        match self.vmcs.read32(Field32::InstructionError) {
            Ok(error) => self.refused(Refusal::Instruction(error)),
            Err(error) => EntryFailure::Vmcs(error),
        }
    }

    #[cold]
    fn refused(&mut self, what: Refusal) -> EntryFailure {
        EntryFailure::Refused(Box::new((what, self.dump())))
    }

    /// Every readable VMCS field and the general-purpose registers.
    #[must_use]
    pub fn dump(&self) -> VmcsDump {
        VmcsDump::take(&self.vmcs, self.vcpu.context.gprs)
    }

    /// The guest's general-purpose registers.
    #[must_use]
    #[inline(always)]
    pub fn gprs(&self) -> &Gprs {
        &self.vcpu.context.gprs
    }

    /// The guest's general-purpose registers.
    #[inline(always)]
    pub fn gprs_mut(&mut self) -> &mut Gprs {
        &mut self.vcpu.context.gprs
    }

    /// The value of the general-purpose register with this encoding, RSP included.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn gpr(&self, encoding: u8) -> Result<u64, VmcsError> {
        match self.gprs().by_encoding(encoding) {
            Some(value) => Ok(value),
            None => self.vmcs.read_natural(FieldNatural::GuestRsp),
        }
    }

    /// Sets the general-purpose register with this encoding, RSP included.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    pub fn set_gpr(&mut self, encoding: u8, value: u64) -> Result<(), VmcsError> {
        match self.gprs_mut().by_encoding_mut(encoding) {
            Some(register) => {
                *register = value;
                Ok(())
            }
            // SAFETY: guest state only.
            None => unsafe { self.vmcs.write_natural(FieldNatural::GuestRsp, value) },
        }
    }

    /// The instruction pointer.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn rip(&self) -> Result<u64, VmcsError> {
        self.vmcs.read_natural(FieldNatural::GuestRip)
    }

    /// Sets the flags register; reserved bits stay as the processor demands.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    pub fn set_rflags(&mut self, value: u64) -> Result<(), VmcsError> {
        const RESERVED_ONE: u64 = 1 << 1;
        const DEFINED: u64 = 0x3f_7fd7;
        // SAFETY: guest state only.
        unsafe {
            self.vmcs
                .write_natural(FieldNatural::GuestRflags, value & DEFINED | RESERVED_ONE)
        }
    }

    /// The flags register.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn rflags(&self) -> Result<u64, VmcsError> {
        self.vmcs.read_natural(FieldNatural::GuestRflags)
    }

    /// Moves the guest behind the instruction that exited, and ends its interrupt shadow.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    #[inline(always)]
    pub fn skip_instruction(&mut self) -> Result<(), VmcsError> {
        let length = self.vmcs.read32(Field32::ExitInstructionLength)?;
        self.skip(length)
    }

    /// As [`Active::skip_instruction`], for exits that do not tell the instruction's length in bytes.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    #[inline(always)]
    pub fn skip(&mut self, length: u32) -> Result<(), VmcsError> {
        let rip = self.vmcs.read_natural(FieldNatural::GuestRip)?;
        let next = rip.wrapping_add(u64::from(length));
        // SAFETY: guest state only.
        unsafe { self.vmcs.write_natural(FieldNatural::GuestRip, next)? };
        if rip >> 32 != next >> 32 {
            self.wrap_rip(next)?;
        }
        self.complete_iteration()
    }

    /// What the end of an instruction, or of one iteration of a repeated one, brings: the interrupt shadow
    /// ends, and a single step traps.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    #[inline(always)]
    pub fn complete_iteration(&mut self) -> Result<(), VmcsError> {
        self.end_interrupt_shadow()?;
        if self.vmcs.read_natural(FieldNatural::GuestRflags)? & RFLAGS_TF != 0 {
            self.trap_single_step()?;
        }
        Ok(())
    }

    /// Ends the interrupt shadow of STI or MOV SS: an instruction has completed.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    #[inline(always)]
    pub fn end_interrupt_shadow(&mut self) -> Result<(), VmcsError> {
        let shadow = self.vmcs.read32(Field32::GuestInterruptibility)?;
        if shadow & (blocking::STI | blocking::MOV_SS) != 0 {
            let open = shadow & !(blocking::STI | blocking::MOV_SS);
            // SAFETY: guest state only.
            unsafe { self.vmcs.write32(Field32::GuestInterruptibility, open)? };
        }
        Ok(())
    }

    /// The trap of a single-stepped instruction that was emulated (section 25.4.2, table 25-4).
    #[cold]
    fn trap_single_step(&mut self) -> Result<(), VmcsError> {
        const SINGLE_STEP: u64 = 1 << 14;
        let pending = self.vmcs.read_natural(FieldNatural::GuestPendingDebug)? | SINGLE_STEP;
        // SAFETY: guest state only.
        unsafe {
            self.vmcs
                .write_natural(FieldNatural::GuestPendingDebug, pending)
        }
    }

    /// Outside 64-bit mode the instruction pointer wraps at 4 GiB, and entry refuses one that does not.
    #[cold]
    fn wrap_rip(&mut self, next: u64) -> Result<(), VmcsError> {
        if self.is_64_bit()? {
            return Ok(());
        }
        // SAFETY: guest state only.
        unsafe {
            self.vmcs
                .write_natural(FieldNatural::GuestRip, next & 0xffff_ffff)
        }
    }

    /// Makes a loop around PAUSE in the guest's kernel exit after so many TSC ticks, where the processor can.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    pub fn set_pause_window(&mut self, ticks: u32) -> Result<(), VmcsError> {
        let secondary = self.cpu.capabilities().secondary;
        if !secondary.contains(SecondaryControls::PAUSE_LOOP_EXITING) {
            return Ok(());
        }
        // SAFETY: the field exists with the control, and only decides about exits.
        unsafe { self.vmcs.write32(Field32::PauseLoopWindow, ticks) }
    }

    /// Sets what is added to the TSC that the guest reads.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    pub fn set_tsc_offset(&mut self, offset: u64) -> Result<(), VmcsError> {
        // SAFETY: changes what the guest reads, nothing else.
        unsafe { self.vmcs.write64(Field64::TscOffset, offset) }
    }

    /// A segment register.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn segment(&self, register: SegmentRegister) -> Result<Segment, VmcsError> {
        let (selector, base, limit, access) = register.fields();
        Ok(Segment {
            selector: self.vmcs.read16(selector)?,
            base: self.vmcs.read_natural(base)?,
            limit: self.vmcs.read32(limit)?,
            access: self.vmcs.read32(access)?,
        })
    }

    /// The linear address that an INS or OUTS named (valid right after such an exit).
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn string_address(&self) -> Result<u64, VmcsError> {
        self.vmcs.read_natural(FieldNatural::GuestLinearAddress)
    }

    /// The address size in bits of an INS or OUTS (valid right after such an exit).
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn string_address_bits(&self) -> Result<u32, VmcsError> {
        let info = self.vmcs.read32(Field32::ExitInstructionInfo)?;
        Ok(16 << ((info >> 7) & 3).min(2))
    }

    /// The segment of an OUTS (valid right after such an exit).
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn string_segment(&self) -> Result<SegmentRegister, VmcsError> {
        // Table 28-8; the encodings go in the order of the registers.
        let info = self.vmcs.read32(Field32::ExitInstructionInfo)?;
        Ok(SegmentRegister::ALL[((info >> 15) & 7).min(5) as usize])
    }

    /// Whether the guest runs 64-bit code.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn is_64_bit(&self) -> Result<bool, VmcsError> {
        const CS_LONG: u32 = 1 << 13;
        let active =
            self.vmcs.read64(Field64::GuestEfer)? & EferFlags::LONG_MODE_ACTIVE.bits() != 0;
        Ok(active && self.vmcs.read32(Field32::GuestCsAccess)? & CS_LONG != 0)
    }

    /// The width in bits of the guest's code: 16, 32 or 64.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn code_bits(&self) -> Result<u32, VmcsError> {
        const CS_BIG: u32 = 1 << 14;
        if self.is_64_bit()? {
            return Ok(64);
        }
        let big = self.vmcs.read32(Field32::GuestCsAccess)? & CS_BIG != 0;
        Ok(if big { 32 } else { 16 })
    }

    /// The current privilege level.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn privilege_level(&self) -> Result<u8, VmcsError> {
        // SS.DPL is the CPL (section 25.4.1).
        Ok(((self.vmcs.read32(Field32::GuestSsAccess)? >> 5) & 3) as u8)
    }

    /// Decodes a rare exit, right after it. An event whose delivery to the guest it interrupted is
    /// queued again for the next entry.
    ///
    /// # Errors
    ///
    /// [`EntryFailure`] when it was no exit: the processor refused the guest state.
    pub fn rare_exit(&mut self, reason: RareReason) -> Result<RareExit, EntryFailure> {
        if let Some(reason) = reason.entry_failure() {
            return Err(self.refused(Refusal::GuestState(reason)));
        }
        let exit = exit::decode_rare(&self.vmcs, reason)?;
        if let RareExit::Memory(_) = exit {
            self.resume_interrupted()?;
        }
        Ok(exit)
    }
}

//! The vCPU that this processor runs now.

mod apic;
mod control;
mod events;
mod log;
mod save;
mod task;

use crate::controls::SecondaryControls;
use crate::cpu::VmxCpu;
use crate::dump::VmcsDump;
use crate::enter::enter;
use crate::exit::{self, Rare};
use crate::fields::{self, Field32, Field64, FieldNatural};
use crate::vmcs::Current;
use crate::vmx_vcpu::{Refusal, VmxVcpu};
use alloc::format;
use vcpu::{
    Active, EntryFailure, Exit, Gprs, GuestView, RareExit, RareReason, Registers, Segment,
    SegmentRegister, ShellError, TaskSwitching, VcpuStateV1, blocking, rflags,
};
use x86_64::registers::control::EferFlags;

/// Access to the vCPU whose VMCS is current and whose state is in this processor.
pub struct VmxActive<'a> {
    vcpu: &'a mut VmxVcpu,
    cpu: &'a mut VmxCpu,
    memory: &'a dyn GuestView,
    vmcs: Current,
    timer_shift: u8,
    timer_round: u32,
}

impl<'a> VmxActive<'a> {
    pub(crate) fn new(
        vcpu: &'a mut VmxVcpu,
        cpu: &'a mut VmxCpu,
        memory: &'a dyn GuestView,
        vmcs: Current,
    ) -> Self {
        let timer_shift = cpu.capabilities().preemption_timer_shift;
        Self {
            vcpu,
            cpu,
            memory,
            vmcs,
            timer_shift,
            timer_round: u32::from(timer_shift != 0),
        }
    }

    #[cold]
    fn instruction_failure(&mut self) -> EntryFailure {
        match self.vmcs.read32(Field32::InstructionError) {
            Ok(error) => self.refused(Refusal::Instruction(error)),
            Err(error) => EntryFailure::Shell(error),
        }
    }

    /// Every readable VMCS field and the general-purpose registers.
    fn dump(&self) -> VmcsDump {
        VmcsDump::take(&self.vmcs, self.vcpu.context.gprs)
    }

    #[cold]
    fn refused(&mut self, what: Refusal) -> EntryFailure {
        if what.is_machine_check() {
            return EntryFailure::MachineCheck;
        }
        EntryFailure::Refused(format!("{what}\n{}", self.dump()))
    }

    /// Ends the interrupt shadow of STI or MOV SS: an instruction has completed.
    ///
    /// # Errors
    ///
    /// [`ShellError`].
    #[inline(always)]
    fn end_interrupt_shadow(&mut self) -> Result<(), ShellError> {
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
    fn trap_single_step(&mut self) -> Result<(), ShellError> {
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
    fn wrap_rip(&mut self, next: u64) -> Result<(), ShellError> {
        if self.is_64_bit()? {
            return Ok(());
        }
        // SAFETY: guest state only.
        unsafe {
            self.vmcs
                .write_natural(FieldNatural::GuestRip, next & 0xffff_ffff)
        }
    }
}

impl Active for VmxActive<'_> {
    #[inline(always)]
    fn run(&mut self, now: u64, until: u64) -> Result<Exit, EntryFailure> {
        // The timer rounds down. Where nothing is shifted there is nothing to round up, so the sum does not overflow.
        let left = until.saturating_sub(now) as u32;
        let timer = (left >> self.timer_shift).wrapping_add(self.timer_round);
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

    #[inline(always)]
    fn gprs(&self) -> &Gprs {
        &self.vcpu.context.gprs
    }

    #[inline(always)]
    fn gprs_mut(&mut self) -> &mut Gprs {
        &mut self.vcpu.context.gprs
    }

    fn gpr(&self, encoding: u8) -> Result<u64, ShellError> {
        match self.gprs().by_encoding(encoding) {
            Some(value) => Ok(value),
            None => self.vmcs.read_natural(FieldNatural::GuestRsp),
        }
    }

    fn set_gpr(&mut self, encoding: u8, value: u64) -> Result<(), ShellError> {
        match self.gprs_mut().by_encoding_mut(encoding) {
            Some(register) => {
                *register = value;
                Ok(())
            }
            // SAFETY: guest state only.
            None => unsafe { self.vmcs.write_natural(FieldNatural::GuestRsp, value) },
        }
    }

    fn rip(&self) -> Result<u64, ShellError> {
        self.vmcs.read_natural(FieldNatural::GuestRip)
    }

    fn set_rflags(&mut self, value: u64) -> Result<(), ShellError> {
        // SAFETY: guest state only.
        unsafe {
            self.vmcs
                .write_natural(FieldNatural::GuestRflags, rflags::legal(value))
        }
    }

    fn rflags(&self) -> Result<u64, ShellError> {
        self.vmcs.read_natural(FieldNatural::GuestRflags)
    }

    #[inline(always)]
    fn skip_instruction(&mut self) -> Result<(), ShellError> {
        let length = self.vmcs.read32(Field32::ExitInstructionLength)?;
        self.skip(length)
    }

    #[inline(always)]
    fn skip(&mut self, length: u32) -> Result<(), ShellError> {
        let rip = self.vmcs.read_natural(FieldNatural::GuestRip)?;
        let next = rip.wrapping_add(u64::from(length));
        // SAFETY: guest state only.
        unsafe { self.vmcs.write_natural(FieldNatural::GuestRip, next)? };
        if rip >> 32 != next >> 32 {
            self.wrap_rip(next)?;
        }
        self.complete_iteration()
    }

    #[inline(always)]
    fn complete_iteration(&mut self) -> Result<(), ShellError> {
        self.end_interrupt_shadow()?;
        if self.vmcs.read_natural(FieldNatural::GuestRflags)? & rflags::TF != 0 {
            self.trap_single_step()?;
        }
        Ok(())
    }

    fn set_pause_window(&mut self, ticks: u32) -> Result<(), ShellError> {
        let secondary = self.cpu.capabilities().secondary;
        if !secondary.contains(SecondaryControls::PAUSE_LOOP_EXITING) {
            return Ok(());
        }
        // SAFETY: the field exists with the control, and only decides about exits.
        unsafe { self.vmcs.write32(Field32::PauseLoopWindow, ticks) }
    }

    fn set_tsc_offset(&mut self, offset: u64) -> Result<(), ShellError> {
        // SAFETY: changes what the guest reads, nothing else.
        unsafe { self.vmcs.write64(Field64::TscOffset, offset) }
    }

    fn segment(&self, register: SegmentRegister) -> Result<Segment, ShellError> {
        let (selector, base, limit, access) = fields::of_segment(register);
        Ok(Segment {
            selector: self.vmcs.read16(selector)?,
            base: self.vmcs.read_natural(base)?,
            limit: self.vmcs.read32(limit)?,
            access: self.vmcs.read32(access)?,
        })
    }

    fn string_address(&self) -> Result<u64, ShellError> {
        self.vmcs.read_natural(FieldNatural::GuestLinearAddress)
    }

    fn string_address_bits(&self) -> Result<u32, ShellError> {
        let info = self.vmcs.read32(Field32::ExitInstructionInfo)?;
        Ok(16 << ((info >> 7) & 3).min(2))
    }

    fn string_segment(&self) -> Result<SegmentRegister, ShellError> {
        // Table 28-8; the encodings go in the order of the registers.
        let info = self.vmcs.read32(Field32::ExitInstructionInfo)?;
        Ok(SegmentRegister::ALL[((info >> 15) & 7).min(5) as usize])
    }

    fn is_64_bit(&self) -> Result<bool, ShellError> {
        const CS_LONG: u32 = 1 << 13;
        let active =
            self.vmcs.read64(Field64::GuestEfer)? & EferFlags::LONG_MODE_ACTIVE.bits() != 0;
        Ok(active && self.vmcs.read32(Field32::GuestCsAccess)? & CS_LONG != 0)
    }

    fn code_bits(&self) -> Result<u32, ShellError> {
        const CS_BIG: u32 = 1 << 14;
        if self.is_64_bit()? {
            return Ok(64);
        }
        let big = self.vmcs.read32(Field32::GuestCsAccess)? & CS_BIG != 0;
        Ok(if big { 32 } else { 16 })
    }

    fn privilege_level(&self) -> Result<u8, ShellError> {
        // SS.DPL is the CPL (section 25.4.1).
        Ok(((self.vmcs.read32(Field32::GuestSsAccess)? >> 5) & 3) as u8)
    }

    fn rare_exit(&mut self, reason: RareReason) -> Result<RareExit, EntryFailure> {
        if let Some(reason) = exit::entry_failure(reason) {
            return Err(self.refused(Refusal::GuestState(reason)));
        }
        Ok(match exit::decode_rare(&self.vmcs, reason)? {
            Rare::Exit(exit) => {
                if let RareExit::Memory(_) | RareExit::LogFull = exit {
                    self.resume_interrupted()?;
                }
                exit
            }
            Rare::HostNmi => {
                VmxCpu::deliver_host_nmi();
                RareExit::Handled
            }
            Rare::Exception(event) => {
                self.reflect(event)?;
                RareExit::Handled
            }
        })
    }

    fn registers(&self) -> Registers {
        self.dump().registers()
    }

    fn save(&mut self) -> Result<VcpuStateV1, ShellError> {
        self.state()
    }

    fn task_switching(&mut self) -> Option<&mut dyn TaskSwitching> {
        Some(self)
    }
}

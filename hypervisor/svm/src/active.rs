//! The vCPU that this processor runs now.

mod apic;
mod control;
mod events;
mod log;

use crate::cpu::SvmCpu;
use crate::decode::{self, INSTRUCTION_MAX, StringOperand};
use crate::enter::enter;
use crate::exit::{self, Rare};
use crate::segments::{self, BIG, LONG};
use crate::setup::{self, DR6_SINGLE_STEP, PAUSE_THRESHOLD};
use crate::svm_vcpu::SvmVcpu;
use crate::vmcb::{INTERRUPT_SHADOW, Intercepts, TlbControl, Vmcb};
use alloc::format;
use iced_x86::Instruction;
use vcpu::{
    Active, ControlRegisters, EntryFailure, Event, EventKind, Events, Exit, Gprs, GuestView,
    QueuedEvent, RareExit, RareReason, Registers, Segment, SegmentRegister, ShellError,
    TaskSwitching, VcpuStateV1, blocking, rflags,
};
use x86_64::registers::control::EferFlags;

/// The host's timer is armed no fewer TSC ticks ahead: the way into the guest takes about as long, and a guest that is
/// always interrupted at once would never get on. No deadline is seen later than this for that.
const TIMER_LEAST: u64 = 1 << 12;
/// TSC ticks that one execution of PAUSE takes with what is around it, about.
const PAUSE_TICKS: u32 = 64;

/// Access to the vCPU whose state is in this processor.
pub struct SvmActive<'a> {
    vcpu: &'a mut SvmVcpu,
    cpu: &'a mut SvmCpu,
    memory: &'a dyn GuestView,
    /// For when the host's timer is armed, if it still is.
    armed: u64,
    /// The exit came while an event was being delivered.
    delivering: bool,
}

impl<'a> SvmActive<'a> {
    pub(crate) fn new(
        vcpu: &'a mut SvmVcpu,
        cpu: &'a mut SvmCpu,
        memory: &'a dyn GuestView,
    ) -> Self {
        Self {
            vcpu,
            cpu,
            memory,
            armed: 0,
            delivering: false,
        }
    }

    #[inline(always)]
    fn vmcb(&self) -> &Vmcb {
        self.vcpu.vmcb.get()
    }

    #[inline(always)]
    fn vmcb_mut(&mut self) -> &mut Vmcb {
        self.vcpu.vmcb.get_mut()
    }

    /// The instruction that exited; `None` if it cannot be read, or has been changed meanwhile.
    #[cold]
    fn instruction(&self) -> Option<Instruction> {
        let vmcb = self.vmcb();
        let bits = self.code_width();
        let base = if bits == 64 { 0 } else { vmcb.cs.base };
        let mut linear = base.wrapping_add(vmcb.rip);
        if bits != 64 {
            linear &= 0xffff_ffff;
        }
        let mut bytes = [0; INSTRUCTION_MAX];
        let paging = self.paging_now();
        let count = self.memory.code(&paging, vmcb.cpl == 3, linear, &mut bytes);
        decode::instruction(bytes.get(..count)?, bits)
    }

    /// Where the instruction that exited ends. One that cannot be read any more, because another of the guest's
    /// processors has removed it meanwhile, is left to be executed again, and to fault then.
    #[inline(always)]
    fn next_rip(&self) -> u64 {
        let vmcb = self.vmcb();
        if self.cpu.capabilities().next_rip {
            return vmcb.next_rip;
        }
        if exit::is_port_access(vmcb) {
            return vmcb.exit_info_2;
        }
        let length = self.instruction().map_or(0, |found| found.len());
        self.behind(length as u64)
    }

    /// The instruction pointer so many bytes on: outside 64-bit code it wraps at 4 GiB.
    fn behind(&self, length: u64) -> u64 {
        let next = self.vmcb().rip.wrapping_add(length);
        if self.code_width() == 64 {
            next
        } else {
            next & 0xffff_ffff
        }
    }

    fn code_width(&self) -> u32 {
        let vmcb = self.vmcb();
        let long = vmcb.efer & EferFlags::LONG_MODE_ACTIVE.bits() != 0;
        if long && vmcb.cs.attributes & LONG != 0 {
            64
        } else if vmcb.cs.attributes & BIG != 0 {
            32
        } else {
            16
        }
    }

    fn string_operand(&self) -> StringOperand {
        let found = self.instruction().as_ref().and_then(decode::string_operand);
        found.unwrap_or(StringOperand {
            address_bits: self.code_width(),
            segment: SegmentRegister::Ds,
        })
    }

    /// An instruction is complete: the shadow of STI or MOV SS ends, and a single step traps.
    #[inline(always)]
    fn complete(&mut self) {
        let vmcb = self.vmcb_mut();
        vmcb.interrupt_shadow &= !INTERRUPT_SHADOW;
        if vmcb.rflags & rflags::TF != 0 {
            vmcb.dr6 |= DR6_SINGLE_STEP;
            self.vcpu.queue(Event::DEBUG);
        }
    }

    #[cold]
    fn refused(&self) -> EntryFailure {
        let (registers, vmcb) = (self.registers(), self.vmcb());
        EntryFailure::Refused(format!("VMEXIT_INVALID\n{registers}\n{vmcb}"))
    }
}

impl Active for SvmActive<'_> {
    #[inline(always)]
    fn run(&mut self, now: u64, until: u64) -> Result<Exit, EntryFailure> {
        let soon = now + TIMER_LEAST;
        // No exit tells when the next interrupt could be delivered behind one that is first, or an NMI behind the instruction
        // that keeps it out: a look does soon.
        let behind = self.vcpu.window && self.vcpu.interrupt.is_some();
        let until = if behind || self.vcpu.nmi_wanted {
            soon
        } else {
            until
        };
        if self.armed != until {
            self.cpu.timer.arm(until.max(soon));
            self.armed = until;
        }
        self.vcpu.write_virtual_interrupt();
        let flush = core::mem::replace(&mut self.vcpu.flush, false);
        let rax = self.vcpu.gprs.rax;
        let tlb = match (flush, self.cpu.capabilities().flush_by_asid) {
            (false, _) => TlbControl::Nothing,
            (true, true) => TlbControl::ThisAsid,
            (true, false) => TlbControl::Everything,
        };
        let vmcb = self.vmcb_mut();
        vmcb.rax = rax;
        vmcb.tlb_control = tlb as u8;
        let guest = self.vcpu.vmcb.physical();
        let host = self.cpu.host.physical();
        // SAFETY: AMD-V is enabled as long as there is an `SvmCpu`, whose host VMCB was filled on this processor; this VMCB
        // has the controls that `setup` wrote, and the resident state is loaded (`activate`). Interrupts are off.
        unsafe { enter(&raw mut self.vcpu.gprs, guest, host) };
        self.vcpu.read_virtual_interrupt();
        let vmcb = self.vmcb_mut();
        vmcb.event = 0;
        let rax = vmcb.rax;
        let exit = exit::decode(vmcb);
        self.vcpu.gprs.rax = rax;
        self.delivering = false;
        if exit == Exit::HostInterrupt {
            // The run is over. Fired between this and the next one, the timer would end that before its first instruction,
            // again and again where runs are short.
            self.cpu.timer.disarm();
            self.armed = 0;
        }
        Ok(exit)
    }

    #[cold]
    fn rare_exit(&mut self, reason: RareReason) -> Result<RareExit, EntryFailure> {
        Ok(match exit::decode_rare(self.vmcb(), reason) {
            Rare::Exit(exit) => {
                if let RareExit::Memory(_) = exit {
                    self.resume_interrupted();
                }
                exit
            }
            Rare::Exception(event) => {
                // An event that it came in the delivery of is lost, as it is on a processor.
                self.inject(event)?;
                RareExit::Handled
            }
            Rare::ControlRegister => {
                let instruction = self.instruction();
                let access = instruction.as_ref().and_then(decode::control_register);
                // What cannot be read any more is left to be executed again, and to fault then.
                access.map_or(RareExit::Handled, RareExit::ControlRegister)
            }
            Rare::EndOfNmi => {
                self.begin_iret();
                RareExit::NmiWindow
            }
            Rare::Refused => return Err(self.refused()),
        })
    }

    #[inline(always)]
    fn gprs(&self) -> &Gprs {
        &self.vcpu.gprs
    }

    #[inline(always)]
    fn gprs_mut(&mut self) -> &mut Gprs {
        &mut self.vcpu.gprs
    }

    fn gpr(&self, encoding: u8) -> Result<u64, ShellError> {
        let value = self.vcpu.gprs.by_encoding(encoding);
        Ok(value.unwrap_or(self.vmcb().rsp))
    }

    fn set_gpr(&mut self, encoding: u8, value: u64) -> Result<(), ShellError> {
        match self.vcpu.gprs.by_encoding_mut(encoding) {
            Some(register) => *register = value,
            None => self.vmcb_mut().rsp = value,
        }
        Ok(())
    }

    fn rip(&self) -> Result<u64, ShellError> {
        Ok(self.vmcb().rip)
    }

    fn rflags(&self) -> Result<u64, ShellError> {
        Ok(self.vmcb().rflags)
    }

    fn set_rflags(&mut self, value: u64) -> Result<(), ShellError> {
        self.vmcb_mut().rflags = rflags::legal(value);
        Ok(())
    }

    fn segment(&self, register: SegmentRegister) -> Result<Segment, ShellError> {
        Ok(segments::seen(self.vmcb(), register))
    }

    fn is_64_bit(&self) -> Result<bool, ShellError> {
        Ok(self.code_width() == 64)
    }

    fn code_bits(&self) -> Result<u32, ShellError> {
        Ok(self.code_width())
    }

    fn privilege_level(&self) -> Result<u8, ShellError> {
        Ok(self.vmcb().cpl & 3)
    }

    fn registers(&self) -> Registers {
        setup::registers(self.vmcb(), self.vcpu.gprs, self.vcpu.cr4)
    }

    fn save(&mut self) -> Result<VcpuStateV1, ShellError> {
        // SAFETY: the state in the processor is this vCPU's.
        unsafe { self.vcpu.resident.copy(self.cpu.xcr0) };
        let mut state = VcpuStateV1::at_reset();
        self.vcpu.resident.fill(&mut state);
        state.gprs = self.vcpu.gprs;
        setup::read_guest_state(self.vmcb(), self.vcpu.cr4, &mut state);
        state.event = self.vcpu.queued().map(|event| QueuedEvent {
            event,
            instruction_length: 0,
        });
        let queued = state
            .event
            .is_some_and(|queued| queued.event.kind == EventKind::Nmi);
        if self.vcpu.nmi_blocked && !queued {
            state.interruptibility |= blocking::NMI;
        }
        if state.uses_pdptes() {
            // The processor reads them when it needs them (APM volume 2, section 15.25.10).
            let at = self.paging()?.pdptes_at();
            state.pdptes = self.memory.page_directory_pointers(at).unwrap_or_default();
        }
        Ok(state)
    }

    #[inline(always)]
    fn skip_instruction(&mut self) -> Result<(), ShellError> {
        let next = self.next_rip();
        if next != self.vmcb().rip {
            self.vmcb_mut().rip = next;
            self.complete();
        }
        Ok(())
    }

    fn skip(&mut self, length: u32) -> Result<(), ShellError> {
        let next = self.behind(u64::from(length));
        self.vmcb_mut().rip = next;
        self.complete();
        Ok(())
    }

    fn complete_iteration(&mut self) -> Result<(), ShellError> {
        self.complete();
        Ok(())
    }

    fn string_address(&self) -> Result<u64, ShellError> {
        let operand = self.string_operand();
        let gprs = &self.vcpu.gprs;
        let (segment, offset) = if exit::reads_port(self.vmcb()) {
            (SegmentRegister::Es, gprs.rdi)
        } else {
            (operand.segment, gprs.rsi)
        };
        let offset = offset & (u64::MAX >> (64 - operand.address_bits));
        let flat = self.code_width() == 64
            && !matches!(segment, SegmentRegister::Fs | SegmentRegister::Gs);
        Ok(if flat {
            offset
        } else {
            let linear = offset.wrapping_add(self.vmcb().segment(segment).base);
            if self.code_width() == 64 {
                linear
            } else {
                linear & 0xffff_ffff
            }
        })
    }

    fn string_address_bits(&self) -> Result<u32, ShellError> {
        Ok(self.string_operand().address_bits)
    }

    fn string_segment(&self) -> Result<SegmentRegister, ShellError> {
        Ok(self.string_operand().segment)
    }

    fn set_tsc_offset(&mut self, offset: u64) -> Result<(), ShellError> {
        self.vmcb_mut().tsc_offset = offset;
        Ok(())
    }

    fn set_pause_window(&mut self, ticks: u32) -> Result<(), ShellError> {
        if self.cpu.capabilities().pause_filter {
            let count = u16::try_from(ticks / PAUSE_TICKS).unwrap_or(u16::MAX);
            let vmcb = self.vmcb_mut();
            vmcb.pause_filter_count = count;
            vmcb.pause_filter_threshold = PAUSE_THRESHOLD;
            vmcb.intercepts |= Intercepts::PAUSE;
        }
        Ok(())
    }

    fn task_switching(&mut self) -> Option<&mut dyn TaskSwitching> {
        None
    }
}

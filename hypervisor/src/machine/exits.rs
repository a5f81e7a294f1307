//! Running a guest: the loop around VM entry, and the one match over its exits.

use super::statistics::{Kind, Statistics};
use super::{Machine, Yield, string_io};
use crate::cpuid::{Cpuid, Live};
use crate::guest::GuestHandle;
use crate::memory::{GuestMemory, PhysicalMemory};
use crate::msrs;
use crate::{console, cpu};
use core::fmt;
use devices::{Effects, Pc, ResetCause, Ticks};
use drivers::tsc;
use log::{info, warn};
use vmx::{
    AccessKind, Active, ControlRegisterAccess, Direction, EntryFailure, Event, Exit, IoAccess,
    MemoryFault, RareExit, VmcsError, VmxCpu,
};

/// How a run ended.
enum End {
    Halted,
    Interrupted,
    PowerOff,
    Reset,
}

/// Why a guest cannot go on.
pub(super) enum Crash {
    TripleFault,
    Memory(MemoryFault),
    TaskSwitch,
    StringIoOutside(u64),
    Unexpected(RareExit),
    Entry(EntryFailure),
    Vmcs(VmcsError),
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripleFault => write!(f, "triple fault"),
            Self::Memory(fault) => {
                let what = match fault.kind {
                    AccessKind::Read => "read",
                    AccessKind::Write => "write",
                    AccessKind::Fetch => "instruction fetch",
                };
                write!(
                    f,
                    "{what} of memory it does not own at {:#x}",
                    fault.physical
                )?;
                fault
                    .linear
                    .map_or(Ok(()), |linear| write!(f, " (linear {linear:#x})"))
            }
            Self::TaskSwitch => write!(f, "hardware task switch, which is not supported"),
            Self::StringIoOutside(address) => {
                write!(f, "string I/O on memory it does not own at {address:#x}")
            }
            Self::Unexpected(exit) => write!(f, "unexpected exit {exit:?}"),
            Self::Entry(failure) => failure.fmt(f),
            Self::Vmcs(error) => error.fmt(f),
        }
    }
}

impl From<VmcsError> for Crash {
    fn from(error: VmcsError) -> Self {
        Self::Vmcs(error)
    }
}

impl From<EntryFailure> for Crash {
    fn from(failure: EntryFailure) -> Self {
        Self::Entry(failure)
    }
}

/// What the devices ask for in the course of an access.
struct Requests {
    guest: &'static GuestHandle,
    end: Option<End>,
}

impl Effects for Requests {
    fn console_output(&mut self, byte: u8) {
        console::write_guest(self.guest, byte);
    }

    fn reset(&mut self, _cause: ResetCause) {
        self.end = Some(End::Reset);
    }

    fn power_off(&mut self) {
        self.end = Some(End::PowerOff);
    }
}

/// The parts of a machine that handling exits needs, beside the vCPU.
struct Context<'a> {
    pc: &'a mut Pc,
    memory: &'a mut GuestMemory,
    cpuid: &'a Cpuid,
    guest: &'static GuestHandle,
    statistics: &'a mut Statistics,
    tsc_adjust: &'a mut u64,
    base: u64,
}

impl Machine {
    /// Runs the guest until it halts or stops, at the latest until the board's TSC is `until`.
    pub(crate) fn run(
        &mut self,
        cpu: &mut VmxCpu,
        until: u64,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Yield {
        match self.run_until(cpu, until) {
            Ok(End::Halted) => {
                self.halted = true;
                Yield::Halted
            }
            Ok(End::Interrupted) => Yield::Interrupted,
            Ok(End::PowerOff) => self.power_off(cpu),
            Ok(End::Reset) => self.reset(cpu, frames),
            Err(crash) => self.crash(cpu, &crash),
        }
    }

    fn run_until(&mut self, cpu: &mut VmxCpu, until: u64) -> Result<End, Crash> {
        let Some(vcpu) = self.vcpu.as_mut() else {
            return Ok(End::Interrupted);
        };
        let mut active = vcpu.activate(cpu)?;
        let mut context = Context {
            pc: &mut self.pc,
            memory: &mut self.memory,
            cpuid: &self.cpuid,
            guest: self.handle,
            statistics: &mut self.statistics,
            tsc_adjust: &mut self.tsc_adjust,
            base: self.base,
        };
        if self.fresh {
            self.fresh = false;
            let ticks = tsc::read().wrapping_sub(self.board.entry_tsc);
            info!(
                "boot: {ticks} ticks from entry to the first guest instruction of {}",
                self.handle.name
            );
        }
        let until = until.min(tsc::read().saturating_add(u64::from(u32::MAX)));
        let mut event = context.next_event(until);
        loop {
            let now = tsc::read();
            if now >= event {
                if now >= until {
                    return Ok(End::Interrupted);
                }
                context.pc.expire(context.guest_time(now));
                event = context.next_event(until);
                continue;
            }
            // No longer than `until` is ahead, which was bounded above.
            let left = (event - now) as u32;
            if context.pc.interrupt_pending() {
                context.deliver_interrupt(&mut active)?;
            }
            match active.run(left)? {
                Exit::Io(access) => {
                    let end = if access.is_string() {
                        context.string_io(&mut active, access)?
                    } else {
                        context.io(&mut active, access)?
                    };
                    if let Some(end) = end {
                        return Ok(end);
                    }
                    event = context.next_event(until);
                }
                Exit::Cpuid => context.cpuid(&mut active)?,
                Exit::ReadMsr => context.read_msr(&mut active)?,
                Exit::WriteMsr => context.write_msr(&mut active)?,
                Exit::Deadline => context.statistics.count(Kind::Deadline),
                Exit::HostInterrupt(vector) => {
                    context.statistics.count(Kind::HostInterrupt);
                    cpu::host_interrupt(vector.number());
                    return Ok(End::Interrupted);
                }
                Exit::InterruptWindow => {
                    context.statistics.count(Kind::InterruptWindow);
                    active.want_interrupt_window(false)?;
                }
                Exit::Halt => {
                    context.statistics.count(Kind::Halt);
                    active.skip_instruction()?;
                    if !context.pc.interrupt_pending() {
                        if !active.interrupts_enabled()? {
                            info!("{}: halted with interrupts off", context.guest.name);
                        }
                        return Ok(End::Halted);
                    }
                    if !active.interrupts_enabled()? {
                        // Nothing can wake it; keep the processor for others.
                        info!("{}: halted with interrupts off", context.guest.name);
                        return Ok(End::Interrupted);
                    }
                }
                Exit::Rare(reason) => {
                    let exit = active.rare_exit(reason)?;
                    context.rare(&mut active, exit)?;
                }
            }
        }
    }
}

impl Context<'_> {
    #[inline(always)]
    fn guest_time(&self, tsc: u64) -> Ticks {
        Ticks(tsc.saturating_sub(self.base))
    }

    /// The board's TSC at which this run must look up: a timer's deadline, or the end of the run.
    #[inline(always)]
    fn next_event(&self, until: u64) -> u64 {
        self.pc
            .next_deadline()
            .map_or(until, |at| at.0.saturating_add(self.base).min(until))
    }

    fn deliver_interrupt(&mut self, active: &mut Active<'_>) -> Result<(), Crash> {
        if active.can_take_interrupt()? {
            let vector = self.pc.acknowledge();
            active.inject(Event::interrupt(vector))?;
            self.statistics.injected += 1;
        } else {
            active.want_interrupt_window(true)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn io(&mut self, active: &mut Active<'_>, access: IoAccess) -> Result<Option<End>, Crash> {
        let now = self.guest_time(tsc::read());
        let width = device_width(access.width());
        let mut requests = Requests {
            guest: self.guest,
            end: None,
        };
        match access.direction() {
            Direction::In => {
                self.statistics.count(Kind::PortIn);
                let value = self.pc.read(access.port(), width, now, &mut requests);
                let rax = &mut active.gprs_mut().rax;
                *rax = match access.width() {
                    vmx::Width::Byte => *rax & !0xff | u64::from(value & 0xff),
                    vmx::Width::Word => *rax & !0xffff | u64::from(value & 0xffff),
                    vmx::Width::Dword => u64::from(value),
                };
            }
            Direction::Out => {
                self.statistics.count(Kind::PortOut);
                let value = active.gprs().rax as u32;
                self.pc
                    .write(access.port(), width, value, now, &mut requests);
            }
        }
        active.skip_instruction()?;
        if is_com1(access.port()) && self.guest.input_waits() {
            self.feed_console();
        }
        Ok(requests.end)
    }

    #[cold]
    fn feed_console(&mut self) {
        let mut bytes = [0; 16];
        let room = self.pc.console_room().min(bytes.len());
        let count = self.guest.take_input(&mut bytes[..room]);
        self.pc.console_input(&bytes[..count]);
    }

    #[inline(always)]
    fn cpuid(&mut self, active: &mut Active<'_>) -> Result<(), Crash> {
        self.statistics.count(Kind::Cpuid);
        let (leaf, sub_leaf) = (active.gprs().rax as u32, active.gprs().rcx as u32);
        let [eax, ebx, ecx, edx] = self.cpuid.get(leaf, sub_leaf, || live_state(active));
        let gprs = active.gprs_mut();
        gprs.rax = u64::from(eax);
        gprs.rbx = u64::from(ebx);
        gprs.rcx = u64::from(ecx);
        gprs.rdx = u64::from(edx);
        Ok(active.skip_instruction()?)
    }

    fn read_msr(&mut self, active: &mut Active<'_>) -> Result<(), Crash> {
        self.statistics.count(Kind::ReadMsr);
        let value = match msrs::read(active.gprs().rcx as u32) {
            msrs::Read::Value(value) => value,
            msrs::Read::Tsc => self
                .guest_time(tsc::read())
                .0
                .wrapping_add(*self.tsc_adjust),
            msrs::Read::Efer => active.paging()?.efer,
            msrs::Read::Fault => {
                self.statistics.unknown_msrs += 1;
                return Ok(active.inject(Event::GENERAL_PROTECTION)?);
            }
        };
        let gprs = active.gprs_mut();
        gprs.rax = value & 0xffff_ffff;
        gprs.rdx = value >> 32;
        Ok(active.skip_instruction()?)
    }

    fn write_msr(&mut self, active: &mut Active<'_>) -> Result<(), Crash> {
        self.statistics.count(Kind::WriteMsr);
        let gprs = active.gprs();
        let value = (gprs.rdx << 32) | (gprs.rax & 0xffff_ffff);
        let accepted = match msrs::write(gprs.rcx as u32, value) {
            msrs::Write::Ignore => true,
            msrs::Write::Tsc => {
                *self.tsc_adjust = value.wrapping_sub(self.guest_time(tsc::read()).0);
                active.set_tsc_offset(self.tsc_adjust.wrapping_sub(self.base))?;
                true
            }
            msrs::Write::Efer => active.write_efer(value)?,
            msrs::Write::Fault => {
                self.statistics.unknown_msrs += 1;
                false
            }
        };
        if accepted {
            Ok(active.skip_instruction()?)
        } else {
            Ok(active.inject(Event::GENERAL_PROTECTION)?)
        }
    }

    #[cold]
    fn string_io(
        &mut self,
        active: &mut Active<'_>,
        access: IoAccess,
    ) -> Result<Option<End>, Crash> {
        self.statistics.count(Kind::StringIo);
        let now = self.guest_time(tsc::read());
        let mut requests = Requests {
            guest: self.guest,
            end: None,
        };
        string_io::step(active, access, self.memory, self.pc, now, &mut requests)?;
        Ok(requests.end)
    }

    #[cold]
    fn rare(&mut self, active: &mut Active<'_>, exit: RareExit) -> Result<(), Crash> {
        self.statistics.count(match exit {
            RareExit::ControlRegister(_) => Kind::ControlRegister,
            _ => Kind::Other,
        });
        match exit {
            RareExit::ControlRegister(access) => self.control_register(active, access)?,
            RareExit::SetXcr => {
                let gprs = active.gprs();
                let value = (gprs.rdx << 32) | (gprs.rax & 0xffff_ffff);
                if gprs.rcx as u32 == 0 && active.write_xcr0(value) {
                    active.skip_instruction()?;
                } else {
                    active.inject(Event::GENERAL_PROTECTION)?;
                }
            }
            // The caches are coherent and the host's: nothing to flush for the guest.
            RareExit::CacheFlush | RareExit::Pause => active.skip_instruction()?,
            RareExit::ReadPerformanceCounter => active.inject(Event::GENERAL_PROTECTION)?,
            RareExit::MonitorWait | RareExit::Hypercall | RareExit::VirtualizationInstruction => {
                active.inject(Event::INVALID_OPCODE)?
            }
            RareExit::HostNmi => cpu::host_nmi(),
            RareExit::Exception(vector) => cpu::host_machine_check(vector.number()),
            RareExit::TripleFault => return Err(Crash::TripleFault),
            RareExit::Memory(fault) => return Err(Crash::Memory(fault)),
            RareExit::TaskSwitch => return Err(Crash::TaskSwitch),
            other => return Err(Crash::Unexpected(other)),
        }
        Ok(())
    }

    fn control_register(
        &mut self,
        active: &mut Active<'_>,
        access: ControlRegisterAccess,
    ) -> Result<(), Crash> {
        const CR0_TS: u64 = 1 << 3;
        const CR0_PE: u64 = 1 << 0;
        let memory = &*self.memory;
        let pdptes = |address: u64| {
            let mut entries = [0; 4];
            for (index, entry) in entries.iter_mut().enumerate() {
                *entry = memory.read_u64(address + 8 * index as u64).ok()?;
            }
            Some(entries)
        };
        let accepted = match access {
            ControlRegisterAccess::Write { register: 0, gpr } => {
                active.write_cr0(active.gpr(gpr)?, pdptes)?
            }
            ControlRegisterAccess::Write { register: 4, gpr } => {
                active.write_cr4(active.gpr(gpr)?, pdptes)?
            }
            ControlRegisterAccess::ClearTaskSwitched => {
                active.write_cr0(active.paging()?.cr0 & !CR0_TS, pdptes)?
            }
            ControlRegisterAccess::LoadMachineStatus(word) => {
                let now = active.paging()?.cr0;
                // LMSW sets PE, MP, EM and TS, and cannot clear PE.
                let low = u64::from(word) & 0xf;
                active.write_cr0(now & !0xe | low | (now & CR0_PE), pdptes)?
            }
            other => {
                warn!("{}: unexpected {other:?}", self.guest.name);
                return Err(Crash::Unexpected(RareExit::ControlRegister(other)));
            }
        };
        if accepted {
            Ok(active.skip_instruction()?)
        } else {
            Ok(active.inject(Event::GENERAL_PROTECTION)?)
        }
    }
}

pub(super) fn device_width(width: vmx::Width) -> devices::Width {
    match width {
        vmx::Width::Byte => devices::Width::Byte,
        vmx::Width::Word => devices::Width::Word,
        vmx::Width::Dword => devices::Width::Dword,
    }
}

const fn is_com1(port: u16) -> bool {
    port & !7 == 0x3f8
}

#[cold]
fn live_state(active: &Active<'_>) -> Live {
    const CR4_OSXSAVE: u64 = 1 << 18;
    let osxsave = active
        .paging()
        .is_ok_and(|paging| paging.cr4 & CR4_OSXSAVE != 0);
    Live {
        osxsave,
        xcr0: active.xcr0(),
    }
}

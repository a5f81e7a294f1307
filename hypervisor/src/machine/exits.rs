//! Running a guest: the loop around VM entry, and the one match over its exits.

use super::memory_access::INSTRUCTION_MAX;
use super::platform::Platform;
use super::statistics::{Kind, Statistics};
use super::{Activity, Machine, Yield, memory_access, string_io};
use crate::cpuid::{Cpuid, Live};
use crate::guest::GuestHandle;
use crate::memory::{GuestMemory, PhysicalMemory};
use crate::mmio::Unsupported;
use crate::msrs;
use crate::{console, cpu};
use core::fmt;
use devices::{Effects, ResetCause};
use drivers::tsc;
use log::info;
use vmx::{
    AccessKind, Active, ControlRegisterAccess, Direction, EntryFailure, Ept, EptError, Event, Exit,
    IoAccess, MemoryFault, RareExit, VmcsError, VmxCpu,
};

/// How a run ended.
enum End {
    /// Whether an interrupt would wake it.
    Halted {
        wakeable: bool,
    },
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
    MappedAccess {
        what: Unsupported,
        bytes: [u8; INSTRUCTION_MAX],
        address: u64,
    },
    CodeOutside(u64),
    Unexpected(RareExit),
    Entry(EntryFailure),
    Vmcs(VmcsError),
    PageTables(EptError),
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
            Self::MappedAccess {
                what,
                bytes,
                address,
            } => {
                write!(f, "{what} ({bytes:02x?}) on the device at {address:#x}")
            }
            Self::CodeOutside(address) => {
                write!(
                    f,
                    "code at {address:#x}, outside its memory, touched a device"
                )
            }
            Self::Unexpected(exit) => write!(f, "unexpected exit {exit:?}"),
            Self::Entry(failure) => failure.fmt(f),
            Self::Vmcs(error) => error.fmt(f),
            Self::PageTables(error) => error.fmt(f),
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
        if failure.is_machine_check() {
            cpu::machine_check("while a guest was entered");
        }
        Self::Entry(failure)
    }
}

impl From<EptError> for Crash {
    fn from(error: EptError) -> Self {
        Self::PageTables(error)
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
    platform: &'a mut Platform,
    memory: &'a mut GuestMemory,
    ept: &'a mut Ept,
    frames: &'a spin::Mutex<PhysicalMemory>,
    cpuid: &'a Cpuid,
    guest: &'static GuestHandle,
    statistics: &'a mut Statistics,
    tsc_adjust: &'a mut u64,
}

impl Machine {
    /// Runs the guest until it halts or stops, at the latest until the board's TSC is `until`.
    pub(crate) fn run(
        &mut self,
        cpu: &mut VmxCpu,
        until: u64,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Yield {
        match self.run_until(cpu, until, frames) {
            Ok(End::Halted { wakeable: true }) => {
                self.activity = Activity::Halted;
                Yield::Halted
            }
            Ok(End::Halted { wakeable: false }) => {
                self.activity = Activity::Dead;
                info!("{}: halted with interrupts off", self.handle.name);
                Yield::Halted
            }
            Ok(End::Interrupted) => Yield::Interrupted,
            Ok(End::PowerOff) => self.power_off(cpu),
            Ok(End::Reset) => self.reset(cpu),
            Err(crash) => self.crash(cpu, &crash),
        }
    }

    fn run_until(
        &mut self,
        cpu: &mut VmxCpu,
        until: u64,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Result<End, Crash> {
        let Some(vcpu) = self.vcpu.as_mut() else {
            return Ok(End::Interrupted);
        };
        let mut active = vcpu.activate(cpu)?;
        let mut context = Context {
            platform: &mut self.platform,
            memory: &mut self.memory,
            ept: &mut self.ept,
            frames,
            cpuid: &self.cpuid,
            guest: self.handle,
            statistics: &mut self.statistics,
            tsc_adjust: &mut self.tsc_adjust,
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
                context.platform.expire(now);
                event = context.next_event(until);
                continue;
            }
            // No longer than `until` is ahead, which was bounded above.
            let left = (event - now) as u32;
            if context.platform.event_pending() {
                context.deliver_event(&mut active)?;
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
                Exit::WriteMsr => {
                    context.write_msr(&mut active)?;
                    event = context.next_event(until);
                }
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
                    let wakeable = active.interrupts_enabled()?;
                    if !wakeable || !context.platform.event_pending() {
                        return Ok(End::Halted { wakeable });
                    }
                }
                Exit::Rare(reason) => {
                    let exit = active.rare_exit(reason)?;
                    context.rare(&mut active, exit)?;
                    event = context.next_event(until);
                }
            }
        }
    }
}

impl Context<'_> {
    /// The board's TSC at which this run must look up: a timer's deadline, or the end of the run.
    #[inline(always)]
    fn next_event(&self, until: u64) -> u64 {
        self.platform
            .next_deadline()
            .map_or(until, |at| at.min(until))
    }

    fn deliver_event(&mut self, active: &mut Active<'_>) -> Result<(), Crash> {
        if self.platform.nmi_pending() && active.inject_nmi()? {
            self.platform.acknowledge_nmi();
        }
        if !self.platform.interrupt_pending() {
            return Ok(());
        }
        if active.can_take_interrupt()? {
            let vector = self.platform.acknowledge();
            active.inject(Event::interrupt(vector))?;
            self.statistics.injected += 1;
        } else {
            active.want_interrupt_window(true)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn io(&mut self, active: &mut Active<'_>, access: IoAccess) -> Result<Option<End>, Crash> {
        let now = self.platform.time(tsc::read());
        let width = device_width(access.width());
        let mut requests = Requests {
            guest: self.guest,
            end: None,
        };
        match access.direction() {
            Direction::In => {
                self.statistics.count(Kind::PortIn);
                let value = self
                    .platform
                    .pc
                    .read(access.port(), width, now, &mut requests);
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
                self.platform
                    .pc
                    .write(access.port(), width, value, now, &mut requests);
            }
        }
        self.platform.settle();
        active.skip_instruction()?;
        if is_com1(access.port()) {
            self.platform.feed_console(self.guest);
        }
        Ok(requests.end)
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
                .platform
                .time(tsc::read())
                .0
                .wrapping_add(*self.tsc_adjust),
            msrs::Read::Efer => active.paging()?.efer,
            msrs::Read::LocalApic => {
                let msr = active.gprs().rcx as u32;
                match self.platform.read_msr(msr, tsc::read()) {
                    Some(Ok(value)) => value,
                    _ => return Ok(active.inject(Event::GENERAL_PROTECTION)?),
                }
            }
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
                *self.tsc_adjust = value.wrapping_sub(self.platform.time(tsc::read()).0);
                active.set_tsc_offset(self.tsc_adjust.wrapping_sub(self.platform.base()))?;
                true
            }
            msrs::Write::Efer => active.write_efer(value)?,
            msrs::Write::LocalApic => {
                let msr = active.gprs().rcx as u32;
                self.platform
                    .write_msr(msr, value, tsc::read())
                    .is_some_and(|done| done.is_ok())
            }
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
        let now = self.platform.time(tsc::read());
        let mut requests = Requests {
            guest: self.guest,
            end: None,
        };
        string_io::step(
            active,
            access,
            self.memory,
            &mut self.platform.pc,
            now,
            &mut requests,
        )?;
        self.platform.settle();
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
            // Whatever waited for the window is tried again before the next entry.
            RareExit::NmiWindow => {}
            RareExit::HostNmi => VmxCpu::deliver_host_nmi(),
            // The only exception that exits.
            RareExit::Exception(_) => cpu::machine_check("while a guest ran"),
            RareExit::TripleFault => return Err(Crash::TripleFault),
            RareExit::Memory(fault) => self.memory_fault(active, fault)?,
            RareExit::TaskSwitch => return Err(Crash::TaskSwitch),
            other => return Err(Crash::Unexpected(other)),
        }
        Ok(())
    }

    /// A fetch from a large page makes it executable in small ones; anything else is not the guest's.
    fn memory_fault(&mut self, active: &mut Active<'_>, fault: MemoryFault) -> Result<(), Crash> {
        let fetch = fault.kind == AccessKind::Fetch;
        if fetch
            && self
                .ept
                .make_executable(fault.physical, &mut *self.frames.lock())?
        {
            return Ok(active.flush()?);
        }
        let Some(device) = self.platform.mapped(fault.physical) else {
            return Err(Crash::Memory(fault));
        };
        if active.is_delivering_event()? {
            // The guest's own descriptor table or stack is a device: nothing sensible comes of that.
            return Err(Crash::Memory(fault));
        }
        memory_access::perform(active, self.memory, self.platform, device, fault)
    }

    fn control_register(
        &mut self,
        active: &mut Active<'_>,
        access: ControlRegisterAccess,
    ) -> Result<(), Crash> {
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
            ControlRegisterAccess::Write { register: 8, gpr } => {
                let value = active.gpr(gpr)?;
                let valid = value <= 0xf;
                if valid {
                    self.platform.set_cr8(value as u8);
                }
                valid
            }
            ControlRegisterAccess::Read { register: 8, gpr } => {
                active.set_gpr(gpr, self.platform.cr8())?;
                true
            }
            // CR3, CLTS and LMSW touch nothing that the guest does not own alone.
            other => return Err(Crash::Unexpected(RareExit::ControlRegister(other))),
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

//! Running a guest: the loop around VM entry, and the one match over its exits.

use super::crash::Crash;
use super::platform::{Mapped, Platform};
use super::requests::Requests;
use super::statistics::{Kind, Statistics};
use super::trace::{Event as TraceEvent, Trace};
use super::virtual_cpu::Activity;
use super::{Ending, Machine, VirtualCpu, Yield, memory_access, string_io, task_switch};
use crate::cpu;
use crate::cpuid::Live;
use crate::memory::PhysicalMemory;
use crate::msrs;
use core::fmt;
use core::sync::atomic::Ordering;
use devices::lapic::Fault;
use drivers::tsc;
use log::{debug, error, info};
use vcpu::{
    Active, ControlRegisterAccess, ControlRegisters, Direction, Event, Exit, IoAccess, MemoryFault,
    RareExit, ShellError, Vcpu,
};

/// TSC ticks that a guest gets between two looks at its timers although one is due: timers that are faster
/// than the hypervisor serves them must not keep the guest from running.
const PROGRESS: u64 = 256;

/// TSC ticks that a vCPU spins for a lock before another one gets its processor.
const PAUSE_WINDOW: u32 = 4096;

/// How often in a second a vCPU's totals are published.
const PUBLICATIONS: u64 = 10;

/// The guest uses XSAVE.
const CR4_OSXSAVE: u64 = 1 << 18;

/// How a run ended.
pub(super) enum End {
    /// Whether an interrupt would wake it.
    Halted {
        wakeable: bool,
    },
    /// Its time is up, or the processor has something to look at.
    Interrupted,
    /// Something happened that its owner or another vCPU on the processor must see to first.
    Turn,
    PowerOff,
    Reset,
}

/// The parts of a vCPU and its machine that handling exits needs, beside the virtual processor itself.
struct Context<'a> {
    machine: &'static Machine,
    platform: Platform<'a>,
    frames: &'a spin::Mutex<PhysicalMemory>,
    /// CPUID's view of this vCPU.
    index: u32,
    statistics: &'a mut Statistics,
    trace: &'a mut Trace,
    /// The board's TSC at which the run is over, or the network wants a look before.
    limit: u64,
}

impl<V: Vcpu> VirtualCpu<V> {
    /// Runs the guest until it halts or stops, at the latest until the board's TSC is `until`; one that is halted waits for its
    /// next timer first. What the processor has
    /// done for the vCPU since the TSC was `since` goes on the vCPU's account.
    pub(crate) fn run(
        &mut self,
        cpu: &mut V::Shell,
        since: u64,
        until: u64,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Yield {
        let ended = self.run_until(cpu, since, until, frames);
        let now = tsc::read();
        if now >= self.next_publication {
            self.next_publication = now + self.machine.board.tsc_hz / PUBLICATIONS;
            let published = &self.machine.vcpus[self.index].published;
            published.set(self.statistics.totals());
        }
        match ended {
            Ok(End::Halted { wakeable: true }) => {
                self.activity = Activity::Halted(tsc::read());
                Yield::Done
            }
            Ok(End::Halted { wakeable: false }) => {
                self.activity = Activity::Dead;
                // A guest that does this again and again does not fill the log.
                if !core::mem::replace(&mut self.told_dead, true) {
                    info!("{self}: halted with interrupts off");
                }
                Yield::Done
            }
            Ok(End::Interrupted) => Yield::Interrupted,
            Ok(End::Turn) => Yield::Turn,
            Ok(End::PowerOff) => self.end(Ending::PowerOff),
            Ok(End::Reset) => self.end(Ending::Reset),
            Err(crash) => {
                self.report(cpu, &crash);
                self.end(Ending::Crash)
            }
        }
    }

    fn end(&mut self, ending: Ending) -> Yield {
        self.machine.end_run(Some(ending));
        Yield::Done
    }

    /// The registers and the last exits of a vCPU that cannot go on go to the log.
    fn report(&mut self, cpu: &mut V::Shell, cause: &dyn fmt::Display) {
        let name = &self.machine.handle.name;
        error!("{name}: crashed: {cause}");
        if let Some(registers) = self.registers(cpu) {
            error!("{self}: registers\n{registers}");
        }
        debug!("{self}: {}", self.trace);
    }

    fn run_until(
        &mut self,
        cpu: &mut V::Shell,
        since: u64,
        until: u64,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Result<End, Crash> {
        let Some(vcpu) = self.vcpu.as_mut() else {
            return Ok(End::Interrupted);
        };
        let mut active = vcpu.activate(cpu, &self.machine.memory)?;
        let translations = self.machine.translations.load(Ordering::Relaxed);
        if self.translations != translations {
            active.flush()?;
            self.translations = translations;
        }
        let mut context = Context {
            machine: self.machine,
            platform: Platform::new(self.machine, self.index, &mut self.local),
            frames,
            index: self.index as u32,
            statistics: &mut self.statistics,
            trace: &mut self.trace,
            limit: 0,
        };
        if self.machine.shares_processor(self.index) {
            active.set_pause_window(PAUSE_WINDOW)?;
        }
        let until = until.min(tsc::read().saturating_add(u64::from(u32::MAX)));
        context.limit = until.min(context.platform.look_at());
        let since = match self.activity {
            Activity::Halted(halted) => match context.wait(halted) {
                Some(now) => now,
                None => return Ok(End::Halted { wakeable: true }),
            },
            _ => since,
        };
        self.activity = Activity::Running;
        context.enter_and_exit(&mut active, since, until)
    }
}

impl Context<'_> {
    /// Waits for the timer that may end a halt, which began when the board's TSC was `since`. Returns when an event has come,
    /// `None` if none has.
    fn wait(&mut self, since: u64) -> Option<u64> {
        let due = self.next_event();
        let mut now = tsc::read();
        while now < due {
            core::hint::spin_loop();
            now = tsc::read();
        }
        self.statistics.halted += now.saturating_sub(since);
        self.platform.expire(now);
        self.platform.event_pending().then_some(now)
    }

    /// The loop around VM entry.
    fn enter_and_exit(
        &mut self,
        active: &mut impl Active,
        since: u64,
        until: u64,
    ) -> Result<End, Crash> {
        // The exit whose handling has lasted since then.
        let (mut kind, mut since) = (Kind::Schedule, since);
        let mut event = self.next_event();
        self.lend_apic(active)?;
        let end = loop {
            let mut now = tsc::read();
            if now >= event {
                if now >= until {
                    break End::Interrupted;
                }
                self.platform.expire(now);
                self.platform.look(self.machine.handle, now);
                self.limit = until.min(self.platform.look_at());
                event = self.next_event();
                now = tsc::read();
            }
            if self.platform.event_pending() {
                self.deliver_event(active, now)?;
                self.limit = until.min(self.platform.look_at());
                event = self.next_event();
                now = tsc::read();
            }
            // Here, behind all that may have set it anew.
            if event <= now {
                event = now + PROGRESS;
            }
            self.platform.release();
            if self.platform.yields || self.platform.init_pending() {
                break End::Turn;
            }
            self.statistics.count(kind, now - since);
            // Less than 2^32 ticks are left: `until` is no further ahead.
            let exit = active.run(now, event)?;
            since = tsc::read();
            self.statistics.guest += since - now;
            self.trace.add(since, TraceEvent::Exit(exit));
            kind = match exit {
                // The guest tries again at once.
                Exit::Io(access) if !self.platform.try_lock() => io_kind(access),
                Exit::Io(access) => {
                    let end = if access.is_string() {
                        self.string_io(active, access)?
                    } else {
                        self.io(active, access)?
                    };
                    if let Some(end) = end {
                        break end;
                    }
                    event = self.next_event();
                    io_kind(access)
                }
                Exit::Cpuid => {
                    self.cpuid(active)?;
                    Kind::Cpuid
                }
                Exit::ReadMsr => {
                    self.read_msr(active)?;
                    Kind::ReadMsr
                }
                Exit::WriteMsr => {
                    self.write_msr(active)?;
                    event = self.next_event();
                    Kind::WriteMsr
                }
                Exit::Deadline => Kind::Deadline,
                Exit::HostInterrupt => {
                    kind = Kind::HostInterrupt;
                    break End::Interrupted;
                }
                Exit::InterruptWindow => {
                    active.want_interrupt_window(false)?;
                    Kind::InterruptWindow
                }
                Exit::Halt => {
                    kind = Kind::Halt;
                    active.skip_instruction()?;
                    let wakeable = active.interrupts_enabled()?;
                    self.take_apic(active)?;
                    if !wakeable || !self.platform.event_pending() {
                        break End::Halted { wakeable };
                    }
                    self.lend_apic(active)?;
                    kind
                }
                Exit::Rare(reason) => {
                    let exit = active.rare_exit(reason)?;
                    kind = self.rare(active, exit)?;
                    event = self.next_event();
                    kind
                }
            };
        };
        self.take_apic(active)?;
        self.statistics.count(kind, tsc::read() - since);
        Ok(end)
    }

    /// The board's TSC at which this run must look up: a timer's deadline, or the limit.
    #[inline(always)]
    fn next_event(&self) -> u64 {
        self.platform
            .next_deadline()
            .map_or(self.limit, |at| at.min(self.limit))
    }

    fn deliver_event(&mut self, active: &mut impl Active, now: u64) -> Result<(), Crash> {
        if self.platform.nmi_pending() && active.inject_nmi()? {
            self.platform.acknowledge_nmi();
            self.trace.add(now, TraceEvent::Nmi);
        }
        if !self.platform.interrupt_pending() {
            return Ok(());
        }
        if !active.can_take_interrupt()? {
            return Ok(active.want_interrupt_window(true)?);
        }
        if self.platform.apic_is_lent() {
            if let Some(vector) = self.platform.request_interrupt(active)? {
                self.statistics.injected += 1;
                self.trace.add(now, TraceEvent::Requested(vector));
                return Ok(());
            }
            // One by one is not enough: until all are served, this is not the processor's business.
            self.take_apic(active)?;
            active.keep_apic()?;
            if !self.platform.interrupt_pending() {
                return Ok(());
            }
        }
        // What is due joins its request before that is taken, or it would come once more afterwards.
        self.platform.expire(now);
        let vector = self.platform.acknowledge();
        self.platform.note_delivery(now);
        active.inject(Event::interrupt(vector))?;
        self.statistics.injected += 1;
        self.trace.add(now, TraceEvent::Interrupt(vector));
        Ok(self.lend_apic(active)?)
    }

    /// Lets the processor keep the local APIC's interrupts, if it can.
    #[inline(always)]
    fn lend_apic(&mut self, active: &mut impl Active) -> Result<(), ShellError> {
        self.platform.lend_apic(active)
    }

    /// Takes the local APIC's interrupts back, if the processor keeps them.
    #[inline(always)]
    fn take_apic(&mut self, active: &mut impl Active) -> Result<(), ShellError> {
        self.statistics.injected -= self.platform.take_apic(active)?;
        Ok(())
    }

    #[inline(always)]
    fn io(&mut self, active: &mut impl Active, access: IoAccess) -> Result<Option<End>, Crash> {
        let now = self.platform.lock_for_access();
        let width = device_width(access.width());
        let mut requests = Requests::new(self.machine);
        match access.direction() {
            Direction::In => {
                let value = self
                    .platform
                    .pc()
                    .read(access.port(), width, now, &mut requests);
                let rax = &mut active.gprs_mut().rax;
                *rax = match access.width() {
                    vcpu::Width::Byte => *rax & !0xff | u64::from(value & 0xff),
                    vcpu::Width::Word => *rax & !0xffff | u64::from(value & 0xffff),
                    vcpu::Width::Dword => u64::from(value),
                };
            }
            Direction::Out => {
                let value = active.gprs().rax as u32;
                self.platform
                    .pc()
                    .write(access.port(), width, value, now, &mut requests);
            }
        }
        self.platform.settle();
        active.skip_instruction()?;
        if may_take_input(access.port()) {
            self.platform.feed_console(self.machine.handle);
        }
        if requests.made_room() {
            self.platform.room_made(self.machine.handle);
            self.limit = self.limit.min(self.platform.look_at());
        }
        Ok(requests.end())
    }

    #[inline(always)]
    fn cpuid(&mut self, active: &mut impl Active) -> Result<(), Crash> {
        let (leaf, sub_leaf) = (active.gprs().rax as u32, active.gprs().rcx as u32);
        let [eax, ebx, ecx, edx] = self
            .machine
            .cpuid
            .get(leaf, sub_leaf, || live_state(active, self.index));
        let gprs = active.gprs_mut();
        gprs.rax = u64::from(eax);
        gprs.rbx = u64::from(ebx);
        gprs.rcx = u64::from(ecx);
        gprs.rdx = u64::from(edx);
        Ok(active.skip_instruction()?)
    }

    fn read_msr(&mut self, active: &mut impl Active) -> Result<(), Crash> {
        let value = match msrs::read(active.gprs().rcx as u32) {
            msrs::Read::Value(value) => value,
            msrs::Read::Tsc => self.platform.guest_tsc(tsc::read()),
            msrs::Read::Efer => active.paging()?.efer,
            msrs::Read::LocalApic => {
                let msr = active.gprs().rcx as u32;
                match self.platform.read_msr(msr, tsc::read()) {
                    Ok(value) => value,
                    Err(Fault) => return Ok(active.inject(Event::GENERAL_PROTECTION)?),
                }
            }
            msrs::Read::Clock => {
                let Some(value) = self.platform.read_clock_msr(active.gprs().rcx as u32) else {
                    return Ok(active.inject(Event::GENERAL_PROTECTION)?);
                };
                value
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

    fn write_msr(&mut self, active: &mut impl Active) -> Result<(), Crash> {
        let gprs = active.gprs();
        let value = (gprs.rdx << 32) | (gprs.rax & 0xffff_ffff);
        let accepted = match msrs::write(gprs.rcx as u32, value) {
            msrs::Write::Ignore => true,
            msrs::Write::Tsc => {
                let offset = self.platform.set_guest_tsc(value, tsc::read());
                active.set_tsc_offset(offset)?;
                true
            }
            msrs::Write::Efer => active.write_efer(value)?,
            msrs::Write::LocalApic => {
                let msr = active.gprs().rcx as u32;
                let mode = msrs::sets_apic_mode(msr);
                if mode {
                    self.take_apic(active)?;
                }
                let accepted = self.platform.write_msr(msr, value, tsc::read()).is_ok();
                if mode {
                    self.lend_apic(active)?;
                }
                accepted
            }
            msrs::Write::Clock => {
                let msr = active.gprs().rcx as u32;
                self.platform.write_clock_msr(msr, value, tsc::read())
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
        active: &mut impl Active,
        access: IoAccess,
    ) -> Result<Option<End>, Crash> {
        let now = self.platform.lock_for_access();
        let mut requests = Requests::new(self.machine);
        string_io::step(
            active,
            access,
            &self.machine.memory,
            self.platform.pc(),
            now,
            &mut requests,
        )?;
        self.platform.settle();
        Ok(requests.end())
    }

    #[cold]
    fn rare(&mut self, active: &mut impl Active, exit: RareExit) -> Result<Kind, Crash> {
        match exit {
            RareExit::ControlRegister(access) => self.control_register(active, access)?,
            RareExit::SetXcr => self.set_xcr(active)?,
            // The caches are coherent and the host's: nothing to flush for the guest.
            RareExit::CacheFlush => active.skip_instruction()?,
            // What it waits for is perhaps done by a vCPU that waits for this processor.
            RareExit::Pause => {
                self.platform.yields = true;
                active.skip_instruction()?;
            }
            RareExit::ReadPerformanceCounter => active.inject(Event::GENERAL_PROTECTION)?,
            RareExit::MonitorWait | RareExit::Hypercall | RareExit::VirtualizationInstruction => {
                active.inject(Event::INVALID_OPCODE)?
            }
            RareExit::EndOfInterrupt(vector) => self.platform.interrupt_ended(vector.number()),
            // Whatever waited for the window is tried again before the next entry.
            RareExit::NmiWindow | RareExit::Handled => {}
            RareExit::MachineCheck => cpu::machine_check("while a guest ran"),
            RareExit::TripleFault => return Err(Crash::TripleFault),
            RareExit::Memory(fault) => {
                if memory_access::permit(active, self.machine, self.frames, fault)? {
                    return Ok(Kind::Page);
                }
                self.memory_fault(active, fault)?;
            }
            RareExit::TaskSwitch(switch) => match active.task_switching() {
                Some(vcpu) => task_switch::perform(vcpu, &self.machine.memory, switch)?,
                None => return Err(Crash::Unexpected(exit)),
            },
            other => return Err(Crash::Unexpected(other)),
        }
        Ok(rare_kind(exit))
    }

    /// XSETBV, which may exit before the processor has looked whether it is allowed at all.
    fn set_xcr(&mut self, active: &mut impl Active) -> Result<(), Crash> {
        let gprs = active.gprs();
        let value = (gprs.rdx << 32) | (gprs.rax & 0xffff_ffff);
        let register = gprs.rcx as u32;
        if active.paging()?.cr4 & CR4_OSXSAVE == 0 {
            return Ok(active.inject(Event::INVALID_OPCODE)?);
        }
        if active.privilege_level()? != 0 || register != 0 || !active.write_xcr0(value) {
            return Ok(active.inject(Event::GENERAL_PROTECTION)?);
        }
        Ok(active.skip_instruction()?)
    }

    /// An access to memory that is not the guest's: to a mapped device, perhaps.
    fn memory_fault(&mut self, active: &mut impl Active, fault: MemoryFault) -> Result<(), Crash> {
        let Some(device) = self.platform.mapped(fault.physical) else {
            return Err(Crash::Memory(fault));
        };
        if active.is_delivering_event()? {
            // The guest's own descriptor table or stack is a device: nothing sensible comes of that.
            return Err(Crash::Memory(fault));
        }
        if device != Mapped::LocalApic && !self.platform.try_lock() {
            // The guest tries again at once.
            return Ok(());
        }
        memory_access::perform(
            active,
            &self.machine.memory,
            &mut self.platform,
            device,
            fault,
        )
    }

    fn control_register(
        &mut self,
        active: &mut impl Active,
        access: ControlRegisterAccess,
    ) -> Result<(), Crash> {
        let unexpected = Crash::Unexpected(RareExit::ControlRegister(access));
        let accepted = match access {
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
            ControlRegisterAccess::Read { register: 4, gpr } => {
                active.set_gpr(gpr, active.paging()?.cr4)?;
                true
            }
            ControlRegisterAccess::Write { register, gpr } => {
                let written = active.write_control_register(register, active.gpr(gpr)?)?;
                written.ok_or(unexpected)?
            }
            // CR3, CLTS and LMSW touch nothing that the guest does not own alone.
            _ => return Err(unexpected),
        };
        if accepted {
            Ok(active.skip_instruction()?)
        } else {
            Ok(active.inject(Event::GENERAL_PROTECTION)?)
        }
    }
}

pub(super) fn device_width(width: vcpu::Width) -> devices::Width {
    match width {
        vcpu::Width::Byte => devices::Width::Byte,
        vcpu::Width::Word => devices::Width::Word,
        vcpu::Width::Dword => devices::Width::Dword,
    }
}

const fn io_kind(access: IoAccess) -> Kind {
    match (access.is_string(), access.direction()) {
        (true, _) => Kind::StringIo,
        (false, Direction::In) => Kind::PortIn,
        (false, Direction::Out) => Kind::PortOut,
    }
}

const fn rare_kind(exit: RareExit) -> Kind {
    match exit {
        RareExit::ControlRegister(_) => Kind::ControlRegister,
        RareExit::Memory(_) => Kind::Mapped,
        RareExit::Pause => Kind::Pause,
        RareExit::TaskSwitch(_) => Kind::TaskSwitch,
        RareExit::EndOfInterrupt(_) => Kind::EndOfInterrupt,
        _ => Kind::Other,
    }
}

/// Whether the guest may have room for what is typed after an access to this port: COM1's, or a device's on the PCI bus.
const fn may_take_input(port: u16) -> bool {
    port & !7 == 0x3f8 || port >= 0x1000
}

#[cold]
fn live_state(active: &impl Active, index: u32) -> Live {
    let osxsave = active
        .paging()
        .is_ok_and(|paging| paging.cr4 & CR4_OSXSAVE != 0);
    Live {
        osxsave,
        xcr0: active.xcr0(),
        apic_id: index,
    }
}

//! Running a guest: the loop around VM entry, and the one match over its exits.

mod instructions;

pub(super) use instructions::device_width;

use super::crash::Crash;
use super::platform::{Mapped, Platform};
use super::statistics::{Kind, Statistics};
use super::trace::{Event as TraceEvent, Trace};
use super::virtual_cpu::Activity;
use super::{Ending, Machine, VirtualCpu, Yield, memory_access, task_switch};
use crate::cpu;
use crate::memory::PhysicalMemory;
use core::fmt;
use core::sync::atomic::Ordering;
use drivers::tsc;
use log::{debug, error, info};
use vcpu::{
    Active, ControlRegisters, Direction, Event, Exit, IoAccess, MemoryFault, Method, RareExit,
    ShellError, Vcpu, WriteLog,
};

/// TSC ticks that a guest gets between two looks at its timers although one is due: timers that are faster
/// than the hypervisor serves them must not keep the guest from running.
const PROGRESS: u64 = 256;

/// TSC ticks: a halt that a timer is about to end is waited for where it began, since leaving for the scheduler and coming back takes about
/// as long, and would make the timer late.
const HALT_SHORT: u64 = 1_200;

/// TSC ticks that a vCPU spins for a lock before another one gets its processor.
const PAUSE_WINDOW: u32 = 4096;

/// How often in a second a vCPU's totals are published.
const PUBLICATIONS: u64 = 10;

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
        if self.translations != Some(translations) {
            active.flush()?;
            let method = self.machine.tables.lock().tracking();
            active.log_writes(method == Some(Method::Log))?;
            self.translations = Some(translations);
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
        let ended = context.enter_and_exit(&mut active, since, until);
        active.take_log(&mut |page| self.machine.memory.mark(page))?;
        self.machine.heed_bound();
        ended
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
                    if wakeable && !self.platform.event_pending() {
                        let now = tsc::read();
                        if self.next_event() <= now + HALT_SHORT {
                            self.statistics.count(kind, now - since);
                            kind = Kind::Schedule;
                            self.platform.release();
                            since = self.wait(now).unwrap_or_else(tsc::read);
                        }
                    }
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
            RareExit::LogFull => {
                active.take_log(&mut |page| self.machine.memory.mark(page))?;
                self.machine.heed_bound();
            }
            RareExit::TaskSwitch(switch) => match active.task_switching() {
                Some(vcpu) => task_switch::perform(vcpu, &self.machine.memory, switch)?,
                None => return Err(Crash::Unexpected(exit)),
            },
            other => return Err(Crash::Unexpected(other)),
        }
        Ok(rare_kind(exit))
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

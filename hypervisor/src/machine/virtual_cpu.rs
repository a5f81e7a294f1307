//! A vCPU as the processor that owns it has it.

use super::frozen::{ActivityV1, VirtualCpuStateV1};
use super::lead::{Lead, Step};
use super::local::Local;
use super::platform::Platform;
use super::statistics::Statistics;
use super::trace::Trace;
use super::{Machine, StartFailure};
use crate::guest::{Command, GuestState};
use crate::memory::PhysicalMemory;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;
use drivers::tsc;
use log::{error, info, warn};
use vcpu::{Active, Registers, StartState, Vcpu};

/// What a vCPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// There is no run.
    Parked,
    /// It waits for a start-up IPI.
    WaitForStartUp,
    /// It runs, or could.
    Running,
    /// It halted and waits for an interrupt, since this TSC of the board.
    Halted(u64),
    /// It halted with interrupts off: only an NMI or an INIT wakes it.
    Dead,
}

/// What a vCPU wants of its processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Nothing before [`VirtualCpu::next_event`].
    Nothing,
    /// Another look at once: its guest is being made ready, step by step.
    Attention,
    /// To run.
    Run,
    /// To let go of a run that is over ([`VirtualCpu::leave`]), once no other vCPU is in the processor.
    Leave,
}

/// Why a vCPU gave its processor back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Yield {
    /// It waits for an interrupt, or its run is over.
    Done,
    /// The processor has something else to look at.
    Interrupted,
    /// Another vCPU of its guest on this processor is to go on first.
    Turn,
}

/// A vCPU.
pub(crate) struct VirtualCpu<V> {
    pub(super) machine: &'static Machine,
    pub(super) index: usize,
    /// Made at the first start.
    pub(super) vcpu: Option<V>,
    pub(super) local: Local,
    pub(super) activity: Activity,
    /// When, in the board's TSC, it is another's turn; 0 before its own has begun.
    pub(crate) turn_ends: u64,
    /// The log says already that it halted with interrupts off.
    pub(super) told_dead: bool,
    /// The run that it was last made ready for.
    pub(super) run_number: u64,
    /// The machine's number as its processor last dropped cached translations; none behind a start.
    pub(super) translations: Option<u64>,
    pub(super) statistics: Statistics,
    /// When, in the board's TSC, its totals are published next.
    pub(super) next_publication: u64,
    pub(super) trace: Trace,
    /// That of vCPU 0 leads the guest's life.
    lead: Option<Lead>,
}

impl<V: Vcpu> VirtualCpu<V> {
    pub(crate) fn new(machine: &'static Machine, index: usize) -> Self {
        Self {
            machine,
            index,
            vcpu: None,
            local: Local::new(machine.local_apic(index)),
            activity: Activity::Parked,
            turn_ends: 0,
            told_dead: false,
            run_number: 0,
            translations: None,
            statistics: Statistics::default(),
            next_publication: 0,
            trace: Trace::new(),
            lead: (index == 0).then(Lead::default),
        }
    }

    pub(crate) fn priority(&self) -> u8 {
        self.machine.config.priority
    }

    /// The next order of the operator's for this vCPU.
    pub(crate) fn next_command(&self) -> Option<Command> {
        if self.lead.as_ref().is_some_and(Lead::is_busy) {
            return None;
        }
        self.machine.handle.next_command(self.index)
    }

    /// Does what the operator wants. No other vCPU may be in the processor.
    pub(crate) fn command(
        &mut self,
        command: Command,
        cpu: &mut V::Shell,
        frames: &spin::Mutex<PhysicalMemory>,
    ) {
        match command {
            Command::Dump => self.dump(cpu),
            Command::Statistics => self.print_statistics(),
            Command::Trace => info!("{self}: {}", self.trace),
            _ => {
                if let Some(lead) = &mut self.lead {
                    lead.command(self.machine, command, frames);
                }
            }
        }
    }

    /// Starts the guest if it is to start with the board, and with this one.
    pub(crate) fn autostart(&mut self) {
        if let Some(lead) = &mut self.lead
            && self.machine.config.autostart
            && self.machine.config.mirror.is_none()
        {
            lead.start(self.machine);
        }
    }

    /// Takes the vCPU's state out of the processor.
    pub(crate) fn park(&mut self, cpu: &mut V::Shell) {
        if let Some(vcpu) = self.vcpu.as_mut() {
            vcpu.park(cpu);
        }
    }

    /// When, in the board's TSC, this vCPU needs the processor although it is not running now.
    pub(crate) fn next_event(&mut self) -> Option<u64> {
        if let Some(at) = self.lead.as_ref().and_then(Lead::next_event) {
            return Some(at);
        }
        if self.machine.is_parked(self.index) {
            return None;
        }
        match self.activity {
            Activity::Parked | Activity::WaitForStartUp => None,
            // Nothing that a timer brings would wake it, or another vCPU, or end the run.
            Activity::Dead
                if self.index != 0
                    || self.machine.is_uniprocessor() && self.machine.config.watchdog.is_none() =>
            {
                None
            }
            Activity::Running | Activity::Halted(_) | Activity::Dead => {
                let platform = Platform::new(self.machine, self.index, &mut self.local);
                let next = platform.next_deadline().unwrap_or(u64::MAX);
                Some(next.min(platform.look_at())).filter(|at| *at != u64::MAX)
            }
        }
    }

    /// When, in the board's TSC, the next timer of an urgent guest is due here; or the interrupt came that it is just seeing to.
    pub(crate) fn urgent_timer(&mut self, now: u64) -> Option<u64> {
        let runs = matches!(self.activity, Activity::Running | Activity::Halted(_));
        if !self.machine.handle.urgent || !runs || self.machine.is_parked(self.index) {
            return None;
        }
        let platform = Platform::new(self.machine, self.index, &mut self.local);
        if platform.event_pending() {
            return Some(now);
        }
        platform.seen_to(now).or_else(|| platform.next_timer())
    }

    /// Whether it is halted, and [`VirtualCpu::next_event`] is what may end that: it can be run before, and waits then.
    pub(crate) fn waits_for_timer(&self) -> bool {
        let leads = self.lead.as_ref().and_then(Lead::next_event).is_some();
        matches!(self.activity, Activity::Halted(_)) && !leads
    }

    /// Brings the vCPU up to now; returns what it wants of the processor.
    pub(crate) fn poll(
        &mut self,
        now: u64,
        cpu: &mut V::Shell,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Want {
        let mut start = None;
        if let Some(lead) = &mut self.lead {
            match lead.step(self.machine, now, frames) {
                Step::Nothing => {}
                Step::More => return Want::Attention,
                Step::Begin(state) => start = state,
            }
        }
        let Some(number) = self.machine.enter_run(self.index) else {
            return if self.machine.is_parked(self.index) {
                Want::Nothing
            } else {
                Want::Leave
            };
        };
        if number != self.run_number {
            self.prepare(number, start, cpu, frames);
        }
        self.machine.vcpus[self.index]
            .mailbox
            .empty_into(&mut self.local);
        if self.local.signalled() {
            self.take_signals(cpu, frames);
        }
        let platform = &mut Platform::new(self.machine, self.index, &mut self.local);
        platform.expire(now);
        platform.feed_console(self.machine.handle);
        if self.index == 0 {
            platform.look_while_halted(self.machine.handle, now);
        }
        let wakes = match self.activity {
            Activity::Parked | Activity::WaitForStartUp => false,
            Activity::Running => true,
            Activity::Halted(_) => platform.event_pending(),
            Activity::Dead => platform.nmi_pending(),
        };
        if !wakes {
            // Another vCPU of the guest, polled before, may have got something to do meanwhile.
            return if platform.yields {
                Want::Attention
            } else {
                Want::Nothing
            };
        }
        if let Activity::Halted(since) = self.activity {
            self.statistics.halted += now.saturating_sub(since);
        }
        self.activity = Activity::Running;
        Want::Run
    }

    /// Lets go of a run that is over. No other vCPU may be in the processor.
    #[cold]
    pub(crate) fn leave(&mut self, cpu: &mut V::Shell) {
        let run = &self.machine.run;
        let pauses = run.pauses.load(Ordering::Relaxed);
        if run.leaves_state.load(Ordering::Relaxed) {
            self.save(cpu);
        }
        if pauses {
            return self.machine.leave_run(self.index);
        }
        self.park(cpu);
        self.activity = Activity::Parked;
        self.machine.leave_run(self.index);
    }

    /// Leaves the vCPU's state, at the end of a run.
    #[cold]
    fn save(&mut self, cpu: &mut V::Shell) {
        let mailbox = &self.machine.vcpus[self.index].mailbox;
        mailbox.empty_into(&mut self.local);
        let activity = match self.activity {
            Activity::Parked | Activity::WaitForStartUp => ActivityV1::WaitForStartUp,
            Activity::Running => ActivityV1::Running,
            Activity::Halted(_) => ActivityV1::Halted,
            Activity::Dead => ActivityV1::Dead,
        };
        let processor = match (activity, &mut self.vcpu) {
            (ActivityV1::WaitForStartUp, _) | (_, None) => None,
            (_, Some(vcpu)) => {
                match vcpu
                    .activate(cpu, &self.machine.memory)
                    .and_then(|mut active| active.save())
                {
                    Ok(state) => Some(state),
                    Err(error) => {
                        // The lead finds that there is no state.
                        error!("{self}: its state cannot be read: {error}");
                        return;
                    }
                }
            }
        };
        *self.machine.vcpus[self.index].saved.lock() = Some(VirtualCpuStateV1 {
            activity,
            processor,
            local: self.local.save(),
            mailbox: mailbox.save(),
        });
    }

    /// Takes over a state that was left for the vCPU.
    fn restore(
        &mut self,
        state: &VirtualCpuStateV1,
        cpu: &mut V::Shell,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Result<(), StartFailure> {
        self.local = Local::restore(self.machine.local_apic(self.index), &state.local)?;
        self.activity = match (state.activity, &state.processor) {
            (ActivityV1::WaitForStartUp, _) => return Ok(()),
            (_, None) => return Err(StartFailure("the processor's state is missing".into())),
            (ActivityV1::Running, _) => Activity::Running,
            (ActivityV1::Halted, _) => Activity::Halted(tsc::read()),
            (ActivityV1::Dead, _) => Activity::Dead,
        };
        if let Some(processor) = &state.processor {
            self.try_reset(&StartState::RealMode { page: 0 }, cpu, frames)?;
            let offset = self.tsc_offset();
            if let Some(vcpu) = &mut self.vcpu {
                // SAFETY: the page tables are the machine's, which lives for good.
                unsafe { vcpu.restore(cpu, &self.machine.tables.lock(), offset, processor)? };
            }
        }
        Ok(())
    }

    /// What is added to the board's TSC for the guest to read.
    fn tsc_offset(&self) -> u64 {
        let offset = self.machine.origin().offset();
        self.local.tsc_adjust().wrapping_add(offset)
    }

    /// Makes the vCPU ready for a run, from a state that was left for it. Without such, the first one starts with the
    /// kernel, and the others wait.
    #[cold]
    fn prepare(
        &mut self,
        number: u64,
        start: Option<StartState>,
        cpu: &mut V::Shell,
        frames: &spin::Mutex<PhysicalMemory>,
    ) {
        self.park(cpu);
        self.run_number = number;
        self.told_dead = false;
        self.local = Local::new(self.machine.local_apic(self.index));
        self.statistics = Statistics::default();
        self.trace.clear();
        self.activity = Activity::WaitForStartUp;
        if let Some(state) = self.machine.vcpus[self.index].saved.lock().take() {
            if let Err(failure) = self.restore(&state, cpu, frames) {
                error!("{self}: cannot go on: {failure}");
                self.machine.end_run(Some(super::Ending::Crash));
            }
        } else if let Some(start) = start {
            self.reset(&start, cpu, frames);
            let ticks = tsc::read().wrapping_sub(self.machine.board.entry_tsc);
            info!(
                "boot: {ticks} ticks from entry to the first guest instruction of {}",
                self.machine.handle.name
            );
        }
    }

    /// INIT, and the start-up IPI that ends the wait after it.
    #[cold]
    fn take_signals(&mut self, cpu: &mut V::Shell, frames: &spin::Mutex<PhysicalMemory>) {
        if self.local.take_init() {
            self.park(cpu);
            let mailbox = &self.machine.vcpus[self.index].mailbox;
            mailbox.set_address(self.local.address());
            if self.index == 0 {
                // The bootstrap processor would go on in a BIOS, which resets what is left of the board.
                self.machine.end_run(Some(super::Ending::Reset));
            }
            self.activity = Activity::WaitForStartUp;
        }
        if let Some(page) = self.local.take_start_up()
            && self.activity == Activity::WaitForStartUp
        {
            self.reset(&StartState::RealMode { page }, cpu, frames);
        }
    }

    /// Puts the virtual processor into a start state, and lets it run.
    fn reset(
        &mut self,
        start: &StartState,
        cpu: &mut V::Shell,
        frames: &spin::Mutex<PhysicalMemory>,
    ) {
        match self.try_reset(start, cpu, frames) {
            Ok(()) => self.activity = Activity::Running,
            Err(failure) => {
                error!("{self}: cannot start: {failure}");
                self.machine.end_run(Some(super::Ending::Crash));
            }
        }
    }

    fn try_reset(
        &mut self,
        start: &StartState,
        cpu: &mut V::Shell,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Result<(), StartFailure> {
        let offset = self.tsc_offset();
        self.translations = None;
        let tables = self.machine.tables.lock();
        // SAFETY: the page tables are the machine's, which lives for good.
        unsafe {
            match self.vcpu.as_mut() {
                Some(vcpu) => vcpu.reset(cpu, &tables, offset, start)?,
                None => {
                    let tag = self.tag();
                    let frames = &mut *frames.lock();
                    let mut vcpu = V::new(cpu, &tables, tag, offset, start, frames)?;
                    if self.machine.has_apics() {
                        vcpu.provide_apic(cpu, frames)?;
                    }
                    self.vcpu = Some(vcpu);
                }
            }
        }
        Ok(())
    }

    /// A tag for cached translations that no other vCPU of the board has.
    fn tag(&self) -> u16 {
        (1 + self.machine.handle.index * config::Guest::VCPUS_MAX + self.index) as u16
    }

    /// Prints the vCPU's registers.
    fn dump(&mut self, cpu: &mut V::Shell) {
        let state = self.machine.handle.state();
        let doing = match (state, self.activity) {
            (GuestState::Running, Activity::Parked) => " (being made ready)",
            (_, Activity::Parked | Activity::Running) => "",
            (_, Activity::WaitForStartUp) => " (waits for its start)",
            (_, Activity::Halted(_)) => " (halted)",
            (_, Activity::Dead) => " (halted with interrupts off)",
        };
        match self.registers(cpu) {
            Some(registers) => {
                info!("{self}: {state}{doing}\n{}", registers);
            }
            None => info!("{self}: {state}{doing}, never started"),
        }
    }

    /// The registers as text; `None` if there are none yet.
    pub(super) fn registers(&mut self, cpu: &mut V::Shell) -> Option<Registers> {
        let vcpu = self.vcpu.as_mut()?;
        let dump = match vcpu.activate(cpu, &self.machine.memory) {
            Ok(active) => Some(active.registers()),
            Err(error) => {
                warn!("a virtual processor cannot be read: {error}");
                None
            }
        };
        vcpu.park(cpu);
        dump
    }

    /// Prints what the vCPU's exits were.
    fn print_statistics(&self) {
        info!("{self}: {}", self.statistics);
        if self.index == 0 {
            // Copied, for the guest's other vCPUs wait for the devices as long as they are locked.
            let ports: Vec<_> = self.machine.devices.lock().unclaimed().collect();
            for (port, count) in ports {
                let name = &self.machine.handle.name;
                info!("{name}: port {port:#06x}: nobody there, {count} accesses");
            }
        }
    }
}

/// The vCPU's name in messages.
impl<V> fmt::Display for VirtualCpu<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} vcpu {}", self.machine.handle.name, self.index)
    }
}

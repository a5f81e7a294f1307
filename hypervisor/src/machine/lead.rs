//! The life of a guest: start, end, and start again. One processor leads it, the owner of vCPU 0; the others let go of
//! the guest when its run is over, and this one waits for that before it touches what they share.

mod pauses;

use super::capture::{Progress, Taking};
use super::origin::Origin;
use super::tracking::Pass;
use super::{ACPI_TABLES, Ending, Machine, StartFailure, frozen};
use crate::guest::{Command, GuestState};
use crate::loader::{Loaded, Module, linux, multiboot};
use crate::memory::{GuestMemory, PhysicalMemory};
use alloc::vec::Vec;
use config::{ImageFormat, OnCrash, Watchdog};
use core::sync::atomic::Ordering;
use devices::{Pc, Ticks};
use drivers::tsc;
use log::{error, info, warn};
use vcpu::StartState;

/// A guest that crashes, resets itself or hangs starts again at most once in this many seconds, so that one
/// that does so at once does not keep its processor busy with loading it.
const RESTART_INTERVAL_SECONDS: u64 = 5;

/// Bytes of memory zeroed or copied in one step toward a guest's start: a microsecond or less, in which
/// nobody else gets the processor.
const STEP: u64 = 4 << 10;

/// Where a guest is between two runs.
#[derive(Debug, Default)]
enum Stage {
    /// No run, and none to come.
    #[default]
    Idle,
    /// A run is under way.
    Running,
    /// The run is over; its vCPUs are being parked. Then comes something else.
    Ending(Next),
    /// Memory is being zeroed, up to this address.
    Scrubbing(u64),
    /// The kernel is being copied.
    Loading(Loaded<'static>),
    /// The next start is put off until this TSC of the board.
    Waiting(u64),
    /// Memory is being kept aside, up to this address.
    Keeping(u64),
    /// Memory that was kept is being erased, up to this address.
    Erasing(u64),
    /// Memory that was kept is being put back, up to this address.
    PuttingBack(u64),
    /// A look is taken at the pages that the guest writes, while the run is interrupted, if there is one.
    Tracking {
        pass: Pass,
        /// Whether captures are possible behind it, if it is for their sake.
        captures: Option<bool>,
    },
    /// The run is interrupted, since this TSC of the board: the guest waits for its next capture.
    Halted(u64),
    /// A capture is taken, while the run is interrupted.
    Capturing(Taking),
    /// The guest stands still behind its last checkpoint, with the run interrupted.
    Standing,
}

/// What comes after the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// What the guest wanted as it ended the run.
    Nothing,
    /// Nothing, whatever the guest wanted.
    Stop,
    Start,
    Freeze,
}

/// What came of a step.
pub(super) enum Step {
    /// Nothing is to be done now.
    Nothing,
    /// There is more to do at once.
    More,
    /// A run begins, with vCPU 0 in this state, or with all of them in the states that were left for them.
    Begin(Option<StartState>),
}

/// The leader of a guest.
#[derive(Debug, Default)]
pub(super) struct Lead {
    stage: Stage,
    runs: u64,
    /// How far the disks are filled: those before this one, and of it up to this byte.
    filled: (usize, u64),
    /// The memory of a guest that is frozen, or was once.
    store: Option<GuestMemory>,
    /// The rest of the state of a guest that is frozen.
    frozen: Option<Vec<u8>>,
}

impl Lead {
    /// Starts the guest afresh, whatever it does now.
    pub(super) fn start(&mut self, machine: &Machine) {
        self.leave_capture(machine);
        machine.end_run(None);
        self.frozen = None;
        self.stage = Stage::Ending(Next::Start);
        machine.run.starts.store(true, Ordering::Relaxed);
        machine.handle.set_state(GuestState::Running);
    }

    fn stop(&mut self, machine: &Machine) {
        self.leave_capture(machine);
        machine.end_run(None);
        if machine.handle.state() == GuestState::Running {
            info!("{}: stopped", machine.handle.name);
        }
        self.frozen = None;
        self.stage = Stage::Ending(Next::Stop);
    }

    /// Keeps the guest's whole state aside.
    fn freeze(&mut self, machine: &Machine, frames: &spin::Mutex<PhysicalMemory>) {
        let name = &machine.handle.name;
        if let Stage::Capturing(_) | Stage::Standing = self.stage {
            return info!("{name}: is being captured");
        }
        if !matches!(self.stage, Stage::Running) || machine.handle.state() != GuestState::Running {
            return info!("{name}: does not run");
        }
        if self.store.is_none() {
            match machine.memory_like_its(frames) {
                Ok(store) => self.store = Some(store),
                Err(failure) => return error!("{name}: cannot be frozen: {failure}"),
            }
        }
        machine.freeze_run();
        self.stage = Stage::Ending(Next::Freeze);
    }

    /// Lets a frozen guest go on.
    fn thaw(&mut self, machine: &Machine) {
        if machine.handle.state() != GuestState::Frozen {
            return info!("{}: is not frozen", machine.handle.name);
        }
        self.stage = Stage::PuttingBack(0);
        machine.handle.set_state(GuestState::Running);
    }

    /// Whether the next order must wait.
    pub(super) const fn is_busy(&self) -> bool {
        matches!(self.stage, Stage::Tracking { .. })
    }

    /// Does what the operator wants of the guest as a whole.
    pub(super) fn command(
        &mut self,
        machine: &Machine,
        command: Command,
        frames: &spin::Mutex<PhysicalMemory>,
    ) {
        let running = matches!(
            machine.handle.state(),
            GuestState::Running | GuestState::Restarting
        );
        match command {
            Command::Start if machine.handle.state() == GuestState::Frozen => {
                info!("{}: is frozen: thaw it, or restart it", machine.handle.name);
            }
            Command::Start if running => info!("{}: runs already", machine.handle.name),
            Command::Start | Command::Restart => self.start(machine),
            Command::Stop => self.stop(machine),
            Command::Freeze => self.freeze(machine, frames),
            Command::Thaw => self.thaw(machine),
            Command::Track(wanted) => self.track(machine, wanted),
            Command::Hang => loop {
                core::hint::spin_loop();
            },
            // For each vCPU.
            Command::Dump | Command::Statistics | Command::Trace => {}
        }
    }

    /// When, in the board's TSC, there is something to do although nobody asks.
    pub(super) fn next_event(&self) -> Option<u64> {
        match self.stage {
            Stage::Waiting(at) => Some(at),
            _ => None,
        }
    }

    /// Does what is to be done now, in a step of some microseconds at most.
    #[inline(always)]
    pub(super) fn step(
        &mut self,
        machine: &'static Machine,
        now: u64,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Step {
        match self.stage {
            Stage::Running if machine.is_running() && !machine.captures.is_wanted() => {
                Step::Nothing
            }
            _ => self.change(machine, now, frames),
        }
    }

    #[cold]
    fn change(
        &mut self,
        machine: &'static Machine,
        now: u64,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Step {
        match &mut self.stage {
            Stage::Idle => {
                self.capture(machine);
                match self.stage {
                    Stage::Idle => self.wake(machine),
                    _ => Step::More,
                }
            }
            Stage::Running if machine.is_running() => {
                self.capture(machine);
                Step::Nothing
            }
            Stage::Running => {
                self.stage = Stage::Ending(Next::Nothing);
                Step::More
            }
            Stage::Capturing(taking) => {
                if !machine.is_quiet() || !machine.captures.has_frames() {
                    return Step::Nothing;
                }
                match taking.step(machine) {
                    Progress::More => Step::More,
                    Progress::Stalled => Step::Nothing,
                    Progress::Done => {
                        self.go_on(machine);
                        Step::Nothing
                    }
                    Progress::Stands => {
                        self.stage = Stage::Standing;
                        Step::Nothing
                    }
                }
            }
            Stage::Halted(_) => {
                if machine.is_quiet() {
                    self.halted(machine);
                }
                match self.stage {
                    Stage::Halted(_) => Step::Nothing,
                    // No vCPU is on its way out, which would have the processor look again.
                    _ => Step::More,
                }
            }
            Stage::Standing => {
                if !machine.captures.keep_standing() {
                    let now = machine.time();
                    machine.devices.lock().excuse_absence(now);
                    machine.go_on();
                    self.go_on(machine);
                }
                Step::Nothing
            }
            Stage::Ending(next) => {
                let next = *next;
                // Its own vCPU is parked by the poll that this step is part of.
                if !machine.is_quiet() {
                    return Step::Nothing;
                }
                let ending = machine.run.ending.lock().take();
                self.stage = Stage::Idle;
                machine.run.pauses.store(false, Ordering::Relaxed);
                machine.leave_network(next == Next::Freeze && ending.is_none());
                match (next, ending) {
                    (Next::Start, _) => self.stage = Stage::Scrubbing(0),
                    // Only now: nobody touches it from here on.
                    (Next::Stop, _) => machine.handle.set_state(GuestState::Stopped),
                    (_, Some(ending)) => self.ended(machine, ending),
                    (Next::Freeze, None) => self.stage = Stage::Keeping(0),
                    (Next::Nothing, None) => {}
                }
                Step::More
            }
            Stage::Waiting(at) => {
                if *at > now {
                    return Step::Nothing;
                }
                info!("{}: restarting", machine.handle.name);
                self.start(machine);
                Step::More
            }
            Stage::Tracking { pass, .. } => {
                if !machine.is_quiet() {
                    return Step::Nothing;
                }
                if pass.step(machine, frames) {
                    self.tracked(machine);
                }
                Step::More
            }
            Stage::Scrubbing(_)
            | Stage::Loading(_)
            | Stage::Keeping(_)
            | Stage::Erasing(_)
            | Stage::PuttingBack(_) => match self.make_ready(machine) {
                Ok(step) => step,
                Err(failure) => {
                    self.stage = Stage::Idle;
                    machine.handle.set_state(GuestState::Crashed);
                    error!("{}: cannot go on: {failure}", machine.handle.name);
                    Step::More
                }
            },
        }
    }

    /// Another step toward the start, or toward being frozen or thawed: zeroes or copies a piece, and does what is next
    /// once all is there.
    fn make_ready(&mut self, machine: &'static Machine) -> Result<Step, StartFailure> {
        let memory = &machine.memory;
        let piece = |from: u64| from..(from + STEP).min(memory.size());
        match (&mut self.stage, &self.store) {
            (Stage::Scrubbing(from) | Stage::Erasing(from), _) if *from < memory.size() => {
                memory.scrub(piece(*from));
                *from += STEP;
            }
            (Stage::Keeping(from), Some(store)) if *from < memory.size() => {
                store.copy_from(memory, piece(*from));
                *from += STEP;
            }
            (Stage::PuttingBack(from), Some(store)) if *from < memory.size() => {
                memory.copy_from(store, piece(*from));
                *from += STEP;
            }
            (Stage::Loading(loading), _) => {
                if let Some(start) = loading.step(memory, STEP as usize)? {
                    let now = tsc::read();
                    machine.forget_saved();
                    info!("{}: started", machine.handle.name);
                    return Ok(self.begin(
                        machine,
                        machine.new_devices(now),
                        Origin::of(Ticks(0), now),
                        Some(start),
                    ));
                }
            }
            (Stage::Keeping(_), _) => {
                self.frozen = Some(frozen::save(machine)?);
                self.stage = Stage::Erasing(0);
            }
            (Stage::Erasing(_), _) => {
                *machine.devices.lock() = machine.new_devices(0);
                self.stage = Stage::Idle;
                let size = self.frozen.as_ref().map_or(0, Vec::len);
                info!(
                    "{}: frozen, {size} bytes beside its memory",
                    machine.handle.name
                );
                machine.handle.set_state(GuestState::Frozen);
            }
            (Stage::PuttingBack(_), _) => {
                let state = self.frozen.take().unwrap_or_default();
                let devices = frozen::restore(machine, &state)?;
                info!("{}: thawed", machine.handle.name);
                // Its clock went on meanwhile.
                return Ok(self.begin(machine, devices, machine.origin(), None));
            }
            _ => {
                if !self.fill_disks(machine)? {
                    self.stage = Stage::Loading(load(machine)?);
                }
            }
        }
        Ok(Step::More)
    }

    fn begin(
        &mut self,
        machine: &'static Machine,
        devices: Pc,
        origin: Origin,
        start: Option<StartState>,
    ) -> Step {
        self.runs += 1;
        self.stage = Stage::Running;
        machine.begin_run(self.runs, devices, origin, false);
        Step::Begin(start)
    }

    /// Lets the guest go on from the state that was left for it.
    fn wake(&mut self, machine: &'static Machine) -> Step {
        let Some(awakening) = machine.awakening.lock().take() else {
            return Step::Nothing;
        };
        let name = &machine.handle.name;
        if !matches!(self.stage, Stage::Idle) || !machine.is_at_rest() {
            error!(
                "{name}: cannot be resumed: it is {}",
                machine.handle.state()
            );
            return Step::Nothing;
        }
        let devices = match frozen::restore(machine, &awakening.state) {
            Ok(devices) => devices,
            Err(failure) => {
                error!("{name}: cannot be resumed: {failure}");
                machine.handle.set_state(GuestState::Crashed);
                return Step::Nothing;
            }
        };
        let origin = awakening.origin(devices.clock_hz());
        // Its disks hold what they held there.
        self.filled = (machine.disks.len(), 0);
        self.runs += 1;
        self.stage = Stage::Running;
        machine.handle.set_state(GuestState::Running);
        info!("{name}: resumed");
        machine.begin_run(self.runs, devices, origin, true);
        Step::Begin(None)
    }

    /// Fills a piece of a disk; whether there was something to fill.
    fn fill_disks(&mut self, machine: &Machine) -> Result<bool, StartFailure> {
        let (number, from) = self.filled;
        let Some(disk) = machine.disks.get(number) else {
            return Ok(false);
        };
        self.filled = match disk.fill(from, STEP)? {
            Some(next) => (number, next),
            None => (number + 1, 0),
        };
        Ok(true)
    }

    /// The guest ended its run.
    fn ended(&mut self, machine: &Machine, ending: Ending) {
        let name = &machine.handle.name;
        match (ending, machine.config.on_crash) {
            (Ending::PowerOff, _) => {
                info!("{name}: powered off");
                machine.handle.set_state(GuestState::Off);
            }
            (Ending::Crash, OnCrash::Stop) => machine.handle.set_state(GuestState::Crashed),
            (Ending::Crash, OnCrash::Restart) => self.start_again(machine),
            (Ending::Reset, _) => {
                info!("{name}: reset by the guest");
                self.start_again(machine);
            }
            (Ending::Watchdog(policy), _) => {
                warn!("{name}: its watchdog has expired: {}", policy.name());
                if policy == Watchdog::Failover {
                    crate::mirror::give_way();
                }
                // As the other board has it, it hangs, too.
                self.start_again(machine);
            }
        }
    }

    /// Starts the guest again: at once if it has run for a while, else later.
    fn start_again(&mut self, machine: &Machine) {
        let interval = Ticks(RESTART_INTERVAL_SECONDS * machine.board.tsc_hz);
        let earliest = machine.origin().tsc(interval);
        if earliest <= tsc::read() {
            self.start(machine);
        } else {
            self.stage = Stage::Waiting(earliest);
            machine.handle.set_state(GuestState::Restarting);
        }
    }
}

/// Checks the kernel and its files and finds room for them.
fn load(machine: &'static Machine) -> Result<Loaded<'static>, StartFailure> {
    let config = &machine.config;
    let image = machine.module(config.image)?;
    let mut files = Vec::new();
    for module in &config.modules {
        files.push(Module {
            bytes: machine.module(module.image)?,
            command_line: &module.command_line,
        });
    }
    let (command_line, memory) = (&config.command_line, &machine.memory);
    Ok(match config.format {
        ImageFormat::Multiboot => multiboot::load(image, command_line, &files, memory)?,
        ImageFormat::Linux => {
            if let Some(tables) = &machine.acpi {
                memory.write(ACPI_TABLES, &tables.bytes)?;
            }
            let rsdp = machine.acpi.as_ref().map(|tables| tables.rsdp);
            linux::load(image, command_line, &files, rsdp, memory)?
        }
    })
}

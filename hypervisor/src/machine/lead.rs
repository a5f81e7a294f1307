//! The life of a guest: start, end, and start again. One processor leads it, the owner of vCPU 0; the others let go of
//! the guest when its run is over, and this one waits for that before it touches what they share.

use super::{ACPI_TABLES, Ending, Machine, StartFailure};
use crate::guest::{Command, GuestState};
use crate::loader::{Loaded, Module, linux, multiboot};
use alloc::vec::Vec;
use config::{ImageFormat, OnCrash};
use drivers::tsc;
use log::{error, info};
use vmx::StartState;

/// A guest that crashes or resets itself starts again at most once in this many seconds, so that one
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
    /// The run is over; its vCPUs are being parked. Then a new one is wanted or not.
    Ending { start: bool },
    /// Memory is being zeroed, up to this address.
    Scrubbing(u64),
    /// The kernel is being copied.
    Loading(Loaded<'static>),
    /// The next start is put off until this TSC of the board.
    Waiting(u64),
}

/// What came of a step.
pub(super) enum Step {
    /// Nothing is to be done now.
    Nothing,
    /// There is more to do at once.
    More,
    /// A run begins, with vCPU 0 in this state.
    Begin(StartState),
}

/// The leader of a guest.
#[derive(Debug, Default)]
pub(super) struct Lead {
    stage: Stage,
    runs: u64,
}

impl Lead {
    /// Starts the guest afresh, whatever it does now.
    pub(super) fn start(&mut self, machine: &Machine) {
        machine.end_run(None);
        self.stage = Stage::Ending { start: true };
        machine.handle.set_state(GuestState::Running);
    }

    fn stop(&mut self, machine: &Machine) {
        machine.end_run(None);
        if machine.handle.state() == GuestState::Running {
            info!("{}: stopped", machine.handle.name);
        }
        self.stage = Stage::Ending { start: false };
        machine.handle.set_state(GuestState::Stopped);
    }

    /// Does what the operator wants of the guest as a whole.
    pub(super) fn command(&mut self, machine: &Machine, command: Command) {
        let running = matches!(
            machine.handle.state(),
            GuestState::Running | GuestState::Restarting
        );
        match command {
            Command::Start if running => info!("{}: runs already", machine.handle.name),
            Command::Start | Command::Restart => self.start(machine),
            Command::Stop => self.stop(machine),
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
    pub(super) fn step(&mut self, machine: &'static Machine, now: u64) -> Step {
        match &mut self.stage {
            Stage::Idle => Step::Nothing,
            Stage::Running => {
                if machine.is_running() {
                    return Step::Nothing;
                }
                self.stage = Stage::Ending { start: false };
                Step::More
            }
            Stage::Ending { start } => {
                let start = *start;
                // Its own vCPU is parked by the poll that this step is part of.
                if !machine.is_quiet() {
                    return Step::Nothing;
                }
                let ending = machine.run.ending.lock().take();
                match ending {
                    _ if start => self.stage = Stage::Scrubbing(0),
                    Some(ending) => self.ended(machine, ending),
                    None => self.stage = Stage::Idle,
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
            Stage::Scrubbing(_) | Stage::Loading(_) => match self.make_ready(machine) {
                Ok(step) => step,
                Err(failure) => {
                    self.stage = Stage::Idle;
                    machine.handle.set_state(GuestState::Crashed);
                    error!("{}: cannot start: {failure}", machine.handle.name);
                    Step::More
                }
            },
        }
    }

    /// Another step toward the start: zeroes or copies a piece, and begins the run once all is there.
    fn make_ready(&mut self, machine: &'static Machine) -> Result<Step, StartFailure> {
        match &mut self.stage {
            Stage::Scrubbing(from) if *from < machine.memory.size() => {
                let end = (*from + STEP).min(machine.memory.size());
                machine.memory.scrub(*from..end);
                *from = end;
                Ok(Step::More)
            }
            Stage::Loading(loading) => {
                let Some(start) = loading.step(&machine.memory, STEP as usize)? else {
                    return Ok(Step::More);
                };
                self.runs += 1;
                self.stage = Stage::Running;
                info!("{}: started", machine.handle.name);
                machine.begin_run(self.runs, tsc::read());
                Ok(Step::Begin(start))
            }
            _ => {
                self.stage = Stage::Loading(load(machine)?);
                Ok(Step::More)
            }
        }
    }

    /// The guest ended its run.
    fn ended(&mut self, machine: &Machine, ending: Ending) {
        let name = &machine.handle.name;
        match (ending, machine.config.on_crash) {
            (Ending::PowerOff, _) => {
                info!("{name}: powered off");
                self.stage = Stage::Idle;
                machine.handle.set_state(GuestState::Off);
            }
            (Ending::Crash, OnCrash::Stop) => {
                self.stage = Stage::Idle;
                machine.handle.set_state(GuestState::Crashed);
            }
            (Ending::Crash, OnCrash::Restart) => self.start_again(machine),
            (Ending::Reset, _) => {
                info!("{name}: reset by the guest");
                self.start_again(machine);
            }
        }
    }

    /// Starts the guest again: at once if it has run for a while, else later.
    fn start_again(&mut self, machine: &Machine) {
        let began = machine.run.base.load(core::sync::atomic::Ordering::Relaxed);
        let earliest = began.saturating_add(RESTART_INTERVAL_SECONDS * machine.board.tsc_hz);
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

//! What the lead does while the run is interrupted: it looks for the pages that the guest writes, and takes captures.

use super::{Lead, Stage};
use crate::cpu;
use crate::guest::Tracking;
use crate::machine::Machine;
use crate::machine::capture::{Missed, Taking, Wanted};
use crate::machine::tracking::Pass;
use core::sync::atomic::Ordering;
use drivers::tsc;
use log::info;

impl Lead {
    /// Nothing comes of a capture that is being taken: the guest is to do something else.
    pub(super) fn leave_capture(&self, machine: &Machine) {
        let captures = &machine.captures;
        if matches!(self.stage, Stage::Capturing(_)) || captures.is_checkpoint_wanted() {
            machine
                .captures
                .refuse(Missed::NotRunning(machine.handle.state()));
        }
    }

    /// Goes through the guest's memory for the tracking of its writes.
    pub(super) fn track(&mut self, machine: &Machine, wanted: Tracking) {
        match self.stage {
            Stage::Running | Stage::Idle if machine.captures.are_on() => {
                info!("{}: is tracked for its captures", machine.handle.name);
            }
            Stage::Running | Stage::Idle => {
                if let Some(pass) = Pass::new(machine, wanted) {
                    if matches!(self.stage, Stage::Running) {
                        machine.pause_run(false);
                    }
                    self.stage = Stage::Tracking {
                        pass,
                        captures: None,
                    };
                }
            }
            Stage::Capturing(_) | Stage::Standing => {
                info!("{}: is being captured", machine.handle.name);
            }
            _ => info!("{}: is being made ready", machine.handle.name),
        }
    }

    /// A pass for the tracking of writes is done.
    pub(super) fn tracked(&mut self, machine: &'static Machine) {
        if let Stage::Tracking { pass, captures } = core::mem::take(&mut self.stage) {
            pass.report(machine);
            match captures {
                Some(on) if machine.tables.lock().tracking().is_some() == on => {
                    machine.captures.turn(on, machine);
                }
                Some(_) => machine.captures.refuse(Missed::Untracked),
                None => {}
            }
        }
        self.go_on(machine);
    }

    /// The run, if there is one, goes on after an interruption, unless it has ended meanwhile.
    pub(super) fn go_on(&mut self, machine: &'static Machine) {
        self.stage = Stage::Idle;
        let ending = machine.run.ending.lock().take();
        if let Some(ending) = ending {
            machine.run.pauses.store(false, Ordering::Relaxed);
            machine.leave_network(false);
            self.ended(machine, ending);
        } else if machine.run.pauses.load(Ordering::Relaxed) {
            self.stage = Stage::Running;
            machine.resume_run(self.runs);
        }
        // For the orders that have waited.
        cpu::attend(machine.vcpus[0].cpu);
    }

    /// Sees whether the run may be interrupted no longer, or for something else. Its vCPUs are parked.
    pub(super) fn halted(&mut self, machine: &'static Machine) {
        if machine.run.ending.lock().is_some() || !machine.captures.is_bounded() {
            return self.go_on(machine);
        }
        self.capture(machine);
    }

    /// Begins a capture, if one is wanted.
    pub(super) fn capture(&mut self, machine: &'static Machine) {
        let Some(wanted) = machine.captures.take_wanted() else {
            return;
        };
        let (runs, since) = match self.stage {
            Stage::Running => (true, tsc::read()),
            Stage::Halted(since) => (true, since),
            _ => (false, tsc::read()),
        };
        let on = match wanted {
            Wanted::Halt => {
                // A checkpoint may have come first.
                if matches!(self.stage, Stage::Running) && machine.overflows() {
                    machine.pause_run(true);
                    self.stage = Stage::Halted(since);
                }
                return;
            }
            Wanted::Checkpoint if !runs => {
                let missed = Missed::NotRunning(machine.handle.state());
                return machine.captures.refuse(missed);
            }
            Wanted::Checkpoint | Wanted::Survey => {
                if runs {
                    machine.pause_run(wanted == Wanted::Checkpoint);
                }
                self.stage = Stage::Capturing(Taking::new(wanted, since));
                return;
            }
            Wanted::Begin => true,
            Wanted::End => false,
        };
        let tracked = machine.tables.lock().tracking().is_some();
        if tracked == on {
            return machine.captures.turn(on, machine);
        }
        if runs {
            machine.pause_run(false);
        }
        self.stage = Stage::Tracking {
            pass: Pass::for_captures(on),
            captures: Some(on),
        };
    }
}

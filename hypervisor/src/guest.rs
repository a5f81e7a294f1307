//! Guests as every processor sees them: names, states, and the mailboxes to their owners.
//!
//! Each vCPU of a guest is owned by one processor ([`crate::machine`]). Everybody else
//! holds a [`GuestHandle`]: console bytes and commands go in, the state can be read.

use crate::console::{HISTORY_SIZE, History};
use crate::machine::Machine;
use crate::mirror::Outputs;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use config::MirrorMode;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use drivers::tsc;
use spin::{Mutex, Once};

/// Where a guest is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum GuestState {
    /// Never started, or stopped by the operator.
    Stopped = 0,
    /// Runs, or waits for an event.
    Running = 1,
    /// Powered itself off.
    Off = 2,
    /// Did something it cannot go on from.
    Crashed = 3,
    /// Crashed or reset itself, and is about to start again.
    Restarting = 4,
    /// Its state is kept, to go on from.
    Frozen = 5,
}

impl GuestState {
    const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Running,
            2 => Self::Off,
            3 => Self::Crashed,
            4 => Self::Restarting,
            5 => Self::Frozen,
            _ => Self::Stopped,
        }
    }
}

impl fmt::Display for GuestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Off => "off",
            Self::Crashed => "crashed",
            Self::Restarting => "restarting",
            Self::Frozen => "frozen",
        })
    }
}

/// What a guest's owner is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Start,
    Stop,
    Restart,
    /// Keep the guest's whole state, and nothing of the guest beside.
    Freeze,
    /// Let the guest go on from there.
    Thaw,
    Track(Tracking),
    Dump,
    Statistics,
    Trace,
    /// Let its processor hang, as a defect of the hypervisor would.
    Hang,
}

/// What is wanted of the tracking of a guest's writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracking {
    /// To tell how many pages were written since the last time; or to begin.
    Report,
    /// The same, with a list of the pages.
    List,
    /// To begin, by write protection even where the processor notes writes itself.
    Protect,
    Off,
}

impl Command {
    /// Whether it is for each vCPU, not for the guest as a whole.
    const fn for_each_vcpu(self) -> bool {
        matches!(self, Self::Dump | Self::Statistics | Self::Trace)
    }
}

/// A guest as every processor sees it.
pub(crate) struct GuestHandle {
    pub(crate) index: usize,
    pub(crate) name: String,
    /// The processor of each vCPU.
    pub(crate) cpus: Vec<usize>,
    pub(crate) memory: u64,
    /// Its machine, once that is made; `None` if it could not be.
    pub(crate) machine: Once<Option<&'static Machine>>,
    state: AtomicU8,
    /// For the owner of each vCPU.
    commands: Vec<Mutex<VecDeque<Command>>>,
    input: Mutex<VecDeque<u8>>,
    input_waits: AtomicBool,
    network_waits: AtomicBool,
    /// Whether its timers come before its frames.
    pub(crate) urgent: bool,
    /// When, in the board's TSC, the next timer of an urgent guest is due, or the last one was.
    timer: AtomicU64,
    pub(crate) history: Mutex<History>,
    /// What it puts out may have to be held, if its state is mirrored.
    pub(crate) outputs: Option<Outputs>,
}

/// What was typed ahead for a guest, at most.
const INPUT_MAX: usize = 4096;
/// Commands that may wait for a guest's owner.
const COMMANDS_MAX: usize = 16;

/// TSC ticks before a timer in which an urgent guest is not told of frames: what it takes to see to one, with the answer that the guest
/// sends and the halt behind it.
pub(crate) const ARRIVAL_NEAR: u64 = 9_000;
/// TSC ticks before a timer in which its devices do none of the work that can wait: about twice what it takes to send a frame.
pub(crate) const WORK_NEAR: u64 = 5_000;
/// TSC ticks after one in which both wait, too: what the guest does first is not held up.
pub(crate) const TIMER_QUIET: u64 = 3_000;

static GUESTS: Once<Vec<GuestHandle>> = Once::new();

/// Every guest of the board, in the order of the board file.
pub(crate) fn all() -> &'static [GuestHandle] {
    GUESTS.get().map_or(&[], Vec::as_slice)
}

/// The guest with this name.
pub(crate) fn find(name: &str) -> Option<&'static GuestHandle> {
    all().iter().find(|guest| guest.name == name)
}

/// Sets up the handles. Later calls change nothing.
pub(crate) fn register(guests: &[config::Guest]) {
    GUESTS.call_once(|| {
        guests
            .iter()
            .enumerate()
            .map(|(index, guest)| {
                let mut history = History::new();
                history.allocate(HISTORY_SIZE);
                GuestHandle {
                    index,
                    name: guest.name.clone(),
                    cpus: guest.cpus.iter().map(|cpu| *cpu as usize).collect(),
                    memory: guest.memory,
                    machine: Once::new(),
                    state: AtomicU8::new(GuestState::Stopped as u8),
                    commands: guest
                        .cpus
                        .iter()
                        .map(|_| Mutex::new(VecDeque::with_capacity(COMMANDS_MAX)))
                        .collect(),
                    input: Mutex::new(VecDeque::with_capacity(INPUT_MAX)),
                    input_waits: AtomicBool::new(false),
                    network_waits: AtomicBool::new(false),
                    urgent: guest.nics.iter().any(|nic| nic.urgent),
                    timer: AtomicU64::new(0),
                    history: Mutex::new(history),
                    outputs: guest
                        .mirror
                        .filter(|mirror| mirror.mode == MirrorMode::Warm)
                        .map(|_| Outputs::new()),
                }
            })
            .collect()
    });
}

impl GuestHandle {
    pub(crate) fn state(&self) -> GuestState {
        GuestState::from_u8(self.state.load(Ordering::Acquire))
    }

    /// For the owner only.
    pub(crate) fn set_state(&self, state: GuestState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Asks the owners of the guest's vCPUs; `false` when too much waits already.
    pub(crate) fn command(&self, command: Command) -> bool {
        let vcpus = if command.for_each_vcpu() {
            self.cpus.len()
        } else {
            1
        };
        let mut taken = true;
        for (commands, cpu) in self.commands.iter().zip(&self.cpus).take(vcpus) {
            let mut commands = commands.lock();
            if commands.len() == COMMANDS_MAX {
                taken = false;
                continue;
            }
            commands.push_back(command);
            drop(commands);
            crate::cpu::attend(*cpu);
        }
        taken
    }

    /// For the owner of a vCPU: the next command.
    pub(crate) fn next_command(&self, vcpu: usize) -> Option<Command> {
        self.commands.get(vcpu)?.lock().pop_front()
    }

    /// The processor that leads the guest.
    fn lead_cpu(&self) -> usize {
        self.cpus.first().copied().unwrap_or(0)
    }

    /// A byte for the guest's console; what exceeds the type-ahead is dropped.
    pub(crate) fn type_byte(&self, byte: u8) {
        let mut input = self.input.lock();
        if input.len() < INPUT_MAX {
            input.push_back(byte);
        }
        drop(input);
        self.input_waits.store(true, Ordering::Release);
        crate::cpu::attend(self.lead_cpu());
    }

    /// For the owner: whether typed bytes wait.
    pub(crate) fn input_waits(&self) -> bool {
        self.input_waits.load(Ordering::Acquire)
    }

    /// For the owner: takes up to `into.len()` typed bytes; returns how many.
    pub(crate) fn take_input(&self, into: &mut [u8]) -> usize {
        let mut input = self.input.lock();
        let count = into.len().min(input.len());
        for (slot, byte) in into.iter_mut().zip(input.drain(..count)) {
            *slot = byte;
        }
        self.input_waits.store(!input.is_empty(), Ordering::Release);
        count
    }

    /// Something has come for a network card of the guest's. Returns whether its owner is to be told: that of an urgent guest
    /// looks by itself after a timer that is due about now.
    pub(crate) fn note_network(&self) -> bool {
        self.network_waits.store(true, Ordering::SeqCst);
        // Only now: a look that the owner has had already is not counted on.
        !self.is_about_due(tsc::read(), ARRIVAL_NEAR)
    }

    /// Whether a timer of an urgent guest is due within `near` ticks, or is just being seen to: work for its network waits
    /// meanwhile, and so never makes a timer late.
    pub(crate) fn is_about_due(&self, now: u64, near: u64) -> bool {
        is_around(self.timer.load(Ordering::SeqCst), now, near)
    }

    /// For the owner of an urgent guest, which looks at the network once it has seen to a timer: when the next one is due, 0 if
    /// none is.
    pub(crate) fn set_timer(&self, at: u64) {
        self.timer.store(at, Ordering::SeqCst);
    }

    /// For the owner: whether something has come for a network card since [`GuestHandle::take_network`].
    #[inline]
    pub(crate) fn network_waits(&self) -> bool {
        self.network_waits.load(Ordering::Relaxed)
    }

    /// For the owner, before it looks at the cards.
    pub(crate) fn take_network(&self) {
        self.network_waits.swap(false, Ordering::AcqRel);
    }
}

/// Whether a time is no more than `near` ticks before a timer, at it, or less than [`TIMER_QUIET`] after it.
const fn is_around(timer: u64, now: u64, near: u64) -> bool {
    now.wrapping_add(near).wrapping_sub(timer) < near + TIMER_QUIET
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_waits_around_a_timer() {
        const TIMER: u64 = 1_000_000;
        for near in [WORK_NEAR, ARRIVAL_NEAR] {
            let around = |now| is_around(TIMER, now, near);
            assert!(!around(TIMER - near - 1) && around(TIMER - near));
            assert!(around(TIMER) && around(TIMER + TIMER_QUIET - 1));
            assert!(!around(TIMER + TIMER_QUIET));
            // None is due, and the board has just started.
            assert!(!is_around(0, TIMER, near) && is_around(near, 1, near));
        }
    }
}

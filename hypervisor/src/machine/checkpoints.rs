//! Checkpoints of guests that are kept on the same board: what a guest was at the last one takes its place when the
//! operator wants. The first processor tends them, in turns.

use super::capture::{Capture, Missed, PageId, Wanted};
use super::understudy::Understudy;
use super::{Figures, Machine, StartFailure};
use crate::guest::GuestHandle;
use crate::memory::PhysicalMemory;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use drivers::tsc;
use log::{error, info};
use spin::Mutex;
use vcpu::FRAME_SIZE;

/// Pages that can be copied in one pause; more wait for those to be taken.
const POOL: usize = 1024;
/// Pages that are put aside or back in a turn.
const TURN: usize = 16;
/// Pages that are compared in a turn, which takes longer.
const AUDIT: u64 = 4;
/// Microseconds between two turns while there is something to do.
const PAUSE_MICROSECONDS: u64 = 10;

/// What the operator wants of a guest's checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// One, or one each so many milliseconds.
    Take { every: Option<u64> },
    /// No more, and to forget the last one.
    Off,
    /// To let the guest go on from the last one; perhaps with a look whether all of it is there.
    Revert { audit: bool },
}

/// What a keeper is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The guest is copied a first time.
    Beginning,
    /// Nothing is under way.
    Resting,
    Taking,
    /// The guest is being stopped, to be reverted.
    Stopping,
    /// What it wrote since is put back.
    Reverting,
    /// All of it is compared, from this page on; so many differed.
    Auditing {
        next: PageId,
        differ: u64,
    },
    /// The tracking of the guest's writes ends.
    Ending,
    /// Nothing is kept; there is room for it.
    Off,
}

/// The last checkpoint of a guest.
struct Kept {
    state: Vec<u8>,
    guest_time: u64,
}

/// Who keeps a guest's checkpoints.
struct Keeper {
    guest: &'static GuestHandle,
    machine: &'static Machine,
    understudy: Understudy,
    phase: Phase,
    kept: Option<Kept>,
    /// What is wanted next; the newest order counts.
    order: Option<Order>,
    /// TSC ticks between two checkpoints, if there are to be several, and when the next one is due.
    interval: Option<u64>,
    due: u64,
    audit: bool,
    figures: Figures,
    scratch: Box<[u8; FRAME_SIZE]>,
}

static KEEPERS: Mutex<Vec<Keeper>> = Mutex::new(Vec::new());
/// There is an order.
static ORDERED: AtomicBool = AtomicBool::new(false);
/// When, in the board's TSC, the tender looks.
static NEXT: AtomicU64 = AtomicU64::new(u64::MAX);
/// Orders for guests that have no keeper yet, and others.
static ORDERS: Mutex<Vec<(&'static GuestHandle, Order)>> = Mutex::new(Vec::new());

/// Tells the tender what the operator wants.
pub(crate) fn order(guest: &'static GuestHandle, order: Order) {
    ORDERS.lock().push((guest, order));
    ORDERED.store(true, Ordering::Release);
    crate::cpu::attend(crate::network::TENDER);
}

/// For the tender: when it must look at the latest.
#[inline]
pub(crate) fn next_look() -> u64 {
    NEXT.load(Ordering::Relaxed)
}

/// For the tender: does what is to be done now, for some microseconds at most. Returns whether pages of guests were moved perhaps.
#[inline]
pub(crate) fn tend(now: u64, frames: &Mutex<PhysicalMemory>) -> bool {
    let due = now >= next_look() || ORDERED.load(Ordering::Acquire);
    if due {
        take_turn(now, frames);
    }
    due
}

#[cold]
fn take_turn(now: u64, frames: &Mutex<PhysicalMemory>) {
    let mut keepers = KEEPERS.lock();
    if ORDERED.swap(false, Ordering::AcqRel) {
        for (guest, order) in core::mem::take(&mut *ORDERS.lock()) {
            pass_on(&mut keepers, guest, order, frames);
        }
    }
    let mut next = u64::MAX;
    for keeper in keepers.iter_mut() {
        next = next.min(keeper.turn(now, frames));
    }
    NEXT.store(next, Ordering::Relaxed);
}

fn pass_on(
    keepers: &mut Vec<Keeper>,
    guest: &'static GuestHandle,
    order: Order,
    frames: &Mutex<PhysicalMemory>,
) {
    let there = keepers.iter_mut().find(|it| it.guest.index == guest.index);
    if let Some(keeper) = there {
        keeper.order = Some(order);
    } else if matches!(order, Order::Take { .. }) {
        match Keeper::new(guest, order, frames) {
            Ok(keeper) => keepers.push(keeper),
            Err(failure) => error!("{}: no checkpoints: {failure}", guest.name),
        }
    } else {
        info!("{}: has no checkpoint", guest.name);
    }
}

impl Keeper {
    fn new(
        guest: &'static GuestHandle,
        order: Order,
        frames: &Mutex<PhysicalMemory>,
    ) -> Result<Self, StartFailure> {
        let machine = guest.machine.get().copied().flatten();
        let machine = machine.ok_or_else(|| StartFailure("it could not be set up".into()))?;
        Ok(Self {
            guest,
            machine,
            understudy: Understudy::new(machine, frames)?,
            phase: Phase::Off,
            kept: None,
            order: Some(order),
            interval: None,
            due: u64::MAX,
            audit: false,
            figures: Figures::default(),
            scratch: Box::new([0; FRAME_SIZE]),
        })
    }

    /// Does what is to be done now; returns when to look again.
    fn turn(&mut self, now: u64, frames: &Mutex<PhysicalMemory>) -> u64 {
        match self.phase {
            Phase::Off => match self.order {
                Some(Order::Take { .. }) => self.begin(frames),
                Some(_) => {
                    self.order = None;
                    info!("{}: has no checkpoint", self.guest.name);
                }
                None => {}
            },
            Phase::Resting => {
                if let Some(order) = self.order.take() {
                    self.obey(order, now);
                }
                if self.phase == Phase::Resting && now >= self.due {
                    self.take(now);
                }
            }
            Phase::Beginning | Phase::Taking | Phase::Reverting | Phase::Ending => {
                self.take_pages();
                if let Some(came) = self.machine.take_capture() {
                    self.came(came);
                }
            }
            Phase::Stopping if self.machine.is_at_rest() => {
                self.machine.capture(Wanted::Survey);
                self.phase = Phase::Reverting;
            }
            Phase::Stopping => {}
            Phase::Auditing { next, differ } => self.compare(next, differ),
        }
        self.next(now)
    }

    fn next(&self, now: u64) -> u64 {
        match self.phase {
            Phase::Off if self.order.is_none() => u64::MAX,
            Phase::Resting if self.order.is_none() => self.due,
            _ => now + PAUSE_MICROSECONDS * self.machine.board.tsc_hz / 1_000_000,
        }
    }

    /// Begins to note what the guest writes, and to copy all of it, once there are frames for that.
    fn begin(&mut self, frames: &Mutex<PhysicalMemory>) {
        let ready = self.machine.fill_pool(POOL, frames).and_then(|full| {
            if full {
                self.machine.prepare_captures(|_| {})?;
            }
            Ok(full)
        });
        match ready {
            Ok(true) => {
                self.machine.capture(Wanted::Begin);
                self.phase = Phase::Beginning;
            }
            Ok(false) => {}
            Err(failure) => {
                error!("{}: no checkpoints: {failure}", self.guest.name);
                self.order = None;
            }
        }
    }

    fn obey(&mut self, order: Order, now: u64) {
        match order {
            Order::Take { every } => {
                if self.interval.is_some() {
                    self.report();
                }
                self.interval = every.map(|every| every * (self.machine.board.tsc_hz / 1000));
                self.figures = Figures::default();
                self.take(now);
            }
            Order::Off => {
                self.report();
                self.machine.capture(Wanted::End);
                self.phase = Phase::Ending;
            }
            Order::Revert { audit } if self.kept.is_some() => {
                self.report();
                (self.interval, self.due, self.audit) = (None, u64::MAX, audit);
                self.machine.fence();
                self.phase = Phase::Stopping;
            }
            Order::Revert { .. } => info!("{}: has no checkpoint", self.guest.name),
        }
    }

    /// Asks for a checkpoint.
    fn take(&mut self, now: u64) {
        self.machine.capture(Wanted::Checkpoint);
        self.phase = Phase::Taking;
        self.due = self.interval.map_or(u64::MAX, |interval| now + interval);
    }

    /// Takes pages that were captured.
    fn take_pages(&mut self) {
        let Self {
            understudy, phase, ..
        } = self;
        let what = |page, bytes: &_| {
            // The pages that are found are the guest's, as the room for them is.
            let _ = match phase {
                Phase::Reverting => understudy.flip(page),
                _ => understudy.stage(page, bytes),
            };
            true
        };
        for _ in 0..TURN {
            if !self.machine.take_page(&mut self.scratch, what) {
                break;
            }
        }
    }

    /// What was asked for is done.
    fn came(&mut self, came: Result<Capture, Missed>) {
        let name = &self.guest.name;
        let phase = core::mem::replace(&mut self.phase, Phase::Resting);
        match (phase, came) {
            (Phase::Ending, _) => {
                info!("{name}: has no checkpoint any more");
                (self.phase, self.kept) = (Phase::Off, None);
                (self.interval, self.due) = (None, u64::MAX);
            }
            (Phase::Reverting, Ok(capture)) => {
                info!("{name}: {} pages put back", capture.pages);
                if self.audit {
                    let next = PageId { area: 0, number: 0 };
                    self.phase = Phase::Auditing { next, differ: 0 };
                } else {
                    self.resume();
                }
            }
            (_, Ok(capture)) => {
                if let Some(state) = &capture.state {
                    match state.encode() {
                        Ok(state) => self.keep(&capture, state),
                        Err(failure) => error!("{name}: no checkpoint: {failure}"),
                    }
                } else {
                    info!("{name}: {} pages copied", capture.pages);
                }
            }
            (Phase::Beginning, Err(missed)) => {
                error!("{name}: no checkpoints: {missed}");
                (self.phase, self.order) = (Phase::Off, None);
            }
            (_, Err(missed)) => {
                info!("{name}: no checkpoint: {missed}");
                (self.interval, self.due) = (None, u64::MAX);
            }
        }
    }

    fn keep(&mut self, capture: &Capture, state: Vec<u8>) {
        self.figures.add(capture.pages, capture.pause, state.len());
        self.kept = Some(Kept {
            state,
            guest_time: capture.guest_time.0,
        });
        if self.interval.is_none() {
            self.report();
        }
    }

    fn report(&self) {
        let name = &self.guest.name;
        if let Some(kept) = &self.kept {
            info!("{name}: {}; the last at {}", self.figures, kept.guest_time);
        }
    }

    /// Compares what the guest has with what was put aside.
    fn compare(&mut self, mut next: PageId, mut differ: u64) {
        let mut other = [0; FRAME_SIZE];
        for _ in 0..AUDIT {
            let there = self.understudy.staged(next, &mut other).is_ok()
                && self.understudy.live(next, &mut self.scratch).is_ok();
            if there {
                differ += u64::from(other != *self.scratch);
                next.number += 1;
            } else if next.number != 0 {
                (next.area, next.number) = (next.area + 1, 0);
            } else {
                info!("{}: {differ} pages differ", self.guest.name);
                self.phase = Phase::Resting;
                return self.resume();
            }
        }
        self.phase = Phase::Auditing { next, differ };
    }

    /// The guest goes on; its clock has gone on meanwhile.
    fn resume(&mut self) {
        if let Some(kept) = &self.kept {
            let now = tsc::read();
            let time = self.machine.nanoseconds(self.machine.origin().time(now));
            self.machine.resume(kept.state.clone(), time, now);
        }
    }
}

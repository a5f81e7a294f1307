//! Guests that have their checkpoints in common: a group of the node's. Most are alone in theirs.

use super::kept::{Came, Kept, Task};
use super::outputs::Outputs;
use crate::machine::Rendezvous;
use crate::memory::PhysicalMemory;
use crate::network::GuestNetwork;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;
use mirror::{Checkpoint, Epoch, GroupConfig, Order, Page, Place};
use spin::Mutex;

/// What has come of an order to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A pass handed over so many pages.
    Passed(u32),
    /// A checkpoint is handed over: the epoch that ended by it, and the group's time in nanoseconds, which is its first guest's.
    Frozen(Epoch, u64),
    /// Nothing, and nothing will.
    Failed,
}

/// A group.
pub(super) struct Group {
    number: u8,
    /// Microseconds from one checkpoint to the next.
    epoch: u32,
    members: Vec<Kept>,
    /// Whose page is being told.
    front: Option<usize>,
    /// What came of the task under way, by members.
    came: Vec<Option<Came>>,
    /// What is under way, and whether anybody wants to know what comes of it.
    task: Option<(Task, bool)>,
    tasks: VecDeque<Task>,
    /// Writes are noted, or will be by then.
    tracked: bool,
    /// The last epoch that ended and was handed over.
    sealed: Epoch,
    /// Where the guests wait for each other, if there are several.
    rendezvous: Option<&'static Rendezvous>,
}

impl Group {
    /// A group of the guests that there are with this number.
    pub(super) fn new(number: u8, epoch: u32, members: Vec<Kept>) -> Self {
        let rendezvous = (members.len() > 1).then(|| {
            let leads = members
                .iter()
                .filter_map(|it| it.guest.cpus.first().copied());
            &*Box::leak(Box::new(Rendezvous::new(leads.collect())))
        });
        if let Some(rendezvous) = rendezvous {
            for member in &members {
                member.join(&members, rendezvous);
            }
        }
        Self {
            number,
            epoch,
            came: members.iter().map(|_| None).collect(),
            members,
            front: None,
            task: None,
            tasks: VecDeque::new(),
            tracked: false,
            sealed: Epoch::default(),
            rendezvous,
        }
    }

    /// What the node is to know of it.
    pub(super) fn config(&self) -> GroupConfig {
        GroupConfig {
            number: self.number,
            extents: self.members.iter().map(Kept::extent).collect(),
            epoch: Duration::from_micros(u64::from(self.epoch)),
            urgent: self.members.iter().any(|member| member.guest.urgent),
        }
    }

    pub(super) const fn number(&self) -> u8 {
        self.number
    }

    pub(super) fn members(&self) -> &[Kept] {
        &self.members
    }

    pub(super) fn members_mut(&mut self) -> &mut [Kept] {
        &mut self.members
    }

    /// What is to be done next.
    pub(super) fn order(&mut self, order: Order) {
        match order {
            // The first pass begins.
            Order::Track => self.tracked = false,
            Order::Pass if self.tracked => self.tasks.push_back(Task::Pass),
            Order::Pass => {
                self.tracked = true;
                self.tasks.push_back(Task::Begin);
            }
            Order::Freeze | Order::FreezeForGood => {
                for member in &self.members {
                    member.machine.stand(order == Order::FreezeForGood);
                }
                self.tasks.push_back(Task::Freeze);
            }
            Order::Untrack => {
                // Nobody wants to know what comes of the rest.
                self.tasks.clear();
                if let Some((_, wanted)) = &mut self.task {
                    *wanted = false;
                }
                self.members.iter_mut().for_each(Kept::forget);
                if core::mem::take(&mut self.tracked) {
                    self.tasks.push_back(Task::End);
                }
            }
        }
    }

    /// Its guests go on, if they stand still.
    pub(super) fn go_on(&mut self) {
        self.members.iter_mut().for_each(Kept::go_on);
    }

    /// The next frame that was kept for a guest that stands still, or went: whose, and for which card.
    pub(super) fn input(&self, frame: &mut Vec<u8>) -> Option<(u8, u8)> {
        let mut keeping = self.members.iter().filter(|member| member.keeps_inputs);
        keeping.find_map(|member| {
            let card = GuestNetwork::of(member.guest).pass(frame)?;
            Some((member.number(), card))
        })
    }

    /// Nothing is kept for its guests any more.
    pub(super) fn end_inputs(&mut self) {
        for member in &mut self.members {
            if core::mem::take(&mut member.keeps_inputs) {
                GuestNetwork::of(member.guest).follow(false);
            }
        }
    }

    /// Whether something is still held for no epoch's sake.
    pub(super) fn releases(&self) -> bool {
        let outputs = self
            .members
            .iter()
            .filter_map(|it| it.guest.outputs.as_ref());
        outputs.into_iter().any(Outputs::waits)
    }

    /// Whether its epochs say what may leave it.
    pub(super) const fn is_tracked(&self) -> bool {
        self.tracked
    }

    /// Whether something is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.task.is_some() || !self.tasks.is_empty()
    }

    /// Whether the next checkpoint should not wait for its time.
    pub(super) fn presses(&self) -> bool {
        self.members.iter().any(|member| member.machine.presses())
    }

    /// The backup has an epoch.
    pub(super) fn acknowledge(&mut self, epoch: Epoch) {
        for member in &mut self.members {
            member.acknowledge(epoch);
        }
    }

    /// Sees to what is under way; what has come of it, if that is wanted.
    pub(super) fn poll(&mut self, frames: &Mutex<PhysicalMemory>) -> Option<Outcome> {
        let Some((task, wanted)) = self.task else {
            let task = *self.tasks.front()?;
            return match self.begin(task, frames) {
                Some(true) => {
                    self.tasks.pop_front();
                    self.task = Some((task, true));
                    None
                }
                Some(false) => None,
                None => {
                    self.tasks.pop_front();
                    Some(Outcome::Failed)
                }
            };
        };
        for (member, came) in self.members.iter_mut().zip(&mut self.came) {
            if came.is_none() {
                *came = member.poll(wanted && task != Task::End);
            }
        }
        self.choose();
        if self.came.iter().any(Option::is_none) {
            return None;
        }
        self.task = None;
        let outcome = if wanted { self.outcome(task) } else { None };
        self.came.fill(None);
        outcome
    }

    /// Sees whose page is to be told. One that is told in part stays.
    fn choose(&mut self) {
        let goes_on = self
            .front_member()
            .is_some_and(|kept| kept.front().is_some());
        if !goes_on {
            let mut members = self.members.iter();
            self.front = members.position(|kept| kept.front().is_some());
        }
    }

    fn front_member(&self) -> Option<&Kept> {
        self.members.get(self.front?)
    }

    /// Has the guests' leads begin with a task; `Some(false)` as long as there are not enough frames for that, and `None` where it cannot be.
    fn begin(&mut self, task: Task, frames: &Mutex<PhysicalMemory>) -> Option<bool> {
        for member in &mut self.members {
            if task == Task::Begin && !member.fill_pool(frames)? {
                return Some(false);
            }
        }
        if task == Task::Freeze {
            let epoch = self.sealed.next();
            for (member, came) in self.members.iter_mut().zip(&mut self.came) {
                *came = member.rests(epoch);
            }
            if let Some(rendezvous) = self.rendezvous {
                rendezvous.expect(self.came.iter().filter(|it| it.is_none()).count());
            }
        }
        let busy = self.members.iter_mut().zip(&self.came);
        for (member, _) in busy.filter(|(_, came)| came.is_none()) {
            if !member.begin(task) {
                return None;
            }
        }
        Some(true)
    }

    /// What has come of a task of which something has come from each guest.
    fn outcome(&mut self, task: Task) -> Option<Outcome> {
        let came = || self.came.iter().copied().flatten();
        if came().any(|came| came == Came::Failed) {
            return Some(Outcome::Failed);
        }
        match task {
            Task::End => None,
            Task::Begin | Task::Pass => Some(Outcome::Passed(
                came()
                    .map(|came| match came {
                        Came::Passed(pages) => pages,
                        _ => 0,
                    })
                    .fold(0, u32::saturating_add),
            )),
            Task::Freeze if came().any(|came| came == Came::Missed) => {
                // What each of them is now is seen next time.
                self.tasks.push_front(Task::Freeze);
                None
            }
            Task::Freeze => {
                let time = self.members.first().map_or(0, Kept::time);
                let epoch = self.sealed.next();
                for member in &mut self.members {
                    if !member.tell_state(epoch, time) {
                        return Some(Outcome::Failed);
                    }
                }
                self.sealed = epoch;
                Some(Outcome::Frozen(epoch, time))
            }
        }
    }
}

impl Checkpoint for Group {
    fn front(&self) -> Option<Place> {
        self.front_member()?.front()
    }

    fn look<R>(&self, look: impl FnOnce(&Page, Option<&Page>) -> R) -> R {
        match self.front_member() {
            Some(member) => member.look(look),
            None => look(&[0; mirror::PAGE_SIZE], None),
        }
    }

    fn told(&mut self) {
        let front = self.front.and_then(|at| self.members.get_mut(at));
        if let Some(member) = front {
            member.told();
        }
        self.choose();
    }

    fn state(&mut self, out: &mut [u8]) -> Option<(u8, u32, usize)> {
        self.members.iter_mut().find_map(|member| member.state(out))
    }
}

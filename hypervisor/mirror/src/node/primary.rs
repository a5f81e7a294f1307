//! The primary's part: bringing an understudy about, and forward.

use super::inputs::Departing;
use super::{ALL, Board, Events, GroupConfig, Order};
use crate::epoch::Teller;
use crate::link::{Lane, Link};
use crate::record::{Record, Records};
use crate::role::{Bond, Event};
use crate::time::{Epoch, Instant};
use alloc::vec::Vec;
use core::time::Duration;

/// A pass that handed over no more pages than this is followed by a freeze.
const FEW_PAGES: u32 = 256;
/// So many passes are followed by a freeze in any case.
const PASSES_MAX: u32 = 8;
/// Epochs of a group that may have ended while the backup does not have them: one is told while the one before it is on its way.
const UNDER_WAY_MAX: u64 = 2;
/// When to look again whether all has left that may.
const RELEASE: Duration = Duration::from_micros(50);

/// Where a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is not mirrored.
    Idle,
    /// Pages are handed over while its guests run, for the so many-th time.
    Passing(u32),
    /// The pages of a pass are being told, before a freeze or, if not `last`, another pass.
    Passed { passes: u32, last: bool },
    /// It is being frozen.
    Freezing,
    /// A checkpoint is being told.
    Telling,
    /// The next checkpoint is to come.
    Resting,
    /// It was frozen for good, and all is told.
    Final,
}

/// A group.
#[derive(Debug)]
struct Group {
    config: GroupConfig,
    phase: Phase,
    teller: Teller,
    /// The last epoch that ended here, and that the backup has.
    sealed: Epoch,
    acknowledged: Epoch,
    /// When the last checkpoint was ordered, and whether it is the last at all.
    frozen_at: Instant,
    frozen_for_good: bool,
}

impl Group {
    const fn lane(&self) -> Lane {
        if self.config.urgent {
            Lane::UrgentPages
        } else {
            Lane::Pages
        }
    }
}

/// What a primary does for its backup.
#[derive(Debug)]
pub(super) struct Leading {
    groups: Vec<Group>,
    bond: Option<Bond>,
    /// The backup does not know yet that an understudy comes.
    announce: bool,
    /// The backup has said that its understudy is complete.
    bonded: bool,
    /// The understudy cannot be brought forward any more.
    broken: bool,
    /// The next checkpoint is the last.
    finishing: bool,
    /// It was said that it is acknowledged.
    finished: bool,
    /// It is acknowledged, and not all has left yet that may.
    releasing: bool,
    /// What comes for guests that are handed over.
    pub(super) inputs: Departing,
}

impl Leading {
    pub(super) fn new(groups: Vec<GroupConfig>) -> Self {
        let inputs = Departing::new(groups.iter().map(|config| config.number));
        let groups = groups.into_iter().map(|config| Group {
            phase: Phase::Idle,
            teller: Teller::new(config.number, Bond(0)),
            sealed: Epoch::default(),
            acknowledged: Epoch::default(),
            frozen_at: Instant::default(),
            frozen_for_good: false,
            config,
        });
        Self {
            groups: groups.collect(),
            bond: None,
            announce: false,
            bonded: false,
            broken: false,
            finishing: false,
            finished: false,
            releasing: false,
            inputs,
        }
    }

    /// Whether the understudy cannot be brought forward any more, but still counts.
    pub(super) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Each group's last epoch that ended, and that the backup has.
    pub(super) fn epochs(&self) -> impl Iterator<Item = (u8, Epoch, Epoch)> + '_ {
        let epochs = |group: &Group| (group.config.number, group.sealed, group.acknowledged);
        self.groups.iter().map(epochs)
    }

    /// The last epoch of any group that the backup has.
    pub(super) fn epoch(&self) -> Epoch {
        let acknowledged = self.groups.iter().map(|group| group.acknowledged);
        acknowledged.max().unwrap_or_default()
    }

    /// Begins to send an understudy.
    pub(super) fn begin(&mut self, bond: Bond, board: &mut impl Board) {
        self.end(board);
        (self.bond, self.announce) = (Some(bond), true);
        for group in &mut self.groups {
            let number = group.config.number;
            group.teller = Teller::new(number, bond);
            group.acknowledged = group.sealed;
            group.frozen_for_good = false;
            group.phase = Phase::Passing(1);
            board.order(number, Order::Track);
            board.order(number, Order::Pass);
        }
    }

    /// Gives up what was begun for a bond.
    pub(super) fn abandon(&mut self, bond: Bond, board: &mut impl Board) {
        if self.bond == Some(bond) {
            self.end(board);
        }
    }

    /// The guests are stopped. What still comes for those that stood still for good follows them.
    pub(super) fn stop(&mut self, now: Instant, board: &mut impl Board) {
        for group in &self.groups {
            if group.phase == Phase::Final {
                self.inputs.leave(group.config.number, group.sealed, now);
            }
        }
        board.stop();
        self.end(board);
    }

    fn end(&mut self, board: &mut impl Board) {
        for group in &mut self.groups {
            if group.phase != Phase::Idle {
                group.phase = Phase::Idle;
                board.order(group.config.number, Order::Untrack);
            }
        }
        self.bond = None;
        self.announce = false;
        (self.bonded, self.broken) = (false, false);
        (self.finishing, self.finished) = (false, false);
        self.releasing = false;
    }

    /// The understudy cannot be brought forward any more. Returns the bond, if nothing counts by it yet.
    pub(super) fn fail(&mut self, board: &mut impl Board) -> Option<Bond> {
        let bond = self.bond?;
        if self.bonded {
            self.broken = true;
            return None;
        }
        self.end(board);
        Some(bond)
    }

    /// Whether the backup has been to acknowledge an epoch for so long.
    pub(super) fn has_waited(&self, now: Instant, patience: Duration) -> bool {
        let late = |group: &Group| {
            group.acknowledged != group.sealed && now.since(group.frozen_at) >= patience
        };
        self.bond.is_some() && !self.broken && self.groups.iter().any(late)
    }

    /// The next checkpoint is to be the last.
    pub(super) const fn finish(&mut self) {
        self.finishing = true;
    }

    /// The guests go on: the last checkpoint, if there is one, was not the last.
    pub(super) fn go_on(&mut self) {
        (self.finishing, self.finished) = (false, false);
        self.releasing = false;
        for group in &mut self.groups {
            group.frozen_for_good = false;
            if group.phase == Phase::Final {
                group.phase = Phase::Resting;
            }
        }
    }

    fn group(&mut self, number: u8) -> Option<&mut Group> {
        let mut groups = self.groups.iter_mut();
        groups.find(|group| group.config.number == number)
    }

    /// See [`super::Node::passed`].
    pub(super) fn passed(&mut self, number: u8, pages: u32) {
        if let Some(group) = self.group(number)
            && let Phase::Passing(passes) = group.phase
        {
            let last = pages <= FEW_PAGES || passes >= PASSES_MAX;
            group.phase = Phase::Passed { passes, last };
        }
    }

    /// See [`super::Node::frozen`].
    pub(super) fn frozen(&mut self, number: u8, epoch: Epoch, time: u64) {
        if let Some(group) = self.group(number) {
            group.sealed = epoch;
            if group.phase == Phase::Freezing {
                group.phase = Phase::Telling;
                group.teller.end_with(group.sealed, time);
            }
        }
    }

    /// A segment of the backup's came.
    pub(super) fn control(&mut self, segment: &[u8], board: &mut impl Board, events: &mut Events) {
        for record in Records::new(segment).flatten() {
            let Record::Acknowledged { bond, group, epoch } = record else {
                continue;
            };
            if self.bond != Some(bond) {
                continue;
            }
            if group == ALL {
                if !self.bonded {
                    self.bonded = true;
                    events.0.push(Event::Bonded(bond));
                }
            } else if let Some(known) = self.group(group)
                && epoch > known.acknowledged
                && epoch <= known.sealed
            {
                known.acknowledged = epoch;
                board.acknowledge(group, epoch);
            }
        }
    }

    /// Fills the link, and orders what comes next. Returns what the machine of roles is to be told.
    pub(super) fn turn(&mut self, link: &mut Link, now: Instant, board: &mut impl Board) -> Events {
        let mut events = Events::default();
        self.inputs.turn(link, now, board);
        let Some(bond) = self.bond.filter(|_| !self.broken) else {
            return events;
        };
        if self.announce {
            let begin = Record::Begin { bond, group: ALL };
            let fill = |out: &mut [u8]| begin.write(out).unwrap_or(0);
            self.announce = link.send(Lane::Control, fill).is_err();
        }
        let finishing = self.finishing && self.bonded;
        for group in &mut self.groups {
            group.tell(link, board);
            group.order(now, finishing, board);
            if group.phase == Phase::Final {
                let number = group.config.number;
                self.inputs.tell(number, group.sealed, link, board);
            }
        }
        let done =
            |group: &Group| group.phase == Phase::Final && group.acknowledged == group.sealed;
        if finishing && !self.finished && self.groups.iter().all(done) {
            // The gate closes by that.
            let mut groups = self.groups.iter();
            self.releasing = groups.any(|group| board.releases(group.config.number));
            if !self.releasing {
                self.finished = true;
                events.0.push(Event::FinalAcked);
            }
        }
        events
    }

    /// When there is something to do though nothing happens.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let releasing = self.releasing.then(|| now + RELEASE);
        let resting = self
            .groups
            .iter()
            .filter(|group| group.phase == Phase::Resting && group.may_end());
        resting
            .map(|group| group.frozen_at + group.config.epoch)
            .chain(releasing)
            .chain(self.inputs.next_deadline())
            .min()
    }
}

impl Group {
    /// Whether another epoch may end although the backup may not have those before it.
    const fn may_end(&self) -> bool {
        self.sealed.0.saturating_sub(self.acknowledged.0) < UNDER_WAY_MAX
    }

    /// Puts as much of the checkpoint on the link as there is room for.
    fn tell(&mut self, link: &mut Link, board: &mut impl Board) {
        let lane = self.lane();
        let Some(checkpoint) = board.checkpoint(self.config.number) else {
            return;
        };
        while self.phase != Phase::Idle && link.room(lane) > 0 && self.teller.is_ready(checkpoint) {
            let teller = &mut self.teller;
            if link.send(lane, |out| teller.fill(checkpoint, out)).is_err() {
                return;
            }
        }
    }

    /// Orders the next pass or checkpoint, if it is time.
    fn order(&mut self, now: Instant, finishing: bool, board: &mut impl Board) {
        let number = self.config.number;
        let Some(checkpoint) = board.checkpoint(number) else {
            return;
        };
        let told = !self.teller.is_ready(checkpoint);
        let freeze = match self.phase {
            Phase::Passed {
                passes,
                last: false,
            } if told => {
                self.phase = Phase::Passing(passes + 1);
                board.order(number, Order::Pass);
                return;
            }
            Phase::Passed { last: true, .. } => told,
            Phase::Telling if told => {
                self.phase = if self.frozen_for_good {
                    Phase::Final
                } else {
                    Phase::Resting
                };
                false
            }
            Phase::Resting => {
                let due = now >= self.frozen_at + self.config.epoch;
                self.may_end() && (due || finishing || board.presses(number))
            }
            _ => false,
        };
        if freeze {
            (self.phase, self.frozen_at) = (Phase::Freezing, now);
            self.frozen_for_good = finishing;
            let order = if finishing {
                Order::FreezeForGood
            } else {
                Order::Freeze
            };
            board.order(number, order);
        }
    }
}

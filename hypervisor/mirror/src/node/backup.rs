//! The backup's part: keeping the understudy, and going on from it.

use super::{ALL, Board, Events, GroupConfig, Inspection, Report};
use crate::inputs::{InputCounters, Inputs};
use crate::link::{Lane, Link};
use crate::record::{Record, Records};
use crate::role::{Bond, Event};
use crate::time::{Epoch, Instant};
use crate::understudy::{Committed, Memory, Progress, Understudy, Violation};
use alloc::vec::Vec;
use core::time::Duration;

/// Pages that are copied into the live image in one turn.
const FLIPS: usize = 8;

/// A group.
#[derive(Debug)]
struct Group {
    number: u8,
    understudy: Understudy,
    /// By which bond it is told, and whether it has an epoch by that.
    bond: Option<Bond>,
    complete: bool,
    /// Records of the segment at hand that are taken already.
    taken: usize,
    /// The last commit is to be acknowledged.
    answer: Option<Epoch>,
    /// When it came.
    committed_at: Instant,
    /// Nobody has looked yet at what came of it, or at any one of its bond.
    unseen: bool,
    unproven: bool,
    /// What came for its guests on the other board.
    inputs: Inputs,
}

/// What a backup does for its primary.
#[derive(Debug)]
pub(super) struct Following {
    groups: Vec<Group>,
    /// The bond that was announced, and begun.
    announced: Option<Bond>,
    bond: Option<Bond>,
    /// All is complete, and is to be acknowledged.
    answer: Option<Bond>,
    complete: bool,
}

impl Following {
    pub(super) fn new(groups: &[GroupConfig]) -> Self {
        let groups = groups.iter().map(|config| Group {
            number: config.number,
            understudy: Understudy::new(&config.extents),
            bond: None,
            complete: false,
            taken: 0,
            answer: None,
            committed_at: Instant::default(),
            unseen: false,
            unproven: true,
            inputs: Inputs::new(),
        });
        Self {
            groups: groups.collect(),
            announced: None,
            bond: None,
            answer: None,
            complete: false,
        }
    }

    /// What each group's understudy is as of.
    pub(super) fn committed(&self) -> impl Iterator<Item = (u8, Option<Committed>)> + '_ {
        let groups = self.groups.iter();
        groups.map(|group| (group.number, group.understudy.committed()))
    }

    /// There is a new session: the segments to come do not follow those that came, and bonds may be counted from the first again.
    pub(super) fn session(&mut self) {
        for group in &mut self.groups {
            group.understudy.forget_staged();
            (group.bond, group.taken, group.answer) = (None, 0, None);
            group.inputs.interrupt();
        }
        (self.announced, self.bond) = (None, None);
        (self.complete, self.answer) = (false, None);
    }

    /// A segment of the control lane.
    pub(super) fn control(&mut self, segment: &[u8], events: &mut Events) {
        for record in Records::new(segment).flatten() {
            if let Record::Begin { bond, group: ALL } = record {
                self.announced = Some(bond);
                self.begin(bond, events);
                self.check(events);
            }
        }
    }

    /// An understudy begins by this bond: what was there before is being overwritten.
    fn begin(&mut self, bond: Bond, events: &mut Events) {
        if self.bond != Some(bond) {
            self.bond = Some(bond);
            (self.complete, self.answer) = (false, None);
            for group in &mut self.groups {
                group.complete = false;
            }
            events.0.push(Event::ResyncBegun(bond));
        }
    }

    /// Whether all is there by now.
    fn check(&mut self, events: &mut Events) {
        let Some(bond) = self.bond.filter(|_| self.announced == self.bond) else {
            return;
        };
        let there = |group: &Group| group.complete && group.bond == Some(bond);
        if !self.complete && self.groups.iter().all(there) {
            self.complete = true;
            self.answer = Some(bond);
            events.0.push(Event::Complete(bond));
        }
    }

    /// A segment of pages. Whether it is taken in whole; else it is to come again.
    pub(super) fn take(
        &mut self,
        segment: &[u8],
        now: Instant,
        board: &mut impl Board,
        events: &mut Events,
    ) -> bool {
        // All records of a segment are of one group.
        let mut of = None;
        for (at, record) in Records::new(segment).enumerate() {
            let result = match record {
                Ok(record) => self.record(at, &record, &mut of, now, board, events),
                Err(error) => Err(Violation::Record(error)),
            };
            match result {
                Ok(true) => {}
                Ok(false) => return false,
                Err(violation) => {
                    board.tell(Report::Nonsense(violation));
                    events.0.push(Event::ImageLost);
                    // What follows it has no meaning.
                    break;
                }
            }
        }
        if let Some(group) = of.and_then(|of: usize| self.groups.get_mut(of)) {
            group.taken = 0;
        }
        true
    }

    /// A segment of frames for guests.
    ///
    /// # Errors
    ///
    /// [`Violation`], of which the understudies are none the worse. What follows it in the segment is not heeded.
    pub(super) fn inputs(&mut self, segment: &[u8]) -> Result<(), Violation> {
        for record in Records::new(segment) {
            let Record::Input(piece) = record.map_err(Violation::Record)? else {
                return Err(Violation::Lane);
            };
            let mut groups = self.groups.iter_mut();
            let group = groups.find(|group| group.understudy.has(piece.guest));
            group.ok_or(Violation::NoGroup)?.inputs.receive(&piece)?;
        }
        Ok(())
    }

    /// Gives guests that went on here what came for them on the other board. Whether there is more.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        patience: Duration,
        mut take: impl FnMut(u8, u8, &[u8]) -> bool,
    ) -> bool {
        let mut more = false;
        for group in &mut self.groups {
            more |= group.inputs.deliver(now, patience, &mut take);
        }
        more
    }

    /// What became of such frames.
    pub(super) fn input_counters(&self) -> InputCounters {
        let mut all = InputCounters::default();
        for counters in self.groups.iter().map(|group| group.inputs.counters()) {
            all.delivered += counters.delivered;
            all.dropped += counters.dropped;
        }
        all
    }

    /// A record of a group's, at this place of its segment. Whether it is taken.
    fn record(
        &mut self,
        at: usize,
        record: &Record<'_>,
        of: &mut Option<usize>,
        now: Instant,
        memory: &mut impl Memory,
        events: &mut Events,
    ) -> Result<bool, Violation> {
        let is_its = |group: &Group| match *record {
            Record::Page { guest, .. } | Record::State { guest, .. } => group.understudy.has(guest),
            Record::Commit { group: number, .. } | Record::Begin { group: number, .. } => {
                group.number == number
            }
            Record::Acknowledged { .. } | Record::Input(_) => false,
        };
        let found = self.groups.iter().position(is_its);
        let index = found.filter(|index| of.is_none_or(|of| of == *index));
        *of = index;
        let group = index.and_then(|index| self.groups.get_mut(index));
        let group = group.ok_or(Violation::NoGroup)?;
        if at < group.taken {
            return Ok(true);
        }
        if group.unseen && matches!(record, Record::Commit { .. }) {
            group.taken = at;
            return Ok(false);
        }
        let progress = group.understudy.receive(record, memory)?;
        match (progress, record) {
            (Progress::Busy, _) => {
                group.taken = at;
                return Ok(false);
            }
            (Progress::Committed(epoch), _) => {
                (group.answer, group.complete) = (Some(epoch), true);
                (group.committed_at, group.unseen) = (now, true);
                group.inputs.committed(epoch);
                self.check(events);
            }
            (Progress::Taken, Record::Begin { bond, .. }) => {
                // What came up to here was by the bond before, although this one may have been announced.
                (group.bond, group.answer) = (Some(*bond), None);
                (group.complete, group.unproven) = (false, true);
                group.inputs.forget();
                self.begin(*bond, events);
            }
            (Progress::Taken, _) => {}
        }
        Ok(true)
    }

    /// Copies committed pages into the live images, some of them. Whether there are more.
    pub(super) fn flip(&mut self, memory: &mut impl Memory) -> bool {
        let mut more = false;
        for group in &mut self.groups {
            more |= group.understudy.flip(memory, FLIPS);
        }
        more
    }

    /// Has the board look at what is in the live images, by guest and state. Whether it is to look again.
    pub(super) fn inspect(
        &mut self,
        mut look: impl FnMut(u8, &[u8], bool) -> Inspection,
        events: &mut Events,
    ) -> bool {
        let mut busy = false;
        for group in self.groups.iter_mut().filter(|group| group.unseen) {
            group.unseen = false;
            for guest in group.understudy.guests() {
                let state = group.understudy.state(guest).unwrap_or(&[]);
                match look(guest, state, group.unproven) {
                    Inspection::Good => {}
                    Inspection::Bad => events.0.push(Event::ImageLost),
                    Inspection::Busy => group.unseen = true,
                }
            }
            group.unproven &= group.unseen;
            busy |= group.unseen;
        }
        busy
    }

    /// Acknowledges what is there.
    pub(super) fn answer(&mut self, link: &mut Link) {
        for group in &mut self.groups {
            if let (Some(epoch), Some(bond)) = (group.answer, group.bond) {
                let record = Record::Acknowledged {
                    bond,
                    group: group.number,
                    epoch,
                };
                let fill = |out: &mut [u8]| record.write(out).unwrap_or(0);
                if link.send(Lane::Control, fill).is_ok() {
                    group.answer = None;
                }
            }
        }
        // Behind those of the groups.
        let rest = self.groups.iter().any(|group| group.answer.is_some());
        if let Some(bond) = self.answer.filter(|_| !rest) {
            let record = Record::Acknowledged {
                bond,
                group: ALL,
                epoch: Epoch::default(),
            };
            let fill = |out: &mut [u8]| record.write(out).unwrap_or(0);
            if link.send(Lane::Control, fill).is_ok() {
                self.answer = None;
            }
        }
    }

    /// Lets the guests go on from what the last commits hold.
    pub(super) fn take_over(&mut self, now: Instant, board: &mut impl Board) {
        for group in &mut self.groups {
            let understudy = &mut group.understudy;
            understudy.forget_staged();
            while understudy.flip(board, FLIPS) {}
            group.unseen = false;
            let passed = now.since(group.committed_at);
            let committed = understudy.committed();
            group.inputs.take_over(committed.map(|it| it.epoch));
            let Some(commit) = committed else {
                continue;
            };
            let time = (Duration::from_nanos(commit.time) + passed).as_nanos();
            let time = u64::try_from(time).unwrap_or(u64::MAX);
            for guest in understudy.guests() {
                board.resume(guest, understudy.state(guest).unwrap_or(&[]), time);
            }
        }
        board.start_cold();
    }
}

#[cfg(test)]
mod tests;

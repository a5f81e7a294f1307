//! The judge: knows everything that was executed, seen and transmitted, and what must not be.

use crate::guest::{CLIENTS, Execution, Reply, Request};
use crate::machine::{Past, Snapshot};
use mirror::{Committed, Side, Term};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Checkpoints of a board that are kept.
const SNAPSHOTS: usize = 32;

/// A state of a guest's: its last execution.
#[derive(Clone, Copy, Debug)]
struct Node {
    before: u64,
    /// Executions up to this one.
    depth: u64,
    /// Of each client.
    counts: [u64; CLIENTS],
    numbers: [u32; CLIENTS],
}

/// What clients have seen of a guest.
#[derive(Clone, Copy, Debug, Default)]
struct Visible {
    /// The latest execution.
    name: u64,
    /// The guest's time in it.
    time: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    nodes: HashMap<u64, Node>,
    visible: BTreeMap<u8, Visible>,
    /// What each client was answered, by guest, client and number.
    answers: BTreeMap<(u8, u8, u32), Reply>,
    snapshots: [VecDeque<Snapshot>; 2],
    /// Who transmitted last, in which term.
    transmitted: Option<(Term, Side)>,
    /// Until when replies of a lost past may come.
    amnesty: u64,
    /// Two boards may serve, because an operator wanted it.
    pub(crate) split: bool,
    /// Replies that clients saw.
    pub(crate) seen: u64,
}

const fn index(side: Side) -> usize {
    match side {
        Side::A => 0,
        Side::B => 1,
    }
}

impl Judge {
    fn node(&self, name: u64) -> Result<&Node, String> {
        let node = self.nodes.get(&name);
        node.ok_or_else(|| format!("{name:016x} is no state that a guest ever had"))
    }

    /// Whether `name` is in the past of `later`, or is it.
    fn explains(&self, later: u64, name: u64) -> Result<bool, String> {
        let depth = self.node(name)?.depth;
        let mut at = later;
        loop {
            let node = self.node(at)?;
            if node.depth <= depth {
                return Ok(at == name);
            }
            at = node.before;
        }
    }

    /// A past is lost by right, or was never there: guests begin with these states.
    pub(crate) fn forget(&mut self, states: impl Iterator<Item = (u8, u64)>, amnesty: u64) {
        for (guest, name) in states {
            self.nodes.entry(name).or_insert(Node {
                before: 0,
                depth: 0,
                counts: [0; CLIENTS],
                numbers: [0; CLIENTS],
            });
            self.visible.insert(guest, Visible { name, time: 0 });
        }
        self.answers.clear();
        self.transmitted = None;
        self.amnesty = amnesty;
    }

    pub(crate) fn executed(&mut self, execution: &Execution) -> Result<(), String> {
        let Execution { before, reply } = *execution;
        let Request {
            guest,
            client,
            number,
        } = reply.request;
        let mut node = *self.node(before)?;
        let at = usize::from(client);
        if number <= node.numbers[at] {
            return Err(format!(
                "guest {guest} executes request {number} of client {client} again"
            ));
        }
        node.before = before;
        node.depth += 1;
        node.counts[at] += 1;
        node.numbers[at] = number;
        if (reply.count, reply.total) != (node.counts[at], node.depth) {
            return Err(format!(
                "guest {guest} counts {} and {} executions of client {client} and of all, not {} and {}",
                reply.count, reply.total, node.counts[at], node.depth
            ));
        }
        self.nodes.entry(reply.name).or_insert(node);
        Ok(())
    }

    pub(crate) fn snapshot(&mut self, side: Side, snapshot: Snapshot) {
        let kept = &mut self.snapshots[index(side)];
        kept.push_back(snapshot);
        if kept.len() > SNAPSHOTS {
            kept.pop_front();
        }
    }

    /// A board goes on with a guest from its understudy, which is to be what the other had.
    pub(crate) fn resumed(
        &self,
        side: Side,
        group: u8,
        committed: Option<Committed>,
        past: &Past,
    ) -> Result<(), String> {
        let guest = past.guest;
        let Some(committed) = committed else {
            return Err(format!("guest {guest} is resumed from no epoch"));
        };
        let snapshots = &self.snapshots[index(side.peer())];
        let snapshot = snapshots.iter().rev().find(|snapshot| {
            (snapshot.group, snapshot.epoch, snapshot.time)
                == (group, committed.epoch, committed.time)
        });
        let epoch = committed.epoch;
        match snapshot {
            None => Err(format!(
                "guest {guest} is resumed from epoch {epoch}, which there never was"
            )),
            Some(snapshot) if !snapshot.guests.contains(past) => Err(format!(
                "guest {guest} is not what it was at the end of epoch {epoch}"
            )),
            Some(_) => Ok(()),
        }
    }

    /// Whether states hold everything that clients have seen; the first guest whose does not.
    pub(crate) fn lost(
        &self,
        states: impl Iterator<Item = (u8, u64)>,
    ) -> Result<Option<u8>, String> {
        for (guest, name) in states {
            let visible = self.visible.get(&guest).copied().unwrap_or_default();
            if !self.explains(name, visible.name)? {
                return Ok(Some(guest));
            }
        }
        Ok(None)
    }

    /// A frame of the guests' is on the wire.
    pub(crate) fn transmits(&mut self, side: Side, term: Term) -> Result<(), String> {
        if let Some((last, other)) = self.transmitted
            && !self.split
            && (term < last || other != side && term == last)
        {
            return Err(format!(
                "board {side} transmits in term {term} after board {other} did in term {last}"
            ));
        }
        self.transmitted = Some((term, side));
        Ok(())
    }

    /// A client sees a reply. `serving` are the states of the board that serves, if one does.
    pub(crate) fn sees(
        &mut self,
        reply: &Reply,
        serving: Option<impl Iterator<Item = (u8, u64)>>,
        now: u64,
    ) -> Result<(), String> {
        self.seen += 1;
        let Request {
            guest,
            client,
            number,
        } = reply.request;
        if self.split {
            return Ok(());
        }
        let visible = self.visible.get(&guest).copied().unwrap_or_default();
        let newer = self.explains(reply.name, visible.name)?;
        if !newer && !self.explains(visible.name, reply.name)? {
            if now < self.amnesty {
                return Ok(());
            }
            return Err(format!(
                "client {client} of guest {guest} sees a reply to request {number} that what was seen before does not go with"
            ));
        }
        let known = self.answers.insert((guest, client, number), *reply);
        if known.is_some_and(|known| known != *reply) {
            return Err(format!(
                "request {number} of client {client} of guest {guest} is answered {reply:?} after {known:?}"
            ));
        }
        if newer && reply.name != visible.name {
            if reply.time < visible.time {
                return Err(format!(
                    "the time of guest {guest} goes from {} back to {}",
                    visible.time, reply.time
                ));
            }
            let (name, time) = (reply.name, reply.time);
            self.visible.insert(guest, Visible { name, time });
        }
        let state = serving.and_then(|mut states| states.find(|(of, _)| *of == guest));
        if let Some((_, name)) = state
            && !self.explains(name, reply.name)?
        {
            return Err(format!(
                "client {client} of guest {guest} sees a reply to request {number} that the board which serves knows nothing of"
            ));
        }
        Ok(())
    }
}

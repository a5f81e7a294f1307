//! The boards' turns, and what comes of them.

use super::{Event, SIDES, World, index, nanoseconds};
use crate::blade::{Inbound, Life, config, nonce};
use crate::clock::Clock;
use crate::guest::Reply;
use crate::machine::{Done, Machine, Output, Served, Wishes};
use crate::scenario::{DEAD, GROUPS, Mutation};
use crate::wire::{drop_it, turn_a_bit};
use mirror::{Gate, Node, Path, Report, Role, Side, Tell, Term};

use std::time::Duration;

/// How long a frame may take from the look at the gate to the wire, in nanoseconds.
const TRANSMIT: u64 = 1_900_000;
/// When a board announces guests that it has got.
const ANNOUNCED: u64 = 3_000_000;
/// How far clocks go wrong, in millionths: two of them by less than a thousandth.
const DRIFT: u64 = 450;
/// Where a frame has its term (wire.rs of the mirror).
const TERM: std::ops::Range<usize> = 24..32;
/// Bytes of a frame that is short: a heartbeat is, and an epoch is not.
const SHORT: usize = 128;

impl World {
    /// A board starts.
    pub(super) fn start(&mut self, side: Side) -> Result<(), String> {
        let (now, mutation, arbiter) = (self.now, self.scenario.mutation, self.scenario.arbiter);
        if self.blades[index(side)].life.is_some() {
            return Ok(());
        }
        self.lives += 1;
        let number = self.lives;
        let chance = &mut self.chance;
        let clock = Clock {
            started: now,
            offset: chance.below(2) * chance.below(10_000_000_000),
            rate: chance.between(0, 2 * DRIFT) as i64 - DRIFT as i64,
        };
        let shows = clock.shows(now);
        let nonce = nonce(chance.number(), chance.number());
        let mut machine = Machine::new(chance.number(), mutation, shows);
        let mut node = Node::new(config(side, nonce, arbiter, mutation), nonce, shows);
        node.set_carrier(self.carrier);
        let blade = &mut self.blades[index(side)];
        node.set_uplink(blade.uplink, shows, &mut machine);
        (blade.clock, blade.frozen, blade.well) = (clock, false, now);
        blade.inbox.clear();
        blade.life = Some(Life {
            number,
            node,
            machine,
            wake: u64::MAX,
            protected: None,
            needs_operator: false,
        });
        self.note(|| format!("board {side} starts as {:032x}", nonce.0));
        self.after(0, Event::Run { side, life: number });
        self.wake(side, now);
        self.wished(side)
    }

    /// The board has a turn at a time, or earlier.
    fn wake(&mut self, side: Side, at: u64) {
        let now = self.now;
        let blade = &mut self.blades[index(side)];
        if let Some(life) = blade.life.as_mut().filter(|_| !blade.frozen)
            && (at < life.wake || life.wake < now)
        {
            life.wake = at;
            let life = life.number;
            self.after(at.saturating_sub(now), Event::Turn { side, life });
        }
    }

    /// The life of a board that runs at this moment, with its clock's time.
    fn running(&mut self, side: Side, number: u64) -> Option<(&mut Life, mirror::Instant)> {
        let now = self.now;
        let blade = &mut self.blades[index(side)];
        let shows = blade.clock.shows(now);
        let life = blade
            .life
            .as_mut()
            .filter(|life| life.number == number && !blade.frozen)?;
        life.machine.now = shows;
        Some((life, shows))
    }

    pub(super) fn turn(&mut self, side: Side, number: u64) -> Result<(), String> {
        let now = self.now;
        // What is due while the board stands still, it does when it goes on.
        if let Some(life) = &mut self.blades[index(side)].life
            && life.number == number
            && life.wake > now
        {
            return Ok(());
        }
        let Some((life, shows)) = self.running(side, number) else {
            return Ok(());
        };
        life.wake = u64::MAX;
        let next = life.node.turn(shows, &mut life.machine);
        self.spins += 1;
        if self.spins > super::SPINS {
            return Err(format!(
                "board {side} has turn after turn and nothing else happens"
            ));
        }
        self.wished(side)?;
        let slow = self.chance.permille(20);
        let late = self.chance.below(if slow { 2_000_000 } else { 50_000 });
        let at = self.blades[index(side)].clock.when(next).max(now) + 1000 + late;
        self.wake(side, at);
        Ok(())
    }

    pub(super) fn guests(&mut self, side: Side, number: u64) -> Result<(), String> {
        if let Some(life) = &self.blades[index(side)].life
            && life.number == number
        {
            let pause = self.chance.between(500_000, 3_000_000);
            self.after(pause, Event::Run { side, life: number });
        }
        if let Some((life, _)) = self.running(side, number) {
            life.machine.run();
            self.wished(side)?;
        }
        Ok(())
    }

    pub(super) fn obey(&mut self, side: Side, number: u64, group: u8) -> Result<(), String> {
        if self.blades[index(side)].frozen {
            self.after(
                100_000,
                Event::Obey {
                    side,
                    life: number,
                    group,
                },
            );
            return Ok(());
        }
        let Some((life, _)) = self.running(side, number) else {
            return Ok(());
        };
        match life.machine.obey(group) {
            None => return Ok(()),
            Some(Done::Passed(pages)) => life.node.passed(group, pages),
            Some(Done::Frozen(snapshot)) => {
                life.node.frozen(group, snapshot.epoch, snapshot.time);
                self.judge.snapshot(side, snapshot);
            }
        }
        self.soon(side);
        self.wished(side)
    }

    /// The node has a turn, because it was told something.
    fn soon(&mut self, side: Side) {
        let late = self.chance.below(20_000);
        self.wake(side, self.now + late);
    }

    pub(super) fn arrive(&mut self, side: Side, what: Inbound) -> Result<(), String> {
        let blade = &mut self.blades[index(side)];
        let Some(life) = &blade.life else {
            return Ok(());
        };
        let number = life.number;
        if blade.frozen {
            blade.keep(what);
            return Ok(());
        }
        let ignores = self.scenario.mutation == Some(Mutation::IgnoredTerm);
        let Some((life, shows)) = self.running(side, number) else {
            return Ok(());
        };
        match what {
            Inbound::Frame(path, frame) => {
                let term = frame.get(TERM).and_then(<[u8]>::first_chunk);
                let term = Term(term.map_or(0, |bytes| u64::from_le_bytes(*bytes)));
                let role = life.node.role();
                if ignores && role.role().owns() && term > role.term() {
                    return Ok(());
                }
                // What is dropped is counted by the node.
                let _ = life.node.receive(path, &frame, shows, &mut life.machine);
            }
            Inbound::Answer(datagram) => {
                let _ = life.node.answer(&datagram, shows, &mut life.machine);
            }
            Inbound::Request(request) => {
                life.machine.request(request);
                return Ok(());
            }
        }
        self.soon(side);
        self.wished(side)
    }

    /// An operator or a card tells a board something.
    pub(super) fn tell(
        &mut self,
        side: Side,
        tell: impl FnOnce(&mut Node, mirror::Instant, &mut Machine),
    ) -> Result<(), String> {
        let number = self.blades[index(side)]
            .life
            .as_ref()
            .map(|life| life.number);
        if let Some(number) = number
            && let Some((life, shows)) = self.running(side, number)
        {
            tell(&mut life.node, shows, &mut life.machine);
            self.soon(side);
            self.wished(side)?;
        }
        Ok(())
    }

    /// Does what a node wants, and looks at what it did.
    fn wished(&mut self, side: Side) -> Result<(), String> {
        let Some(life) = &mut self.blades[index(side)].life else {
            return Ok(());
        };
        let number = life.number;
        let wishes = core::mem::take(&mut life.machine.wishes);
        for execution in &wishes.executions {
            self.judge.executed(execution)?;
        }
        for report in &wishes.reports {
            self.reported(side, *report);
            if let Report::Nonsense(violation) = report {
                return Err(format!("board {side} is told nonsense: {violation}"));
            }
        }
        if !wishes.served.is_empty() {
            self.serves(side, &wishes)?;
        }
        for (path, frame) in wishes.frames {
            self.send(side, path, frame);
        }
        for datagram in wishes.asks {
            self.send_ask(side, datagram);
        }
        for group in wishes.orders {
            let most = if self.slow_orders { 8_000_000 } else { 400_000 };
            let late = self.chance.between(5_000, most);
            self.after(
                late,
                Event::Obey {
                    side,
                    life: number,
                    group,
                },
            );
        }
        self.protection(side);
        self.outputs(side)
    }

    /// Remembers since when a board says that its guests are protected.
    fn protection(&mut self, side: Side) {
        let now = self.now;
        if let Some(life) = &mut self.blades[index(side)].life {
            let before = life.protected;
            life.protected = life.is_protected().then(|| before.unwrap_or(now));
            if before.is_none() && life.protected.is_some() {
                self.figures.protections += 1;
                let first = Duration::from_nanos(now);
                self.figures.first_protection.get_or_insert(first);
            }
        }
    }

    fn reported(&mut self, side: Side, report: Report) {
        self.note(|| format!("board {side}: {report}"));
        if let Some(life) = &mut self.blades[index(side)].life {
            match report {
                Report::Role(Tell::OperatorNeeded(_)) => life.needs_operator = true,
                Report::Role(Tell::Role { .. }) => life.needs_operator = false,
                _ => {}
            }
        }
    }

    /// A board's guests go on.
    fn serves(&mut self, side: Side, wishes: &Wishes) -> Result<(), String> {
        let comes = |served: &Served| *served != Served::WentOn;
        if let Some(life) = self.boot(side)
            && wishes.served.iter().any(comes)
        {
            self.after(ANNOUNCED, Event::Announce { side, life });
        }
        let Some(life) = &self.blades[index(side)].life else {
            return Ok(());
        };
        let amnesty = self.now + nanoseconds(super::LATE) * 2;
        let forced = self.forced == Some(side);
        if forced {
            self.forced = None;
        }
        let lenient = forced || self.judge.split;
        for served in &wishes.served {
            match served {
                Served::Started => {
                    self.figures.starts += 1;
                    let names = life.machine.names();
                    if !lenient && self.now >= self.impaired + 4 * nanoseconds(DEAD) {
                        self.nobody_has_them(side.peer())?;
                    }
                    self.judge.forget(names, amnesty);
                    continue;
                }
                Served::Resumed => {
                    self.figures.takeovers += 1;
                    let guests = GROUPS.iter().map(|group| group.guests.len()).sum::<usize>();
                    if wishes.resumed.len() != guests {
                        return Err(format!(
                            "board {side} goes on with {} guests",
                            wishes.resumed.len()
                        ));
                    }
                    for past in &wishes.resumed {
                        let group = GROUPS.iter().find(|group| {
                            group.guests.iter().any(|(guest, _)| *guest == past.guest)
                        });
                        let group = group.map_or(0, |group| group.number);
                        let mut committed = life.node.committed();
                        let committed = committed.find(|(number, _)| *number == group);
                        self.judge
                            .resumed(side, group, committed.and_then(|it| it.1), past)?;
                    }
                }
                Served::WentOn => {}
            }
            if let Some(guest) = self.judge.lost(life.machine.names())? {
                if !lenient {
                    return Err(format!(
                        "board {side} goes on with guest {guest} in a state that does not hold what clients have seen"
                    ));
                }
                self.judge.forget(life.machine.names(), amnesty);
            }
        }
        Ok(())
    }

    /// Guests start from nothing, so nobody may have them.
    fn nobody_has_them(&self, peer: Side) -> Result<(), String> {
        let role = self.blades[index(peer)]
            .life
            .as_ref()
            .map(|life| life.node.role());
        match role {
            Some(role)
                if role.role().owns() || role.role() == Role::Backup && role.bond().is_some() =>
            {
                Err(format!(
                    "guests start from nothing while board {peer} has them as {}",
                    role.role()
                ))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn send(&mut self, side: Side, path: Path, frame: Vec<u8>) {
        let uplinks = self.blades.iter().all(|blade| blade.uplink);
        let there = match path {
            Path::Link => self.carrier && !(self.short && frame.len() > SHORT),
            Path::Lan => uplinks,
        };
        if !there {
            return;
        }
        let (wire, to) = (*self.wire(path, side), side.peer());
        let damage = |frame: &mut Vec<u8>, chance: &mut _| turn_a_bit(frame, chance);
        self.carry(wire, frame, damage, |frame| {
            let (side, what) = (to, Inbound::Frame(path, frame));
            Event::Arrive { side, what }
        });
    }

    fn send_ask(&mut self, side: Side, datagram: Vec<u8>) {
        let wire = self.wires[index(side)].outgoing;
        if self.blades[index(side)].uplink {
            self.carry(wire, datagram, drop_it, |datagram| Event::Ask {
                side,
                datagram,
            });
        }
    }

    /// Lets out what may leave.
    fn outputs(&mut self, side: Side) -> Result<(), String> {
        let now = self.now;
        let other = &self.blades[index(side.peer())];
        let other_serves = other
            .life
            .as_ref()
            .is_some_and(|life| life.serves(other.clock.shows(now)));
        let Some(life) = &mut self.blades[index(side)].life else {
            return Ok(());
        };
        let (number, term) = (life.number, life.node.role().term());
        let held = matches!(life.machine.gate, Gate::Until(_));
        if life.serves(life.machine.now) {
            self.served = now;
            if other_serves && !self.judge.split {
                return Err("both boards serve".into());
            }
        }
        let mut outputs = Vec::new();
        while let Some(output) = life.machine.output() {
            outputs.push(output);
        }
        for output in outputs {
            let delay = self
                .chance
                .time(Duration::from_nanos(1_000), Duration::from_nanos(TRANSMIT));
            self.after(
                nanoseconds(delay),
                Event::Transmit {
                    side,
                    life: number,
                    output,
                    term,
                    held,
                },
            );
        }
        Ok(())
    }

    /// A frame of a guest's is on the wire.
    pub(super) fn transmit(
        &mut self,
        side: Side,
        number: u64,
        output: &Output,
        term: Term,
        held: bool,
    ) -> Result<(), String> {
        let alive = |life: &Life| life.number == number;
        let blade = &self.blades[index(side)];
        let Some(life) = blade.life.as_ref().filter(|life| alive(life)) else {
            return Ok(());
        };
        let bond = life.node.role().bond();
        if let Some(backup) = &self.blades[index(side.peer())].life
            && held
            && backup.node.role().role() == Role::Backup
            && bond.is_some()
            && backup.node.role().bond() == bond
        {
            let mut committed = backup.node.committed();
            let committed = committed.find(|(group, _)| *group == output.group);
            let committed = committed.and_then(|(_, committed)| committed);
            if committed.is_none_or(|committed| committed.epoch < output.epoch) {
                return Err(format!(
                    "a reply of epoch {} leaves board {side}, and the backup has {committed:?}",
                    output.epoch
                ));
            }
        }
        self.judge.transmits(side, term)?;
        self.heard = Some(side);
        if blade.uplink {
            self.send_reply(side, output.reply);
        }
        Ok(())
    }

    fn send_reply(&mut self, side: Side, reply: Reply) {
        let wire = self.wires[index(side)].outgoing;
        self.carry(wire, reply, drop_it, Event::Reply);
    }

    /// Which life a board has, if it is on.
    pub(super) fn boot(&self, side: Side) -> Option<u64> {
        self.blades[index(side)]
            .life
            .as_ref()
            .map(|life| life.number)
    }

    /// Which board serves, if one does.
    pub(super) fn server(&self) -> Option<Side> {
        SIDES.into_iter().find(|side| {
            let blade = &self.blades[index(*side)];
            blade
                .life
                .as_ref()
                .is_some_and(|life| life.serves(blade.clock.shows(self.now)))
        })
    }
}

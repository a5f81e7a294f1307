//! What goes wrong, and right again.

use super::{Event, LATE, SIDES, World, index, nanoseconds};
use crate::scenario::{DEAD, Fault};
use crate::wire::Quality;
use mirror::{Arbiter, Command, OnSilence, Path, Side};
use std::time::Duration;

/// How long a backup may take to go on once its primary is dead and everything else is well: T_dead from the last late frame, and
/// the witness's answer.
const TAKEOVER: Duration = Duration::from_millis(650);

/// How bad wires are, in four ways.
const fn bad(way: u8, delay: (Duration, Duration)) -> Quality {
    let quality = match way {
        0 => (100, 50, 20, 50),
        1 => (300, 0, 0, 0),
        2 => (0, 200, 0, 200),
        _ => (30, 30, 300, 30),
    };
    let (loss, double, damage, late) = quality;
    Quality {
        loss,
        double,
        damage,
        late,
        late_by: if way == 2 {
            LATE
        } else {
            Duration::from_millis(5)
        },
        delay,
    }
}

impl World {
    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), String> {
        let start = matches!(fault, Fault::Start(_));
        if (self.now < self.lull || self.ended) && !start {
            return Ok(());
        }
        self.note(|| format!("{fault:?}"));
        if self.is_impaired() {
            self.impaired = self.now;
        }
        match fault {
            Fault::Kill(side) => self.kill(side),
            Fault::Die(side) => self.die(side),
            Fault::Start(side) => self.start(side)?,
            Fault::Freeze(side) => self.blades[index(side)].frozen = true,
            Fault::Thaw(side) => self.thaw(side)?,
            Fault::Cut(path, from, cut) => self.wire(path, from).cut = cut,
            Fault::Carrier(carrier) => self.set_carrier(carrier)?,
            Fault::Short(short) => self.short = short,
            Fault::Bad(path, way) => self.set_quality(path, way),
            Fault::Uplink(side, up) => self.set_uplink(side, up)?,
            Fault::Witness(reachable) => self.witness.reachable = reachable,
            Fault::WitnessRestarts => self.witness.restart(),
            Fault::Command(side, command) => {
                self.tell(side, |node, now, machine| {
                    node.command(command, now, machine)
                })?;
            }
            Fault::KillProtected => self.kill_protected()?,
            Fault::ForceWrongly(side) => {
                self.judge.split = true;
                self.tell(side, |node, now, machine| {
                    node.command(Command::Force, now, machine);
                })?;
            }
        }
        if self.is_impaired() {
            self.impaired = self.now;
        }
        Ok(())
    }

    /// A board loses its power, and everything that it knows.
    pub(super) fn kill(&mut self, side: Side) {
        let blade = &mut self.blades[index(side)];
        (blade.life, blade.frozen) = (None, false);
        blade.inbox.clear();
    }

    /// A board says that it dies.
    fn die(&mut self, side: Side) {
        let mut frames = Vec::new();
        let blade = &mut self.blades[index(side)];
        if let Some(life) = &mut blade.life
            && !blade.frozen
        {
            for path in [Path::Link, Path::Lan] {
                let mut frame = vec![0; 200];
                if let Some(length) = life.node.dying(path, &mut frame) {
                    frame.truncate(length);
                    frames.push((path, frame));
                }
            }
        }
        for (path, frame) in frames {
            self.send(side, path, frame);
        }
        self.kill(side);
    }

    fn thaw(&mut self, side: Side) -> Result<(), String> {
        let blade = &mut self.blades[index(side)];
        if !core::mem::replace(&mut blade.frozen, false) {
            return Ok(());
        }
        blade.well = self.now;
        let uplink = blade.uplink;
        let inbox = core::mem::take(&mut blade.inbox);
        let life = blade.life.as_ref().map(|life| life.number);
        if let Some(life) = life {
            // Whoever comes first.
            if self.chance.permille(300) {
                self.guests(side, life)?;
            }
            if self.chance.permille(500) {
                self.turn(side, life)?;
            }
        }
        for what in inbox {
            self.arrive(side, what)?;
        }
        let carrier = self.carrier;
        self.tell(side, |node, now, machine| {
            node.set_carrier(carrier);
            node.set_uplink(uplink, now, machine);
        })
    }

    fn set_carrier(&mut self, carrier: bool) -> Result<(), String> {
        self.carrier = carrier;
        for side in SIDES {
            self.tell(side, |node, _, _| node.set_carrier(carrier))?;
        }
        Ok(())
    }

    fn set_uplink(&mut self, side: Side, up: bool) -> Result<(), String> {
        self.blades[index(side)].uplink = up;
        self.tell(side, |node, now, machine| {
            node.set_uplink(up, now, machine);
        })
    }

    fn set_quality(&mut self, path: Path, way: Option<u8>) {
        let good = match path {
            Path::Link => self.link,
            Path::Lan => super::LAN,
        };
        let quality = way.map_or(good, |way| bad(way, good.delay));
        for wires in &mut self.wires {
            match path {
                Path::Link => wires.link.quality = quality,
                Path::Lan => {
                    wires.lan.quality = quality;
                    wires.incoming.quality = quality;
                    wires.outgoing.quality = quality;
                }
            }
        }
    }

    /// Everything is well, but for boards that are off.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        for wires in &mut self.wires {
            (wires.link.cut, wires.lan.cut) = (false, false);
        }
        self.short = false;
        for path in [Path::Link, Path::Lan] {
            self.set_quality(path, None);
        }
        self.witness.reachable = true;
        self.set_carrier(true)?;
        for side in SIDES {
            self.set_uplink(side, true)?;
            self.thaw(side)?;
        }
        Ok(())
    }

    /// See [`Fault::KillProtected`].
    fn kill_protected(&mut self) -> Result<(), String> {
        let dead = nanoseconds(DEAD);
        let long = |since: u64| since + dead <= self.now;
        let Some(side) = SIDES.into_iter().find(|side| {
            let (blade, peer) = (&self.blades[index(*side)], &self.blades[index(side.peer())]);
            let protected = blade.life.as_ref().and_then(|life| life.protected);
            let well = |blade: &crate::blade::Blade| {
                blade.life.is_some() && !blade.frozen && long(blade.well)
            };
            well(blade) && well(peer) && protected.is_some_and(long)
        }) else {
            return Ok(());
        };
        let peer = side.peer();
        let Some(life) = self.boot(peer) else {
            return Ok(());
        };
        self.note(|| format!("board {side} is killed while its guests are protected"));
        self.kill(side);
        self.heal()?;
        self.figures.proofs += 1;
        let patience = nanoseconds(TAKEOVER);
        self.lull = self.now + patience;
        self.after(patience, Event::Expect { side: peer, life });
        self.after(patience + 1, Event::Fault(Fault::Start(side)));
        Ok(())
    }

    /// A board is to serve by now.
    pub(super) fn expect(&mut self, side: Side, life: u64) -> Result<(), String> {
        let needs = |life: &crate::blade::Life| life.needs_operator;
        let blade = &self.blades[index(side)];
        let waits = self.scenario.arbiter == Arbiter::Rule(OnSilence::Hold)
            && blade.life.as_ref().is_some_and(needs);
        if self.boot(side) == Some(life) && self.server() != Some(side) && !waits {
            return Err(format!(
                "board {side} does not serve, although the other said that the guests were protected"
            ));
        }
        Ok(())
    }
}

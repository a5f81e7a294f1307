//! The operator, who decides where nobody else may; and the end, when all is made right.

use super::{Event, SIDES, World, index, nanoseconds};
use crate::scenario::{DEAD, Fault, START_PATIENCE};
use mirror::{Command, Role, Side};

/// How long the operator lets boards alone that want a decision, in nanoseconds.
const PATIENCE: u64 = 1_200_000_000;
/// How long he needs to switch a board off and on.
const OFF: u64 = 200_000_000;
/// How often he decides at the end, at most.
const ROUNDS: u32 = 4;
/// Answers that every client must have got at the end.
const ANSWERS: u64 = 3;

impl World {
    /// Looks at the boards, and decides if one has to.
    pub(super) fn operator_looks(&mut self) -> Result<(), String> {
        self.after(nanoseconds(DEAD), Event::Operator);
        if self.is_impaired() {
            self.impaired = self.now;
        }
        self.split_is_over()?;
        if self.now >= self.served + PATIENCE && self.now >= self.lull && self.is_needed() {
            self.decide()?;
            self.served = self.now;
        }
        Ok(())
    }

    fn is_needed(&self) -> bool {
        let lives = self.blades.iter().filter_map(|blade| blade.life.as_ref());
        lives.into_iter().any(|life| life.needs_operator)
    }

    /// Lets one board go on, and switches the other off before.
    fn decide(&mut self) -> Result<(), String> {
        let rank = |side: &Side| {
            let blade = &self.blades[index(*side)];
            let life = blade.life.as_ref().filter(|_| !blade.frozen)?;
            let role = life.node.role();
            Some(match role.role() {
                Role::Held | Role::HandingOver | Role::Primary | Role::Solo => 4,
                Role::Backup if role.bond().is_some() => 3,
                Role::Backup | Role::Outdated => 2,
                Role::Waiting => 1,
            })
        };
        let Some(side) = SIDES
            .into_iter()
            .max_by_key(rank)
            .filter(|side| rank(side).is_some())
        else {
            return Ok(());
        };
        self.note(|| format!("the operator lets board {side} go on"));
        self.figures.decisions += 1;
        self.kill(side.peer());
        self.impaired = self.now;
        self.after(OFF, Event::Fault(Fault::Start(side.peer())));
        // The other may have gone on and died since, even if this one still holds the guests.
        self.forced = Some(side);
        self.tell(side, |node, now, machine| {
            node.command(Command::Force, now, machine);
        })
    }

    /// Two boards that served must be one soon after they can hear each other.
    fn split_is_over(&mut self) -> Result<(), String> {
        if !self.judge.split
            || self.is_impaired()
            || self.now < self.impaired + 5 * nanoseconds(DEAD)
        {
            return Ok(());
        }
        let serving: Vec<Side> = SIDES
            .into_iter()
            .filter(|side| {
                let blade = &self.blades[index(*side)];
                let life = blade.life.as_ref();
                life.is_some_and(|life| life.serves(blade.clock.shows(self.now)))
            })
            .collect();
        match serving[..] {
            [] => Ok(()),
            [side] => {
                self.judge.split = false;
                if let Some(life) = &self.blades[index(side)].life {
                    let amnesty = self.now + 2 * nanoseconds(super::LATE);
                    self.judge.forget(life.machine.names(), amnesty);
                }
                Ok(())
            }
            _ => Err("both boards serve, although they hear each other".into()),
        }
    }

    /// Makes everything right: then the service must come back, protected.
    pub(super) fn recover(&mut self) -> Result<(), String> {
        // What still was to go wrong does not any more.
        self.until(self.now.max(self.lull) + 1)?;
        self.heal()?;
        self.note(|| "everything is made right".into());
        self.ended = true;
        for side in SIDES {
            self.start(side)?;
            self.tell(side, |node, now, machine| {
                node.command(Command::Attach, now, machine);
            })?;
        }
        let patience = 2 * nanoseconds(START_PATIENCE) + 30 * nanoseconds(DEAD);
        for _ in 0..ROUNDS {
            let before: Vec<u64> = self.clients.iter().map(|client| client.answers).collect();
            let (end, decisions) = (self.now + patience, self.figures.decisions);
            while self.now < end {
                self.until(self.now + nanoseconds(DEAD))?;
                let mut answers = self.clients.iter().zip(&before);
                let answered = answers.all(|(client, before)| client.answers >= before + ANSWERS);
                let protected = self
                    .server()
                    .and_then(|side| self.blades[index(side)].life.as_ref());
                if answered && protected.is_some_and(|life| life.is_protected()) {
                    return Ok(());
                }
            }
            if self.figures.decisions == decisions {
                break;
            }
        }
        let what = if self.server().is_none() {
            "nobody serves"
        } else if self.blades.iter().all(|blade| {
            let life = blade.life.as_ref();
            life.is_none_or(|life| !life.is_protected())
        }) {
            "the guests are not protected"
        } else {
            "clients get no answers"
        };
        Err(format!("{what}, although everything is right"))
    }
}

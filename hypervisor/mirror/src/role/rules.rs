//! What time brings, and what the epochs tell.

use super::heard::PATHS;
use super::{
    Action, Arbiter, Bond, Cause, Image, OnSilence, Protection, Role, RoleMachine, Source, Tell,
    Why,
};
use crate::{Instant, Side};

impl RoleMachine {
    /// Before anything else at a time: what has passed since the last one.
    pub(super) fn wake(&mut self, now: Instant) {
        let rest = now.since(self.ran);
        self.ran = now;
        if rest >= self.config.stall() {
            self.tell(Tell::Stalled(rest));
            self.quiet = now;
        }
        let leased = self.role == Role::Primary || self.role == Role::HandingOver && !self.handed;
        if leased && !self.lease.holds(now) {
            self.hold(now);
        }
    }

    /// What is due, whatever happened.
    pub(super) fn rules(&mut self, now: Instant) {
        let dead = self.config.dead;
        for (path, heard) in PATHS.into_iter().zip(&mut self.peer.paths) {
            if heard.is_some_and(|at| now >= at + dead) {
                *heard = None;
                self.batch
                    .push_back(Action::Tell(Tell::Path { path, heard: false }));
            }
        }
        match self.role {
            Role::Waiting => self.wait(now),
            Role::Primary => {
                self.binding(now);
                if self.uplink_lost(now) {
                    self.uplink_tried = true;
                    self.switch_over(now);
                }
            }
            Role::Solo => self.solo(now),
            Role::Held => {
                self.binding(now);
                self.held(now);
            }
            Role::HandingOver => self.handing_over(now),
            Role::Backup => {
                if self.bond.is_some() && self.claim.is_none() && self.silent(now) {
                    self.claim(Cause::Silence, now);
                }
            }
            Role::Outdated => {
                let served = self.peer.last.is_some_and(|last| last.role.owns());
                if self.silent(now) || !served && now >= self.since + dead {
                    self.need_operator(Cause::Stopped);
                }
            }
        }
        self.ask(now);
    }

    /// Whether the uplink is down for long, and the peer's is up.
    fn uplink_lost(&self, now: Instant) -> bool {
        let lost = self
            .uplink_down
            .is_some_and(|since| now >= since + self.config.uplink_patience);
        lost && !self.uplink_tried
            && self.protection == Protection::Protected
            && self.peer.last.is_some_and(|last| last.uplink)
    }

    /// Asks the backup to give the understudy up.
    pub(super) fn ask_release(&mut self, now: Instant) {
        if self.bond.is_some() && self.release.is_none() {
            self.release = Some(self.next_made(now));
        }
    }

    /// An understudy that cannot be brought forward is worth less than the service.
    fn binding(&mut self, now: Instant) {
        if !self.linked() || self.detached {
            self.ask_release(now);
        }
    }

    /// Whether the link goes both ways, as far as is known.
    fn linked(&self) -> bool {
        self.link && self.peer.last.is_some_and(|last| last.link)
    }

    fn wait(&mut self, now: Instant) {
        if self.claim.is_some() || now < self.ask_again {
            return;
        }
        let patience = self.config.start_patience;
        let witness = self.config.arbiter == Arbiter::Witness;
        let peer = self
            .peer
            .last
            .filter(|_| !self.silent(now) && !self.peer.dying);
        match peer {
            // Two new boards: side a serves, and side b only if a has not come to it.
            Some(peer) if peer.role == Role::Waiting => {
                // Without a witness, the peer must have heard this board just now, or it could be about to start alone.
                let heard = now < peer.echo + self.config.lease;
                if self.side() == Side::A && (witness || heard)
                    || witness && now >= self.since + patience
                {
                    self.claim(Cause::Start, now);
                }
            }
            // The peer knows more than this board.
            Some(peer) => {
                if now < self.since + patience {
                } else if witness && peer.role == Role::Outdated {
                    self.claim(Cause::Start, now);
                } else {
                    self.need_operator(Cause::Start);
                }
            }
            None if now < self.quiet.max(self.since) + patience => {}
            None => match self.config.arbiter {
                Arbiter::Witness | Arbiter::Rule(OnSilence::AssumeDead) => {
                    self.claim(Cause::Start, now);
                }
                Arbiter::Rule(_) => self.need_operator(Cause::Start),
            },
        }
    }

    fn solo(&mut self, now: Instant) {
        // Without echoes there would be no lease to serve by.
        let ready = self.linked()
            && !self.detached
            && !self.peer.dying
            && self.peer.last.is_some_and(|last| {
                matches!(last.role, Role::Backup | Role::Outdated)
                    && !last.claiming
                    && now < last.echo + self.config.lease
            });
        if let Some(bond) = self.resync {
            if !self.linked() || self.detached {
                self.resync_failed(bond, now);
                self.act(Action::Abandon(bond));
            }
        } else if ready && now >= self.resync_at {
            self.bonds = self.bonds.wrapping_add(1).max(1);
            let bond = Bond(self.bonds);
            self.resync = Some(bond);
            self.act(Action::Resync(bond));
        }
    }

    fn held(&mut self, now: Instant) {
        if self.claim.is_some() {
            return;
        }
        if self.conflict || self.doubt && self.config.arbiter != Arbiter::Witness {
            self.need_operator(Cause::LeaseOver);
            return;
        }
        let long = now >= self.since + self.config.dead;
        match self.config.arbiter {
            // A peer that is heard gets the time to say that all is well, or to take over.
            Arbiter::Witness => {
                if long || self.bond.is_none() || now >= self.quiet + self.config.lease {
                    self.claim(Cause::LeaseOver, now);
                }
            }
            Arbiter::Rule(OnSilence::AssumeDead) if self.silent(now) => {
                self.claim(Cause::Silence, now);
            }
            Arbiter::Rule(_) if long => self.need_operator(Cause::LeaseOver),
            Arbiter::Rule(_) => {}
        }
    }

    /// Begins a switchover; why not.
    pub(super) fn switch_over(&mut self, now: Instant) -> Option<Why> {
        match self.protection {
            Protection::Protected if self.role == Role::Primary => {
                self.become_role(Role::HandingOver, now);
                self.act(Action::Finish);
                None
            }
            Protection::Protected => Some(Why::NotServing),
            Protection::Unprotected(why) => Some(why),
        }
    }

    fn handing_over(&mut self, now: Instant) {
        if now < self.since + self.config.handover_patience {
            return;
        }
        if self.handed {
            // The backup may be about to serve. Only what it says after it has heard of this counts.
            self.tell(Tell::TakingBack);
            self.lease.end(self.next_made(now));
            self.hold(now);
        } else {
            self.tell(Tell::Serves(Cause::CalledOff));
            self.become_role(Role::Primary, now);
            self.act(Action::Serve {
                term: self.term,
                source: Source::Own,
            });
        }
    }

    /// See [`Event::ResyncBegun`](super::Event::ResyncBegun).
    pub(super) fn resync_begun(&mut self, bond: Bond, now: Instant) {
        if self.role.owns() {
            return;
        }
        self.drop_claim();
        self.bond = None;
        self.state = None;
        self.image = Some(Image {
            bond,
            complete: false,
        });
        self.become_role(Role::Backup, now);
    }

    /// See [`Event::Complete`](super::Event::Complete).
    pub(super) fn complete(&mut self, bond: Bond) {
        if self.role != Role::Backup {
            return;
        }
        if let Some(image) = self.image.as_mut().filter(|image| image.bond == bond) {
            image.complete = true;
            self.state = Some(Source::Understudy);
        }
    }

    /// See [`Event::ImageLost`](super::Event::ImageLost).
    pub(super) fn image_lost(&mut self, now: Instant) {
        if self.role == Role::Backup || self.role == Role::Outdated {
            self.state = None;
            self.give_up(now);
        }
    }

    /// See [`Event::Bonded`](super::Event::Bonded). Without a lease there would be nothing to serve by.
    pub(super) fn bonded(&mut self, bond: Bond, now: Instant) {
        if self.role != Role::Solo || self.resync != Some(bond) {
            return;
        }
        if let Some(last) = self.peer.last.filter(|_| !self.peer.dying) {
            self.lease.renew(last.echo, now);
        }
        if self.lease.holds(now) {
            self.resync = None;
            self.bond = Some(bond);
            self.join();
            self.bound_from = self.next_made(now);
            self.uplink_tried = false;
            self.tell(Tell::Serves(Cause::Bonded));
            self.become_role(Role::Primary, now);
        } else {
            self.resync_failed(bond, now);
            self.act(Action::Abandon(bond));
        }
    }

    /// See [`Event::ResyncFailed`](super::Event::ResyncFailed).
    pub(super) fn resync_failed(&mut self, bond: Bond, now: Instant) {
        if self.resync == Some(bond) {
            self.resync = None;
            self.resync_at = now + self.config.resync_pause;
            self.tell(Tell::ResyncFailed(bond));
        }
    }

    /// Whether the service would survive the death of the board that serves.
    pub(super) fn protects(&self, now: Instant) -> Protection {
        let silent = self.silent(now) || self.peer.last.is_none() || self.peer.dying;
        let why = match self.role {
            Role::Waiting => Why::NotServing,
            Role::Outdated => Why::Outdated,
            Role::Held => Why::Held,
            Role::HandingOver => Why::HandingOver,
            Role::Primary if self.release.is_some() && self.detached => Why::Detached,
            Role::Primary if self.release.is_some() && !self.linked() => Why::NoLink,
            Role::Primary if self.release.is_some() => Why::Releasing,
            Role::Primary if self.config.arbiter == Arbiter::Witness && !self.record.done => {
                Why::NotRecorded
            }
            Role::Primary if self.peer.last.is_some_and(|last| last.bond == self.bond) => {
                return Protection::Protected;
            }
            Role::Primary => Why::Arming,
            Role::Backup if self.bond.is_some() => return Protection::Protected,
            Role::Solo if self.detached => Why::Detached,
            Role::Solo | Role::Backup if silent => Why::PeerSilent,
            Role::Solo | Role::Backup if !self.linked() => Why::NoLink,
            Role::Solo if self.resync.is_some() => Why::Resync,
            Role::Backup if self.image.is_some() => Why::Resync,
            Role::Solo | Role::Backup => Why::NoUnderstudy,
        };
        Protection::Unprotected(why)
    }

    /// When [`Tick`](super::Event::Tick) is wanted at the latest: never later than the next heartbeat.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        let config = &self.config;
        let beat = self
            .sent
            .map_or(self.ran, |sent| sent.made + config.heartbeat);
        let claim = self.claim.map(|claim| claim.next);
        let record = (self.role.serves() && !self.record.done).then_some(self.record.next);
        [
            Some(self.quiet + config.dead),
            Some(self.quiet + config.lease),
            Some(self.lease.end_of()),
            claim,
            self.claim.and_then(|claim| claim.alone),
            record,
            self.handed.then(|| self.since + config.transmit),
            Some(self.since + config.handover_patience),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > self.ran)
        .fold(beat, Instant::min)
    }
}

//! What a board hears of its peer, and what it makes of it.

use super::{
    Action, Arbiter, Bond, Cause, Heartbeat, Image, OnSilence, Role, RoleMachine, Source, Tell,
};
use crate::witness::{Boot, Want};
use crate::{Instant, Path, Term};

/// What is known of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    /// Its life.
    pub(super) boot: Option<Boot>,
    /// When it was last heard, by path; none if it is silent there.
    pub(super) paths: [Option<Instant>; 2],
    /// Its newest heartbeat in this life.
    pub(super) last: Option<Heartbeat>,
    /// It has died.
    pub(super) dying: bool,
}

impl Peer {
    pub(super) const fn new(boot: Option<Boot>) -> Self {
        Self {
            boot,
            paths: [None; 2],
            last: None,
            dying: false,
        }
    }
}

/// Where [`Peer::paths`] has a path.
pub(super) const PATHS: [Path; 2] = [Path::Link, Path::Lan];

impl Heartbeat {
    /// Whether its sender wants nothing and could go on from nothing.
    const fn harmless(&self) -> bool {
        !self.role.owns() && !self.claiming && self.bond.is_none()
    }
}

impl RoleMachine {
    /// The peer is alive.
    fn hears(&mut self, path: Path, now: Instant) {
        self.quiet = now;
        for (known, heard) in PATHS.into_iter().zip(&mut self.peer.paths) {
            if known == path && heard.replace(now).is_none() {
                self.batch
                    .push_back(Action::Tell(Tell::Path { path, heard: true }));
            }
        }
    }

    /// See [`Event::Session`](super::Event::Session). A session of the same life is a renewed one, and changes nothing.
    pub(super) fn session(&mut self, boot: Boot, now: Instant) {
        if self.peer.boot == Some(boot) {
            return;
        }
        let before = core::mem::replace(&mut self.peer, Peer::new(Some(boot)));
        self.peer.paths = before.paths;
        self.quiet = now;
        self.detached = false;
        self.unknown = None;
        self.clash = None;
        self.tell(Tell::PeerStarted(boot));
        if before.boot.is_none() {
            return;
        }
        match self.role {
            // The lease holds, or this would be a board that is held: the peer has not gone on in its last life.
            Role::Primary => self.unbind(Cause::Restarted, now),
            Role::HandingOver if !self.handed => self.unbind(Cause::Restarted, now),
            Role::HandingOver | Role::Held => {
                self.doubt |= self.handed;
                self.cut_bond();
                if self.role == Role::HandingOver {
                    self.hold(now);
                }
                if self.config.arbiter == Arbiter::Rule(OnSilence::AssumeDead)
                    && !self.doubt
                    && !self.conflict
                {
                    self.win(self.later(), Cause::Restarted, now);
                }
            }
            Role::Solo => self.cut_bond(),
            Role::Backup if self.bond.is_some() => self.claim(Cause::Restarted, now),
            Role::Backup => self.forsaken(now),
            Role::Waiting | Role::Outdated => {}
        }
    }

    /// See [`Event::Frame`](super::Event::Frame).
    pub(super) fn frame(&mut self, term: Term, path: Path, now: Instant) {
        self.hears(path, now);
        let harmless = self.peer.last.is_some_and(|last| last.harmless());
        if self.role.owns() {
            if term > self.term && !harmless {
                self.superseded(term, now);
            }
        } else if self
            .claim
            .is_some_and(|claim| claim.cause == Cause::Silence)
        {
            self.drop_claim();
        }
    }

    /// See [`Event::Heartbeat`](super::Event::Heartbeat).
    pub(super) fn heartbeat(&mut self, heard: Heartbeat, path: Path, now: Instant) {
        self.hears(path, now);
        // What comes late, or twice, says nothing new; nor does what a dead board said.
        if self.peer.dying || self.peer.last.is_some_and(|last| heard.made <= last.made) {
            return;
        }
        self.peer.last = Some(heard);
        if self.role.owns() {
            self.owner_hears(&heard, now);
        } else if heard.role.owns() {
            self.hears_owner(&heard, now);
        } else if self.role == Role::Waiting {
            self.waiting_hears(&heard, now);
        } else if self.role == Role::Backup && matches!(heard.role, Role::Waiting | Role::Outdated)
        {
            if self.bond.is_some() {
                self.claim(Cause::Stopped, now);
            } else {
                self.forsaken(now);
            }
        }
    }

    /// A backup without an understudy that it could go on from, and a primary that is none any more.
    fn forsaken(&mut self, now: Instant) {
        self.image = None;
        let role = if self.state.is_some() {
            Role::Outdated
        } else {
            Role::Waiting
        };
        self.become_role(role, now);
    }

    /// Nobody serves.
    fn waiting_hears(&mut self, heard: &Heartbeat, now: Instant) {
        if heard.bond.is_some() {
            // The peer has what this board has lost.
            if self.claim.is_some_and(|claim| claim.want == Want::Claim) {
                self.drop_claim();
            }
        } else if let Some((last, since)) = self.unknown {
            // The peer lives, so what the witness told of before is an earlier life of it.
            if heard.role == Role::Waiting && heard.echo >= since && self.claim.is_none() {
                self.unknown = None;
                let basis = (last.term, Some(last.holder.boot));
                self.ask_for(last.term.next(), basis, Want::Claim, Cause::Start, now);
            }
        }
    }

    /// The guests are this board's.
    fn owner_hears(&mut self, heard: &Heartbeat, now: Instant) {
        if heard.term > self.term {
            if heard.harmless() && self.role == Role::Solo {
                // It remembers a term that this board does not, and that nobody goes on in.
                self.raise(heard.term.next(), now);
            } else {
                self.superseded(heard.term, now);
            }
            return;
        }
        if heard.role.owns() {
            if heard.role != Role::Held {
                self.clash(heard.term, now);
            }
            return;
        }
        if !heard.claiming {
            self.adopt(heard.asked, now);
        }
        let Some(bond) = self.bond else { return };
        let gave_up = heard.bond != Some(bond);
        if gave_up && self.release.is_some_and(|release| heard.echo >= release) {
            self.unbind(Cause::Released, now);
            return;
        }
        // What it said before it knew of the bond does not count.
        if gave_up && heard.role == Role::Outdated && heard.echo >= self.bound_from {
            self.ask_release(now);
        }
        // A backup that is about to serve promises nothing any more.
        if heard.claiming {
            return;
        }
        self.lease.renew(heard.echo, now);
        if self.role == Role::Held && self.lease.holds(now) {
            self.go_on(now);
        }
    }

    /// The peer has renounced all terms that it asked for up to this one: the pair goes on in it.
    fn adopt(&mut self, asked: Term, now: Instant) {
        // An earlier partner is remembered as long as it is not known what that did, or as the peer brings nothing.
        if self.partner != self.peer.boot && (!self.role.serves() || asked <= self.term) {
            return;
        }
        self.join();
        self.renounced = self.renounced.max(asked);
        if asked > self.term {
            self.raise(asked, now);
        }
    }

    /// The peer is there and has not gone on: neither shall this board ask to. It serves by its lease again, in the term that it asked for, if it
    /// did: the witness may have granted that.
    fn go_on(&mut self, now: Instant) {
        match self.claim {
            Some(claim) if claim.want == Want::Force => {}
            Some(_) => {
                self.drop_claim();
                self.raise(self.asked, now);
                self.lease.end(self.next_made(now));
                // It has time to hear of that before the witness is asked again.
                self.since = now;
            }
            None => {
                self.handed = false;
                self.tell(Tell::Serves(Cause::PeerBack));
                self.become_role(Role::Primary, now);
                self.act(Action::Serve {
                    term: self.term,
                    source: Source::Own,
                });
            }
        }
    }

    /// Both boards think that the guests are theirs.
    fn clash(&mut self, term: Term, now: Instant) {
        if term == self.term && self.role == Role::Held {
            if !self.conflict {
                // It was granted what this board only asked for.
                self.superseded(term, now);
            }
            return;
        }
        if self.clash.replace(term) != Some(term) {
            self.tell(Tell::Conflict {
                own: self.term,
                peer: term,
            });
        }
        // In an earlier term, the peer stops when it hears of this one.
        if term == self.term {
            self.cut_bond();
            self.conflict = true;
            self.hold(now);
        }
    }

    /// The guests are the peer's.
    fn hears_owner(&mut self, heard: &Heartbeat, now: Instant) {
        if heard.term < self.term {
            return;
        }
        let claim = self.claim;
        self.term = heard.term;
        match self.role {
            Role::Waiting => {
                self.become_role(Role::Backup, now);
            }
            Role::Backup => self.backup_hears(heard, now),
            _ => {}
        }
        if !heard.hand_over && claim.is_some() {
            self.drop_claim();
        }
    }

    fn backup_hears(&mut self, heard: &Heartbeat, now: Instant) {
        match (self.bond, heard.bond) {
            (Some(bond), Some(theirs)) if bond == theirs => {
                if heard.release {
                    self.give_up(now);
                } else if heard.hand_over {
                    self.claim(Cause::HandOver, now);
                }
            }
            // The primary is bound no more, or by another understudy.
            (Some(_), _) => self.give_up(now),
            (None, Some(theirs)) if !heard.release => self.arm(theirs),
            (None, _) => {}
        }
    }

    /// This life of the peer is the partner from now on. Of another one's terms nothing is known for it.
    pub(super) fn join(&mut self) {
        if self.partner != self.peer.boot {
            self.partner = self.peer.boot;
            self.renounced = Term::default();
        }
    }

    /// From now on the understudy may serve, if the primary is bound by it.
    fn arm(&mut self, bond: Bond) {
        if self.image
            == Some(Image {
                bond,
                complete: true,
            })
        {
            self.bond = Some(bond);
            self.join();
        }
    }

    /// The understudy may not serve any more.
    pub(super) fn give_up(&mut self, now: Instant) {
        self.bond = None;
        self.image = None;
        self.drop_claim();
        self.become_role(Role::Outdated, now);
    }

    /// See [`Event::Dying`](super::Event::Dying).
    pub(super) fn dying(&mut self, heard: Heartbeat, now: Instant) {
        self.peer.dying = true;
        let last = self
            .peer
            .last
            .filter(|last| last.made > heard.made)
            .unwrap_or(heard);
        self.peer.last = Some(last);
        if self.role.owns() {
            if last.term > self.term && last.role.owns() {
                self.superseded(last.term, now);
                return;
            }
            self.adopt(last.asked, now);
            if self.bond.is_some() {
                self.unbind(Cause::Dying, now);
            }
        } else if self.role == Role::Backup && last.role.owns() && last.term >= self.term {
            self.term = last.term;
            if let Some(bond) = last.bond {
                self.arm(bond);
            }
            if self.bond.is_some() && self.bond == last.bond {
                self.claim(Cause::Dying, now);
            } else if self.bond.is_some() {
                self.give_up(now);
            }
        }
    }
}

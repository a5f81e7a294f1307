//! How a board comes to serve: by the witness's grant, by a rule, or because an operator wants it.

use super::{Action, Arbiter, Cause, Command, OnSilence, Role, RoleMachine, Source, Tell, Why};
use crate::witness::{Answer, Ask, Boot, How, Last, Want};
use crate::{Instant, Term};

/// A term that the witness is being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    pub(super) cause: Cause,
    pub(super) want: Want,
    term: Term,
    basis: Term,
    of: Option<Boot>,
    /// [`RoleMachine::asked`] before.
    before: Term,
    /// When to ask next.
    pub(super) next: Instant,
    /// When an operator's wish is done without the witness.
    pub(super) alone: Option<Instant>,
}

/// The record that the witness has of the term that this board serves in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) done: bool,
    /// An operator wanted the term, and the witness did not answer.
    forced: bool,
    /// When to ask next.
    pub(super) next: Instant,
}

impl Record {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            done: false,
            forced: false,
            next: now,
        }
    }
}

impl RoleMachine {
    /// A term that is later than all that this board has asked for, is in, or has heard of in the peer's present life.
    pub(super) fn later(&self) -> Term {
        let peer = self.peer.last.map_or(Term::default(), |last| last.term);
        self.term.max(self.asked).max(peer).next()
    }

    /// Nobody serves, as far as this board knows, and it could.
    pub(super) fn claim(&mut self, cause: Cause, now: Instant) {
        if let Some(claim) = &mut self.claim {
            claim.cause = cause;
            return;
        }
        match self.config.arbiter {
            Arbiter::Witness => {
                self.ask_for(self.later(), self.basis(), Want::Claim, cause, now);
            }
            // A silent peer may be alive; one that told of its end is not.
            Arbiter::Rule(OnSilence::Hold) if cause == Cause::Silence => self.need_operator(cause),
            Arbiter::Rule(_) => self.win(self.later(), cause, now),
        }
    }

    /// What this board's state takes into account. A backup has all that the primary did in the term that it follows; a primary
    /// knows of the backup that it did nothing in the terms that it renounced.
    fn basis(&self) -> (Term, Option<Boot>) {
        let term = if self.role.owns() {
            self.renounced
        } else {
            self.term
        };
        (term, self.partner)
    }

    pub(super) fn ask_for(
        &mut self,
        term: Term,
        (basis, of): (Term, Option<Boot>),
        want: Want,
        cause: Cause,
        now: Instant,
    ) {
        self.claim = Some(Claim {
            cause,
            want,
            term,
            basis,
            of,
            before: self.asked,
            next: now,
            alone: (want == Want::Force).then(|| now + self.config.force_patience),
        });
        self.tell(Tell::Asking { term, cause });
    }

    /// What was asked for is not wanted any more.
    pub(super) fn drop_claim(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.tell(Tell::AskDropped(claim.term));
        }
    }

    /// Asks, and asks again.
    pub(super) fn ask(&mut self, now: Instant) {
        if self.config.arbiter != Arbiter::Witness {
            return;
        }
        if let Some(claim) = &mut self.claim {
            if claim.alone.is_some_and(|alone| now >= alone) {
                let term = claim.term;
                self.tell(Tell::ForcedAlone(term));
                self.win(term, Cause::Operator, now);
                self.record.forced = true;
            } else if now >= claim.next {
                claim.next = now + self.config.witness_retry;
                let Claim {
                    want,
                    term,
                    basis,
                    of,
                    ..
                } = *claim;
                self.asked = self.asked.max(term);
                self.send(want, term, basis, of);
            }
        }
        if self.role.serves() && !self.record.done && now >= self.record.next {
            self.record.next = now + self.config.witness_retry;
            let want = if self.record.forced {
                Want::Force
            } else {
                Want::Serving
            };
            let (basis, of) = self.basis();
            self.send(want, self.term, basis, of);
        }
    }

    fn send(&mut self, want: Want, term: Term, basis: Term, of: Option<Boot>) {
        let (pair, side, boot) = (self.config.pair, self.side(), self.config.boot);
        self.act(Action::Ask(Ask {
            pair,
            side,
            boot,
            want,
            term,
            basis,
            of,
        }));
    }

    /// See [`Event::Answer`](super::Event::Answer).
    pub(super) fn answer(&mut self, answer: &Answer, now: Instant) {
        let own = (self.config.pair, self.side(), self.config.boot);
        if (answer.pair, answer.side, answer.boot) != own {
            return;
        }
        if self.role.owns() && self.claim.is_none() {
            self.recorded(answer, now);
            return;
        }
        let Some(claim) = self
            .claim
            .filter(|claim| (claim.want, claim.term) == (answer.want, answer.term))
        else {
            return;
        };
        match answer.last {
            _ if answer.granted => self.win(claim.term, claim.cause, now),
            Some(last) if claim.want == Want::Force || self.entitled(&last) => {
                let term = last.term.next().max(claim.term);
                self.claim = Some(Claim {
                    term,
                    basis: last.term,
                    of: Some(last.holder.boot),
                    next: now,
                    ..claim
                });
            }
            last => self.refused(claim, last, now),
        }
    }

    /// What the witness says of the term that this board serves in.
    fn recorded(&mut self, answer: &Answer, now: Instant) {
        if answer.term != self.term || answer.want == Want::Claim {
            return;
        }
        if answer.granted {
            self.record.done = true;
        } else if let Some(last) = answer.last {
            // A later term that is only granted may have been renounced. One that is served in was not.
            if last.term > self.term && last.holder.how != How::Granted {
                self.superseded(last.term, now);
            }
        }
    }

    /// Whether nobody can have a newer state than this board, although a later term than its basis was granted.
    fn entitled(&self, last: &Last) -> bool {
        let holder = &last.holder;
        if self.role != Role::Waiting {
            return false;
        }
        // An earlier life of this board. If it served, the peer has nothing newer. If it was only granted the term, the peer could have
        // served still, but not if it has started anew as well.
        let new = self
            .peer
            .last
            .is_some_and(|last| last.role == Role::Waiting);
        holder.side == self.side() && (holder.how != How::Granted || new)
    }

    fn refused(&mut self, claim: Claim, last: Option<Last>, now: Instant) {
        let term = claim.term;
        self.tell(Tell::Refused { term, last });
        self.claim = None;
        // What was refused is never granted any more.
        self.asked = claim.before;
        match self.role {
            Role::Held | Role::HandingOver => self.stop(now),
            Role::Backup => {
                self.give_up(now);
            }
            _ => {
                self.ask_again = now + self.config.start_patience;
                self.unknown = last
                    .filter(|last| {
                        last.holder.side != self.side() && Some(last.holder.boot) != self.peer.boot
                    })
                    .map(|last| (last, self.next_made(now)));
            }
        }
    }

    /// Serves alone, in a term of its own.
    pub(super) fn win(&mut self, term: Term, cause: Cause, now: Instant) {
        if self.role.owns() {
            self.cut_bond();
        }
        self.claim = None;
        self.bond = None;
        self.image = None;
        (self.doubt, self.conflict) = (false, false);
        self.resync_at = now;
        self.raise(term, now);
        self.tell(Tell::Serves(cause));
        self.become_role(Role::Solo, now);
        let source = self.state.replace(Source::Own).unwrap_or(Source::Cold);
        self.act(Action::Serve { term, source });
    }

    /// See [`Event::Command`](super::Event::Command).
    pub(super) fn command(&mut self, command: Command, now: Instant) {
        let refused = match command {
            Command::Force => self.force(now),
            Command::Switchover => self.switch_over(now),
            Command::Detach if self.role.owns() => {
                self.detached = true;
                None
            }
            Command::Detach => Some(Why::NotServing),
            Command::Attach => {
                self.detached = false;
                None
            }
        };
        if let Some(why) = refused {
            self.tell(Tell::CommandRefused { command, why });
        }
    }

    fn force(&mut self, now: Instant) -> Option<Why> {
        let heard = self.peer.paths.iter().any(Option::is_some) && !self.peer.dying;
        if self.role.serves() || self.role == Role::HandingOver {
            return Some(Why::Serving);
        }
        if heard && self.peer.last.is_some_and(|last| last.role.serves()) {
            return Some(Why::PeerServes);
        }
        self.claim = None;
        match self.config.arbiter {
            Arbiter::Witness => {
                let term = self.later();
                self.ask_for(term, self.basis(), Want::Force, Cause::Operator, now);
            }
            Arbiter::Rule(_) => self.win(self.later(), Cause::Operator, now),
        }
        None
    }
}

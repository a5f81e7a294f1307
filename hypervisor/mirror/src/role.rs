//! Who may serve: the board's role in the pair, the terms, and the rules by which they change.
//!
//! What crosses between the boards can be lost, doubled, delayed and reordered without harm: heartbeats, which tell all that the peer
//! need know, on both paths. The rules:
//!
//! * A primary that has a backup is *bound* to it: it releases outputs only while its lease holds, and the lease is renewed only by the backup's
//!   echoes of its heartbeats. The backup counts T_dead from the last frame it heard, which is longer. So before the backup goes
//!   on, the primary's gate has closed.
//! * A bond has a number, so that nothing that was said of an earlier one is taken for this one. The primary is bound before it says so, and
//!   the backup takes over only by a bond that it has heard the primary is bound by.
//! * A primary is bound no more (*solo*) when nobody could go on in its place: the backup has given the understudy up after it heard that it should, has died
//!   or started anew while the lease held, or the witness granted a later term to the primary.
//! * What the witness was asked for is used, or it is renounced, and the peer told so ([`Heartbeat::asked`]): then the pair goes on in
//!   that term by agreement, so that the peer's state counts as the newest for the witness too.
//! * Time for which a board did not run does not count as its peer's silence, but its lease goes by.
//!
//! A cut in one direction on both paths at once is seen by one board only. If the primary is not heard, the backup goes on as after
//! the primary's death. If the backup is not heard, the primary asks the witness; without one it holds its guests, and an operator
//! must decide.

mod claim;
mod config;
mod event;
mod heard;
mod heartbeat;
#[cfg(test)]
mod model;
mod rules;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;

use crate::lease::Lease;
use crate::witness::{Boot, Last};
use crate::{Gate, Instant, Side, Term};
use claim::{Claim, Record};
use heard::Peer;

pub use config::{Arbiter, Config, ConfigError, OnSilence};
pub use event::{Action, Cause, Command, Event, Protection, Source, Tell, Why};
pub use heartbeat::{Bond, HEARTBEAT_BYTES, Heartbeat, Role};

/// A backup's understudy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Image {
    bond: Bond,
    complete: bool,
}

/// The machine of one board. Events go in by [`handle`](Self::handle), and after each of them what is to be done comes out of
/// [`poll_action`](Self::poll_action), to be done in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoleMachine {
    config: Config,
    role: Role,
    /// When it took the role.
    since: Instant,
    /// The term that it serves in, or follows.
    term: Term,
    /// What guests could go on from; nothing at the start.
    state: Option<Source>,
    /// Who owns the guests: what it is bound by. Backup: by what it would take over.
    bond: Option<Bond>,
    /// The peer's life that the bond is with, or was, or whose term this board went on in.
    partner: Option<Boot>,
    /// The latest term that it asked the witness for, and renounced.
    renounced: Term,
    /// The first heartbeat that said so.
    bound_from: Instant,
    /// Backup: what it has, or is getting.
    image: Option<Image>,
    /// The last bond that it made.
    bonds: u32,
    /// Solo: what is being sent.
    resync: Option<Bond>,
    /// When the next resynchronisation may begin.
    resync_at: Instant,
    /// From which heartbeat on the backup is asked to give the understudy up.
    release: Option<Instant>,
    lease: Lease,
    /// The backup was told to serve, and has not said since that it does not.
    handed: bool,
    /// Held: the peer has started anew, and may have served before. Only the witness or an operator may end it.
    doubt: bool,
    /// Held: because both boards served. Only an operator may end it.
    conflict: bool,
    detached: bool,
    link: bool,
    /// Since when the uplink is down.
    uplink_down: Option<Instant>,
    /// The guests were to be handed over by this bond already, for the uplink's sake.
    uplink_tried: bool,
    /// The peer's term that a clash was told of.
    clash: Option<Term>,
    peer: Peer,
    /// From when on the peer's silence counts.
    quiet: Instant,
    /// When it last ran.
    ran: Instant,
    claim: Option<Claim>,
    /// The latest term that the witness was asked for.
    asked: Term,
    /// Waiting, and refused: when to ask again.
    ask_again: Instant,
    /// Waiting, and refused for a life of the peer that this board does not know: what the witness said, and the first heartbeat made since.
    unknown: Option<(Last, Instant)>,
    record: Record,
    /// The last heartbeat.
    sent: Option<Heartbeat>,
    /// What was told last.
    gate: Gate,
    protection: Protection,
    /// What an operator was told last that he must decide.
    needed: Option<Cause>,
    /// What this event leads to.
    batch: VecDeque<Action>,
    actions: VecDeque<Action>,
}

impl RoleMachine {
    /// A board that has just started.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        let mut machine = Self {
            config,
            role: Role::Waiting,
            since: now,
            term: Term::default(),
            state: None,
            bond: None,
            partner: None,
            renounced: Term::default(),
            bound_from: now,
            image: None,
            bonds: 0,
            resync: None,
            resync_at: now,
            release: None,
            lease: Lease::new(config.lease),
            handed: false,
            doubt: false,
            conflict: false,
            detached: false,
            link: false,
            uplink_down: None,
            uplink_tried: false,
            clash: None,
            peer: Peer::new(None),
            quiet: now,
            ran: now,
            claim: None,
            asked: Term::default(),
            ask_again: now,
            unknown: None,
            record: Record::new(now),
            sent: None,
            gate: Gate::Closed,
            protection: Protection::Unprotected(Why::NotServing),
            needed: None,
            batch: VecDeque::new(),
            actions: VecDeque::new(),
        };
        machine.settle(now);
        machine
    }

    /// Takes an event at a time.
    pub fn handle(&mut self, event: Event, now: Instant) {
        let now = now.max(self.ran);
        self.wake(now);
        match event {
            Event::Tick => {}
            Event::Session { peer } => self.session(peer, now),
            Event::Heartbeat { heartbeat, path } => self.heartbeat(heartbeat, path, now),
            Event::Frame { term, path } => self.frame(term, path, now),
            Event::Dying(heartbeat) => self.dying(heartbeat, now),
            Event::Answer(answer) => self.answer(&answer, now),
            Event::Link(up) => self.link = up,
            Event::Uplink(up) => {
                self.uplink_down = (!up).then(|| self.uplink_down.unwrap_or(now));
            }
            Event::ResyncBegun(bond) => self.resync_begun(bond, now),
            Event::Complete(bond) => self.complete(bond),
            Event::ImageLost => self.image_lost(now),
            Event::Bonded(bond) => self.bonded(bond, now),
            Event::ResyncFailed(bond) => self.resync_failed(bond, now),
            Event::FinalAcked => {
                if self.role == Role::HandingOver && !self.handed {
                    self.handed = true;
                    self.since = now;
                }
            }
            Event::Command(command) => self.command(command, now),
        }
        self.rules(now);
        self.settle(now);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What the board is.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The term that it serves in, or follows.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.term
    }

    /// What may leave the guests.
    #[must_use]
    pub fn gate(&self) -> Gate {
        match self.role {
            Role::Solo => Gate::Open,
            Role::Primary => Gate::Until(self.lease.end_of()),
            Role::HandingOver if !self.handed => Gate::Until(self.lease.end_of()),
            _ => Gate::Closed,
        }
    }

    /// Whether the service would survive the death of the board that serves, as of the last event.
    #[must_use]
    pub const fn protection(&self) -> Protection {
        self.protection
    }

    /// What it is bound by, or would take over by.
    #[must_use]
    pub const fn bond(&self) -> Option<Bond> {
        self.bond
    }

    /// The last heartbeat that the peer sent in its present life.
    #[must_use]
    pub const fn peer(&self) -> Option<&Heartbeat> {
        self.peer.last.as_ref()
    }

    const fn side(&self) -> Side {
        self.config.side
    }

    /// When the next heartbeat will have been made, at the earliest.
    fn next_made(&self, now: Instant) -> Instant {
        self.sent
            .map_or(now, |sent| now.max(Instant(sent.made.0.saturating_add(1))))
    }

    fn act(&mut self, action: Action) {
        self.batch.push_back(action);
    }

    fn tell(&mut self, tell: Tell) {
        self.batch.push_back(Action::Tell(tell));
    }

    fn become_role(&mut self, role: Role, now: Instant) {
        if role != self.role {
            self.tell(Tell::Role {
                from: self.role,
                to: role,
                term: self.term,
            });
            self.role = role;
            self.needed = None;
        }
        self.since = now;
    }

    /// Tells an operator, once, that he must decide.
    fn need_operator(&mut self, cause: Cause) {
        if self.needed != Some(cause) {
            self.needed = Some(cause);
            self.tell(Tell::OperatorNeeded(cause));
        }
    }

    /// Whether the peer is silent for T_dead.
    fn silent(&self, now: Instant) -> bool {
        now >= self.quiet + self.config.dead
    }

    /// Gives up what binds it: guests, if they do not run, go on.
    fn unbind(&mut self, cause: Cause, now: Instant) {
        let suspended = self.role != Role::Primary;
        self.cut_bond();
        // What it asked for and wants no more, the witness may have granted.
        if self.asked > self.term {
            self.raise(self.asked, now);
        }
        self.tell(Tell::Serves(cause));
        self.become_role(Role::Solo, now);
        if suspended {
            self.act(Action::Serve {
                term: self.term,
                source: Source::Own,
            });
        }
    }

    /// Forgets the bond, and what was begun for it.
    fn cut_bond(&mut self) {
        if let Some(bond) = self.bond.take().or(self.resync.take()) {
            self.act(Action::Abandon(bond));
        }
        self.claim = None;
        self.release = None;
        self.handed = false;
    }

    /// The lease is over, or nobody knows who may serve.
    fn hold(&mut self, now: Instant) {
        self.become_role(Role::Held, now);
        self.act(Action::Suspend);
    }

    /// Stops for good: somebody else serves, or may.
    fn stop(&mut self, now: Instant) {
        // Guests that stand still for the bond's sake do not go on.
        self.act(Action::Stop);
        self.cut_bond();
        (self.doubt, self.conflict) = (false, false);
        self.become_role(Role::Outdated, now);
    }

    /// The peer goes on in a later term.
    fn superseded(&mut self, term: Term, now: Instant) {
        self.tell(Tell::Superseded(term));
        self.term = term;
        self.stop(now);
    }

    /// Goes on in a later term by agreement with the peer.
    fn raise(&mut self, term: Term, now: Instant) {
        self.term = term;
        self.record = Record::new(now);
    }

    /// Puts what has changed into the queue: a gate that closes before the heartbeat that says why, a gate that opens after it.
    fn settle(&mut self, now: Instant) {
        let protection = self.protects(now);
        if protection != self.protection {
            self.protection = protection;
            self.tell(Tell::Protection(protection));
        }
        let gate = self.gate();
        let changed = gate != self.gate;
        self.gate = gate;
        let heartbeat = self.due_heartbeat(now).map(Action::Heartbeat);
        let gate = changed.then_some(Action::Gate(gate));
        if matches!(self.gate, Gate::Open) {
            self.actions.extend(heartbeat.into_iter().chain(gate));
        } else {
            self.actions.extend(gate.into_iter().chain(heartbeat));
        }
        self.actions.append(&mut self.batch);
    }

    /// The heartbeat to send now, if its time has come, or if it says something new.
    fn due_heartbeat(&mut self, now: Instant) -> Option<Heartbeat> {
        let mut heartbeat = Heartbeat {
            term: self.term,
            role: self.role,
            made: self.next_made(now),
            echo: self.peer.last.map_or(Instant(0), |last| last.made),
            asked: self.asked,
            bond: self.bond,
            release: self.release.is_some(),
            // What the gate let pass last is on the wire by then.
            hand_over: self.handed
                && self.role == Role::HandingOver
                && now >= self.since + self.config.transmit,
            claiming: self.claim.is_some(),
            uplink: self.uplink_down.is_none(),
            link: self.link,
        };
        if let Some(sent) = self.sent {
            let (made, echo) = (heartbeat.made, heartbeat.echo);
            (heartbeat.made, heartbeat.echo) = (sent.made, sent.echo);
            if heartbeat == sent && now < sent.made + self.config.heartbeat {
                return None;
            }
            (heartbeat.made, heartbeat.echo) = (made, echo);
        }
        self.sent = Some(heartbeat);
        Some(heartbeat)
    }
}

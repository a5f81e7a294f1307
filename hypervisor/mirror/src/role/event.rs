//! What a [`RoleMachine`](crate::RoleMachine) is told, and what it wants.

use core::fmt;
use core::time::Duration;

use super::{Bond, Heartbeat, Role};
use crate::witness::{Answer, Ask, Boot, Last};
use crate::{Gate, Path, Side, Term};

/// What an operator may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Serve, from whatever state there is. The operator answers for it that the peer does not.
    Force,
    /// Hand the guests over to the protected peer.
    Switchover,
    /// Serve without an understudy, before the peer is switched off for example: until `Attach`, or until the peer starts anew.
    Detach,
    /// Take an understudy again.
    Attach,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Force => "force",
            Self::Switchover => "switchover",
            Self::Detach => "detach",
            Self::Attach => "attach",
        })
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// There is a new session with the peer.
    Session {
        /// The peer's life.
        peer: Boot,
    },
    /// A heartbeat of the current session came.
    Heartbeat {
        /// What it says.
        heartbeat: Heartbeat,
        /// On which path.
        path: Path,
    },
    /// Another valid frame of the current session came.
    Frame {
        /// The sender's term.
        term: Term,
        /// On which path.
        path: Path,
    },
    /// The peer says that it dies: its outputs have ended. The body is the last heartbeat that it made.
    Dying(Heartbeat),
    /// The witness answers.
    Answer(Answer),
    /// The mirror's link carries data from the peer, or does no longer.
    Link(bool),
    /// This board's uplink is up, or is down.
    Uplink(bool),
    /// Backup: the primary begins to send an understudy. What was there before is being overwritten.
    ResyncBegun(Bond),
    /// Backup: the understudy is complete, and its last acknowledgement is about to be sent.
    Complete(Bond),
    /// Backup: the understudy cannot be used any more.
    ImageLost,
    /// Primary: the backup has acknowledged the complete understudy. Everything that left the guests since the freeze of the acknowledged
    /// epoch is still held.
    Bonded(Bond),
    /// Primary: the resynchronisation came to nothing.
    ResyncFailed(Bond),
    /// Primary: the guests are frozen, the final epoch is acknowledged, and its outputs have been let through the gate.
    FinalAcked,
    /// An operator wants something.
    Command(Command),
}

/// Where guests go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// They boot.
    Cold,
    /// The understudy.
    Understudy,
    /// The guests themselves, which were suspended or stopped on this board.
    Own,
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send this heartbeat on both paths, and keep it for a Dying.
    Heartbeat(Heartbeat),
    /// The gate is now this. It was the last one until now; [`Gate::Until`] that passes closes it as well.
    Gate(Gate),
    /// Run the guests.
    Serve {
        /// In which term.
        term: Term,
        /// From what.
        source: Source,
    },
    /// Freeze the guests; they may go on later. Outputs stay held.
    Suspend,
    /// Stop the guests and drop the outputs that are held: somebody else serves, or may. Their state is kept until a
    /// resynchronisation overwrites it, for an operator who forces this board.
    Stop,
    /// Freeze the guests, let the backup acknowledge a final epoch, and say [`Event::FinalAcked`].
    Finish,
    /// Send an understudy to the peer; then [`Event::Bonded`] or [`Event::ResyncFailed`].
    Resync(Bond),
    /// Give up what `Resync` began, or what it became.
    Abandon(Bond),
    /// Send this to the witness.
    Ask(Ask),
    /// Tell the operator.
    Tell(Tell),
}

/// Why the death of the board that serves would end the service, or why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// This board does not serve, nor could it.
    NotServing,
    /// The peer is not heard.
    PeerSilent,
    /// The mirror's link carries nothing.
    NoLink,
    /// The peer has no understudy yet.
    NoUnderstudy,
    /// The understudy is on its way.
    Resync,
    /// The understudy is complete, but the peer has not yet said that it would use it.
    Arming,
    /// The peer was told to give the understudy up.
    Releasing,
    /// An operator detached the peer.
    Detached,
    /// The lease is over: guests are held.
    Held,
    /// The guests are being handed over.
    HandingOver,
    /// The state here is not the newest.
    Outdated,
    /// The witness has not recorded the term of this board yet: it could refuse the peer.
    NotRecorded,
    /// This board serves already.
    Serving,
    /// The peer serves, and is heard: a switchover would do it without harm.
    PeerServes,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotServing => "this board serves nothing",
            Self::PeerSilent => "the peer is silent",
            Self::NoLink => "the mirror's link is down",
            Self::NoUnderstudy => "the peer has no understudy",
            Self::Resync => "the understudy is being sent",
            Self::Arming => "the peer has yet to confirm the understudy",
            Self::Releasing => "the peer is to give the understudy up",
            Self::Detached => "the peer is detached",
            Self::Held => "the guests are held",
            Self::HandingOver => "the guests are being handed over",
            Self::Outdated => "the state here is not the newest",
            Self::NotRecorded => "the witness does not know of this board's term yet",
            Self::Serving => "this board serves already",
            Self::PeerServes => "the peer serves, and is heard",
        })
    }
}

/// Whether the service would survive the death of the board that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// It would.
    Protected,
    /// It would not.
    Unprotected(Why),
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protected => f.write_str("protected"),
            Self::Unprotected(why) => write!(f, "unprotected: {why}"),
        }
    }
}

/// Why a board wants to serve, or does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Neither board had anything to go on from.
    Start,
    /// The peer has been silent for T_dead.
    Silence,
    /// The peer said that it dies.
    Dying,
    /// The peer has started anew.
    Restarted,
    /// The peer says that it serves no longer.
    Stopped,
    /// The peer hands over.
    HandOver,
    /// The peer gave its understudy up.
    Released,
    /// The lease was over.
    LeaseOver,
    /// The peer is there again, and has not gone on meanwhile.
    PeerBack,
    /// The switchover was called off.
    CalledOff,
    /// The peer has a complete understudy.
    Bonded,
    /// An operator wants it.
    Operator,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "neither board has anything to go on from",
            Self::Silence => "the peer is silent",
            Self::Dying => "the peer dies",
            Self::Restarted => "the peer has started anew",
            Self::Stopped => "the peer serves no longer",
            Self::HandOver => "the peer hands over",
            Self::Released => "the peer gave the understudy up",
            Self::LeaseOver => "the lease is over",
            Self::PeerBack => "the peer is back",
            Self::CalledOff => "the switchover is called off",
            Self::Bonded => "the peer has an understudy",
            Self::Operator => "an operator wants it",
        })
    }
}

/// What an operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tell {
    /// The board is something else now.
    Role {
        /// What it was.
        from: Role,
        /// What it is.
        to: Role,
        /// In which term.
        term: Term,
    },
    /// Why it serves, or goes on.
    Serves(Cause),
    /// Protection has changed.
    Protection(Protection),
    /// The peer is heard on a path, or is no longer.
    Path {
        /// Which.
        path: Path,
        /// Whether it is heard.
        heard: bool,
    },
    /// The peer has started anew.
    PeerStarted(Boot),
    /// The witness is asked.
    Asking {
        /// For which term.
        term: Term,
        /// Why.
        cause: Cause,
    },
    /// The question is dropped: the peer is heard again.
    AskDropped(Term),
    /// The witness refuses.
    Refused {
        /// The term that was asked for.
        term: Term,
        /// What it granted last.
        last: Option<Last>,
    },
    /// This board waits for an operator, because nothing else may decide.
    OperatorNeeded(Cause),
    /// Both boards served, in whatever terms. The one in the earlier term stops; if they are equal, both do.
    Conflict {
        /// This board's term.
        own: Term,
        /// The peer's.
        peer: Term,
    },
    /// The peer goes on in a later term.
    Superseded(Term),
    /// The board did not run for so long.
    Stalled(Duration),
    /// What an operator wants is not done.
    CommandRefused {
        /// What.
        command: Command,
        /// Why.
        why: Why,
    },
    /// The peer did not take over in time; the guests are taken back if it agrees.
    TakingBack,
    /// The witness did not answer to an operator's wish; the board goes on without it.
    ForcedAlone(Term),
    /// The resynchronisation came to nothing.
    ResyncFailed(Bond),
}

/// A side and what it holds, for people.
struct Holds(Option<Last>);

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("nobody has one"),
            Some(Last { term, holder }) => {
                let side: Side = holder.side;
                write!(f, "board {side} has term {term} ({})", holder.how)
            }
        }
    }
}

impl fmt::Display for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role { from, to, term } => write!(f, "{from} → {to} in term {term}"),
            Self::Serves(cause) => write!(f, "the guests are this board's: {cause}"),
            Self::Protection(protection) => write!(f, "the guests are {protection}"),
            Self::Path { path, heard: true } => write!(f, "the peer is heard on the {path}"),
            Self::Path { path, heard: false } => write!(f, "the peer is silent on the {path}"),
            Self::PeerStarted(boot) => write!(f, "the peer has started anew ({boot})"),
            Self::Asking { term, cause } => {
                write!(f, "asks the witness for term {term}: {cause}")
            }
            Self::AskDropped(term) => {
                write!(f, "does not want term {term} any more: the peer is heard")
            }
            Self::Refused { term, last } => {
                write!(f, "the witness refuses term {term}: {}", Holds(*last))
            }
            Self::OperatorNeeded(cause) => {
                write!(f, "{cause}, and only an operator may let this board go on")
            }
            Self::Conflict { own, peer } => write!(
                f,
                "both boards served: this one in term {own}, the peer in term {peer}"
            ),
            Self::Superseded(term) => write!(f, "the peer goes on in term {term}"),
            Self::Stalled(time) => write!(f, "this board did not run for {time:?}"),
            Self::CommandRefused { command, why } => write!(f, "{command} is refused: {why}"),
            Self::TakingBack => f.write_str("the peer did not take the guests in time"),
            Self::ForcedAlone(term) => {
                write!(
                    f,
                    "the witness does not answer: forced into term {term} without it"
                )
            }
            Self::ResyncFailed(bond) => write!(f, "understudy {bond} came to nothing"),
        }
    }
}

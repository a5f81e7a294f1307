//! The mirror: a board that serves keeps an understudy of its guests on a peer board, which takes over when the first one dies.
//!
//! Everything here is (event, now) → actions: no clock is read, nothing is sent and no chance is taken that was not handed
//! in. So the same state machines run on the boards and in a simulator with faults.

#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod bytes;
mod epoch;
mod inputs;
mod key;
mod lease;
mod link;
mod node;
mod page;
mod pairing;
mod record;
mod role;
mod time;
mod understudy;
mod wire;
pub mod witness;

pub use epoch::{Checkpoint, OutputGate, Teller};
pub use inputs::{INPUT_MAX, INPUT_MIN, InputCounters, InputPiece, Inputs};
pub use key::{Nonce, Offer, PairKey};
pub use lease::Gate;
pub use link::{Full, Lane, Link, LinkConfig, LinkCounters, LinkError, segment_bytes};
pub use node::{Board, GroupConfig, Inspection, Node, NodeConfig, Order, Report};
pub use page::{BadPiece, Base, Encoder, PAGE_SIZE, PIECE_MIN, Page, decode};
pub use pairing::{Facts, News, Opened, Pairing, PairingConfig, Refusal, Session, Software};
pub use record::{Area, BadRecord, Record, Records};
pub use role::{
    Action, Arbiter, Bond, Cause, Command, Config, ConfigError, Event, HEARTBEAT_BYTES, Heartbeat,
    OnSilence, Protection, Role, RoleMachine, Source, Tell, Why,
};
pub use time::{Epoch, Instant, Path, Side, Term, UnknownSide};
pub use understudy::{
    Committed, Extent, Memory, Place, Progress, STATE_MAX, Understudy, Violation,
};
pub use wire::{
    Dropped, Drops, ETHER_TYPE, Frame, HEADER_BYTES, Kind, OVERHEAD, Opener, Sealer, Sender,
    VERSION,
};

//! The mirror: a board that serves keeps an understudy of its guests on a peer board, which takes over when the first one dies.
//!
//! Everything here is (event, now) → actions: no clock is read, nothing is sent and no chance is taken that was not handed
//! in. So the same state machines run on the boards and in a simulator with faults.

#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod key;
mod link;
mod pairing;
mod time;
mod wire;

pub use key::{Nonce, Offer, PairKey};
pub use link::{Full, Lane, Link, LinkConfig, LinkCounters, LinkError, segment_bytes};
pub use pairing::{Facts, News, Opened, Pairing, PairingConfig, Refusal, Session, Software};
pub use time::{Epoch, Instant, Path, Side, Term};
pub use wire::{
    Dropped, Drops, ETHER_TYPE, Frame, HEADER_BYTES, Kind, OVERHEAD, Opener, Sealer, Sender,
    VERSION,
};

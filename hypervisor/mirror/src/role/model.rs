//! A model of the whole: two boards, their ways and their witness, in steps of one tick, with an adversary who may change a few things
//! at any time. Everything that follows is explored, until nothing new comes.
//!
//! The boards are the machines themselves. What the epochs do is told in short: a primary that is bound and whose link carries brings
//! the understudy forward and releases in one step; one that serves alone releases at once.
//!
//! States that differ only in how long ago things were, beyond what any rule looks at, count as one. So the exploration ends, and
//! what is called violated is violated in a run that can happen.

mod explore;
mod moves;
mod scenarios;
mod seen;
mod world;

use core::time::Duration;

use super::{Arbiter, Config, OnSilence};
use crate::Side;
use crate::witness::{Boot, Pair};

/// A tick, the time between two heartbeats. Long enough that the nanoseconds between two heartbeats of one tick do not count.
const TICK: u64 = 1000;

/// Times that are as tight as they may be.
fn config(side: Side, boot: u128, arbiter: Arbiter) -> Config {
    let ticks = |ticks: u64| Duration::from_nanos(ticks * TICK);
    let config = Config {
        side,
        boot: Boot(boot),
        pair: Pair(7),
        arbiter,
        heartbeat: ticks(1),
        dead: ticks(5),
        lease: ticks(5) - Duration::from_nanos(6),
        transmit: Duration::ZERO,
        start_patience: ticks(6),
        uplink_patience: ticks(2),
        handover_patience: ticks(3),
        witness_retry: ticks(1),
        force_patience: ticks(3),
        resync_pause: ticks(2),
    };
    config.check().expect("times go together");
    config
}

const WITNESS: Arbiter = Arbiter::Witness;
const HOLD: Arbiter = Arbiter::Rule(OnSilence::Hold);
const BACKUP: Arbiter = Arbiter::Rule(OnSilence::Backup);
const ASSUME_DEAD: Arbiter = Arbiter::Rule(OnSilence::AssumeDead);

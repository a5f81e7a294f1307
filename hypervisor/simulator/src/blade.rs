//! A board of the simulation: its clock, and what it is while it is on.

use crate::clock::Clock;
use crate::guest::Request;
use crate::machine::Machine;
use crate::scenario::{DEAD, GROUPS, Mutation, START_PATIENCE};
use mirror::witness::{Boot, Pair};
use mirror::{
    Arbiter, Config, Extent, Facts, GroupConfig, LinkConfig, Node, NodeConfig, Nonce, PairKey,
    PairingConfig, Path, Protection, Role, Side, Software,
};
use std::num::NonZeroU128;
use std::time::Duration;

/// Frames that wait in the cards of a board that stands still.
const WAITING: usize = 64;
/// A lease that is never over.
const FOR_EVER: Duration = Duration::from_secs(86_400);

/// What comes in.
#[derive(Clone, Debug)]
pub(crate) enum Inbound {
    /// A frame of the other board's.
    Frame(Path, Vec<u8>),
    /// A datagram of the witness's.
    Answer(Vec<u8>),
    /// A request for a guest.
    Request(Request),
}

/// A board from a start to the next.
pub(crate) struct Life {
    /// Which one, of both boards'.
    pub(crate) number: u64,
    pub(crate) node: Node,
    pub(crate) machine: Machine,
    /// When it has its next turn.
    pub(crate) wake: u64,
    /// Since when it says that its guests are protected while it serves.
    pub(crate) protected: Option<u64>,
    /// It has said that an operator must decide.
    pub(crate) needs_operator: bool,
}

impl Life {
    /// Whether the guests may transmit at this moment of the board's.
    pub(crate) fn serves(&self, now: mirror::Instant) -> bool {
        self.machine.run == crate::machine::Run::Running && self.machine.gate.open(now)
    }

    /// Whether it serves and says that it could die.
    pub(crate) fn is_protected(&self) -> bool {
        let role = self.node.role();
        role.role() == Role::Primary && role.protection() == Protection::Protected
    }
}

/// A board.
pub(crate) struct Blade {
    pub(crate) clock: Clock,
    /// None while it is off.
    pub(crate) life: Option<Life>,
    /// It stands still.
    pub(crate) frozen: bool,
    /// Since when it has neither been off nor stood still.
    pub(crate) well: u64,
    pub(crate) inbox: Vec<Inbound>,
    pub(crate) uplink: bool,
}

impl Blade {
    pub(crate) const fn new() -> Self {
        Self {
            clock: Clock {
                started: 0,
                offset: 0,
                rate: 0,
            },
            life: None,
            frozen: false,
            well: 0,
            inbox: Vec::new(),
            uplink: true,
        }
    }

    /// Something waits until the board goes on.
    pub(crate) fn keep(&mut self, inbound: Inbound) {
        if self.inbox.len() < WAITING {
            self.inbox.push(inbound);
        }
    }
}

/// The secret of the pair.
pub(crate) fn key() -> PairKey {
    PairKey::new(b"a pair of boards")
}

/// What a node is that starts now.
pub(crate) fn config(
    side: Side,
    nonce: Nonce,
    arbiter: Arbiter,
    mutation: Option<Mutation>,
) -> NodeConfig {
    let key = key();
    let (boot, pair) = (Boot(nonce.0.get()), Pair(key.id()));
    let mut role = Config::usual(side, boot, pair, arbiter, DEAD);
    role.start_patience = START_PATIENCE;
    role.force_patience = DEAD * 3;
    if mutation == Some(Mutation::NoLease) {
        role.lease = FOR_EVER;
    }
    let groups = GROUPS.iter().map(|group| GroupConfig {
        number: group.number,
        extents: group
            .guests
            .iter()
            .map(|(guest, areas)| Extent {
                guest: *guest,
                areas: areas.to_vec(),
            })
            .collect(),
        epoch: group.epoch,
        urgent: group.urgent,
    });
    NodeConfig {
        role,
        pairing: PairingConfig {
            side,
            key,
            facts: Facts {
                format: 1,
                configuration: 2,
                cpu: 3,
                tsc_hz: 2_000_000_000,
                software: Software::new("simulator"),
            },
            clock_tolerance: 1000,
            hello_interval: DEAD / 5,
            silence: DEAD,
        },
        link: LinkConfig {
            mtu: 1500,
            window: 32,
            answer_delay: Duration::from_micros(200),
            retransmit_floor: Duration::from_millis(1),
            retransmit_ceiling: Duration::from_millis(40),
        },
        groups: groups.collect(),
    }
}

/// A nonce of these bits.
pub(crate) fn nonce(high: u64, low: u64) -> Nonce {
    let bits = u128::from(high) << 64 | u128::from(low);
    Nonce(NonZeroU128::new(bits).unwrap_or(NonZeroU128::MIN))
}

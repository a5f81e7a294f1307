//! A board's part in a pair: the way to its peer, and who decides when that is silent.

use crate::board::Board;
use crate::network::{Card, GuestNic, Uplink};
use crate::validate::{GuestKey, MirrorKey, Place, Problem};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use mirror::Side;
use serde::{Deserialize, Serialize};

/// The mirror: two boards of one name carry the same guests, one of them at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Which board of the pair this is.
    pub side: Side,
    /// The card of the dedicated link to the peer; no uplink has it.
    pub card: Card,
    /// The longest packet on the link in bytes, without the Ethernet header: [`GuestNic::MTU_DEFAULT`] to
    /// [`Uplink::MTU_MAX`].
    pub mtu: u16,
    /// A digest of the files that the board file names, which both boards must have.
    pub images: u64,
    /// The secret of the pair.
    pub key: [u8; 16],
    /// The uplink, by index, that is the second way to the peer.
    pub lan: u16,
    /// Who decides when the peer is silent.
    pub arbiter: Arbiter,
    /// Microseconds between two heartbeats: [`Mirror::HEARTBEAT_MIN`] to [`Mirror::HEARTBEAT_MAX`].
    pub heartbeat: u32,
    /// Microseconds of silence after which the peer is taken for dead: [`Mirror::DEAD_HEARTBEATS`] heartbeats at least,
    /// at most [`Mirror::DEAD_MAX`].
    pub dead_after: u32,
}

impl Mirror {
    /// The least time between two heartbeats, in microseconds.
    pub const HEARTBEAT_MIN: u32 = 1_000;
    /// The greatest.
    pub const HEARTBEAT_MAX: u32 = 1_000_000;
    /// So many heartbeats must be missed at least.
    pub const DEAD_HEARTBEATS: u32 = 4;
    /// The longest silence, in microseconds.
    pub const DEAD_MAX: u32 = 60_000_000;
    /// The time between heartbeats, in microseconds, where the file names none.
    pub const HEARTBEAT_DEFAULT: u32 = 10_000;
}

/// Who decides which of two boards that do not hear each other may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arbiter {
    /// A program on another machine.
    Witness {
        /// Its IPv4 address.
        address: [u8; 4],
        /// Its UDP port.
        port: u16,
    },
    /// This rule.
    OnSilence(OnSilence),
}

/// What a board does without a witness when its peer is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnSilence {
    /// Both wait for an operator (`"hold"`).
    Hold,
    /// Only the backup goes on (`"backup"`).
    Backup,
    /// Both go on (`"assume-dead"`): sound only where the ways between the boards never fail together.
    AssumeDead,
}

/// How a guest is mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestMirror {
    /// What the peer keeps of it.
    pub mode: MirrorMode,
    /// Microseconds from one checkpoint to the next: [`GuestMirror::EPOCH_MIN`] to [`GuestMirror::EPOCH_MAX`].
    pub epoch: u32,
    /// Its group: guests of one group have their checkpoints in common, and what they send each other is not held. The group has the number
    /// of its first guest; a guest alone has its own.
    pub group: u8,
}

impl GuestMirror {
    /// The shortest time between checkpoints, in microseconds.
    pub const EPOCH_MIN: u32 = 500;
    /// The longest.
    pub const EPOCH_MAX: u32 = 1_000_000;
    /// What it is where the file names none.
    pub const EPOCH_DEFAULT: u32 = 20_000;
}

/// What the peer keeps of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorMode {
    /// Its image, which it starts afresh (`"cold"`).
    Cold,
    /// Its state as of the last checkpoint (`"warm"`).
    Warm,
}

impl Board {
    pub(crate) fn mirror_problems(&self, problems: &mut Vec<Problem>) {
        let Some(mirror) = &self.mirror else {
            for (index, guest) in self.guests.iter().take(Self::GUESTS_MAX).enumerate() {
                if guest.mirror.is_some() {
                    let reason = "there is no [mirror] that says where the peer is";
                    problems.push(Problem::new(
                        Place::Guest(index, GuestKey::Mirror),
                        reason.into(),
                    ));
                }
            }
            return;
        };
        mirror.problems(self, |key, reason| {
            problems.push(Problem::new(Place::Mirror(key), reason));
        });
        for (index, guest) in self.guests.iter().take(Self::GUESTS_MAX).enumerate() {
            let epoch = guest.mirror.map_or(GuestMirror::EPOCH_MIN, |it| it.epoch);
            if !(GuestMirror::EPOCH_MIN..=GuestMirror::EPOCH_MAX).contains(&epoch) {
                let reason = "a checkpoint is taken every 500 us to 1 s";
                problems.push(Problem::new(
                    Place::Guest(index, GuestKey::Epoch),
                    reason.into(),
                ));
            }
        }
        self.group_problems(problems);
    }

    /// Guests of a group are checkpointed together.
    fn group_problems(&self, problems: &mut Vec<Problem>) {
        for (index, guest) in self.guests.iter().take(Self::GUESTS_MAX).enumerate() {
            let Some(mirror) = guest.mirror else { continue };
            let first = self.guests.get(usize::from(mirror.group));
            let first = first.and_then(|first| Some((first, first.mirror?)));
            let reason = match first {
                Some(_) if usize::from(mirror.group) == index => continue,
                Some((_, first)) if first.group != mirror.group => "its group is no guest's own",
                Some((_, first))
                    if mirror.mode != MirrorMode::Warm || first.mode != MirrorMode::Warm =>
                {
                    "only guests with mirror = \"warm\" have checkpoints in common"
                }
                Some((_, first)) if first.epoch != mirror.epoch => {
                    "guests of one group have one epoch"
                }
                Some(_) => continue,
                None => "its group is no mirrored guest's",
            };
            let place = Place::Guest(index, GuestKey::MirrorGroup);
            problems.push(Problem::new(place, reason.into()));
        }
    }
}

impl Mirror {
    fn problems(&self, board: &Board, mut add: impl FnMut(MirrorKey, String)) {
        if let Some(uplink) = board.uplinks.iter().find(|it| it.card == self.card) {
            let reason = format!(
                "the link needs a card of its own; {} is the uplink \"{}\"",
                self.card, uplink.name
            );
            add(MirrorKey::Card, reason);
        }
        if usize::from(self.lan) >= board.uplinks.len() {
            let reason = "the second way to the peer needs an [[uplink]]";
            add(MirrorKey::Lan, reason.into());
        }
        if !(GuestNic::MTU_DEFAULT..=Uplink::MTU_MAX).contains(&self.mtu) {
            let (least, most) = (GuestNic::MTU_DEFAULT, Uplink::MTU_MAX);
            let reason = format!("mtu = {} is outside {least} to {most}", self.mtu);
            add(MirrorKey::Mtu, reason);
        }
        if self.key == [0; 16] {
            let reason = "a key of zeroes is no secret; make one by \"openssl rand -hex 16\"";
            add(MirrorKey::Key, reason.into());
        }
        if let Arbiter::Witness { address, port } = self.arbiter {
            if board.management.is_none() {
                let reason =
                    "the board asks the witness from its [management] station, which it lacks";
                add(MirrorKey::Arbiter, reason.into());
            } else if matches!(address[0], 0 | 127 | 224..) || port == 0 {
                add(MirrorKey::Arbiter, "no witness can be there".into());
            }
        }
        if !(Self::HEARTBEAT_MIN..=Self::HEARTBEAT_MAX).contains(&self.heartbeat) {
            add(
                MirrorKey::Heartbeat,
                "heartbeats come every 1 ms to 1 s".into(),
            );
        } else if !(self.heartbeat * Self::DEAD_HEARTBEATS..=Self::DEAD_MAX)
            .contains(&self.dead_after)
        {
            let reason = format!(
                "the peer is taken for dead after {} missed heartbeats at least, and a minute at most",
                Self::DEAD_HEARTBEATS
            );
            add(MirrorKey::DeadAfter, reason);
        }
    }
}

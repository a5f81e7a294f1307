//! The mirror's part of a board file.

use super::File;
use super::duration::parse_duration;
use super::network::card;
use super::reader::Table;
use crate::board::Board;
use crate::mirror::{Arbiter, GuestMirror, Mirror, MirrorMode, OnSilence};
use crate::network::{Card, GuestNic};
use crate::validate::{GuestKey, MirrorKey, Place};
use mirror::Side;
use std::net::SocketAddrV4;

pub(super) const MIRROR_KEYS: &[&str] = &[
    "card",
    "mtu",
    "key",
    "lan",
    "witness",
    "on_silence",
    "heartbeat",
    "dead_after",
];

/// So many heartbeats are missed before the peer is taken for dead, where the file does not say.
const DEAD_HEARTBEATS_DEFAULT: u32 = 10;

impl File<'_, '_> {
    pub(super) fn mirror(&mut self, side: Side, board: &Board, table: &Table<'_>) -> Mirror {
        let card = self.required_text(table, "card", card);
        let mtu = table.integer_or("mtu", u16::MAX, GuestNic::MTU_DEFAULT, self.notes);
        let key = self.required_text(table, "key", key);
        let lan = self.lan(board, table);
        let arbiter = self.arbiter(table);
        let heartbeat = match table.get("heartbeat") {
            Some(_) => self.text(table, "heartbeat", parse_duration),
            None => Some(Mirror::HEARTBEAT_DEFAULT),
        };
        let usual = heartbeat
            .unwrap_or_default()
            .saturating_mul(DEAD_HEARTBEATS_DEFAULT);
        let dead_after = match table.get("dead_after") {
            Some(_) => self.text(table, "dead_after", parse_duration),
            None => Some(usual),
        };
        for (bad, key) in [
            (card.is_none(), MirrorKey::Card),
            (mtu.is_none(), MirrorKey::Mtu),
            (key.is_none(), MirrorKey::Key),
            (lan.is_none(), MirrorKey::Lan),
            (arbiter.is_none(), MirrorKey::Arbiter),
            (heartbeat.is_none(), MirrorKey::Heartbeat),
            (dead_after.is_none(), MirrorKey::DeadAfter),
        ] {
            self.mark(bad, Place::Mirror(key));
        }
        Mirror {
            side,
            // A card that no uplink is.
            card: card.unwrap_or(Card::Slot {
                bus: u8::MAX,
                device: u8::MAX,
                function: u8::MAX,
            }),
            mtu: mtu.unwrap_or(GuestNic::MTU_DEFAULT),
            // Who reads the files knows.
            images: 0,
            key: key.unwrap_or([1; 16]),
            lan: lan.unwrap_or_default(),
            arbiter: arbiter.unwrap_or(Arbiter::OnSilence(OnSilence::Hold)),
            heartbeat: heartbeat.unwrap_or(Mirror::HEARTBEAT_DEFAULT),
            dead_after: dead_after.unwrap_or(usual),
        }
    }

    /// The uplink that is the second way to the peer: the first, if none is named.
    fn lan(&mut self, board: &Board, table: &Table<'_>) -> Option<u16> {
        let Some(name) = table.string("lan", self.notes) else {
            return table.get("lan").is_none().then_some(0);
        };
        let index = board.uplinks.iter().position(|it| it.name == name);
        if index.is_none() {
            let reason = format!("there is no [[uplink]] named \"{name}\"");
            self.notes.error(table.position("lan"), reason);
        }
        u16::try_from(index?).ok()
    }

    fn arbiter(&mut self, table: &Table<'_>) -> Option<Arbiter> {
        let rules = &[
            ("hold", OnSilence::Hold),
            ("backup", OnSilence::Backup),
            ("assume-dead", OnSilence::AssumeDead),
        ];
        match (table.get("witness"), table.get("on_silence")) {
            (Some(_), None) => {
                let read = |text: &str| {
                    text.parse::<SocketAddrV4>()
                        .map_err(|_| "write its address and port, like \"192.0.2.9:7400\"")
                };
                let witness = self.text(table, "witness", read)?;
                Some(Arbiter::Witness {
                    address: witness.ip().octets(),
                    port: witness.port(),
                })
            }
            (None, Some(_)) => {
                let rule = table.choice("on_silence", rules, self.notes)?;
                Some(Arbiter::OnSilence(rule))
            }
            (Some(_), Some(value)) => {
                let reason =
                    "with a witness nothing is decided by on_silence: leave one of them out";
                self.notes.error(value.span().start, reason);
                None
            }
            (None, None) => {
                let reason = "[mirror] needs witness = \"ADDRESS:PORT\", or on_silence = \"hold\", \"backup\" or \
                              \"assume-dead\": who may serve when the peer is silent";
                self.notes.error(table.start(), reason);
                None
            }
        }
    }

    /// How a guest is mirrored.
    pub(super) fn guest_mirror(&mut self, index: usize, table: &Table<'_>) -> Option<GuestMirror> {
        let modes = &[
            ("off", None),
            ("cold", Some(MirrorMode::Cold)),
            ("warm", Some(MirrorMode::Warm)),
        ];
        let mode = table.choice("mirror", modes, self.notes).flatten();
        let epoch = match table.get("epoch") {
            Some(_) => self.text(table, "epoch", parse_duration),
            None => Some(GuestMirror::EPOCH_DEFAULT),
        };
        if mode.is_none() && table.get("epoch").is_some() {
            let reason = "only a guest with mirror = \"warm\" has the key \"epoch\"";
            self.notes.error(table.position("epoch"), reason);
        }
        self.mark(epoch.is_none(), Place::Guest(index, GuestKey::Epoch));
        let group = table.string("mirror_group", self.notes);
        if mode.is_none() && group.is_some() {
            let reason = "only a guest with mirror = \"warm\" has the key \"mirror_group\"";
            self.notes.error(table.position("mirror_group"), reason);
        }
        Some(GuestMirror {
            mode: mode?,
            epoch: epoch.unwrap_or(GuestMirror::EPOCH_DEFAULT),
            group: self.group(index, group),
        })
    }

    /// The number of a guest's group, which is its first guest's.
    fn group(&mut self, index: usize, name: Option<String>) -> u8 {
        let own = u8::try_from(index).unwrap_or(u8::MAX);
        let Some(name) = name else { return own };
        let known = self.groups.iter().find(|(known, _)| *known == name);
        let first = known.map(|(_, first)| *first);
        first.unwrap_or_else(|| {
            self.groups.push((name, own));
            own
        })
    }
}

/// A key of 128 bits.
fn key(text: &str) -> Result<[u8; 16], &'static str> {
    const ADVICE: &str = "write 32 hexadecimal digits; \"openssl rand -hex 16\" makes some";
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16);
    match number {
        Ok(number) if digits && text.len() == 32 => Ok(number.to_be_bytes()),
        _ => Err(ADVICE),
    }
}

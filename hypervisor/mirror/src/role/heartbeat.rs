//! What a heartbeat says.

use core::fmt;

use crate::bytes::{Body, Fields};
use crate::{Instant, Term};

/// Bytes of a heartbeat.
pub const HEARTBEAT_BYTES: usize = 38;

/// What a board is in the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// It has started, and has nothing to go on from.
    Waiting = 0,
    /// It serves, bound to a backup that could take over: by a lease, and with outputs held until they are acknowledged.
    Primary = 1,
    /// It serves alone by right: nobody could take over.
    Solo = 2,
    /// It served, and does not know whether it still may: guests and outputs are held.
    Held = 3,
    /// It served, and has frozen its guests so that the backup takes them.
    HandingOver = 4,
    /// It keeps an understudy of the guests, or is getting one.
    Backup = 5,
    /// Its state is not the newest. It serves only if an operator forces it.
    Outdated = 6,
}

impl Role {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Primary,
        Self::Solo,
        Self::Held,
        Self::HandingOver,
        Self::Backup,
        Self::Outdated,
    ];

    /// Whether the guests are this board's: it serves, or holds them.
    #[must_use]
    pub const fn owns(self) -> bool {
        matches!(
            self,
            Self::Primary | Self::Solo | Self::Held | Self::HandingOver
        )
    }

    /// Whether it serves.
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(self, Self::Primary | Self::Solo)
    }

    /// Its name, as in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Primary => "primary",
            Self::Solo => "solo",
            Self::Held => "held",
            Self::HandingOver => "handing over",
            Self::Backup => "backup",
            Self::Outdated => "outdated",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The number of an understudy: what binds a primary and its backup, from a resynchronisation on until it is given up. The primary
/// counts them, from 1 in each of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bond(pub u32);

impl fmt::Display for Bond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A heartbeat, the same on both paths. Its name is the time at which it was made, by its sender's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Heartbeat {
    /// The sender's term.
    pub term: Term,
    /// What it is.
    pub role: Role,
    /// When this was made; later than all before it in the sender's life.
    pub made: Instant,
    /// When the newest heartbeat was made that the sender has heard of the receiver, by the receiver's clock; 0 if none.
    pub echo: Instant,
    /// The latest term that it has asked the witness for. Unless it is [claiming](Self::claiming), it will never serve in this or an earlier one
    /// because of such a question.
    pub asked: Term,
    /// Of a primary: the understudy that it is bound to. Of a backup: the one by which it would take over.
    pub bond: Option<Bond>,
    /// Of a primary: it wants the backup to give the understudy up.
    pub release: bool,
    /// Of a primary: its guests are frozen and the last epoch is acknowledged; the backup shall serve.
    pub hand_over: bool,
    /// Of a backup: it is on its way to serve.
    pub claiming: bool,
    /// The sender's uplink is up.
    pub uplink: bool,
    /// The sender hears the receiver on the link, and the link does its work.
    pub link: bool,
}

/// The bits of the flags.
const RELEASE: u8 = 1 << 0;
const HAND_OVER: u8 = 1 << 1;
const CLAIMING: u8 = 1 << 2;
const UPLINK: u8 = 1 << 3;
const LINK: u8 = 1 << 4;

impl Heartbeat {
    /// The body of its frame, little-endian:
    ///
    /// ```text
    ///  0  term  u64
    ///  8  role  u8    0 waiting, 1 primary, 2 solo, 3 held, 4 handing over, 5 backup, 6 outdated
    ///  9  flags u8    1 release, 2 hand over, 4 claiming, 8 uplink, 16 link
    /// 10  bond  u32   0: none
    /// 14  made  u64   nanoseconds
    /// 22  echo  u64   nanoseconds
    /// 30  asked u64
    /// ```
    #[must_use]
    pub fn encode(&self) -> [u8; HEARTBEAT_BYTES] {
        let flags = [
            (self.release, RELEASE),
            (self.hand_over, HAND_OVER),
            (self.claiming, CLAIMING),
            (self.uplink, UPLINK),
            (self.link, LINK),
        ];
        let flags = flags
            .into_iter()
            .filter(|(set, _)| *set)
            .fold(0, |flags, (_, flag)| flags | flag);
        Body::new()
            .put(&self.term.0.to_le_bytes())
            .put(&[self.role as u8, flags])
            .put(&self.bond.map_or(0, |bond| bond.0).to_le_bytes())
            .put(&self.made.0.to_le_bytes())
            .put(&self.echo.0.to_le_bytes())
            .put(&self.asked.0.to_le_bytes())
            .bytes()
    }

    /// Reads a frame's body; none if it is not a heartbeat.
    #[must_use]
    pub fn decode(body: &[u8; HEARTBEAT_BYTES]) -> Option<Self> {
        let mut fields = Fields(body);
        let term = Term(fields.u64()?);
        let role = fields.u8()?;
        let role = Role::ALL.into_iter().find(|known| *known as u8 == role)?;
        let flags = fields.u8()?;
        if flags & !(RELEASE | HAND_OVER | CLAIMING | UPLINK | LINK) != 0 {
            return None;
        }
        let bond = fields.u32()?;
        Some(Self {
            term,
            role,
            bond: (bond != 0).then_some(Bond(bond)),
            made: Instant(fields.u64()?),
            echo: Instant(fields.u64()?),
            asked: Term(fields.u64()?),
            release: flags & RELEASE != 0,
            hand_over: flags & HAND_OVER != 0,
            claiming: flags & CLAIMING != 0,
            uplink: flags & UPLINK != 0,
            link: flags & LINK != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn heartbeats_come_across(
            numbers in any::<[u64; 4]>(),
            role in 0..Role::ALL.len(),
            bond in proptest::option::of(1..=u32::MAX),
            flags in any::<[bool; 5]>(),
        ) {
            let heartbeat = Heartbeat {
                term: Term(numbers[0]),
                role: Role::ALL[role],
                made: Instant(numbers[1]),
                echo: Instant(numbers[2]),
                asked: Term(numbers[3]),
                bond: bond.map(Bond),
                release: flags[0],
                hand_over: flags[1],
                claiming: flags[2],
                uplink: flags[3],
                link: flags[4],
            };
            prop_assert_eq!(Heartbeat::decode(&heartbeat.encode()), Some(heartbeat));
        }

        #[test]
        fn a_body_has_one_meaning_or_none(
            body in proptest::collection::vec(any::<u8>(), HEARTBEAT_BYTES),
            role in 0..9_u8,
            flags in 0..40_u8,
        ) {
            let mut body: [u8; HEARTBEAT_BYTES] = body.try_into().expect("as many bytes");
            body[8..10].copy_from_slice(&[role, flags]);
            match Heartbeat::decode(&body) {
                Some(heartbeat) => prop_assert_eq!(heartbeat.encode(), body),
                None => prop_assert!(role > 6 || flags > 31),
            }
        }
    }
}

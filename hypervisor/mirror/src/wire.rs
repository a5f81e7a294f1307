//! The frames of the mirror: one format for both paths and for the witness, little-endian.
//!
//! ```text
//!  0  version u16   all else depends on it
//!  2  kind    u8
//!  3  way     u8    who sends (bits 0 and 1: a, b, witness), and by which path (bit 4: LAN)
//!  4  length  u16   bytes of the body
//!  6  zero    u16
//!  8  session u64   before there is one, and for the witness: the pair's number
//! 16  counter u64   from 1, one more with each frame of this sender, session and path
//! 24  term    u64   of the sender
//! 32  epoch   u64   of the sender
//! 40  body
//!     tag     16    over everything before it
//! ```
//!
//! What follows the tag is padding of the wire. Between boards, the Ethernet header before it has [`ETHER_TYPE`]. To the
//! witness, it is the payload of a UDP datagram.

mod replay;
mod seal;

use core::fmt;

use crate::{Epoch, Path, Side, Term};

pub use seal::{Opener, Sealer};

/// The EtherType of the mirror's frames: "IEEE 802 - Local Experimental Ethertype 1" (IEEE 802, clause 9.2.4).
pub const ETHER_TYPE: u16 = 0x88B5;
/// The version of the frames, and of what a Hello says.
pub const VERSION: u16 = 1;
/// Bytes of a frame before its body.
pub const HEADER_BYTES: usize = 40;
/// Bytes of a frame beside its body.
pub const OVERHEAD: usize = HEADER_BYTES + crate::key::TAG;

/// The bit of the way that means the LAN.
const WAY_LAN: u8 = 1 << 4;

/// What a frame's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Makes acquaintance.
    Hello = 1,
    /// I have the keys of this session. It has no body.
    Confirm = 2,
    /// I am alive.
    Heartbeat = 3,
    /// A segment of the link.
    Data = 4,
    /// What the link has received.
    Ack = 5,
    /// I am about to die.
    Dying = 6,
    /// To the witness: may I serve?
    Ask = 7,
    /// From the witness.
    Answer = 8,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Hello,
        Self::Confirm,
        Self::Heartbeat,
        Self::Data,
        Self::Ack,
        Self::Dying,
        Self::Ask,
        Self::Answer,
    ];

    fn new(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Who sends a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// A board of the pair.
    Board(Side),
    /// The witness of the pair.
    Witness,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Board(side) => write!(f, "board {side}"),
            Self::Witness => f.write_str("the witness"),
        }
    }
}

/// A frame whose tag holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Who sent it.
    pub sender: Sender,
    /// What its body is.
    pub kind: Kind,
    /// The sender's term.
    pub term: Term,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// At most 65535 bytes.
    pub body: &'a [u8],
}

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dropped {
    /// It is too short for its header, its length and its tag, or a field has a value that this version does not know.
    Malformed,
    /// It is of another version.
    Version(u16),
    /// It is of no session that there is.
    Session(u64),
    /// It says that it is on the other path.
    Path,
    /// It came back to its sender.
    Own,
    /// Its tag does not hold.
    Tag,
    /// It came before, or is so old that this cannot be told.
    Replay,
    /// The link goes on in a newer term.
    OldTerm(Term),
}

impl Dropped {
    /// The causes' names, as in metrics, in the order of [`Drops::counts`].
    pub const NAMES: [&'static str; 8] = [
        "malformed",
        "version",
        "session",
        "path",
        "own",
        "tag",
        "replay",
        "old_term",
    ];

    const fn index(self) -> usize {
        match self {
            Self::Malformed => 0,
            Self::Version(_) => 1,
            Self::Session(_) => 2,
            Self::Path => 3,
            Self::Own => 4,
            Self::Tag => 5,
            Self::Replay => 6,
            Self::OldTerm(_) => 7,
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("it is malformed"),
            Self::Version(version) => write!(f, "it is of version {version}, not {VERSION}"),
            Self::Session(session) => write!(f, "it is of session {session:016x}"),
            Self::Path => f.write_str("it was for the other path"),
            Self::Own => f.write_str("it came back"),
            Self::Tag => f.write_str("its tag does not hold"),
            Self::Replay => f.write_str("it is a replay"),
            Self::OldTerm(term) => write!(f, "it is of the old term {term}"),
        }
    }
}

impl core::error::Error for Dropped {}

/// How many frames were dropped, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// In the order of [`Dropped::NAMES`].
    pub counts: [u64; Dropped::NAMES.len()],
}

impl Drops {
    /// One more.
    pub const fn count(&mut self, cause: Dropped) {
        self.counts[cause.index()] += 1;
    }
}

impl fmt::Display for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes = Dropped::NAMES.iter().zip(self.counts);
        let mut some = false;
        for (name, count) in causes.filter(|(_, count)| *count > 0) {
            let comma = if some { ", " } else { "" };
            write!(f, "{comma}{count} {name}")?;
            some = true;
        }
        if some { Ok(()) } else { f.write_str("none") }
    }
}

/// The fields of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) sender: Sender,
    pub(crate) path: Path,
    pub(crate) length: u16,
    pub(crate) session: u64,
    pub(crate) counter: u64,
    pub(crate) term: Term,
    pub(crate) epoch: Epoch,
}

fn word<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    core::array::from_fn(|index| bytes[at + index])
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let sender = match self.sender {
            Sender::Board(Side::A) => 0,
            Sender::Board(Side::B) => 1,
            Sender::Witness => 2,
        };
        let path = match self.path {
            Path::Link => 0,
            Path::Lan => WAY_LAN,
        };
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..2].copy_from_slice(&VERSION.to_le_bytes());
        bytes[2] = self.kind as u8;
        bytes[3] = sender | path;
        bytes[4..6].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.session.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.counter.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.term.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes
    }

    /// The header of a frame, which nobody has vouched for yet.
    ///
    /// # Errors
    ///
    /// [`Dropped::Malformed`] or [`Dropped::Version`].
    pub(crate) fn decode(frame: &[u8]) -> Result<Self, Dropped> {
        let version = frame.first_chunk().ok_or(Dropped::Malformed)?;
        let version = u16::from_le_bytes(*version);
        if version != VERSION {
            return Err(Dropped::Version(version));
        }
        let bytes = frame.first_chunk().ok_or(Dropped::Malformed)?;
        let sender = match bytes[3] & !WAY_LAN {
            0 => Sender::Board(Side::A),
            1 => Sender::Board(Side::B),
            2 => Sender::Witness,
            _ => return Err(Dropped::Malformed),
        };
        let path = match bytes[3] & WAY_LAN {
            0 => Path::Link,
            _ => Path::Lan,
        };
        if word(bytes, 6) != [0, 0] {
            return Err(Dropped::Malformed);
        }
        Ok(Self {
            kind: Kind::new(bytes[2]).ok_or(Dropped::Malformed)?,
            sender,
            path,
            length: u16::from_le_bytes(word(bytes, 4)),
            session: u64::from_le_bytes(word(bytes, 8)),
            counter: u64::from_le_bytes(word(bytes, 16)),
            term: Term(u64::from_le_bytes(word(bytes, 24))),
            epoch: Epoch(u64::from_le_bytes(word(bytes, 32))),
        })
    }
}

#[cfg(test)]
mod tests;

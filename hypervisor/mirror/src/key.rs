//! Keys, and the tags that they make.
//!
//! Everything is by SipHash with 128 bits, a pseudorandom function of a 128-bit key ("SipHash: a fast short-input PRF",
//! Aumasson and Bernstein, 2012). What is under the pair's key, which lives for years, and what is on the LAN, where strangers are, has a tag by
//! SipHash-2-4. The frames of a session on the mirror's own link are the mass, and their tags what they cost most: they have one by
//! SipHash-1-3, which takes three fifths of the instructions. Forgeries are published for at most one round at the end, not for three, and
//! a session's key lives no longer than a board's boot.

use core::fmt;
use core::hash::Hasher;
use core::num::NonZeroU128;

use siphasher::sip128::{Hash128, Hasher128, SipHasher13, SipHasher24};

use crate::{Path, Side};

/// Bytes of a tag.
pub(crate) const TAG: usize = 16;
/// What every message begins with that a key is derived by: the version that no frame has, so none of them is a frame.
const DERIVE: [u8; 2] = [0; 2];

/// A number drawn for one boot of a board: nobody else has it, nor has this board at another boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce(pub NonZeroU128);

/// What a board brings to a session: good for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// The board's boot.
    pub nonce: Nonce,
    /// How many sessions it has had since.
    pub round: u32,
}

/// The secret of a pair, and of its witness.
#[derive(Clone)]
pub struct PairKey(SipHasher24);

impl PairKey {
    /// The key of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(bytes))
    }

    /// What tells pairs apart on one LAN, and a mistyped key from a noisy wire. It tells nothing of the key.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.derive(b"pair", &[]).h1
    }

    /// What makes and checks tags under this key itself.
    pub(crate) const fn frames(&self) -> FrameKey {
        FrameKey::Strong(self.0)
    }

    /// The session of two offers, by the side that made them.
    pub(crate) fn session(&self, a: Offer, b: Offer) -> SessionKeys {
        let mut both = [0; 40];
        let (first, second) = both.split_at_mut(20);
        for (place, offer) in [(first, a), (second, b)] {
            place[..16].copy_from_slice(&offer.nonce.0.get().to_le_bytes());
            place[16..].copy_from_slice(&offer.round.to_le_bytes());
        }
        let root = self.derive(b"session", &both);
        SessionKeys(Self(SipHasher24::new_with_keys(root.h1, root.h2)))
    }

    fn derive(&self, label: &[u8], rest: &[u8]) -> Hash128 {
        let mut hasher = self.0;
        for part in [&DERIVE[..], label, &[0], rest] {
            hasher.write(part);
        }
        hasher.finish128()
    }
}

impl fmt::Debug for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairKey({:016x})", self.id())
    }
}

/// What all keys of a session come from.
pub(crate) struct SessionKeys(PairKey);

impl SessionKeys {
    /// The session's number.
    pub(crate) fn id(&self) -> u64 {
        self.0.derive(b"id", &[]).h1
    }

    /// The key of the frames that `from` sends on `path`.
    pub(crate) fn frames(&self, from: Side, path: Path) -> FrameKey {
        let way = [
            match from {
                Side::A => b'a',
                Side::B => b'b',
            },
            match path {
                Path::Link => b'k',
                Path::Lan => b'n',
            },
        ];
        let key = self.0.derive(b"frames", &way);
        match path {
            Path::Link => FrameKey::Fast(SipHasher13::new_with_keys(key.h1, key.h2)),
            Path::Lan => FrameKey::Strong(SipHasher24::new_with_keys(key.h1, key.h2)),
        }
    }
}

/// The key of one sender's frames on one path.
#[derive(Clone)]
pub(crate) enum FrameKey {
    Strong(SipHasher24),
    Fast(SipHasher13),
}

impl FrameKey {
    fn hash(&self, bytes: &[u8]) -> Hash128 {
        match self {
            Self::Strong(key) => key.hash(bytes),
            Self::Fast(key) => key.hash(bytes),
        }
    }

    /// The tag of `bytes`.
    #[inline]
    pub(crate) fn tag(&self, bytes: &[u8]) -> [u8; TAG] {
        u128::from(self.hash(bytes)).to_le_bytes()
    }

    /// Whether `tag` is that of `bytes`; found out in a time that does not depend on the answer.
    #[inline]
    pub(crate) fn holds(&self, bytes: &[u8], tag: [u8; TAG]) -> bool {
        self.hash(bytes) == Hash128::from(u128::from_le_bytes(tag))
    }
}

impl fmt::Debug for FrameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strong(_) => "FrameKey::Strong",
            Self::Fast(_) => "FrameKey::Fast",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn key() -> PairKey {
        PairKey::new(&core::array::from_fn(|index| index as u8))
    }

    #[test]
    fn tags_are_siphash_with_128_bits() {
        // The first and the last of the authors' vectors: the messages are the bytes 0, 1, 2, ... (vectors.h, vectors_sip128).
        let message: Vec<u8> = (0..63).collect();
        let tag = |length| key().frames().tag(&message[..length]);
        assert_eq!(
            tag(0),
            0xa3817f04ba25a8e66df67214c7550293_u128.to_be_bytes(),
            "the key's bytes are in their order",
        );
        assert!(key().frames().holds(&message, tag(63)));
        assert!(!key().frames().holds(&message, tag(62)));
    }

    #[test]
    fn a_key_is_derived_by_the_message_that_the_format_says() {
        let message = [&[0, 0][..], b"session", &[0], b"rest"].concat();
        let derived = u128::from(key().derive(b"session", b"rest")).to_le_bytes();
        assert_eq!(derived, key().frames().tag(&message));
    }

    #[test]
    fn keys_differ_by_offer_round_direction_and_path() {
        let offer = |nonce, round| Offer {
            nonce: Nonce(NonZeroU128::new(nonce).unwrap()),
            round,
        };
        let mut tags = HashSet::new();
        let mut ids = HashSet::from([key().id()]);
        let pairs = [
            (offer(1, 0), offer(2, 0)),
            (offer(2, 0), offer(1, 0)),
            (offer(1, 1), offer(2, 0)),
            (offer(1, 0), offer(2, 1)),
            (offer(1, 0), offer(3, 0)),
        ];
        for (a, b) in pairs {
            let keys = key().session(a, b);
            assert!(ids.insert(keys.id()));
            for side in [Side::A, Side::B] {
                for path in [Path::Link, Path::Lan] {
                    assert!(tags.insert(keys.frames(side, path).tag(b"x")));
                }
            }
        }
        assert_ne!(PairKey::new(&[0; 16]).id(), key().id());
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?} {:?}", key(), key().frames());
        assert_eq!(
            shown,
            format!("PairKey({:016x}) FrameKey::Strong", key().id())
        );
    }
}

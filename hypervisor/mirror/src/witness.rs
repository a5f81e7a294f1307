//! The witness of a pair: what breaks the tie when neither board hears the other.
//!
//! It keeps one entry per pair on disk, the last term that it granted, with the life of the board that it was granted to, and changes it by compare and
//! swap. A board that asks says what its state takes into account (its *basis*): all that a certain life of the peer did up to a
//! certain term. If anybody else was granted a term since, the board is refused. So no term has two holders, and a board whose state is old gets
//! none.
//!
//! Terms also grow by agreement of the pair, without the witness (see [`crate::RoleMachine`]). So a basis may be later than the last
//! term granted; and the number of a term alone tells nothing of who is in it, so a basis names the life. A board that serves has its term
//! recorded, as soon as the witness can be reached, by the same question.
//!
//! What the boards and the witness say to each other is here, little-endian. An ask:
//!
//! ```text
//!  0  pair  u64
//!  8  side  u8     0: a, 1: b
//!  9  what  u8     0: claim, 1: serving, 2: force
//! 10  boot  u128
//! 26  term  u64
//! 34  basis u64
//! 42  of    u128   0: nobody
//! ```
//!
//! An answer begins with the ask's first 34 bytes, and goes on:
//!
//! ```text
//! 34  granted u8   0 or 1
//! 35  last    u64  0: no term was ever granted, and the rest is 0
//! 43  side    u8
//! 44  boot    u128
//! 60  how     u8   0: granted, 1: served in, 2: forced
//! ```

mod ledger;

use core::fmt;

use crate::bytes::{Body, Fields};
use crate::{Side, Term};

pub use ledger::{Ledger, LedgerError};

/// Bytes of an ask.
pub const ASK_BYTES: usize = 58;
/// Bytes of an answer.
pub const ANSWER_BYTES: usize = 61;

/// One life of a board, from a start to the next: the nonce that it drew when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(pub u128);

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The number of a pair of boards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair(pub u64);

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a board wants of the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Want {
    /// To serve in the term.
    Claim = 0,
    /// That its term is recorded: it serves in it already, by a grant or by agreement with its peer.
    Serving = 1,
    /// To serve in the term whatever others have, because an operator says so.
    Force = 2,
}

/// A board's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// Which pair it is of.
    pub pair: Pair,
    /// Which board it is.
    pub side: Side,
    /// In which life.
    pub boot: Boot,
    /// What it wants.
    pub want: Want,
    /// In which term.
    pub term: Term,
    /// The latest term of which the asker knows what `of` did if it had it: nothing of that is missing in the asker's state.
    pub basis: Term,
    /// The life of the peer that the asker shares its state with, or had it from; or one that left no state.
    pub of: Option<Boot>,
}

/// How a board came to the term that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum How {
    /// It was granted the term. Whether it ever served in it is not known.
    Granted = 0,
    /// It has said since that it serves in it.
    Serving = 1,
    /// An operator wanted it.
    Forced = 2,
}

/// Who was last granted a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Which board.
    pub side: Side,
    /// In which life.
    pub boot: Boot,
    /// How.
    pub how: How,
}

/// The last term that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Last {
    /// Its number, not 0.
    pub term: Term,
    /// Who has it.
    pub holder: Holder,
}

/// The witness's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// Which pair it is for.
    pub pair: Pair,
    /// Which board.
    pub side: Side,
    /// In which life.
    pub boot: Boot,
    /// What was wanted.
    pub want: Want,
    /// The term that was asked for.
    pub term: Term,
    /// Whether the board has it.
    pub granted: bool,
    /// What the ledger says now; none if no term was ever granted.
    pub last: Option<Last>,
}

const fn side_byte(side: Side) -> u8 {
    match side {
        Side::A => 0,
        Side::B => 1,
    }
}

fn side(byte: u8) -> Option<Side> {
    [Side::A, Side::B]
        .into_iter()
        .find(|side| side_byte(*side) == byte)
}

fn want(byte: u8) -> Option<Want> {
    [Want::Claim, Want::Serving, Want::Force]
        .into_iter()
        .find(|want| *want as u8 == byte)
}

fn how(byte: u8) -> Option<How> {
    [How::Granted, How::Serving, How::Forced]
        .into_iter()
        .find(|how| *how as u8 == byte)
}

fn head<const N: usize>(pair: Pair, who: Side, what: Want, boot: Boot, term: Term) -> Body<N> {
    Body::new()
        .put(&pair.0.to_le_bytes())
        .put(&[side_byte(who), what as u8])
        .put(&boot.0.to_le_bytes())
        .put(&term.0.to_le_bytes())
}

impl Ask {
    /// The body of its frame.
    #[must_use]
    pub fn encode(&self) -> [u8; ASK_BYTES] {
        head(self.pair, self.side, self.want, self.boot, self.term)
            .put(&self.basis.0.to_le_bytes())
            .put(&self.of.map_or(0, |of| of.0).to_le_bytes())
            .bytes()
    }

    /// Reads a frame's body; none if it is not an ask.
    #[must_use]
    pub fn decode(body: &[u8; ASK_BYTES]) -> Option<Self> {
        let mut fields = Fields(body);
        Some(Self {
            pair: Pair(fields.u64()?),
            side: side(fields.u8()?)?,
            want: want(fields.u8()?)?,
            boot: Boot(fields.u128()?),
            term: Term(fields.u64()?),
            basis: Term(fields.u64()?),
            of: Some(fields.u128()?).filter(|of| *of != 0).map(Boot),
        })
    }

    /// The answer to it.
    const fn answer(&self, granted: bool, last: Option<Last>) -> Answer {
        Answer {
            pair: self.pair,
            side: self.side,
            boot: self.boot,
            want: self.want,
            term: self.term,
            granted,
            last,
        }
    }
}

impl Answer {
    /// The body of its frame.
    #[must_use]
    pub fn encode(&self) -> [u8; ANSWER_BYTES] {
        let body = head(self.pair, self.side, self.want, self.boot, self.term)
            .put(&[u8::from(self.granted)]);
        match self.last {
            None => body,
            Some(Last { term, holder }) => body
                .put(&term.0.to_le_bytes())
                .put(&[side_byte(holder.side)])
                .put(&holder.boot.0.to_le_bytes())
                .put(&[holder.how as u8]),
        }
        .bytes()
    }

    /// Reads a frame's body; none if it is not an answer.
    #[must_use]
    pub fn decode(body: &[u8; ANSWER_BYTES]) -> Option<Self> {
        let mut fields = Fields(body);
        Some(Self {
            pair: Pair(fields.u64()?),
            side: side(fields.u8()?)?,
            want: want(fields.u8()?)?,
            boot: Boot(fields.u128()?),
            term: Term(fields.u64()?),
            granted: match fields.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            },
            last: match fields.u64()? {
                0 => None,
                term => Some(Last {
                    term: Term(term),
                    holder: Holder {
                        side: side(fields.u8()?)?,
                        boot: Boot(fields.u128()?),
                        how: how(fields.u8()?)?,
                    },
                }),
            },
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sides() -> impl Strategy<Value = Side> {
        prop_oneof![Just(Side::A), Just(Side::B)]
    }

    pub(crate) fn asks() -> impl Strategy<Value = Ask> {
        let wants = prop_oneof![Just(Want::Claim), Just(Want::Serving), Just(Want::Force)];
        let lives = (any::<u128>(), proptest::option::of(1..=u128::MAX));
        (sides(), wants, lives, any::<[u64; 3]>()).prop_map(|(side, want, (boot, of), numbers)| {
            Ask {
                pair: Pair(numbers[0]),
                side,
                want,
                boot: Boot(boot),
                term: Term(numbers[1]),
                basis: Term(numbers[2]),
                of: of.map(Boot),
            }
        })
    }

    fn lasts() -> impl Strategy<Value = Last> {
        let hows = prop_oneof![Just(How::Granted), Just(How::Serving), Just(How::Forced)];
        (1..=u64::MAX, sides(), any::<u128>(), hows).prop_map(|(term, side, boot, how)| Last {
            term: Term(term),
            holder: Holder {
                side,
                boot: Boot(boot),
                how,
            },
        })
    }

    proptest! {
        #[test]
        fn asks_and_answers_come_across(
            ask in asks(),
            granted in any::<bool>(),
            last in proptest::option::of(lasts()),
        ) {
            prop_assert_eq!(Ask::decode(&ask.encode()), Some(ask));
            let answer = ask.answer(granted, last);
            prop_assert_eq!(Answer::decode(&answer.encode()), Some(answer));
            // The last byte of each is a field's last: nothing was left out, and nothing is left over.
            let all = Body::<ASK_BYTES>::new().put(&[0xFF; ASK_BYTES]).put(&[1]).bytes();
            prop_assert_eq!(all, [0xFF; ASK_BYTES]);
        }

        #[test]
        fn what_is_no_answer_is_refused(body in any::<[u8; 32]>(), at in 0..ANSWER_BYTES) {
            let mut answer = [0; ANSWER_BYTES];
            for (place, byte) in answer.iter_mut().skip(at).zip(body) {
                *place = byte;
            }
            if let Some(read) = Answer::decode(&answer) {
                prop_assert_eq!(Answer::decode(&read.encode()), Some(read));
            }
        }
    }

    #[test]
    fn fields_lie_where_the_page_says() {
        let ask = Ask {
            pair: Pair(1),
            side: Side::B,
            boot: Boot(2),
            want: Want::Force,
            term: Term(3),
            basis: Term(4),
            of: Some(Boot(5)),
        };
        let body = ask.encode();
        assert_eq!(
            [
                body[0], body[8], body[9], body[10], body[26], body[34], body[42]
            ],
            [1, 1, 2, 2, 3, 4, 5]
        );
        let last = Last {
            term: Term(5),
            holder: Holder {
                side: Side::B,
                boot: Boot(6),
                how: How::Forced,
            },
        };
        let body = ask.answer(true, Some(last)).encode();
        assert_eq!(body[..34], ask.encode()[..34]);
        assert_eq!(
            [body[34], body[35], body[43], body[44], body[60]],
            [1, 5, 1, 6, 2]
        );
    }
}

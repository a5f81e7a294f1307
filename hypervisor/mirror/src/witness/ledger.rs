//! What the witness remembers of a pair, and how it decides.

use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

use super::{Answer, Ask, Boot, Holder, How, Last, Pair, Want};
use crate::{Side, Term};

/// What the first field of a line says.
const FORMAT: &str = "witness-1";

/// The witness's memory of one pair. As text it is one line, for a file that is on disk before an answer is sent:
/// `witness-1 PAIR TERM SIDE BOOT HOW`, or `witness-1 PAIR 0` before the first grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// Whose it is.
    pub pair: Pair,
    /// The last term granted; none at the very beginning.
    pub last: Option<Last>,
}

impl Ledger {
    /// One that has granted nothing yet.
    #[must_use]
    pub const fn new(pair: Pair) -> Self {
        Self { pair, last: None }
    }

    /// Decides: the answer, and what must be on disk before it is sent. None if the ask is another pair's.
    ///
    /// * What was granted is granted again to the same life of the same board: the answer may have been lost.
    /// * A later term is granted if nobody else was granted one since the basis: the last one was the asker's, or that of whom the state is, and then
    ///   not after the basis. That the board serves already changes nothing.
    /// * A board that serves takes its term from a peer that never served in it: the two agreed on that.
    /// * An operator's wish is granted if the term is later than the last one.
    #[must_use]
    pub fn decide(&self, ask: &Ask) -> Option<(Answer, Self)> {
        if ask.pair != self.pair {
            return None;
        }
        let free = self.last.is_none_or(|Last { term, holder }| {
            let own = (holder.side, holder.boot) == (ask.side, ask.boot);
            let partner = ask.of == Some(holder.boot);
            match ask.term.cmp(&term) {
                Ordering::Less => false,
                Ordering::Equal => {
                    own || partner && ask.want == Want::Serving && holder.how == How::Granted
                }
                Ordering::Greater => own || partner && term <= ask.basis || ask.want == Want::Force,
            }
        });
        // Term 0 is before the first.
        let granted = free && ask.term > Term::default();
        let last = if granted {
            let how = match ask.want {
                Want::Claim => How::Granted,
                Want::Serving => How::Serving,
                Want::Force => How::Forced,
            };
            // A question that comes late or twice does not take back what the board has said since.
            let said = self
                .last
                .filter(|last| last.term == ask.term && last.holder.how != How::Granted)
                .map_or(how, |last| last.holder.how);
            Some(Last {
                term: ask.term,
                holder: Holder {
                    side: ask.side,
                    boot: ask.boot,
                    how: said,
                },
            })
        } else {
            self.last
        };
        Some((ask.answer(granted, last), Self { last, ..*self }))
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Granted => "granted",
            Self::Serving => "serving",
            Self::Forced => "forced",
        })
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            None => write!(f, "{FORMAT} {} 0", self.pair),
            Some(Last { term, holder }) => write!(
                f,
                "{FORMAT} {} {term} {} {} {}",
                self.pair, holder.side, holder.boot, holder.how
            ),
        }
    }
}

/// What is wrong with a ledger's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerError {
    /// It does not begin as a ledger does: another file, or of another version.
    Format,
    /// The field is missing.
    Missing(&'static str),
    /// The field has a value that it cannot have.
    Wrong(&'static str),
    /// There is more after the last field.
    Trailing,
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => write!(f, "it does not begin with \"{FORMAT}\""),
            Self::Missing(field) => write!(f, "the {field} is missing"),
            Self::Wrong(field) => write!(f, "the {field} is wrong"),
            Self::Trailing => f.write_str("there is more than one ledger's line"),
        }
    }
}

impl core::error::Error for LedgerError {}

/// A field of exactly `digits` small hexadecimal digits.
fn hex(field: &str, digits: usize) -> Option<u128> {
    let plain = field.len() == digits
        && field
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    plain
        .then(|| u128::from_str_radix(field, 16).ok())
        .flatten()
}

/// A decimal number as it is written here: no sign, no zero before it.
fn decimal(field: &str) -> Option<u64> {
    let plain =
        field.bytes().all(|b| b.is_ascii_digit()) && (field == "0" || !field.starts_with('0'));
    plain.then(|| field.parse().ok()).flatten()
}

impl FromStr for Ledger {
    type Err = LedgerError;

    /// Reads a line, with or without its end. Exactly what [`Display`](fmt::Display) writes is taken: a file that somebody changed is not
    /// guessed at.
    fn from_str(text: &str) -> Result<Self, LedgerError> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let mut fields = line.split(' ');
        if fields.next() != Some(FORMAT) {
            return Err(LedgerError::Format);
        }
        let mut field = |name| {
            fields
                .next()
                .filter(|field| !field.is_empty())
                .ok_or(LedgerError::Missing(name))
        };
        let pair = hex(field("pair")?, 16)
            .and_then(|pair| u64::try_from(pair).ok())
            .ok_or(LedgerError::Wrong("pair"))?;
        let term = decimal(field("term")?).ok_or(LedgerError::Wrong("term"))?;
        let last = if term == 0 {
            None
        } else {
            let side = match field("side")? {
                "a" => Side::A,
                "b" => Side::B,
                _ => return Err(LedgerError::Wrong("side")),
            };
            let boot = hex(field("boot")?, 32).ok_or(LedgerError::Wrong("boot"))?;
            let how = match field("kind of grant")? {
                "granted" => How::Granted,
                "serving" => How::Serving,
                "forced" => How::Forced,
                _ => return Err(LedgerError::Wrong("kind of grant")),
            };
            Some(Last {
                term: Term(term),
                holder: Holder {
                    side,
                    boot: Boot(boot),
                    how,
                },
            })
        };
        if fields.next().is_some() {
            return Err(LedgerError::Trailing);
        }
        Ok(Self {
            pair: Pair(pair),
            last,
        })
    }
}

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
    /// * A later term is granted if the last one was the asker's, or is in its basis. That the board serves already changes nothing.
    /// * A board that serves takes its term from a peer that never served in it, if that is in its basis: the two agreed on that.
    /// * An operator's wish is granted if the term is later than the last one.
    #[must_use]
    pub fn decide(&self, ask: &Ask) -> Option<(Answer, Self)> {
        if ask.pair != self.pair {
            return None;
        }
        let free = self.last.is_none_or(|Last { term, holder }| {
            let own = (holder.side, holder.boot) == (ask.side, ask.boot);
            let known = ask.of == Some(holder.boot) && term <= ask.basis;
            match ask.term.cmp(&term) {
                Ordering::Less => false,
                Ordering::Equal => {
                    own || known && ask.want == Want::Serving && holder.how == How::Granted
                }
                Ordering::Greater => own || known || ask.want == Want::Force,
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
            let side: Side = field("side")?
                .parse()
                .map_err(|_| LedgerError::Wrong("side"))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::tests::asks;
    use proptest::prelude::*;

    const PAIR: Pair = Pair(0xAB);

    fn ask(side: Side, boot: u128, want: Want, term: u64, basis: u64, of: u128) -> Ask {
        Ask {
            pair: PAIR,
            side,
            boot: Boot(boot),
            want,
            term: Term(term),
            basis: Term(basis),
            of: (of != 0).then_some(Boot(of)),
        }
    }

    impl Ledger {
        /// Asks; whether it is granted.
        fn ask(&mut self, ask: &Ask) -> bool {
            let (answer, after) = self.decide(ask).expect("the pair's");
            assert_eq!(answer.last, after.last);
            *self = after;
            answer.granted
        }
    }

    #[test]
    fn one_board_has_a_term_however_often_it_asks() {
        let mut ledger = Ledger::new(PAIR);
        let a = ask(Side::A, 1, Want::Claim, 1, 0, 0);
        assert!(ledger.ask(&a) && ledger.ask(&a));
        for (side, boot) in [(Side::B, 2), (Side::A, 3), (Side::B, 1)] {
            assert!(!ledger.ask(&ask(side, boot, Want::Claim, 1, 0, 1)));
            assert!(!ledger.ask(&ask(side, boot, Want::Force, 1, 0, 1)));
        }
        assert!(
            !ledger.ask(&ask(Side::A, 1, Want::Claim, 0, 0, 0)),
            "term 0"
        );
        assert_eq!(ledger.decide(&Ask { pair: Pair(1), ..a }), None);
    }

    #[test]
    fn a_later_term_is_for_whom_nobody_was_preferred_to_since() {
        let served = || {
            let mut ledger = Ledger::new(PAIR);
            assert!(ledger.ask(&ask(Side::A, 1, Want::Claim, 4, 0, 0)));
            ledger
        };
        // The backup of that life in that term, and not before it; also if the pair has gone further by itself.
        assert!(served().ask(&ask(Side::B, 2, Want::Claim, 5, 4, 1)));
        assert!(served().ask(&ask(Side::B, 2, Want::Claim, 8, 7, 1)));
        assert!(!served().ask(&ask(Side::B, 2, Want::Claim, 5, 3, 1)));
        // Of another life nothing is known, whatever the numbers.
        assert!(!served().ask(&ask(Side::B, 2, Want::Claim, 8, 7, 9)));
        assert!(!served().ask(&ask(Side::B, 2, Want::Serving, 8, 8, 9)));
        // Itself.
        assert!(served().ask(&ask(Side::A, 1, Want::Claim, 5, 0, 0)));
        // An operator.
        assert!(served().ask(&ask(Side::B, 2, Want::Force, 5, 0, 0)));
    }

    #[test]
    fn a_renounced_term_goes_to_the_partner_that_serves_in_it() {
        let mut ledger = Ledger::new(PAIR);
        assert!(ledger.ask(&ask(Side::B, 2, Want::Claim, 5, 4, 1)));
        let serving = ask(Side::A, 1, Want::Serving, 5, 5, 2);
        assert!(!ledger.ask(&Ask {
            of: None,
            ..serving
        }));
        assert!(ledger.ask(&serving));
        // The claim comes once more, late.
        assert!(!ledger.ask(&ask(Side::B, 2, Want::Claim, 5, 4, 1)));
        // Who has served keeps the term.
        assert!(!ledger.ask(&ask(Side::B, 2, Want::Serving, 5, 5, 1)));
        let how = |ledger: &Ledger| ledger.last.map(|last| last.holder.how);
        assert_eq!(how(&ledger), Some(How::Serving));
        assert!(ledger.ask(&ask(Side::A, 1, Want::Claim, 5, 4, 0)));
        assert_eq!(
            how(&ledger),
            Some(How::Serving),
            "a late claim takes nothing back"
        );
    }

    #[test]
    fn lines_that_are_wrong_say_how() {
        let wrong = |line: &str| line.parse::<Ledger>().expect_err("it is wrong");
        let boot = "00000000000000000000000000000007";
        let line = |pair: &str, rest: &str| format!("witness-1 {pair} {rest}");
        let pair = "00000000000000ab";
        assert_eq!(wrong(""), LedgerError::Format);
        assert_eq!(wrong("witness-2 00000000000000ab 0"), LedgerError::Format);
        assert_eq!(wrong("witness-1"), LedgerError::Missing("pair"));
        for bad in [
            "ab",
            "00000000000000AB",
            "+0000000000000ab",
            "0000000000000000ab",
        ] {
            assert_eq!(wrong(&line(bad, "0")), LedgerError::Wrong("pair"));
        }
        assert_eq!(wrong(&line(pair, "")), LedgerError::Missing("term"));
        for bad in ["-1", "+1", "01", "x", "18446744073709551616"] {
            assert_eq!(wrong(&line(pair, bad)), LedgerError::Wrong("term"));
        }
        assert_eq!(wrong(&line(pair, "1")), LedgerError::Missing("side"));
        assert_eq!(wrong(&line(pair, "1 c")), LedgerError::Wrong("side"));
        assert_eq!(wrong(&line(pair, "1 a")), LedgerError::Missing("boot"));
        assert_eq!(wrong(&line(pair, "1 a 7")), LedgerError::Wrong("boot"));
        let granted = |rest: &str| line(pair, &format!("1 a {boot}{rest}"));
        assert_eq!(wrong(&granted("")), LedgerError::Missing("kind of grant"));
        assert_eq!(
            wrong(&granted(" Forced")),
            LedgerError::Wrong("kind of grant")
        );
        assert_eq!(wrong(&granted(" forced ")), LedgerError::Trailing);
        assert_eq!(wrong(&line(pair, "0 a")), LedgerError::Trailing);
        assert_eq!(wrong(&line(pair, "0\n\n")), LedgerError::Wrong("term"));
        assert_eq!(
            LedgerError::Missing("side").to_string(),
            "the side is missing"
        );
    }

    proptest! {
        /// Whatever is asked: terms never go back, nobody takes one from a board that served in it, and the file brings it all back.
        #[test]
        fn ledgers_only_go_on(asks in proptest::collection::vec(asks(), 1..40), small in any::<bool>()) {
            let mut ledger = Ledger::new(PAIR);
            for mut ask in asks {
                ask.pair = PAIR;
                if small {
                    ask.term.0 %= 4;
                    ask.basis.0 %= 4;
                    ask.boot.0 %= 3;
                    ask.of = ask.of.map(|of| Boot(of.0 % 3));
                }
                let (answer, after) = ledger.decide(&ask).expect("the pair's");
                let term = |ledger: &Ledger| ledger.last.map_or(Term(0), |last| last.term);
                prop_assert!(term(&after) >= term(&ledger));
                if answer.granted {
                    let last = after.last.expect("granted");
                    prop_assert_eq!((last.term, last.holder.side, last.holder.boot), (ask.term, ask.side, ask.boot));
                    prop_assert_eq!(after.decide(&ask).map(|(answer, again)| (answer.granted, again)), Some((true, after)));
                } else {
                    prop_assert_eq!(after, ledger);
                }
                if let (Some(before), Some(now)) = (ledger.last, after.last) {
                    let moved = (before.holder.side, before.holder.boot) != (now.holder.side, now.holder.boot);
                    prop_assert!(!moved || now.term > before.term || before.holder.how == How::Granted);
                }
                ledger = after;
                prop_assert_eq!(ledger.to_string().parse(), Ok(ledger));
                prop_assert_eq!(format!("{ledger}\n").parse(), Ok(ledger));
            }
        }

        #[test]
        fn a_line_has_one_form(line in "witness-1 [0-9a-f]{15,17} [0-9]{1,3}( [abc])?( [0-9a-f]{31,33})?( granted| serving)?") {
            if let Ok(ledger) = line.parse::<Ledger>() {
                prop_assert_eq!(ledger.to_string(), line);
            }
        }
    }
}

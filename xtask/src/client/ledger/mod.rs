//! What clients asked of an exchange and what it answered, kept to judge the exchange by, whichever board it is on by then.
//!
//! A client has one question under way at a time, and sends it again until it is answered. All times are since the ledger
//! was opened.

mod judge;
mod load;
mod model;
mod second;
#[cfg(test)]
mod tests;

pub(crate) use load::{Load, Plan};

use protocol::{Answer, Malformed, Outcome, Question};
use std::collections::BTreeMap;
use std::time::Duration;

/// A question, and what came of it.
#[derive(Clone, Debug)]
struct Entry {
    question: Question,
    /// When it was sent first, and when last.
    sent: (Duration, Duration),
    /// How often it was sent.
    attempts: u32,
    /// The first answer, and when it came.
    answer: Option<(Duration, Outcome)>,
    /// How often that came again.
    again: u32,
}

/// What was wrong before anything is judged: no exchange may do that, whatever its state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offence {
    /// A datagram that is no answer.
    Malformed(Malformed),
    /// An answer to a question that nobody asked.
    Stray(Answer),
    /// A second answer to a question says something else than the first, which was this.
    Contradiction(Answer, Outcome),
}

/// All questions and answers, in the order of asking.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
    /// Where a client's question of a number is.
    places: BTreeMap<(u32, u32), usize>,
    offences: Vec<Offence>,
    /// When each of the answers came.
    heard: Vec<Duration>,
}

impl Ledger {
    /// A question is sent, for the first time or again.
    pub(crate) fn asked(&mut self, now: Duration, question: Question) {
        let key = (question.client, question.number);
        if let Some(entry) = self.places.get(&key).map(|at| &mut self.entries[*at]) {
            entry.attempts += 1;
            entry.sent.1 = now;
            return;
        }
        self.places.insert(key, self.entries.len());
        self.entries.push(Entry {
            question,
            sent: (now, now),
            attempts: 1,
            answer: None,
            again: 0,
        });
    }

    /// A datagram has come. Returns the answer that it is, unless that is to no question.
    pub(crate) fn heard(&mut self, now: Duration, datagram: &[u8]) -> Option<Answer> {
        let answer = match Answer::decode(datagram) {
            Ok(answer) => answer,
            Err(malformed) => {
                self.offences.push(Offence::Malformed(malformed));
                return None;
            }
        };
        let place = self.places.get(&(answer.client, answer.number));
        let Some(entry) = place.map(|at| &mut self.entries[*at]) else {
            self.offences.push(Offence::Stray(answer));
            return None;
        };
        self.heard.push(now);
        match entry.answer {
            None => entry.answer = Some((now, answer.outcome)),
            Some((_, first)) if first == answer.outcome => entry.again += 1,
            Some((_, first)) => self.offences.push(Offence::Contradiction(answer, first)),
        }
        Some(answer)
    }

    /// The longest time without any answer, and when it began: from the first answer to the last.
    pub(crate) fn longest_gap(&self) -> Option<(Duration, Duration)> {
        let gaps = self.heard.windows(2).map(|pair| match pair {
            [before, after] => (after.saturating_sub(*before), *before),
            _ => (Duration::ZERO, Duration::ZERO),
        });
        // Of equal ones the first.
        gaps.reduce(|longest, gap| if gap.0 > longest.0 { gap } else { longest })
    }
}

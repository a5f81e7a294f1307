//! The verdict: whether one exchange, that never forgot and never did anything twice, can have given all those answers.

use super::model::{Model, shown};
use super::{Entry, Ledger, Offence};
use protocol::{Answer, Malformed, Operation, Outcome, Question, Totals};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What no exchange may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It sent something that is no answer.
    Malformed(Malformed),
    /// It answered a question that nobody asked.
    Stray(Answer),
    /// It answered a question again, and said something else than this.
    Contradiction {
        /// The second answer.
        answer: Answer,
        /// What the first one said.
        first: Outcome,
    },
    /// Its earlier answers and this one cannot both be true.
    Unexplained {
        /// The question.
        question: Question,
        /// What it answered.
        outcome: Outcome,
        /// What follows from its earlier answers.
        expected: String,
    },
    /// A client asked on, though this question had not been answered: whether it was executed is not known.
    Skipped(Question),
    /// A counter of the whole exchange is not what all the clients' answers come to.
    Counter {
        /// Its name.
        name: &'static str,
        /// What the exchange says.
        told: u64,
        /// What it must be.
        expected: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => write!(f, "a datagram is no answer: {malformed}"),
            Self::Stray(answer) => write!(
                f,
                "client {} has asked no question {}, but was answered: {}",
                answer.client,
                answer.number,
                shown(answer.outcome)
            ),
            Self::Contradiction { answer, first } => write!(
                f,
                "question {} of client {} was answered twice: \"{}\", then \"{}\"",
                answer.number,
                answer.client,
                shown(*first),
                shown(answer.outcome)
            ),
            Self::Unexplained {
                question,
                outcome,
                expected,
            } => write!(
                f,
                "question {} of client {}, {:?}, was answered \"{}\", not \"{expected}\"",
                question.number,
                question.client,
                question.operation,
                shown(*outcome)
            ),
            Self::Skipped(question) => write!(
                f,
                "client {} asked on without an answer to question {}",
                question.client, question.number
            ),
            Self::Counter {
                name,
                told,
                expected,
            } => write!(f, "the exchange counts {told} {name}, not {expected}"),
        }
    }
}

/// What was judged, and found good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Questions.
    pub(crate) asked: u64,
    /// Those that were answered.
    pub(crate) answered: u64,
    /// Datagrams beyond the first of each question.
    pub(crate) repeated: u64,
    /// Totals that all the others' answers came to.
    pub(crate) totals: u64,
    /// The longest time without any answer.
    pub(crate) gap: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} questions, {} answered, sent again {} times, longest silence {:.0} ms",
            self.asked,
            self.answered,
            self.repeated,
            self.gap.as_secs_f64() * 1e3
        )
    }
}

impl Ledger {
    /// Judges all that was asked so far. Each client must have had subscribers of its own. Its last question may be without
    /// an answer.
    ///
    /// Totals are compared where nothing else was under way, and the ledger holds all that the exchange was ever asked.
    ///
    /// # Errors
    ///
    /// Everything that no exchange may do.
    pub(crate) fn judge(&self) -> Result<Summary, Vec<Fault>> {
        let mut faults: Vec<_> = self
            .offences
            .iter()
            .map(|offence| offence.fault())
            .collect();
        let mut model = Model::default();
        // The clients' last questions, while they are without an answer.
        let mut open: BTreeMap<u32, Question> = BTreeMap::new();
        let mut summary = Summary {
            gap: self.longest_gap().map_or(Duration::ZERO, |(gap, _)| gap),
            ..Summary::default()
        };
        for (at, entry) in self.entries.iter().enumerate() {
            let question = entry.question;
            summary.asked += 1;
            summary.repeated += u64::from(entry.attempts - 1);
            if let Some(skipped) = open.remove(&question.client) {
                faults.push(Fault::Skipped(skipped));
            }
            let Some((answered, outcome)) = entry.answer else {
                open.insert(question.client, question);
                continue;
            };
            summary.answered += 1;
            let moment = (entry.sent.0, answered);
            let unexplained = |expected| Fault::Unexplained {
                question,
                outcome,
                expected,
            };
            match (question.operation, outcome) {
                (Operation::Totals, Outcome::Totals(totals)) => {
                    if self.is_alone(at, answered) {
                        summary.totals += 1;
                        faults.extend(self.totals(at, totals, &model));
                    }
                }
                (Operation::Totals, _) => faults.push(unexplained("the totals".into())),
                (Operation::Exchange(request), outcome) => {
                    if let Err(expected) = model.check(moment, request, outcome) {
                        faults.push(unexplained(expected));
                    }
                }
            }
        }
        if faults.is_empty() {
            Ok(summary)
        } else {
            Err(faults)
        }
    }

    /// Whether an entry's question, answered at this time, was under way while no other was, and every one before it had been
    /// answered.
    fn is_alone(&self, at: usize, answered: Duration) -> bool {
        let (before, after) = (&self.entries[..at], &self.entries[at + 1..]);
        let sent = self.entries[at].sent.0;
        let over = |entry: &Entry| entry.answer.is_some_and(|(time, _)| time <= sent);
        before.iter().all(over) && after.iter().all(|entry| entry.sent.0 >= answered)
    }

    /// Compares the counters with all entries up to the one that asked for them.
    fn totals(&self, at: usize, totals: Totals, model: &Model) -> Vec<Fault> {
        let (subscribers, ringing, connected, meter) = model.sums();
        let mut counters = vec![
            ("questions executed", totals.executed, at as u64 + 1),
            ("subscribers", totals.subscribers, subscribers),
            ("calls that ring", totals.ringing, ringing),
            ("calls that are connected", totals.connected, connected),
            ("calls that were answered", totals.calls, meter.calls),
        ];
        if connected == 0 {
            counters.push(("pulses", totals.pulses, meter.pulses));
        }
        let wrong = counters.into_iter().filter(|(_, told, must)| told != must);
        wrong
            .map(|(name, told, expected)| Fault::Counter {
                name,
                told,
                expected,
            })
            .collect()
    }
}

impl Offence {
    const fn fault(self) -> Fault {
        match self {
            Self::Malformed(malformed) => Fault::Malformed(malformed),
            Self::Stray(answer) => Fault::Stray(answer),
            Self::Contradiction(answer, first) => Fault::Contradiction { answer, first },
        }
    }
}

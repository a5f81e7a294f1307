//! How an exchange answers at the moment, for people who watch.

use super::Ledger;
use std::fmt;
use std::time::Duration;

/// What came of a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Second {
    /// Questions that were answered.
    pub(crate) answered: usize,
    /// Datagrams that were sent and brought no answer, of the questions that were answered.
    pub(crate) lost: usize,
    /// Questions that were answered more than once.
    pub(crate) repeated: usize,
    /// From a question's first sending to its answer: half of them were answered within this, ...
    pub(crate) median: Duration,
    /// ... 99 of 100 within this ...
    pub(crate) p99: Duration,
    /// ... and all within this.
    pub(crate) max: Duration,
    /// How long ago the last answer came; none if none ever did.
    pub(crate) silence: Option<Duration>,
}

impl Ledger {
    /// What came of the time from one moment to another, which is the present.
    pub(crate) fn second(&self, from: Duration, to: Duration) -> Second {
        let mut second = Second {
            silence: self.heard.last().map(|last| to.saturating_sub(*last)),
            ..Second::default()
        };
        let mut latencies = Vec::new();
        // Few are older than the time asked for and not yet over: those of the last moments are at the end.
        for entry in self.entries.iter().rev() {
            match entry.answer {
                Some((at, _)) if at >= from && at < to => {
                    latencies.push(at.saturating_sub(entry.sent.0));
                    second.lost += entry.attempts.saturating_sub(1 + entry.again) as usize;
                    second.repeated += usize::from(entry.again > 0);
                }
                _ if entry.sent.1 + LONGEST < from => break,
                _ => {}
            }
        }
        latencies.sort_unstable();
        let rank = |percent: usize| {
            let at = (latencies.len() * percent).div_ceil(100);
            latencies.get(at.saturating_sub(1)).copied()
        };
        second.answered = latencies.len();
        second.median = rank(50).unwrap_or_default();
        second.p99 = rank(99).unwrap_or_default();
        second.max = rank(100).unwrap_or_default();
        second
    }
}

/// Questions that were sent last so long before are not looked for: they are sent again far more often.
const LONGEST: Duration = Duration::from_secs(60);

impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "{:>5}/s, lost {}, repeated {}, p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms, last answer ",
            self.answered,
            self.lost,
            self.repeated,
            ms(self.median),
            ms(self.p99),
            ms(self.max),
        )?;
        match self.silence {
            Some(silence) => write!(f, "{:.0} ms ago", ms(silence)),
            None => f.write_str("never"),
        }
    }
}

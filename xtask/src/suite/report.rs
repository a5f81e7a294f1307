//! What a test run tells: a line per test as it ends, then one summary.

use crate::progress;
use anyhow::Result;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should.
    Passed,
    /// Not as it should, for this reason.
    Failed(String),
}

impl Verdict {
    /// The verdict on a test's result.
    pub(super) fn of(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Passed,
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

/// One line of the summary.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The test.
    pub name: String,
    /// How long it took.
    pub time: Duration,
    /// How it ended.
    pub verdict: Verdict,
}

impl Row {
    /// A line.
    pub(super) fn new(name: &str, time: Duration, verdict: Verdict) -> Self {
        Self {
            name: name.to_owned(),
            time,
            verdict,
        }
    }
}

/// All lines so far.
pub(super) struct Report {
    rows: Mutex<Vec<Row>>,
    colour: bool,
}

impl Report {
    /// An empty report; colours only at a terminal.
    pub(super) fn new(plain: bool) -> Self {
        Self {
            rows: Mutex::new(Vec::new()),
            colour: !plain && io::stdout().is_terminal(),
        }
    }

    /// Says that a test begins.
    pub(super) fn started(&self, name: &str) {
        eprintln!("==> {name}");
    }

    /// Takes a line in, and tells it.
    pub(super) fn add(&self, row: Row) {
        println!("{}", self.line(&row));
        if let Verdict::Failed(reason) = &row.verdict {
            for line in reason.lines() {
                println!("      {line}");
            }
        }
        self.lock().push(row);
    }

    /// Prints the summary of a run that took so long in all, and says whether nothing failed.
    pub(super) fn finish(&self, took: Duration) -> bool {
        println!("\nSummary, after {} in all", progress::seconds(took));
        for row in self.lock().iter() {
            println!("{}", self.line(row));
        }
        self.lock()
            .iter()
            .all(|row| !matches!(row.verdict, Verdict::Failed(_)))
    }

    /// Prints the last line: the numbers alone.
    pub(super) fn total(&self) {
        println!("\n{}", totals(&self.lock()));
    }

    /// A copy of the lines.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, row: &Row) -> String {
        let (word, colour) = match &row.verdict {
            Verdict::Passed => ("ok  ", "32"),
            Verdict::Failed(_) => ("FAIL", "31"),
        };
        let word = if self.colour {
            format!("\x1b[{colour}m{word}\x1b[0m")
        } else {
            word.to_owned()
        };
        format!(
            "  {word}  {:<38} {:>12}",
            row.name,
            progress::seconds(row.time)
        )
    }
}

fn totals(rows: &[Row]) -> String {
    let count =
        |wanted: fn(&Verdict) -> bool| rows.iter().filter(|row| wanted(&row.verdict)).count();
    format!(
        "{} passed, {} failed",
        count(|verdict| *verdict == Verdict::Passed),
        count(|verdict| matches!(verdict, Verdict::Failed(_)))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_count_passes_and_failures_only() {
        let row = |verdict| Row::new("t", Duration::ZERO, verdict);
        let rows = [
            row(Verdict::Passed),
            row(Verdict::Passed),
            row(Verdict::Failed("no".into())),
        ];
        assert_eq!(totals(&rows), "2 passed, 1 failed");
    }

    #[test]
    fn plain_lines_hold_no_escapes() {
        let report = Report::new(true);
        let row = Row::new("name", Duration::from_secs(1), Verdict::Passed);
        assert!(!report.line(&row).contains('\x1b'));
    }
}

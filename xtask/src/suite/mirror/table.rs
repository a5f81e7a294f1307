//! The table of failures, as `docs/failures.md` has it for people.

use crate::twin::{Command, Role};
use config::OnSilence;
use mirror::Side;
use std::fmt;
use std::time::Duration;

/// The columns.
const COLUMNS: [&str; 9] = [
    "test", "pair", "steps", "in turn", "a", "b", "gap", "state", "run",
];

/// How board b differs from board a, where it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// In nothing.
    Nothing,
    /// It has another key.
    Key,
    /// Its guests have other memory.
    Guests,
    /// Its processor lacks something that guests use.
    Processor,
}

/// What a board is in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Off.
    Off,
    /// Whatever.
    Any,
    /// This, and protected or not where that is said.
    Is(Role, Option<bool>),
}

impl Outcome {
    /// Whether such a board serves.
    pub(super) const fn serves(self) -> bool {
        matches!(self, Self::Is(Role::Primary | Role::Solo, _))
    }
}

/// When a row's test is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Always, in both emulators.
    Core,
    /// Always, in QEMU.
    Usual,
    /// In QEMU, with `--all`.
    All,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The test's name.
    pub(super) name: &'static str,
    /// What is done, as it is written.
    pub(super) text: &'static str,
    /// Who decides in silence; none for a witness.
    pub(super) on_silence: Option<OnSilence>,
    /// What is wrong with board b.
    pub(super) other: Other,
    /// What is done.
    pub(super) steps: Vec<Command>,
    /// Who transmits.
    pub(super) in_turn: Vec<Side>,
    /// What the boards are in the end.
    pub(super) outcomes: [Outcome; 2],
    /// The longest time without an answer; none for no limit.
    pub(super) gap: Option<Duration>,
    /// Whether the state outlives it.
    pub(super) kept: bool,
    /// When the test is made.
    pub(super) run: Run,
}

impl Failure {
    /// Whether both boards are off at first.
    pub(super) fn begins_off(&self) -> bool {
        matches!(self.steps.first(), Some(Command::Start(_)))
    }

    /// Whether somebody serves in the end.
    pub(super) fn serves(&self) -> bool {
        self.outcomes.iter().any(|outcome| outcome.serves())
    }
}

/// What is wrong with the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableError {
    /// The line, from 1.
    line: usize,
    reason: String,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for TableError {}

/// The cells of a line of a table.
fn cells(line: &'static str) -> Option<Vec<&'static str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// Reads the rows.
///
/// # Errors
///
/// Where the document has no such table, or the first row that is wrong.
pub(super) fn read(document: &'static str) -> Result<Vec<Failure>, TableError> {
    let mut lines = (1..)
        .zip(document.lines())
        .filter_map(|(number, line)| Some((number, cells(line)?)));
    let wrong = |line, reason: &str| TableError {
        line,
        reason: reason.to_owned(),
    };
    let (head, names) = lines.next().ok_or_else(|| wrong(1, "there is no table"))?;
    if names != COLUMNS {
        return Err(wrong(
            head,
            &format!("the columns are not {}", COLUMNS.join(", ")),
        ));
    }
    let ruled = |cells: &[&str]| {
        cells
            .iter()
            .all(|cell| cell.bytes().all(|byte| byte == b'-'))
    };
    match lines.next() {
        Some((_, cells)) if ruled(&cells) => {}
        _ => {
            return Err(wrong(
                head + 1,
                "the line beneath the columns' names is missing",
            ));
        }
    }
    let mut failures: Vec<Failure> = Vec::new();
    for (line, cells) in lines {
        let read = failure(&cells).map_err(|reason| TableError { line, reason })?;
        if failures.iter().any(|known| known.name == read.name) {
            return Err(wrong(line, &format!("{} is there already", read.name)));
        }
        failures.push(read);
    }
    if failures.is_empty() {
        return Err(wrong(head, "the table is empty"));
    }
    Ok(failures)
}

fn failure(cells: &[&'static str]) -> Result<Failure, String> {
    let [name, pair, text, in_turn, a, b, gap, state, run] = cells else {
        return Err(format!(
            "{} cells instead of {}",
            cells.len(),
            COLUMNS.len()
        ));
    };
    if !name.starts_with("mirror-") {
        return Err(format!("\"{name}\" does not begin with \"mirror-\""));
    }
    let (on_silence, other) = read_pair(pair)?;
    let choice = |column: &str, word: &str, yes: &str, no: &str| match word {
        _ if word == yes => Ok(true),
        _ if word == no => Ok(false),
        _ => Err(format!("{column} is \"{word}\", not {yes} or {no}")),
    };
    let sides = in_turn.split_whitespace().map(|word| {
        let side = word.parse();
        side.map_err(|_| format!("in turn is \"{in_turn}\", not sides like \"a b a\""))
    });
    let steps = steps(text)?;
    let run = match *run {
        "core" => Run::Core,
        "usual" => Run::Usual,
        "all" => Run::All,
        _ => return Err(format!("run is \"{run}\", not core or usual or all")),
    };
    if run == Run::Core && other == Other::Processor {
        return Err("processors that lack something are QEMU's, so this is none of core".into());
    }
    let freezes = |step: &Command| matches!(step, Command::Freeze(..) | Command::Slow(..));
    if run == Run::Core && steps.iter().any(freezes) {
        return Err(
            "the clock of a board frozen in Bochs stands still, so this is none of core".into(),
        );
    }
    Ok(Failure {
        name,
        text,
        on_silence,
        other,
        steps,
        in_turn: sides.collect::<Result<_, _>>()?,
        outcomes: [outcome(a)?, outcome(b)?],
        gap: match *gap {
            "-" => None,
            gap => Some(crate::wire::read_time(gap)?),
        },
        kept: choice("state", state, "kept", "lost")?,
        run,
    })
}

fn read_pair(text: &str) -> Result<(Option<OnSilence>, Other), String> {
    let (arbiter, other) = text.split_once(", ").unwrap_or((text, ""));
    let arbiter = match arbiter {
        "witness" => None,
        "hold" => Some(OnSilence::Hold),
        "backup" => Some(OnSilence::Backup),
        "assume-dead" => Some(OnSilence::AssumeDead),
        _ => return Err(format!("nobody decides by \"{arbiter}\"")),
    };
    let other = match other {
        "" => Other::Nothing,
        "other key" => Other::Key,
        "other guests" => Other::Guests,
        "other processor" => Other::Processor,
        _ => return Err(format!("no board has \"{other}\"")),
    };
    Ok((arbiter, other))
}

/// Commands between semicolons, with `N times:` before those that are repeated.
fn steps(text: &str) -> Result<Vec<Command>, String> {
    let (times, text) = match text.split_once(" times: ") {
        Some((times, text)) => {
            let count = times.parse().ok().filter(|count| (1..=100).contains(count));
            let count: usize = count.ok_or_else(|| format!("\"{times}\" is no number of times"))?;
            (count, text)
        }
        None => (1, text),
    };
    let steps = text.split(';').map(|step| step.parse());
    let steps: Vec<Command> = steps.collect::<Result<_, _>>()?;
    Ok(std::iter::repeat_n(steps, times).flatten().collect())
}

fn outcome(text: &str) -> Result<Outcome, String> {
    match text {
        "off" => return Ok(Outcome::Off),
        "any" => return Ok(Outcome::Any),
        _ => {}
    }
    let (role, protected) = match text.rsplit_once(' ') {
        Some((role, "protected")) => (role, Some(true)),
        Some((role, "unprotected")) => (role, Some(false)),
        _ => (text, None),
    };
    let read = Outcome::Is(role.parse()?, protected);
    if read.serves() && protected.is_none() {
        return Err(format!("\"{text}\" serves, but protected or not?"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# Title\n\n| test | pair | steps | in turn | a | b | gap | state | run |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    const GOOD: &str = "| mirror-x | hold, other key | 2 times: kill a; wait 1s | a b | off | solo protected | 1.5s | kept | usual |";

    fn read_rows(rows: &str) -> Result<Vec<Failure>, String> {
        let document = format!("{HEAD}{rows}\n\nMore.\n");
        read(document.leak()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_row_is_read() {
        let failures = read_rows(GOOD).unwrap();
        let (kill, wait) = (
            Command::Kill(Side::A),
            Command::Wait(Duration::from_secs(1)),
        );
        let expected = Failure {
            name: "mirror-x",
            text: "2 times: kill a; wait 1s",
            on_silence: Some(OnSilence::Hold),
            other: Other::Key,
            steps: vec![kill.clone(), wait.clone(), kill, wait],
            in_turn: vec![Side::A, Side::B],
            outcomes: [Outcome::Off, Outcome::Is(Role::Solo, Some(true))],
            gap: Some(Duration::from_millis(1500)),
            kept: true,
            run: Run::Usual,
        };
        assert!(!expected.begins_off() && expected.serves());
        assert_eq!(failures, [expected]);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (from, to, reason) in [
            (
                "mirror-x",
                "x",
                "line 5: \"x\" does not begin with \"mirror-\"",
            ),
            ("hold", "luck", "line 5: nobody decides by \"luck\""),
            (
                "other key",
                "other name",
                "line 5: no board has \"other name\"",
            ),
            ("2 times", "0 times", "line 5: \"0\" is no number of times"),
            (
                "kill a;",
                "kill c;",
                "line 5: \"c\" is no board; a and b are",
            ),
            (
                "| a b |",
                "| a c |",
                "line 5: in turn is \"a c\", not sides like \"a b a\"",
            ),
            (
                "solo protected",
                "solo",
                "line 5: \"solo\" serves, but protected or not?",
            ),
            (
                "1.5s",
                "soon",
                "line 5: \"soon\" is no time; 20us, 1.5ms, 2s and 1m are",
            ),
            (
                "kept",
                "there",
                "line 5: state is \"there\", not kept or lost",
            ),
            (
                "usual",
                "often",
                "line 5: run is \"often\", not core or usual or all",
            ),
            ("| off ", "", "line 5: 8 cells instead of 9"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = read_rows(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert_eq!(error, reason);
        }
        let other = GOOD.replacen("other key", "other processor", 1);
        let error = read_rows(&other.replacen("usual", "core", 1)).unwrap_err();
        assert!(error.contains("are QEMU's"), "{error}");
        assert!(read_rows(&other).is_ok());
        let frozen = GOOD.replacen("kill a", "freeze a", 1);
        let error = read_rows(&frozen.replacen("usual", "core", 1)).unwrap_err();
        assert!(error.contains("stands still"), "{error}");
        assert!(read_rows(&frozen).is_ok());
        let twice = read_rows(&format!("{GOOD}\n{GOOD}")).unwrap_err();
        assert_eq!(twice, "line 6: mirror-x is there already");
        assert_eq!(read_rows("").unwrap_err(), "line 3: the table is empty");
        let none = read("no table").unwrap_err();
        assert_eq!(none.to_string(), "line 1: there is no table");
        let other = read("| a | b |\n| - | - |\n").unwrap_err();
        assert!(
            other
                .to_string()
                .starts_with("line 1: the columns are not test,")
        );
    }
}

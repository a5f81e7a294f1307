//! Scripts: what befalls a wire, and when.

use super::random::Share;
use super::segment::{Action, Target};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How scripts are written, for the help.
pub(crate) const HELP: &str = "\
Scripts say what befalls the wire, a line each:

    seed 7                              chance is the same for the same seed
    at 5s loss 10% duplicate 1%         from then on, whichever end sends
    at 5s from 0 delay 20ms jitter 5ms  what end 0 sends
    at 6s to 1 corrupt 0.1%             what end 1 gets: one bit inverted
    at 7s end 1 rate 10mbit             both directions of end 1's cable
    at 8s longest 500                   longer frames are lost, as where somebody has another MTU
    at 8s reorder 2%                    those that others overtake
    at 20s cut                          nothing goes through ...
    at 25s restore                      ... until here
    every 2s flap 100ms                 cut for so long, again and again
    at 60s clear                        whole, and no faults

Times are those of the wall since the start, in us, ms, s or m. The board's cards are the ends
0, 1 and so on; this host's own station comes behind them. What follows # is a remark.";

/// When a step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Once, so long after the start.
    At(Duration),
    /// Each time that so much has passed.
    Every(Duration),
}

/// A line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) when: When,
    pub(super) target: Target,
    pub(super) actions: Vec<Action>,
}

/// What befalls a wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    /// Where chance begins.
    pub(super) seed: Option<u64>,
    pub(super) steps: Vec<Step>,
}

impl Script {
    /// The last of the ends that it names.
    pub(crate) fn last_end(&self) -> Option<usize> {
        let ends = self.steps.iter().filter_map(|step| match step.target {
            Target::All => None,
            Target::From(end) | Target::To(end) | Target::End(end) => Some(end),
        });
        ends.max()
    }
}

/// What is wrong with a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScriptError {
    /// The line, from 1.
    pub(crate) line: usize,
    /// Why it is refused.
    pub(crate) reason: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for ScriptError {}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.split_once('#').map_or(line, |(before, _)| before);
            let words = Words(line.split_whitespace().collect(), 0);
            read_line(words, &mut script).map_err(|reason| ScriptError {
                line: number + 1,
                reason,
            })?;
        }
        Ok(script)
    }
}

/// A line's words, and how many of them are read.
struct Words<'a>(Vec<&'a str>, usize);

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.0.get(self.1).copied()
    }

    fn next(&mut self, what: &str) -> Result<&'a str, String> {
        let word = self.peek().ok_or_else(|| match self.1.checked_sub(1) {
            Some(last) => format!("{what} is missing behind \"{}\"", self.0[last]),
            None => format!("{what} is missing"),
        })?;
        self.1 += 1;
        Ok(word)
    }
}

fn read_line(mut words: Words<'_>, script: &mut Script) -> Result<(), String> {
    let when = match words.peek() {
        None => return Ok(()),
        Some("seed") => {
            words.next("")?;
            let word = words.next("a number")?;
            let seed = word.parse();
            script.seed = Some(seed.map_err(|_| format!("\"{word}\" is no whole number"))?);
            return match words.peek() {
                None => Ok(()),
                Some(word) => Err(format!("\"{word}\" is too much")),
            };
        }
        Some("at") => {
            words.next("")?;
            When::At(read_time(words.next("a time")?)?)
        }
        Some("every") => {
            words.next("")?;
            let word = words.next("a time")?;
            match read_time(word)? {
                Duration::ZERO => return Err(format!("\"{word}\" is too often")),
                period => When::Every(period),
            }
        }
        Some(word) => {
            return Err(format!("\"{word}\" begins no line; at, every and seed do"));
        }
    };
    let target: fn(usize) -> Target = match words.peek() {
        Some("from") => Target::From,
        Some("to") => Target::To,
        Some("end") => Target::End,
        _ => |_| Target::All,
    };
    let target = if target(0) == Target::All {
        Target::All
    } else {
        words.next("")?;
        let word = words.next("an end's number")?;
        let end = word.parse();
        target(end.map_err(|_| format!("\"{word}\" is no end's number; 0, 1 ... are"))?)
    };
    let actions = actions(&mut words)?;
    script.steps.push(Step {
        when,
        target,
        actions,
    });
    Ok(())
}

/// What befalls a wire at once, in the words of a script.
///
/// # Errors
///
/// What is wrong with which word.
pub(crate) fn read_actions(words: &[&str]) -> Result<Vec<Action>, String> {
    actions(&mut Words(words.to_vec(), 0))
}

fn actions(words: &mut Words<'_>) -> Result<Vec<Action>, String> {
    let mut actions = vec![action(words)?];
    while words.peek().is_some() {
        actions.push(action(words)?);
    }
    Ok(actions)
}

fn action(words: &mut Words<'_>) -> Result<Action, String> {
    let name = words.next("what befalls the wire")?;
    let mut argument = |what| words.next(what);
    Ok(match name {
        "delay" => Action::Delay(read_time(argument("a time")?)?),
        "jitter" => Action::Jitter(read_time(argument("a time")?)?),
        "loss" => Action::Loss(read_share(argument("a share")?)?),
        "duplicate" => Action::Duplicate(read_share(argument("a share")?)?),
        "reorder" => Action::Reorder(read_share(argument("a share")?)?),
        "corrupt" => Action::Corrupt(read_share(argument("a share")?)?),
        "rate" => Action::Rate(rate(argument("a rate, or off,")?)?),
        "longest" => Action::Longest(longest(argument("a number of bytes, or off,")?)?),
        "flap" => Action::Flap(read_time(argument("a time")?)?),
        "cut" => Action::Cut,
        "restore" => Action::Restore,
        "clear" => Action::Clear,
        _ => {
            return Err(format!(
                "\"{name}\" is unknown; known are delay, jitter, loss, duplicate, reorder, corrupt, rate, longest, cut, restore, \
                 flap and clear"
            ));
        }
    })
}

/// A number and its unit, in units that are this many of the smallest.
fn amount(word: &str, units: &[(&str, f64)]) -> Option<f64> {
    let at = word.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = word.split_at(at);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let value = number.parse::<f64>().ok()? * factor;
    // Anything larger is a slip of the pen, and would not fit where it goes.
    (value <= 1e15).then_some(value)
}

/// A time, as scripts write it.
///
/// # Errors
///
/// Where it is none.
pub(crate) fn read_time(word: &str) -> Result<Duration, String> {
    let units = [("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9)];
    let nanoseconds = amount(word, &units)
        .ok_or_else(|| format!("\"{word}\" is no time; 20us, 1.5ms, 2s and 1m are"))?;
    Ok(Duration::from_nanos(nanoseconds.round() as u64))
}

/// A share, as scripts write it.
///
/// # Errors
///
/// Where it is none.
pub(crate) fn read_share(word: &str) -> Result<Share, String> {
    amount(word, &[("%", 1e4)])
        .filter(|parts| *parts <= 1e6)
        .map(|parts| Share::ppm(parts.round() as u32))
        .ok_or_else(|| format!("\"{word}\" is no share; 0.1% and 100% are"))
}

fn rate(word: &str) -> Result<Option<u64>, String> {
    if word == "off" {
        return Ok(None);
    }
    amount(word, &[("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)])
        .filter(|bits| *bits >= 1.0)
        .map(|bits| Some(bits.round() as u64))
        .ok_or_else(|| format!("\"{word}\" is no rate; 100kbit, 10mbit, 1gbit and off are"))
}

fn longest(word: &str) -> Result<Option<usize>, String> {
    match word.parse() {
        _ if word == "off" => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(_) => Err(format!("\"{word}\" is no number of bytes; 500 and off are")),
    }
}

/// A script that is being played.
#[derive(Debug)]
pub(super) struct Play {
    /// Each with the time at which it is taken next, since the wire was laid.
    steps: Vec<(Duration, Step)>,
}

impl Play {
    /// Begins now.
    pub(super) fn new(script: Script, now: Duration) -> Self {
        let steps = script.steps.into_iter().map(|step| {
            let (When::At(after) | When::Every(after)) = step.when;
            (now + after, step)
        });
        Self {
            steps: steps.collect(),
        }
    }

    /// When the next step is taken.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.steps.iter().map(|(due, _)| *due).min()
    }

    /// The next step that is due by now; of several the earliest, of those at the same time the first in the script.
    pub(super) fn take(&mut self, now: Duration) -> Option<(Target, Vec<Action>)> {
        let due = self.next_due().filter(|due| *due <= now)?;
        let at = self.steps.iter().position(|(when, _)| *when == due)?;
        let (_, step) = &self.steps[at];
        let taken = (step.target, step.actions.clone());
        match step.when {
            When::At(_) => {
                self.steps.remove(at);
            }
            When::Every(period) => self.steps[at].0 += period,
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_lines_of_the_help_are_read() {
        let lines: Vec<&str> = HELP
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .collect();
        // The right column explains.
        let text: Vec<&str> = lines
            .iter()
            .map(|line| line.split("  ").next().unwrap_or_default())
            .collect();
        let script: Script = text.join("\n").parse().unwrap();
        assert_eq!((script.seed, script.last_end()), (Some(7), Some(1)));
        let step = |when, target, actions: &[Action]| Step {
            when,
            target,
            actions: actions.to_vec(),
        };
        let at = |seconds| When::At(Duration::from_secs(seconds));
        assert_eq!(
            script.steps,
            [
                step(
                    at(5),
                    Target::All,
                    &[
                        Action::Loss(Share::percent(10)),
                        Action::Duplicate(Share::percent(1))
                    ]
                ),
                step(
                    at(5),
                    Target::From(0),
                    &[Action::Delay(20 * MS), Action::Jitter(5 * MS)]
                ),
                step(at(6), Target::To(1), &[Action::Corrupt(Share::ppm(1000))]),
                step(at(7), Target::End(1), &[Action::Rate(Some(10_000_000))]),
                step(at(8), Target::All, &[Action::Longest(Some(500))]),
                step(at(8), Target::All, &[Action::Reorder(Share::percent(2))]),
                step(at(20), Target::All, &[Action::Cut]),
                step(at(25), Target::All, &[Action::Restore]),
                step(
                    When::Every(2000 * MS),
                    Target::All,
                    &[Action::Flap(100 * MS)]
                ),
                step(at(60), Target::All, &[Action::Clear]),
            ]
        );
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, message) in [
            (
                "\n# x\nloss 5%",
                "line 3: \"loss\" begins no line; at, every and seed do",
            ),
            ("at", "line 1: a time is missing behind \"at\""),
            (
                "at 5 cut",
                "line 1: \"5\" is no time; 20us, 1.5ms, 2s and 1m are",
            ),
            ("every 0s cut", "line 1: \"0s\" is too often"),
            (
                "at 5s",
                "line 1: what befalls the wire is missing behind \"5s\"",
            ),
            ("at 5s loss", "line 1: a share is missing behind \"loss\""),
            (
                "at 5s loss 101%",
                "line 1: \"101%\" is no share; 0.1% and 100% are",
            ),
            (
                "at 5s end x cut",
                "line 1: \"x\" is no end's number; 0, 1 ... are",
            ),
            (
                "at 5s rate 10",
                "line 1: \"10\" is no rate; 100kbit, 10mbit, 1gbit and off are",
            ),
            (
                "at 5s longest 9k",
                "line 1: \"9k\" is no number of bytes; 500 and off are",
            ),
            ("seed 1 2", "line 1: \"2\" is too much"),
            ("seed x", "line 1: \"x\" is no whole number"),
        ] {
            let error = text.parse::<Script>().unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let error = "at 1s brun".parse::<Script>().unwrap_err().to_string();
        assert!(
            error.contains("\"brun\" is unknown; known are delay"),
            "{error}"
        );
    }

    #[test]
    fn steps_are_taken_in_order_and_again() {
        let text = "at 3ms cut\nevery 2ms flap 1ms\nat 3ms restore\nat 1ms clear";
        let mut play = Play::new(text.parse().unwrap(), 10 * MS);
        assert_eq!(play.take(10 * MS), None);
        let mut taken = Vec::new();
        while let Some((_, actions)) = play.take(16 * MS) {
            taken.extend(actions);
        }
        let flap = Action::Flap(MS);
        let all = [
            Action::Clear,
            flap,
            Action::Cut,
            Action::Restore,
            flap,
            flap,
        ];
        assert_eq!(taken, all);
        assert_eq!(play.next_due(), Some(18 * MS));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([a-z0-9.%# \n]|at |every |loss |s ){0,60}") {
            let _ = text.parse::<Script>();
        }
    }
}

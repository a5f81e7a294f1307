//! What can be done to a pair of boards: the words that are typed, that scripts hold, and that the table of failures
//! is written in.

use super::intruder::Trick;
use super::status::{Reason, Role};
use crate::wire::{Action, ScriptError, Share, read_actions, read_share, read_time};
use mirror::{Path, Side};
use std::str::FromStr;
use std::time::Duration;

/// How commands are written, for the help.
pub(crate) const HELP: &str = "\
Commands, a line each, from the keyboard or a script; what follows # is a remark:

    start a                     powers a board on; at first both are
    kill a                      pulls its plug
    freeze a                    stops it where it stands ...
    thaw a                      ... until here
    slow a 30%                  it goes on for only a part of each 100 ms ...
    slow a 100%                 ... until here
    link cut                    nothing goes through the dedicated link ...
    link restore                ... until here
    link from a cut             only what a sends; to a: only what comes to it
    lan end a cut               both directions of a's cable to the LAN
    lan loss 10% reorder 5%     anything that the scripts of --wire do to a wire
    link record                 an intruder without the key notes the mirror's last frames ...
    link replay                 ... and sends them again ...
    link replay version 2       ... as if they were of that version
    lan forge 100               it sends so many that it makes of the last ones, and of chance
    witness off                 the witness answers nobody ...
    witness on                  ... until here
    a: mirror                   types a line in a's hypervisor shell
    a> status 101               types a line on a's console as it is
    wait 1.5s                   does nothing for a while
    until a says TEXT           waits until the text appears on a's console
    until a is primary          waits until its shell says that it is that ...
    until a is solo unprotected ... or that, and in which protection
    until a drops 9 link replay waits until it has dropped so many of that wire's frames, and why
    status                      shows what both are
    quit                        ends, and judges

The ends of the LAN are a, b, client and witness, those of the link a and b.";

/// Which wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Net {
    /// That which guests, client and witness are on.
    Lan,
    /// That of the boards alone.
    Link,
}

/// Who is on a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    /// A board.
    Board(Side),
    /// Whoever asks the exchange.
    Client,
    /// The witness.
    Witness,
}

/// Which directions of a wire's cables are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// All.
    All,
    /// What it sends.
    From(Party),
    /// What it gets.
    To(Party),
    /// Both.
    End(Party),
}

impl Net {
    /// What the mirror calls it.
    pub(super) const fn path(self) -> Path {
        match self {
            Self::Lan => Path::Lan,
            Self::Link => Path::Link,
        }
    }
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// A text on the console.
    Says(String),
    /// A role, and, where that is said, whether it is protected.
    Is(Role, Option<bool>),
    /// So many frames of the mirror's, dropped for a reason.
    Drops(u64, Net, Reason),
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// A board is powered on.
    Start(Side),
    /// Its plug is pulled.
    Kill(Side),
    /// It stands still, or goes on.
    Freeze(Side, bool),
    /// It gets this share of the time.
    Slow(Side, Share),
    /// Something befalls a wire.
    Wire(Net, Way, Vec<Action>),
    /// An intruder on a wire does something.
    Intrude(Net, Trick),
    /// The witness answers or does not.
    Witness(bool),
    /// A line for the hypervisor's shell.
    Shell(Side, String),
    /// A line for whatever the console shows.
    Type(Side, String),
    /// Nothing for a while.
    Wait(Duration),
    /// Something is waited for.
    Until(Side, Until),
    /// What both are.
    Status,
    /// The end.
    Quit,
}

fn side(word: &str) -> Result<Side, String> {
    match word {
        "" => Err("a board is missing: a or b".into()),
        _ => word
            .parse()
            .map_err(|_| format!("\"{word}\" is no board; a and b are")),
    }
}

fn party(net: Net, word: &str) -> Result<Party, String> {
    match (net, word) {
        (Net::Lan, "client") => Ok(Party::Client),
        (Net::Lan, "witness") => Ok(Party::Witness),
        _ => side(word).map(Party::Board),
    }
}

fn slow(text: &str) -> Result<Command, String> {
    let (who, share) = cut(text);
    let (side, share) = (side(who)?, read_share(share)?);
    if share == Share::NONE {
        return Err("who gets nothing is frozen: write freeze".into());
    }
    Ok(Command::Slow(side, share))
}

fn number<T: FromStr>(word: &str) -> Result<T, String> {
    word.parse()
        .map_err(|_| format!("\"{word}\" is no number, or too large"))
}

/// What an intruder does, if that is what the words say.
fn trick(words: &[&str]) -> Result<Option<Trick>, String> {
    let (trick, rest) = match words {
        ["record", rest @ ..] => (Trick::Record, rest),
        ["replay", "version", version, rest @ ..] => (Trick::Revise(number(version)?), rest),
        ["replay", rest @ ..] => (Trick::Replay, rest),
        ["forge", count, rest @ ..] => (Trick::Forge(number(count)?), rest),
        ["forge"] => return Err("write how many: forge 100".into()),
        _ => return Ok(None),
    };
    match rest {
        [] => Ok(Some(trick)),
        rest => Err(format!("\"{}\" is too much", rest.join(" "))),
    }
}

fn wire(net: Net, words: &[&str]) -> Result<Command, String> {
    if let Some(trick) = trick(words)? {
        return Ok(Command::Intrude(net, trick));
    }
    let way: Option<fn(Party) -> Way> = match words.first() {
        Some(&"from") => Some(Way::From),
        Some(&"to") => Some(Way::To),
        Some(&"end") => Some(Way::End),
        _ => None,
    };
    let (way, actions) = match (way, words) {
        (Some(way), [_, who, actions @ ..]) => (way(party(net, who)?), actions),
        (Some(_), _) => return Err(format!("who is missing behind \"{}\"", words.join(" "))),
        (None, actions) => (Way::All, actions),
    };
    Ok(Command::Wire(net, way, read_actions(actions)?))
}

fn until(side: Side, how: &str, what: &str) -> Result<Command, String> {
    let protection = |role: &str, protected| {
        let role = role.trim_end_matches(',').parse()?;
        Ok(Command::Until(side, Until::Is(role, protected)))
    };
    match how {
        "says" if !what.is_empty() => Ok(Command::Until(side, Until::Says(what.to_owned()))),
        "is" => match what.rsplit_once(' ') {
            Some((role, "protected")) => protection(role, Some(true)),
            Some((role, "unprotected")) => protection(role, Some(false)),
            _ => protection(what, None),
        },
        "drops" => {
            let [count, wire, reason] = what.split(' ').collect::<Vec<_>>()[..] else {
                return Err("write: until a drops 9 link replay".into());
            };
            let net = match wire {
                "lan" => Net::Lan,
                "link" => Net::Link,
                _ => return Err(format!("\"{wire}\" is no wire; lan and link are")),
            };
            let drops = Until::Drops(number(count)?, net, reason.parse()?);
            Ok(Command::Until(side, drops))
        }
        _ => Err(
            "write: until a says TEXT, or: until a is ROLE, or: until a drops 9 link replay".into(),
        ),
    }
}

/// The first word, and the rest.
fn cut(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    (word, rest.trim())
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (word, rest) = cut(line.trim());
        let nothing_more = |command| match rest {
            "" => Ok(command),
            _ => Err(format!("\"{rest}\" is too much")),
        };
        let words: Vec<_> = rest.split_whitespace().collect();
        match word {
            "start" => side(rest).map(Self::Start),
            "kill" => side(rest).map(Self::Kill),
            "freeze" => side(rest).map(|side| Self::Freeze(side, true)),
            "thaw" => side(rest).map(|side| Self::Freeze(side, false)),
            "slow" => slow(rest),
            "lan" => wire(Net::Lan, &words),
            "link" => wire(Net::Link, &words),
            "witness" => match rest {
                "on" => Ok(Self::Witness(true)),
                "off" => Ok(Self::Witness(false)),
                _ => Err("write: witness on, or: witness off".into()),
            },
            "a:" | "b:" => Ok(Self::Shell(side(&word[..1])?, rest.to_owned())),
            "a>" | "b>" => Ok(Self::Type(side(&word[..1])?, rest.to_owned())),
            "wait" => read_time(rest).map(Self::Wait),
            "until" => {
                let (who, rest) = cut(rest);
                let (how, what) = cut(rest);
                until(side(who)?, how, what)
            }
            "status" => nothing_more(Self::Status),
            "quit" => nothing_more(Self::Quit),
            _ => Err(format!("\"{word}\" is no command; \"help\" lists them")),
        }
    }
}

/// A line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The line as it is written.
    pub(crate) line: String,
    /// What it says.
    pub(crate) command: Command,
}

/// Reads a line that may be empty or a remark.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn read_line(line: &str) -> Result<Option<Command>, String> {
    let line = line.split_once('#').map_or(line, |(before, _)| before);
    if line.trim().is_empty() {
        Ok(None)
    } else {
        line.parse().map(Some)
    }
}

/// Reads a script: commands that are done one after the other.
///
/// # Errors
///
/// The first line that is wrong.
pub(crate) fn read_script(text: &str) -> Result<Vec<Step>, ScriptError> {
    let mut commands = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let command = read_line(line).map_err(|reason| ScriptError {
            line: number + 1,
            reason,
        })?;
        commands.extend(command.map(|command| Step {
            line: line.trim().to_owned(),
            command,
        }));
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Share;
    use proptest::prelude::*;

    #[test]
    fn the_lines_of_the_help_are_read() {
        let lines = HELP.lines().filter_map(|line| line.strip_prefix("    "));
        // The right column explains.
        let text: Vec<&str> = lines.map(|line| line.split_at(28).0).collect();
        let steps = read_script(&text.join("\n")).unwrap();
        assert_eq!(steps[1].line, "kill a");
        let commands: Vec<_> = steps.into_iter().map(|step| step.command).collect();
        let (a, cut) = (Side::A, vec![Action::Cut]);
        let board = Party::Board(a);
        let faults = [
            Action::Loss(Share::percent(10)),
            Action::Reorder(Share::percent(5)),
        ];
        assert_eq!(
            commands,
            [
                Command::Start(a),
                Command::Kill(a),
                Command::Freeze(a, true),
                Command::Freeze(a, false),
                Command::Slow(a, Share::percent(30)),
                Command::Slow(a, Share::ALL),
                Command::Wire(Net::Link, Way::All, cut.clone()),
                Command::Wire(Net::Link, Way::All, vec![Action::Restore]),
                Command::Wire(Net::Link, Way::From(board), cut.clone()),
                Command::Wire(Net::Lan, Way::End(board), cut),
                Command::Wire(Net::Lan, Way::All, faults.to_vec()),
                Command::Intrude(Net::Link, Trick::Record),
                Command::Intrude(Net::Link, Trick::Replay),
                Command::Intrude(Net::Link, Trick::Revise(2)),
                Command::Intrude(Net::Lan, Trick::Forge(100)),
                Command::Witness(false),
                Command::Witness(true),
                Command::Shell(a, "mirror".into()),
                Command::Type(a, "status 101".into()),
                Command::Wait(Duration::from_millis(1500)),
                Command::Until(a, Until::Says("TEXT".into())),
                Command::Until(a, Until::Is(Role::Primary, None)),
                Command::Until(a, Until::Is(Role::Solo, Some(false))),
                Command::Until(a, Until::Drops(9, Net::Link, "replay".parse().unwrap())),
                Command::Status,
                Command::Quit,
            ]
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (line, reason) in [
            ("kill", "a board is missing: a or b"),
            ("kill c", "\"c\" is no board; a and b are"),
            ("burn a", "\"burn\" is no command; \"help\" lists them"),
            ("link end client cut", "\"client\" is no board; a and b are"),
            ("lan from", "who is missing behind \"from\""),
            ("link", "what befalls the wire is missing"),
            ("wait 5", "\"5\" is no time; 20us, 1.5ms, 2s and 1m are"),
            (
                "until a",
                "write: until a says TEXT, or: until a is ROLE, or: until a drops 9 link replay",
            ),
            ("until a drops 9 link", "write: until a drops 9 link replay"),
            (
                "until a drops 9 wire tag",
                "\"wire\" is no wire; lan and link are",
            ),
            (
                "until a drops 9 lan age",
                "\"age\" is no reason; known are malformed, version, session, path, own, tag, replay, old_term",
            ),
            ("slow b", "\"\" is no share; 0.1% and 100% are"),
            ("slow b 0%", "who gets nothing is frozen: write freeze"),
            ("lan forge", "write how many: forge 100"),
            ("lan forge x", "\"x\" is no number, or too large"),
            ("link record a", "\"a\" is too much"),
            (
                "until a is king",
                "\"king\" is no role; known are waiting, primary, backup, solo, outdated, held, handing over",
            ),
            ("quit now", "\"now\" is too much"),
            ("witness", "write: witness on, or: witness off"),
        ] {
            assert_eq!(line.parse::<Command>(), Err(reason.to_owned()), "{line}");
        }
        let error = read_script("# both\n\nkill a # now\nkill\n").unwrap_err();
        assert_eq!(error.to_string(), "line 4: a board is missing: a or b");
    }

    #[test]
    fn roles_of_several_words_are_waited_for() {
        for (text, protected) in [
            ("", None),
            (" protected", Some(true)),
            (", unprotected", Some(false)),
        ] {
            let command = format!("until b is handing over{text}").parse();
            let until = Until::Is(Role::HandingOver, protected);
            assert_eq!(command, Ok(Command::Until(Side::B, until)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([a-z0-9.%#:> \n]|kill |until |link |a ){0,40}") {
            let _ = read_script(&text);
        }
    }
}

//! The console's commands, as they are typed.

use crate::exchange::{Number, Request};

/// How a field engineer takes the system down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Crash {
    /// An exception without a descriptor table.
    Triple,
    /// An undefined instruction.
    Undefined,
    /// An access to memory that is not there.
    Wild,
}

/// A command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// Lists the commands.
    Help,
    /// Lists the tasks.
    Tasks,
    /// Time since the start.
    Uptime,
    /// The time of day.
    Date,
    /// Memory and stacks.
    Memory,
    /// Tests the executive.
    Selftest,
    /// Measures release latency over so many releases.
    Jitter(u32),
    /// Compares the clocks for so many seconds.
    Clock(u32),
    /// Asks the exchange.
    Exchange(Request),
    /// The exchange as a whole.
    Traffic,
    /// The network.
    Network,
    /// Makes so many random calls.
    Load(u32),
    /// Restarts the machine.
    Reboot,
    /// Switches the machine off.
    Halt,
    /// Takes the system down.
    Crash(Crash),
}

/// Each command's form, and what it does.
pub const HELP: &[(&str, &str)] = &[
    ("help", "this list"),
    ("tasks", "tasks, their priorities and states"),
    ("uptime", "time since the start"),
    ("date", "time of day"),
    ("mem", "memory and stacks"),
    ("selftest", "test the executive"),
    (
        "jitter [releases]",
        "release latency of the most urgent task",
    ),
    ("clock [seconds]", "compare the clocks"),
    ("register NUM", "put a number into service"),
    ("call A B", "A calls B"),
    ("answer B", "B answers"),
    ("clear A", "A hangs up"),
    ("status [NUM]", "a line, or the whole exchange"),
    ("charging NUM", "a subscriber's meter"),
    ("load N", "make N random calls"),
    ("net", "the network: card, addresses, counters"),
    ("reboot", "restart the machine"),
    ("halt", "switch the machine off"),
    ("crash triple|ud|wild", "take the system down"),
];

/// Reads a command; an empty line is none.
///
/// # Errors
/// What is wrong with it.
pub fn parse(line: &str) -> Result<Option<Command>, &'static str> {
    let mut words = line.split_ascii_whitespace();
    let Some(name) = words.next() else {
        return Ok(None);
    };
    let mut argument = || words.next();
    let command = match name {
        "help" => Command::Help,
        "tasks" => Command::Tasks,
        "uptime" => Command::Uptime,
        "date" => Command::Date,
        "mem" => Command::Memory,
        "selftest" => Command::Selftest,
        "jitter" => Command::Jitter(count(
            argument(),
            1000,
            2,
            crate::latency::MOST_RELEASES as u32,
        )?),
        "clock" => Command::Clock(count(argument(), 5, 1, 3600)?),
        "register" => Command::Exchange(Request::Register(number(argument())?)),
        "call" => Command::Exchange(Request::Call(number(argument())?, number(argument())?)),
        "answer" => Command::Exchange(Request::Answer(number(argument())?)),
        "clear" => Command::Exchange(Request::Clear(number(argument())?)),
        "status" => match argument() {
            None => Command::Traffic,
            word => Command::Exchange(Request::Status(number(word)?)),
        },
        "charging" => Command::Exchange(Request::Charging(number(argument())?)),
        "net" => Command::Network,
        "load" => Command::Load(count(argument(), 100, 1, 1_000_000)?),
        "reboot" => Command::Reboot,
        "halt" => Command::Halt,
        "crash" => Command::Crash(match argument() {
            Some("triple") => Crash::Triple,
            Some("ud") => Crash::Undefined,
            Some("wild") => Crash::Wild,
            _ => return Err("crash how: triple, ud or wild?"),
        }),
        _ => return Err("no such command; try help"),
    };
    if words.next().is_some() {
        Err("too many words")
    } else {
        Ok(Some(command))
    }
}

fn number(word: Option<&str>) -> Result<Number, &'static str> {
    let word = word.ok_or("a number is missing")?;
    Number::parse(word).ok_or("a number has one to eight digits, the first of them not 0")
}

fn count(word: Option<&str>, default: u32, least: u32, most: u32) -> Result<u32, &'static str> {
    let Some(word) = word else { return Ok(default) };
    let count = word.parse().map_err(|_| "a count is made of digits")?;
    if (least..=most).contains(&count) {
        Ok(count)
    } else {
        Err("the count is out of range")
    }
}

/// The commands of a `run=` option: divided by `;` or `,`, with `_` for spaces.
pub fn run_list(option: &str) -> impl Iterator<Item = impl Iterator<Item = u8>> {
    let commands = option
        .split([';', ','])
        .filter(|command| !command.is_empty());
    commands.map(|command| {
        command
            .bytes()
            .map(|byte| if byte == b'_' { b' ' } else { byte })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Command, Crash, HELP, parse, run_list};
    use crate::exchange::{Number, Request};

    #[test]
    fn commands() {
        let number = |digits| Number::parse(digits).unwrap();
        assert_eq!(parse("  "), Ok(None));
        assert_eq!(parse(" help "), Ok(Some(Command::Help)));
        assert_eq!(parse("jitter"), Ok(Some(Command::Jitter(1000))));
        assert_eq!(parse("jitter 20"), Ok(Some(Command::Jitter(20))));
        assert_eq!(parse("clock 3"), Ok(Some(Command::Clock(3))));
        assert_eq!(parse("status"), Ok(Some(Command::Traffic)));
        assert_eq!(
            parse("call 101 202"),
            Ok(Some(Command::Exchange(Request::Call(
                number("101"),
                number("202")
            ))))
        );
        assert_eq!(
            parse("crash ud"),
            Ok(Some(Command::Crash(Crash::Undefined)))
        );
        for wrong in [
            "helpp", "help me", "call 101", "call 0 1", "jitter 1", "jitter x", "clock 0", "crash",
            "load -1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn help_knows_every_command() {
        for (form, _) in HELP {
            let example = form
                .replace("NUM", "1")
                .replace(['N', 'A'], "1")
                .replace('B', "2");
            let example = example
                .replace("[releases]", "10")
                .replace("[seconds]", "10")
                .replace("[1]", "1");
            let example = example.replace("triple|ud|wild", "wild");
            assert!(matches!(parse(&example), Ok(Some(_))), "{example}");
        }
    }

    #[test]
    fn commands_to_run() {
        let list = |option| -> Vec<String> {
            run_list(option)
                .map(|bytes| bytes.map(char::from).collect())
                .collect()
        };
        assert_eq!(
            list("selftest;clock_5,halt"),
            ["selftest", "clock 5", "halt"]
        );
        assert!(list("").is_empty());
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in "[ -~]{0,40}") {
            let _ = parse(&line);
        }
    }
}

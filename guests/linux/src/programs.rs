//! Which program it is, and what all of them have in common.

use crate::{
    bootmark, clockcheck, disktest, gateway, idlecheck, load, tlb, udpecho, vectors, writes,
};
use std::env;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

/// What a program returns; the text of an error is shown behind `FAILED`.
pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// A name, the arguments, and what to do with them.
type Program = (&'static str, &'static str, fn(&[String]) -> Outcome);

const PROGRAMS: &[Program] = &[
    ("bootmark", "", bootmark::run),
    ("clockcheck", "[SECONDS]", clockcheck::run),
    ("disktest", "DEVICE [MIB]", disktest::run),
    ("gateway", "EXCHANGE [PORT] [SUBSCRIBER]...", gateway::run),
    ("idlecheck", "[SECONDS]", idlecheck::run),
    ("load", "[SECONDS]", load::run),
    ("tlb", "[SECONDS]", tlb::run),
    ("udpecho", "[PORT]", udpecho::run),
    ("vectors", "[ROUNDS]", vectors::run),
    ("writes", "DEVICE", writes::run),
];

/// Runs the program that the first word of the call names.
pub(crate) fn main() -> ExitCode {
    let words: Vec<String> = env::args().collect();
    let called = words.first().map_or("", String::as_str);
    let name = Path::new(called).file_name().unwrap_or_default();
    let Some((name, _, run)) = PROGRAMS.iter().find(|(known, ..)| name == *known) else {
        eprintln!("call this by one of these names:");
        for (name, arguments, _) in PROGRAMS {
            eprintln!("    {name} {arguments}");
        }
        return ExitCode::FAILURE;
    };
    match run(words.get(1..).unwrap_or_default()) {
        Ok(()) => {
            println!("{name}: ok");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{name}: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The number that the argument at a place gives, or the default where there is none.
///
/// # Errors
///
/// Where the argument is no number from 1.
pub(crate) fn number(arguments: &[String], place: usize, default: u64) -> Result<u64, String> {
    match arguments.get(place) {
        None => Ok(default),
        Some(word) => match word.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("\"{word}\" is not a number from 1")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_have_defaults_and_are_not_zero() {
        let words = ["5", "0", "x"].map(str::to_owned);
        assert_eq!(number(&words, 0, 7), Ok(5));
        assert_eq!(number(&words, 3, 7), Ok(7));
        assert!(number(&words, 1, 7).is_err() && number(&words, 2, 7).is_err());
    }
}

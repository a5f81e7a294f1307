//! Counts the timer interrupts of an idle system: with the tickless idle they are few.

use crate::programs::{Outcome, number};
use std::fs;
use std::thread;
use std::time::Duration;

const SECONDS_DEFAULT: u64 = 5;
/// A kernel that ticks at 100 Hz or more while idle has more; a second.
const MOST: u64 = 50;

/// The sum of a row of /proc/interrupts over all processors.
fn interrupts(table: &str, row: &str) -> Option<u64> {
    let line = table
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(row)?.strip_prefix(':'))?;
    let counts = line
        .split_ascii_whitespace()
        .map_while(|word| word.parse::<u64>().ok());
    Some(counts.sum())
}

/// Interrupts of the local timers, and of the 8254 that stands in where there are none.
fn timer_interrupts() -> Result<u64, String> {
    let file = "/proc/interrupts";
    let table = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let local = interrupts(&table, "LOC").ok_or(format!("{file} has no row LOC"))?;
    Ok(local + interrupts(&table, "0").unwrap_or(0))
}

/// `idlecheck [SECONDS]`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let seconds = number(arguments, 0, SECONDS_DEFAULT)?;
    let before = timer_interrupts()?;
    thread::sleep(Duration::from_secs(seconds));
    let count = timer_interrupts()? - before;
    println!("idlecheck: {count} timer interrupts in {seconds} s");
    if count > MOST * seconds {
        return Err("the idle system ticks".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::interrupts;

    #[test]
    fn rows_are_summed_over_the_processors() {
        let table = "           CPU0       CPU1       \n\
                       0:         12          0   IO-APIC   2-edge      timer\n\
                      10:          1          1   IO-APIC  10-edge\n\
                     LOC:       1500         23   Local timer interrupts\n";
        assert_eq!(interrupts(table, "LOC"), Some(1523));
        assert_eq!(interrupts(table, "0"), Some(12));
        assert_eq!(interrupts(table, "NMI"), None);
    }
}

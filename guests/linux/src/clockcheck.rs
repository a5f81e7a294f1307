//! Compares Linux's clocks with each other, with the PC's clock chip and with the time-stamp counter.
//!
//! Magic breakpoints stand at both ends, so that Bochs tells how much of its own time passed.

use crate::cpu;
use crate::programs::{Outcome, number};
use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How far two clocks may be apart.
const TOLERANCE_PPM: f64 = 1000.0;
const SECONDS_DEFAULT: u64 = 10;
/// The chip counts in whole seconds; as linuxdev names it.
const CHIP: &str = "/sys/class/rtc/rtc0/since_epoch";
/// So close must be two looks at the chip between which a second begins.
const CLOSE: Duration = Duration::from_millis(2);
/// So many seconds are tried.
const SECONDS_MOST: u32 = 20;
/// Before this long a second of the chip is over.
const LONG_SECOND: Duration = Duration::from_millis(1500);

/// All clocks at one instant.
struct Reading {
    chip: u64,
    monotonic: Instant,
    real: SystemTime,
    tsc: u64,
}

impl Reading {
    /// Waits until the chip begins `second` or a later one, and reads everything at once. A second whose beginning was
    /// not seen closely enough, because another program had the processor, is let pass.
    fn at(mut second: u64) -> Result<Self, String> {
        let mut start = Instant::now();
        let mut before = None;
        for _ in 0..SECONDS_MOST {
            loop {
                let asked = Instant::now();
                let chip = chip()?;
                if chip >= second {
                    if before.is_some_and(|before| asked - before < CLOSE) {
                        return Ok(Self::now(chip));
                    }
                    second = chip + 1;
                    break;
                }
                if start.elapsed() > LONG_SECOND {
                    return Err(format!("{CHIP} stands still at {chip}"));
                }
                before = Some(asked);
            }
            (start, before) = (Instant::now(), None);
        }
        Err("other programs leave no second to see the beginning of".into())
    }

    fn now(chip: u64) -> Self {
        cpu::magic_break();
        Self {
            chip,
            monotonic: Instant::now(),
            real: SystemTime::now(),
            tsc: cpu::tsc(),
        }
    }
}

fn chip() -> Result<u64, String> {
    let text = fs::read_to_string(CHIP).map_err(|error| format!("{CHIP}: {error}"))?;
    let text = text.trim();
    text.parse()
        .map_err(|_| format!("{CHIP} says \"{text}\", which is no time"))
}

/// `clockcheck [SECONDS]`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let seconds = number(arguments, 0, SECONDS_DEFAULT)?;
    let first = Reading::at(chip()? + 1)?;
    thread::sleep(Duration::from_secs(seconds) - Duration::from_millis(500));
    let last = Reading::at(first.chip + seconds)?;

    let chip = (last.chip - first.chip) as f64;
    let monotonic = (last.monotonic - first.monotonic).as_secs_f64();
    let real = last.real.duration_since(first.real)?.as_secs_f64();
    let ticks = last.tsc - first.tsc;
    println!(
        "clockcheck: monotonic {monotonic:.6} s, realtime {real:.6} s, chip {chip:.0} s, tsc {ticks} ticks"
    );
    for (name, time, other) in [
        ("CLOCK_MONOTONIC and the clock chip", monotonic, chip),
        ("CLOCK_REALTIME and CLOCK_MONOTONIC", real, monotonic),
    ] {
        let ppm = (time / other - 1.0) * 1e6;
        if ppm.abs() > TOLERANCE_PPM {
            return Err(format!("{name} are {ppm:.0} ppm apart").into());
        }
    }
    Ok(())
}

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
    /// Waits until the chip shows `second` or a later one, and reads everything at once.
    fn at(second: u64) -> Result<Self, String> {
        let start = Instant::now();
        loop {
            let chip = chip()?;
            if chip >= second {
                cpu::magic_break();
                return Ok(Self {
                    chip,
                    monotonic: Instant::now(),
                    real: SystemTime::now(),
                    tsc: cpu::tsc(),
                });
            }
            if start.elapsed() > LONG_SECOND {
                return Err(format!("{CHIP} stands still at {chip}"));
            }
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

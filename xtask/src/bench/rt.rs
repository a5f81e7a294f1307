//! `cargo xtask bench rt`: how late the RTOS's most urgent task is released, beside an idle and a busy
//! Linux, on a processor of its own and on a shared one.
//!
//! The RTOS judges itself: from the rise of its clock chip's output to the time stamp that the task takes
//! before its first port write, all on the board's time-stamp counter (`guests/rtos/src/latency.rs`).

use super::{LIMIT, SHELL_PROMPT, Workshop};
use crate::cli::RtOptions;
use crate::emulator::Watch;
use crate::progress;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;

/// Releases a second.
const RATE: u32 = 1000;
/// Seconds by which the load outlasts the releases.
const MARGIN: u32 = 8;
/// Ticks that no release may exceed on a processor of its own, and on a shared one.
const GOALS: [u64; 2] = [2_000, 10_000];

/// What the RTOS says of one run, in ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Latency {
    count: u64,
    mean: u64,
    median: u64,
    p99: u64,
    p999: u64,
    max: u64,
    overruns: u64,
}

impl Latency {
    /// Reads the last result in a console log.
    fn read(console: &str) -> Option<Self> {
        let last = |start: &str| {
            let mut lines = console.lines().rev();
            lines.find_map(|line| line.trim().strip_prefix(start))
        };
        let figures = last("jitter: n=")?;
        let count = figures.split_whitespace().next()?.parse().ok()?;
        let value = |name: &str| {
            let mut words = figures.split_whitespace();
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        let (_, overruns) = last("jitter: period=")?.split_once(", ")?;
        Some(Self {
            count,
            mean: value("mean")?,
            median: value("p50")?,
            p99: value("p99")?,
            p999: value("p99.9")?,
            max: value("max")?,
            overruns: overruns.strip_suffix(" overruns")?.parse().ok()?,
        })
    }
}

/// One run.
struct Run {
    /// Whether both guests share the one processor.
    shared: bool,
    /// Whether Linux is busy.
    busy: bool,
    latency: Latency,
}

/// Measures all four runs.
///
/// # Errors
///
/// Where a board does not run through.
pub(crate) fn rt(options: &RtOptions) -> Result<ExitCode> {
    let workshop = Workshop::open(&options.bench)?;
    let mut runs = Vec::new();
    for shared in [false, true] {
        for busy in [false, true] {
            let what = format!(
                "Measure {} releases {}",
                options.releases,
                scene(shared, busy)
            );
            let latency = progress::step(&what, || {
                let latency = measure(&workshop, options.releases, shared, busy)?;
                progress::note(&format!("mean {}, max {} ticks", latency.mean, latency.max));
                Ok(latency)
            })?;
            runs.push(Run {
                shared,
                busy,
                latency,
            });
        }
    }
    workshop.publish("rt", &figures(&runs), &table(&runs))?;
    Ok(ExitCode::SUCCESS)
}

fn scene(shared: bool, busy: bool) -> String {
    format!(
        "on {}, Linux {}",
        if shared {
            "a shared processor"
        } else {
            "its own processor"
        },
        if busy { "busy" } else { "idle" }
    )
}

fn board(shared: bool) -> String {
    let (cpus, own) = if shared { (1, 0) } else { (2, 1) };
    format!(
        "[board]\nname = \"bench-rt\"\ncpus = {cpus}\n\n\
         [[guest]]\nname = \"linux\"\nimage = \"@linux\"\nmemory = \"256M\"\ncpu = 0\n\
         priority = 10\ncommand_line = \"console=ttyS0 quiet\"\n\
         modules = [{{ image = \"@initramfs\" }}]\ndisks = [{{ size = \"4M\" }}]\n\n\
         [[guest]]\nname = \"rtos\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = {own}\n\
         priority = 200\n"
    )
}

fn measure(workshop: &Workshop, releases: u32, shared: bool, busy: bool) -> Result<Latency> {
    let name = match (shared, busy) {
        (false, false) => "own-idle",
        (false, true) => "own-busy",
        (true, false) => "shared-idle",
        (true, true) => "shared-busy",
    };
    let mut machine = workshop.start(&board(shared), name, Watch::Nothing)?;
    machine.expect("linux: userland reached", LIMIT)?;
    machine.expect("# ", LIMIT)?;
    if busy {
        machine.send(&format!("load {}\n", releases / RATE + MARGIN))?;
        machine.expect("load: line 5 ", LIMIT)?;
    }
    machine.send(&format!("\u{f}2jitter {releases}\r"))?;
    if busy {
        // The serial line is Linux's again, so that its output is part of the load.
        machine.expect(&format!("jitter {releases}"), LIMIT)?;
        machine.send("\u{f}1")?;
        machine.expect("load: ok", LIMIT)?;
        machine.send("\u{f}h")?;
        machine.expect(SHELL_PROMPT, LIMIT)?;
        machine.send("show rtos\r")?;
    }
    machine.expect(" overruns\n", LIMIT)?;
    let latency = Latency::read(&machine.console.text()).context("the RTOS told no figures")?;
    if latency.count != u64::from(releases) {
        bail!("the RTOS measured {} releases", latency.count);
    }
    Ok(latency)
}

fn figures(runs: &[Run]) -> Value {
    let rows: Vec<_> = runs
        .iter()
        .map(|run| {
            let latency = &run.latency;
            json!({
                "processor": if run.shared { "shared" } else { "own" },
                "linux": if run.busy { "busy" } else { "idle" },
                "releases": latency.count,
                "mean": latency.mean,
                "p50": latency.median,
                "p99": latency.p99,
                "p99.9": latency.p999,
                "max": latency.max,
                "max_goal": GOALS[usize::from(run.shared)],
                "overruns": latency.overruns,
            })
        })
        .collect();
    json!({
        "unit": "ticks of the board's time-stamp counter in Bochs",
        "rate_hz": RATE,
        "runs": rows,
    })
}

fn table(runs: &[Run]) -> String {
    let mut text = format!(
        "{:<38}{:>9}{:>7}{:>7}{:>7}{:>7}{:>7}{:>8}{:>10}\n",
        "release latency", "releases", "mean", "p50", "p99", "p99.9", "max", "goal", "overruns"
    );
    for run in runs {
        let Latency {
            count,
            mean,
            median,
            p99,
            p999,
            max,
            overruns,
        } = run.latency;
        let _ = writeln!(
            text,
            "{:<38}{count:>9}{mean:>7}{median:>7}{p99:>7}{p999:>7}{max:>7}{:>8}{overruns:>10}",
            scene(run.shared, run.busy),
            GOALS[usize::from(run.shared)],
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "jitter: n=100 min=1 mean=2 p50=2 p99=3 p99.9=3 max=4 tsc ticks\n\
        jitter: period=49992 tsc ticks, 9 overruns\nrtos> jitter 30000\n\
        jitter: n=30000 min=1400 mean=1508 p50=1500 p99=1590 p99.9=1600 max=1603 tsc ticks\n\
        jitter: period=49992 tsc ticks, 0 overruns\n";

    fn latency() -> Latency {
        Latency {
            count: 30_000,
            mean: 1508,
            median: 1500,
            p99: 1590,
            p999: 1600,
            max: 1603,
            overruns: 0,
        }
    }

    #[test]
    fn the_last_result_is_read() {
        assert_eq!(Latency::read(SAID), Some(latency()));
        assert_eq!(Latency::read("jitter: FAILED 3 of 5 releases\n"), None);
    }

    #[test]
    fn boards_are_right() {
        for shared in [false, true] {
            config::toml::parse(&board(shared), "b").unwrap();
        }
    }

    #[test]
    fn every_run_is_told_with_its_goal() {
        let run = |shared| Run {
            shared,
            busy: true,
            latency: latency(),
        };
        let runs = [run(false), run(true)];
        let lines = table(&runs);
        let row = lines.lines().last().unwrap();
        assert!(row.starts_with("on a shared processor, Linux busy") && row.contains("10000"));
        assert_eq!(figures(&runs)["runs"][0]["max_goal"], 2000);
    }
}

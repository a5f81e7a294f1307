//! `cargo xtask bench rt`: how late the RTOS's most urgent task is released, beside an idle and a busy
//! Linux and under a flood of frames, on a processor of its own and on a shared one.
//!
//! The RTOS judges itself: from the rise of its clock chip's output to the time stamp that the task takes
//! before its first port write, all on the board's time-stamp counter (`guests/rtos/src/latency.rs`).

use super::flood::{self, Flood};
use super::{LIMIT, SHELL_PROMPT, Workshop};
use crate::cli::RtOptions;
use crate::emulator::Machine;
use crate::progress;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Releases a second.
const RATE: u32 = 1000;
/// Seconds by which the load outlasts the releases.
const MARGIN: u32 = 8;
/// Ticks that no release may exceed on a processor of its own, and on a shared one.
const GOALS: [u64; 2] = [2_000, 10_000];
/// Releases under a flood at least. The emulator's cards are given a frame each 50,000 ticks, and the RTOS's clock ticks each 49,993:
/// only after so many releases a frame has come at every moment of a period.
const SWEEP: u32 = 7_200;
/// Of a hundred pings that the flood's cards can be given, so many the RTOS must have received, and answered.
const FLOODED: u64 = 95;
/// The board's cards.
const CARDS: std::ops::RangeInclusive<u8> = 1..=4;

/// What the RTOS says of one run, in ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Latency {
    pub(super) count: u64,
    pub(super) mean: u64,
    pub(super) median: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
    pub(super) overruns: u64,
    /// Frames that the RTOS received and sent from the first release to the last.
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Latency {
    /// Reads the last result in a console log.
    pub(super) fn read(console: &str) -> Option<Self> {
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
        let (received, sent) = last("jitter: meanwhile ")?.split_once(" frames received, ")?;
        let (_, overruns) = last("jitter: period=")?.split_once(", ")?;
        Some(Self {
            count,
            mean: value("mean")?,
            median: value("p50")?,
            p99: value("p99")?,
            p999: value("p99.9")?,
            max: value("max")?,
            overruns: overruns.strip_suffix(" overruns")?.parse().ok()?,
            received: received.parse().ok()?,
            sent: sent.strip_suffix(" sent")?.parse().ok()?,
        })
    }
}

/// What the board has to do beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// Nothing.
    Idle,
    /// Linux computes, writes to its disk and to its console.
    Busy,
    /// Each millisecond a ping comes from a wire, which the RTOS answers.
    Flood,
    /// As many at once as there can be: one from the wire of each card.
    Burst,
}

impl Load {
    const ALL: [Self; 4] = [Self::Idle, Self::Busy, Self::Flood, Self::Burst];

    const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Flood => "flood",
            Self::Burst => "burst",
        }
    }

    /// Pings each millisecond, each on a wire of its own.
    fn pings(self) -> usize {
        match self {
            Self::Idle | Self::Busy => 0,
            Self::Flood => 1,
            Self::Burst => CARDS.count(),
        }
    }
}

/// One run.
struct Run {
    /// Whether both guests share the one processor.
    shared: bool,
    load: Load,
    latency: Latency,
}

/// Measures all runs.
///
/// # Errors
///
/// Where a board does not run through.
pub(crate) fn rt(options: &RtOptions) -> Result<ExitCode> {
    let workshop = Workshop::open(&options.bench)?;
    let mut runs = Vec::new();
    for shared in [false, true] {
        for load in Load::ALL {
            let wanted = options.scene.as_deref().unwrap_or("");
            if !name(shared, load).contains(wanted) {
                continue;
            }
            let releases = match load.pings() {
                0 => options.releases,
                _ => options.releases.max(SWEEP),
            };
            let what = format!("Measure {releases} releases {}", scene(shared, load));
            let run = progress::step(&what, || {
                let run = measure(&workshop, releases, shared, load)?;
                let Latency { mean, max, .. } = run.latency;
                progress::note(&format!("mean {mean}, max {max} ticks"));
                Ok(run)
            })?;
            runs.push(run);
        }
    }
    workshop.publish("rt", &figures(&runs), &table(&runs))?;
    Ok(ExitCode::SUCCESS)
}

/// A scene's name, of its folder and on the command line.
fn name(shared: bool, load: Load) -> String {
    let place = if shared { "shared" } else { "own" };
    format!("{place}-{}", load.name())
}

fn scene(shared: bool, load: Load) -> String {
    format!(
        "on {}, {}",
        if shared {
            "a shared processor"
        } else {
            "its own processor"
        },
        match load {
            Load::Idle => "Linux idle",
            Load::Busy => "Linux busy",
            Load::Flood => "a ping each ms",
            Load::Burst => "four pings each ms",
        }
    )
}

fn board(shared: bool) -> String {
    let (cpus, own) = if shared { (1, 0) } else { (2, 1) };
    let uplinks = flood::uplinks(CARDS);
    format!(
        "[board]\nname = \"bench-rt\"\ncpus = {cpus}\n\n\
         [[guest]]\nname = \"linux\"\nimage = \"@linux\"\nmemory = \"256M\"\ncpu = 0\n\
         priority = 10\ncommand_line = \"console=ttyS0 quiet\"\n\
         modules = [{{ image = \"@initramfs\" }}]\ndisks = [{{ size = \"4M\" }}]\n\n\
         [[guest]]\nname = \"rtos\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = {own}\n\
         priority = 200\ncommand_line = \"net=virtio ip=10.0.0.2/24\"\n\
         nics = [{{ model = \"virtio\", urgent = true }}]\n\n{uplinks}"
    )
}

fn measure(workshop: &Workshop, releases: u32, shared: bool, load: Load) -> Result<Run> {
    let name = name(shared, load);
    let flood = Flood::lay(CARDS)?;
    let mut machine = workshop.start_with(&board(shared), &name, |setup| {
        setup.cards = flood.cards().collect();
    })?;
    machine.expect("linux: userland reached", LIMIT)?;
    machine.expect("# ", LIMIT)?;
    let busy = load == Load::Busy;
    if busy {
        machine.send(&format!("load {}\n", releases / RATE + MARGIN))?;
        machine.expect("load: line 5 ", LIMIT)?;
    }
    let over = AtomicBool::new(false);
    let pings = load.pings();
    flood.meet(pings, LIMIT)?;
    thread::scope(|scope| {
        flood.run(pings, scope, &over);
        let measured = observe(&mut machine, releases, busy);
        over.store(true, Ordering::Relaxed);
        measured
    })?;
    let latency = Latency::read(&machine.console.text()).context("the RTOS told no figures")?;
    if latency.count != u64::from(releases) {
        bail!("the RTOS measured {} releases", latency.count);
    }
    check_flood(&latency, pings as u64)?;
    Ok(Run {
        shared,
        load,
        latency,
    })
}

/// Whether a flood of so many pings each release was one: the RTOS itself says what came to it meanwhile.
fn check_flood(latency: &Latency, pings: u64) -> Result<()> {
    let Latency {
        count,
        received,
        sent,
        ..
    } = *latency;
    let least = count * pings * FLOODED / 100;
    ensure!(
        received >= least && sent >= least,
        "that was no flood: between the first and the last of {count} releases, the RTOS received {received} frames and \
         answered {sent}; {least} are the least that count"
    );
    Ok(())
}

/// Has the RTOS measure, until its figures are on the console.
fn observe(machine: &mut Machine, releases: u32, busy: bool) -> Result<()> {
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
    Ok(())
}

fn figures(runs: &[Run]) -> Value {
    let rows: Vec<_> = runs
        .iter()
        .map(|run| {
            let latency = &run.latency;
            json!({
                "processor": if run.shared { "shared" } else { "own" },
                "load": run.load.name(),
                "frames_received": latency.received,
                "frames_sent": latency.sent,
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
        "{:<40}{:>9}{:>7}{:>7}{:>7}{:>7}{:>7}{:>8}{:>10}{:>10}{:>8}\n",
        "release latency",
        "releases",
        "mean",
        "p50",
        "p99",
        "p99.9",
        "max",
        "goal",
        "overruns",
        "frames in",
        "out"
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
            received,
            sent,
        } = run.latency;
        let _ = writeln!(
            text,
            "{:<40}{count:>9}{mean:>7}{median:>7}{p99:>7}{p999:>7}{max:>7}{:>8}{overruns:>10}{received:>10}{sent:>8}",
            scene(run.shared, run.load),
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
        jitter: meanwhile 119990 frames received, 114000 sent\n\
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
            received: 119_990,
            sent: 114_000,
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
            config::toml::parse(&board(shared), "b", None).unwrap();
        }
    }

    #[test]
    fn what_is_no_flood_is_not_taken_for_one() {
        check_flood(&latency(), 4).unwrap();
        for (received, sent) in [(113_999, 114_000), (119_990, 113_999), (0, 0)] {
            let thin = Latency {
                received,
                sent,
                ..latency()
            };
            let error = check_flood(&thin, 4).unwrap_err().to_string();
            assert!(
                error.starts_with("that was no flood") && error.contains("114000 are"),
                "{error}"
            );
        }
    }

    #[test]
    fn every_run_is_told_with_its_goal() {
        let run = |shared| Run {
            shared,
            load: Load::Busy,
            latency: latency(),
        };
        let runs = [run(false), run(true)];
        let lines = table(&runs);
        let row = lines.lines().last().unwrap();
        assert!(row.starts_with("on a shared processor, Linux busy") && row.contains("10000"));
        assert_eq!(figures(&runs)["runs"][0]["max_goal"], 2000);
    }
}

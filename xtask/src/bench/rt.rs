//! `cargo xtask bench rt`: how late the RTOS's most urgent task is released, beside an idle and a busy
//! Linux and under a flood of frames, on a processor of its own and on a shared one.
//!
//! The RTOS judges itself: from the rise of its clock chip's output to the time stamp that the task takes
//! before its first port write, all on the board's time-stamp counter (`guests/rtos/src/latency.rs`).

use super::{LIMIT, SHELL_PROMPT, Workshop};
use crate::cli::RtOptions;
use crate::emulator::{CardModel, Machine, NetworkCard};
use crate::progress;
use crate::wire::{Tap, Wire};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

/// Releases a second.
const RATE: u32 = 1000;
/// Seconds by which the load outlasts the releases.
const MARGIN: u32 = 8;
/// Ticks that no release may exceed on a processor of its own, and on a shared one.
const GOALS: [u64; 2] = [2_000, 10_000];

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

/// What the board has to do beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// Nothing.
    Idle,
    /// Linux computes, writes to its disk and to its console.
    Busy,
    /// Small packets for the RTOS come from the wire, each of which it answers.
    Flood,
}

impl Load {
    const ALL: [Self; 3] = [Self::Idle, Self::Busy, Self::Flood];

    const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Flood => "flood",
        }
    }
}

/// One run.
struct Run {
    /// Whether both guests share the one processor.
    shared: bool,
    load: Load,
    latency: Latency,
    /// Packets of the flood that reached the board.
    packets: u64,
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
        for load in Load::ALL {
            let wanted = options.scene.as_deref().unwrap_or("");
            if !name(shared, load).contains(wanted) {
                continue;
            }
            let what = format!(
                "Measure {} releases {}",
                options.releases,
                scene(shared, load)
            );
            let run = progress::step(&what, || {
                let run = measure(&workshop, options.releases, shared, load)?;
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
            Load::Flood => "a flood of packets",
        }
    )
}

/// Addresses in the flood's scene. Bochs gives its card no frames but those for the card itself, so the RTOS has the card's
/// address; the switch does not mind.
const CARD: u8 = 1;
const RTOS: [u8; 6] = [0x52, 0x54, 0, 0, 0, CARD];
const STATION: [u8; 6] = [0x52, 0x54, 0, 0, 2, 1];

fn board(shared: bool) -> String {
    let (cpus, own) = if shared { (1, 0) } else { (2, 1) };
    let mac = RTOS.map(|byte| format!("{byte:02x}")).join(":");
    format!(
        "[board]\nname = \"bench-rt\"\ncpus = {cpus}\n\n\
         [[guest]]\nname = \"linux\"\nimage = \"@linux\"\nmemory = \"256M\"\ncpu = 0\n\
         priority = 10\ncommand_line = \"console=ttyS0 quiet\"\n\
         modules = [{{ image = \"@initramfs\" }}]\ndisks = [{{ size = \"4M\" }}]\n\n\
         [[guest]]\nname = \"rtos\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = {own}\n\
         priority = 200\ncommand_line = \"net=virtio ip=10.0.0.2/24\"\n\
         nics = [{{ model = \"virtio\", mac = \"{mac}\", urgent = true }}]\n\n\
         [[uplink]]\nname = \"lan\"\ncard = \"52:54:00:00:00:{CARD:02x}\"\n"
    )
}

/// A ping for the RTOS: as small as frames are.
fn ping() -> Vec<u8> {
    let mut frame = [&RTOS[..], &STATION, &[0x08, 0x00]].concat();
    // IPv4 (RFC 791), 28 bytes, from 10.0.0.9 to 10.0.0.2, with its checksum; ICMP echo (RFC 792) without data.
    frame.extend([
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0x66, 0xD7, 10, 0, 0, 9, 10, 0, 0, 2,
    ]);
    frame.extend([8, 0, 0xF7, 0xFF, 0, 0, 0, 0]);
    frame.resize(60, 0);
    frame
}

/// Sends pings until it is told to stop; returns how many.
fn flood(tap: &Tap, over: &AtomicBool) -> u64 {
    /// Packets in a second of the wall's clock, in which the emulated board does some fifty million instructions.
    const RATE: u32 = 10_000;
    const PIECE: Duration = Duration::from_millis(100);
    let frame = ping();
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        sent += tap.flood(&frame, RATE, PIECE);
    }
    sent
}

fn measure(workshop: &Workshop, releases: u32, shared: bool, load: Load) -> Result<Run> {
    let name = name(shared, load);
    let wire = Wire::lay()?;
    let card = NetworkCard::on(&wire, CardModel::E1000, CARD)?;
    let mut machine =
        workshop.start_with(&board(shared), &name, |setup| setup.cards = vec![card])?;
    machine.expect("linux: userland reached", LIMIT)?;
    machine.expect("# ", LIMIT)?;
    let busy = load == Load::Busy;
    if busy {
        machine.send(&format!("load {}\n", releases / RATE + MARGIN))?;
        machine.expect("load: line 5 ", LIMIT)?;
    }
    let tap = wire.tap();
    let over = AtomicBool::new(false);
    let packets = thread::scope(|scope| {
        let flooding = (load == Load::Flood).then(|| scope.spawn(|| flood(&tap, &over)));
        let measured = observe(&mut machine, releases, busy);
        over.store(true, Ordering::Relaxed);
        let sent = flooding.map_or(Ok(0), ScopedJoinHandle::join);
        measured.map(|()| sent.unwrap_or(0))
    })?;
    let latency = Latency::read(&machine.console.text()).context("the RTOS told no figures")?;
    if latency.count != u64::from(releases) {
        bail!("the RTOS measured {} releases", latency.count);
    }
    Ok(Run {
        shared,
        load,
        latency,
        packets,
    })
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
                "packets": run.packets,
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
            config::toml::parse(&board(shared), "b", None).unwrap();
        }
    }

    #[test]
    fn the_flood_is_of_pings() {
        let frame = ping();
        let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::NetSlice::Ipv4(packet)) = &sliced.net else {
            panic!("no IPv4: {sliced:?}");
        };
        let header = packet.header().to_header();
        assert_eq!(header.calc_header_checksum(), header.header_checksum);
        let Some(etherparse::TransportSlice::Icmpv4(icmp)) = &sliced.transport else {
            panic!("no ICMP: {sliced:?}");
        };
        let (header, data) = (icmp.header(), icmp.payload());
        let right = etherparse::Icmpv4Header::with_checksum(header.icmp_type.clone(), data);
        assert_eq!(header, right);
    }

    #[test]
    fn every_run_is_told_with_its_goal() {
        let run = |shared| Run {
            shared,
            load: Load::Busy,
            latency: latency(),
            packets: 0,
        };
        let runs = [run(false), run(true)];
        let lines = table(&runs);
        let row = lines.lines().last().unwrap();
        assert!(row.starts_with("on a shared processor, Linux busy") && row.contains("10000"));
        assert_eq!(figures(&runs)["runs"][0]["max_goal"], 2000);
    }
}

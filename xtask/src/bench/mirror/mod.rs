//! `cargo xtask bench mirror`: what the mirror costs a pair of boards, and how long a takeover takes.
//!
//! Callers ask the exchange of the legacy system all the time. Meanwhile its board serves with an understudy, alone, and while the
//! understudy is sent anew; then its plug is pulled. In Bochs a tick is an instruction of the board's. Each board has its own clock, which
//! runs no faster than this host's, and slower where the host does not come along; so figures of one board are exact, and those between
//! two of them, or between one and the callers, are this host's as well.

mod figures;
mod readings;

use super::rt::Latency;
use super::{LIMIT, Workshop};
use crate::cli::MirrorOptions;
use crate::client::ledger::{Load, Plan};
use crate::client::{Client, Station};
use crate::emulator::{CardModel, Emulator};
use crate::paths;
use crate::progress;
use crate::suite::management::Metrics;
use crate::suite::mirror::{pair_text, protected, station, with_address_of_cards};
use crate::twin::{Image, Pair, Role, SIDES, Until};
use anyhow::{Context, Result, bail, ensure};
use figures::{Answers, Figures, Run};
use mirror::Side;
use readings::{Cost, Epochs, GUEST, Takeover};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// The callers' station, and the exchange.
const STATION: Station = Station::new([10, 0, 0, 9]);
const EXCHANGE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), protocol::PORT);
/// How the callers ask.
const PLAN: Plan = Plan {
    exchange: EXCHANGE,
    callers: 4,
    identity: 1,
    subscriber: 1001,
    pause: Duration::from_millis(10),
    wait: Duration::from_millis(500),
};
/// Releases that the legacy system measures, 1,000 a second of the board's time.
const RELEASES: u32 = 1000;
/// How long it may take for a page of metrics, and for the last answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// A peer is taken for dead after so many missed heartbeats.
const MISSED: u32 = 10;
/// How the log begins what it says when a board takes guests, or would.
const TAKES: [&str; 2] = ["asks the witness", "the guests are this board's"];

/// Measures.
///
/// # Errors
///
/// Where a board does not do as it should.
pub(crate) fn mirror(options: &MirrorOptions) -> Result<ExitCode> {
    let (emulator, _) = options.emulator.settle(!options.bench.no_install)?;
    let workshop = Workshop::open_for(&options.bench, emulator)?;
    let mut runs = Vec::new();
    for epoch in &options.epochs {
        let what = format!("Measure the mirror with epochs of {epoch} ms");
        runs.push(progress::step(&what, || {
            measure(&workshop, emulator, *epoch, options)
        })?);
    }
    let figures = Figures {
        emulator,
        heartbeat: options.heartbeat,
        runs,
    };
    workshop.publish("mirror", &figures.json(), &figures.table())?;
    Ok(ExitCode::SUCCESS)
}

/// The text of the pair's board file, with other times.
fn text(emulator: Emulator, epoch: u32, heartbeat: u32) -> Result<String> {
    let mut text = pair_text(None)?;
    if emulator == Emulator::Bochs {
        text = with_address_of_cards(&text);
    }
    let dead = heartbeat * MISSED;
    let mut changed = 0;
    let mut line = |line: &str| {
        let (name, _) = line.split_once(" = ").unwrap_or((line, ""));
        let value = match name {
            "epoch" => epoch,
            "heartbeat" => heartbeat,
            "dead_after" => dead,
            _ => return format!("{line}\n"),
        };
        changed += 1;
        format!("{name} = \"{value}ms\"\n")
    };
    let text = text.lines().map(&mut line).collect();
    ensure!(
        changed == 3,
        "the pair's file names {changed} of three times"
    );
    Ok(text)
}

/// The boards, and who asks them.
struct Scene {
    pair: Pair,
    client: Client,
    load: Load,
    length: Duration,
}

fn measure(
    workshop: &Workshop,
    emulator: Emulator,
    epoch: u32,
    options: &MirrorOptions,
) -> Result<Run> {
    let folder = workshop.folder(&format!("mirror-{epoch}"));
    paths::fresh_folder(&folder)?;
    let text = text(emulator, epoch, options.heartbeat)?;
    let image = |side: Side| {
        let folder = folder.join(format!("image-{side}"));
        paths::make_folder(&folder)?;
        Image::make(&text, side, &workshop.programs, &folder)
    };
    let images = [image(Side::A)?, image(Side::B)?];
    let nics = images[0].board.guests.iter().flat_map(|guest| &guest.nics);
    let own = nics.map(|nic| nic.mac.0).next().context("no card")?;
    let mut pair = Pair::new(emulator, CardModel::E1000, images, &folder, false)?;
    if emulator == Emulator::Bochs {
        pair.lan.suit_bochs(own);
    }
    let client = Client::attach(&pair.lan, STATION)?;
    pair.client_is(client.end());
    for side in SIDES {
        pair.start(side)?;
    }
    protected(&mut pair)?;
    let load = Load::start(&client, PLAN)?;
    let scene = Scene {
        pair,
        client,
        load,
        length: Duration::from_secs(options.seconds),
    };
    let run = scene.measure(epoch);
    run.with_context(|| format!("see {}", paths::shown(&folder)))
}

impl Scene {
    fn measure(mut self, epoch: u32) -> Result<Run> {
        let begun = Instant::now();
        while self.load.second(PATIENCE).answered < 100 {
            ensure!(begun.elapsed() < PATIENCE, "the exchange does not answer");
            thread::sleep(Duration::from_millis(100));
        }
        let hertz = self.hertz()?;
        let before = self.epochs()?;
        let mirrored = self.answers();
        let epochs = self.epochs()?.since(&before);
        let cost = self.cost()?;
        progress::note("mirrored: done");
        let mirrored_late = self.jitter()?;

        self.pair.shell(Side::A, "solo")?;
        let solo = Until::Is(Role::Solo, Some(false));
        self.pair.until(Side::A, &solo, LIMIT)?;
        let alone = self.answers();
        let alone_late = self.jitter()?;
        progress::note("alone: done");

        self.pair.shell(Side::A, "resync")?;
        let resync_late = self.jitter()?;
        protected(&mut self.pair)?;
        let resync = self.resync()?;
        progress::note("resync: done");

        let watched = begun.elapsed();
        let false_takeovers = self.takes()?;
        self.pair.kill(Side::A)?;
        self.pair
            .until(Side::B, &Until::Is(Role::Solo, None), LIMIT)?;
        let console = self.pair.machine(Side::B)?.console.text();
        let lines = readings::log(&console);
        let takeover = Takeover::read(&lines)?;
        self.load.halt(PATIENCE)?;
        self.load.inspect_all(PATIENCE)?;
        let gap = match self.load.ledger().judge() {
            Ok(summary) => summary.gap,
            Err(faults) => bail!("{} answers are wrong: {}", faults.len(), faults[0]),
        };
        Ok(Run {
            epoch,
            hertz,
            epochs,
            cost,
            host: self.length,
            answers: [mirrored, alone],
            late: [alone_late, mirrored_late, resync_late],
            resync,
            watched,
            false_takeovers,
            takeover,
            gap,
        })
    }

    fn page(&self) -> Result<Metrics> {
        Metrics::read_from(&self.client, station(Side::A))
    }

    fn epochs(&self) -> Result<Epochs> {
        Epochs::read(&self.page()?)
    }

    /// The rate of the board's time-stamp counter.
    fn hertz(&self) -> Result<f64> {
        let (_, text) = self
            .client
            .http_text(station(Side::A), 80, "/status", PATIENCE)?;
        let status: serde_json::Value =
            serde_json::from_str(&text).with_context(|| text.clone())?;
        let hertz = status["tsc_hertz"].as_f64();
        hertz.context("the board does not tell its clock's rate")
    }

    /// How the callers are answered for a while.
    fn answers(&self) -> Answers {
        thread::sleep(self.length);
        let second = self.load.second(self.length);
        Answers {
            count: second.answered,
            again: second.lost,
            median: second.median,
            p99: second.p99,
            max: second.max,
        }
    }

    /// What the shell says of the checkpoints.
    fn cost(&mut self) -> Result<Cost> {
        let name = format!("  {GUEST}: ");
        self.pair.machine(Side::A)?.console.skip();
        self.pair.shell(Side::A, "mirror")?;
        let machine = self.pair.machine(Side::A)?;
        machine.expect(&name, PATIENCE)?;
        let line = machine.expect("\n", PATIENCE)?;
        Cost::read(&line).with_context(|| format!("\"{}\"?", line.trim_end()))
    }

    /// Has the legacy system measure how late it is.
    fn jitter(&mut self) -> Result<Latency> {
        let machine = self.pair.machine(Side::A)?;
        machine.send(&format!("\u{f}1jitter {RELEASES}\r"))?;
        machine.expect(" overruns\n", LIMIT)?;
        let latency = Latency::read(&machine.console.text()).context("no figures of releases")?;
        ensure!(
            latency.count == u64::from(RELEASES),
            "{} releases",
            latency.count
        );
        Ok(latency)
    }

    /// How long the last understudy took to be sent, in the board's time.
    fn resync(&mut self) -> Result<Duration> {
        let lines = readings::log(&self.pair.machine(Side::A)?.console.text());
        let at = |end: &str| {
            let mut lines = lines.iter().rev();
            lines.find(|line| line.text.ends_with(end))
        };
        let begun = at("the understudy is being sent").context("no understudy was sent")?;
        let done = at("the guests are protected").context("nothing is protected")?;
        Ok(done.at.saturating_sub(begun.at))
    }

    /// How often a board took the guests, or wanted to, but for the first start.
    fn takes(&mut self) -> Result<usize> {
        let mut takes = 0;
        for side in SIDES {
            let lines = readings::log(&self.pair.machine(side)?.console.text());
            let silent = |text: &str| {
                text.contains("the peer is silent;") && TAKES.iter().any(|it| text.starts_with(it))
            };
            takes += lines.iter().filter(|line| silent(&line.text)).count();
        }
        Ok(takes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_have_the_times_that_are_asked_for() {
        let text = text(Emulator::Bochs, 5, 10).unwrap();
        let (board, _) = config::toml::parse(&text, "b", Some(Side::A)).unwrap();
        let mirror = board.mirror.unwrap();
        assert_eq!((mirror.heartbeat, mirror.dead_after), (10_000, 100_000));
        assert_eq!(board.guests[0].mirror.unwrap().epoch, 5000);
    }
}

//! What the mirror costs the board that serves, and the callers.

use super::super::rt::Latency;
use super::readings::{self, Cost, Epochs, GUEST};
use super::{LIMIT, PATIENCE, Scene, protected};
use crate::progress;
use crate::suite::management::Metrics;
use crate::suite::mirror::station;
use crate::twin::{Role, SIDES, Until};
use anyhow::{Context, Result, ensure};
use mirror::Side;
use std::thread;
use std::time::{Duration, Instant};

/// Releases that the legacy system measures at a time, 1,000 a second of the board's time.
const RELEASES: u32 = 1000;

/// How callers were answered, in this host's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) count: usize,
    /// Datagrams that were sent again.
    pub(super) again: usize,
    pub(super) median: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    /// Of the board's time-stamp counter.
    pub(super) hertz: f64,
    /// Those while callers were watched, ...
    pub(super) epochs: Epochs,
    /// ... and all since the board's start.
    pub(super) cost: Cost,
    /// How long callers were watched, in this host's time.
    pub(super) host: Duration,
    /// With an understudy, and without.
    pub(super) answers: [Answers; 2],
    /// Without an understudy, with one, and while one is sent.
    pub(super) late: [Latency; 3],
    /// How long sending an understudy took, in the board's time.
    pub(super) resync: Duration,
    /// For so long in this host's time nothing failed ...
    pub(super) watched: Duration,
    /// ... and so often guests were held for want of the peer's word.
    pub(super) held: usize,
}

/// Measures.
///
/// # Errors
///
/// Where a board does not do as it should, or is taken for dead though it is not.
pub(super) fn measure(scene: &mut Scene, length: Duration) -> Result<Costs> {
    let hertz = hertz(scene)?;
    let before = epochs(scene, GUEST)?;
    let begun = Instant::now();
    let mirrored = answers(scene, length);
    let (epochs, host) = (epochs(scene, GUEST)?.since(&before), begun.elapsed());
    let cost = cost(scene, GUEST)?;
    let mirrored_late = jitter(scene)?;
    progress::note("with an understudy");

    scene.pair.shell(Side::A, "mirror solo")?;
    let solo = Until::Is(Role::Solo, Some(false));
    scene.pair.until(Side::A, &solo, LIMIT)?;
    let alone = answers(scene, length);
    let alone_late = jitter(scene)?;
    progress::note("without one");

    scene.pair.shell(Side::A, "mirror resync")?;
    let resync_late = jitter(scene)?;
    protected(&mut scene.pair)?;
    let resync = resync(scene)?;
    progress::note("while one is sent");

    let watched = scene.begun.elapsed();
    let mut held = 0;
    for side in SIDES {
        let lines = readings::log(&scene.said(side)?);
        let takes = readings::takes(&lines);
        ensure!(takes == 0, "board {side} took its peer for dead");
        let ends = lines.iter().filter(|line| line.text.contains("→ held"));
        held += ends.count();
    }
    scene.judge()?;
    Ok(Costs {
        hertz,
        epochs,
        cost,
        host,
        answers: [mirrored, alone],
        late: [alone_late, mirrored_late, resync_late],
        resync,
        watched,
        held,
    })
}

/// A guest's epochs since the board's start.
pub(super) fn epochs(scene: &Scene, guest: &str) -> Result<Epochs> {
    let page = Metrics::read_from(&scene.client, station(Side::A))?;
    Epochs::read(&page, guest)
}

/// The rate of the board's time-stamp counter.
pub(super) fn hertz(scene: &Scene) -> Result<f64> {
    let board = station(Side::A);
    let (_, text) = scene.client.http_text(board, 80, "/status", PATIENCE)?;
    let status: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let hertz = status["tsc_hertz"].as_f64();
    hertz.context("the board does not tell its clock's rate")
}

/// How the callers are answered for a while.
fn answers(scene: &Scene, length: Duration) -> Answers {
    thread::sleep(length);
    let second = scene.load.second(length);
    Answers {
        count: second.answered,
        again: second.lost,
        median: second.median,
        p99: second.p99,
        max: second.max,
    }
}

/// What the shell says of a guest's checkpoints.
pub(super) fn cost(scene: &mut Scene, guest: &str) -> Result<Cost> {
    scene.pair.machine(Side::A)?.console.skip();
    scene.pair.shell(Side::A, "mirror")?;
    let machine = scene.pair.machine(Side::A)?;
    machine.expect(&format!("  {guest}: "), PATIENCE)?;
    let line = machine.expect("\n", PATIENCE)?;
    Cost::read(&line).with_context(|| format!("\"{}\"?", line.trim_end()))
}

/// Has the legacy system measure how late it is.
fn jitter(scene: &mut Scene) -> Result<Latency> {
    let machine = scene.pair.machine(Side::A)?;
    machine.send(&format!("\u{f}1jitter {RELEASES}\r"))?;
    machine.expect(" overruns\n", LIMIT)?;
    let latency = Latency::read(&machine.console.text()).context("no figures of releases")?;
    let count = latency.count;
    ensure!(count == u64::from(RELEASES), "{count} releases");
    Ok(latency)
}

/// How long the last understudy took to be sent, in the board's time.
fn resync(scene: &mut Scene) -> Result<Duration> {
    let lines = readings::log(&scene.said(Side::A)?);
    let last = |end: &str| {
        let mut lines = lines.iter().rev();
        lines.find(|line| line.text.ends_with(end))
    };
    let begun = last("the understudy is being sent").context("no understudy was sent")?;
    let done = last("the guests are protected").context("nothing is protected")?;
    Ok(done.at.saturating_sub(begun.at))
}

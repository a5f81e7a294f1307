//! Everything at once: many clients of the exchange, readers of the pages, and a long download.

use super::{LINUX, MANAGEMENT, PATIENCE, STATION, boot, default_board, power_off};
use crate::client::{Client, Retry, Station};
use crate::emulator::CardModel;
use crate::suite::exchange::caller::{Caller, call, register_pair};
use crate::suite::gateway::check_blob;
use crate::suite::lab::Lab;
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

/// Whoever reads pages.
const READER: Station = Station::new([10, 0, 0, 8]);
/// Each has a question under way.
const PAIRS: u32 = 8;
/// Calls of each pair.
const ROUNDS: u32 = 209;
const QUESTIONS: u64 = 10_000;
/// The wire is good, but where this host is busy the emulator's socket may overflow meanwhile: clients of UDP ask again.
const AGAIN: Retry = Retry {
    attempts: 30,
    wait: Duration::from_secs(1),
};

/// What clients of the exchange did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// Different questions, all of which were answered.
    pub(super) questions: u64,
    /// Those that were sent again though they were answered.
    pub(super) repeated: u64,
    /// Calls.
    pub(super) calls: u64,
    /// What they cost.
    pub(super) pulses: u64,
}

pub(super) fn run(lab: &Lab) -> Result<()> {
    let wire = lab.wire("lan")?;
    let station = Client::attach(&wire, STATION)?;
    let reader = Client::attach(&wire, READER)?;
    let (session, _) = boot(lab, &wire, &station, CardModel::E1000e, &default_board()?)?;
    let over = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let asked = scope.spawn(|| ask(&station, ROUNDS, AGAIN));
        let pages = scope.spawn(|| read(&reader, &over));
        let blob = check_blob(&reader, LINUX, "100M").context("under load");
        let asked = join(asked);
        over.store(true, Ordering::Relaxed);
        join(pages)?;
        blob?;
        asked
    })?;
    ensure!(asked.questions >= QUESTIONS, "too few: {asked:?}");
    let totals = check(&reader, asked)?;
    ensure!(
        totals["duplicates"].as_u64() >= Some(asked.repeated),
        "{asked:?}, {totals}"
    );
    power_off(session)
}

pub(super) fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    let result = thread.join();
    result.unwrap_or_else(|_| Err(anyhow!("a thread of the test panicked")))
}

/// Pairs of subscribers call each other, all pairs at a time; every answer must be the right one.
pub(super) fn ask(station: &Client, rounds: u32, retry: Retry) -> Result<Asked> {
    let pair = |pair: u32| -> Result<Asked> {
        let mut caller = Caller::new(station, 100 + 2 * pair, retry);
        let mut callee = Caller::new(station, 101 + 2 * pair, retry);
        let first = 1000 + 2 * pair;
        register_pair(&mut caller, first)?;
        let mut pulses = 0;
        for _ in 0..rounds {
            pulses += call(&mut caller, &mut callee, first)?;
        }
        Ok(Asked {
            questions: caller.asked + callee.asked,
            repeated: caller.repeated + callee.repeated,
            calls: rounds.into(),
            pulses,
        })
    };
    thread::scope(|scope| {
        let pairs: Vec<_> = (0..PAIRS)
            .map(|number| scope.spawn(move || pair(number)))
            .collect();
        let mut sum = Asked::default();
        for pair in pairs {
            let asked = join(pair)?;
            sum.questions += asked.questions;
            sum.repeated += asked.repeated;
            sum.calls += asked.calls;
            sum.pulses += asked.pulses;
        }
        Ok(sum)
    })
}

/// The exchange has executed each question once: those of the clients, and those of the gateway, which tells how many it
/// asked. Returns the exchange's totals.
pub(super) fn check(reader: &Client, asked: Asked) -> Result<Value> {
    let (_, text) = reader.http_text(LINUX, 80, "/exchange.json", PATIENCE)?;
    let shown: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let totals = &shown["totals"];
    let count = |value: &Value| value.as_u64().with_context(|| text.clone());
    let own = count(&totals["executed"])?.saturating_sub(asked.questions);
    let answered = count(&shown["answered"])?;
    // Of a question that was not answered, nobody knows whether it was executed.
    let most = answered + count(&shown["unanswered"])?;
    ensure!(
        (answered..=most).contains(&own),
        "{asked:?} does not fit {text}"
    );
    let expected = [
        ("malformed", 0),
        ("crowded", 0),
        ("subscribers", u64::from(2 * PAIRS)),
        ("ringing", 0),
        ("connected", 0),
        ("calls", asked.calls),
        ("pulses", asked.pulses),
    ];
    for (name, expected) in expected {
        ensure!(
            totals[name] == expected,
            "{name} should be {expected}: {text}"
        );
    }
    Ok(totals.clone())
}

/// Reads the pages of Linux and of the hypervisor until it is over; what they count never goes back.
fn read(reader: &Client, over: &AtomicBool) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut executed = 0;
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        let (_, text) = reader.http_text(LINUX, 80, "/exchange.json", PATIENCE)?;
        let shown: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let now = shown["totals"]["executed"].as_u64();
        let now = now.with_context(|| format!("the RTOS does not answer Linux: {text}"))?;
        ensure!(now > executed, "{now} comes after {executed}");
        executed = now;
        for (address, path) in [(LINUX, "/"), (MANAGEMENT, "/metrics")] {
            let (status, text) = reader.http_text(address, 80, path, PATIENCE)?;
            ensure!(status == 200 && !text.is_empty(), "{path} has {status}");
        }
        rounds += 1;
        thread::sleep(PAUSE);
    }
    ensure!(rounds >= 10, "pages were read {rounds} times only");
    Ok(())
}

//! How long the legacy system's exchange takes to answer a question from the wire, in the board's time.
//!
//! The hypervisor's capture tells when its switch had the question and when the answer, in front of the card. The question may have waited in
//! the card before. The emulator brings frames at the beginnings of milliseconds alone, to all cards at once, so that
//! wait is counted from where the earliest frames of all lie in their milliseconds: those that waited for nothing.
//!
//! The RTOS has a processor of its own. Its clock interrupts a little more often than frames come, so questions go on
//! until they have come at every moment of its period.

use super::super::flood::{self, Flood};
use super::super::{LIMIT, SHELL_PROMPT, Workshop};
use super::capture::{self, Pair, Told};
use crate::client::{Client, Retry, Station};
use crate::emulator::bochs::IPS;
use crate::emulator::{CardModel, Machine, NetworkCard};
use crate::wire::Wire;
use anyhow::{Context, Result, bail, ensure};
use protocol::{Answer, Number, Operation, Outcome, PORT, Question, Request};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The cards by which the flood comes. The switch takes their frames first.
const FLOOD: RangeInclusive<u8> = 3..=4;
/// The card by which questions come, whose address the RTOS has.
const CARD: u8 = 1;
/// That of the hypervisor's own station, whose address that has, on a net of its own.
const MANAGEMENT_CARD: u8 = 2;
const MANAGEMENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// Who asks, and who fetches the capture.
const ASKER: Station = Station::new([10, 0, 0, 9]);
const FETCHER: Station = Station::new([10, 1, 0, 9]);
const CLIENT: u32 = 0x7274_7400;
/// A subscriber, of whose status is asked.
const SUBSCRIBER: u32 = 101;

/// Questions between two looks at the capture, which has room for some hundred milliseconds of the flood.
const ROUND: u32 = 32;
/// Questions at least.
const LEAST: usize = 200;
/// Milliseconds of the board's that they span at least: the RTOS's period is 7 ticks of 50,000 shorter than a millisecond.
const SPAN: u64 = 7_200;
/// Of a hundred pings that there can be between a round's first question and its last answer, so many there must be.
const FLOODED: u64 = 90;
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Retry = Retry {
    attempts: 3,
    wait: PATIENCE,
};

/// Ticks of one scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoundTrips {
    scene: &'static str,
    /// From the switch to the switch, sorted.
    answers: Vec<u64>,
    /// The same with the wait in the card, sorted.
    whole: Vec<u64>,
    /// Pings that came meanwhile, and milliseconds that were looked at.
    pings: u64,
    milliseconds: u64,
}

fn board() -> String {
    format!(
        "[board]\nname = \"bench-exchange\"\ncpus = 2\n\n\
         [[guest]]\nname = \"rtos\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = 1\n\
         command_line = \"net=virtio ip={rtos}/24\"\n\
         nics = [{{ model = \"virtio\", mac = \"52:54:00:00:00:{CARD:02x}\", urgent = true }}]\n\n\
         {uplinks}\
         [[uplink]]\nname = \"lan\"\ncard = \"52:54:00:00:00:{CARD:02x}\"\n\n\
         [[uplink]]\nname = \"service\"\ncard = \"52:54:00:00:00:{MANAGEMENT_CARD:02x}\"\nvlan = 2\n\n\
         [management]\naddress = \"{MANAGEMENT}/24\"\nvlan = 2\nmac = \"52:54:00:00:00:{MANAGEMENT_CARD:02x}\"\n",
        rtos = Ipv4Addr::from(flood::RTOS),
        uplinks = flood::uplinks(FLOOD),
    )
}

/// Measures, first without a flood and then within.
///
/// # Errors
///
/// Where the board does not run through, questions are not answered, or the flood is none.
pub(super) fn measure(workshop: &Workshop) -> Result<Vec<RoundTrips>> {
    let wires = [Wire::lay()?, Wire::lay()?];
    let flood = Flood::lay(FLOOD)?;
    let mut cards: Vec<_> = flood.cards().collect();
    for (wire, number) in wires.iter().zip([CARD, MANAGEMENT_CARD]) {
        cards.push(NetworkCard::on(wire, CardModel::E1000, number)?);
    }
    let mut machine = workshop.start_with(&board(), "net-exchange", |setup| setup.cards = cards)?;
    machine.expect("rtos> ", LIMIT)?;
    machine.send("\u{f}hcapture lan\r")?;
    machine.expect("capture lan", LIMIT)?;
    machine.expect(SHELL_PROMPT, LIMIT)?;
    let mut bench = Bench {
        asker: Client::attach(&wires[0], ASKER)?,
        fetcher: Client::attach(&wires[1], FETCHER)?,
        ticks_per_second: ticks_per_second(&machine)?,
        number: 0,
    };
    let subscriber = Number::new(SUBSCRIBER).context("no subscriber's number")?;
    bench.ask(Request::Register(subscriber))?;
    let idle = bench.run("idle", 0, subscriber)?;
    let pings = FLOOD.count();
    flood.meet(pings, LIMIT)?;
    let over = AtomicBool::new(false);
    let flooded = thread::scope(|scope| {
        flood.run(pings, scope, &over);
        let measured = bench.run("flood", pings as u64, subscriber);
        over.store(true, Ordering::Relaxed);
        measured
    })?;
    Ok(vec![idle, flooded])
}

/// The rate of the board's time-stamp counter, as the hypervisor's log tells it.
fn ticks_per_second(machine: &Machine) -> Result<u64> {
    let console = machine.console.text();
    let mut lines = console.lines();
    let told = lines.find_map(|line| line.trim().strip_suffix(" Hz")?.rsplit_once(" TSC: "));
    let (_, rate) = told.context("the log tells no rate of the TSC")?;
    Ok(rate.parse()?)
}

/// Those who ask.
struct Bench {
    asker: Client,
    fetcher: Client,
    ticks_per_second: u64,
    /// The last question's.
    number: u32,
}

impl Bench {
    fn ask(&mut self, request: Request) -> Result<()> {
        self.number += 1;
        let question = Question {
            client: CLIENT,
            number: self.number,
            operation: Operation::Exchange(request),
        };
        let rtos = Ipv4Addr::from(flood::RTOS);
        let answer = self
            .asker
            .udp_request(rtos, PORT, &question.encode(), RETRY)?;
        match Answer::decode(&answer.bytes)?.outcome {
            Outcome::Done(_) => Ok(()),
            other => bail!("{question:?} was answered by {other:?}"),
        }
    }

    fn capture(&self) -> Result<Vec<u8>> {
        let mut file = Vec::new();
        let mut keep = |piece: &[u8]| file.extend(piece);
        let response =
            self.fetcher
                .http_get(MANAGEMENT, 80, "/capture.pcap", PATIENCE, &mut keep)?;
        ensure!(
            response.status == 200,
            "the capture has status {}",
            response.status
        );
        Ok(file)
    }

    /// Asks, beside so many pings each millisecond.
    fn run(&mut self, scene: &'static str, pings: u64, subscriber: Number) -> Result<RoundTrips> {
        let mut all = Scene::new(IPS / 1000);
        while !all.is_enough() {
            let first = self.number + 1;
            for _ in 0..ROUND {
                self.ask(Request::Status(subscriber))?;
            }
            let file = self.capture()?;
            let records = capture::read(&file, self.ticks_per_second)?;
            all.add(capture::pair(&records, CLIENT), first..=self.number)?;
        }
        all.finish(scene, pings)
    }
}

/// What the captures of a scene tell.
struct Scene {
    /// Of the emulator, not as the hypervisor has measured them.
    ticks_per_millisecond: u64,
    pairs: BTreeMap<u32, Pair>,
    /// Pings within rounds, and how long those were.
    pings: Vec<u64>,
    ticks: u64,
}

impl Scene {
    const fn new(ticks_per_millisecond: u64) -> Self {
        Self {
            ticks_per_millisecond,
            pairs: BTreeMap::new(),
            pings: Vec::new(),
            ticks: 0,
        }
    }

    fn is_enough(&self) -> bool {
        let ends = self.pairs.values().next().zip(self.pairs.values().last());
        let span = ends.map_or(0, |(first, last)| last.went.saturating_sub(first.came));
        self.pairs.len() >= LEAST && span >= SPAN * self.ticks_per_millisecond
    }

    /// Adds a round with these questions.
    fn add(&mut self, told: Told, numbers: RangeInclusive<u32>) -> Result<()> {
        let pairs: BTreeMap<_, _> = told.pairs.range(numbers.clone()).collect();
        let lost = numbers.count() - pairs.len();
        ensure!(
            lost == 0,
            "the capture lacks {lost} questions of a round: it had no room for them"
        );
        let ends = pairs.values().next().zip(pairs.values().last());
        if let Some((first, last)) = ends {
            let round = first.came..last.went;
            self.ticks += round.end.saturating_sub(round.start);
            let pings = told.pings.iter().filter(|ping| round.contains(ping));
            self.pings.extend(pings);
        }
        let pairs = pairs.into_iter().map(|(number, pair)| (*number, *pair));
        self.pairs.extend(pairs);
        Ok(())
    }

    fn finish(self, scene: &'static str, pings: u64) -> Result<RoundTrips> {
        let period = self.ticks_per_millisecond;
        let milliseconds = self.ticks / period;
        let came = self.pings.len() as u64;
        let least = milliseconds * pings * FLOODED / 100;
        ensure!(
            came >= least,
            "that was no flood: {came} pings came in {milliseconds} ms between questions; {least} are the least that count"
        );
        let questions = self.pairs.values().map(|pair| pair.came);
        let earliest = capture::earliest(questions.chain(self.pings.iter().copied()), period);
        let earliest = earliest.unwrap_or(0);
        let sorted = |ticks: fn(&Pair, u64) -> u64| {
            let wait = |pair: &Pair| (pair.came + period - earliest) % period;
            let mut all: Vec<_> = self.pairs.values().map(|it| ticks(it, wait(it))).collect();
            all.sort_unstable();
            all
        };
        Ok(RoundTrips {
            scene,
            answers: sorted(|pair, _| pair.went - pair.came),
            whole: sorted(|pair, wait| pair.went - pair.came + wait),
            pings: came,
            milliseconds,
        })
    }
}

/// The smallest of sorted figures that so many of a thousand do not exceed.
fn within(sorted: &[u64], per_mille: usize) -> u64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

impl RoundTrips {
    /// As JSON.
    pub(super) fn json(&self) -> Value {
        let figures = |sorted: &[u64]| {
            json!({
                "min": within(sorted, 0),
                "p50": within(sorted, 500),
                "p99": within(sorted, 990),
                "max": within(sorted, 1000),
            })
        };
        json!({
            "scene": self.scene,
            "questions": self.answers.len(),
            "switch_to_switch": figures(&self.answers),
            "card_to_switch": figures(&self.whole),
            "pings": self.pings,
            "milliseconds": self.milliseconds,
        })
    }

    /// As a table for people.
    pub(super) fn table(all: &[Self]) -> String {
        let mut text = format!(
            "{:<34}{:>10}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}\n",
            "question to answer, ticks", "questions", "min", "p50", "p99", "max", "pings", "in ms"
        );
        for trips in all {
            let Self {
                scene,
                pings,
                milliseconds,
                ..
            } = trips;
            let ways = [
                ("from the switch", &trips.answers),
                ("from the card", &trips.whole),
            ];
            for (way, sorted) in ways {
                let [min, p50, p99, max] =
                    [0, 500, 990, 1000].map(|per_mille| within(sorted, per_mille));
                let _ = writeln!(
                    text,
                    "{:<34}{:>10}{min:>8}{p50:>8}{p99:>8}{max:>8}{pings:>8}{milliseconds:>8}",
                    format!("{scene}, {way}"),
                    sorted.len(),
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 50_000;

    #[test]
    fn the_board_is_right() {
        config::toml::parse(&board(), "b", None).unwrap();
    }

    #[test]
    fn percentiles_are_those_of_the_rtos() {
        let sorted: Vec<_> = (1..=200).collect();
        let of = |per_mille| within(&sorted, per_mille);
        assert_eq!([of(0), of(500), of(990), of(1000)], [1, 100, 198, 200]);
        assert_eq!(within(&[], 500), 0);
    }

    /// Questions in every millisecond, behind a ping in each: 3000 ticks in the card, 8000 to be answered, one of them 9000.
    fn told(numbers: RangeInclusive<u32>) -> Told {
        let mut told = Told::default();
        for number in numbers {
            let start = u64::from(number) * MS + 777;
            let took = if number == 5 { 9000 } else { 8000 };
            let came = start + 3000;
            let went = came + took;
            told.pairs.insert(number, Pair { came, went });
            told.pings.push(start);
        }
        told
    }

    #[test]
    fn a_scene_tells_how_long_answers_took() {
        let mut scene = Scene::new(MS);
        scene.add(told(1..=40), 1..=32).unwrap();
        scene.add(told(20..=64), 33..=64).unwrap();
        assert!(!scene.is_enough());
        let trips = scene.finish("flood", 1).unwrap();
        assert_eq!((trips.answers.len(), trips.milliseconds), (64, 62));
        assert_eq!((trips.answers[0], trips.answers[63]), (8000, 9000));
        assert_eq!((trips.whole[0], trips.whole[63]), (11_000, 12_000));
        assert_eq!(trips.json()["switch_to_switch"]["max"], 9000);
        let table = RoundTrips::table(&[trips]);
        assert!(
            table
                .lines()
                .last()
                .unwrap()
                .starts_with("flood, from the card")
        );
    }

    #[test]
    fn a_scene_is_enough_once_it_spans_a_sweep() {
        let mut scene = Scene::new(MS);
        scene.add(told(1..=7300), 1..=7300).unwrap();
        assert!(scene.is_enough());
    }

    #[test]
    fn what_was_lost_is_told() {
        let mut scene = Scene::new(MS);
        let error = scene.add(told(2..=40), 1..=32).unwrap_err();
        assert!(error.to_string().contains("lacks 1 questions"), "{error}");
        scene.add(told(1..=40), 1..=32).unwrap();
        let error = scene.finish("flood", 2).unwrap_err();
        assert!(
            error.to_string().starts_with("that was no flood"),
            "{error}"
        );
    }
}

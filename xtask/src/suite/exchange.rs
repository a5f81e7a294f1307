//! The RTOS's exchange on a network, without a hypervisor: its drivers on cards that QEMU emulates, asked by a station on
//! the card's wire.

use super::Case;
use super::lab::{Lab, Session};
use super::rtos::{PROMPT, number_before};
use crate::client::{Client, Retry, Station};
use crate::emulator::{CardModel, Chipset, NetworkCard, Pace};
use crate::wire::{Tap, Wire};
use anyhow::{Context, Result, bail, ensure};
use config::toml::BuiltImage;
use protocol::{
    Answer, Datagram, Error, Line, Meter, Number, Operation, Outcome, PORT, Question, Reply,
    Request, Tariff, Totals,
};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Where the station and the RTOS are.
const STATION: Station = Station::new([10, 0, 0, 1]);
const RTOS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CARD: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
/// How long an answer may take. The wire is good, so each question is asked once.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long is waited for what must not come.
const SILENCE: Duration = Duration::from_millis(300);
/// Subscribers that call each other in pairs, and how often.
const PAIRS: u32 = 25;
const ROUNDS: u32 = 7;
/// Every so many-th question is sent again.
const REPEATED: u64 = 7;
/// A card that is not QEMU's own is asked for by this.
const NE2000: &str = "net=ne2000";

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "rtos-net-virtio",
            "without a hypervisor, the RTOS serves its exchange over QEMU's virtio card",
            240,
            |lab| calls(lab, CardModel::Virtio, Chipset::Q35, "net=virtio"),
        )
        .on_qemu(),
        Case::new(
            "rtos-net-ne2000-pci",
            "the same over an RTL8029, which it finds by itself",
            240,
            |lab| calls(lab, CardModel::Rtl8029, Chipset::Pc, "net=auto"),
        )
        .on_qemu(),
        Case::new(
            "rtos-net-ne2000-isa",
            "the same over an NE2000 on the ISA bus",
            240,
            |lab| calls(lab, CardModel::Ne2000, Chipset::Pc, NE2000),
        )
        .on_qemu(),
        Case::new(
            "rtos-net-flood",
            "a flood of frames over a virtio card delays nothing urgent in the RTOS, and stops neither console nor exchange",
            240,
            |lab| flood(lab, CardModel::Virtio, "net=virtio"),
        )
        .on_qemu(),
        Case::new(
            "rtos-net-flood-ne2000",
            "nor does one over an NE2000, whose frames the processor copies",
            240,
            |lab| flood(lab, CardModel::Ne2000, NE2000),
        )
        .on_qemu(),
    ]
}

fn boot(
    lab: &Lab,
    wire: &Wire,
    model: CardModel,
    chipset: Chipset,
    pace: Pace,
    option: &str,
) -> Result<Session> {
    let card = NetworkCard {
        model,
        address: CARD,
        plug: wire.plug()?,
    };
    let line = format!("{option} ip={RTOS}/24");
    let mut session = lab.boot_natively_with(BuiltImage::Rtos, &line, |setup| {
        setup.chipset = Some(chipset);
        setup.pace = pace;
        setup.cards = vec![card];
    })?;
    session.expect_unless(PROMPT, "cannot be used")?;
    Ok(session)
}

/// Ends the machine, whose power the RTOS cannot switch off without a hypervisor: the emulator does not restart it.
fn end(mut session: Session) -> Result<()> {
    session.send("reboot\r")?;
    session.wait_power_off()
}

/// Types a command, and returns what it prints.
fn command(session: &mut Session, text: &str) -> Result<String> {
    session.send(&format!("{text}\r"))?;
    session.expect(text)?;
    session.expect(PROMPT)
}

fn calls(lab: &Lab, model: CardModel, chipset: Chipset, option: &str) -> Result<()> {
    let wire = Wire::lay()?;
    wire.capture(&lab.folder("wire")?.join("wire.pcapng"))?;
    let mut session = boot(lab, &wire, model, chipset, Pace::RealTime, option)?;
    answers_arp(&wire.tap())?;
    let station = Client::attach(&wire, STATION)?;
    // From one that a card must fill up to the longest that a frame holds.
    for size in [0, 1, 56, 1471, 1472] {
        station.ping(RTOS, size, PATIENCE)?;
    }
    let mut caller = Caller::new(&station, 1);
    let mut callee = Caller::new(&station, 2);
    let first = register(&mut caller)?;
    let mut pulses = vec![0; PAIRS as usize];
    for _ in 0..ROUNDS {
        for (pair, pulses) in (0..).zip(&mut pulses) {
            *pulses += call(&mut caller, &mut callee, first + 2 * pair)?;
        }
    }
    for (pair, pulses) in (0..).zip(&pulses) {
        charged(&mut caller, first + 2 * pair, *pulses)?;
    }
    let garbage = throw_garbage(&station, &wire.tap())?;
    caller.is_dropped_when_outdated()?;
    let asked = caller.asked + callee.asked;
    let repeated = caller.repeated + callee.repeated;
    ensure!(asked >= 1000, "only {asked} questions were asked");
    let totals = caller.totals()?;
    let expected = Totals {
        uptime: totals.uptime,
        executed: asked + 1,
        duplicates: repeated,
        outdated: 1,
        malformed: garbage,
        crowded: 0,
        subscribers: u64::from(2 * PAIRS),
        ringing: 0,
        connected: 0,
        calls: u64::from(PAIRS * ROUNDS),
        pulses: pulses.iter().sum(),
    };
    ensure!(
        totals == expected,
        "the exchange counts {totals:?}, not {expected:?}"
    );
    let shown = command(&mut session, "net")?;
    let executed = format!("net: {} questions executed", asked + 1);
    for text in ["net: no faults", &executed] {
        ensure!(
            shown.contains(text),
            "the console shows: {shown}, not {text}"
        );
    }
    let text = format!("{first} {} pulses, {ROUNDS} calls", pulses[0]);
    let shown = command(&mut session, &format!("charging {first}"))?;
    ensure!(
        shown.contains(&text),
        "the console shows: {shown}, not {text}"
    );
    end(session)
}

/// An ARP request (RFC 826) for the RTOS is answered with its card's address.
fn answers_arp(tap: &Tap) -> Result<()> {
    const ETHERNET_IPV4: [u8; 8] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4];
    let Station { mac, address, .. } = STATION;
    let (own, asked) = (address.octets(), RTOS.octets());
    let request = [
        &[0xff; 6][..],
        &mac,
        &ETHERNET_IPV4,
        &[0, 1],
        &mac,
        &own,
        &[0; 6],
        &asked,
    ];
    let reply = [
        &mac[..],
        &CARD,
        &ETHERNET_IPV4,
        &[0, 2],
        &CARD,
        &asked,
        &mac,
        &own,
    ]
    .concat();
    tap.send(&request.concat());
    let is_reply = |frame: &[u8]| frame.starts_with(&reply).then_some(());
    tap.find(PATIENCE, is_reply)
        .context("the RTOS answers no ARP")
}

/// A client of the exchange.
struct Caller<'a> {
    station: &'a Client,
    identity: u32,
    /// The last question's.
    number: u32,
    asked: u64,
    repeated: u64,
}

impl<'a> Caller<'a> {
    /// Its questions' numbers soon begin anew.
    const fn new(station: &'a Client, identity: u32) -> Self {
        Self {
            station,
            identity,
            number: u32::MAX - 100,
            asked: 0,
            repeated: 0,
        }
    }

    fn question(&self, operation: Operation) -> Datagram {
        let question = Question {
            client: self.identity,
            number: self.number,
            operation,
        };
        question.encode()
    }

    fn send(&self, question: &Datagram) -> Result<Vec<u8>> {
        let once = Retry {
            attempts: 1,
            wait: PATIENCE,
        };
        Ok(self.station.udp_request(RTOS, PORT, question, once)?.bytes)
    }

    /// Asks the next question. Some are sent again, and must be answered alike.
    fn ask(&mut self, operation: Operation) -> Result<Outcome> {
        self.number = self.number.wrapping_add(1);
        self.asked += 1;
        let question = self.question(operation);
        let bytes = self.send(&question)?;
        if self.asked.is_multiple_of(REPEATED) {
            self.repeated += 1;
            let again = self.send(&question)?;
            ensure!(
                again == bytes,
                "the answers to one question differ: {bytes:?} and {again:?}"
            );
        }
        let answer = Answer::decode(&bytes)?;
        ensure!(
            (answer.client, answer.number) == (self.identity, self.number),
            "{answer:?} is no answer to question {} of {}",
            self.number,
            self.identity
        );
        Ok(answer.outcome)
    }

    fn expect(&mut self, request: Request, reply: Reply) -> Result<()> {
        let outcome = self.ask(Operation::Exchange(request))?;
        ensure!(
            outcome == Outcome::Done(reply),
            "{request:?} gave {outcome:?}, not {reply:?}"
        );
        Ok(())
    }

    fn totals(&mut self) -> Result<Totals> {
        match self.ask(Operation::Totals)? {
            Outcome::Totals(totals) => Ok(totals),
            other => bail!("the totals are {other:?}"),
        }
    }

    /// A question that comes after a later one gets no answer.
    fn is_dropped_when_outdated(&self) -> Result<()> {
        let late = Question {
            client: self.identity,
            number: self.number.wrapping_sub(1),
            operation: Operation::Totals,
        };
        let port = self.station.udp(None)?;
        port.send_to(&late.encode(), SocketAddrV4::new(RTOS, PORT))?;
        ensure!(
            port.receive(SILENCE).is_none(),
            "an outdated question was answered"
        );
        Ok(())
    }
}

fn number(number: u32) -> Result<Number> {
    Number::new(number).context("no subscriber's number")
}

/// Registers subscribers, of whom the first calls the second and so on; the first number.
fn register(caller: &mut Caller<'_>) -> Result<u32> {
    const FIRST: u32 = 1000;
    for subscriber in FIRST..FIRST + 2 * PAIRS {
        let subscriber = number(subscriber)?;
        caller.expect(Request::Register(subscriber), Reply::Registered(subscriber))?;
    }
    let taken = number(FIRST)?;
    let refused = caller.ask(Operation::Exchange(Request::Register(taken)))?;
    ensure!(
        refused == Outcome::Refused(Error::Taken(taken)),
        "registered twice: {refused:?}"
    );
    Ok(FIRST)
}

/// A call from a subscriber to the next, from the dialling to the end; the pulses that it cost.
fn call(caller: &mut Caller<'_>, callee: &mut Caller<'_>, from: u32) -> Result<u64> {
    let (from, to) = (number(from)?, number(from + 1)?);
    caller.expect(Request::Call(from, to), Reply::Ringing(from, to))?;
    let outcome = callee.ask(Operation::Exchange(Request::Status(to)))?;
    let rings = matches!(
        outcome,
        Outcome::Done(Reply::Status(of, Line::Ringing, Some((other, _)))) if (of, other) == (to, from)
    );
    ensure!(rings, "{to} should ring: {outcome:?}");
    let tariff = Tariff::between(from, to);
    callee.expect(Request::Answer(to), Reply::Connected(from, to, tariff))?;
    let outcome = caller.ask(Operation::Exchange(Request::Call(from, to)))?;
    ensure!(
        outcome == Outcome::Refused(Error::WrongState(from, Line::Connected)),
        "{from} calls within a call: {outcome:?}"
    );
    let outcome = caller.ask(Operation::Exchange(Request::Clear(from)))?;
    let Outcome::Done(Reply::Cleared(of, Some(pulses))) = outcome else {
        bail!("{from} cleared: {outcome:?}");
    };
    ensure!(of == from && pulses > 0, "{from} cleared: {outcome:?}");
    let outcome = callee.ask(Operation::Exchange(Request::Clear(to)))?;
    ensure!(
        outcome == Outcome::Refused(Error::WrongState(to, Line::Idle)),
        "{to} clears again: {outcome:?}"
    );
    Ok(pulses)
}

/// A subscriber's meter shows all his calls and no more.
fn charged(caller: &mut Caller<'_>, from: u32, pulses: u64) -> Result<()> {
    let from = number(from)?;
    let outcome = caller.ask(Operation::Exchange(Request::Charging(from)))?;
    let fits = |of: Number, meter: Meter| {
        (of, meter.pulses, meter.calls) == (from, pulses, u64::from(ROUNDS))
    };
    match outcome {
        Outcome::Done(Reply::Charging(of, meter)) if fits(of, meter) => Ok(()),
        other => bail!("{from} made {ROUNDS} calls for {pulses} pulses, not {other:?}"),
    }
}

/// Sends what must harm nothing; how many datagrams of it come to the server.
fn throw_garbage(station: &Client, tap: &Tap) -> Result<u64> {
    let good = Question {
        client: 3,
        number: 1,
        operation: Operation::Totals,
    };
    let good = good.encode();
    let mut wrong_version = good.to_vec();
    wrong_version[4] ^= 0xff;
    let noise: Vec<u8> = (0..1472_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let datagrams = [
        &good[..10],
        &wrong_version,
        &noise,
        &[good.to_vec(), vec![0]].concat(),
        &[0; 600],
    ];
    let port = station.udp(None)?;
    for datagram in datagrams {
        port.send_to(datagram, SocketAddrV4::new(RTOS, PORT))?;
        ensure!(
            port.receive(SILENCE).is_none(),
            "garbage was answered: {datagram:?}"
        );
    }
    // Frames that end early, that are of no protocol, and that claim to be longer than they are.
    let head = [&CARD[..], &STATION.mac].concat();
    let ip = [
        0x45, 0, 0xff, 0xff, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    for kind in [&[][..], &[8], &[8, 0], &[8, 6, 0, 1], &[0x86, 0xdd, 0x60]] {
        for rest in [&[][..], &ip, &noise] {
            tap.send(&[&head, kind, rest].concat());
        }
    }
    Ok(datagrams.len() as u64)
}

fn flood(lab: &Lab, model: CardModel, option: &str) -> Result<()> {
    const RELEASES: u32 = 2000;
    /// The part of a period by which no release may be late: some four times what it is.
    const LATENESS: u64 = 20;
    let wire = Wire::lay()?;
    // The board's time is counted in instructions, so that a busy host makes nothing late.
    let mut session = boot(lab, &wire, model, Chipset::Pc, Pace::Fast, option)?;
    let station = Client::attach(&wire, STATION)?;
    station.ping(RTOS, 56, PATIENCE)?;
    let (tap, over) = (wire.tap(), AtomicBool::new(false));
    let said = thread::scope(|scope| {
        scope.spawn(|| pour(&tap, &over));
        let said = command(&mut session, &format!("jitter {RELEASES}"));
        over.store(true, Ordering::Relaxed);
        said
    })?;
    let overruns: i64 = number_before(&said, "overruns")?;
    ensure!(overruns == 0, "{overruns} periods were missed: {said}");
    let ticks = |name: &str| -> Result<u64> {
        let figure = said
            .split(name)
            .nth(1)
            .and_then(|rest| rest.split([' ', ',']).next());
        let figure = figure.with_context(|| format!("there is no {name} in {said}"))?;
        Ok(figure.parse()?)
    };
    let (latest, period) = (ticks(" max=")?, ticks(" period=")?);
    ensure!(
        latest < period / LATENESS,
        "a release was late by {latest} of {period}: {said}"
    );
    let shown = command(&mut session, "net")?;
    // One frame to a period at least.
    let frames: i64 = number_before(&shown, "frames")?;
    ensure!(frames > i64::from(RELEASES), "that was no flood: {shown}");
    let mut caller = Caller::new(&station, 1);
    let totals = caller.totals()?;
    ensure!(totals.executed >= 1, "the exchange counts {totals:?}");
    end(session)
}

/// Sends more frames than the RTOS has time for, short and long ones, until it is enough.
fn pour(tap: &Tap, over: &AtomicBool) {
    const PER_SECOND: u32 = 20_000;
    const PIECE: Duration = Duration::from_millis(50);
    let head = [&[0xff; 6][..], &STATION.mac, &[8, 0]].concat();
    let (short, long) = (
        [&head[..], &[0; 46]].concat(),
        [&head[..], &[0x45; 1400]].concat(),
    );
    while !over.load(Ordering::Relaxed) {
        tap.flood(&short, PER_SECOND, PIECE);
        tap.flood(&long, PER_SECOND, PIECE);
    }
}

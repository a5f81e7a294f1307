//! Linux's network gear without a hypervisor under it: its gateway serves pages about an exchange to a station on a wire,
//! which is bad at times.

use super::Case;
use super::lab::{Lab, Session};
use crate::bench::native;
use crate::client::{Client, Retry, Station};
use crate::emulator::{CardModel, NetworkCard, Pace};
use crate::linux::Linux;
use crate::paths;
use crate::wire::{Action, Share, Target, Wire};
use anyhow::{Context, Result, ensure};
use protocol::{Answer, Operation, Outcome, Question, Totals};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const MEGABYTES: u32 = 256;
/// Where the station, the exchange and Linux are.
const STATION: Station = Station::new([10, 0, 0, 1]);
const EXCHANGE: Station = Station::new([10, 0, 0, 2]);
const LINUX: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const CARD: u8 = 3;
/// How long Linux may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where Linux repeats what it is sent.
const ECHO: u16 = 7;
/// Calls that were answered, as the exchange says.
const CALLS: u64 = 4711;

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "lab-gateway",
            "without a hypervisor, Linux's gateway serves the exchange's figures and whole blobs over a bad wire",
            300,
            gateway,
        )
        .on_qemu(),
    ]
}

fn gateway(lab: &Lab) -> Result<()> {
    let wire = lab.wire("wire")?;
    let mut session = boot(lab, &wire)?;
    let station = Client::attach(&wire, STATION)?;
    let exchange = Client::attach(&wire, EXCHANGE)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let served = scope.spawn(|| serve(&exchange, &over));
        let tried = attend(&mut session, &wire, &station);
        over.store(true, Ordering::Relaxed);
        tried?;
        let questions = served.join().unwrap_or_else(|_| Ok(0))?;
        ensure!(questions > 0, "nobody asked the exchange");
        Ok(())
    })?;
    session.send("poweroff -f\n")?;
    session.wait_power_off()
}

fn boot(lab: &Lab, wire: &Wire) -> Result<Session> {
    Linux::Cloud.prepare(lab.may_install)?;
    let kernel = paths::read(&Linux::Cloud.kernel())?;
    let initrd = paths::read(&Linux::Cloud.initramfs())?;
    let line = format!(
        "console=ttyS0 quiet net={LINUX}/24 gateway_to=\"{} 80 101\"",
        EXCHANGE.address
    );
    let mut setup = native::machine(&lab.folder("cd")?, &kernel, &initrd, &line, MEGABYTES)?;
    setup.pace = Pace::RealTime;
    setup.cards = vec![NetworkCard::on(wire, CardModel::Virtio, CARD)?];
    lab.start(&setup)
}

/// Answers for the exchange until it is over; returns how many questions it was asked.
fn serve(exchange: &Client, over: &AtomicBool) -> Result<u64> {
    const LOOK: Duration = Duration::from_millis(100);
    let port = exchange.udp(Some(protocol::PORT))?;
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let Some((bytes, from)) = port.receive(LOOK) else {
            continue;
        };
        let question = Question::decode(&bytes).context("the gateway's question")?;
        count += 1;
        let outcome = match question.operation {
            Operation::Totals => Outcome::Totals(Totals {
                calls: CALLS,
                ..Totals::default()
            }),
            Operation::Exchange(_) => Outcome::Refused(protocol::Error::Full),
        };
        let answer = Answer {
            client: question.client,
            number: question.number,
            outcome,
        };
        port.send_to(&answer.encode(), from)?;
    }
    Ok(count)
}

fn attend(session: &mut Session, wire: &Wire, station: &Client) -> Result<()> {
    session.expect(&format!("linux: eth0 has {LINUX}/24"))?;
    session.expect("/root # ")?;
    let serves = "gateway: serves on port 80, exchange at 10.0.0.2:5000";
    // This comes before or behind the prompt.
    if !session.text().contains(serves) {
        session.expect(serves)?;
    }
    for size in [0, 56, 1472] {
        station.ping(LINUX, size, PATIENCE)?;
    }
    check_pages(station)?;
    check_echo(session, station)?;
    check_blob(station, LINUX, "32M").context("over a good wire")?;
    make_bad(wire);
    check_blob(station, LINUX, "4M").context("over a bad wire")?;
    wire.set(Target::All, Action::Clear);
    wire.set(Target::All, Action::Corrupt(Share::percent(1)));
    check_blob(station, LINUX, "4M").context("over a wire that changes bits")?;
    wire.set(Target::All, Action::Clear);
    check_cut(wire, station)?;
    check_flood(wire, station)
}

fn check_pages(station: &Client) -> Result<()> {
    let page = |path| station.http_text(LINUX, 80, path, PATIENCE);
    let health = page("/healthz")?;
    ensure!(health == (200, "ok\n".to_owned()), "health: {health:?}");
    let (_, text) = page("/exchange.json")?;
    let json: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(json["totals"]["calls"] == CALLS, "the totals: {text}");
    ensure!(json["subscribers"][0]["number"] == 101, "{text}");
    let (status, text) = page("/")?;
    let has_calls = text.contains(&format!("answered<td class=\"n\">{CALLS}</tr>"));
    ensure!(status == 200 && has_calls, "the page: {text}");
    let (status, _) = page("/nothing")?;
    ensure!(
        status == 404,
        "a page that is not there has status {status}"
    );
    Ok(())
}

/// Linux repeats a datagram.
fn check_echo(session: &mut Session, station: &Client) -> Result<()> {
    session.send("udpecho &\n")?;
    session.expect(&format!("udpecho: serves on port {ECHO}"))?;
    let retry = Retry {
        attempts: 20,
        wait: Duration::from_millis(500),
    };
    let question = b"is anybody there?";
    let answer = station.udp_request(LINUX, ECHO, question, retry)?;
    ensure!(answer.bytes == question, "{answer:?}");
    Ok(())
}

/// From now on the wire loses, doubles and reorders frames.
pub(super) fn make_bad(wire: &Wire) {
    for action in [Action::Loss, Action::Duplicate, Action::Reorder] {
        wire.set(Target::All, action(Share::percent(3)));
    }
}

/// A blob comes whole from the gateway at an address.
pub(super) fn check_blob(station: &Client, gateway: Ipv4Addr, size: &str) -> Result<()> {
    let mut sum = crc32fast::Hasher::new();
    let path = format!("/blob/{size}");
    let response =
        station.http_get(gateway, 80, &path, PATIENCE, &mut |piece| sum.update(piece))?;
    let (_, told) = station.http_text(gateway, 80, &format!("{path}.crc32"), PATIENCE)?;
    let got = format!("{:08x}\n", sum.finalize());
    ensure!(
        response.status == 200 && got == told,
        "{} bytes with the checksum {got} and not {told}",
        response.length
    );
    Ok(())
}

/// A cut wire carries nothing, and a restored one does.
fn check_cut(wire: &Wire, station: &Client) -> Result<()> {
    const MOMENT: Duration = Duration::from_millis(500);
    wire.set(Target::End(0), Action::Cut);
    ensure!(
        station.ping(LINUX, 56, MOMENT).is_err(),
        "the wire is not cut"
    );
    wire.set(Target::End(0), Action::Restore);
    station.ping(LINUX, 56, PATIENCE)?;
    Ok(())
}

/// Linux stands a flood of broadcasts, and hears the questions for its address among them.
fn check_flood(wire: &Wire, station: &Client) -> Result<()> {
    const SECOND: Duration = Duration::from_secs(1);
    let flooder = wire.tap();
    let address = [2, 0, 0, 0, 0, 9];
    let mut frame = [&[0xff; 6][..], &address, &[0x88, 0xb5]].concat();
    frame.resize(60, 0);
    thread::scope(|scope| {
        let flood = scope.spawn(|| flooder.flood(&frame, 2000, 2 * SECOND));
        station.ping(LINUX, 56, PATIENCE).context("under a flood")?;
        let sent = flood.join().unwrap_or(0);
        ensure!(sent == 4000, "{sent} frames were sent");
        Ok(())
    })?;
    // RFC 826: a question of 10.0.0.9, and the answer with Linux's own address.
    let mut question = [&[0xff; 6][..], &address, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    question.extend([&address[..], &[10, 0, 0, 9], &[0; 6], &LINUX.octets()].concat());
    question.resize(60, 0);
    flooder.send(&question);
    let answer = |frame: &[u8]| {
        (frame.get(12..14)? == [8, 6] && frame.get(21) == Some(&2)).then(|| frame[22..28].to_vec())
    };
    let answer = flooder.find(PATIENCE, answer);
    ensure!(
        answer.as_deref() == Some(&[0x52, 0x54, 0, 0, 0, CARD]),
        "who has {LINUX}: {answer:?}"
    );
    let counts = wire.counts(flooder.end());
    ensure!(counts.lost == 0, "the flood met a bad wire: {counts:?}");
    Ok(())
}

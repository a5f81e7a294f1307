//! The hypervisor's own station behind a card, on a board without guests: a card and its driver by themselves.

mod prometheus;

use super::Case;
use super::lab::{Lab, Session};
use crate::client::{Client, Station};
use crate::emulator::{CardModel, NetworkCard, Pace};
use crate::paths;
use crate::wire::{Tap, Wire};
use anyhow::{Context, Result, bail, ensure};
pub(crate) use prometheus::Metrics;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

/// The hypervisor's, on the boards of the tests.
pub(super) const MANAGEMENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const STATION: Station = Station::new([10, 0, 0, 9]);
/// The last byte of the card's address.
const CARD: u8 = 1;
/// How long anything may take once it runs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Frames of a flood that reach the switch at least. Bochs looks for frames a thousand times a second.
const FLOOD_MIN: f64 = 2000.0;
/// A processor of Bochs that has neither VT-x nor AMD-V.
const NO_VIRTUALIZATION: &str = "athlon64_clawhammer";

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "management-82540",
            "a board without guests answers pings and serves metrics and status, also behind a flood, through an 82540EM",
            240,
            |lab| serves(lab, CardModel::E1000, None),
        )
        .on_both(),
        Case::new(
            "management-82574",
            "the same through an 82574L",
            240,
            |lab| serves(lab, CardModel::E1000e, None),
        )
        .on_qemu(),
        Case::new(
            "management-82576",
            "the same through an 82576",
            240,
            |lab| serves(lab, CardModel::Igb, None),
        )
        .on_qemu(),
        Case::new(
            "management-no-virtualization",
            "the same on a processor that can run no guests",
            240,
            |lab| serves(lab, CardModel::E1000, Some(NO_VIRTUALIZATION)),
        )
        .on_bochs(),
    ]
}

fn serves(lab: &Lab, model: CardModel, cpu_model: Option<&str>) -> Result<()> {
    let wire = lab.wire("lan")?;
    let station = Client::attach(&wire, STATION)?;
    let mut session = boot(lab, &wire, model, cpu_model)?;
    wait_for_ping(lab, &station, MANAGEMENT, 56)?;
    for size in [0, 56, 1472] {
        station.ping(MANAGEMENT, size, PATIENCE)?;
    }
    let before = Metrics::read(&station)?;
    check_status(&station, model)?;
    check_others(&station)?;
    let sent = flood(lab, &station, &wire.tap())?;
    let after = Metrics::read(&station)?;
    ensure!(
        before.of("understudy_card_link_up{port=\"lan\"}")? == 1.0,
        "the link is down"
    );
    let grown = |series: &str| after.growth(&before, series);
    let [received, taken] = [
        "understudy_card_received_frames_total",
        "understudy_port_received_frames_total",
    ]
    .map(|name| grown(&format!("{name}{{port=\"lan\"}}")));
    let (received, taken) = (received?, taken?);
    ensure!(
        taken >= FLOOD_MIN && received >= taken,
        "of a flood of {sent} frames, the card received {received} and the switch {taken}"
    );
    ensure!(
        after.of("understudy_uptime_seconds")? > before.of("understudy_uptime_seconds")?,
        "time stands still"
    );
    session.send("\u{f}hpoweroff\r")?;
    session.wait_power_off()
}

fn boot(lab: &Lab, wire: &Wire, model: CardModel, cpu_model: Option<&str>) -> Result<Session> {
    let card = NetworkCard::on(wire, model, CARD)?;
    let file = paths::root().join("boot/boards/management.toml");
    let mut board = String::from_utf8(paths::read(&file)?).context("the board file is no text")?;
    if lab.is_bochs() {
        // Bochs hands its card only what is for that.
        let mac = card.address_text();
        board = board.replace(
            "[management]\n",
            &format!("[management]\nmac = \"{mac}\"\n"),
        );
    }
    lab.boot_with(&board, |setup| {
        setup.pace = Pace::RealTime;
        setup.cards = vec![card];
        setup.cpu_model = cpu_model.map(str::to_owned);
    })
}

/// Waits until one of many pings is answered.
pub(super) fn wait_for_ping(lab: &Lab, station: &Client, to: Ipv4Addr, size: usize) -> Result<()> {
    const LOOK: Duration = Duration::from_secs(1);
    loop {
        match station.ping(to, size, LOOK) {
            Ok(_) => return Ok(()),
            Err(error) if lab.left().is_zero() => bail!("{error:#}"),
            Err(_) => {}
        }
    }
}

/// The status is JSON, and tells of the card.
fn check_status(station: &Client, model: CardModel) -> Result<()> {
    let card = match model {
        CardModel::E1000 => "82540EM",
        CardModel::E1000e => "82574L",
        CardModel::Igb => "82576",
        CardModel::Virtio | CardModel::Rtl8029 | CardModel::Ne2000 => bail!("no card of a board"),
    };
    let (status, text) = station.http_text(MANAGEMENT, 80, "/status", PATIENCE)?;
    let shown: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let uplink = &shown["uplinks"][0];
    ensure!(
        status == 200
            && uplink["name"] == "lan"
            && uplink["card"]
                .as_str()
                .is_some_and(|name| name.contains(card))
            && uplink["link_megabits"] == 1000,
        "{status}: {text}"
    );
    let ports = shown["ports"].as_array().into_iter().flatten();
    let names: Vec<_> = ports.filter_map(|port| port["name"].as_str()).collect();
    ensure!(
        names == ["lan", "management"] && shown["guests"] == Value::Array(Vec::new()),
        "{text}"
    );
    Ok(())
}

/// What is no page has status 404; a capture has the head of a pcap file and no frames.
fn check_others(station: &Client) -> Result<()> {
    const PCAP_HEAD: u64 = 24;
    let (status, text) = station.http_text(MANAGEMENT, 80, "/nothing", PATIENCE)?;
    ensure!(status == 404, "/nothing has status {status}: {text}");
    let mut ignore = |_: &[u8]| {};
    let capture = station.http_get(MANAGEMENT, 80, "/capture.pcap", PATIENCE, &mut ignore)?;
    ensure!(
        (capture.status, capture.length) == (200, PCAP_HEAD),
        "{capture:?}"
    );
    Ok(())
}

/// Sends short broadcasts for some seconds, among which a ping may be lost, but not all of them. Returns how many.
fn flood(lab: &Lab, station: &Client, tap: &Tap) -> Result<u64> {
    const PER_SECOND: u32 = 5000;
    const LENGTH: Duration = Duration::from_secs(4);
    let mut frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5]].concat();
    frame.resize(60, 0);
    let sent = thread::scope(|scope| {
        let sent = scope.spawn(|| tap.flood(&frame, PER_SECOND, LENGTH));
        wait_for_ping(lab, station, MANAGEMENT, 56).context("under a flood")?;
        let sent = sent.join().unwrap_or(0);
        wait_for_ping(lab, station, MANAGEMENT, 1472).context("behind a flood")?;
        Ok::<_, anyhow::Error>(sent)
    })?;
    ensure!(sent > 0, "there was no flood");
    Ok(sent)
}

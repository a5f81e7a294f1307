//! The RTOS's exchange on a network: its drivers on cards that QEMU emulates, without a hypervisor, and on those that the
//! hypervisor shows it; asked by a station on the wire.

pub(super) mod caller;

use super::Case;
use super::lab::{Lab, Session};
use super::rtos::{PROMPT, number_before};
use crate::client::{Client, Retry, Station};
use crate::emulator::{CardModel, Chipset, NetworkCard, Pace};
use crate::wire::{Tap, Wire};
use anyhow::{Context, Result, bail, ensure};
use caller::{Caller, call, charged, register};
use config::toml::BuiltImage;
use protocol::{Operation, PORT, Question, Totals};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Where the station and the RTOS are.
const STATION: Station = Station::new([10, 0, 0, 1]);
const RTOS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The RTOS's card.
const CARD: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
/// How long an answer may take. The wire is good, so each question is asked once.
const PATIENCE: Duration = Duration::from_secs(20);
const ONCE: Retry = Retry {
    attempts: 1,
    wait: PATIENCE,
};
/// How long is waited for what must not come.
const SILENCE: Duration = Duration::from_millis(300);
/// Subscribers that call each other in pairs, and how often.
const PAIRS: u32 = 25;
const ROUNDS: u32 = 7;

/// What the RTOS finds its card on.
#[derive(Clone, Copy)]
enum Under {
    /// The emulator's machine.
    Machine(CardModel, Chipset),
    /// The hypervisor's, with a card of this model, on an emulated board with a card of Intel's.
    Hypervisor(&'static str),
}

const VIRTIO: Under = Under::Machine(CardModel::Virtio, Chipset::Q35);
const RTL8029: Under = Under::Machine(CardModel::Rtl8029, Chipset::Pc);
const NE2000: Under = Under::Machine(CardModel::Ne2000, Chipset::Pc);

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    let case =
        |name, about, run: fn(&Lab) -> Result<()>| Case::new(name, about, 300, run).on_qemu();
    vec![
        case(
            "rtos-net-virtio",
            "without a hypervisor, the RTOS serves its exchange over QEMU's virtio card",
            |lab| calls(lab, VIRTIO, "virtio"),
        ),
        case(
            "rtos-net-ne2000-pci",
            "the same over an RTL8029, which it finds by itself",
            |lab| calls(lab, RTL8029, "auto"),
        ),
        case(
            "rtos-net-ne2000-isa",
            "the same over an NE2000 on the ISA bus",
            |lab| calls(lab, NE2000, "ne2000"),
        ),
        case(
            "rtos-net-flood",
            "a flood of frames over a virtio card delays nothing urgent in the RTOS, and stops neither console nor exchange",
            |lab| flood(lab, VIRTIO, "virtio"),
        ),
        case(
            "rtos-net-flood-ne2000",
            "nor does one over an NE2000, whose frames the processor copies",
            |lab| flood(lab, NE2000, "ne2000"),
        ),
        case(
            "rtos-exchange-virtio",
            "the RTOS serves its exchange over the hypervisor's virtio card",
            |lab| calls(lab, Under::Hypervisor("virtio"), "auto"),
        ),
        case(
            "rtos-exchange-rtl8029",
            "the same over the hypervisor's RTL8029",
            |lab| calls(lab, Under::Hypervisor("rtl8029"), "auto"),
        ),
        case(
            "rtos-exchange-ne2000",
            "the same over the hypervisor's NE2000",
            |lab| calls(lab, Under::Hypervisor("ne2000"), "ne2000"),
        ),
        case(
            "rtos-flood-virtio",
            "a flood over the hypervisor's virtio card costs the RTOS no period",
            |lab| flood(lab, Under::Hypervisor("virtio"), "virtio"),
        ),
        case(
            "rtos-flood-ne2000",
            "nor does one over the hypervisor's NE2000",
            |lab| flood(lab, Under::Hypervisor("ne2000"), "ne2000"),
        ),
    ]
}

/// Boots the RTOS with a card on the wire; `net` is what its command line says of the card.
fn boot(lab: &Lab, wire: &Wire, under: Under, pace: Pace, net: &str) -> Result<Session> {
    let line = format!("net={net} ip={RTOS}/24");
    let mut session = match under {
        Under::Machine(model, chipset) => {
            let [.., number] = CARD;
            let card = NetworkCard::on(wire, model, number)?;
            lab.boot_natively_with(BuiltImage::Rtos, &line, |setup| {
                setup.chipset = Some(chipset);
                setup.pace = pace;
                setup.cards = vec![card];
            })?
        }
        Under::Hypervisor(model) => {
            let uplink = NetworkCard::on(wire, CardModel::E1000, 1)?;
            let text = board(&line, model, &uplink.address_text());
            lab.boot_with(&text, |setup| {
                setup.pace = pace;
                setup.cards = vec![uplink];
            })?
        }
    };
    session.expect_unless(PROMPT, "cannot be used")?;
    Ok(session)
}

/// A board with the RTOS alone on its second processor, and its card behind the board's.
fn board(command_line: &str, model: &str, uplink: &str) -> String {
    let mac = CARD.map(|byte| format!("{byte:02x}")).join(":");
    format!(
        "[board]\nname = \"exchange\"\ncpus = 2\nwhen_all_off = \"power-off\"\n\n\
         [[guest]]\nname = \"rtos\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = 1\n\
         command_line = \"{command_line}\"\nnics = [{{ model = \"{model}\", mac = \"{mac}\" }}]\n\n\
         [[uplink]]\nname = \"lan\"\ncard = \"{uplink}\"\n"
    )
}

/// Ends the machine. The RTOS cannot switch the emulator's off, but the emulator ends when it is to restart.
fn end(mut session: Session, under: Under) -> Result<()> {
    let last = match under {
        Under::Machine(..) => "reboot\r",
        Under::Hypervisor(_) => "halt\r",
    };
    session.send(last)?;
    session.wait_power_off()
}

/// Types a command, and returns what it prints.
fn command(session: &mut Session, text: &str) -> Result<String> {
    session.send(&format!("{text}\r"))?;
    session.expect(text)?;
    session.expect(PROMPT)
}

fn calls(lab: &Lab, under: Under, net: &str) -> Result<()> {
    let wire = lab.wire("lan")?;
    let mut session = boot(lab, &wire, under, Pace::RealTime, net)?;
    answers_arp(&wire.tap())?;
    let station = Client::attach(&wire, STATION)?;
    // From one that a card must fill up to the longest that a frame holds.
    for size in [0, 1, 56, 1471, 1472] {
        station.ping(RTOS, size, PATIENCE)?;
    }
    let mut caller = Caller::new(&station, 1, ONCE);
    let mut callee = Caller::new(&station, 2, ONCE);
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
    end(session, under)
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

fn flood(lab: &Lab, under: Under, net: &str) -> Result<()> {
    // On a board of two processors, the emulator lets them run by turns of 50 µs, and one may wait for the other several
    // turns long. There no release may be late by a whole period; alone, by some four times what it is.
    let lateness = match under {
        Under::Machine(..) => 20,
        Under::Hypervisor(_) => 1,
    };
    let wire = lab.wire("lan")?;
    // The board's time is counted in instructions, so that a busy host makes nothing late.
    let mut session = boot(lab, &wire, under, Pace::Fast, net)?;
    let station = Client::attach(&wire, STATION)?;
    station.ping(RTOS, 56, PATIENCE)?;
    let (tap, over) = (wire.tap(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| pour(&tap, &over));
        let kept = keep_deadlines(&mut session, lateness);
        over.store(true, Ordering::Relaxed);
        kept
    })?;
    // What is left of the flood fills the card for a while yet.
    let patient = Retry {
        attempts: 10,
        wait: PATIENCE / 10,
    };
    let totals = Caller::new(&station, 1, patient).totals()?;
    ensure!(
        (totals.executed, totals.malformed) == (1, 0),
        "the exchange counts {totals:?}"
    );
    end(session, under)
}

/// Has the RTOS release tasks until a flood has come meanwhile: none of them may miss a period, or be late by a period
/// divided by `lateness`. The board counts its own time, so that on a busy host few frames come in a round.
fn keep_deadlines(session: &mut Session, lateness: u64) -> Result<()> {
    const RELEASES: u32 = 2000;
    /// An NE2000 whose every port access is an exit takes a frame in two periods.
    const FLOOD: i64 = RELEASES as i64 / 4;
    const ROUNDS: u32 = 10;
    let mut shown = String::new();
    for _ in 0..ROUNDS {
        let said = command(session, &format!("jitter {RELEASES}"))?;
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
            latest < period / lateness,
            "a release was late by {latest} of {period}: {said}"
        );
        shown = command(session, "net")?;
        if number_before(&shown, "frames")? > FLOOD {
            return Ok(());
        }
    }
    bail!("that was no flood: {shown}")
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

#[cfg(test)]
mod tests {
    #[test]
    fn boards_are_right() {
        for model in ["virtio", "rtl8029", "ne2000"] {
            let text = super::board("net=auto ip=10.0.0.2/24", model, "52:54:00:00:00:01");
            config::toml::parse(&text, "b", None).unwrap();
        }
    }
}

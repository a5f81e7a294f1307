//! The default board on a network, as a user has it: a station on the wire of the board's card finds the hypervisor's own
//! station, the legacy system's exchange and Linux's gateway.

mod alone;
mod checkpoints;
mod faults;
mod load;

use super::Case;
use super::gateway::{check_blob, make_bad};
use super::lab::{Lab, Session};
use crate::client::{Client, Retry, Station};
use crate::emulator::{CardModel, NetworkCard, Pace};
use crate::paths;
use crate::wire::{Action, Target, Wire};
use anyhow::{Context, Result, bail, ensure};
use protocol::{Answer, Number, Operation, Outcome, Question, Reply, Request, Tariff};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

/// What the board file says of addresses.
const MANAGEMENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const RTOS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const LINUX: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
/// The last byte of the card's address.
const CARD: u8 = 1;
const STATION: Station = Station::new([10, 0, 0, 9]);
/// How long anything may take once it runs.
const PATIENCE: Duration = Duration::from_secs(30);

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "lan-82540",
            "a station reaches hypervisor, RTOS and Linux of the default board through an 82540EM, over a good and a bad wire",
            400,
            |lab| serves(lab, CardModel::E1000, &default_board()?),
        )
        // Bochs hands its card only broadcasts and what is for the card's own address.
        .on_qemu(),
        Case::new("lan-82574", "the same through an 82574L", 400, |lab| {
            serves(lab, CardModel::E1000e, &default_board()?)
        })
        .on_qemu(),
        Case::new("lan-82576", "the same through an 82576", 400, |lab| {
            serves(lab, CardModel::Igb, &default_board()?)
        })
        .on_qemu(),
        Case::new(
            "lan-load",
            "the RTOS answers 10,000 questions from the wire while Linux is read and hands out 100 MB",
            400,
            load::run,
        )
        .on_qemu(),
        Case::new(
            "lan-faults",
            "a bad wire makes the exchange do nothing twice; card resets, an RTOS's restart and a pulled cable harm nobody else",
            400,
            faults::run,
        )
        .on_qemu(),
        Case::new(
            "lan-checkpoint",
            "RTOS and Linux are reached while checkpoints are taken of them, and after they were reverted",
            400,
            checkpoints::run,
        )
        .on_qemu(),
        Case::new(
            "lan-1cpu",
            "on a board of one processor, a station reaches hypervisor, RTOS and Linux",
            400,
            one_cpu,
        )
        .on_qemu(),
        Case::new(
            "lan-bochs",
            "a station reaches Linux through the 82540EM of a board with VT-x",
            900,
            bochs,
        )
        .on_bochs(),
        Case::new(
            "lan-rtl8029",
            "Linux serves through its own driver for an old card, until its cable is pulled",
            400,
            alone::old_card,
        )
        .on_qemu(),
        Case::new(
            "lan-vlan",
            "Linux is reached within its virtual LAN alone, and with no address but its own",
            400,
            alone::vlan,
        )
        .on_qemu(),
    ]
}

fn default_board() -> Result<String> {
    let board = paths::read(&paths::default_board())?;
    String::from_utf8(board).context("the board file is no text")
}

/// The default board with all guests on one processor.
fn on_one_cpu(board: &str) -> String {
    board
        .replace("cpus = 2\n", "cpus = 1\n")
        .replace("cpu = 1\n", "cpu = 0\npriority = 200\n")
}

/// The default board, whose Linux has the address of the board's card.
fn with_address_of_card(board: &str, card: &NetworkCard) -> String {
    let nic = |more: &str| format!("nics = [{{ model = \"virtio\"{more} }}]\n");
    let mac = format!(", mac = \"{}\"", card.address_text());
    board.replace(&nic(""), &nic(&mac))
}

/// Boots a board with its card on the wire; returns it once all guests are up, and the card.
fn boot(
    lab: &Lab,
    wire: &Wire,
    station: &Client,
    model: CardModel,
    board: &str,
) -> Result<(Session, NetworkCard)> {
    let card = NetworkCard::on(wire, model, CARD)?;
    let session = lab.boot_with(board, |setup| {
        setup.pace = Pace::RealTime;
        setup.cards = vec![card];
    })?;
    // Not for the legacy system's prompt: the hypervisor's log may come in between.
    wait_for_gateway(lab, station, LINUX, "/healthz")?;
    Ok((session, card))
}

fn power_off(mut session: Session) -> Result<()> {
    session.send("\u{f}hpoweroff\r")?;
    session.wait_power_off()
}

fn one_cpu(lab: &Lab) -> Result<()> {
    serves(lab, CardModel::E1000e, &on_one_cpu(&default_board()?))
}

/// Bochs hands its card only broadcasts and what is for the card's own address, so that is Linux's.
fn bochs(lab: &Lab) -> Result<()> {
    let wire = lab.wire("lan")?;
    let station = Client::attach(&wire, STATION)?;
    let card = NetworkCard::on(&wire, CardModel::E1000, CARD)?;
    let board = with_address_of_card(&default_board()?, &card);
    let session = lab.boot_with(&board, |setup| {
        setup.pace = Pace::RealTime;
        setup.cards = vec![card];
    })?;
    wait_for_gateway(lab, &station, LINUX, "/healthz")?;
    for size in [0, 56, 1472] {
        station.ping(LINUX, size, PATIENCE)?;
    }
    check_blob(&station, LINUX, "10M")?;
    power_off(session)
}

fn serves(lab: &Lab, model: CardModel, board: &str) -> Result<()> {
    let wire = lab.wire("lan")?;
    let station = Client::attach(&wire, STATION)?;
    let (session, card) = boot(lab, &wire, &station, model, board)?;
    for address in [MANAGEMENT, RTOS, LINUX] {
        for size in [0, 56, 1472] {
            station.ping(address, size, PATIENCE)?;
        }
    }
    check_exchange(&station)?;
    check_blob(&station, LINUX, "16M").context("over a good wire")?;
    make_bad(&wire);
    check_blob(&station, LINUX, "2M").context("over a bad wire")?;
    wire.set(Target::All, Action::Clear);
    wire.set(Target::End(card.plug.end), Action::Cut);
    let deaf = station.ping(RTOS, 56, Duration::from_millis(500));
    ensure!(deaf.is_err(), "the wire is not cut");
    wire.set(Target::End(card.plug.end), Action::Restore);
    station.ping(RTOS, 56, PATIENCE)?;
    power_off(session)
}

/// Waits until the gateway at an address serves a page.
pub(super) fn wait_for_gateway(
    lab: &Lab,
    station: &Client,
    at: Ipv4Addr,
    path: &str,
) -> Result<()> {
    const LOOK: Duration = Duration::from_secs(1);
    loop {
        match station.http_text(at, 80, path, PATIENCE.min(lab.left())) {
            Ok((200, _)) => return Ok(()),
            other if lab.left().is_zero() => bail!("the gateway does not serve: {other:?}"),
            _ => thread::sleep(LOOK),
        }
    }
}

/// A call is made over UDP, and the gateway shows it.
fn check_exchange(station: &Client) -> Result<()> {
    let number = |digits| Number::new(digits).context("no subscriber's number");
    let (caller, callee) = (number(101)?, number(102)?);
    for (count, (request, reply)) in (0..).zip([
        (Request::Register(caller), Reply::Registered(caller)),
        (Request::Register(callee), Reply::Registered(callee)),
        (
            Request::Call(caller, callee),
            Reply::Ringing(caller, callee),
        ),
        (
            Request::Answer(callee),
            Reply::Connected(caller, callee, Tariff::Local),
        ),
    ]) {
        let question = Question {
            client: 1,
            number: count,
            operation: Operation::Exchange(request),
        };
        let once = Retry {
            attempts: 1,
            wait: PATIENCE,
        };
        let answer = station.udp_request(RTOS, protocol::PORT, &question.encode(), once)?;
        let outcome = Answer::decode(&answer.bytes)?.outcome;
        ensure!(
            outcome == Outcome::Done(reply),
            "{request:?} gave {outcome:?}"
        );
    }
    let page = |path| station.http_text(LINUX, 80, path, PATIENCE);
    let (_, text) = page("/?number=101")?;
    ensure!(text.contains("<td>101<td>connected<td>102<td"), "{text}");
    let (_, text) = page("/exchange.json")?;
    let shown: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(
        shown["totals"]["connected"] == 1 && shown["subscribers"][0]["other"] == json!(102),
        "{text}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Plug;

    #[test]
    fn changed_boards_are_right() {
        let text = default_board().unwrap();
        let board = config::toml::parse(&on_one_cpu(&text), "b", None).unwrap();
        assert_eq!(format!("{board:?}").matches("cpus: [0]").count(), 2);
        let card = NetworkCard {
            model: CardModel::E1000,
            address: [0x52, 0x54, 0, 0, 0, CARD],
            plug: Plug { end: 0, port: 0 },
        };
        let board = with_address_of_card(&text, &card);
        config::toml::parse(&board, "b", None).unwrap();
        assert!(board.contains(", mac = \"52:54:00:00:00:01\""));
    }
}

//! What befalls one part of the default board, and must not harm another: a bad wire, resets of Linux's card, a restart of
//! the RTOS, and a pulled cable.

use super::load::{Asked, ask, check, join};
use super::{LINUX, PATIENCE, RTOS, STATION, boot, default_board, power_off};
use crate::client::{Client, Retry};
use crate::emulator::CardModel;
use crate::suite::exchange::caller::Caller;
use crate::suite::gateway::check_blob;
use crate::suite::lab::{Lab, Session};
use crate::suite::linux;
use crate::wire::{Action, Share, Target, Wire};
use anyhow::{Context, Result, ensure};
use std::thread;
use std::time::Duration;

/// Calls of each pair over the bad wire.
const ROUNDS: u32 = 20;
/// Patient clients.
const AGAIN: Retry = Retry {
    attempts: 60,
    wait: Duration::from_millis(250),
};
/// What is downloaded while something happens.
const BLOB: &str = "48M";
/// How long is waited for what must not come.
const SILENCE: Duration = Duration::from_millis(500);
/// Linux takes its card down, and the driver off it; what it says then.
const CARD_DOWN: &str = "ip link set eth0 down; sleep 1; ip link set eth0 up; echo is u''p";
const DRIVER_OFF: &str = "cd /sys/bus/virtio/drivers/virtio_net; card=$(basename $(readlink /sys/class/net/eth0/device)); \
    echo $card >unbind; sleep 1; echo $card >bind; cd; ip address add 10.0.0.3/24 dev eth0; ip link set eth0 up; echo is u''p";

pub(super) fn run(lab: &Lab) -> Result<()> {
    let wire = lab.wire("lan")?;
    let station = Client::attach(&wire, STATION)?;
    let (mut session, card) = boot(lab, &wire, &station, CardModel::E1000e, &default_board()?)?;
    calls(&wire, card.plug.end, &station)?;
    session.send("\u{f}2")?;
    for command in [CARD_DOWN, DRIVER_OFF] {
        during_download(&station, || {
            linux::ask(&mut session, command, "is up").map(drop)
        })
        .context(command)?;
        station.ping(LINUX, 1472, PATIENCE)?;
    }
    during_download(&station, || restart_rtos(&mut session, &station))?;
    pull(&mut session, &station)?;
    power_off(session)
}

/// Calls are made over a wire that loses, doubles and reorders.
fn calls(wire: &Wire, board: usize, station: &Client) -> Result<()> {
    for action in [Action::Loss, Action::Duplicate, Action::Reorder] {
        wire.set(Target::All, action(Share::percent(5)));
    }
    let asked: Asked = ask(station, ROUNDS, AGAIN).context("over a bad wire")?;
    wire.set(Target::All, Action::Clear);
    let totals = check(station, asked)?;
    // Those that were lost on the way back, those that the wire doubled, and those that the clients repeat anyway.
    ensure!(
        totals["duplicates"].as_u64() > Some(asked.repeated),
        "{asked:?}, {totals}"
    );
    let counts = wire.counts(board);
    ensure!(
        counts.lost > 0 && counts.duplicated > 0 && counts.overtaken > 0,
        "the wire was good: {counts:?}"
    );
    Ok(())
}

/// A download from Linux goes on whole whatever this does meanwhile.
fn during_download(station: &Client, work: impl FnOnce() -> Result<()>) -> Result<()> {
    const START: Duration = Duration::from_millis(300);
    thread::scope(|scope| {
        let blob = scope.spawn(|| check_blob(station, LINUX, BLOB));
        thread::sleep(START);
        ensure!(!blob.is_finished(), "the download is over too soon");
        work()?;
        join(blob)
    })
}

/// The RTOS forgets all and serves again.
fn restart_rtos(session: &mut Session, station: &Client) -> Result<()> {
    session.send("\u{f}hrestart rtos\r")?;
    session.expect("rtos: started")?;
    let mut caller = Caller::new(station, 1, AGAIN);
    let totals = caller.totals().context("behind the restart")?;
    ensure!(
        (totals.subscribers, totals.calls) == (0, 0),
        "the RTOS was not restarted: {totals:?}"
    );
    // Beside a download, a busy host loses a frame now and then.
    let answered = (0..10).any(|_| station.ping(RTOS, 1472, Duration::from_secs(3)).is_ok());
    ensure!(answered, "the RTOS answers no long pings after its restart");
    Ok(())
}

/// The operator pulls the cable out of Linux's card, and puts it in again.
fn pull(session: &mut Session, station: &Client) -> Result<()> {
    for (word, carrier) in [("down", "0"), ("up", "1")] {
        session.send(&format!("\u{f}hlink linux.0 {word}\r"))?;
        session.expect("understudy> ")?;
        session.send("\u{f}2")?;
        let command = format!(
            "until grep {carrier} /sys/class/net/eth0/carrier; do sleep 1; done; echo s''een"
        );
        linux::ask(session, &command, "seen").with_context(|| format!("the link is {word}"))?;
        let patience = if word == "up" { PATIENCE } else { SILENCE };
        let answer = station.ping(LINUX, 56, patience);
        ensure!(
            answer.is_ok() == (word == "up"),
            "with the link {word}: {answer:?}"
        );
        station.ping(RTOS, 56, PATIENCE)?;
    }
    Ok(())
}

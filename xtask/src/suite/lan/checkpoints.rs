//! Guests on the network while checkpoints are taken of them.

use super::{
    CARD, LINUX, PATIENCE, RTOS, STATION, check_blob, default_board, power_off, wait_for_gateway,
};
use crate::client::Client;
use crate::emulator::{CardModel, NetworkCard, Pace};
use crate::suite::lab::Lab;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// MiB for what is kept of both guests, and for copies.
const MORE: u32 = 256 + 16 + 32;
/// Pings to the RTOS, and how many of them a busy host may lose.
const PINGS: usize = 200;
const LOST: usize = 2;

/// Frames that come while a guest stands still reach it, and it is reached after it was reverted.
pub(super) fn run(lab: &Lab) -> Result<()> {
    let wire = lab.wire("lan")?;
    let station = Client::attach(&wire, STATION)?;
    let card = NetworkCard::on(&wire, CardModel::E1000e, CARD)?;
    let mut session = lab.boot_with(&default_board()?, |setup| {
        setup.pace = Pace::RealTime;
        setup.cards = vec![card];
        setup.megabytes += MORE;
    })?;
    wait_for_gateway(lab, &station, LINUX, "/healthz")?;
    for (guest, every) in [("rtos", 5), ("linux", 25)] {
        session.send(&format!("\x0fhcheckpoint {guest} {every}\r"))?;
        session.expect_unless(&format!("{guest}: "), "no checkpoint")?;
        session.expect_unless(" pages copied", "no checkpoint")?;
    }
    let lost = (0..PINGS)
        .filter(|round| {
            let size = [0, 56, 1472][round % 3];
            station.ping(RTOS, size, Duration::from_secs(1)).is_err()
        })
        .count();
    ensure!(lost <= LOST, "{lost} of {PINGS} pings got no answer");
    check_blob(&station, LINUX, "4M").context("while checkpoints are taken")?;
    for guest in ["rtos", "linux"] {
        session.send(&format!("\x0fhrevert {guest}\r"))?;
        session.expect_unless(&format!("{guest}: resumed"), "cannot")?;
    }
    station.ping(RTOS, 56, PATIENCE)?;
    wait_for_gateway(lab, &station, LINUX, "/healthz")?;
    check_blob(&station, LINUX, "4M").context("behind a checkpoint")?;
    power_off(session)
}

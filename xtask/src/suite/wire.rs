//! The lab's own wires: two boards that run firmware which this project did not write find each other over one.
//!
//! The firmware is iPXE, which has drivers for Intel's cards. What is checked is on the wire: each board sends packets to the
//! other's card, whose address it has learnt by ARP. A station of this program is on the wire, too, and pings them.

use super::Case;
use super::lab::Lab;
use crate::client::{Client, Station};
use crate::emulator::{CardModel, NetworkCard, Pace, Setup};
use crate::image;
use crate::packages;
use crate::paths;
use crate::wire::Frame;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PACKAGE: &str = "ipxe";
/// The boards' addresses, of the net that RFC 5737 keeps for documents.
const ADDRESSES: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];
/// The station's.
const STATION: [u8; 4] = [192, 0, 2, 3];
/// RAM of the boards. With 64 MiB the firmware does not come up.
const MEGABYTES: u32 = 256;

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "lab-wire",
            "two boards with 82540EM cards find each other over a virtual wire",
            300,
            |lab| find(lab, [CardModel::E1000; 2], &[0, 1]),
        )
        .on_both(),
        Case::new(
            "lab-wire-82574",
            "so do two with 82574L cards",
            180,
            |lab| find(lab, [CardModel::E1000e; 2], &[0, 1]),
        )
        .on_qemu(),
        // The firmware's driver hears nothing on QEMU's 82576.
        Case::new(
            "lab-wire-82576",
            "a board with an 82574L finds one with an 82576",
            180,
            |lab| find(lab, [CardModel::E1000e, CardModel::Igb], &[0]),
        )
        .on_qemu(),
    ]
}

/// Boots two boards with these cards; the ones at `finders` must find the other.
fn find(lab: &Lab, models: [CardModel; 2], finders: &[usize]) -> Result<()> {
    let tree = packages::unpacked(PACKAGE, "amd64", lab.may_install)?;
    let firmware = paths::read(&tree.join("boot/ipxe.lkrn"))?;
    let wire = lab.wire("wire")?;
    let mut boards = Vec::new();
    for (end, model) in models.into_iter().enumerate() {
        let iso = cd(&lab.folder(&format!("cd-{end}"))?, &firmware, end)?;
        let mut setup = Setup::new(iso, 1, MEGABYTES);
        // An answer must come before the other board's patience is over.
        setup.pace = Pace::RealTime;
        setup.cards = vec![NetworkCard::on(&wire, model, card_number(end))?];
        boards.push(lab.start(&setup)?);
    }
    let station = Client::attach(&wire, Station::new(STATION))?;
    for from in finders.iter().copied() {
        wire.wait_for(|frame| knows_the_other(frame, from), lab.left())
            .with_context(|| {
                let [first, second] = [0, 1].map(|end| wire.counts(end).sent);
                format!(
                    "board {from} sent no packet to the other's card; the boards sent {first} and \
                     {second} frames"
                )
            })?;
        ping(lab, &station, ADDRESSES[from])?;
    }
    Ok(())
}

/// Pings a board until it answers: between two attempts of its own the firmware may not listen.
fn ping(lab: &Lab, station: &Client, to: [u8; 4]) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(2);
    loop {
        let answer = station.ping(to.into(), 56, PATIENCE.min(lab.left()));
        if answer.is_ok() || lab.left().is_zero() {
            return answer.map(drop);
        }
    }
}

/// Makes a CD with the firmware and what this end's board is to do: to ask for a file of the other's, again and again.
fn cd(folder: &Path, firmware: &[u8], end: usize) -> Result<PathBuf> {
    let tree = folder.join("cd");
    paths::fresh_folder(&tree.join("boot/grub"))?;
    paths::write(&tree.join("boot/ipxe"), firmware)?;
    paths::write(&tree.join("boot/script"), script(end))?;
    paths::write(
        &tree.join("boot/grub/grub.cfg"),
        "set timeout=0\nlinux16 /boot/ipxe\ninitrd16 /boot/script\nboot\n",
    )?;
    let iso = folder.join("ipxe.iso");
    image::mkrescue(&tree, &iso)?;
    Ok(iso)
}

fn script(end: usize) -> String {
    let [own, other] = [end, 1 - end].map(|end| std::net::Ipv4Addr::from(ADDRESSES[end]));
    format!(
        "#!ipxe\nset net0/ip {own}\nset net0/netmask 255.255.255.0\nifopen net0\n:again\n\
         imgfetch http://{other}/ ||\nsleep 1\ngoto again\n"
    )
}

const fn card_number(end: usize) -> u8 {
    end as u8 + 1
}

const fn card_address(end: usize) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, card_number(end)]
}

/// Whether a frame is an IPv4 packet from this end's card to the other one's, whose address the board can only have from
/// a frame that came over the wire.
fn knows_the_other(frame: &Frame, from: usize) -> bool {
    const IPV4: [u8; 2] = [0x08, 0x00];
    let head = [&card_address(1 - from)[..], &card_address(from), &IPV4].concat();
    frame.from == from && frame.bytes.starts_with(&head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packets_from_card_to_card_tell_that_the_wire_carries() {
        let frame = |from: usize, to: [u8; 6], kind: u8| Frame {
            from,
            bytes: [&to[..], &card_address(from), &[0x08, kind]].concat(),
        };
        assert!(knows_the_other(&frame(0, card_address(1), 0), 0));
        assert!(!knows_the_other(&frame(0, card_address(1), 0), 1));
        assert!(!knows_the_other(&frame(0, card_address(1), 6), 0));
        assert!(!knows_the_other(&frame(1, [0xff; 6], 0), 1));
    }

    #[test]
    fn each_board_asks_for_something_of_the_other() {
        assert!(script(0).contains("ip 192.0.2.1\n") && script(0).contains("http://192.0.2.2/"));
        assert!(script(1).contains("ip 192.0.2.2\n") && script(1).contains("http://192.0.2.1/"));
    }
}

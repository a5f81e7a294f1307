//! Linux alone behind a card of the board: on an old card, in a virtual LAN, and with an address that is not its own.

use super::{CARD, LINUX, MANAGEMENT, PATIENCE, STATION, power_off, wait_for_gateway};
use crate::client::{Client, Station};
use crate::emulator::{CardModel, NetworkCard, Pace};
use crate::suite::gateway::check_blob;
use crate::suite::lab::{Lab, Session};
use crate::suite::linux;
use crate::suite::management::{Metrics, wait_for_ping};
use crate::wire::Wire;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// A page that does not need an exchange.
const PAGE: &str = "/blob/1";
/// The VLAN that Linux is in.
const VLAN: u16 = 10;
/// A station there.
const TAGGED: Station = Station {
    vlan: Some(VLAN),
    ..Station::new([10, 0, 0, 8])
};
/// One in another VLAN.
const ELSEWHERE: Station = Station {
    vlan: Some(VLAN + 1),
    ..Station::new([10, 0, 0, 7])
};
/// How long is waited for what must not come.
const SILENCE: Duration = Duration::from_millis(500);
/// Linux's address, and one that it takes.
const OWN: [u8; 6] = [0x52, 0x54, 0, 0, 0, 3];
const FALSE: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x66];

/// A board with Linux, of a kernel whose files are called `linux` and `initramfs` with this suffix.
fn board(suffix: &str, nic: &str, uplink: &str) -> String {
    format!(
        "[board]\nname = \"alone\"\ncpus = 1\nwhen_all_off = \"power-off\"\n\n\
         [[guest]]\nname = \"linux\"\nimage = \"@linux{suffix}\"\nmemory = \"256M\"\ncpu = 0\n\
         command_line = \"console=ttyS0 quiet net={LINUX}/24 gateway_to=10.0.0.2\"\n\
         modules = [{{ image = \"@initramfs{suffix}\" }}]\nnics = [{{ {nic} }}]\n\n\
         [[uplink]]\nname = \"lan\"\ncard = \"52:54:00:00:00:01\"\n{uplink}\n\
         [management]\naddress = \"{MANAGEMENT}/24\"\n"
    )
}

fn text(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

fn boot(lab: &Lab, wire: &Wire, station: &Client, board: &str) -> Result<Session> {
    let card = NetworkCard::on(wire, CardModel::E1000e, CARD)?;
    let session = lab.boot_with(board, |setup| {
        setup.pace = Pace::RealTime;
        setup.cards = vec![card];
    })?;
    wait_for_gateway(lab, station, LINUX, PAGE)?;
    Ok(session)
}

/// Linux drives the hypervisor's RTL8029 by its driver for NE2000s.
pub(super) fn old_card(lab: &Lab) -> Result<()> {
    let wire = lab.wire("lan")?;
    let station = Client::attach(&wire, STATION)?;
    let nic = format!("model = \"rtl8029\", mac = \"{}\"", text(OWN));
    let board = board("-generic", &nic, "");
    let mut session = boot(lab, &wire, &station, &board)?;
    linux::userland(&mut session)?;
    let driver = "basename $(readlink /sys/class/net/eth0/device/driver)";
    linux::ask(&mut session, driver, "\nne2k-pci")?;
    for size in [0, 1, 56, 1472] {
        station.ping(LINUX, size, PATIENCE)?;
    }
    check_blob(&station, LINUX, "1M")?;
    pull(lab, &mut session, &wire, &station)?;
    power_off(session)
}

/// This card cannot see that its cable is out, and Linux goes on sending: nothing of it arrives.
fn pull(lab: &Lab, session: &mut Session, wire: &Wire, station: &Client) -> Result<()> {
    session.send("\u{f}hlink linux.0 down\r")?;
    session.expect("link linux.0 down")?;
    session.expect("understudy> ")?;
    session.send("\u{f}1")?;
    let tap = wire.tap();
    let ping = format!(
        "ip neigh flush dev eth0; ping -c 2 -W 1 {}",
        STATION.address
    );
    linux::ask(session, &ping, "100% packet loss")?;
    let heard = |frame: &[u8]| (frame.get(6..12) == Some(&OWN)).then(|| frame.to_vec());
    let heard = tap.find(SILENCE, heard);
    ensure!(heard.is_none(), "a pulled cable carries {heard:02x?}");
    session.send("\u{f}hlink linux.0 up\r")?;
    session.expect("link linux.0 up")?;
    session.expect("understudy> ")?;
    // What Linux holds back while it asks in vain for the station's address, it drops.
    wait_for_ping(lab, station, LINUX, 56)
}

/// Linux is reached within its VLAN alone, and is cut off while it uses a false address.
pub(super) fn vlan(lab: &Lab) -> Result<()> {
    let wire = lab.wire("lan")?;
    let [untagged, tagged, elsewhere] = [
        Client::attach(&wire, STATION)?,
        Client::attach(&wire, TAGGED)?,
        Client::attach(&wire, ELSEWHERE)?,
    ];
    let nic = format!(
        "model = \"virtio\", mac = \"{}\", vlan = {VLAN}, guard = true",
        text(OWN)
    );
    let uplink = format!("vlan = 1\ntrunk = [{VLAN}, {}]\n", VLAN + 1);
    let mut session = boot(lab, &wire, &tagged, &board("", &nic, &uplink))?;
    linux::userland(&mut session)?;
    tagged.ping(LINUX, 1472, PATIENCE)?;
    check_blob(&tagged, LINUX, "4M").context("with a tag")?;
    untagged.ping(MANAGEMENT, 1472, PATIENCE)?;
    for (station, other) in [
        (&untagged, LINUX),
        (&elsewhere, LINUX),
        (&tagged, MANAGEMENT),
        (&elsewhere, MANAGEMENT),
    ] {
        ensure!(
            station.ping(other, 56, SILENCE).is_err(),
            "{other} hears another VLAN"
        );
    }
    let before = Metrics::read(&untagged)?;
    set_address(&mut session, FALSE)?;
    // A question of its own, and an answer to somebody who knows the old address and asks for the new one.
    linux::ask(&mut session, "ping -c 2 -W 1 10.0.0.8", "100% packet loss")?;
    ensure!(
        tagged.ping(LINUX, 56, SILENCE).is_err(),
        "a false address is not cut off"
    );
    let escaped = wire.wait_for(
        |frame| frame.bytes.get(6..12) == Some(&FALSE),
        Duration::ZERO,
    );
    ensure!(escaped.is_none(), "a false address is on the wire");
    let after = Metrics::read(&untagged)?;
    let series = "understudy_port_dropped_frames_total{port=\"linux.0\",reason=\"spoofed\"}";
    ensure!(
        after.growth(&before, series)? >= 1.0,
        "no frame counts as spoofed"
    );
    set_address(&mut session, OWN)?;
    tagged.ping(LINUX, 1472, PATIENCE)?;
    power_off(session)
}

fn set_address(session: &mut Session, address: [u8; 6]) -> Result<()> {
    let address = text(address);
    let command = format!(
        "ip link set eth0 down; ip link set eth0 address {address}; ip link set eth0 up; \
         echo is $(cat /sys/class/net/eth0/address)"
    );
    linux::ask(session, &command, &format!("is {address}")).map(drop)
}

#[cfg(test)]
mod tests {
    #[test]
    fn boards_are_right() {
        for (suffix, nic, uplink) in [
            ("-generic", "model = \"rtl8029\"", ""),
            (
                "",
                "model = \"virtio\", guard = true",
                "vlan = 1\ntrunk = [10]\n",
            ),
        ] {
            let text = super::board(suffix, nic, uplink);
            config::toml::parse(&text, "b", None).unwrap();
        }
    }
}

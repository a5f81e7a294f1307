//! Two Linux guests of one board talk to each other by the virtual switch alone, in long frames.

use super::Case;
use super::lab::Lab;
use super::lan::wait_for_gateway;
use super::linux::ask;
use super::management::{MANAGEMENT, Metrics, wait_for_ping};
use crate::client::{Client, Station};
use crate::emulator::{CardModel, NetworkCard, Pace};
use anyhow::{Result, ensure};
use std::net::Ipv4Addr;

/// The guest that serves, and the one that asks.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
const STATION: Station = Station::new([10, 0, 0, 9]);
const CARD: u8 = 1;
/// The longest frame of the guests' cards: an Ethernet header and a packet of 9000 bytes.
const FRAME_MAX: f64 = 9014.0;

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "guests-tcp",
            "two Linux guests transfer data whole and in frames longer than their cards', one of them with two pairs of queues",
            400,
            talk,
        )
        .on_qemu(),
    ]
}

/// A board with two Linux guests, of which the second has two vCPUs.
fn board(card: &str) -> String {
    let guest = |name: &str, cpu: &str, address: Ipv4Addr| {
        format!(
            "[[guest]]\nname = \"{name}\"\nimage = \"@linux\"\nmemory = \"192M\"\ncpu = {cpu}\n\
             modules = [{{ image = \"@initramfs\" }}]\n\
             command_line = \"console=ttyS0 quiet net={address}/24 gateway_to=10.0.0.2\"\n\
             nics = [{{ model = \"virtio\", mtu = 9000 }}]\n\n"
        )
    };
    format!(
        "[board]\nname = \"neighbours\"\ncpus = 3\nwhen_all_off = \"power-off\"\n\n{}{}\
         [[uplink]]\nname = \"lan\"\ncard = \"{card}\"\n\n[management]\naddress = \"10.0.0.1/24\"\n",
        guest("server", "0", SERVER),
        guest("client", "[1, 2]", CLIENT),
    )
}

fn talk(lab: &Lab) -> Result<()> {
    let wire = lab.wire("lan")?;
    let card = NetworkCard::on(&wire, CardModel::E1000e, CARD)?;
    let station = Client::attach(&wire, STATION)?;
    let mut session = lab.boot_with(&board(&card.address_text()), |setup| {
        setup.pace = Pace::RealTime;
        setup.cards = vec![card];
    })?;
    wait_for_ping(lab, &station, MANAGEMENT, 56)?;
    for guest in [SERVER, CLIENT] {
        wait_for_gateway(lab, &station, guest, "/blob/1")?;
    }
    session.send("\u{f}2")?;
    ask(&mut session, "echo read''y", "ready")?;
    let queues = "echo $(ls -d /sys/class/net/eth0/queues/[rt]x-* | wc -l) que''ues";
    ask(&mut session, queues, "4 queues")?;
    let ping = format!("ping -c 5 -s 8000 {SERVER}");
    ask(&mut session, &ping, " 0% packet loss")?;
    let before = Metrics::read(&station)?;
    // The same bytes from the neighbour and from itself.
    let compare = format!(
        "sum() {{ wget -q -O - http://$1/blob/64M | md5sum; }}; \
         there=$(sum {SERVER}); here=$(sum 127.0.0.1); \
         [ \"$there\" = \"$here\" ] && echo al''ike || echo FAI''LED \"$there\" \"$here\""
    );
    ask(&mut session, &compare, "alike")?;
    let after = Metrics::read(&station)?;
    let grown = |what: &str| {
        after.growth(
            &before,
            &format!("understudy_port_received_{what}_total{{port=\"server.0\"}}"),
        )
    };
    let (frames, bytes) = (grown("frames")?, grown("bytes")?);
    ensure!(
        bytes > f64::from(64 << 20) && bytes / frames > FRAME_MAX,
        "the server sent {bytes} bytes in {frames} frames"
    );
    session.send("\u{f}hpoweroff\r")?;
    session.wait_power_off()
}

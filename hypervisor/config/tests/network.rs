//! The network's part of a board file: what it means, and how mistakes in it are told.

use config::network::derived_mac;
use config::toml::parse;
use config::{Board, Card, GuestNic, Management, NicModel, Uplink, Vlans, blob};

const BOARD: &str = r#"
[board]
name = "blade"
cpus = 2

[[guest]]
name = "rtos"
image = "@rtos"
memory = "16M"
cpu = 1
nics = [{ model = "ne2000", port = 0x320, irq = 10, urgent = true, receive_limit = "10 Mbit/s" }]

[[guest]]
name = "linux"
image = "@linux"
memory = "64M"
cpu = [0, 0]
nics = [
    { model = "virtio", mac = "52:54:00:00:00:20", vlan = 2, trunk = [10, 20], guard = true, mtu = 9000 },
    { model = "rtl8029" },
]

[[uplink]]
name = "lan"
card = "00:1f.6"
trunk = [10]

[[uplink]]
name = "wan"
card = "52:54:00:00:00:01"
mtu = 9000

[management]
address = "192.0.2.2/24"
gateway = "192.0.2.1"
vlan = 10
"#;

fn board() -> Board {
    parse(BOARD, "b.toml", None).expect("a sound board").0
}

/// The errors of the board with a change.
fn errors_after(from: &str, to: &str) -> Vec<String> {
    assert!(BOARD.contains(from), "{from}");
    let errors = parse(&BOARD.replacen(from, to, 1), "b.toml", None).expect_err(to);
    let lines = errors.errors.iter();
    lines
        .map(|error| format!("{}: {}", error.line, error.reason))
        .collect()
}

#[test]
fn uplinks_and_the_hypervisors_station() {
    let board = board();
    let lan = Uplink {
        name: "lan".into(),
        card: Card::Slot {
            bus: 0,
            device: 0x1F,
            function: 6,
        },
        vlans: Vlans {
            untagged: None,
            tagged: vec![10],
        },
        mtu: 1500,
    };
    let wan = Uplink {
        name: "wan".into(),
        card: Card::Mac("52:54:00:00:00:01".parse().unwrap()),
        vlans: Vlans::access(1),
        mtu: 9000,
    };
    assert_eq!(board.uplinks, [lan, wan]);
    let management = Management {
        mac: derived_mac("blade", "management", 0),
        address: [192, 0, 2, 2],
        prefix: 24,
        gateway: Some([192, 0, 2, 1]),
        vlan: 10,
    };
    assert_eq!(board.management, Some(management));
    assert!(board.has_network());
    assert_eq!(blob::decode(&blob::encode(&board)), Ok(board));
}

#[test]
fn cards_of_guests() {
    let board = board();
    let old = GuestNic {
        model: NicModel::Ne2000 {
            port: 0x320,
            irq: 10,
        },
        mac: derived_mac("blade", "rtos", 0),
        vlans: Vlans::access(1),
        guard: false,
        urgent: true,
        receive_limit: Some(10_000_000),
        transmit_limit: None,
        mtu: 1500,
        queues: 1,
    };
    assert_eq!(board.guests[0].nics, std::slice::from_ref(&old));
    let virtio = GuestNic {
        model: NicModel::Virtio,
        mac: "52:54:00:00:00:20".parse().unwrap(),
        vlans: Vlans {
            untagged: Some(2),
            tagged: vec![10, 20],
        },
        guard: true,
        urgent: false,
        receive_limit: None,
        mtu: 9000,
        // One pair for each vCPU.
        queues: 2,
        ..old
    };
    assert_eq!(board.guests[1].nics[0], virtio);
    assert_eq!(board.guests[1].nics[1].model, NicModel::Rtl8029);
    assert_eq!(board.guests[1].nics[1].queues, 1);
}

#[test]
fn derived_addresses_are_stations_and_differ() {
    let mut all = Vec::new();
    for board in ["a", "b", "blade-1"] {
        for owner in ["rtos", "linux", "management"] {
            all.extend((0..4).map(|index| derived_mac(board, owner, index)));
        }
    }
    assert!(all.iter().all(|mac| mac.is_station() && mac.0[0] == 2));
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn a_board_without_guests_has_a_station_at_least() {
    let alone = "[board]\nname = \"b\"\ncpus = 1\n[management]\naddress = \"192.0.2.2/24\"\n";
    assert!(parse(alone, "b.toml", None).is_ok());
    let nothing = "[board]\nname = \"b\"\ncpus = 1\n";
    assert!(parse(nothing, "b.toml", None).is_err());
}

#[test]
fn mistakes_are_told_with_their_line() {
    for (from, to, expected) in [
        (
            "model = \"ne2000\"",
            "model = \"ne3000\"",
            "11: model cannot be \"ne3000\"; did you mean \"ne2000\"?",
        ),
        (
            "port = 0x320",
            "port = 0x321",
            "11: port 0x321 cannot be an NE2000's: a multiple of 0x20 from 0x200 to 0x3c0 can",
        ),
        (
            "irq = 10",
            "irq = 4",
            "11: an NE2000 cannot have IRQ 4; it can have one of [3, 5, 10, 11, 15]",
        ),
        (
            "10 Mbit/s",
            "10 MB",
            "11: receive_limit cannot be \"10 MB\": write a whole number and kbit/s, Mbit/s or Gbit/s, like \"10 \
             Mbit/s\"",
        ),
        (
            "10 Mbit/s",
            "1 kbit/s",
            "11: a limit of 1000 bits a second is too low; 64 kbit/s is the least",
        ),
        (
            "52:54:00:00:00:20",
            "52:54:00:00:00",
            "19: mac cannot be \"52:54:00:00:00\": a MAC address is six pairs of hexadecimal digits with colons \
             between them",
        ),
        (
            "52:54:00:00:00:20",
            "01:00:5e:00:00:20",
            "19: 01:00:5e:00:00:20 cannot be a station's address",
        ),
        (
            "trunk = [10, 20]",
            "trunk = [2]",
            "19: VLAN 2 is named twice",
        ),
        (
            "trunk = [10, 20]",
            "trunk = [4095]",
            "19: VLAN 4095 is outside 1 to 4094",
        ),
        (
            "mtu = 9000 }",
            "mtu = 9001 }",
            "19: mtu = 9001 is outside 576 to 9000",
        ),
        (
            "model = \"rtl8029\"",
            "model = \"rtl8029\", mtu = 1501",
            "20: mtu = 1501 is outside 576 to 1500",
        ),
        (
            "model = \"rtl8029\"",
            "model = \"rtl8029\", irq = 5",
            "20: only the model \"ne2000\" has the key \"irq\"",
        ),
        (
            "model = \"rtl8029\"",
            "model = \"virtio\", queues = 9",
            "20: queues = 9 is outside 1 to 8",
        ),
        (
            "model = \"rtl8029\"",
            "model = \"virtio\", mac = \"52:54:00:00:00:20\"",
            "20: another station of the board has the address 52:54:00:00:00:20",
        ),
        (
            "00:1f.6",
            "0:1f.6",
            "25: card cannot be \"0:1f.6\": name the card by its place on the PCI bus, like \"00:03.0\", or by its \
             MAC address, like \"52:54:00:12:34:56\"",
        ),
        ("00:1f.6", "00:20.0", "25: no card can be at 00:20.0"),
        (
            "name = \"wan\"",
            "name = \"lan\"",
            "29: there is already an uplink named \"lan\"",
        ),
        (
            "192.0.2.2/24",
            "192.0.2.2",
            "34: address cannot be \"192.0.2.2\": write the address and the length of the network's, like \
             \"192.0.2.2/24\"",
        ),
        (
            "192.0.2.2/24",
            "192.0.2.255/24",
            "34: 192.0.2.255 cannot be a station's address",
        ),
        (
            "gateway = \"192.0.2.1\"",
            "gateway = \"192.0.3.1\"",
            "35: 192.0.3.1 is no neighbour of 192.0.2.2/24",
        ),
    ] {
        assert_eq!(errors_after(from, to), [expected], "{to}");
    }
}

#[test]
fn there_are_so_many_ports_and_no_more() {
    let mut board = board();
    let mut nic = board.guests[1].nics[1].clone();
    nic.model = NicModel::Virtio;
    let guest = board.guests[1].clone();
    board.guests.clear();
    for index in 0..8 {
        let mut guest = guest.clone();
        guest.name = format!("g{index}");
        guest.priority = index;
        guest.nics = (0..4)
            .map(|at| GuestNic {
                mac: derived_mac("b", &guest.name, at),
                ..nic.clone()
            })
            .collect();
        board.guests.push(guest);
    }
    // Two uplinks, the management station, and four for each guest: one too many.
    let problems = board.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].reason.contains("35 network ports"));
    board.guests[7].nics.truncate(1);
    assert_eq!(board.problems(), []);
}

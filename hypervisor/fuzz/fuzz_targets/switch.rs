//! The virtual switch on frames of any bytes: none leaves where it came in, by a port that is off or not in its VLAN, or from
//! somebody whom the port's guard does not know.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net::{MacAddress, PortConfig, PortId, Rate, Switch, SwitchConfig, VlanId, flow_hash};

const HZ: u64 = 1_000_000;
const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const QUOTA: u16 = 4;
/// The VLANs of the ports' frames without a tag, and with one.
const PORTS: [(Option<u16>, &[u16]); 4] = [
    (Some(1), &[]),
    (Some(1), &[]),
    (Some(1), &[2, 3]),
    (Some(2), &[]),
];
/// Which of them has a guard.
const GUARDED: usize = 0;

fn config(index: usize) -> PortConfig {
    let (untagged, tagged) = PORTS[index];
    let limit = (index == 3).then_some(Rate {
        bytes_per_second: 10_000,
        burst: 3000,
    });
    PortConfig {
        untagged: untagged.and_then(VlanId::new),
        tagged: tagged.iter().copied().filter_map(VlanId::new).collect(),
        station: (index == GUARDED).then_some(OWN),
        guard: index == GUARDED,
        quota: QUOTA,
        ingress: limit,
        egress: limit,
        priority: index as u8,
    }
}

fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// A frame came out of a port.
fn check(from: usize, to: usize, frame: &[u8]) {
    assert!(frame.len() >= 14);
    let (untagged, tagged) = PORTS[to];
    let (vlan, packet) = match word(frame, 12) {
        0x8100 => (Some(word(frame, 14) & 0xFFF), 18),
        _ => (untagged, 14),
    };
    let vlan = vlan.expect("the port takes frames without a tag");
    assert_eq!(packet == 18, tagged.contains(&vlan));
    let (untagged, tagged) = PORTS[from];
    assert!(untagged == Some(vlan) || tagged.contains(&vlan));
    let kind = word(frame, packet - 2);
    assert!(![0x8100, 0x88A8, 0x9100].contains(&kind));
    if from == GUARDED {
        assert_eq!(frame[6..12], OWN.0);
        if [0x0806, 0x8035].contains(&kind) {
            assert_eq!(frame[packet + 8..packet + 14], OWN.0);
        }
    } else {
        assert_ne!(frame[6..12], OWN.0);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut switch = Switch::new(SwitchConfig {
        ticks_per_second: HZ,
        ageing_seconds: 300,
        seed: 1,
    });
    let ports: Vec<PortId> = (0..PORTS.len())
        .map(|index| switch.add_port(config(index)).expect("a few ports"))
        .collect();
    switch.open(ports[GUARDED], true);
    let mut now = 0;
    let mut rest = bytes;
    while let [step, length, more @ ..] = rest {
        let from = usize::from(step % 4);
        let (frame, more) = more.split_at(more.len().min(usize::from(*length)));
        rest = more;
        now += HZ * (1 << (step >> 5));
        if step & 0x10 != 0 {
            switch.set_carrier(ports[from], step & 0x08 != 0);
        }
        let way = switch.forward(ports[from], frame, frame.len(), now);
        let flow = flow_hash(frame);
        for to in way.ports.iter() {
            assert!(to != ports[from] && switch.is_up(to) && switch.is_up(ports[from]));
            let frame = match way.rewritten(to, frame) {
                None => frame.to_vec(),
                Some(new) => [new.bytes(), &frame[new.replaces()..]].concat(),
            };
            check(from, to.index(), &frame);
            assert_eq!(flow_hash(&frame), flow);
        }
        if step & 0x04 != 0 && !way.ports.is_empty() {
            switch.take_back(ports[from], &way, frame.len());
        }
        for port in &ports {
            assert!(switch.stations(*port) <= QUOTA);
        }
    }
});

//! The switch, rule by rule.

mod model;

use net::{Forwarding, MacAddress, PortConfig, PortId, Rate, Reason, Switch, SwitchConfig, VlanId};
use proptest::prelude::*;

const HZ: u64 = 1_000_000;
const AGEING: u64 = 300 * HZ;

fn switch() -> Switch {
    Switch::new(SwitchConfig {
        ticks_per_second: HZ,
        ageing_seconds: 300,
        seed: 0x1234_5678,
    })
}

fn vlan(number: u16) -> VlanId {
    VlanId::new(number).expect("a VLAN")
}

fn station(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number])
}

fn access(number: u16) -> PortConfig {
    PortConfig {
        untagged: Some(vlan(number)),
        ..PortConfig::default()
    }
}

/// The first bytes of a frame; the tag is its whole control information.
fn head(to: MacAddress, from: MacAddress, tag: Option<u16>) -> Vec<u8> {
    let mut head = [to.0, from.0].concat();
    if let Some(tag) = tag {
        head.extend([0x81, 0x00]);
        head.extend(tag.to_be_bytes());
    }
    head.extend([0x08, 0x00, 0x45, 0x00]);
    head
}

fn add(switch: &mut Switch, config: PortConfig) -> PortId {
    switch.add_port(config).expect("a port")
}

/// The ports that a frame leaves by, with the first bytes that it has there.
fn leaves(way: &Forwarding, head: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let ports = way.ports.iter();
    ports
        .map(|port| {
            let bytes = match way.rewritten(port, head) {
                None => head.to_vec(),
                Some(new) => [new.bytes(), &head[new.replaces()..]].concat(),
            };
            (port.index(), bytes)
        })
        .collect()
}

#[test]
fn it_floods_until_it_knows_better() {
    let mut switch = switch();
    let ports: Vec<_> = (0..3).map(|_| add(&mut switch, access(1))).collect();
    let there = head(station(2), station(1), None);
    let way = switch.forward(ports[0], &there, 60, 0);
    assert_eq!(
        leaves(&way, &there),
        [(1, there.clone()), (2, there.clone())]
    );
    let back = head(station(1), station(2), None);
    let way = switch.forward(ports[2], &back, 60, 1);
    assert_eq!(leaves(&way, &back), [(0, back.clone())]);
    let way = switch.forward(ports[0], &there, 60, 2);
    assert_eq!(leaves(&way, &there), [(2, there.clone())]);
    // To a station behind the same port it goes nowhere.
    let same = head(station(1), station(3), None);
    assert!(switch.forward(ports[0], &same, 60, 3).ports.is_empty());
    // A link that is down has no stations.
    switch.set_carrier(ports[2], false);
    let way = switch.forward(ports[0], &there, 60, 4);
    assert_eq!(leaves(&way, &there), [(1, there.clone())]);
    let counters = switch.counters(ports[1]);
    assert_eq!((counters.frames_out, counters.bytes_out), (2, 120));
    assert_eq!(switch.counters(ports[0]).frames_in, 4);
}

#[test]
fn tags_come_and_go_with_the_ports() {
    let mut switch = switch();
    let plain = add(&mut switch, access(10));
    let trunk = add(
        &mut switch,
        PortConfig {
            untagged: Some(vlan(1)),
            tagged: vec![vlan(10), vlan(20)],
            ..PortConfig::default()
        },
    );
    let other = add(&mut switch, access(20));
    let urgent = add(
        &mut switch,
        PortConfig {
            priority: 6,
            ..access(10)
        },
    );
    let untagged = head(MacAddress::BROADCAST, station(1), None);
    let tagged = |tag| head(MacAddress::BROADCAST, station(1), Some(tag));
    let way = switch.forward(plain, &untagged, 60, 0);
    assert_eq!(
        leaves(&way, &untagged),
        [(1, tagged(10)), (3, untagged.clone())]
    );
    let way = switch.forward(urgent, &untagged, 60, 0);
    assert_eq!(
        leaves(&way, &untagged),
        [(0, untagged.clone()), (1, tagged(6 << 13 | 10))]
    );
    let way = switch.forward(trunk, &tagged(3 << 13 | 20), 64, 0);
    assert_eq!(leaves(&way, &tagged(3 << 13 | 20)), [(2, untagged.clone())]);
    // A tag without a VLAN: the frame is in that of frames without a tag, where nobody else is.
    assert!(
        switch
            .forward(trunk, &tagged(5 << 13), 64, 0)
            .ports
            .is_empty()
    );
    let way = switch.forward(plain, &tagged(5 << 13), 64, 0);
    assert_eq!(
        leaves(&way, &tagged(5 << 13)),
        [(1, tagged(5 << 13 | 10)), (3, untagged)]
    );
    // VLANs that the ports are not in, or that do not exist.
    for (port, tag) in [(trunk, 30), (other, 10), (trunk, 4095)] {
        let before = switch.counters(port).dropped[Reason::Vlan as usize];
        assert!(switch.forward(port, &tagged(tag), 64, 0).ports.is_empty());
        assert_eq!(
            switch.counters(port).dropped[Reason::Vlan as usize],
            before + 1
        );
    }
}

#[test]
fn a_guard_lets_one_station_send() {
    let mut switch = switch();
    let guarded = add(
        &mut switch,
        PortConfig {
            station: Some(station(1)),
            guard: true,
            ..access(1)
        },
    );
    switch.open(guarded, true);
    let free = add(&mut switch, access(1));
    let ask = |from: MacAddress, sender: MacAddress, kind: [u8; 2]| {
        let mut head = [MacAddress::BROADCAST.0, from.0].concat();
        head.extend(kind);
        head.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        head.extend(sender.0);
        head
    };
    let (own, other) = (station(1), station(2));
    for kind in [[0x08, 0x06], [0x80, 0x35]] {
        assert_eq!(
            switch
                .forward(guarded, &ask(own, own, kind), 60, 0)
                .ports
                .len(),
            1
        );
        for (from, sender) in [(own, other), (other, own), (other, other)] {
            let way = switch.forward(guarded, &ask(from, sender, kind), 60, 0);
            assert!(way.ports.is_empty(), "{from} {sender}");
        }
    }
    // Nobody else takes the station's place.
    let stolen = head(MacAddress::BROADCAST, own, None);
    assert!(switch.forward(free, &stolen, 60, 0).ports.is_empty());
    let to_it = head(own, other, None);
    assert_eq!(
        leaves(&switch.forward(free, &to_it, 60, 0), &to_it).len(),
        1
    );
    assert_eq!(switch.counters(free).dropped[Reason::Spoofed as usize], 1);
    assert_eq!(
        switch.counters(guarded).dropped[Reason::Spoofed as usize],
        6
    );
}

#[test]
fn a_station_of_the_board_is_where_it_is_while_it_is_there() {
    let mut switch = switch();
    let own = add(
        &mut switch,
        PortConfig {
            station: Some(station(1)),
            ..access(1)
        },
    );
    let other = add(&mut switch, access(1));
    let taken = head(MacAddress::BROADCAST, station(1), None);
    let passes = |switch: &mut Switch| !switch.forward(other, &taken, 60, 0).ports.is_empty();
    assert!(passes(&mut switch));
    switch.open(own, true);
    assert!(!passes(&mut switch));
    switch.open(own, false);
    assert!(passes(&mut switch));
}

#[test]
fn what_has_two_tags_goes_nowhere() {
    let mut switch = switch();
    let from = add(&mut switch, access(1));
    add(&mut switch, access(1));
    for (first, second) in [
        (0x8100, 0x8100),
        (0x8100, 0x88A8),
        (0x88A8, 0x0800),
        (0x9100, 0x0800),
    ] {
        let mut frame = [MacAddress::BROADCAST.0, station(1).0].concat();
        for word in [first, 0_u16, second, 20] {
            frame.extend(word.to_be_bytes());
        }
        let way = switch.forward(from, &frame, 60, 0);
        assert!(way.ports.is_empty(), "{first:x} {second:x}");
    }
    assert_eq!(switch.counters(from).dropped[Reason::Malformed as usize], 4);
}

#[test]
fn a_port_that_is_off_neither_sends_nor_receives() {
    let mut switch = switch();
    let ports: Vec<_> = (0..2).map(|_| add(&mut switch, access(1))).collect();
    let frame = head(MacAddress::BROADCAST, station(1), None);
    switch.set_enabled(ports[0], false);
    // The carrier comes and goes, but the operator decides.
    switch.set_carrier(ports[0], false);
    switch.set_carrier(ports[0], true);
    assert!(!switch.is_up(ports[0]));
    assert!(switch.forward(ports[0], &frame, 60, 0).ports.is_empty());
    assert!(switch.forward(ports[1], &frame, 60, 0).ports.is_empty());
    assert_eq!(switch.counters(ports[0]).dropped[Reason::Down as usize], 1);
    switch.set_enabled(ports[0], true);
    assert_eq!(switch.forward(ports[0], &frame, 60, 0).ports.len(), 1);
}

#[test]
fn a_frame_that_comes_again_counts_once() {
    let mut switch = switch();
    let limit = Some(Rate {
        bytes_per_second: 1000,
        burst: 100,
    });
    let from = add(
        &mut switch,
        PortConfig {
            ingress: limit,
            ..access(1)
        },
    );
    let to = add(
        &mut switch,
        PortConfig {
            egress: limit,
            ..access(1)
        },
    );
    let frame = head(MacAddress::BROADCAST, station(1), None);
    for _ in 0..3 {
        let way = switch.forward(from, &frame, 100, 0);
        assert_eq!(way.ports.len(), 1);
        switch.take_back(from, &way, 100);
    }
    assert_eq!(switch.counters(from), net::Counters::default());
    assert_eq!(switch.counters(to), net::Counters::default());
}

#[test]
fn a_guarded_sender_is_whole() {
    let mut switch = switch();
    let guarded = add(
        &mut switch,
        PortConfig {
            station: Some(station(1)),
            guard: true,
            ..access(1)
        },
    );
    add(&mut switch, access(1));
    for tag in [None, Some(0)] {
        let mut frame = head(MacAddress::BROADCAST, station(1), tag);
        let packet = frame.len() - 2;
        frame.splice(packet - 2.., [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
        frame.extend(station(1).0);
        assert_eq!(switch.forward(guarded, &frame, 60, 0).ports.len(), 1);
        // A card would fill up the rest with zeroes, and make another address of it.
        for length in packet..frame.len() {
            let way = switch.forward(guarded, &frame[..length], length, 0);
            assert!(way.ports.is_empty(), "{length}");
        }
    }
}

#[test]
fn frames_for_a_station_of_the_board_go_to_nobody_else() {
    let mut switch = switch();
    let own = |number| PortConfig {
        station: Some(station(number)),
        ..access(1)
    };
    let ports: Vec<_> = (1..4).map(|number| add(&mut switch, own(number))).collect();
    let frame = head(station(3), station(1), None);
    assert_eq!(switch.forward(ports[0], &frame, 60, 0).ports.len(), 2);
    // It has said nothing yet, so that it is not learnt.
    switch.open(ports[2], true);
    let way = switch.forward(ports[0], &frame, 60, 0);
    assert_eq!(leaves(&way, &frame), [(2, frame.clone())]);
    // Nor to somebody who took its address while it was not there.
    switch.open(ports[2], false);
    let taken = head(MacAddress::BROADCAST, station(3), None);
    assert_eq!(switch.forward(ports[1], &taken, 60, 0).ports.len(), 2);
    let way = switch.forward(ports[0], &frame, 60, 0);
    assert_eq!(leaves(&way, &frame), [(1, frame.clone())]);
    switch.open(ports[2], true);
    let way = switch.forward(ports[0], &frame, 60, 0);
    assert_eq!(leaves(&way, &frame), [(2, frame.clone())]);
    // In another VLAN it is like any other.
    let elsewhere = add(&mut switch, access(2));
    add(&mut switch, access(2));
    let frame = head(station(3), station(9), None);
    let way = switch.forward(elsewhere, &frame, 60, 0);
    assert_eq!(leaves(&way, &frame), [(4, frame.clone())]);
}

#[test]
fn limits_hold_in_both_directions() {
    let mut switch = switch();
    let limit = Some(Rate {
        bytes_per_second: 1000,
        burst: 200,
    });
    let slow = add(
        &mut switch,
        PortConfig {
            ingress: limit,
            egress: limit,
            ..access(1)
        },
    );
    let fast = add(&mut switch, access(1));
    let frame = head(MacAddress::BROADCAST, station(1), None);
    let passed = |switch: &mut Switch, from, at| {
        let pass = |_: &u32| !switch.forward(from, &frame, 100, at).ports.is_empty();
        (0..10).filter(pass).count()
    };
    for from in [slow, fast] {
        assert_eq!(passed(&mut switch, from, 0), 2);
        assert_eq!(passed(&mut switch, from, HZ / 10), 1);
    }
    let dropped = switch.counters(slow).dropped;
    assert_eq!(dropped[Reason::IngressLimit as usize], 17);
    assert_eq!(dropped[Reason::EgressLimit as usize], 17);
    assert_eq!(switch.counters(slow).frames_out, 3);
}

#[test]
fn what_is_no_frame_goes_nowhere() {
    let mut switch = switch();
    let from = add(&mut switch, access(1));
    add(&mut switch, access(1));
    let whole = head(station(2), station(1), Some(1));
    for length in 0..18 {
        let way = switch.forward(from, &whole[..length], length, 0);
        assert!(way.ports.is_empty(), "{length}");
    }
    for source in [MacAddress::BROADCAST, MacAddress([0; 6])] {
        let frame = head(station(2), source, None);
        assert!(switch.forward(from, &frame, 60, 0).ports.is_empty());
    }
    let counters = switch.counters(from);
    assert_eq!(counters.dropped[Reason::Malformed as usize], 20);
    for last in 0..0x11 {
        let group = MacAddress([0x01, 0x80, 0xC2, 0, 0, last]);
        let frame = head(group, station(1), None);
        let passed = !switch.forward(from, &frame, 60, 0).ports.is_empty();
        assert_eq!(passed, last == 0x10, "{group}");
    }
}

#[test]
fn who_is_mirrored_is_captured_in_both_directions() {
    let mut switch = switch();
    let ports: Vec<_> = (0..3).map(|_| add(&mut switch, access(1))).collect();
    for (port, number) in ports.iter().zip(0..) {
        let hello = head(MacAddress::BROADCAST, station(number), None);
        assert!(!switch.forward(*port, &hello, 60, 0).captured);
    }
    switch.set_mirrored(ports[1], true);
    for (from, to, captured) in [(0, 1, true), (1, 0, true), (0, 2, false), (1, 2, true)] {
        let frame = head(station(to), station(from), None);
        let way = switch.forward(ports[usize::from(from)], &frame, 60, 1);
        assert_eq!(way.captured, captured, "{from} to {to}");
    }
}

proptest! {
    #[test]
    fn no_bytes_harm_it(frames in prop::collection::vec(
        (0usize..3, prop::collection::vec(any::<u8>(), 0..40)), 0..200)
    ) {
        let mut switch = switch();
        let ids: Vec<_> = (1..4)
            .map(|number| {
                let station = Some(station(number));
                add(&mut switch, PortConfig { station, guard: true, ..access(1) })
            })
            .collect();
        for (port, head) in frames {
            let way = switch.forward(ids[port], &head, head.len(), 0);
            prop_assert!(!way.ports.contains(ids[port]));
            leaves(&way, &head);
        }
    }
}

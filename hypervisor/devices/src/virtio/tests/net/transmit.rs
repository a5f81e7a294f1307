//! Frames from the guest.

use super::*;
use crate::virtio::{Budget, Fault};

const NO_OFFLOAD: [u8; HEADER as usize] = [0; HEADER as usize];

#[test]
fn a_frame_is_sent() {
    let mut bench = Bench::driven(CARD, 0);
    let frame = frame(64);
    bench.send(&NO_OFFLOAD, &frame);
    let [sent] = bench.world.sent.as_slice() else {
        panic!("one frame")
    };
    assert_eq!((sent.nic, sent.head), (NIC, 64));
    assert_eq!(sent.bytes, frame);
    assert_eq!(sent.offload, Offload::default());
    assert_eq!(bench.used_element(TRANSMIT, 0), (0, 0));
    assert_eq!(bench.interrupts(), 1);
}

#[test]
fn only_the_head_of_a_long_frame_is_copied() {
    let mut bench = Bench::driven(CARD, 0);
    let frame = frame(1514);
    bench.store(0x3000, &frame);
    let before = bench.world.moved;
    let parts = [(0x2FF0, 5, 0), (0x2FF5, 7, 0), (0x3000, 100, 0)];
    bench.chain(
        TRANSMIT,
        0,
        &[
            &parts[..],
            &[(0, 0, 0), (0x3064, 1000, 0), (0x344C, 414, 0)],
        ]
        .concat(),
    );
    bench.offer(TRANSMIT, 0);
    bench.ring(TRANSMIT);
    assert_eq!(bench.world.sent[0].head, 192);
    assert_eq!(bench.world.sent[0].bytes, frame);
    // The chain of the test, its index and the rings' are less than 300 bytes.
    let moved = bench.world.moved - before;
    assert!((1526..1826).contains(&moved), "{moved}");
}

#[test]
fn a_frame_waits_for_room() {
    let mut bench = Bench::driven(CARD, EVENT_IDX);
    bench.world.busy = true;
    let frame = frame(1514);
    bench.send(&NO_OFFLOAD, &frame);
    assert_eq!(bench.used(TRANSMIT), 0);
    let mut times = 0;
    while times < 3 {
        let at = bench.pc.next_deadline().expect("work is left");
        assert_eq!(at.0 - bench.now.0, 10_000);
        bench.now = at;
        bench.pc.expire(at, &mut bench.world);
        times += 1;
    }
    bench.rest();
    let state = bench.pc.save();
    let pc = crate::Pc::restore(crate::pc::tests::config(), state).expect("its own state");
    bench.pc = pc;
    bench.resume();
    bench.world.busy = false;
    bench.finish();
    assert_eq!(bench.world.sent.len(), 1);
    assert_eq!(bench.world.sent[0].bytes, frame);
    assert_eq!(bench.used(TRANSMIT), 1);
    assert_eq!(bench.available_event(TRANSMIT), 1);
}

/// How many frames of `length` bytes behind this header are sent in one go.
fn sent_at_once(header: &[u8; HEADER as usize], length: u32, takers: u32) -> u32 {
    let mut bench = Bench::driven(CARD, CSUM | HOST_TSO4);
    bench.world.takers = takers;
    bench.store(BUFFERS, header);
    bench.store(BUFFERS + u64::from(HEADER), &tcp4());
    bench.chain(TRANSMIT, 0, &[(BUFFERS, HEADER + length, 0)]);
    for _ in 0..SIZE {
        bench.offer(TRANSMIT, 0);
    }
    bench.ring(TRANSMIT);
    bench.world.sent.len() as u32
}

#[test]
fn a_frame_costs_by_its_takers_and_pieces() {
    const DESCRIPTOR: u32 = 64;
    let sent = |header, takers| sent_at_once(header, 1514, takers);
    assert_eq!(sent(&NO_OFFLOAD, 0), sent(&NO_OFFLOAD, 1));
    let to_all = DESCRIPTOR + 3 * (256 + 1514);
    assert_eq!(sent(&NO_OFFLOAD, 3), Budget::FULL.div_ceil(to_all));
    // TCP in IPv4, cut into pieces of 500 bytes: four, with the headers.
    let mut cut = [0; HEADER as usize];
    cut[..10].copy_from_slice(&[1, 1, 0, 0, 0xF4, 1, 34, 0, 16, 0]);
    let in_pieces = DESCRIPTOR + 2 * (4 * 256 + 1514);
    assert_eq!(sent(&cut, 2), Budget::FULL.div_ceil(in_pieces));
}

#[test]
fn sending_has_an_end() {
    let mut bench = Bench::driven(CARD, 0);
    bench.store(BUFFERS, &NO_OFFLOAD);
    bench.chain(TRANSMIT, 0, &[(BUFFERS, HEADER + 1514, 0)]);
    for _ in 0..SIZE {
        bench.offer(TRANSMIT, 0);
    }
    bench.ring(TRANSMIT);
    let cost = 256 + 64 + 1514;
    assert_eq!(
        bench.world.sent.len() as u32,
        Budget::FULL.div_ceil(cost),
        "a budget"
    );
    bench.finish();
    assert_eq!(bench.world.sent.len() as u16, SIZE);
}

#[test]
fn completions_are_silent_if_the_driver_wants() {
    let mut bench = Bench::driven(CARD, EVENT_IDX);
    bench.set_used_event(TRANSMIT, 1);
    bench.send(&NO_OFFLOAD, &frame(60));
    assert_eq!(bench.interrupts(), 0);
    bench.send(&NO_OFFLOAD, &frame(60));
    assert_eq!(bench.interrupts(), 1);
}

#[test]
fn frames_of_impossible_lengths_are_dropped() {
    let mut bench = Bench::driven(CARD, 0);
    for (length, sent) in [(13, 0), (14, 1), (1518, 2), (1519, 2)] {
        bench.send(&NO_OFFLOAD, &vec![0; length]);
        assert_eq!(bench.world.sent.len(), sent, "{length} bytes");
    }
    assert_eq!(bench.used(TRANSMIT), 4);
    assert_eq!(bench.pc.malformed_frames(NIC), 2);
    assert!(bench.world.stops.is_empty());
}

#[test]
fn a_frame_outside_memory_stops_the_card() {
    let end = crate::virtio::tests::world::MEMORY as u64;
    for (parts, fault) in [
        (vec![(BUFFERS, 11, 0)], Fault::Request),
        (vec![(1 << 50, 200, 0)], Fault::Address(1 << 50)),
        (
            vec![(BUFFERS, 300, 0), (end - 4, 8, 0)],
            Fault::Address(end - 4),
        ),
    ] {
        let mut bench = Bench::driven(CARD, 0);
        bench.chain(TRANSMIT, 0, &parts);
        bench.offer(TRANSMIT, 0);
        bench.ring(TRANSMIT);
        assert_eq!(bench.world.stops, [(CARD, fault, 1)]);
        assert!(bench.world.sent.is_empty());
        assert!(!bench.lent());
    }
}

#[test]
fn the_second_pair_sends_too() {
    let mut bench = Bench::driven(CARD, MQ | CTRL_VQ);
    bench.store(BUFFERS, &NO_OFFLOAD);
    bench.chain(SECOND_TRANSMIT, 0, &[(BUFFERS, HEADER + 60, 0)]);
    bench.offer(SECOND_TRANSMIT, 0);
    bench.ring(SECOND_TRANSMIT);
    assert_eq!(bench.world.sent.len(), 1);
    assert_eq!(bench.used(SECOND_TRANSMIT), 1);
}

#[test]
fn no_queue_waits_for_the_end_of_another() {
    let mut bench = Bench::driven(CARD, MQ | CTRL_VQ);
    bench.store(BUFFERS, &NO_OFFLOAD);
    for queue in [TRANSMIT, SECOND_TRANSMIT] {
        bench.chain(queue, 0, &[(BUFFERS, HEADER + 1514, 0)]);
    }
    let fill = |bench: &mut Bench| {
        while bench.load_u16(ring(TRANSMIT) + 0x402) - bench.used(TRANSMIT) < SIZE {
            bench.offer(TRANSMIT, 0);
        }
    };
    fill(&mut bench);
    bench.ring(TRANSMIT);
    fill(&mut bench);
    bench.offer(SECOND_TRANSMIT, 0);
    bench.ring(SECOND_TRANSMIT);
    assert_eq!(bench.used(SECOND_TRANSMIT), 1);
    assert!(bench.used(TRANSMIT) < 2 * SIZE);
    bench.finish();
    assert!(bench.world.stops.is_empty());
}

//! Frames to the guest.

use super::*;
use crate::virtio::Fault;

#[test]
fn a_frame_is_received() {
    let mut bench = Bench::driven(CARD, 0);
    bench.give(RECEIVE, 3, &[(BUFFERS, 2000)]);
    let frame = frame(64);
    let delivery = Delivery {
        queue: 0,
        interrupt: true,
    };
    assert_eq!(bench.receive(&frame), Ok(delivery));
    let mut expected = vec![0; 10];
    expected.extend([1, 0]);
    expected.extend(&frame);
    expected.push(0);
    assert_eq!(bench.load(BUFFERS, 77), expected);
    assert_eq!(bench.used(RECEIVE), 1);
    assert_eq!(bench.used_element(RECEIVE, 0), (3, 76));
    assert_eq!(bench.receive(&frame), Err(Refusal::NoBuffers));
}

#[test]
fn a_small_frame_costs_few_accesses() {
    let mut bench = Bench::driven(CARD, EVENT_IDX);
    for head in 0..4 {
        bench.give(RECEIVE, head, &[(BUFFERS, 2000)]);
    }
    bench.receive(&frame(64)).expect("received");
    let before = bench.world.moved;
    bench.receive(&frame(64)).expect("received");
    // Ring, descriptor, header and frame, used element, index, event.
    assert_eq!(bench.world.moved - before, 2 + 16 + 76 + 8 + 2 + 2);
}

#[test]
fn header_and_frame_go_where_the_buffers_are() {
    for mergeable in [0, MRG_RXBUF] {
        let mut bench = Bench::driven(CARD, mergeable);
        let parts: Vec<_> = (0..10).map(|at| (BUFFERS + 2 * at, 1)).collect();
        let mut chain = parts.clone();
        chain.extend([(0x4000, 0), (0x5000, 7), (0x6000, 100)]);
        bench.give(RECEIVE, 0, &chain);
        let frame = frame(60);
        bench.receive(&frame).expect("received");
        for (address, _) in parts {
            assert_eq!(bench.load(address, 2), [0, 0]);
        }
        assert_eq!(bench.load(0x5000, 2), [1, 0], "buffers");
        assert_eq!(bench.load(0x5002, 5), &frame[..5]);
        assert_eq!(bench.load(0x6000, 55), &frame[5..]);
        assert_eq!(bench.load(0x6000 + 55, 1), [0]);
    }
}

#[test]
fn a_long_frame_takes_several_chains() {
    let mut bench = Bench::driven(CARD, MRG_RXBUF | EVENT_IDX);
    bench.set_used_event(RECEIVE, 2);
    let frame = frame(250);
    bench.give(RECEIVE, 0, &[(0x4000, 100)]);
    bench.give(RECEIVE, 1, &[(0x5000, 60), (0x5100, 40)]);
    assert_eq!(bench.receive(&frame), Err(Refusal::NoBuffers));
    assert_eq!(bench.used(RECEIVE), 0, "nothing was taken");
    bench.give(RECEIVE, 3, &[(0x6000, 100)]);
    let delivery = bench.receive(&frame).expect("received");
    assert!(delivery.interrupt, "the third is there");
    assert_eq!(bench.load(0x4000 + 10, 2), [3, 0]);
    let mut received = bench.load(0x4000 + 12, 88).to_vec();
    received.extend(bench.load(0x5000, 60));
    received.extend(bench.load(0x5100, 40));
    received.extend(bench.load(0x6000, 62));
    assert_eq!(received, frame);
    assert_eq!(bench.used(RECEIVE), 3);
    let used: Vec<_> = (0..3).map(|at| bench.used_element(RECEIVE, at)).collect();
    assert_eq!(used, [(0, 100), (1, 100), (3, 62)]);
}

#[test]
fn a_frame_that_is_too_long_leaves_the_buffer() {
    let mut bench = Bench::driven(CARD, 0);
    bench.give(RECEIVE, 0, &[(0x4000, 76)]);
    bench.give(RECEIVE, 1, &[(0x5000, 2000)]);
    assert_eq!(bench.receive(&frame(65)), Err(Refusal::TooLong));
    assert_eq!(bench.used(RECEIVE), 0);
    assert!(bench.receive(&frame(64)).is_ok());
    assert_eq!(bench.used_element(RECEIVE, 0), (0, 76));
}

#[test]
fn the_driver_is_interrupted_when_it_wants_to() {
    let mut bench = Bench::driven(CARD, 0);
    for head in 0..3 {
        bench.give(RECEIVE, head, &[(0x4000, 100)]);
    }
    for (flags, wanted) in [(0, true), (1, false), (0, true)] {
        bench.set_available(RECEIVE, 0, flags);
        let delivery = bench.receive(&frame(60)).expect("received");
        assert_eq!(delivery.interrupt, wanted);
    }
    let mut bench = Bench::driven(CARD, EVENT_IDX);
    bench.set_used_event(RECEIVE, 1);
    for (head, wanted) in [false, true, false].into_iter().enumerate() {
        bench.give(RECEIVE, head as u16, &[(0x4000, 100)]);
        let delivery = bench.receive(&frame(60)).expect("received");
        assert_eq!(delivery.interrupt, wanted, "frame {head}");
    }
}

#[test]
fn indexes_go_around() {
    let mut bench = Bench::driven(CARD, EVENT_IDX);
    bench.chain(RECEIVE, 5, &[(0x4000, 100, WRITE)]);
    for number in 0..70_000_u32 {
        bench.offer(RECEIVE, 5);
        bench.set_used_event(RECEIVE, number as u16);
        let delivery = bench.receive(&frame(60)).expect("received");
        assert!(delivery.interrupt, "frame {number}");
        assert_eq!(bench.used(RECEIVE), (number + 1) as u16);
    }
}

#[test]
fn doorbells_of_receive_queues_are_not_asked_for() {
    const USED: u64 = 0x800;
    let bench = Bench::driven(CARD, 0);
    assert_eq!(bench.load_u16(ring(RECEIVE) + USED), 1);
    assert_eq!(bench.load_u16(ring(TRANSMIT) + USED), 0);
    let bench = Bench::driven(CARD, EVENT_IDX);
    assert_eq!(bench.load_u16(ring(RECEIVE) + USED), 0);
    assert_eq!(bench.available_event(RECEIVE), 0xFFFF);
}

#[test]
fn flows_go_to_the_queues_in_use() {
    let mut bench = Bench::driven(CARD, MQ | CTRL_VQ);
    for queue in [RECEIVE, SECOND_RECEIVE] {
        for head in 0..2 {
            bench.give(queue, head, &[(0x4000, 100)]);
        }
    }
    let queue_of = |bench: &mut Bench, hash| {
        let delivery = bench.deliver(&frame(60), &Offload::default(), hash);
        delivery.expect("received").queue
    };
    assert_eq!(queue_of(&mut bench, 7), 0, "one pair at first");
    assert_eq!(bench.command(CONTROL_OF_MANY, &[4, 0, 2, 0]), 0);
    assert_eq!(queue_of(&mut bench, 7), 1);
    assert_eq!(queue_of(&mut bench, 6), 0);
    assert_eq!(bench.used(SECOND_RECEIVE), 1);
    for pairs in [0, 3] {
        assert_eq!(bench.command(CONTROL_OF_MANY, &[4, 0, pairs, 0]), 1);
    }
    assert_eq!(queue_of(&mut bench, 1), 1);
    // The next driver begins with one again.
    bench.store(RINGS, &[0; 0x5000]);
    bench.start(MQ | CTRL_VQ);
    bench.give(RECEIVE, 0, &[(0x4000, 100)]);
    assert_eq!(queue_of(&mut bench, 1), 0);
}

#[test]
fn an_interrupt_finds_its_vector() {
    let mut bench = Bench::driven(CARD, MQ | CTRL_VQ);
    bench.use_messages();
    let Bench { pc, world, now, .. } = &mut bench;
    pc.received(NIC, 3, None, *now, world);
    assert_eq!(bench.vectors(), [0x41, 0x43]);
    // A vector that is changed while the queue is lent.
    bench.out(0x16, crate::Width::Word, 0);
    bench.out(0x1A, crate::Width::Word, 5);
    assert!(bench.lent());
    let Bench { pc, world, now, .. } = &mut bench;
    pc.received(NIC, 1, None, *now, world);
    assert_eq!(bench.vectors(), [0x45]);

    let mut bench = Bench::driven(CARD, 0);
    bench.give(RECEIVE, 0, &[(0x4000, 100)]);
    let result = bench.receive(&frame(60));
    bench.tell(result);
    assert!(bench.line());
    assert_eq!(bench.interrupts(), 1);
    assert!(!bench.line());
}

type Spoil = fn(&mut Bench);

#[test]
fn a_broken_ring_stops_the_card() {
    let cases: [(Spoil, Fault); 10] = [
        (|b| b.set_available(RECEIVE, 2, 17), Fault::AvailableIndex),
        (|b| b.offer(RECEIVE, SIZE), Fault::Head),
        (
            |b| {
                b.describe(ring(RECEIVE), 0, (0x4000, 1), WRITE | NEXT, SIZE);
                b.offer(RECEIVE, 0);
            },
            Fault::Next,
        ),
        (
            |b| {
                b.describe(ring(RECEIVE), 0, (0x4000, 1), WRITE | NEXT, 0);
                b.offer(RECEIVE, 0);
            },
            Fault::Loop,
        ),
        (
            |b| {
                b.describe(ring(RECEIVE), 0, (0x4000, 16), INDIRECT, 0);
                b.offer(RECEIVE, 0);
            },
            Fault::Indirect,
        ),
        (
            |b| {
                b.chain(RECEIVE, 0, &[(0x4000, 100, 0)]);
                b.offer(RECEIVE, 0);
            },
            Fault::Direction,
        ),
        (
            |b| b.give(RECEIVE, 0, &[(0x4000, u32::MAX), (0, 1)]),
            Fault::Length,
        ),
        (|b| b.give(RECEIVE, 0, &[(0x4000, 11)]), Fault::Request),
        (
            |b| b.give(RECEIVE, 0, &[(1 << 40, 12), (0x4000, 100)]),
            Fault::Address(1 << 40),
        ),
        (
            |b| b.give(RECEIVE, 0, &[(0x4000, 12), (u64::MAX, 100)]),
            Fault::Address(u64::MAX),
        ),
    ];
    for (spoil, fault) in cases {
        let mut bench = Bench::driven(CARD, 0);
        spoil(&mut bench);
        let result = bench.receive(&frame(60));
        assert_eq!(result, Err(Refusal::Fault(fault)));
        assert_eq!(bench.receive(&frame(60)), Err(Refusal::NoBuffers), "once");
        bench.tell(result);
        assert_eq!(bench.world.stops, [(CARD, fault, 1)]);
        assert!(!bench.lent());
        assert_eq!(bench.status() & NEEDS_RESET, NEEDS_RESET);
        assert_eq!(bench.interrupts(), 2);
        bench.store(RINGS, &[0; 0x1000]);
        bench.start(0);
        bench.give(RECEIVE, 0, &[(0x4000, 100)]);
        assert!(bench.receive(&frame(60)).is_ok());
        // What was found before the reset is of no account any more.
        bench.tell(result);
        assert!(bench.lent());
        assert_eq!(bench.status() & NEEDS_RESET, 0);
    }
}

#[test]
fn every_chain_has_room_for_a_header() {
    let mut bench = Bench::driven(CARD, MRG_RXBUF);
    bench.give(RECEIVE, 0, &[(0x4000, 100)]);
    bench.give(RECEIVE, 1, &[(0x5000, 11)]);
    assert!(bench.receive(&frame(88)).is_ok());
    assert_eq!(
        bench.receive(&frame(60)),
        Err(Refusal::Fault(Fault::Request))
    );
}

#[test]
fn many_empty_buffers_are_no_endless_work() {
    let mut bench = Bench::driven(CARD, MRG_RXBUF | INDIRECT_DESC);
    let table = 0x8000;
    for at in 0..255 {
        bench.describe(
            table,
            at,
            (0x4000, u32::from(at < 12)),
            WRITE | NEXT,
            at + 1,
        );
    }
    bench.describe(table, 255, (0x4000, 0), WRITE, 0);
    for head in 0..SIZE {
        bench.describe(ring(RECEIVE), head, (table, 16 * 256), INDIRECT, 0);
        bench.offer(RECEIVE, head);
    }
    let before = bench.world.moved;
    assert_eq!(bench.receive(&frame(60)), Err(Refusal::Fault(Fault::Loop)));
    assert!(bench.world.moved - before < 300 * 16);
}

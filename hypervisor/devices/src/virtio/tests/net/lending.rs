//! When the receive queues are the world's, and what a card says about itself.

use super::*;
use crate::nic::{NicConfig, NicModel};
use crate::pc::tests::config;
use crate::pc::{Pc, PcConfig, PcStateV1, Width};
use crate::virtio::{FilterStateV1, ModelStateV1, NetStateV1};

#[test]
fn a_card_says_what_it_is() {
    let mut bench = Bench::new(CARD);
    assert_eq!(bench.configuration(0x00), 0x1041_1AF4);
    assert_eq!(bench.configuration(0x08), 0x0200_0001);
    assert_eq!(bench.read(0x80, Width::Dword), 0x0100_5452);
    assert_eq!(bench.read(0x84, Width::Dword), 0x0001_0302);
    assert_eq!(bench.read(0x88, Width::Dword), 1500 << 16 | 2);
    assert_eq!(bench.queues(), 5);
    for queue in 0..5 {
        bench.out(0x16, Width::Word, queue);
        assert_eq!(bench.read(0x18, Width::Word), 256);
    }
    let features = |bench: &mut Bench| {
        [0, 1].map(|half| {
            bench.out(0x00, Width::Dword, half);
            bench.read(0x04, Width::Dword)
        })
    };
    assert_eq!(features(&mut bench), [0x30F7_BBAB, 0x01C0_0001]);

    let one = PcConfig {
        nics: vec![NicConfig {
            model: NicModel::Virtio { pairs: 1 },
            ..config().nics[0]
        }],
        ..config()
    };
    let mut bench = Bench::with(one, CARD);
    assert_eq!(bench.queues(), 3);
    assert_eq!(features(&mut bench)[0], 0x30B7_BBAB, "one pair");
}

#[test]
fn features_come_with_those_that_they_need() {
    let cases = [
        (GUEST_TSO4, GUEST_CSUM),
        (GUEST_TSO6, GUEST_CSUM),
        (GUEST_USO4, GUEST_CSUM),
        (GUEST_USO6, GUEST_CSUM),
        (GUEST_ECN | GUEST_CSUM, GUEST_TSO4),
        (GUEST_ECN | GUEST_CSUM, GUEST_TSO6),
        (HOST_TSO4, CSUM),
        (HOST_TSO6, CSUM),
        (HOST_USO, CSUM),
        (HOST_ECN | CSUM, HOST_TSO4),
        (HOST_ECN | CSUM, HOST_TSO6),
        (CTRL_RX, CTRL_VQ),
        (CTRL_RX_EXTRA, CTRL_VQ),
        (GUEST_ANNOUNCE, CTRL_VQ),
        (MQ, CTRL_VQ),
        (CTRL_MAC_ADDR, CTRL_VQ),
    ];
    let mut bench = Bench::new(CARD);
    for (features, needed) in cases {
        bench.negotiate(features);
        assert_eq!(bench.status(), 3, "{features:#x} alone");
        bench.negotiate(features | needed);
        assert_eq!(bench.status(), 11, "{features:#x} with {needed:#x}");
    }
}

#[test]
fn receive_queues_are_lent_while_a_driver_drives_the_card() {
    let mut bench = Bench::new(CARD);
    bench.negotiate(0);
    bench.enable(RECEIVE);
    assert!(!bench.lent());
    bench.out(0x14, Width::Byte, 15);
    assert!(bench.lent());
    // No bus master any more, and one again.
    bench.configure(0x04, 3);
    assert!(!bench.lent());
    bench.configure(0x04, 7);
    assert!(bench.lent());
    bench.out(0x14, Width::Byte, 0);
    assert!(!bench.lent());
    bench.start(0);
    assert!(bench.lent());
    bench.pc.reset(bench.now, &mut bench.world);
    assert!(!bench.lent());
    assert_eq!(bench.status(), 0);
}

#[test]
fn a_queue_that_is_off_receives_nothing() {
    let mut bench = Bench::new(CARD);
    bench.negotiate(0);
    bench.enable(TRANSMIT);
    bench.out(0x14, Width::Byte, 15);
    bench.give(RECEIVE, 0, &[(BUFFERS, 100)]);
    assert_eq!(bench.receive(&frame(60)), Err(Refusal::NoBuffers));
}

#[test]
fn rings_outside_memory_stop_the_card_when_they_are_to_be_lent() {
    let mut bench = Bench::new(CARD);
    bench.negotiate(0);
    bench.out(0x18, Width::Word, u32::from(SIZE));
    bench.out(0x34, Width::Dword, 1);
    bench.out(0x1C, Width::Word, 1);
    bench.out(0x14, Width::Byte, 15);
    assert!(!bench.lent());
    assert_eq!(bench.world.stops.len(), 1);
    assert_eq!(bench.status() & NEEDS_RESET, NEEDS_RESET);
    bench.start(0);
    assert!(bench.lent());
}

/// The board in its saved state, by bytes.
fn restored(pc: &Pc) -> Pc {
    let bytes = postcard::to_allocvec(&pc.save()).expect("serializable");
    let state: PcStateV1 = postcard::from_bytes(&bytes).expect("its own bytes");
    Pc::restore(config(), state).expect("its own state")
}

#[test]
fn a_saved_card_goes_on() {
    let features = CTRL_VQ | CTRL_RX | CTRL_MAC_ADDR | MQ | MRG_RXBUF | GUEST_ANNOUNCE | STATUS;
    let mut bench = Bench::driven(CARD, features);
    let other = [2, 0, 0, 0, 0, 5];
    let address = [&[1, 1][..], &other].concat();
    assert_eq!(bench.command(CONTROL_OF_MANY, &address), 0);
    assert_eq!(bench.command(CONTROL_OF_MANY, &[4, 0, 2, 0]), 0);
    assert_eq!(bench.command(CONTROL_OF_MANY, &[0, 1, 1]), 0);
    bench.pc.set_link(NIC, false, bench.now);
    assert!(bench.pc.announce(NIC, bench.now));
    bench.send(&[0; 12], &[0; 5]);
    for queue in [RECEIVE, SECOND_RECEIVE] {
        for head in 0..4 {
            bench.give(queue, head, &[(0x4000, 50)]);
        }
    }
    // One frame in two chains before, one after.
    let deliver = |bench: &mut Bench| {
        let delivery = bench.deliver(&frame(60), &Offload::default(), 1);
        assert_eq!(delivery.map(|delivery| delivery.queue), Ok(1));
    };
    deliver(&mut bench);
    bench.rest();
    assert!(!bench.lent());
    let state = bench.pc.save();
    bench.pc = restored(&bench.pc);
    assert_eq!(bench.pc.save(), state);
    assert!(!bench.lent());
    bench.resume();
    deliver(&mut bench);
    assert_eq!(bench.used(SECOND_RECEIVE), 4);
    let used: Vec<_> = (0..4)
        .map(|at| bench.used_element(SECOND_RECEIVE, at))
        .collect();
    assert_eq!(used, [(0, 50), (1, 22), (2, 50), (3, 22)]);
    assert!(bench.receiver().wants(&other));
    assert!(bench.receiver().wants(&[1, 2, 3, 4, 5, 6]), "all groups");
    assert!(!bench.receiver().wants(&MAC));
    assert_eq!(bench.read(0x86, Width::Word), 2, "no link, to announce");
    assert_eq!(bench.pc.malformed_frames(NIC), 1);
    // A rest without a saving does no harm.
    bench.rest();
    bench.resume();
    assert!(bench.lent());
}

#[test]
fn impossible_states_are_refused() {
    fn card(state: &mut PcStateV1) -> &mut NetStateV1 {
        match &mut function(state, 4).model {
            ModelStateV1::Net(card) => card,
            _ => panic!("a network card"),
        }
    }
    fn filter(state: &mut PcStateV1) -> &mut FilterStateV1 {
        &mut card(state).filter
    }
    let mut bench = Bench::driven(CARD, CTRL_VQ | MQ);
    bench.rest();
    let state = bench.pc.save();
    assert!(Pc::restore(config(), state.clone()).is_ok());
    let spoils: [fn(&mut PcStateV1); 9] = [
        |s| function(s, 4).turn = 5,
        |s| card(s).active = 0,
        |s| card(s).active = 3,
        |s| filter(s).mac.0 = [1; 6],
        |s| filter(s).modes = 0x40,
        |s| {
            let mac = filter(s).mac;
            filter(s).unicast.list.resize(33, mac);
        },
        |s| {
            let mac = filter(s).mac;
            filter(s).multicast.list.resize(33, mac);
        },
        // Several pairs without commands.
        |s| {
            let transport = &mut function(s, 4).transport;
            transport.driver_features &= !CTRL_VQ;
        },
        |s| function(s, 4).transport.queues[0].size = 512,
    ];
    for (index, spoil) in spoils.iter().enumerate() {
        let mut spoilt = state.clone();
        spoil(&mut spoilt);
        assert!(Pc::restore(config(), spoilt).is_err(), "case {index}");
    }
}

//! The driver on a model of the card.

mod model;
mod repair;

use super::card::Card;
use super::registers::{Queue, ReceiveControl, Registers, TransmitControl, counter, receive_queue};
use super::{
    Causes, Checksum, Delivery, FRAME_MIN, Filter, Link, Model, Nic, OpenError, OpenOptions, RING,
    TransmitError, Watch, dma_bytes,
};
use model::{CardModel, MAC, memory, sum};
use repair::repair;
use std::vec::Vec;

const MODELS: [Model; 3] = [Model::I82540em, Model::I82574l, Model::I82576];
const UP: Link = Link::Up {
    megabits: 1000,
    full_duplex: true,
};

fn try_open(
    card: &'static CardModel,
    model: Model,
    jumbo: bool,
) -> Result<Card<&'static CardModel>, OpenError> {
    let options = OpenOptions {
        jumbo,
        delivery: Delivery::Pin,
    };
    let memory = memory(dma_bytes(jumbo));
    Card::open(card, card.function(), model, memory, options)
}

fn open(model: Model, jumbo: bool) -> (&'static CardModel, Card<&'static CardModel>) {
    let card = CardModel::new(model);
    let nic = try_open(card, model, jumbo).expect("the model works");
    (card, nic)
}

fn frame(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + seed * 31) as u8).collect()
}

fn send(nic: &impl Nic, frame: &[u8]) -> Result<(), TransmitError> {
    nic.transmit(frame.len(), None, 0, &mut |buffer| {
        buffer.copy_from_slice(frame);
    })
}

fn receive(nic: &impl Nic) -> Option<Vec<u8>> {
    let mut frame = None;
    nic.receive(&mut |received| frame = Some(received.frame.to_vec()));
    frame
}

fn with_link(link: Link) -> Watch {
    Watch {
        link: Some(link),
        ..Watch::default()
    }
}

#[test]
fn frames_of_all_lengths_go_out_and_come_in_intact() {
    for model in MODELS {
        for jumbo in [false, true] {
            let (_, nic) = open(model, jumbo);
            // The longest first, so that what pads a short one is seen to be no older frame.
            for length in (14..=nic.frame_max())
                .rev()
                .step_by(if jumbo { 61 } else { 1 })
            {
                let sent = frame(length, length);
                assert_eq!(send(&nic, &sent), Ok(()));
                let mut expected = sent;
                expected.resize(length.max(FRAME_MIN), 0);
                assert_eq!(receive(&nic), Some(expected), "{model}, {length} bytes");
            }
            let too_long = frame(nic.frame_max() + 1, 0);
            assert_eq!(send(&nic, &too_long), Err(TransmitError::TooLong));
            assert_eq!(receive(&nic), None);
        }
    }
}

#[test]
fn rings_are_filled_to_the_last_buffer_and_no_interrupt_tells_of_room() {
    for model in MODELS {
        let (card, nic) = open(model, false);
        for _ in 0..3 {
            card.state().sends = false;
            let reserved = nic.transmit(60, None, RING as u16, &mut |_| panic!("not filled"));
            assert_eq!(reserved, Err(TransmitError::Full));
            for index in 0..RING - 1 {
                assert_eq!(send(&nic, &frame(60, index)), Ok(()));
            }
            assert_eq!(send(&nic, &frame(60, 0)), Err(TransmitError::Full));
            // What is sent does not come back, so nothing but having sent could interrupt.
            card.state().deaf = true;
            card.state().sends = true;
            card.work();
            assert!(!card.interrupts());
            assert_eq!(nic.handle_interrupt(), Causes::empty());
            card.state().deaf = false;
            for index in 0..RING - 1 {
                assert_eq!(send(&nic, &frame(60, index)), Ok(()));
            }
            assert!(card.interrupts());
            assert_eq!(nic.handle_interrupt(), Causes::RECEIVE);
            assert!(!card.interrupts());
            for index in 0..RING - 1 {
                assert_eq!(receive(&nic), Some(frame(60, index)));
            }
            assert_eq!(receive(&nic), None);
            assert!(!nic.listen());
        }
    }
}

#[test]
fn a_frame_of_low_priority_leaves_room() {
    let (card, nic) = open(Model::I82540em, false);
    card.state().sends = false;
    let low = || nic.transmit(60, None, 16, &mut |buffer| buffer.fill(1));
    let taken = (0..RING).take_while(|_| low() == Ok(())).count();
    assert_eq!(taken, RING - 1 - 16);
    for index in 0..16 {
        assert_eq!(send(&nic, &frame(60, index)), Ok(()));
    }
    assert_eq!(send(&nic, &frame(60, 0)), Err(TransmitError::Full));
}

#[test]
fn checksums_are_inserted_by_the_card() {
    for model in MODELS {
        let (card, nic) = open(model, false);
        let udp = Checksum {
            start: 34,
            offset: 6,
        };
        let mut contexts = Vec::new();
        for (checksum, length) in [
            (udp, 80),
            (udp, 1001),
            (Checksum { offset: 16, ..udp }, 200),
            (udp, 61),
        ] {
            let mut sent = frame(length, 1);
            sent[12..14].copy_from_slice(&[0x08, 0x00]);
            let before = sum(&sent[34..]);
            let result = nic.transmit(length, Some(checksum), 0, &mut |buffer| {
                buffer.copy_from_slice(&sent);
            });
            assert_eq!(result, Ok(()));
            let got = receive(&nic).expect("it came back");
            let target = usize::from(checksum.start + checksum.offset);
            assert_eq!(got[target..target + 2], (!before).to_be_bytes(), "{model}");
            sent[target..target + 2].copy_from_slice(&(!before).to_be_bytes());
            assert_eq!(got, sent);
            contexts.push(card.state().contexts);
        }
        // The same one is told once.
        assert_eq!(contexts, [1, 1, 2, 3]);
        let nowhere = Checksum {
            start: 34,
            offset: 600,
        };
        let result = nic.transmit(100, Some(nowhere), 0, &mut |buffer| buffer.fill(0));
        assert_eq!(result, Err(TransmitError::Checksum));
        assert_eq!(send(&nic, &frame(60, 2)), Ok(()));
        assert_eq!(receive(&nic), Some(frame(60, 2)));
    }
}

#[test]
fn contexts_and_frames_are_taken_back_together() {
    let (card, nic) = open(Model::I82576, false);
    let with = |offset| {
        let checksum = Checksum { start: 34, offset };
        nic.transmit(60, Some(checksum), 0, &mut |buffer| {
            buffer.fill(0);
            buffer[12] = 0x08;
        })
    };
    // Each frame needs another context than the last one.
    let mut offset = 6;
    for round in 0..3 {
        card.state().sends = false;
        let mut taken = 0;
        while with(offset) == Ok(()) {
            taken += 1;
            offset = 22 - offset;
        }
        assert_eq!(taken, (RING - 1) / 2, "round {round}");
        card.state().sends = true;
        card.work();
        assert_eq!((0..RING).filter(|_| receive(&nic).is_some()).count(), taken);
    }
}

#[test]
fn damaged_frames_are_dropped_and_others_are_not() {
    for (model, damage, valid) in [
        (Model::I82540em, 1 << 8, 1 << 5),
        (Model::I82576, 1 << 31, 1 << 5),
    ] {
        let (card, nic) = open(model, false);
        card.state().receive_status = damage;
        assert_eq!(send(&nic, &frame(100, 1)), Ok(()));
        card.state().receive_status = 0;
        // In three buffers: longer than the driver allows.
        card.state().receive_part = 40;
        assert_eq!(send(&nic, &frame(100, 2)), Ok(()));
        card.state().receive_part = usize::MAX;
        card.state().wire.push_back(frame(1519, 3));
        card.state().receive_status = valid;
        assert_eq!(send(&nic, &frame(100, 4)), Ok(()));
        let mut checksum = false;
        assert!(nic.receive(&mut |received| {
            checksum = received.checksum_valid;
            assert_eq!(received.frame, frame(100, 4));
        }));
        assert!(checksum);
        assert_eq!(receive(&nic), None);
    }
}

#[test]
fn receiving_interrupts_once_and_again_after_listening() {
    let (card, nic) = open(Model::I82540em, false);
    assert_eq!(send(&nic, &frame(60, 1)), Ok(()));
    assert!(card.interrupts());
    assert_eq!(nic.handle_interrupt(), Causes::RECEIVE);
    assert_eq!(send(&nic, &frame(60, 2)), Ok(()));
    assert!(!card.interrupts(), "masked while it is polled");
    assert_eq!(nic.handle_interrupt(), Causes::RECEIVE);
    assert!(receive(&nic).is_some());
    assert!(
        nic.listen(),
        "a frame waits, without an interrupt of its own"
    );
    assert!(receive(&nic).is_some());
    assert!(receive(&nic).is_none());
    assert!(!nic.listen());
    assert_eq!(send(&nic, &frame(60, 3)), Ok(()));
    assert!(card.interrupts());

    nic.handle_interrupt();
    nic.raise_test_interrupt();
    assert!(card.interrupts());
    assert_eq!(nic.handle_interrupt(), Causes::LINK);
    assert_eq!(nic.handle_interrupt(), Causes::empty());
}

#[test]
fn frames_whose_interrupt_is_lost_are_told_of_by_watching() {
    for model in MODELS {
        let (card, nic) = open(model, false);
        nic.watch(0);
        assert_eq!(send(&nic, &frame(60, 1)), Ok(()));
        // The cause is read and masked, and nobody comes for the frame.
        assert_eq!(nic.handle_interrupt(), Causes::RECEIVE);
        assert_eq!(send(&nic, &frame(60, 2)), Ok(()));
        assert!(!card.interrupts());
        for now in [100, 5000] {
            let waits = Watch {
                frames_wait: true,
                ..Watch::default()
            };
            assert_eq!(nic.watch(now), waits);
        }
        assert!(receive(&nic).is_some() && receive(&nic).is_some());
        assert!(receive(&nic).is_none() && !nic.listen());
        assert_eq!(nic.watch(6000), Watch::default());
        nic.handle_interrupt();
        nic.listen();
        assert_eq!(send(&nic, &frame(60, 3)), Ok(()));
        assert!(card.interrupts());
    }
}

#[test]
fn frames_without_a_link_are_refused_and_old_ones_dropped() {
    let (card, nic) = open(Model::I82574l, false);
    assert_eq!(nic.watch(0), with_link(UP));
    assert_eq!(nic.watch(100), Watch::default());
    card.state().sends = false;
    assert_eq!(send(&nic, &frame(60, 1)), Ok(()));
    card.state().link = false;
    nic.raise_test_interrupt();
    assert_eq!(nic.handle_interrupt(), Causes::LINK);
    assert_eq!(send(&nic, &frame(60, 2)), Err(TransmitError::Down));
    let down = Watch {
        again_ms: Some(1),
        ..with_link(Link::Down)
    };
    assert_eq!(nic.watch(200), down);
    assert!(repair(card, &nic, 201) < 1000);
    assert_eq!(nic.watch(5000), Watch::default());
    card.state().link = true;
    assert_eq!(nic.watch(5100), with_link(UP));
    assert_eq!(send(&nic, &frame(60, 3)), Ok(()));
    assert_eq!(card.state().sent, [frame(60, 3)]);
    let statistics = nic.statistics();
    assert_eq!((statistics.link_losses, statistics.resets), (1, 0));
}

#[test]
fn a_stopped_card_stays_off_the_bus() {
    for model in MODELS {
        let (card, nic) = open(model, false);
        assert_ne!(card.state().command & 1 << 2, 0);
        assert_eq!(send(&nic, &frame(60, 1)), Ok(()));
        nic.stop();
        assert_eq!(card.state().command & (1 << 2 | 1 << 10), 1 << 10);
        nic.set_filter(&Filter::default());
        assert_eq!(nic.watch(10_000), Watch::default());
        assert!(
            !card
                .get::<ReceiveControl>()
                .contains(ReceiveControl::ENABLE)
        );
        assert!(
            !card
                .get::<TransmitControl>()
                .contains(TransmitControl::ENABLE)
        );
        nic.raise_test_interrupt();
        assert!(!card.interrupts());
        assert_eq!(send(&nic, &frame(60, 2)), Err(TransmitError::Down));
        assert_eq!(receive(&nic), None);
        assert!(!nic.listen());
    }
}

#[test]
fn receive_buffers_are_given_back_in_batches_but_all_of_them() {
    let (card, nic) = open(Model::I82540em, false);
    let tail = || card.read(receive_queue(Queue::Tail));
    assert_eq!(tail(), 255);
    for index in 0..20 {
        assert_eq!(send(&nic, &frame(60, index)), Ok(()));
        assert!(receive(&nic).is_some());
    }
    assert_eq!(tail(), 15);
    assert!(receive(&nic).is_none());
    assert_eq!(tail(), 19);
}

#[test]
fn counters_that_are_cleared_by_being_read_are_added_up() {
    let (card, nic) = open(Model::I82540em, false);
    for round in 1..=3 {
        card.state().count(counter::BYTES_RECEIVED, 0x8000_0000);
        card.state().count(counter::BYTES_RECEIVED.nth(1), 1);
        card.state().count(counter::UNDERSIZED, 1);
        card.state().count(counter::JABBER, 2);
        if round == 2 {
            nic.watch(100);
        }
        let statistics = nic.statistics();
        assert_eq!(statistics.received_bytes, round * 0x1_8000_0000);
        assert_eq!(statistics.length_errors, round * 3);
    }
}

#[test]
fn a_card_without_an_address_in_its_registers_has_one_in_its_eeprom() {
    for model in MODELS {
        let card = CardModel::new(model);
        card.state().blank = true;
        let failed = try_open(card, model, false).err();
        assert_eq!(failed, Some(OpenError::NoAddress), "{model}");
        assert!(card.state().waited < 200_000, "bounded");

        card.state().eeprom = Some([0x5452, 0x1200, 0x5634]);
        let nic = try_open(card, model, false).expect("it has an address");
        assert_eq!(nic.mac(), MAC);

        card.state().eeprom = Some([0xFFFF; 3]);
        let failed = try_open(card, model, false).err();
        assert_eq!(failed, Some(OpenError::NoAddress), "a group's");
    }
}

#[test]
fn firmware_that_keeps_the_eeprom_is_not_waited_for_for_long() {
    let card = CardModel::new(Model::I82576);
    card.state().blank = true;
    card.state().firmware_holds = true;
    let failed = try_open(card, Model::I82576, false).err();
    assert_eq!(failed, Some(OpenError::Firmware));
    assert!((900_000..2_000_000).contains(&card.state().waited));
    assert_eq!(card.state().command & 1 << 2, 0, "it may not access memory");
}

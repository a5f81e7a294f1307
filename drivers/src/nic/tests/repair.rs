//! Cards that hang, or go away, and are brought up again.

use super::model::CardModel;
use super::{MODELS, UP, frame, open, receive, send, with_link};
use crate::nic::registers::{ExtendedConfiguration, OWNERS, ReceiveControl, Registers, counter};
use crate::nic::{Causes, Fault, Filter, Link, Model, Nic, TransmitError, Watch};

/// Watches until the card runs, or its repair has failed and rests; returns the time then. No call may take long.
pub(super) fn repair(card: &CardModel, nic: &impl Nic, mut now: u64) -> u64 {
    for _ in 0..2000 {
        let waited = card.state().waited;
        let reads = card.state().reads;
        let watch = nic.watch(now);
        let state = card.state();
        assert_eq!(state.waited, waited, "it waits for nothing");
        assert!(state.reads - reads <= 40, "a step is short");
        match watch.again_ms {
            None => return now,
            Some(1000..) => return now,
            Some(delay) => now += delay,
        }
    }
    panic!("it is neither repaired nor given up");
}

/// Makes a card hang, and has that noticed; returns the time then.
fn hang(card: &CardModel, nic: &impl Nic, now: u64) -> u64 {
    nic.watch(now);
    card.state().sends = false;
    assert_eq!(send(nic, &frame(60, 1)), Ok(()));
    nic.watch(now + 100);
    let hung = Watch {
        link: Some(Link::Down),
        fault: Some(Fault::TransmitHang),
        again_ms: Some(1),
        ..Watch::default()
    };
    assert_eq!(nic.watch(now + 1100), hung);
    now + 1100
}

#[test]
fn a_card_that_stops_sending_is_reset() {
    for model in MODELS {
        let (card, nic) = open(model, false);
        let group = [0x01, 0x00, 0x5E, 0x00, 0x00, 0x01];
        nic.set_filter(&Filter {
            all_multicast: true,
            multicast: &[group],
            ..Filter::default()
        });
        let control: ReceiveControl = card.get();
        let now = hang(card, &nic, 10_000);
        assert_eq!(send(&nic, &frame(60, 2)), Err(TransmitError::Down));
        assert_eq!(nic.watch(now + 1).link, None);
        let end = repair(card, &nic, now + 1);
        assert!((now + 20..now + 200).contains(&end), "{}", end - now);
        assert_eq!(card.state().resets, 2);
        assert_eq!(nic.link(), UP);
        assert_eq!(send(&nic, &frame(60, 2)), Ok(()));
        assert!(card.interrupts());
        assert_eq!(receive(&nic), Some(frame(60, 2)));
        assert_eq!(nic.watch(30_000), Watch::default());
        assert_eq!(nic.statistics().resets, 1);
        assert_eq!(
            card.get::<ReceiveControl>(),
            control,
            "the filter is as before"
        );
    }
}

#[test]
fn a_reset_that_fails_is_tried_again_less_and_less_often() {
    let (card, nic) = open(Model::I82574l, false);
    let mut now = hang(card, &nic, 0);
    card.state().stuck = true;
    for seconds in [1, 2, 4, 8, 16, 32, 32] {
        let resets = card.state().resets;
        now = repair(card, &nic, now);
        assert!(card.state().resets > resets);
        let rests = |delay| Watch {
            again_ms: Some(delay),
            ..Watch::default()
        };
        assert_eq!(nic.watch(now), rests(seconds * 1000));
        let reads = card.state().reads;
        assert_eq!(nic.watch(now + 600), rests(seconds * 1000 - 600));
        assert_eq!(card.state().reads, reads, "it is left alone");
        now += seconds * 1000;
    }
    card.state().stuck = false;
    repair(card, &nic, now);
    assert_eq!(send(&nic, &frame(60, 2)), Ok(()));
    assert_eq!(receive(&nic), Some(frame(60, 2)));
    assert_eq!(nic.statistics().resets, 1);
}

#[test]
fn firmware_that_keeps_the_phy_does_not_keep_a_card_from_being_repaired() {
    for model in [Model::I82574l, Model::I82576] {
        let (card, nic) = open(model, false);
        let now = hang(card, &nic, 0);
        card.state().firmware_holds = true;
        card.state().link = false;
        let end = repair(card, &nic, now);
        assert_eq!(nic.watch(end), Watch::default());
        card.state().link = true;
        assert_eq!(nic.watch(end + 100), with_link(UP));
        assert_eq!(send(&nic, &frame(60, 2)), Ok(()));
    }
}

#[test]
fn a_phy_without_a_link_is_woken_and_given_back() {
    for model in MODELS {
        let (card, nic) = open(model, false);
        let now = hang(card, &nic, 0);
        card.state().link = false;
        repair(card, &nic, now);
        // The control register: negotiation enabled and begun anew, awake.
        assert_eq!(card.state().phy_control, 1 << 12 | 1 << 9, "{model}");
        assert_eq!(card.read(OWNERS) & 0xFFFF, 0);
        let extended: ExtendedConfiguration = card.get();
        assert!(!extended.contains(ExtendedConfiguration::SOFTWARE_OWNS));
    }
}

#[test]
fn a_card_that_is_stopped_while_it_is_repaired_stays_off_the_bus() {
    let (card, nic) = open(Model::I82576, false);
    let now = hang(card, &nic, 0);
    nic.watch(now + 1);
    nic.watch(now + 2);
    nic.stop();
    assert_eq!(nic.watch(now + 10_000), Watch::default());
    assert_eq!(card.state().command & 1 << 2, 0);
    assert_eq!(send(&nic, &frame(60, 2)), Err(TransmitError::Down));
}

#[test]
fn a_card_that_goes_while_it_is_repaired_is_told_and_may_come_back() {
    let (card, nic) = open(Model::I82576, false);
    let now = hang(card, &nic, 0);
    nic.watch(now + 1);
    card.state().gone = true;
    assert_eq!(nic.watch(now + 2).fault, Some(Fault::Gone));
    card.state().gone = false;
    repair(card, &nic, now + 102);
    assert_eq!(send(&nic, &frame(60, 2)), Ok(()));
}

#[test]
fn a_card_that_misses_everything_is_reset() {
    let (card, nic) = open(Model::I82576, false);
    nic.watch(0);
    card.state().receives = false;
    let miss = || card.state().count(counter::MISSED, 5);
    miss();
    assert_eq!(nic.watch(1000), Watch::default());
    // Missed frames are no fault while others come in, or wait for us.
    card.state().receives = true;
    assert_eq!(send(&nic, &frame(60, 1)), Ok(()));
    miss();
    let waits = Watch {
        frames_wait: true,
        ..Watch::default()
    };
    assert_eq!(nic.watch(3000), waits);
    assert!(receive(&nic).is_some());
    card.state().receives = false;
    miss();
    assert_eq!(nic.watch(5000), Watch::default());
    assert_eq!(nic.watch(7000), Watch::default(), "it misses none now");
    miss();
    assert_eq!(nic.watch(7100).fault, Some(Fault::ReceiveStall));
    repair(card, &nic, 7101);
    assert_eq!(send(&nic, &frame(60, 2)), Ok(()));
    assert_eq!(receive(&nic), Some(frame(60, 2)));
    assert_eq!(nic.statistics().missed, 20);
}

#[test]
fn a_card_that_is_gone_is_told_once_and_may_come_back() {
    let (card, nic) = open(Model::I82574l, false);
    nic.watch(0);
    card.state().gone = true;
    assert_eq!(nic.handle_interrupt(), Causes::empty());
    let gone = Watch {
        link: Some(Link::Down),
        fault: Some(Fault::Gone),
        again_ms: Some(100),
        ..Watch::default()
    };
    assert_eq!(nic.watch(100), gone);
    let still = Watch {
        again_ms: Some(100),
        ..Watch::default()
    };
    assert_eq!(nic.watch(200), still);
    assert_eq!(send(&nic, &frame(60, 1)), Err(TransmitError::Down));
    let before = nic.statistics();
    assert_eq!(
        nic.statistics(),
        before,
        "nothing is counted that is not there"
    );
    card.state().gone = false;
    repair(card, &nic, 300);
    assert_eq!(send(&nic, &frame(60, 2)), Ok(()));
    assert_eq!(receive(&nic), Some(frame(60, 2)));
}

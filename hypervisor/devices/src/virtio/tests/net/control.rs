//! Commands, and what is received because of them.

use super::*;
use crate::pc::Width;
use crate::virtio::Fault;

const FEATURES: u64 = CTRL_VQ | CTRL_RX | CTRL_RX_EXTRA | CTRL_MAC_ADDR;

const OTHER: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];
const GROUP: [u8; 6] = [0x01, 0, 0x5E, 0, 0, 1];
const BROADCAST: [u8; 6] = [0xFF; 6];

/// Which of frames to it, to another station, to a group and to all the card receives.
fn wanted(bench: &Bench) -> [bool; 4] {
    [MAC, OTHER, GROUP, BROADCAST].map(|to| {
        let mut frame = to.to_vec();
        frame.resize(60, 0);
        bench.receiver().wants(&frame)
    })
}

#[test]
fn at_first_a_card_receives_what_is_for_it() {
    let bench = Bench::driven(CARD, FEATURES);
    assert_eq!(wanted(&bench), [true, false, false, true]);
    assert!(!bench.receiver().wants(&MAC[..5]));
    // A driver that cannot ask for groups gets them all.
    let bench = Bench::driven(CARD, 0);
    assert_eq!(wanted(&bench), [true, false, true, true]);
}

#[test]
fn modes_say_what_is_received() {
    let mut bench = Bench::driven(CARD, FEATURES);
    for (mode, on, off) in [
        (0, [true; 4], [true, false, false, true]),
        (1, [true, false, true, true], [true, false, false, true]),
        (2, [true, true, false, true], [true, false, false, true]),
        (4, [false, false, false, true], [true, false, false, true]),
        (5, [true, false, false, false], [true, false, false, true]),
    ] {
        assert_eq!(bench.command(CONTROL, &[0, mode, 1]), 0);
        assert_eq!(wanted(&bench), on, "mode {mode}");
        assert_eq!(bench.command(CONTROL, &[0, mode, 0]), 0);
        assert_eq!(wanted(&bench), off, "mode {mode}");
    }
    assert_eq!(bench.command(CONTROL, &[0, 1, 1]), 0);
    assert_eq!(bench.command(CONTROL, &[0, 3, 1]), 0);
    assert_eq!(wanted(&bench), [true, false, false, true], "no groups");
}

/// The command that sets the tables.
fn tables(unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    for table in [unicast, multicast] {
        bytes.extend((table.len() as u32).to_le_bytes());
        bytes.extend(table.concat());
    }
    bytes
}

#[test]
fn tables_name_more_addresses() {
    let mut bench = Bench::driven(CARD, FEATURES);
    assert_eq!(bench.command(CONTROL, &tables(&[OTHER], &[])), 0);
    assert_eq!(wanted(&bench), [true, true, false, true]);
    assert_eq!(bench.command(CONTROL, &tables(&[], &[GROUP])), 0);
    assert_eq!(wanted(&bench), [true, false, true, true]);
    // A table that is too long stands for all.
    let many = [[2, 1, 1, 1, 1, 1]; 33];
    assert_eq!(bench.command(CONTROL, &tables(&many, &[GROUP])), 0);
    assert_eq!(wanted(&bench), [true; 4]);
    assert_eq!(bench.command(CONTROL, &tables(&many[..32], &[])), 0);
    assert_eq!(wanted(&bench), [true, false, false, true]);
    // A table that is not whole changes nothing.
    let mut torn = tables(&[OTHER], &[GROUP]);
    torn.pop();
    assert_eq!(bench.command(CONTROL, &torn), 1);
    for length in 2..10 {
        assert_eq!(bench.command(CONTROL, &torn[..length]), 1);
    }
    torn[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(bench.command(CONTROL, &torn), 1);
    assert_eq!(wanted(&bench), [true, false, false, true]);
}

#[test]
fn the_driver_can_set_the_address() {
    let mut bench = Bench::driven(CARD, FEATURES);
    let address = |bench: &mut Bench| {
        let bytes: [u8; 6] =
            core::array::from_fn(|at| bench.read(0x80 + at as u16, Width::Byte) as u8);
        bytes
    };
    assert_eq!(address(&mut bench), MAC);
    assert_eq!(bench.command(CONTROL, &[&[1, 1][..], &OTHER].concat()), 0);
    assert_eq!(address(&mut bench), OTHER);
    assert_eq!(wanted(&bench), [false, true, false, true]);
    assert_eq!(bench.receiver().mac().0, OTHER);
    for no_station in [GROUP, [0; 6]] {
        let command = [&[1, 1][..], &no_station].concat();
        assert_eq!(bench.command(CONTROL, &command), 1);
    }
    assert_eq!(address(&mut bench), OTHER);
    bench.start(0);
    assert_eq!(address(&mut bench), MAC);
}

#[test]
fn what_was_not_agreed_upon_is_refused() {
    let mut bench = Bench::driven(CARD, CTRL_VQ);
    for command in [
        &[0, 0, 1][..],
        &[0, 2, 1],
        &tables(&[], &[]),
        &[1, 1, 2, 0, 0, 0, 0, 1],
        &[2, 0, 5, 0],
        &[3, 0],
        &[4, 0, 1, 0],
        &[9, 9],
    ] {
        assert_eq!(bench.command(CONTROL, command), 1, "{command:?}");
    }
    let mut bench = Bench::driven(CARD, FEATURES | MQ);
    assert_eq!(bench.command(CONTROL_OF_MANY, &[0, 6, 1]), 1);
    assert_eq!(bench.command(CONTROL_OF_MANY, &[0, 0]), 1);
    assert_eq!(bench.command(CONTROL_OF_MANY, &[4, 0, 1]), 1);
    assert!(bench.world.stops.is_empty());
}

#[test]
fn a_command_has_a_kind_and_room_for_an_answer() {
    for parts in [
        vec![(BUFFERS, 3, 0)],
        vec![(BUFFERS, 1, 0), (0x4000, 1, WRITE)],
        vec![(BUFFERS, 3, 0), (0x4000, 0, WRITE)],
    ] {
        let mut bench = Bench::driven(CARD, FEATURES);
        bench.chain(CONTROL, 0, &parts);
        bench.offer(CONTROL, 0);
        bench.ring(CONTROL);
        assert_eq!(bench.world.stops, [(CARD, Fault::Request, 1)]);
    }
}

#[test]
fn the_link_and_announcements_are_news() {
    let mut bench = Bench::driven(CARD, CTRL_VQ | STATUS | GUEST_ANNOUNCE);
    bench.use_messages();
    let status = |bench: &mut Bench| bench.read(0x86, Width::Word);
    let generation = |bench: &mut Bench| bench.read(0x15, Width::Byte);
    assert_eq!((status(&mut bench), generation(&mut bench)), (1, 0));
    bench.pc.set_link(NIC, true, bench.now);
    assert_eq!(bench.vectors(), []);
    bench.pc.set_link(NIC, false, bench.now);
    assert_eq!((status(&mut bench), generation(&mut bench)), (0, 1));
    assert_eq!(bench.vectors(), [0x40]);
    assert_eq!(bench.interrupts(), 2);
    bench.pc.set_link(NIC, true, bench.now);
    assert_eq!(bench.vectors(), [0x40]);
    assert!(bench.pc.announce(NIC, bench.now));
    assert_eq!((status(&mut bench), generation(&mut bench)), (3, 3));
    assert_eq!(bench.vectors(), [0x40]);
    assert_eq!(bench.command(CONTROL, &[3, 0]), 0);
    assert_eq!(status(&mut bench), 1);
    // A reset does not bring the link back.
    bench.pc.set_link(NIC, false, bench.now);
    bench.start(0);
    assert_eq!(status(&mut bench), 0);
    assert!(!bench.pc.announce(NIC, bench.now), "a driver that cannot");
    assert_eq!(status(&mut bench), 0);
    bench.out(0x14, Width::Byte, 0);
    assert!(!bench.pc.announce(NIC, bench.now), "no driver");
    assert!(!bench.pc.announce(7, bench.now), "no card");
}

//! Frames to the wire.

use super::*;
use crate::time::Ticks;

/// What network card `nic` sent.
fn sent(bench: &Bench) -> Vec<&[u8]> {
    let frames = bench.world.sent.iter();
    let ours = frames.filter(|frame| frame.nic == bench.nic);
    ours.map(|frame| &frame.bytes[..]).collect()
}

#[test]
fn a_frame_is_sent_at_once() {
    for nic in [ISA, PCI] {
        let mut bench = Bench::driven(nic);
        let frames = [frame(BROADCAST, 1514), frame(BROADCAST, 61)];
        for frame in &frames {
            bench.send(frame);
            assert_eq!(bench.inb(CR), START);
            assert_eq!(bench.inb(ISR), SENT);
            assert_eq!(bench.inb(TSR), 0x03);
            bench.outb(ISR, SENT);
        }
        assert_eq!(sent(&bench), frames);
    }
}

#[test]
fn a_frame_waits_for_room_on_the_wire() {
    for nic in [ISA, PCI] {
        let mut bench = Bench::driven(nic);
        bench.world.busy = true;
        let frame = frame(BROADCAST, 99);
        bench.send(&frame);
        bench.renew();
        for _ in 0..3 {
            assert_eq!(bench.inb(CR), SEND, "not yet");
            assert_eq!(bench.inb(ISR), 0);
            bench.outb(CR, SEND);
            bench.now = bench.pc.next_deadline().expect("tries again");
            bench.pc.expire(bench.now, &mut bench.world);
        }
        bench.world.busy = false;
        bench.now = bench.pc.next_deadline().expect("tries again");
        bench.pc.expire(bench.now, &mut bench.world);
        assert_eq!((bench.inb(CR), bench.inb(ISR)), (START, SENT));
        assert_eq!(sent(&bench), [&frame[..]]);
        assert_eq!(bench.pc.next_deadline(), None);
    }
}

#[test]
fn a_stop_or_a_reset_forgets_the_frame_that_waits() {
    for nic in [ISA, PCI] {
        let mut bench = Bench::driven(nic);
        bench.world.busy = true;
        bench.send(&frame(BROADCAST, 99));
        bench.inb(RESET);
        assert_eq!(bench.pc.next_deadline(), None);
        bench.renew();
    }
    let mut bench = Bench::driven(ISA);
    bench.world.busy = true;
    bench.send(&frame(BROADCAST, 99));
    bench.outb(CR, STOP);
    assert_eq!(bench.pc.next_deadline(), None);
    bench.world.busy = false;
    bench.outb(CR, START);
    bench.pc.expire(Ticks(1 << 40), &mut bench.world);
    assert!(sent(&bench).is_empty());
    bench.outb(CR, STOP | SEND);
    assert_eq!(bench.inb(CR) & 4, 0, "off line");
}

#[test]
fn what_is_no_frame_reaches_nobody() {
    let mut bench = Bench::driven(ISA);
    for (page, count) in [
        (TRANSMIT_PAGE, 13),
        (TRANSMIT_PAGE, 1519),
        (TRANSMIT_PAGE, 0),
        (0x7F, 257),
        (0x00, 60),
        (0xFF, 60),
    ] {
        bench.outb(TPSR, page);
        bench.pair(TBCR, count);
        bench.outb(CR, SEND);
        assert_eq!(bench.inb(ISR), SENT, "{page:#x} {count}");
        bench.outb(ISR, SENT);
    }
    assert!(sent(&bench).is_empty());
}

#[test]
fn a_check_sequence_of_the_driver_s_is_not_the_frame_s() {
    let mut bench = Bench::driven(ISA);
    let frame = frame(BROADCAST, 64);
    bench.outb(TCR, 0x01);
    bench.send(&frame);
    assert_eq!(sent(&bench), [&frame[..60]]);
}

#[test]
fn loopback_reaches_no_wire() {
    let mut bench = Bench::driven(ISA);
    for (mode, status) in [(0x02, 0x53), (0x04, 0x43), (0x06, 0x03)] {
        bench.outb(TCR, mode);
        bench.send(&frame(BROADCAST, 64));
        assert_eq!(bench.inb(TSR), status);
        assert_eq!(bench.inb(ISR), SENT, "nothing is stored");
        bench.outb(ISR, SENT);
    }
    assert!(sent(&bench).is_empty());
}

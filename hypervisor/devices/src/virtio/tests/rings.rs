//! Requests, as they should be and as they should not.

use super::driver::*;
use crate::pc::{OutsideMemory, Pc, Width};
use crate::virtio::{Budget, Fault};

const BUFFER: u64 = 0x2000;

#[test]
fn a_disk_is_read_and_written() {
    let mut bench = Bench::driven(DISK, 0);
    assert_eq!(bench.perform(0, 3, &[(BUFFER, 1024, WRITE)]), 0);
    assert_eq!(bench.load(BUFFER, 1024), &bench.world.disks[0][1536..2560]);
    assert_eq!(bench.used_element(0, 0), (0, 1025));
    bench.store(BUFFER, &[0xA5; 512]);
    let parts = [
        (BUFFER, 200, 0),
        (BUFFER + 200, 0, 0),
        (BUFFER + 200, 312, 0),
    ];
    assert_eq!(bench.perform(1, 63, &parts), 0);
    assert_eq!(bench.world.disks[0][63 * 512..], [0xA5; 512]);
    assert_eq!(bench.used_element(0, 1), (0, 1));
    assert_eq!(bench.perform(4, 0, &[]), 0);
    assert_eq!(bench.world.flushes, 1);
    assert_eq!(bench.perform(8, 0, &[(BUFFER, 20, WRITE)]), 0);
    assert_eq!(&bench.load(BUFFER, 20)[..7], b"disk00\0");
    assert!(bench.world.stops.is_empty());
}

#[test]
fn what_a_disk_cannot_do_is_an_error_and_no_more() {
    let mut bench = Bench::driven(DISK, 0);
    let before = bench.world.disks.clone();
    for (kind, sector, length, flags, status) in [
        (0, 64, 512, WRITE, 1),
        (0, 63, 1024, WRITE, 1),
        (0, u64::MAX, 512, WRITE, 1),
        (0, 0, 100, WRITE, 1),
        (1, 64, 512, 0, 1),
        (1, u64::MAX / 512 + 1, 512, 0, 1),
        (11, 0, 512, 0, 2),
        (99, 0, 512, WRITE, 2),
    ] {
        let got = bench.perform(kind, sector, &[(BUFFER, length, flags)]);
        assert_eq!(got, status, "type {kind} at {sector}, {length} bytes");
    }
    assert_eq!(bench.used(0), 8);
    assert_eq!(
        bench.used_element(0, 0),
        (0, 0),
        "nothing that counts was written"
    );
    assert!(bench.world.stops.is_empty());
    assert_eq!(bench.world.disks, before);

    let mut bench = Bench::driven(READ_ONLY_DISK, 1 << 5);
    assert_eq!(bench.perform(1, 0, &[(BUFFER, 512, 0)]), 1);
    assert_eq!(bench.perform(0, 0, &[(BUFFER, 512, WRITE)]), 0);
    assert_eq!(bench.world.disks, before);
}

#[test]
fn a_disk_that_fails_is_an_error() {
    let mut bench = Bench::driven(DISK, 0);
    bench.world.disks[0].truncate(512);
    assert_eq!(bench.perform(0, 1, &[(BUFFER, 512, WRITE)]), 1);
    assert_eq!(bench.perform(0, 0, &[(BUFFER, 512, WRITE)]), 0);
}

#[test]
fn disks_say_what_they_are() {
    let mut bench = Bench::new(DISK);
    assert_eq!(bench.read(0x80, Width::Dword), 64);
    assert_eq!(bench.read(0x84, Width::Dword), 0);
    assert_eq!(bench.read(0x8C, Width::Dword), 126);
    assert_eq!(bench.read(0x94, Width::Dword), 512);
    let features = |bench: &mut Bench| {
        bench.out(0x00, Width::Dword, 0);
        bench.read(0x04, Width::Dword)
    };
    assert_eq!(
        features(&mut bench),
        1 << 28 | 1 << 29 | 1 << 9 | 1 << 6 | 1 << 2
    );
    let mut bench = Bench::new(READ_ONLY_DISK);
    assert_eq!(features(&mut bench) & 1 << 5, 1 << 5);
}

#[test]
fn a_long_request_is_done_bit_by_bit() {
    let mut bench = Bench::driven(DISK, INDIRECT_DESC);
    // The whole disk into the same half of it, eight times: 128 KiB.
    let half = 32 * 512;
    for (sector, count) in [(0, 2), (32, 1)] {
        bench.request(0, 0x100, (0, sector), &[]);
        let table = 0x8000;
        bench.describe(table, 0, (0x100, 16), NEXT, 1);
        for part in 0..count {
            bench.describe(table, 1 + part, (BUFFER, half), WRITE | NEXT, 2 + part);
        }
        bench.describe(table, 1 + count, (0x110, 1), WRITE, 0);
        bench.describe(
            ring(0),
            0,
            (table, 16 * (2 + u32::from(count))),
            INDIRECT,
            0,
        );
        bench.offer(0, 0);
    }
    for _ in 0..4 {
        bench.offer(0, 0);
    }
    let before = bench.world.moved;
    bench.ring(0);
    assert!(bench.world.moved - before < u64::from(Budget::FULL) + 2048);
    assert!(bench.used(0) < 6, "the budget was not for all of it");
    let pause = bench.pc.next_deadline().expect("work is left").0 - bench.now.0;
    assert_eq!(pause, 10_000);
    let mut steps = 0;
    while let Some(at) = bench.pc.next_deadline() {
        bench.now = at;
        let before = bench.world.moved;
        bench.pc.expire(at, &mut bench.world);
        assert!(bench.world.moved - before < u64::from(Budget::FULL) + 2048);
        steps += 1;
    }
    assert_eq!(steps, 6);
    assert_eq!(bench.used(0), 6);
    let expected = bench.world.disks[0][32 * 512..].to_vec();
    assert_eq!(bench.load(BUFFER, half as usize), expected);
}

#[test]
fn a_board_saved_in_the_middle_of_a_request_goes_on() {
    let mut bench = Bench::driven(DISK, EVENT_IDX);
    let data: Vec<_> = (0..8).map(|_| (BUFFER, 4096, WRITE)).collect();
    bench.request(0, 0x100, (0, 0), &data);
    for _ in 0..5 {
        bench.offer(0, 0);
    }
    bench.ring(0);
    let mut state = bench.pc.save();
    let function = function(&mut state, 0);
    let chain = function.transport.queues[0].chain.as_ref();
    assert!(
        chain.is_some_and(|chain| chain.written > 0),
        "in the middle"
    );
    let mut again = bench.clone();
    again.pc = Pc::restore(crate::pc::tests::config(), state.clone()).expect("its own state");
    assert_eq!(again.pc.save(), state);
    assert_eq!(again.finish(), bench.finish());
    // The available index is read again.
    again.world.moved = bench.world.moved;
    assert_eq!(again.world, bench.world);
    assert_eq!(again.used(0), 5);
    assert_eq!(again.pc.save(), bench.pc.save());
}

#[test]
fn a_console_talks_and_listens() {
    let mut bench = Bench::driven(CONSOLE, 0);
    bench.store(BUFFER, b"hello, world");
    bench.chain(1, 0, &[(BUFFER, 5, 0), (BUFFER + 5, 7, 0)]);
    bench.offer(1, 0);
    bench.ring(1);
    assert_eq!(bench.world.virtio_console, b"hello, world");
    assert_eq!(bench.used_element(1, 0), (0, 0));
    assert_eq!(bench.interrupts(), 1);

    assert_eq!(bench.pc.console_room(), 64);
    let typed: Vec<u8> = (0..100).collect();
    let taken = bench.pc.console_input(&typed, bench.now, &mut bench.world);
    assert_eq!((taken, bench.pc.console_room()), (64, 0));
    assert_eq!(bench.interrupts(), 0, "there is no buffer");
    bench.chain(0, 3, &[(BUFFER, 30, WRITE), (BUFFER + 100, 10, WRITE)]);
    bench.offer(0, 3);
    bench.ring(0);
    assert_eq!(bench.used_element(0, 0), (3, 40));
    assert_eq!(bench.load(BUFFER, 30), &typed[..30]);
    assert_eq!(bench.load(BUFFER + 100, 10), &typed[30..40]);
    assert!(bench.line());
    assert_eq!(bench.interrupts(), 1);
    assert!(!bench.line());
    assert_eq!(bench.pc.console_room(), 40);
}

#[test]
fn typed_bytes_go_to_the_console_that_is_listened_to() {
    let mut bench = Bench::new(CONSOLE);
    let received = |bench: &mut Bench| {
        let typed = bench.pc.console_input(b"x", bench.now, &mut bench.world);
        assert_eq!(typed, 1);
        let uart = bench.pc.save().uart.expect("there").received.len();
        bench
            .pc
            .read(0x3F8, Width::Byte, bench.now, &mut bench.world);
        uart
    };
    assert_eq!(bench.pc.console_room(), 1, "COM1 without its FIFO");
    assert_eq!(received(&mut bench), 1);
    bench.start(0);
    assert_eq!(bench.pc.console_room(), 64);
    assert_eq!(received(&mut bench), 0);
    bench
        .pc
        .write(0x3F9, Width::Byte, 1, bench.now, &mut bench.world);
    assert_eq!(received(&mut bench), 1, "COM1's receive interrupt is on");
    bench
        .pc
        .write(0x3F9, Width::Byte, 0, bench.now, &mut bench.world);
    assert_eq!(received(&mut bench), 0);
    bench.configure(0x04, 3);
    assert_eq!(received(&mut bench), 1, "the console is no bus master");
}

#[test]
fn long_output_is_sent_bit_by_bit() {
    let mut bench = Bench::driven(CONSOLE, 0);
    let text: Vec<u8> = (0..10_000).map(|at| (at / 3) as u8).collect();
    bench.store(BUFFER, &text);
    bench.chain(1, 0, &[(BUFFER, 10_000, 0)]);
    bench.offer(1, 0);
    bench.ring(1);
    assert!((1..=256).contains(&bench.world.virtio_console.len()));
    assert!((39..42).contains(&bench.finish()));
    assert_eq!(bench.world.virtio_console, text);
    assert_eq!(bench.used(1), 1);
}

#[test]
fn entropy_comes_when_there_is_some() {
    let mut bench = Bench::driven(ENTROPY, 0);
    bench.world.random = false;
    bench.chain(0, 0, &[(BUFFER, 10, WRITE), (BUFFER + 10, 1000, WRITE)]);
    bench.offer(0, 0);
    bench.ring(0);
    assert_eq!(bench.used(0), 0);
    let at = bench.pc.next_deadline().expect("it tries again");
    bench.world.random = true;
    bench.now = at;
    bench.pc.expire(at, &mut bench.world);
    assert_eq!(bench.used_element(0, 0), (0, 256));
    assert_eq!(bench.load(BUFFER, 256), (0..=255).collect::<Vec<u8>>());
    assert_eq!(bench.pc.next_deadline(), None);
}

#[test]
fn rings_wrap_around() {
    let mut bench = Bench::driven(ENTROPY, 0);
    // 65,536 and some chains: both the rings and their indices wrap.
    for round in 0..66_000u32 {
        let head = (round % u32::from(SIZE)) as u16;
        bench.chain(0, head, &[(BUFFER, 1, WRITE)]);
        bench.offer(0, head);
        bench.ring(0);
        assert_eq!(bench.used(0), (round + 1) as u16);
        assert_eq!(bench.used_element(0, round as u16), (u32::from(head), 1));
    }
}

#[test]
fn what_was_ready_before_the_driver_was_is_served() {
    let mut bench = Bench::new(ENTROPY);
    bench.negotiate(0);
    bench.enable(0);
    bench.chain(0, 0, &[(BUFFER, 1, WRITE)]);
    bench.offer(0, 0);
    bench.ring(0);
    assert_eq!(bench.used(0), 0, "not before DRIVER_OK");
    bench.out(0x14, Width::Byte, 15);
    bench.finish();
    assert_eq!(bench.used(0), 1);
}

#[test]
fn event_indices_save_interrupts_and_doorbells() {
    let mut bench = Bench::driven(ENTROPY, EVENT_IDX);
    let give = |bench: &mut Bench| {
        bench.chain(0, 0, &[(BUFFER, 1, WRITE)]);
        bench.offer(0, 0);
        bench.ring(0);
        bench.interrupts()
    };
    bench.set_used_event(0, 2);
    let seen: Vec<u8> = (0..5).map(|_| give(&mut bench)).collect();
    assert_eq!(seen, [0, 0, 1, 0, 0]);
    assert_eq!(bench.available_event(0), 5, "it wants to hear of the next");
}

#[test]
fn a_driver_can_do_without_interrupts() {
    let mut bench = Bench::driven(ENTROPY, 0);
    bench.set_available(0, 0, 1);
    bench.chain(0, 0, &[(BUFFER, 1, WRITE)]);
    bench.offer(0, 0);
    bench.ring(0);
    assert_eq!((bench.used(0), bench.interrupts()), (1, 0));
}

/// Rings with a fault, and what the device should make of it.
type Case = (&'static str, fn(&mut Bench), Fault);

const OUTSIDE: u64 = super::world::MEMORY as u64;

const CASES: &[Case] = &[
    (
        "index",
        |b| b.set_available(0, 2, SIZE + 1),
        Fault::AvailableIndex,
    ),
    ("head", |b| b.offer(0, SIZE), Fault::Head),
    (
        "loop",
        |b| {
            b.describe(ring(0), 0, (BUFFER, 1), WRITE | NEXT, 1);
            b.describe(ring(0), 1, (BUFFER, 1), WRITE | NEXT, 0);
            b.offer(0, 0);
        },
        Fault::Loop,
    ),
    (
        "next",
        |b| {
            b.describe(ring(0), 0, (BUFFER, 1), WRITE | NEXT, SIZE);
            b.offer(0, 0);
        },
        Fault::Next,
    ),
    (
        "order",
        |b| {
            b.chain(0, 0, &[(BUFFER, 1, WRITE), (BUFFER, 1, 0)]);
            b.offer(0, 0);
        },
        Fault::Order,
    ),
    (
        "length",
        |b| {
            let huge = (BUFFER, u32::MAX, WRITE);
            b.chain(0, 0, &[huge, (BUFFER, 1, WRITE)]);
            b.offer(0, 0);
        },
        Fault::Length,
    ),
    (
        "buffer",
        |b| {
            b.chain(0, 0, &[(OUTSIDE - 1, 2, WRITE)]);
            b.offer(0, 0);
        },
        Fault::Address(OUTSIDE - 1),
    ),
    (
        "buffer at the end of the address space",
        |b| {
            b.chain(0, 0, &[(u64::MAX, 2, WRITE)]);
            b.offer(0, 0);
        },
        Fault::Address(u64::MAX),
    ),
    (
        "indirect, not agreed upon",
        |b| {
            b.describe(ring(0), 0, (BUFFER, 16), INDIRECT, 0);
            b.offer(0, 0);
        },
        Fault::Indirect,
    ),
];

const INDIRECT_CASES: &[Case] = &[
    (
        "indirect with next",
        |b| {
            b.describe(ring(0), 0, (BUFFER, 16), INDIRECT | NEXT, 1);
            b.offer(0, 0);
        },
        Fault::Indirect,
    ),
    (
        "half an entry",
        |b| {
            b.describe(ring(0), 0, (BUFFER, 24), INDIRECT, 0);
            b.offer(0, 0);
        },
        Fault::Indirect,
    ),
    (
        "empty table",
        |b| {
            b.describe(ring(0), 0, (BUFFER, 0), INDIRECT, 0);
            b.offer(0, 0);
        },
        Fault::Indirect,
    ),
    (
        "table in a table",
        |b| {
            b.describe(ring(0), 0, (BUFFER, 16), INDIRECT, 0);
            b.describe(BUFFER, 0, (BUFFER, 16), INDIRECT, 0);
            b.offer(0, 0);
        },
        Fault::Indirect,
    ),
    (
        "beyond the table",
        |b| {
            b.describe(ring(0), 0, (BUFFER, 16), INDIRECT, 0);
            b.describe(BUFFER, 0, (BUFFER, 16), NEXT, 1);
            b.offer(0, 0);
        },
        Fault::Next,
    ),
    (
        "table outside memory",
        |b| {
            b.describe(ring(0), 0, (OUTSIDE, 16), INDIRECT, 0);
            b.offer(0, 0);
        },
        Fault::Address(OUTSIDE),
    ),
    (
        "table at the end of the address space",
        |b| {
            b.describe(ring(0), 0, (u64::MAX - 15, u32::MAX - 15), INDIRECT, 0);
            b.offer(0, 0);
        },
        Fault::Address(u64::MAX - 15),
    ),
];

fn check(features: u64, cases: &[Case]) {
    for (name, spoil, fault) in cases {
        let mut bench = Bench::driven(ENTROPY, features);
        spoil(&mut bench);
        bench.ring(0);
        assert_eq!(bench.world.stops, [(ENTROPY, *fault, 1)], "{name}");
        assert_eq!(bench.status() & NEEDS_RESET, NEEDS_RESET, "{name}");
        assert_eq!(bench.interrupts(), 2, "{name}: a change of configuration");
        assert_eq!(bench.pc.next_deadline(), None, "{name}");
        // It rests, whatever the driver does but for a reset.
        bench.ring(0);
        bench.out(0x14, Width::Byte, 15);
        assert_eq!(bench.world.stops.len(), 1, "{name}");
        bench.store(RINGS, &[0; 0x1000]);
        bench.start(features);
        bench.chain(0, 0, &[(BUFFER, 1, WRITE)]);
        bench.offer(0, 0);
        bench.ring(0);
        assert_eq!(bench.used(0), 1, "{name}: after a reset");
    }
}

#[test]
fn a_broken_ring_stops_its_device_until_a_reset() {
    check(0, CASES);
    check(INDIRECT_DESC, INDIRECT_CASES);
}

#[test]
fn a_chain_may_be_as_long_as_a_queue_can_be() {
    for (count, fine) in [(128, true), (129, false)] {
        let mut bench = Bench::driven(ENTROPY, INDIRECT_DESC);
        let table = BUFFER;
        for index in 0..count {
            let last = index + 1 == count;
            let flags = WRITE | if last { 0 } else { NEXT };
            bench.describe(table, index, (0x100, 1), flags, index + 1);
        }
        bench.describe(ring(0), 0, (table, 16 * u32::from(count)), INDIRECT, 0);
        bench.offer(0, 0);
        bench.ring(0);
        assert_eq!(bench.world.stops.is_empty(), fine);
        let expected = if fine { 128 } else { 0 };
        assert_eq!(bench.used_element(0, 0).1, expected);
    }
}

#[test]
fn direct_buffers_may_come_before_a_table() {
    let mut bench = Bench::driven(ENTROPY, INDIRECT_DESC);
    bench.describe(ring(0), 0, (BUFFER, 3), WRITE | NEXT, 1);
    bench.describe(ring(0), 1, (0x8000, 16), INDIRECT | WRITE, 0);
    bench.describe(0x8000, 0, (BUFFER + 3, 4), WRITE, 0);
    bench.offer(0, 0);
    bench.ring(0);
    assert_eq!(bench.load(BUFFER, 8), [0, 1, 2, 3, 4, 5, 6, 0]);
}

#[test]
fn a_disk_request_needs_header_and_status() {
    for parts in [
        &[(BUFFER, 15, 0), (BUFFER, 1, WRITE)][..],
        &[(BUFFER, 16, 0)],
        &[(BUFFER, 16, 0), (BUFFER, 0, WRITE)],
        &[(BUFFER, 512, WRITE)],
    ] {
        let mut bench = Bench::driven(DISK, 0);
        bench.chain(0, 0, parts);
        bench.offer(0, 0);
        bench.ring(0);
        assert_eq!(bench.world.stops, [(DISK, Fault::Request, 1)], "{parts:?}");
    }
}

#[test]
fn a_queue_is_laid_out_as_it_must_be() {
    for (register, value) in [
        (0x18, 0),
        (0x18, 3),
        (0x18, 256),
        (0x20, 8),
        (0x28, 1),
        (0x30, 2),
    ] {
        let mut bench = Bench::new(DISK);
        bench.negotiate(0);
        bench.out(register, Width::Word, value);
        bench.out(0x1C, Width::Word, 1);
        assert_eq!(bench.world.stops, [(DISK, Fault::Layout, 1)]);
        assert_eq!(bench.read(0x1C, Width::Word), 0);
    }
}

#[test]
fn rings_outside_memory_are_noticed_when_used() {
    for register in [0x20, 0x28, 0x30] {
        let mut bench = Bench::new(ENTROPY);
        bench.negotiate(0);
        bench.enable(0);
        bench.chain(0, 0, &[(BUFFER, 1, WRITE)]);
        bench.offer(0, 0);
        let state = {
            let mut state = bench.pc.save();
            let queue = &mut function(&mut state, 3).transport.queues[0];
            match register {
                0x20 => queue.descriptors = !0xF,
                0x28 => queue.available = !0xF,
                _ => queue.used = !0xF,
            }
            state
        };
        bench.pc = Pc::restore(crate::pc::tests::config(), state).expect("a possible state");
        bench.out(0x14, Width::Byte, 15);
        bench.finish();
        assert!(
            matches!(bench.world.stops[..], [(ENTROPY, Fault::Address(at), 1)] if at >= !0xF),
            "{register:#x}: {:?}",
            bench.world.stops
        );
    }
    assert_eq!(Fault::from(OutsideMemory(7)), Fault::Address(7));
}

//! The transport: configuration space, common configuration, interrupts.

use super::driver::*;
use crate::pc::tests::config;
use crate::pc::{MemoryAccess, Pc, PcConfig, StateError, Width};

const BUFFER: u64 = 0x2000;
/// Where the firmware routes the interrupt pins of devices with an even number, and those of the others.
const LINES: [u32; 2] = [10, 11];

fn one_byte(bench: &mut Bench) {
    bench.chain(0, 0, &[(BUFFER, 1, WRITE)]);
    bench.offer(0, 0);
    bench.ring(0);
}

#[test]
fn devices_are_found_by_their_headers() {
    for (device, identity, class) in [
        (DISK, 0x1042_1AF4, 0x0180_0001),
        (READ_ONLY_DISK, 0x1042_1AF4, 0x0180_0001),
        (CONSOLE, 0x1043_1AF4, 0x0780_0001),
        (ENTROPY, 0x1044_1AF4, 0xFF00_0001u32),
        (CARD, 0x1041_1AF4, 0x0200_0001),
    ] {
        let mut bench = Bench::new(device);
        assert_eq!(bench.configuration(0x00), identity);
        assert_eq!(bench.configuration(0x08), class);
        assert_eq!(bench.configuration(0x0C), 0);
        assert_eq!(
            bench.configuration(0x2C) >> 16,
            0x40 + (identity >> 16) - 0x1040
        );
        assert_eq!(
            bench.configuration(0x3C),
            0x0100 | LINES[usize::from(device % 2)]
        );
    }
    let mut bench = Bench::new(DISK);
    bench.device = 7;
    assert_eq!(bench.configuration(0x00), u32::MAX);
}

#[test]
fn firmware_leaves_devices_decoding_and_without_mastery() {
    let mut bench = Bench::new(DISK);
    bench.pc.reset(bench.now, &mut bench.world);
    assert_eq!(bench.configuration(0x04), 0x0010_0003);
    assert_eq!(bench.configuration(0x10), 0xC201);
    assert_eq!(bench.configuration(0x14), 0xC000_2000);
    assert_eq!(bench.read(0x12, Width::Word), 1);
    assert!(bench.pc.mapped(0xC000_2FFF));
    assert!(!bench.pc.mapped(0xC000_1FFF), "device 1 has none");
    assert!(!bench.pc.mapped(0xC000_7000));
}

#[test]
fn base_addresses_are_sized_and_moved() {
    let mut bench = Bench::new(DISK);
    for (register, size) in [
        (0x10, 0x0000_FF01),
        (0x14, 0xFFFF_F000),
        (0x18, 0),
        (0x24, 0),
    ] {
        bench.configure(register, u32::MAX);
        assert_eq!(bench.configuration(register), size);
    }
    bench.configure(0x10, 0x0001_1240);
    assert_eq!(bench.configuration(0x10), 0x1201);
    bench.configure(0x14, 0xD000_0000);
    assert_eq!(bench.read(0x12, Width::Word), 0xFFFF, "not there any more");
    let read = |bench: &mut Bench, port| {
        bench
            .pc
            .read(port, Width::Word, bench.now, &mut bench.world)
    };
    assert_eq!(read(&mut bench, 0x1212), 1);
    assert!(bench.pc.mapped(0xD000_0000) && !bench.pc.mapped(0xC000_2000));
    bench.configure(0x04, 0);
    assert_eq!(read(&mut bench, 0x1212), 0xFFFF);
    assert!(!bench.pc.mapped(0xD000_0000));
    // The board's own ports stay the board's.
    bench.configure(0x04, 7);
    bench.configure(0x10, 0x0000);
    assert_eq!(read(&mut bench, 0x0012), 0xFFFF);
}

/// The capabilities: place, identity, third byte, and doublewords behind.
fn capabilities(bench: &mut Bench) -> Vec<(u8, u8, u32, [u32; 4])> {
    let mut found = Vec::new();
    let mut at = bench.configuration(0x34) as u8;
    while at != 0 {
        let first = bench.configuration(at);
        let rest = [4, 8, 12, 16].map(|offset| bench.configuration(at + offset));
        found.push((at, first as u8, first >> 16, rest));
        at = (first >> 8) as u8;
    }
    found
}

#[test]
fn capabilities_say_where_everything_is() {
    let mut bench = Bench::new(CONSOLE);
    let found = capabilities(&mut bench);
    assert_eq!(
        found,
        [
            (0x40, 9, 0x0110, [0, 0x00, 0x38, found[0].3[3]]),
            (0x50, 9, 0x0214, [0, 0x40, 2, 0]),
            (0x64, 9, 0x0310, [0, 0x44, 1, found[2].3[3]]),
            (0x74, 9, 0x0410, [0, 0x80, 0x80, found[3].3[3]]),
            (0x84, 9, 0x0514, [0, 0, 0, 0]),
            (0x98, 0x11, 2, [1, 0x801, 0, 0]),
        ]
    );
}

#[test]
fn the_ports_can_be_reached_by_configuration_accesses() {
    let mut bench = Bench::driven(ENTROPY, 0);
    let window = |bench: &mut Bench, bar, offset, length| {
        bench.configure(0x88, bar);
        bench.configure(0x8C, offset);
        bench.configure(0x90, length);
    };
    window(&mut bench, 0, 0x14, 1);
    assert_eq!(bench.configuration(0x94), 15);
    window(&mut bench, 0, 0x12, 2);
    assert_eq!(bench.configuration(0x94), 1);
    bench.chain(0, 0, &[(BUFFER, 1, WRITE)]);
    bench.offer(0, 0);
    window(&mut bench, 0, 0x40, 2);
    bench.configure(0x94, 0);
    assert_eq!(bench.used(0), 1, "the doorbell");
    assert!(bench.line());
    window(&mut bench, 0, 0x44, 1);
    assert_eq!(bench.configuration(0x94), 1);
    assert!(!bench.line(), "read, so ended");
    window(&mut bench, 1, 0x1C, 4);
    assert_eq!(bench.configuration(0x94), 1, "a mask of the message table");
    bench.configure(0x94, 0);
    assert_eq!(bench.table_read(0x1C), 0);
    for (bar, offset, length) in [
        (0, 0x13, 2),
        (0, 0x100, 1),
        (2, 0, 4),
        (0, 0, 3),
        (1, 0x1000, 4),
    ] {
        window(&mut bench, bar, offset, length);
        bench.configure(0x94, 7);
        assert_eq!(bench.configuration(0x94), 0, "{bar} {offset:#x} {length}");
    }
}

#[test]
fn features_are_negotiated() {
    let mut bench = Bench::new(ENTROPY);
    bench.out(0x00, Width::Dword, 1);
    assert_eq!(bench.read(0x04, Width::Dword), 1, "version 1");
    bench.out(0x00, Width::Dword, 2);
    assert_eq!(bench.read(0x04, Width::Dword), 0);
    // Without version 1, or with what was not offered, there is no agreement.
    for (half, features, agreed) in [(0, 0, false), (1, 1, true), (0, 1 << 5, false)] {
        bench.out(0x08, Width::Dword, half);
        bench.out(0x0C, Width::Dword, features);
        bench.out(0x14, Width::Byte, 11);
        let agrees = bench.status() & 8 != 0;
        if agreed != agrees {
            panic!("half {half}: {features:#x}");
        }
        if agrees {
            bench.out(0x14, Width::Byte, 0);
            assert_eq!(bench.status(), 0);
        }
    }
    // What was agreed upon stays.
    bench.negotiate(EVENT_IDX);
    bench.out(0x08, Width::Dword, 0);
    bench.out(0x0C, Width::Dword, 0);
    assert_eq!(bench.read(0x0C, Width::Dword), 1 << 29);
}

#[test]
fn queues_that_are_not_there_have_no_size() {
    let mut bench = Bench::new(CONSOLE);
    for (queue, size) in [(0, 128), (1, 128), (2, 0), (0xFFFF, 0)] {
        bench.out(0x16, Width::Word, queue);
        assert_eq!(bench.read(0x18, Width::Word), size);
        bench.out(0x1C, Width::Word, 1);
        assert_eq!(
            bench.read(0x1C, Width::Word),
            0,
            "nothing is agreed upon yet"
        );
    }
}

#[test]
fn registers_can_be_written_by_halves() {
    let mut bench = Bench::new(DISK);
    bench.out(0x20, Width::Dword, 0x1234_5670);
    bench.out(0x22, Width::Word, 0xABCD);
    bench.out(0x24, Width::Byte, 0x11);
    assert_eq!(bench.read(0x20, Width::Dword), 0xABCD_5670);
    assert_eq!(bench.read(0x24, Width::Dword), 0x11);
    assert_eq!(
        bench.read(0x22, Width::Dword),
        0x0011_ABCD,
        "reads may cross"
    );
    bench.out(0x22, Width::Dword, 0);
    assert_eq!(
        bench.read(0x22, Width::Dword),
        0x0011_ABCD,
        "writes may not"
    );
}

#[test]
fn an_interrupt_pin_is_a_level() {
    let mut bench = Bench::driven(ENTROPY, 0);
    one_byte(&mut bench);
    assert!(bench.line());
    assert_eq!(bench.configuration(0x04) >> 16, 0x18);
    bench.configure(0x04, 0x407);
    assert!(!bench.line(), "switched off");
    bench.configure(0x04, 7);
    assert!(bench.line());
    assert_eq!(bench.interrupts(), 1);
    assert!(!bench.line());
    one_byte(&mut bench);
    bench.out(0x14, Width::Byte, 0);
    assert!(!bench.line(), "a reset ends it");
}

#[test]
fn without_an_io_apic_the_pin_reaches_the_8259a_pair() {
    let mut config = config();
    config.io_apic = false;
    let mut bench = Bench::with(config, ENTROPY);
    bench.configure(0x04, 7);
    // Device 5's line is 11; all others are masked.
    for (port, values) in [
        (0x20, [0x11, 0x20, 0x04, 0x01, 0xFB]),
        (0xA0, [0x11, 0x28, 0x02, 0x01, 0xF7]),
    ] {
        for (offset, value) in [0, 1, 1, 1, 1].into_iter().zip(values) {
            let Bench { pc, world, now, .. } = &mut bench;
            pc.write(port + offset, Width::Byte, value, *now, world);
        }
    }
    bench.start(0);
    one_byte(&mut bench);
    assert!(bench.pc.interrupt_pending());
    bench.interrupts();
    assert!(!bench.pc.interrupt_pending());
}

#[test]
fn devices_share_an_input() {
    // Devices 2 and 6 have the same one; so does a pin of either with the other's.
    let mut config = config();
    config.virtio.disks.resize(5, config.virtio.disks[0]);
    let mut bench = Bench::with(config, 2);
    bench.configure(0x04, 7);
    bench.start(0);
    bench.perform(4, 0, &[]);
    bench.device = 6;
    bench.configure(0x04, 7);
    bench.store(RINGS, &[0; 0x1000]);
    bench.start(0);
    bench.perform(4, 0, &[]);
    assert!(bench.line());
    bench.interrupts();
    assert!(bench.line(), "device 2 still asks");
    bench.device = 2;
    bench.interrupts();
    assert!(!bench.line());
}

#[test]
fn the_pin_reaches_processors_through_the_io_apic() {
    let mut bench = Bench::driven(ENTROPY, 0);
    let input = u32::from(crate::acpi::pci_input(ENTROPY, 0));
    bench.pc.io_apic_write(0x00, 0x10 + 2 * input);
    bench.pc.io_apic_write(0x10, 0x8055);
    one_byte(&mut bench);
    assert_eq!(bench.vectors(), [0x55]);
    bench.pc.end_of_interrupt(0x55);
    assert_eq!(bench.vectors(), [0x55], "still asserted");
    bench.interrupts();
    bench.pc.end_of_interrupt(0x55);
    assert_eq!(bench.vectors(), []);
}

#[test]
fn messages_replace_the_pin() {
    let mut bench = Bench::driven(CONSOLE, 0);
    bench.use_messages();
    bench.chain(1, 0, &[(BUFFER, 1, 0)]);
    bench.offer(1, 0);
    bench.ring(1);
    assert_eq!(bench.vectors(), [0x42]);
    assert_eq!(bench.interrupts(), 0);
    assert!(!bench.line());
    // A fault is a change of configuration.
    bench.offer(1, SIZE);
    bench.ring(1);
    assert_eq!(bench.vectors(), [0x40]);
    assert_eq!(bench.interrupts(), 2);
}

#[test]
fn messages_are_held_back_and_sent_later() {
    type Switch = fn(&mut Bench, bool);
    let ways: [Switch; 3] = [
        |bench, hold| bench.table_write(0x1C, u32::from(hold)),
        |bench, hold| bench.configure(0x98, if hold { 0xC000_0000 } else { 0x8000_0000 }),
        |bench, hold| {
            // Not a bus master, but the message waits already.
            if !hold {
                bench.configure(0x04, 3);
                bench.table_write(0x1C, 0);
                assert_eq!(bench.vectors(), []);
            }
            bench.table_write(0x1C, u32::from(hold));
            bench.configure(0x04, 7);
        },
    ];
    for hold in ways {
        let mut bench = Bench::driven(ENTROPY, 0);
        bench.use_messages();
        hold(&mut bench, true);
        one_byte(&mut bench);
        one_byte(&mut bench);
        assert_eq!(bench.vectors(), []);
        assert_eq!(bench.table_read(0x800), 2);
        let mut restored = bench.clone();
        restored.pc = Pc::restore(config(), bench.pc.save()).expect("its own state");
        for mut bench in [bench, restored] {
            hold(&mut bench, false);
            assert_eq!(bench.vectors(), [0x41], "once for both");
            assert_eq!(bench.table_read(0x800), 0);
        }
    }
}

#[test]
fn vectors_that_do_not_exist_read_back_as_none() {
    let mut bench = Bench::new(ENTROPY);
    for (register, value, read) in [
        (0x10, 1, 1),
        (0x10, 2, 0xFFFF),
        (0x1A, 1, 1),
        (0x1A, 2, 0xFFFF),
        (0x1A, 0xFFFF, 0xFFFF),
    ] {
        bench.out(register, Width::Word, value);
        assert_eq!(bench.read(register, Width::Word), read);
    }
}

#[test]
fn the_message_table_takes_doublewords_and_quadwords() {
    let mut bench = Bench::new(CARD);
    let table = 0xC000_6000;
    bench
        .pc
        .memory_write(table + 8, 8, 0x0000_0001_0000_0077, bench.now);
    assert_eq!(bench.pc.memory_read(table + 8, 8, bench.now), 0x1_0000_0077);
    bench.pc.memory_write(table + 8, 2, 0, bench.now);
    bench.pc.memory_write(table + 10, 4, 0, bench.now);
    assert_eq!(bench.pc.memory_read(table + 8, 1, bench.now), 0x77);
    assert_eq!(
        bench.pc.memory_read(table + 0x60, 4, bench.now),
        0,
        "no seventh entry"
    );
    assert_eq!(bench.pc.memory_read(table + 0xFF8, 8, bench.now), 0);
    assert_eq!(
        bench.pc.memory_read(table + 0x1000, 4, bench.now) as u32,
        u32::MAX
    );
}

#[test]
fn without_local_apics_messages_are_not_collected() {
    let mut bench = Bench::with(
        PcConfig {
            io_apic: false,
            ..config()
        },
        ENTROPY,
    );
    bench.start(0);
    bench.use_messages();
    one_byte(&mut bench);
    assert_eq!(bench.used(0), 1);
    assert_eq!(bench.vectors(), []);
}

#[test]
fn a_device_that_is_no_master_touches_no_memory() {
    let mut bench = Bench::driven(ENTROPY, 0);
    bench.configure(0x04, 3);
    one_byte(&mut bench);
    assert_eq!((bench.used(0), bench.pc.next_deadline()), (0, None));
    bench.configure(0x04, 7);
    bench.finish();
    assert_eq!(bench.used(0), 1);
}

#[test]
fn a_board_reset_resets_the_devices() {
    let mut bench = Bench::driven(CONSOLE, 0);
    bench.use_messages();
    bench.pc.console_input(b"left", bench.now, &mut bench.world);
    bench.pc.reset(bench.now, &mut bench.world);
    let mut fresh = Bench::new(CONSOLE);
    fresh.pc.reset(fresh.now, &mut fresh.world);
    assert_eq!(bench.pc.save(), fresh.pc.save());
}

#[test]
fn no_device_waits_for_the_end_of_another() {
    let mut bench = Bench::driven(DISK, 0);
    let data: Vec<_> = (0..8).map(|_| (BUFFER, 4096, WRITE)).collect();
    bench.request(0, 0x100, (0, 0), &data);
    for _ in 0..SIZE {
        bench.offer(0, 0);
    }
    bench.ring(0);
    bench.device = ENTROPY;
    bench.configure(0x04, 7);
    bench.world.random = false;
    bench
        .world
        .memory
        .copy_within(RINGS as usize..RINGS as usize + 0x1000, 0x2_0000);
    bench.negotiate(0);
    for (register, address) in [(0x20, 0x2_0000), (0x28, 0x2_0400), (0x30, 0x2_0800)] {
        bench.out(register, Width::Dword, address);
    }
    bench.out(0x18, Width::Word, u32::from(SIZE));
    let mut part = BUFFER.to_le_bytes().to_vec();
    part.extend([1, 0, 0, 0, 2, 0, 0, 0]);
    bench.store(0x2_0000, &part);
    bench.out(0x1C, Width::Word, 1);
    bench.out(0x14, Width::Byte, 15);
    bench.world.random = true;
    for _ in 0..2 {
        bench.now = bench.pc.next_deadline().expect("both have work");
        bench.pc.expire(bench.now, &mut bench.world);
    }
    assert_ne!(bench.world.drawn, 0, "had its turn");
    assert!(bench.used(0) < SIZE, "while the disk is at work");
}

#[test]
fn impossible_states_are_refused() {
    use crate::pc::PcStateV1;
    use crate::virtio::{ModelStateV1, Part};
    let mut bench = Bench::driven(DISK, 0);
    let data: Vec<_> = (0..14).map(|_| (BUFFER, 4096, WRITE)).collect();
    bench.request(0, 0x100, (0, 0), &data[..8]);
    for _ in 0..5 {
        bench.offer(0, 0);
    }
    bench.ring(0);
    let state = bench.pc.save();
    assert!(Pc::restore(config(), state.clone()).is_ok());
    let spoils: [fn(&mut PcStateV1); 20] = [
        |s| s.work = None,
        |s| s.pci.as_mut().expect("there").turn = 5,
        |s| s.pci.as_mut().expect("there").devices.truncate(4),
        |s| function(s, 0).model = ModelStateV1::Entropy,
        |s| function(s, 0).endpoint.command |= 1 << 15,
        |s| function(s, 0).endpoint.bases[0] |= 2,
        |s| function(s, 0).msix.control = 1,
        |s| function(s, 0).msix.pending = 1,
        |s| function(s, 0).msix.entries.truncate(1),
        |s| function(s, 0).transport.status |= 16,
        |s| function(s, 0).transport.status = 7,
        |s| function(s, 0).transport.driver_features |= 1 << 60,
        |s| function(s, 0).transport.config_vector = 2,
        |s| function(s, 0).transport.queues[0].size = 7,
        |s| function(s, 0).transport.queues[0].used |= 1,
        |s| function(s, 0).transport.queues[0].chain = None,
        |s| {
            let chain = function(s, 0).transport.queues[0]
                .chain
                .as_mut()
                .expect("busy");
            chain.written = u32::MAX;
        },
        |s| {
            let chain = function(s, 0).transport.queues[0]
                .chain
                .as_mut()
                .expect("busy");
            let part = Part {
                address: 0,
                length: 0,
            };
            chain.parts.resize(129, part);
        },
        |s| function(s, 0).transport.interrupts ^= 1,
        |s| match &mut function(s, 2).model {
            ModelStateV1::Console(console) => console.input.resize(65, 0),
            _ => panic!("a console"),
        },
    ];
    for (index, spoil) in spoils.iter().enumerate() {
        let mut spoilt = state.clone();
        spoil(&mut spoilt);
        assert!(Pc::restore(config(), spoilt).is_err(), "case {index}");
    }
    let other = PcConfig {
        virtio: crate::VirtioConfig::default(),
        ..config()
    };
    assert_eq!(Pc::restore(other, state).err(), Some(StateError::Devices));
}

#[test]
fn the_world_of_the_tests_checks_memory() {
    let mut bench = Bench::new(DISK);
    assert!(bench.world.load_u16(super::world::MEMORY as u64).is_err());
    assert!(bench.world.write_memory(u64::MAX, &[0]).is_err());
}

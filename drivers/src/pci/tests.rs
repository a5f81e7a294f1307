use super::{Bar, Capability, Command, Configuration, Function, Message, PciAddress, enumerate};
use alloc::boxed::Box;
use std::collections::HashMap;
use std::sync::Mutex;
use std::vec::Vec;

/// A bus of functions that are bytes, with a mask of what can be written.
#[derive(Default)]
struct Fake(Mutex<HashMap<PciAddress, Space>>);

#[derive(Clone)]
struct Space {
    words: [u32; 64],
    writable: [u32; 64],
    /// A BAR was written with all ones while the function answered at it.
    decoding_while_sized: bool,
}

impl Configuration for Fake {
    fn read(&self, address: PciAddress, offset: u8) -> u32 {
        self.0
            .lock()
            .expect("not poisoned")
            .get(&address)
            .map_or(u32::MAX, |space| space.words[usize::from(offset / 4)])
    }

    fn write(&self, address: PciAddress, offset: u8, value: u32) {
        let mut spaces = self.0.lock().expect("not poisoned");
        let space = spaces
            .get_mut(&address)
            .expect("only functions are written");
        let index = usize::from(offset / 4);
        if (4..10).contains(&index) && value == u32::MAX {
            space.decoding_while_sized |= space.words[1] & 0b11 != 0;
        }
        let writable = space.writable[index];
        space.words[index] = space.words[index] & !writable | value & writable;
    }
}

fn at(text: &str) -> PciAddress {
    text.parse().expect("a PCI address")
}

fn space(identity: u32, header_type: u8) -> Space {
    let mut space = Space {
        words: [0; 64],
        writable: [0; 64],
        decoding_while_sized: false,
    };
    space.words[0] = identity;
    space.words[1] = 0x0010_0007;
    space.writable[1] = 0xFFFF;
    space.words[3] = u32::from(header_type) << 16;
    space
}

fn bus(functions: &[(&str, Space)]) -> &'static Fake {
    let spaces = functions
        .iter()
        .map(|(address, space)| (at(address), space.clone()));
    Box::leak(Box::new(Fake(Mutex::new(spaces.collect()))))
}

fn only(space: Space) -> (&'static Fake, Function) {
    let fake = bus(&[("00:03.0", space)]);
    let function = Function::find(fake, at("00:03.0")).expect("it is there");
    (fake, function)
}

#[test]
fn addresses_are_read_as_they_are_written() {
    for text in ["00:03.0", "ff:1f.7"] {
        assert_eq!(at(text).to_string(), text);
    }
    assert_eq!(at("0:3.0").to_string(), "00:03.0");
    for text in [
        "", "00:03", "00:20.0", "00:03.8", "100:03.0", "00:03.00", "+0:03.0", ":3.0",
    ] {
        assert!(text.parse::<PciAddress>().is_err(), "{text}");
    }
}

#[test]
fn all_functions_are_found_with_their_bridges() {
    let mut bridge = space(0x0001_8086, 0x01);
    bridge.words[6] = 0x0005_0500;
    let single = space(0x100E_8086, 0x00);
    let first = space(0x10C9_8086, 0x80);
    let fake = bus(&[
        ("00:01.0", bridge),
        ("00:03.0", single.clone()),
        // Not a function of its own: the device answers for all numbers alike.
        ("00:03.1", single.clone()),
        ("05:00.0", first.clone()),
        ("05:00.1", first),
        // Behind another root bridge.
        ("80:02.0", single),
    ]);
    let found: Vec<_> = enumerate(fake)
        .iter()
        .map(|f| (f.address().to_string(), f.bridge()))
        .collect();
    let bridge = Some(at("00:01.0"));
    let expected = [
        ("00:01.0", None),
        ("00:03.0", None),
        ("05:00.0", bridge),
        ("05:00.1", bridge),
        ("80:02.0", None),
    ];
    assert_eq!(
        found,
        expected.map(|(text, bridge)| (text.to_string(), bridge))
    );
}

#[test]
fn bars_are_sized_with_decoding_off_and_put_back() {
    let mut space = space(0x100E_8086, 0);
    // 128 KiB of memory, 64 bits wide; 64 ports; nothing; 4 KiB of memory, 32 bits wide.
    space.words[4] = 0xFEB8_0004;
    space.writable[4] = 0xFFFE_0000;
    // This half is no range of its own, though it looks like one of ports.
    space.words[5] = 0x0000_0011;
    space.writable[5] = u32::MAX;
    space.words[6] = 0x0000_C001;
    space.writable[6] = 0x0000_FFC0;
    space.words[8] = 0xFEBC_0000;
    space.writable[8] = 0xFFFF_F000;
    let before = space.clone();
    let (fake, function) = only(space);
    let memory = 0x11_FEB8_0000..0x11_FEBA_0000;
    let expected = [
        (0, Bar::Memory(memory)),
        (2, Bar::Io(0xC000..0xC040)),
        (4, Bar::Memory(0xFEBC_0000..0xFEBC_1000)),
    ];
    assert_eq!(function.bars(), expected);
    let after = &fake.0.lock().expect("not poisoned")[&function.address()];
    assert_eq!(after.words, before.words);
    assert!(!after.decoding_while_sized);
}

fn with_message(control: u16) -> Space {
    let mut space = space(0x10D3_8086, 0);
    space.words[0x34 / 4] = 0x40;
    space.words[0x40 / 4] = 0x0000_D001;
    space.words[0xD0 / 4] = u32::from(control) << 16 | 0x0005;
    for index in 0xD0 / 4..0xD0 / 4 + 5 {
        space.writable[index] = u32::MAX;
    }
    space
}

#[test]
fn messages_go_where_the_capability_has_them() {
    let message = Message {
        address: 0xFEE0_1000,
        data: 0x4051,
    };
    for (control, expected) in [
        (0x0000, [0x0001_0005, 0xFEE0_1000, 0x4051, 0x5555, 0x5555]),
        (0x0080, [0x0081_0005, 0xFEE0_1000, 0, 0x4051, 0x5555]),
        (0x0180, [0x0181_0005, 0xFEE0_1000, 0, 0x4051, 0]),
    ] {
        let mut space = with_message(control);
        space.words[0xD4 / 4..0xD4 / 4 + 4].fill(0x5555);
        let (fake, function) = only(space);
        assert!(function.enable_message(message));
        assert!(function.command().contains(Command::INTERRUPT_DISABLE));
        let after = fake.0.lock().expect("not poisoned")[&function.address()].clone();
        assert_eq!(after.words[0xD0 / 4..0xD0 / 4 + 5], expected);
        function.enable_pin();
        assert!(!function.command().contains(Command::INTERRUPT_DISABLE));
        assert_eq!(fake.read(function.address(), 0xD0) & 1 << 16, 0);
    }
}

#[test]
fn lists_of_capabilities_may_be_missing_or_circular() {
    let (_, function) = only(space(0x100E_8086, 0));
    assert!(!function.has(Capability::Msi));
    let mut circle = with_message(0);
    circle.words[0xD0 / 4] |= 0x4000;
    let (_, function) = only(circle);
    assert!(function.has(Capability::Msi));
    assert!(!function.has(Capability::Express));
}

#[test]
fn power_states_are_forbidden_at_both_ends_of_a_link() {
    let mut end = space(0x10D3_8086, 0);
    end.words[0x34 / 4] = 0xE0;
    end.words[0xE0 / 4] = 0x0001_0010;
    end.words[0xF0 / 4] = 0xFFFF_0043;
    end.writable[0xF0 / 4] = u32::MAX;
    let mut bridge = end.clone();
    bridge.words[3] = 0x0001_0000;
    bridge.words[6] = 0x0001_0100;
    let fake = bus(&[("00:1c.0", bridge), ("01:00.0", end)]);
    enumerate(fake)[1].forbid_link_power_states();
    // The status half, of which some bits are cleared by ones, was written with zeroes.
    assert_eq!(fake.read(at("01:00.0"), 0xF0), 0x0000_0040);
    assert_eq!(fake.read(at("00:1c.0"), 0xF0), 0x0000_0040);
}

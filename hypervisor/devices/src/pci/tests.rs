//! The configuration mechanism and the chipset.

use super::*;
use crate::pc::tests::config;
use crate::virtio::VirtioConfig;
use crate::virtio::tests::World;

/// A board without devices.
fn bare() -> PcConfig {
    PcConfig {
        virtio: VirtioConfig::default(),
        nics: Vec::new(),
        watchdog: None,
        ..config()
    }
}

fn read(pci: &mut Pci, device: u32, function: u32, register: u32) -> u32 {
    pci.set_address(0x8000_0000 | device << 11 | function << 8 | register);
    pci.read()
}

#[test]
fn the_chipset_is_there() {
    let mut pci = Pci::new(&bare());
    assert_eq!(read(&mut pci, 0, 0, 0x00), 0x1237_8086);
    assert_eq!(read(&mut pci, 0, 0, 0x08), 0x0600_0002);
    assert_eq!(read(&mut pci, 0, 0, 0x0C), 0);
    assert_eq!(read(&mut pci, 1, 0, 0x00), 0x7110_8086);
    assert_eq!(read(&mut pci, 1, 0, 0x0C), 0x0080_0000);
    assert_eq!(read(&mut pci, 1, 3, 0x00), 0x7113_8086);
    assert_eq!(read(&mut pci, 1, 3, 0x40), 0x601);
}

#[test]
fn nothing_else_is() {
    let mut pci = Pci::new(&bare());
    let mut found = Vec::new();
    for bus in 0..=255u32 {
        for slot in 0..=255u32 {
            pci.set_address(0x8000_0000 | bus << 16 | slot << 8);
            if pci.read() != u32::MAX {
                found.push((bus, slot >> 3, slot & 7));
            }
        }
    }
    assert_eq!(found, [(0, 0, 0), (0, 1, 0), (0, 1, 3)]);
}

#[test]
fn reserved_address_bits_read_0() {
    let mut pci = Pci::new(&bare());
    pci.set_address(0xFFFF_FFFF);
    assert_eq!(pci.address(), 0x80FF_FFFC);
    pci.set_address(0x0000_0000);
    assert!(!pci.enabled());
}

#[test]
fn writes_reach_only_what_is_writable() {
    let mut pci = Pci::new(&bare());
    read(&mut pci, 1, 0, 0x60);
    pci.write(0xFFFF_FFFF, 0x0000_FF00, Ticks(0), &mut World::default());
    assert_eq!(pci.read(), 0x0B0A_8F0A);
    read(&mut pci, 0, 0, 0x00);
    pci.write(0, u32::MAX, Ticks(0), &mut World::default());
    assert_eq!(pci.read(), 0x1237_8086);
    // A base address register that does not exist sizes as 0.
    read(&mut pci, 0, 0, 0x10);
    pci.write(u32::MAX, u32::MAX, Ticks(0), &mut World::default());
    assert_eq!(pci.read(), 0);
}

#[test]
fn save_and_restore() {
    let mut pci = Pci::new(&bare());
    read(&mut pci, 1, 0, 0x60);
    pci.write(0x0B0A_0B0A, u32::MAX, Ticks(0), &mut World::default());
    let state = pci.save();
    assert_eq!(
        Pci::restore(&bare(), &state).expect("its own state").save(),
        state
    );
    let spoil: [fn(&mut PciStateV1); 4] = [
        |s| s.address = 1,
        |s| s.functions.truncate(2),
        |s| s.functions[0].values[0] = 0,
        |s| s.functions[1].device = 2,
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut state = state.clone();
        spoil(&mut state);
        assert!(Pci::restore(&bare(), &state).is_err(), "case {index}");
    }
}

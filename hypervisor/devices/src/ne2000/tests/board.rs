//! The cards on their buses: places, interrupts, states.

use super::*;
use crate::ne2000::{Ne2000StateV1, Rtl8029StateV1};
use crate::pc::{Pc, PcConfig, PcStateV1, StateError, Width};
use crate::pci::DeviceStateV1;
use crate::time::Ticks;

/// A port of the board's own.
fn inb(bench: &mut Bench, port: u16) -> u8 {
    let Bench { pc, world, now, .. } = bench;
    pc.read(port, Width::Byte, *now, world) as u8
}

fn outb(bench: &mut Bench, port: u16, value: u8) {
    let Bench { pc, world, now, .. } = bench;
    pc.write(port, Width::Byte, u32::from(value), *now, world);
}

/// A configuration register of device `device`, function 0.
fn configuration(bench: &mut Bench, device: u8, register: u8) -> u32 {
    let Bench { pc, world, now, .. } = bench;
    let address = 0x8000_0000 | u32::from(device) << 11 | u32::from(register);
    pc.write(0xCF8, Width::Dword, address, *now, world);
    pc.read(0xCFC, Width::Dword, *now, world)
}

fn configure(bench: &mut Bench, device: u8, register: u8, value: u32) {
    configuration(bench, device, register);
    let Bench { pc, world, now, .. } = bench;
    pc.write(0xCFC, Width::Dword, value, *now, world);
}

/// The 8259A pair with vectors from 0x20 on and these inputs enabled.
fn enable(bench: &mut Bench, lines: u16) {
    let [master, slave] = (!lines & !4).to_le_bytes();
    for (port, values) in [
        (0x20, [0x11, 0x20, 0x04, 0x01, master]),
        (0xA0, [0x11, 0x28, 0x02, 0x01, slave]),
    ] {
        let [first, rest @ ..] = values;
        outb(bench, port, first);
        for value in rest {
            outb(bench, port + 1, value);
        }
    }
}

/// Takes the interrupt and ends it.
fn interrupt(bench: &mut Bench) -> Option<u8> {
    if !bench.pc.interrupt_pending() {
        return None;
    }
    let vector = bench.pc.acknowledge();
    outb(bench, 0xA0, 0x20);
    outb(bench, 0x20, 0x20);
    Some(vector)
}

/// The inputs of the I/O APIC that are asserted, but for the timer's.
fn inputs(bench: &Bench) -> u32 {
    bench.pc.save().io_apic.expect("there").lines & !(1 << 2)
}

#[test]
fn the_pci_card_is_what_drivers_look_for() {
    let mut bench = Bench::new(PCI);
    assert_eq!(configuration(&mut bench, PCI_DEVICE, 0x00), 0x8029_10EC);
    assert_eq!(configuration(&mut bench, PCI_DEVICE, 0x04), 0x0000_0003);
    assert_eq!(configuration(&mut bench, PCI_DEVICE, 0x08), 0x0200_0000);
    assert_eq!(configuration(&mut bench, PCI_DEVICE, 0x10), 0xC701);
    assert_eq!(configuration(&mut bench, PCI_DEVICE, 0x2C), 0x8029_10EC);
    assert_eq!(configuration(&mut bench, PCI_DEVICE, 0x34), 0);
    assert_eq!(configuration(&mut bench, PCI_DEVICE, 0x3C), 0x010B);
    configure(&mut bench, PCI_DEVICE, 0x10, u32::MAX);
    assert_eq!(configuration(&mut bench, PCI_DEVICE, 0x10), 0xFFE1);
    // Moved, and moved where another device is, which was there before.
    configure(&mut bench, PCI_DEVICE, 0x10, 0x1020);
    assert_eq!(bench.inb(CR), 0xFF);
    assert_eq!(inb(&mut bench, 0x1020), STOP);
    assert_eq!(inb(&mut bench, 0x103F), 0xFF);
    assert_eq!(inb(&mut bench, 0x1040), 0xFF);
    configure(&mut bench, PCI_DEVICE, 0x10, 0xC200);
    assert_eq!(inb(&mut bench, 0xC214), 0, "the disk's status");
    configure(&mut bench, PCI_DEVICE, 0x10, u32::from(PCI_PORT));
    assert_eq!(bench.inb(CR), STOP);
    configure(&mut bench, PCI_DEVICE, 0x04, 0);
    assert_eq!(bench.inb(CR), 0xFF, "it does not decode");
    let now = bench.now;
    bench.pc.reset(now, &mut bench.world);
    assert_eq!(bench.inb(CR), STOP);
}

#[test]
fn the_isa_card_has_its_line() {
    let mut bench = Bench::driven(ISA);
    enable(&mut bench, 1 << ISA_IRQ);
    bench.arrive(&frame(BROADCAST, 60));
    assert_eq!(interrupt(&mut bench), Some(0x25));
    assert_eq!(interrupt(&mut bench), None, "an edge");
    bench.outb(ISR, RECEIVED);
    bench.outb(IMR, 0);
    bench.arrive(&frame(BROADCAST, 60));
    assert_eq!(interrupt(&mut bench), None, "masked");
    bench.outb(IMR, RECEIVED);
    assert_eq!(interrupt(&mut bench), Some(0x25));
    assert_eq!(inputs(&bench), 1 << ISA_IRQ, "the I/O APIC hears it, too");
}

#[test]
fn the_pci_card_reaches_both_kinds_of_controller() {
    let mut bench = Bench::driven(PCI);
    enable(&mut bench, 1 << 11);
    assert_eq!(inb(&mut bench, 0x4D1), 0x0C, "10 and 11 are levels");
    bench.arrive(&frame(BROADCAST, 60));
    assert_eq!(inputs(&bench), 1 << 19);
    assert_eq!(interrupt(&mut bench), Some(0x2B));
    assert_eq!(interrupt(&mut bench), Some(0x2B), "a level");
    configure(&mut bench, PCI_DEVICE, 0x04, 0x403);
    assert_eq!(interrupt(&mut bench), None, "the pin is off");
    assert_eq!(inputs(&bench), 0);
    configure(&mut bench, PCI_DEVICE, 0x04, 0x003);
    assert_eq!(interrupt(&mut bench), Some(0x2B));
    bench.outb(ISR, RECEIVED);
    assert_eq!(interrupt(&mut bench), None);
    assert_eq!(inputs(&bench), 0);
}

#[test]
fn the_router_decides_which_line_a_pin_drives() {
    let mut bench = Bench::driven(PCI);
    enable(&mut bench, 0xFFFB);
    bench.arrive(&frame(BROADCAST, 60));
    // Device 7's pin is on wire D, the highest byte.
    for (route, vector) in [
        (0x0B, Some(0x2B)),
        (0x80, None),
        (0x8B, None),
        (0x05, Some(0x25)),
        (0x0F, Some(0x2F)),
        (0x02, None),
        (0x08, None),
        (0x0D, None),
        (0x0A, Some(0x2A)),
    ] {
        configure(&mut bench, 1, 0x60, route << 24 | 0x80_8080);
        assert_eq!(interrupt(&mut bench), vector, "{route:#x}");
        bench.renew();
    }
    assert_eq!(inputs(&bench), 1 << 19, "whatever the router does");
    let now = bench.now;
    bench.pc.reset(now, &mut bench.world);
    assert_eq!(configuration(&mut bench, 1, 0x60), 0x0B0A_0B0A);
    assert_eq!(inb(&mut bench, 0x4D1), 0x0C);
}

#[test]
fn devices_share_a_line() {
    let mut bench = Bench::driven(ISA);
    bench.arrive(&frame(BROADCAST, 60));
    bench.outb(IMR, 0);
    enable(&mut bench, 1 << ISA_IRQ);
    outb(&mut bench, 0x4D0, 1 << ISA_IRQ);
    configure(&mut bench, 1, 0x60, 0x0500_0000 | 0x80_8080);
    let isa = core::mem::replace(&mut bench, Bench::driven(PCI));
    bench.pc = isa.pc;
    bench.start();
    bench.arrive(&frame(BROADCAST, 60));
    assert_eq!(interrupt(&mut bench), Some(0x25), "the PCI card's");
    // Now the ISA card asks, too, and goes on when the other has ended.
    outb(&mut bench, ISA_PORT + IMR, RECEIVED);
    bench.renew();
    bench.outb(ISR, RECEIVED);
    assert_eq!(interrupt(&mut bench), Some(0x25), "the ISA card's");
    outb(&mut bench, ISA_PORT + ISR, RECEIVED);
    assert_eq!(interrupt(&mut bench), None);
    assert_eq!(inputs(&bench), 0);
}

#[test]
fn a_reset_of_the_board_forgets_everything() {
    let mut bench = Bench::driven(ISA);
    bench.store(0x4000, &[1; 64]);
    bench.arrive(&frame(BROADCAST, 60));
    bench.world.busy = true;
    bench.send(&frame(BROADCAST, 60));
    bench.now = Ticks(1000);
    let now = bench.now;
    bench.pc.reset(now, &mut bench.world);
    let fresh = Pc::new(board(), now).save();
    assert_eq!(bench.pc.save(), fresh);
}

fn card(state: &mut PcStateV1) -> &mut Ne2000StateV1 {
    &mut state.adapters[0]
}

fn function(state: &mut PcStateV1) -> &mut Rtl8029StateV1 {
    match state.pci.as_mut().expect("there").devices.last_mut() {
        Some(DeviceStateV1::Rtl8029(function)) => function,
        _ => panic!("the card is the last device"),
    }
}

#[test]
fn impossible_states_are_refused() {
    let mut bench = Bench::driven(ISA);
    bench.arrive(&frame(BROADCAST, 60));
    let state = bench.pc.save();
    let spoils: [fn(&mut PcStateV1); 22] = [
        |s| s.adapters.clear(),
        |s| card(s).memory.truncate(0x3FFF),
        |s| card(s).command = 0x20,
        |s| card(s).command = 0x25,
        |s| card(s).command = 0x26,
        |s| card(s).command = 0x21,
        |s| card(s).mask |= 0x80,
        |s| card(s).mask = 0,
        |s| card(s).interrupts = 0,
        |s| card(s).tallies[2] = 0xC1,
        |s| card(s).transmit_status = 4,
        |s| card(s).receive_status = 4,
        |s| card(s).receive_config = 0x40,
        |s| card(s).transmit_config = 0x20,
        |s| card(s).data_config = 0x80,
        |s| card(s).realtek = function(&mut s.clone()).card.realtek,
        |s| function(s).card.realtek = None,
        |s| function(s).card.realtek.as_mut().expect("there").eeprom = 1,
        |s| function(s).card.realtek.as_mut().expect("there").config2 = 4,
        |s| function(s).card.realtek.as_mut().expect("there").config3 = 0x80,
        |s| function(s).endpoint.bases[0] = 0x10,
        |s| {
            let devices = &mut s.pci.as_mut().expect("there").devices;
            let last = devices.len() - 1;
            devices.swap(last, 0);
        },
    ];
    for (index, spoil) in spoils.iter().enumerate() {
        let mut spoilt = state.clone();
        spoil(&mut spoilt);
        assert!(Pc::restore(board(), spoilt).is_err(), "case {index}");
    }
    let other = PcConfig {
        nics: Vec::new(),
        ..board()
    };
    assert_eq!(Pc::restore(other, state).err(), Some(StateError::Devices));
}

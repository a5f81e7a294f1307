//! The I/O APIC against its data sheet.

use proptest::prelude::*;

use super::*;
use crate::msi::{DeliveryMode, Destination, Message};

const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

fn write(apic: &mut IoApic, index: u8, value: u32) -> Vec<Dispatch> {
    let mut sent = Vec::new();
    apic.mmio_write(INDEX, index.into(), |_| panic!("a message of the index"));
    apic.mmio_write(DATA, value, |dispatch| sent.push(dispatch));
    sent
}

fn read(apic: &mut IoApic, index: u8) -> u32 {
    apic.mmio_write(INDEX, index.into(), |_| panic!("a message of the index"));
    apic.mmio_read(DATA)
}

fn end(apic: &mut IoApic, vector: u8) -> Vec<Dispatch> {
    let mut sent = Vec::new();
    apic.end_of_interrupt(vector, |dispatch| sent.push(dispatch));
    sent
}

/// An entry for processor 1.
fn program(apic: &mut IoApic, input: u8, low: u32) -> Vec<Dispatch> {
    assert_eq!(write(apic, 0x11 + 2 * input, 0x0100_0000), []);
    write(apic, 0x10 + 2 * input, low)
}

fn message(vector: u8, level: bool) -> Dispatch {
    Dispatch {
        destination: Destination::Physical(1),
        message: Message {
            mode: DeliveryMode::Fixed,
            vector,
            level,
        },
    }
}

#[test]
fn registers_after_a_reset() {
    let mut apic = IoApic::new();
    assert_eq!(read(&mut apic, 0x01), 0x0017_0020);
    assert_eq!(read(&mut apic, 0x00), 0);
    assert_eq!(read(&mut apic, 0x03), 0);
    for input in 0..INPUTS {
        assert_eq!(read(&mut apic, 0x10 + 2 * input), MASKED);
        assert_eq!(read(&mut apic, 0x11 + 2 * input), 0);
        assert!(apic.masked(input));
    }
    assert_eq!(read(&mut apic, 0x40), 0);
    write(&mut apic, 0x00, 0xFF00_0000);
    assert_eq!(read(&mut apic, 0x00), 0x0F00_0000);
    assert_eq!(read(&mut apic, 0x02), 0x0F00_0000);
    assert_eq!(apic.mmio_read(INDEX), 0x02);
    assert_eq!(apic.mmio_read(END_OF_INTERRUPT), 0);
}

#[test]
fn read_only_and_reserved_bits_stay() {
    let mut apic = IoApic::new();
    write(&mut apic, 0x10, u32::MAX);
    write(&mut apic, 0x11, u32::MAX);
    assert_eq!(read(&mut apic, 0x10), 0x0001_AFFF);
    assert_eq!(read(&mut apic, 0x11), 0xFF00_0000);
}

#[test]
fn an_edge_is_one_message() {
    let mut apic = IoApic::new();
    program(&mut apic, 4, 0x41);
    assert_eq!(apic.set_line(4, true), Some(message(0x41, false)));
    assert_eq!(apic.set_line(4, true), None);
    assert_eq!(apic.set_line(4, false), None);
    assert_eq!(apic.set_line(4, true), Some(message(0x41, false)));
    assert_eq!(read(&mut apic, 0x18), 0x41, "no remote IRR");
    assert_eq!(end(&mut apic, 0x41), []);
}

#[test]
fn a_masked_edge_is_lost() {
    let mut apic = IoApic::new();
    program(&mut apic, 4, 0x41 | MASKED);
    assert_eq!(apic.set_line(4, true), None);
    assert_eq!(write(&mut apic, 0x18, 0x41), []);
    apic.set_line(4, false);
    assert_eq!(apic.set_line(4, true), Some(message(0x41, false)));
}

#[test]
fn a_level_is_sent_until_it_ends() {
    let mut apic = IoApic::new();
    program(&mut apic, 16, 0x51 | LEVEL);
    assert_eq!(apic.set_line(16, true), Some(message(0x51, true)));
    assert_eq!(read(&mut apic, 0x30), 0x51 | LEVEL | REMOTE_IRR);
    apic.set_line(16, false);
    assert_eq!(apic.set_line(16, true), None, "it is in service");
    assert_eq!(end(&mut apic, 0x52), []);
    assert_eq!(end(&mut apic, 0x51), [message(0x51, true)]);
    apic.set_line(16, false);
    assert_eq!(end(&mut apic, 0x51), []);
    assert_eq!(read(&mut apic, 0x30), 0x51 | LEVEL);
}

#[test]
fn a_masked_level_waits() {
    let mut apic = IoApic::new();
    program(&mut apic, 16, 0x51 | LEVEL | MASKED);
    assert_eq!(apic.set_line(16, true), None);
    assert_eq!(write(&mut apic, 0x30, 0x51 | LEVEL), [message(0x51, true)]);
    // Linux masks, ends, and unmasks.
    assert_eq!(write(&mut apic, 0x30, 0x51 | LEVEL | MASKED), []);
    assert_eq!(read(&mut apic, 0x30), 0x51 | LEVEL | MASKED | REMOTE_IRR);
    assert_eq!(end(&mut apic, 0x51), []);
    assert_eq!(write(&mut apic, 0x30, 0x51 | LEVEL), [message(0x51, true)]);
}

#[test]
fn one_end_is_for_all_inputs_of_the_vector() {
    let mut apic = IoApic::new();
    for input in [16, 17] {
        program(&mut apic, input, 0x51 | LEVEL);
        apic.set_line(input, true);
    }
    let mut sent = 0;
    apic.mmio_write(END_OF_INTERRUPT, 0x51, |_| sent += 1);
    assert_eq!(sent, 2);
}

#[test]
fn to_edge_and_back_drops_remote_irr() {
    let mut apic = IoApic::new();
    program(&mut apic, 16, 0x51 | LEVEL);
    apic.set_line(16, true);
    apic.set_line(16, false);
    write(&mut apic, 0x30, 0x51 | MASKED);
    write(&mut apic, 0x30, 0x51 | LEVEL | MASKED);
    assert_eq!(read(&mut apic, 0x30), 0x51 | LEVEL | MASKED);
}

#[test]
fn what_nobody_took_is_not_in_service() {
    let mut apic = IoApic::new();
    program(&mut apic, 16, 0x51 | LEVEL);
    apic.set_line(16, true);
    apic.undelivered(0x51);
    assert_eq!(read(&mut apic, 0x30), 0x51 | LEVEL);
    assert_eq!(write(&mut apic, 0x30, 0x51 | LEVEL), [message(0x51, true)]);
}

#[test]
fn delivery_modes_and_destinations() {
    let mut apic = IoApic::new();
    for (low, mode) in [
        (0x0900, DeliveryMode::LowestPriority),
        (0x0A00, DeliveryMode::Smi),
        (0x0C00, DeliveryMode::Nmi),
        (0x0D00, DeliveryMode::Init),
        (0x0F00, DeliveryMode::ExtInt),
    ] {
        apic.reset();
        apic.set_line(0, false);
        program(&mut apic, 0, low | 0x30);
        let sent = apic.set_line(0, true).expect("a message");
        assert_eq!(sent.message.mode, mode);
        assert_eq!(sent.destination, Destination::Logical(1));
    }
    for reserved in [0x300, 0x600] {
        apic.set_line(0, false);
        program(&mut apic, 0, reserved | 0x30);
        assert_eq!(apic.set_line(0, true), None);
    }
    apic.set_line(0, false);
    program(&mut apic, 0, 0x30);
    write(&mut apic, 0x11, 0xFF00_0000);
    let sent = apic.set_line(0, true).expect("a message");
    assert_eq!(sent.destination, Destination::Everyone);
}

#[test]
fn a_level_triggered_nmi_is_an_edge() {
    let mut apic = IoApic::new();
    program(&mut apic, 3, 0x0400 | LEVEL);
    let nmi = apic.set_line(3, true).expect("a message");
    assert!(!nmi.message.level);
    assert_eq!(read(&mut apic, 0x16), 0x0400 | LEVEL);
    assert_eq!(write(&mut apic, 0x16, 0x0400 | LEVEL), []);
}

#[test]
fn a_reset_keeps_lines() {
    let mut apic = IoApic::new();
    program(&mut apic, 16, 0x51 | LEVEL);
    apic.set_line(16, true);
    apic.reset();
    assert!(apic.line(16) && apic.masked(16));
    assert_eq!(program(&mut apic, 16, 0x51 | LEVEL), [message(0x51, true)]);
    assert_eq!(apic.set_line(24, true), None);
    assert!(!apic.line(24) && apic.masked(24));
}

#[test]
fn a_hostile_state_is_refused() {
    let good = IoApic::new().save();
    let bytes = postcard::to_allocvec(&good).expect("bytes");
    assert_eq!(postcard::from_bytes(&bytes).as_ref(), Ok(&good));
    assert!(IoApic::restore(&good).is_ok());
    let spoil: [fn(&mut IoApicStateV1); 5] = [
        |s| s.id = 0x10,
        |s| s.lines = 1 << 24,
        |s| s.entries[0] |= 1 << 12,
        |s| s.entries[0] |= 1 << 14,
        |s| s.entries[23] |= 1 << 17,
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut state = good.clone();
        spoil(&mut state);
        assert!(IoApic::restore(&state).is_err(), "case {index}");
    }
}

/// What happens to an I/O APIC.
#[derive(Clone, Debug)]
enum Step {
    Line(u8, bool),
    Write(u16, u32),
    Entry(u8, u32),
    End(u8),
    Undelivered(u8),
    Reset,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let low = prop_oneof![
        (0x30u32..0x34, any::<bool>(), any::<bool>()).prop_map(|(vector, level, masked)| vector
            | if level { LEVEL } else { 0 }
            | if masked { MASKED } else { 0 }),
        any::<u32>(),
    ];
    let step = prop_oneof![
        8 => (0u8..26, any::<bool>()).prop_map(|(input, level)| Step::Line(input, level)),
        6 => (0u8..24, low).prop_map(|(input, low)| Step::Entry(input, low)),
        4 => (0x30u8..0x34).prop_map(Step::End),
        2 => (prop_oneof![Just(0u16), Just(0x10), Just(0x40), any::<u16>()], any::<u32>())
            .prop_map(|(offset, value)| Step::Write(offset, value)),
        1 => (0x30u8..0x34).prop_map(Step::Undelivered),
        1 => Just(Step::Reset),
    ];
    proptest::collection::vec(step, 1..120)
}

fn apply(apic: &mut IoApic, step: &Step) -> Vec<Dispatch> {
    let mut sent = Vec::new();
    match *step {
        Step::Line(input, level) => sent.extend(apic.set_line(input, level)),
        Step::Write(offset, value) => apic.mmio_write(offset, value, |d| sent.push(d)),
        Step::Entry(input, low) => {
            apic.mmio_write(INDEX, u32::from(0x10 + 2 * input), |_| {});
            apic.mmio_write(DATA, low, |d| sent.push(d));
        }
        Step::End(vector) => apic.end_of_interrupt(vector, |d| sent.push(d)),
        Step::Undelivered(vector) => apic.undelivered(vector),
        Step::Reset => apic.reset(),
    }
    sent
}

proptest! {
    #[test]
    fn no_asserted_level_is_forgotten(steps in steps()) {
        let mut apic = IoApic::new();
        let mut copy = apic.clone();
        for step in &steps {
            let sent = apply(&mut apic, step);
            prop_assert_eq!(&sent, &apply(&mut copy, step));
            let state = apic.save();
            copy = IoApic::restore(&state).expect("its own state");
            prop_assert_eq!(copy.save(), state);
            prop_assert_eq!(copy.mmio_read(DATA), apic.mmio_read(DATA));
            for dispatch in sent.iter().filter(|d| d.message.level) {
                let mut entries = apic.entries.iter();
                let waits = entries.any(|entry| entry.waits_for(dispatch.message.vector));
                prop_assert!(waits);
            }
            if matches!(step, Step::Undelivered(_)) {
                // What was given up stays so until its entry is written.
                return Ok(());
            }
            for (input, entry) in apic.entries.iter().enumerate() {
                let sends = apic.lines >> input & 1 != 0 && entry.holds() && !entry.masked();
                prop_assert!(!sends || entry.contains(Entry::REMOTE_IRR));
            }
        }
    }
}

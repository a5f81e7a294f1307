//! The modes of a local APIC, and x2APIC mode, against the SDM.

use super::tests::{
    BASE, CONFIG, DISABLED, NOW, X2APIC, XAPIC, enabled, ipi, read, reg, wide, write,
};
use super::*;
use crate::msi::Destination;

#[test]
fn modes_change_by_the_rules() {
    let invalid = 0xFEE0_0500;
    let states: [(u64, [(u64, bool); 4]); 3] = [
        (
            XAPIC,
            [
                (XAPIC, true),
                (X2APIC, true),
                (DISABLED, true),
                (invalid, false),
            ],
        ),
        (
            X2APIC,
            [
                (XAPIC, false),
                (X2APIC, true),
                (DISABLED, true),
                (invalid, false),
            ],
        ),
        (
            DISABLED,
            [
                (XAPIC, true),
                (X2APIC, false),
                (DISABLED, true),
                (invalid, false),
            ],
        ),
    ];
    for (from, changes) in states {
        for (to, legal) in changes {
            let mut apic = enabled();
            assert!(apic.write_msr(BASE, from, NOW).is_ok());
            assert_eq!(apic.write_msr(BASE, to, NOW).is_ok(), legal);
            let now = if legal { to } else { from };
            assert_eq!(apic.read_msr(BASE, NOW), Ok(now), "{from:#x} {to:#x}");
        }
    }
    let mut apic = enabled();
    for reserved in [1, 1 << 9, 1 << 39, 1 << 63] {
        assert_eq!(apic.write_msr(BASE, XAPIC | reserved, NOW), Err(Fault));
    }
    let moved = 0x12_3456_7000 | XAPIC & 0xFFF;
    assert!(apic.write_msr(BASE, moved, NOW).is_ok());
    assert_eq!(apic.page(), Some(0x12_3456_7000));
    assert!(apic.bootstrap());
    let mut old = LocalApic::new(LocalApicConfig {
        x2apic: false,
        ..CONFIG
    });
    assert_eq!(old.write_msr(BASE, X2APIC, NOW), Err(Fault));
}

#[test]
fn a_disabled_one_forgets_and_an_x2apic_keeps() {
    let mut apic = enabled();
    assert_eq!(
        write(&mut apic, reg::LDR, 0x0100_0000),
        Some(Effect::Address)
    );
    assert_eq!(write(&mut apic, reg::ICR_HIGH, 0x0100_0000), None);
    let _ = apic.accept(Message::fixed(0x41));
    wide(&mut apic);
    assert_eq!(apic.page(), None);
    assert_eq!(apic.interrupt_pending(), Some(0x41));
    assert_eq!(apic.read_msr(0x80F, NOW), Ok(0x1FF));
    assert_eq!(apic.read_msr(0x830, NOW), Ok(0));
    assert_eq!(read(&mut apic, reg::ID), u32::MAX, "no page");
    assert_eq!(write(&mut apic, reg::SPURIOUS, 0), None);
    assert!(apic.write_msr(BASE, DISABLED, NOW).is_ok());
    assert_eq!(apic.interrupt_pending(), None);
    assert_eq!(apic.read_msr(0x802, NOW), Err(Fault));
    assert!(apic.write_msr(BASE, XAPIC, NOW).is_ok());
    assert_eq!(apic.save(), LocalApic::new(CONFIG).save());
}

#[test]
fn init_keeps_mode_and_id() {
    let mut apic = enabled();
    wide(&mut apic);
    let _ = apic.accept(Message::fixed(0x41));
    apic.init();
    assert_eq!(apic.mode(), Mode::X2Apic);
    assert_eq!(apic.read_msr(0x802, NOW), Ok(0x25));
    assert_eq!(apic.read_msr(0x80F, NOW), Ok(0xFF));
    assert_eq!(apic.interrupt_pending(), None);
    apic.reset();
    assert_eq!(apic.read_msr(BASE, NOW), Ok(XAPIC));
}

#[test]
fn registers_of_an_x2apic() {
    let mut apic = LocalApic::new(LocalApicConfig {
        id: 0x0003_4567,
        ..CONFIG
    });
    wide(&mut apic);
    assert!(apic.write_msr(0x80F, 0x1FF, NOW).is_ok());
    let rw = |bits: u64| (true, Some(bits));
    let ro = (true, None);
    let none = (false, None);
    for msr in 0x800..=0x8FF {
        let (readable, writable) = match msr {
            0x802 | 0x803 | 0x80A | 0x80D | 0x810..=0x827 | 0x839 => ro,
            0x808 => rw(0xFF),
            0x80B => (false, Some(0)),
            0x80F => rw(0x3FF),
            0x828 => rw(0),
            0x830 => rw(0xFFFF_FFFF_000C_DFFF),
            0x832 => rw(0x7_10FF),
            0x833 | 0x834 => rw(0x1_17FF),
            0x835 | 0x836 => rw(0x1_F7FF),
            0x837 => rw(0x1_10FF),
            0x838 => rw(0xFFFF_FFFF),
            0x83E => rw(0xB),
            0x83F => (false, Some(0xFF)),
            _ => none,
        };
        assert_eq!(apic.read_msr(msr, NOW).is_ok(), readable, "{msr:#x}");
        assert_eq!(apic.write_msr(msr, 0, NOW).is_ok(), writable.is_some());
        for bit in 0..64 {
            let allowed = writable.is_some_and(|bits| bits & 1 << bit != 0);
            let result = apic.write_msr(msr, 1 << bit, NOW);
            assert_eq!(result.is_ok(), allowed, "{msr:#x} bit {bit}");
        }
    }
    assert_eq!(apic.read_msr(0x802, NOW), Ok(0x0003_4567));
    assert_eq!(apic.read_msr(0x80D, NOW), Ok(0x3456_0080));
    for msr in [0x10, 0x7FF, 0x900] {
        assert_eq!(apic.read_msr(msr, NOW), Err(Fault));
        assert_eq!(apic.write_msr(msr, 0, NOW), Err(Fault));
    }
}

#[test]
fn commands_of_an_x2apic() {
    let mut apic = enabled();
    wide(&mut apic);
    let mut send = |command| apic.write_msr(0x830, command, NOW);
    for (command, destination) in [
        (0x0000_00FF_0000_0041, Destination::Physical(0xFF)),
        (0x0001_0003_0000_0841, Destination::Logical(0x1_0003)),
        (0xFFFF_FFFF_0000_0041, Destination::Everyone),
        (0xFFFF_FFFF_0000_0841, Destination::Everyone),
    ] {
        assert_eq!(
            send(command),
            Ok(ipi(destination, DeliveryMode::Fixed, 0x41))
        );
    }
    assert_eq!(apic.read_msr(0x830, NOW), Ok(0xFFFF_FFFF_0000_0841));
    assert_eq!(apic.write_msr(0x83F, 0x51, NOW), Ok(None));
    assert_eq!(apic.acknowledge(), 0x51);
    assert_eq!(apic.write_msr(0x80B, 0, NOW), Ok(None));
    assert_eq!(apic.write_msr(0x83F, 0x05, NOW), Ok(None));
    assert_eq!(apic.write_msr(0x828, 0, NOW), Ok(None));
    assert_eq!(apic.read_msr(0x828, NOW), Ok(0x20));
}

//! The local APIC against the SDM.

use super::*;
use crate::msi::Destination;

pub(super) const CONFIG: LocalApicConfig = LocalApicConfig {
    id: 0x25,
    bootstrap: true,
    physical_bits: 39,
    x2apic: true,
    tsc_deadline: true,
};

/// Offsets of registers.
pub(super) mod reg {
    pub(in super::super) const ID: u16 = 0x20;
    pub(in super::super) const VERSION: u16 = 0x30;
    pub(in super::super) const TPR: u16 = 0x80;
    pub(in super::super) const PPR: u16 = 0xA0;
    pub(in super::super) const EOI: u16 = 0xB0;
    pub(in super::super) const LDR: u16 = 0xD0;
    pub(in super::super) const DFR: u16 = 0xE0;
    pub(in super::super) const SPURIOUS: u16 = 0xF0;
    pub(in super::super) const ISR: u16 = 0x100;
    pub(in super::super) const TMR: u16 = 0x180;
    pub(in super::super) const IRR: u16 = 0x200;
    pub(in super::super) const ESR: u16 = 0x280;
    pub(in super::super) const ICR: u16 = 0x300;
    pub(in super::super) const ICR_HIGH: u16 = 0x310;
    pub(in super::super) const LVT_TIMER: u16 = 0x320;
    pub(in super::super) const LVT_PERFORMANCE: u16 = 0x340;
    pub(in super::super) const LVT_LINT0: u16 = 0x350;
    pub(in super::super) const LVT_LINT1: u16 = 0x360;
    pub(in super::super) const LVT_ERROR: u16 = 0x370;
    pub(in super::super) const INITIAL_COUNT: u16 = 0x380;
    pub(in super::super) const CURRENT_COUNT: u16 = 0x390;
    pub(in super::super) const DIVIDE: u16 = 0x3E0;
}

pub(super) const BASE: u32 = 0x1B;
pub(super) const XAPIC: u64 = 0xFEE0_0900;
pub(super) const X2APIC: u64 = 0xFEE0_0D00;
pub(super) const DISABLED: u64 = 0xFEE0_0100;
pub(super) const NOW: Ticks = Ticks(1000);

/// A local APIC that software has enabled.
pub(super) fn enabled() -> LocalApic {
    let mut apic = LocalApic::new(CONFIG);
    let effect = apic.mmio_write(reg::SPURIOUS, 0x1FF, Ticks(0));
    assert_eq!(effect, Some(Effect::Address));
    apic
}

/// Goes to x2APIC mode.
pub(super) fn wide(apic: &mut LocalApic) {
    assert_eq!(apic.write_msr(BASE, X2APIC, NOW), Ok(Some(Effect::Address)));
}

pub(super) fn read(apic: &mut LocalApic, register: u16) -> u32 {
    apic.mmio_read(register, NOW)
}

pub(super) fn write(apic: &mut LocalApic, register: u16, value: u32) -> Option<Effect> {
    apic.mmio_write(register, value, NOW)
}

pub(super) fn ipi(destination: Destination, mode: DeliveryMode, vector: u8) -> Option<Effect> {
    Some(Effect::Ipi(Dispatch {
        destination,
        message: Message {
            mode,
            vector,
            level: false,
        },
    }))
}

#[test]
fn state_after_a_reset() {
    let mut apic = LocalApic::new(CONFIG);
    for (register, value) in [
        (reg::ID, 0x2500_0000),
        (reg::VERSION, 0x0005_0014),
        (reg::TPR, 0),
        (reg::PPR, 0),
        (reg::LDR, 0),
        (reg::DFR, 0xFFFF_FFFF),
        (reg::SPURIOUS, 0xFF),
        (reg::ESR, 0),
        (reg::ICR, 0),
        (reg::ICR_HIGH, 0),
        (reg::LVT_TIMER, 0x1_0000),
        (reg::LVT_LINT0, 0x1_0000),
        (reg::LVT_LINT1, 0x1_0000),
        (reg::LVT_ERROR, 0x1_0000),
        (reg::INITIAL_COUNT, 0),
        (reg::CURRENT_COUNT, 0),
        (reg::DIVIDE, 0),
    ] {
        assert_eq!(read(&mut apic, register), value, "{register:#x}");
    }
    for register in (reg::ISR..reg::ESR).step_by(16) {
        assert_eq!(read(&mut apic, register), 0);
    }
    assert_eq!(apic.read_msr(BASE, NOW), Ok(XAPIC));
    assert_eq!(apic.page(), Some(0xFEE0_0000));
    assert!(!apic.extint_enabled());
    assert_eq!(apic.next_deadline(), None);
}

#[test]
fn an_interrupt_is_requested_served_and_ended() {
    let mut apic = enabled();
    assert_eq!(apic.accept(Message::fixed(0x41)), Delivery::Requested);
    assert_eq!(apic.accept(Message::fixed(0x41)), Delivery::Coalesced);
    assert_eq!(read(&mut apic, reg::IRR + 0x20), 1 << 1);
    assert_eq!(apic.interrupt_pending(), Some(0x41));
    assert_eq!(apic.acknowledge(), 0x41);
    assert_eq!(read(&mut apic, reg::IRR + 0x20), 0);
    assert_eq!(read(&mut apic, reg::ISR + 0x20), 1 << 1);
    assert_eq!(read(&mut apic, reg::PPR), 0x40);
    let _ = apic.accept(Message::fixed(0x4F));
    assert_eq!(apic.interrupt_pending(), None, "the same class waits");
    let _ = apic.accept(Message::fixed(0x50));
    assert_eq!(apic.acknowledge(), 0x50);
    assert_eq!(write(&mut apic, reg::EOI, 0), None);
    assert_eq!(apic.interrupt_pending(), None);
    assert_eq!(write(&mut apic, reg::EOI, 0), None);
    assert_eq!(apic.acknowledge(), 0x4F);
    assert_eq!(write(&mut apic, reg::EOI, 0), None);
    assert_eq!(write(&mut apic, reg::EOI, 0), None, "nothing served");
    assert_eq!(apic.acknowledge(), 0xFF, "spurious");
    assert_eq!(read(&mut apic, reg::ISR + 0x70), 0);
}

#[test]
fn a_level_tells_its_end() {
    let mut apic = enabled();
    let level = Message {
        level: true,
        ..Message::fixed(0x62)
    };
    assert_eq!(apic.accept(level), Delivery::Requested);
    assert_eq!(read(&mut apic, reg::TMR + 0x30), 1 << 2);
    apic.acknowledge();
    assert_eq!(
        write(&mut apic, reg::EOI, 0),
        Some(Effect::EndOfInterrupt(0x62))
    );
    let _ = apic.accept(Message::fixed(0x62));
    assert_eq!(read(&mut apic, reg::TMR + 0x30), 0);
    apic.acknowledge();
    assert_eq!(write(&mut apic, reg::EOI, 0), None);
}

#[test]
fn task_priority_holds_back() {
    let mut apic = enabled();
    let _ = apic.accept(Message::fixed(0x41));
    assert_eq!(write(&mut apic, reg::TPR, 0x45), None);
    assert_eq!(apic.cr8(), 4);
    assert_eq!(apic.interrupt_pending(), None);
    assert_eq!(read(&mut apic, reg::PPR), 0x45);
    apic.set_cr8(0xF3);
    assert_eq!(read(&mut apic, reg::TPR), 0x30);
    assert_eq!(apic.interrupt_pending(), Some(0x41));
    apic.acknowledge();
    assert_eq!(read(&mut apic, reg::PPR), 0x40);
    assert_eq!(write(&mut apic, reg::TPR, 0x4C), None);
    assert_eq!(read(&mut apic, reg::PPR), 0x4C);
}

#[test]
fn messages_for_the_processor() {
    let mut apic = enabled();
    let message = |mode| Message {
        mode,
        vector: 0x9A,
        level: false,
    };
    let expected = [
        (DeliveryMode::Smi, Delivery::Smi, Delivery::Smi),
        (DeliveryMode::Nmi, Delivery::Nmi, Delivery::Nmi),
        (DeliveryMode::Init, Delivery::Init, Delivery::Init),
        (
            DeliveryMode::StartUp,
            Delivery::StartUp(0x9A),
            Delivery::StartUp(0x9A),
        ),
        (DeliveryMode::ExtInt, Delivery::ExtInt, Delivery::Dropped),
        (DeliveryMode::Fixed, Delivery::Requested, Delivery::Dropped),
        (
            DeliveryMode::LowestPriority,
            Delivery::Coalesced,
            Delivery::Dropped,
        ),
    ];
    let mut off = LocalApic::new(CONFIG);
    let mut gone = LocalApic::new(CONFIG);
    assert!(gone.write_msr(BASE, DISABLED, NOW).is_ok());
    for (mode, enabled, software_disabled) in expected {
        assert_eq!(apic.accept(message(mode)), enabled);
        assert_eq!(off.accept(message(mode)), software_disabled);
        assert_eq!(gone.accept(message(mode)), Delivery::Dropped);
    }
}

#[test]
fn to_disable_by_software_holds_requests() {
    let mut apic = enabled();
    let _ = apic.accept(Message::fixed(0x41));
    assert_eq!(write(&mut apic, reg::LVT_LINT0, 0x700), None);
    assert_eq!(write(&mut apic, reg::SPURIOUS, 0x3F), Some(Effect::Address));
    assert!(!apic.address().enabled);
    assert_eq!(apic.interrupt_pending(), Some(0x41));
    assert_eq!(read(&mut apic, reg::LVT_LINT0), 0x1_0700);
    assert_eq!(write(&mut apic, reg::LVT_LINT0, 0x700), None);
    assert_eq!(read(&mut apic, reg::LVT_LINT0), 0x1_0700, "stays masked");
    apic.acknowledge();
    assert_eq!(apic.acknowledge(), 0x3F);
}

#[test]
fn virtual_wire() {
    let mut apic = LocalApic::new(CONFIG);
    apic.set_virtual_wire();
    assert!(apic.extint_enabled());
    assert_eq!(apic.signal(Source::Lint1), Delivery::Nmi);
    assert_eq!(write(&mut apic, reg::LVT_LINT0, 0x1_0700), None);
    assert!(!apic.extint_enabled());
    assert!(apic.write_msr(BASE, DISABLED, NOW).is_ok());
    assert!(apic.extint_enabled(), "past a disabled one");
    assert_eq!(apic.signal(Source::Lint1), Delivery::Nmi);
    assert_eq!(apic.signal(Source::Performance), Delivery::Dropped);
}

#[test]
fn local_sources_follow_their_entries() {
    let mut apic = enabled();
    assert_eq!(apic.signal(Source::Performance), Delivery::Dropped);
    assert_eq!(write(&mut apic, reg::LVT_PERFORMANCE, 0x400), None);
    assert_eq!(apic.signal(Source::Performance), Delivery::Nmi);
    assert_eq!(read(&mut apic, reg::LVT_PERFORMANCE), 0x1_0400);
    assert_eq!(write(&mut apic, reg::LVT_LINT1, u32::MAX), None);
    assert_eq!(read(&mut apic, reg::LVT_LINT1), 0x1_A7FF);
    for (bits, delivery) in [
        (0x0041, Delivery::Requested),
        (0x0200, Delivery::Smi),
        (0x0300, Delivery::Dropped),
        (0x0500, Delivery::Init),
        (0x0700, Delivery::ExtInt),
        (0x0002, Delivery::Dropped),
    ] {
        assert_eq!(write(&mut apic, reg::LVT_LINT1, bits), None);
        assert_eq!(apic.signal(Source::Lint1), delivery);
    }
}

#[test]
fn commands_of_an_xapic() {
    use DeliveryMode::{Fixed, Init, LowestPriority, Nmi, StartUp};
    let mut apic = enabled();
    assert_eq!(write(&mut apic, reg::ICR_HIGH, 0x03FF_FFFF), None);
    assert_eq!(read(&mut apic, reg::ICR_HIGH), 0x0300_0000);
    let one = Destination::Physical(3);
    for (command, effect) in [
        (0x0_4041, ipi(one, Fixed, 0x41)),
        (0x0_0041, ipi(one, Fixed, 0x41)),
        (0x0_0841, ipi(Destination::Logical(3), Fixed, 0x41)),
        (0x0_0141, ipi(one, LowestPriority, 0x41)),
        (0x0_0400, ipi(one, Nmi, 0)),
        (0x0_C500, ipi(one, Init, 0)),
        (0x0_8500, None),
        (0x0_4500, ipi(one, Init, 0)),
        (0x0_069A, ipi(one, StartUp, 0x9A)),
        (0x0_0341, None),
        (0x0_0741, None),
        (0x8_0041, ipi(Destination::Everyone, Fixed, 0x41)),
        (0xC_0041, ipi(Destination::Others, Fixed, 0x41)),
        (0x4_0400, ipi(Destination::Itself, Nmi, 0)),
    ] {
        assert_eq!(write(&mut apic, reg::ICR, command), effect, "{command:#x}");
        assert_eq!(read(&mut apic, reg::ICR), command);
    }
    assert_eq!(apic.interrupt_pending(), None);
    assert_eq!(write(&mut apic, reg::ICR, 0x4_0041), None);
    assert_eq!(apic.interrupt_pending(), Some(0x41), "to itself");
    assert_eq!(write(&mut apic, reg::ICR_HIGH, 0xFF00_0000), None);
    for command in [0x0041, 0x0841] {
        assert_eq!(
            write(&mut apic, reg::ICR, command),
            ipi(Destination::Everyone, Fixed, 0x41)
        );
    }
    assert_eq!(write(&mut apic, reg::ICR, 0xFFFF_F7FF | 0x1000), None);
    assert_eq!(read(&mut apic, reg::ICR), 0xC_C7FF, "never busy");
}

#[test]
fn errors() {
    let mut apic = enabled();
    assert_eq!(write(&mut apic, reg::LVT_ERROR, 0xFE), None);
    assert_eq!(write(&mut apic, reg::ICR, 0x0F), None);
    assert_eq!(apic.acknowledge(), 0xFE);
    assert_eq!(write(&mut apic, reg::EOI, 0), None);
    assert_eq!(apic.accept(Message::fixed(0x0F)), Delivery::Dropped);
    assert_eq!(read(&mut apic, 0x40), 0, "reserved");
    assert_eq!(apic.interrupt_pending(), None, "the first interrupts");
    assert_eq!(read(&mut apic, reg::ESR), 0, "not written yet");
    assert_eq!(write(&mut apic, reg::ESR, 0), None);
    assert_eq!(read(&mut apic, reg::ESR), 0xE0);
    assert_eq!(write(&mut apic, reg::ESR, 0), None);
    assert_eq!(read(&mut apic, reg::ESR), 0);
    for reserved in [
        0x00, 0x10, 0x70, 0x290, 0x2F0, 0x3A0, 0x3F0, 0x400, 0xFF0, 0x24,
    ] {
        assert_eq!(read(&mut apic, reserved), 0);
        assert_eq!(write(&mut apic, reserved, 0), None);
        assert_eq!(apic.acknowledge(), 0xFE, "{reserved:#x}");
        assert_eq!(write(&mut apic, reg::EOI, 0), None);
        assert_eq!(write(&mut apic, reg::ESR, 0), None);
        assert_eq!(read(&mut apic, reg::ESR), 0x80);
    }
    assert_eq!(write(&mut apic, reg::LVT_ERROR, 0x05), None);
    assert_eq!(write(&mut apic, 0x40, 0), None);
    assert_eq!(apic.interrupt_pending(), None);
    assert_eq!(write(&mut apic, reg::ESR, 0), None);
    assert_eq!(read(&mut apic, reg::ESR), 0xC0, "its own vector is illegal");
}

#[test]
fn read_only_registers_ignore_writes() {
    let mut apic = enabled();
    let state = apic.save();
    for register in [
        reg::ID,
        reg::VERSION,
        0x90,
        reg::PPR,
        0xC0,
        reg::ISR,
        reg::TMR + 0x70,
        reg::IRR + 0x10,
        reg::CURRENT_COUNT,
    ] {
        assert_eq!(write(&mut apic, register, u32::MAX), None);
    }
    assert_eq!(apic.save(), state);
    assert_eq!(
        [0x90, reg::EOI, 0xC0].map(|register| read(&mut apic, register)),
        [0; 3]
    );
}

#[test]
fn a_hostile_state_is_refused() {
    let mut apic = enabled();
    let _ = apic.accept(Message::fixed(0x41));
    let good = apic.save();
    let bytes = postcard::to_allocvec(&good).expect("bytes");
    assert_eq!(postcard::from_bytes(&bytes).as_ref(), Ok(&good));
    assert!(LocalApic::restore(CONFIG, &good).is_ok());
    let spoil: [fn(&mut LocalApicStateV1); 20] = [
        |s| s.id = 1,
        |s| s.base = 0xFEE0_0400,
        |s| s.base = 0xFEE0_0000,
        |s| s.base = 1 << 40,
        |s| s.requests[0] = 1,
        |s| s.in_service[0] = 1 << 15,
        |s| s.levels[0] = 2,
        |s| s.format = 0x10,
        |s| s.spurious = 0x1000,
        |s| s.spurious = 0xFF | (s.lvt[3] & !0x1_0000),
        |s| s.lvt[0] = 0x1000,
        |s| s.lvt[5] = 0x400,
        |s| s.new_errors = 1,
        |s| s.errors = 1,
        |s| s.command = 0x1000,
        |s| s.command = 1 << 32,
        |s| s.divide = 4,
        |s| s.deadline = 1,
        |s| (s.lvt[0], s.initial_count) = (2 << 17, 1),
        |s| (s.lvt[0], s.deadline) = (3 << 17, 1),
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut state = good.clone();
        state.lvt[3] = 0x700;
        spoil(&mut state);
        assert!(LocalApic::restore(CONFIG, &state).is_err(), "case {index}");
    }
}

//! Properties of a local APIC under accesses and messages of any kind.

use proptest::prelude::*;

use super::reference::Priorities;
use super::tests::{CONFIG, enabled, reg};
use super::*;
use crate::msi::Destination;

/// What happens to priorities.
#[derive(Clone, Debug)]
enum Turn {
    Accept(u8, bool),
    Task(u8),
    Cr8(u8),
    Acknowledge,
    End,
    Save,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let vector = prop_oneof![any::<u8>(), 0x30u8..0x50];
    let turn = prop_oneof![
        8 => (vector, any::<bool>()).prop_map(|(vector, level)| Turn::Accept(vector, level)),
        2 => any::<u8>().prop_map(Turn::Task),
        2 => (0u8..8).prop_map(Turn::Cr8),
        6 => Just(Turn::Acknowledge),
        5 => Just(Turn::End),
        1 => Just(Turn::Save),
    ];
    proptest::collection::vec(turn, 1..200)
}

proptest! {
    #[test]
    fn priorities_are_the_naive_ones(turns in turns()) {
        let mut apic = enabled();
        let mut naive = Priorities::default();
        for turn in turns {
            match turn {
                Turn::Accept(vector, level) => {
                    let new = vector >= 16 && !naive.requested.contains(&vector);
                    let delivery = apic.accept(Message { level, ..Message::fixed(vector) });
                    prop_assert_eq!(delivery == Delivery::Requested, new);
                    naive.request(vector, level);
                }
                Turn::Task(value) => {
                    prop_assert_eq!(apic.mmio_write(reg::TPR, value.into(), Ticks(0)), None);
                    naive.task = value;
                }
                Turn::Cr8(value) => {
                    apic.set_cr8(value);
                    naive.task = value * 16;
                }
                Turn::Acknowledge => prop_assert_eq!(apic.acknowledge(), naive.acknowledge()),
                Turn::End => {
                    let effect = apic.mmio_write(reg::EOI, 0, Ticks(0));
                    prop_assert_eq!(effect, naive.end().map(Effect::EndOfInterrupt));
                }
                Turn::Save => apic = LocalApic::restore(CONFIG, &apic.save()).expect("its own state"),
            }
            prop_assert_eq!(apic.interrupt_pending(), naive.pending());
            prop_assert_eq!(apic.mmio_read(reg::PPR, Ticks(0)), u32::from(naive.processor()));
        }
        for (register, set) in [
            (reg::IRR, &naive.requested),
            (reg::ISR, &naive.served),
            (reg::TMR, &naive.levels),
        ] {
            for vector in 0..=255 {
                let word = apic.mmio_read(register + u16::from(vector / 32) * 16, Ticks(0));
                prop_assert_eq!(word >> (vector % 32) & 1 != 0, set.contains(&vector));
            }
        }
    }
}

/// What happens to a local APIC.
#[derive(Clone, Debug)]
enum Step {
    Read(u16),
    Write(u16, u32),
    ReadMsr(u32),
    WriteMsr(u32, u64),
    Accept(u8, u8, bool),
    Signal(u8),
    Acknowledge,
    Pass(u64),
    ToDeadline,
    Init,
    Reset,
    VirtualWire,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let offset = || prop_oneof![12 => (0u16..0x40).prop_map(|n| n * 16), 1 => any::<u16>()];
    let value = || {
        prop_oneof![
            any::<u32>(),
            0u32..0x400,
            (0u32..4, 0u32..0x100).prop_map(|(mode, vector)| mode << 17 | vector),
        ]
    };
    let base = prop_oneof![
        Just(0xFEE0_0900u64),
        Just(0xFEE0_0D00),
        Just(0xFEE0_0800),
        Just(0xFEE0_0100),
        any::<u64>(),
    ];
    let msr = || prop_oneof![12 => 0x800u32..0x840, 2 => Just(0x6E0u32), 1 => any::<u32>()];
    let wide = || prop_oneof![8 => value().prop_map(u64::from), 1 => any::<u64>()];
    let step = prop_oneof![
        4 => offset().prop_map(Step::Read),
        8 => (offset(), value()).prop_map(|(offset, value)| Step::Write(offset, value)),
        3 => value().prop_map(|value| Step::Write(reg::SPURIOUS, value | 0x100)),
        4 => msr().prop_map(Step::ReadMsr),
        8 => (msr(), wide()).prop_map(|(msr, value)| Step::WriteMsr(msr, value)),
        2 => (0u64..1 << 40).prop_map(|value| Step::WriteMsr(0x6E0, value)),
        1 => base.prop_map(|value| Step::WriteMsr(0x1B, value)),
        6 => (0u8..8, any::<u8>(), any::<bool>())
            .prop_map(|(mode, vector, level)| Step::Accept(mode, vector, level)),
        2 => (0u8..4).prop_map(Step::Signal),
        4 => Just(Step::Acknowledge),
        4 => prop_oneof![0u64..10_000, 0u64..1 << 40, Just(u64::MAX)].prop_map(Step::Pass),
        4 => Just(Step::ToDeadline),
        1 => prop_oneof![Just(Step::Init), Just(Step::Reset), Just(Step::VirtualWire)],
    ];
    proptest::collection::vec(step, 1..150)
}

/// All that a step shows.
fn apply(apic: &mut LocalApic, step: &Step, now: &mut Ticks) -> String {
    match *step {
        Step::Read(offset) => format!("{:x}", apic.mmio_read(offset, *now)),
        Step::Write(offset, value) => format!("{:?}", apic.mmio_write(offset, value, *now)),
        Step::ReadMsr(msr) => format!("{:?}", apic.read_msr(msr, *now)),
        Step::WriteMsr(msr, value) => {
            let before = apic.save();
            let result = apic.write_msr(msr, value, *now);
            if result.is_err() {
                assert_eq!(apic.save(), before, "a fault does nothing");
            }
            format!("{result:?}")
        }
        Step::Accept(mode, vector, level) => {
            let mode = DeliveryMode::decode(u32::from(mode) << 8).unwrap_or(DeliveryMode::Fixed);
            format!(
                "{:?}",
                apic.accept(Message {
                    mode,
                    vector,
                    level
                })
            )
        }
        Step::Signal(source) => {
            let sources = [
                Source::Thermal,
                Source::Performance,
                Source::Lint0,
                Source::Lint1,
            ];
            format!("{:?}", apic.signal(sources[usize::from(source)]))
        }
        Step::Acknowledge => format!("{}", apic.acknowledge()),
        Step::Pass(ticks) => {
            now.0 = now.0.saturating_add(ticks);
            apic.expire(*now);
            String::new()
        }
        Step::ToDeadline => {
            *now = apic.next_deadline().map_or(*now, |at| at.max(*now));
            apic.expire(*now);
            String::new()
        }
        Step::Init => {
            apic.init();
            String::new()
        }
        Step::Reset => {
            apic.reset();
            String::new()
        }
        Step::VirtualWire => {
            apic.set_virtual_wire();
            String::new()
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_is_harmless_and_survives_a_restore(steps in steps(), start in 0u64..1 << 40) {
        let mut now = Ticks(start);
        let mut then = now;
        let mut apic = LocalApic::new(CONFIG);
        let mut copy = apic.clone();
        for step in &steps {
            let seen = apply(&mut apic, step, &mut now);
            prop_assert_eq!(&seen, &apply(&mut copy, step, &mut then));
            if matches!(step, Step::Pass(_) | Step::ToDeadline) {
                prop_assert!(apic.next_deadline().is_none_or(|at| at > now));
            }
            prop_assert!(apic.interrupt_pending().is_none_or(|vector| vector >= 16));
            let state = apic.save();
            copy = LocalApic::restore(CONFIG, &state).expect("its own state");
            prop_assert_eq!(copy.save(), state);
            prop_assert_eq!(copy.next_deadline(), apic.next_deadline());
            prop_assert_eq!(copy.interrupt_pending(), apic.interrupt_pending());
            prop_assert_eq!(copy.address(), apic.address());
            let bits = apic.address().to_bits();
            prop_assert_eq!(Address::from_bits(bits), apic.address());
        }
    }

    #[test]
    fn a_promised_deadline_is_kept(steps in steps(), start in 0u64..1 << 40) {
        let mut now = Ticks(start);
        let mut apic = LocalApic::new(CONFIG);
        for step in &steps {
            apply(&mut apic, step, &mut now);
        }
        apic.expire(now);
        if let Some(at) = apic.next_deadline() {
            let requests = apic.requests;
            let errors = apic.new_errors;
            apic.expire(Ticks(at.0 - 1));
            prop_assert_eq!((apic.requests, apic.new_errors), (requests, errors));
            apic.expire(at);
            prop_assert!(apic.next_deadline() != Some(at));
        }
    }

    #[test]
    fn any_state_is_refused_or_harmless(
        words: [u64; 4],
        small: [u8; 6],
        lvt: [u32; 6],
        base in prop_oneof![Just(0xFEE0_0900u64), Just(0xFEE0_0D00), Just(0xFEE0_0000), any::<u64>()],
        deadline: u64,
        count: u32,
        steps in steps(),
    ) {
        let mut state = enabled().save();
        state.base = base;
        state.requests = words.map(|word| word & !0xFFFF);
        state.in_service[1] = words[0];
        state.task_priority = small[0];
        state.divide = small[1] & 0xF;
        state.format = small[2] & 0x1F;
        state.new_errors = small[3] & 0xE0;
        state.lvt = lvt.map(|entry| entry & 0x1_07FF);
        state.lvt[0] &= 0x1_00FF;
        state.lvt[0] |= u32::from(small[4] & 3) << 17;
        state.lvt[5] &= 0x1_00FF;
        state.deadline = deadline;
        state.initial_count = count;
        let mut now = Ticks(deadline >> (small[5] % 64));
        if let Ok(mut apic) = LocalApic::restore(CONFIG, &state) {
            prop_assert_eq!(apic.save(), state);
            for step in &steps {
                apply(&mut apic, step, &mut now);
            }
        }
    }
}

fn address(id: u32, logical: u8, model: Model) -> Address {
    Address {
        id,
        logical,
        model,
        enabled: true,
    }
}

#[test]
fn destinations() {
    use Destination::{Everyone, Itself, Logical, Others, Physical};
    let flat = address(2, 0x04, Model::Flat);
    let cluster = address(2, 0x24, Model::Cluster);
    let wide = address(0x25, 0, Model::Wide);
    for (address, destination, sender, expected) in [
        (flat, Physical(2), false, true),
        (flat, Physical(3), false, false),
        (flat, Physical(0x102), false, false),
        (flat, Logical(0x06), false, true),
        (flat, Logical(0x03), false, false),
        (flat, Logical(0x104), false, false),
        (flat, Itself, true, true),
        (flat, Itself, false, false),
        (flat, Others, true, false),
        (flat, Others, false, true),
        (flat, Everyone, true, true),
        (cluster, Logical(0x2F), false, true),
        (cluster, Logical(0x2B), false, false),
        (cluster, Logical(0x34), false, false),
        (wide, Physical(0x25), false, true),
        (wide, Logical(0x0002_0020), false, true),
        (wide, Logical(0x0002_FFDF), false, false),
        (wide, Logical(0x0000_0020), false, false),
        (address(2, 0xFF, Model::Off), Everyone, true, false),
        (address(3, 0, Model::Wide), Logical(0x08), false, true),
    ] {
        assert_eq!(
            address.matches(destination, sender),
            expected,
            "{address:?} {destination:?}"
        );
    }
    assert_eq!(Address::from_bits(0).model, Model::Off);
}

#[test]
fn receivers_of_a_message() {
    let addresses: Vec<Address> = (0..4)
        .map(|id| Address {
            enabled: id != 1,
            ..address(id, 1 << id, Model::Flat)
        })
        .collect();
    let to = |destination, mode, vector, sender| -> Vec<usize> {
        let message = Message {
            mode,
            vector,
            level: false,
        };
        let dispatch = Dispatch {
            destination,
            message,
        };
        receivers(dispatch, sender, addresses.iter().copied()).collect()
    };
    let fixed = DeliveryMode::Fixed;
    let lowest = DeliveryMode::LowestPriority;
    assert_eq!(to(Destination::Others, fixed, 0x41, Some(2)), [0, 1, 3]);
    assert_eq!(to(Destination::Itself, fixed, 0x41, Some(2)), [2]);
    assert_eq!(to(Destination::Itself, fixed, 0x41, None), []);
    assert_eq!(to(Destination::Logical(0x0A), fixed, 0x41, None), [1, 3]);
    assert_eq!(to(Destination::Logical(0x0A), lowest, 0x41, None), [3]);
    let spread: Vec<usize> = (0x30..0x33)
        .flat_map(|vector| to(Destination::Everyone, lowest, vector, None))
        .collect();
    assert_eq!(spread, [0, 2, 3]);
    assert_eq!(to(Destination::Physical(1), lowest, 0x41, None), []);
}

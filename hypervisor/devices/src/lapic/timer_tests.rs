//! The timer against the SDM, and against the stepped model.

use proptest::prelude::*;

use super::reference::Stepped;
use super::tests::{CONFIG, enabled, reg, wide};
use super::*;

const VECTOR: u8 = 0xEC;
const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 2 << 17;
const DEADLINE_MSR: u32 = 0x6E0;

fn set(apic: &mut LocalApic, register: u16, value: u32, now: u64) {
    assert_eq!(apic.mmio_write(register, value, Ticks(now)), None);
}

fn get(apic: &mut LocalApic, register: u16, now: u64) -> u32 {
    apic.mmio_read(register, Ticks(now))
}

/// A timer of `count` from `now`, divided by 1: 8 ticks a count.
fn timer(mode: u32, count: u32, now: u64) -> LocalApic {
    let mut apic = enabled();
    set(&mut apic, reg::DIVIDE, 0xB, now);
    set(&mut apic, reg::LVT_TIMER, mode | u32::from(VECTOR), now);
    set(&mut apic, reg::INITIAL_COUNT, count, now);
    apic
}

#[test]
fn one_shot() {
    let mut apic = timer(0, 100, 1000);
    assert_eq!(apic.next_deadline(), Some(Ticks(1800)));
    assert_eq!(get(&mut apic, reg::CURRENT_COUNT, 1000), 100);
    assert_eq!(get(&mut apic, reg::CURRENT_COUNT, 1007), 100);
    assert_eq!(get(&mut apic, reg::CURRENT_COUNT, 1008), 99);
    apic.expire(Ticks(1799));
    assert_eq!(apic.interrupt_pending(), None);
    apic.expire(Ticks(1800));
    assert_eq!(apic.acknowledge(), VECTOR);
    assert_eq!(apic.next_deadline(), None);
    assert_eq!(get(&mut apic, reg::CURRENT_COUNT, 1900), 0);
    assert_eq!(get(&mut apic, reg::INITIAL_COUNT, 1900), 100);
    apic.expire(Ticks(100_000));
    assert_eq!(apic.interrupt_pending(), None);
}

#[test]
fn periodic() {
    let mut apic = timer(PERIODIC, 100, 0);
    for n in 1..4 {
        assert_eq!(apic.next_deadline(), Some(Ticks(800 * n)));
        apic.expire(Ticks(800 * n + 5));
        assert_eq!(get(&mut apic, reg::CURRENT_COUNT, 800 * n + 8), 99);
        assert_eq!(apic.next_deadline(), None, "the next would coalesce");
        assert_eq!(apic.acknowledge(), VECTOR);
        set(&mut apic, reg::EOI, 0, 0);
    }
    apic.expire(Ticks(800 * 10 + 1));
    assert_eq!(apic.missed_timer_ticks(), 6);
    apic.acknowledge();
    assert_eq!(apic.next_deadline(), Some(Ticks(8800)));
    set(&mut apic, reg::INITIAL_COUNT, 0, 8100);
    assert_eq!(apic.next_deadline(), None);
}

#[test]
fn dividers() {
    for (code, divider) in [
        (0x0, 2),
        (0x1, 4),
        (0x2, 8),
        (0x3, 16),
        (0x8, 32),
        (0x9, 64),
        (0xA, 128),
        (0xB, 1),
    ] {
        let mut apic = enabled();
        set(&mut apic, reg::LVT_TIMER, u32::from(VECTOR), 0);
        set(&mut apic, reg::DIVIDE, code, 0);
        set(&mut apic, reg::INITIAL_COUNT, 10, 0);
        assert_eq!(apic.next_deadline(), Some(Ticks(80 * divider)));
        assert_eq!(get(&mut apic, reg::DIVIDE, 0), code);
    }
}

#[test]
fn a_new_divider_is_for_what_is_left() {
    let mut apic = timer(0, 100, 0);
    set(&mut apic, reg::DIVIDE, 0xFFFF_FFF4, 400);
    assert_eq!(get(&mut apic, reg::DIVIDE, 400), 0);
    assert_eq!(get(&mut apic, reg::CURRENT_COUNT, 400), 50);
    assert_eq!(apic.next_deadline(), Some(Ticks(400 + 50 * 16)));
}

#[test]
fn a_masked_timer_runs_and_does_not_interrupt() {
    let mut apic = timer(PERIODIC | MASKED, 100, 0);
    assert_eq!(apic.next_deadline(), None);
    assert_eq!(get(&mut apic, reg::CURRENT_COUNT, 808), 99);
    // What was due while masked is not made up for.
    set(
        &mut apic,
        reg::LVT_TIMER,
        PERIODIC | u32::from(VECTOR),
        2000,
    );
    assert_eq!(apic.interrupt_pending(), None);
    assert_eq!(apic.next_deadline(), Some(Ticks(2400)));
}

#[test]
fn to_disable_by_software_masks() {
    let mut apic = timer(PERIODIC, 100, 0);
    assert_eq!(
        apic.mmio_write(reg::SPURIOUS, 0xFF, Ticks(810)),
        Some(Effect::Address)
    );
    assert_eq!(apic.interrupt_pending(), Some(VECTOR), "held");
    assert_eq!(apic.next_deadline(), None);
}

#[test]
fn tsc_deadline() {
    let mut apic = timer(TSC_DEADLINE, 100, 0);
    assert_eq!(get(&mut apic, reg::INITIAL_COUNT, 0), 0, "ignored");
    let mut write = |value, now| {
        assert_eq!(apic.write_msr(DEADLINE_MSR, value, Ticks(now)), Ok(None));
        (apic.next_deadline(), apic.interrupt_pending())
    };
    assert_eq!(write(5000, 10), (Some(Ticks(5000)), None));
    assert_eq!(write(0, 20), (None, None));
    assert_eq!(write(5000, 10), (Some(Ticks(5000)), None));
    assert_eq!(write(30, 30), (None, Some(VECTOR)), "past: at once");
    assert_eq!(apic.acknowledge(), VECTOR);
    assert_eq!(apic.read_msr(DEADLINE_MSR, Ticks(30)), Ok(0));
    let _ = apic.write_msr(DEADLINE_MSR, 5000, Ticks(40));
    assert_eq!(apic.read_msr(DEADLINE_MSR, Ticks(4999)), Ok(5000));
    assert_eq!(get(&mut apic, reg::CURRENT_COUNT, 4999), 0);
    assert_eq!(apic.read_msr(DEADLINE_MSR, Ticks(5000)), Ok(0));
}

#[test]
fn to_and_from_tsc_deadline_mode_disarms() {
    let mut apic = timer(0, 100, 0);
    assert_eq!(apic.write_msr(DEADLINE_MSR, 5000, Ticks(1)), Ok(None));
    assert_eq!(apic.read_msr(DEADLINE_MSR, Ticks(1)), Ok(0), "other mode");
    set(&mut apic, reg::LVT_TIMER, TSC_DEADLINE | 0xEC, 10);
    assert_eq!(apic.next_deadline(), None);
    let _ = apic.write_msr(DEADLINE_MSR, 5000, Ticks(20));
    set(&mut apic, reg::LVT_TIMER, TSC_DEADLINE | 0xED, 30);
    assert_eq!(apic.next_deadline(), Some(Ticks(5000)), "the same mode");
    set(&mut apic, reg::LVT_TIMER, PERIODIC | 0xEC, 40);
    assert_eq!(apic.next_deadline(), None);
    // One-shot and periodic mode share the count.
    set(&mut apic, reg::INITIAL_COUNT, 100, 1000);
    set(&mut apic, reg::LVT_TIMER, 0xEC, 1100);
    assert_eq!(apic.next_deadline(), Some(Ticks(1800)));
    set(&mut apic, reg::LVT_TIMER, 3 << 17 | 0xEC, 1200);
    assert_eq!(apic.next_deadline(), None);
    set(&mut apic, reg::INITIAL_COUNT, 100, 1300);
    assert_eq!(apic.next_deadline(), None, "the reserved mode");
}

#[test]
fn without_tsc_deadline_mode() {
    let mut apic = LocalApic::new(LocalApicConfig {
        tsc_deadline: false,
        ..CONFIG
    });
    assert_eq!(apic.read_msr(DEADLINE_MSR, Ticks(0)), Err(Fault));
    assert_eq!(apic.write_msr(DEADLINE_MSR, 1, Ticks(0)), Err(Fault));
    set(&mut apic, reg::LVT_TIMER, TSC_DEADLINE | MASKED, 0);
    assert_eq!(get(&mut apic, reg::LVT_TIMER, 0), MASKED);
    wide(&mut apic);
    let msr = 0x832;
    assert_eq!(
        apic.write_msr(msr, TSC_DEADLINE.into(), Ticks(0)),
        Err(Fault)
    );
}

#[test]
fn the_end_of_time_is_far_and_not_fatal() {
    let mut apic = timer(PERIODIC, u32::MAX, u64::MAX - 5);
    assert_eq!(apic.next_deadline(), None);
    apic.expire(Ticks(u64::MAX));
    assert_eq!(apic.interrupt_pending(), None);
}

#[test]
fn time_that_goes_backwards_changes_nothing() {
    let mut apic = timer(PERIODIC, 100, 1000);
    assert_eq!(get(&mut apic, reg::CURRENT_COUNT, 10), 100);
    apic.expire(Ticks(0));
    assert_eq!(apic.next_deadline(), Some(Ticks(1800)));
}

#[test]
fn an_illegal_vector_is_an_error_once() {
    let mut apic = enabled();
    set(&mut apic, reg::LVT_ERROR, 0xFE, 0);
    set(&mut apic, reg::DIVIDE, 0xB, 0);
    set(&mut apic, reg::LVT_TIMER, PERIODIC | 3, 0);
    set(&mut apic, reg::INITIAL_COUNT, 1, 0);
    assert_eq!(apic.next_deadline(), Some(Ticks(8)));
    apic.expire(Ticks(8));
    assert_eq!(apic.acknowledge(), 0xFE);
    assert_eq!(apic.next_deadline(), None);
    set(&mut apic, reg::ESR, 0, 9);
    assert_eq!(get(&mut apic, reg::ESR, 9), 0x40);
    assert_eq!(apic.next_deadline(), Some(Ticks(16)));
}

#[test]
fn what_is_due_happens_before_an_access() {
    let irr = reg::IRR + 0x70;
    let requested = 1 << (VECTOR % 32);
    let mut apic = timer(0, 100, 0);
    assert_eq!(get(&mut apic, irr, 799), 0);
    assert_eq!(get(&mut apic, irr, 800), requested);
    let mut apic = timer(0, 100, 0);
    set(&mut apic, reg::INITIAL_COUNT, 100, 800);
    assert_eq!(apic.interrupt_pending(), Some(VECTOR), "the one before");
    assert_eq!(apic.next_deadline(), Some(Ticks(1600)));
    let mut apic = timer(TSC_DEADLINE, 0, 0);
    for deadline in [800, 1600] {
        let now = Ticks(deadline);
        assert_eq!(apic.write_msr(DEADLINE_MSR, deadline, Ticks(0)), Ok(None));
        assert_eq!(apic.write_msr(DEADLINE_MSR, 5000, now), Ok(None));
        assert_eq!(apic.acknowledge(), VECTOR);
        set(&mut apic, reg::EOI, 0, deadline);
    }
}

/// What happens to a counting timer.
#[derive(Clone, Debug)]
enum Step {
    Start(u32),
    Divide(u8),
    Mode(bool, bool),
    Pass(u64),
    /// Up to the deadline, give or take a tick.
    ToDeadline(u64),
    Save,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => prop_oneof![Just(0u32), 1u32..6, 1u32..300].prop_map(Step::Start),
        1 => any::<u8>().prop_map(Step::Divide),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(p, m)| Step::Mode(p, m)),
        4 => prop_oneof![0u64..20, 0u64..3000].prop_map(Step::Pass),
        4 => (0u64..3).prop_map(Step::ToDeadline),
        1 => Just(Step::Save),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn a_computed_timer_is_a_stepped_one(steps in steps(), start in 0u64..1 << 50) {
        let mut now = start;
        let mut stepped = Stepped::new();
        let mut apic = enabled();
        let mut masked = false;
        let mut missed = 0;
        set(&mut apic, reg::LVT_TIMER, VECTOR.into(), now);
        for step in steps {
            let ticks = match step {
                Step::Pass(ticks) => ticks,
                Step::ToDeadline(more) => apic
                    .next_deadline()
                    .map_or(1, |at| (at.0 - now + more).saturating_sub(1).min(50_000)),
                _ => 0,
            };
            match step {
                Step::Start(count) => {
                    stepped.start(count);
                    set(&mut apic, reg::INITIAL_COUNT, count, now);
                }
                Step::Divide(code) => {
                    stepped.set_divide(code);
                    set(&mut apic, reg::DIVIDE, code.into(), now);
                }
                Step::Mode(periodic, mask) => {
                    stepped.periodic = periodic;
                    masked = mask;
                    let bits = if periodic { PERIODIC } else { 0 } | if mask { MASKED } else { 0 };
                    set(&mut apic, reg::LVT_TIMER, bits | u32::from(VECTOR), now);
                }
                Step::Save => apic = LocalApic::restore(CONFIG, &apic.save()).expect("its own state"),
                Step::Pass(_) | Step::ToDeadline(_) => {}
            }
            let promised = apic.next_deadline();
            let fires: Vec<u64> = (1..=ticks).filter(|_| stepped.tick()).collect();
            if !masked {
                let first = fires.first().map(|tick| Ticks(now + tick));
                prop_assert_eq!(promised.filter(|at| at.0 <= now + ticks), first);
            }
            now += ticks;
            apic.expire(Ticks(now));
            missed += (fires.len() as u64).saturating_sub(1);
            prop_assert_eq!(apic.missed_timer_ticks(), missed);
            prop_assert_eq!(apic.interrupt_pending().is_some(), !masked && !fires.is_empty());
            if apic.interrupt_pending().is_some() {
                prop_assert_eq!(apic.acknowledge(), VECTOR);
                set(&mut apic, reg::EOI, 0, now);
            }
            prop_assert_eq!(get(&mut apic, reg::CURRENT_COUNT, now), stepped.count);
        }
    }
}

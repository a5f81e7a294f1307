//! The 8254 against its data sheet, and against the stepped model.

use proptest::prelude::*;

use super::counter::Counter;
use super::reference::Stepped;
use super::*;

/// One guest tick is a little less than a clock cycle of this TSC, so time is easy to name.
const TSC_HZ: u64 = CLOCK_HZ * 100;

const CONTROL: [u8; 3] = [0x00, 0x40, 0x80];

/// The tick at which clock cycle `n` has just begun.
fn at(n: u64) -> Ticks {
    Rate::new(CLOCK_HZ, TSC_HZ).at(n)
}

fn pit() -> Pit {
    Pit::new(TSC_HZ, Ticks(0))
}

fn program(pit: &mut Pit, counter: u8, mode: u8, count: u16, now: Ticks) {
    pit.write_control(CONTROL[usize::from(counter)] | 0x30 | mode << 1, now);
    pit.write_counter(counter, count as u8, now);
    pit.write_counter(counter, (count >> 8) as u8, now);
}

fn latched(pit: &mut Pit, counter: u8, now: Ticks) -> u16 {
    pit.write_control(CONTROL[usize::from(counter)], now);
    let low = pit.read_counter(counter, now);
    let high = pit.read_counter(counter, now);
    u16::from_le_bytes([low, high])
}

#[test]
fn mode_0_rises_n_plus_1_cycles_after_the_write() {
    let mut pit = pit();
    program(&mut pit, 0, 0, 4, at(10));
    assert!(!pit.output());
    assert_eq!(pit.next_rise(), at(15));
    assert!(!pit.sync(Ticks(at(15).0 - 1)));
    assert!(pit.sync(at(15)));
    assert!(pit.output());
    assert_eq!(pit.next_rise(), Ticks::NEVER);
    // The count goes on through 0.
    assert_eq!(latched(&mut pit, 0, at(17)), 0xFFFE);
}

#[test]
fn mode_0_stands_still_between_two_bytes() {
    let mut pit = pit();
    program(&mut pit, 0, 0, 100, at(0));
    pit.write_counter(0, 50, at(20));
    assert!(!pit.output());
    assert_eq!(pit.next_rise(), Ticks::NEVER);
    assert_eq!(latched(&mut pit, 0, at(500)), 81);
    pit.write_counter(0, 0, at(1000));
    assert_eq!(pit.next_rise(), at(1051));
}

#[test]
fn mode_2_keeps_its_period_until_it_ends() {
    let mut pit = pit();
    program(&mut pit, 0, 2, 100, at(0));
    assert_eq!(pit.next_rise(), at(101));
    assert!(pit.sync(at(101)));
    pit.write_counter(0, 200, at(150));
    pit.write_counter(0, 0, at(150));
    assert_eq!(pit.next_rise(), at(201));
    assert!(pit.sync(at(201)));
    assert_eq!(pit.next_rise(), at(401));
}

#[test]
fn mode_2_is_low_for_one_cycle() {
    let mut pit = pit();
    program(&mut pit, 0, 2, 3, at(0));
    let outputs: Vec<bool> = (1..=9)
        .map(|n| {
            pit.sync(at(n));
            pit.output()
        })
        .collect();
    assert_eq!(
        outputs,
        [true, true, false, true, true, false, true, true, false]
    );
}

#[test]
fn mode_3_splits_an_odd_period() {
    let mut pit = pit();
    program(&mut pit, 0, 3, 5, at(0));
    let waves: Vec<(bool, u16)> = (1..=11)
        .map(|n| {
            pit.sync(at(n));
            (pit.output(), latched(&mut pit, 0, at(n)))
        })
        .collect();
    let period = [(true, 4), (true, 2), (true, 0), (false, 4), (false, 2)];
    assert_eq!(waves[..5], period);
    assert_eq!(waves[5..10], period);
    assert_eq!(waves[10], period[0]);
}

#[test]
fn mode_4_strobes_once_for_one_cycle() {
    let mut pit = pit();
    program(&mut pit, 0, 4, 3, at(0));
    let outputs: Vec<bool> = [0, 1, 3, 4, 5, 65_540]
        .map(|n| {
            pit.sync(at(n));
            pit.output()
        })
        .into();
    assert_eq!(outputs, [true, true, true, false, true, true]);
}

#[test]
fn modes_1_and_5_wait_for_the_gate() {
    let mut pit = pit();
    for (mode, low) in [(1, 1..11), (5, 11..12)] {
        pit.write_port_b(0, at(0));
        program(&mut pit, 2, mode, 10, at(0));
        assert_eq!(pit.read_port_b(at(1000)) & 0x20, 0x20);
        pit.write_port_b(1, at(1000));
        for n in 0..30 {
            let out = pit.read_port_b(at(1000 + n)) & 0x20 != 0;
            assert_eq!(out, !low.contains(&n), "mode {mode}, cycle {n}");
        }
        pit = Pit::new(TSC_HZ, Ticks(0));
    }
}

#[test]
fn many_periods_at_once_count_as_one_rise_and_the_rest_as_missed() {
    let mut pit = pit();
    program(&mut pit, 0, 2, 1000, at(0));
    assert!(pit.sync(at(1_000_001)));
    assert_eq!(pit.missed(), 999);
    assert_eq!(pit.next_rise(), at(1_001_001));
}

#[test]
fn a_full_count_is_written_as_0() {
    let mut pit = pit();
    program(&mut pit, 0, 2, 0, at(0));
    assert_eq!(pit.next_rise(), at(65_537));
    assert_eq!(latched(&mut pit, 0, at(1)), 0);
    assert_eq!(latched(&mut pit, 0, at(2)), 0xFFFF);
    pit.write_control(0x31, at(0));
    pit.write_counter(0, 0, at(2));
    pit.write_counter(0, 0, at(2));
    assert_eq!(pit.next_rise(), at(10_003));
    assert_eq!(latched(&mut pit, 0, at(4)), 0x9999);
}

#[test]
fn read_back_latches_status_then_count() {
    let mut pit = pit();
    program(&mut pit, 0, 2, 0x1234, at(0));
    pit.write_control(0xC2, at(0));
    assert_eq!(
        pit.read_counter(0, at(0)),
        0x80 | 0x40 | 0x30 | 0x04,
        "null before the load"
    );
    pit.read_counter(0, at(0));
    pit.read_counter(0, at(0));
    pit.write_control(0xC2, at(1));
    pit.write_control(0xC2, at(9));
    assert_eq!(pit.read_counter(0, at(10)), 0x80 | 0x30 | 0x04);
    assert_eq!(pit.read_counter(0, at(11)), 0x34);
    assert_eq!(pit.read_counter(0, at(12)), 0x12);
    assert_eq!(pit.read_counter(0, at(13)), 0x28, "no longer latched");
}

#[test]
fn port_61_gates_counter_2_and_shows_its_output() {
    let mut pit = pit();
    pit.write_port_b(0x00, at(0));
    program(&mut pit, 2, 0, 1000, at(0));
    assert_eq!(pit.read_port_b(at(5000)) & 0x21, 0x00);
    pit.write_port_b(0x01, at(5000));
    assert_eq!(pit.read_port_b(at(5999)) & 0x21, 0x01);
    assert_eq!(pit.read_port_b(at(6000)) & 0x21, 0x21);
    pit.write_port_b(0xFF, at(6000));
    assert_eq!(pit.read_port_b(at(6000)) & 0xEF, 0x2F);
}

#[test]
fn refresh_toggles_each_15_microseconds() {
    let mut pit = pit();
    let toggles = (1..CLOCK_HZ / 100)
        .filter(|n| (pit.read_port_b(at(*n)) ^ pit.read_port_b(at(n - 1))) & 0x10 != 0)
        .count();
    assert_eq!(toggles, 662, "10 ms / 15.085 us");
}

#[test]
fn a_hostile_state_is_refused() {
    let good = pit().save();
    assert!(Pit::restore(TSC_HZ, &good).is_ok());
    let spoil: [fn(&mut PitStateV1); 6] = [
        |s| s.counters[0].element = 0,
        |s| s.counters[0].element = 70_000,
        |s| s.counters[0].period = 70_000,
        |s| s.counters[0].gate = false,
        |s| s.counters[2].gate = true,
        |s| s.port_b = 0x10,
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut state = good.clone();
        spoil(&mut state);
        assert!(Pit::restore(TSC_HZ, &state).is_err(), "case {index}");
    }
}

/// What happens to a counter.
#[derive(Clone, Debug)]
enum Step {
    Control(u8),
    Write(u8),
    Read,
    LatchCount,
    LatchStatus,
    Gate(bool),
    Clocks(u32),
    /// Clocks up to the next rise of the output, give or take one or two.
    ToRise(u64),
    Save,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => any::<u8>().prop_map(|v| Step::Control(v & 0x3F)),
        3 => prop_oneof![Just(0u8), Just(1), 2u8..8, any::<u8>()].prop_map(Step::Write),
        3 => Just(Step::Read),
        1 => Just(Step::LatchCount),
        1 => Just(Step::LatchStatus),
        1 => any::<bool>().prop_map(Step::Gate),
        4 => prop_oneof![1u32..8, 1u32..3000, 60_000u32..140_000].prop_map(Step::Clocks),
        3 => (0u64..4).prop_map(Step::ToRise),
        1 => Just(Step::Save),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn a_computed_counter_is_a_stepped_one(steps in steps(), start in 0u64..1 << 40) {
        let mut cycle = start;
        let mut stepped = Stepped::new(true);
        let mut computed = Counter::programmed(Mode::TerminalCount, Access::Low, 0, true, cycle);
        stepped.control(Mode::TerminalCount, Access::Low, false);
        computed.control(Mode::TerminalCount, Access::Low, false);
        let mut gate = true;
        for step in steps {
            match step {
                Step::Control(value) => match Access::decode(value) {
                    Some(access) => {
                        stepped.control(Mode::decode(value), access, value & 1 != 0);
                        computed.control(Mode::decode(value), access, value & 1 != 0);
                    }
                    None => {
                        stepped.latch_count();
                        computed.latch_count();
                    }
                },
                Step::Write(value) => {
                    stepped.write(value);
                    computed.write(value);
                }
                Step::Read => prop_assert_eq!(computed.read(), stepped.read()),
                Step::LatchCount => {
                    stepped.latch_count();
                    computed.latch_count();
                }
                Step::LatchStatus => {
                    stepped.latch_status();
                    computed.latch_status();
                }
                Step::Gate(level) => {
                    gate = level;
                    stepped.set_gate(level);
                    computed.set_gate(level);
                }
                Step::Clocks(_) | Step::ToRise(_) => {
                    let promised = computed.next_rise();
                    let clocks = match (step, promised) {
                        (Step::Clocks(clocks), _) => u64::from(clocks),
                        (Step::ToRise(more), Some(rise)) => (rise - cycle + more).saturating_sub(2),
                        _ => 1,
                    };
                    let mut rises = 0;
                    let mut first = None;
                    for n in 1..=clocks {
                        if stepped.clock() {
                            rises += 1;
                            first.get_or_insert(cycle + n);
                        }
                    }
                    cycle += clocks;
                    prop_assert_eq!(promised.filter(|at| *at <= cycle), first);
                    prop_assert_eq!(computed.sync(cycle), rises);
                }
                Step::Save => {
                    let state = computed.save();
                    computed = Counter::restore(&state, gate).expect("its own state");
                    prop_assert_eq!(computed.save(), state);
                }
            }
            prop_assert_eq!(computed.output(), stepped.out);
        }
    }
}

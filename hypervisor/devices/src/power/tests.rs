//! The power management block.

use super::*;

const TSC_HZ: u64 = TIMER_HZ * 100;

fn at(cycle: u64) -> Ticks {
    Rate::new(TIMER_HZ, TSC_HZ).at(cycle)
}

#[test]
fn the_timer_counts_24_bits_at_its_frequency() {
    let mut power = Power::new(TSC_HZ, Ticks(0));
    assert_eq!(power.read(8, at(TIMER_HZ)), 3_579_545);
    assert_eq!(power.read(8, at(0xFF_FFFF)), 0xFF_FFFF);
    assert_eq!(power.read(8, at(0x100_0000)), 0);
}

#[test]
fn soft_off_is_sleep_type_5() {
    let mut power = Power::new(TSC_HZ, Ticks(0));
    for kind in 0..8 {
        let request = power.write(4, kind << 10 | 1, 0xFFFF, Ticks(0));
        assert_eq!(request, None, "not yet enabled");
        let request = power.write(4, kind << 10 | 1 << 13, 0xFFFF, Ticks(0));
        assert_eq!(request.is_some(), kind == 5);
        assert_eq!(power.read(4, Ticks(0)), kind << 10, "SLP_EN reads 0");
    }
    // In two bytes.
    power.write(4, 5 << 10, 0xFFFF, Ticks(0));
    assert_eq!(
        power.write(4, 0x3400, 0xFF00, Ticks(0)),
        Some(Request::PowerOff)
    );
}

#[test]
fn a_carry_of_the_timer_raises_the_sci() {
    let mut power = Power::new(TSC_HZ, Ticks(0));
    assert_eq!(power.next_rise(), Ticks::NEVER);
    power.write(0, 1 << 16, 0xFFFF_0000, Ticks(0));
    assert_eq!(power.next_rise(), at(1 << 23));
    power.sync(at(1 << 23));
    assert!(power.interrupt());
    assert_eq!(power.read(0, at(1 << 23)), 0x0001_0001);
    power.write(0, 1, 0x0000_FFFF, at(1 << 23));
    assert!(!power.interrupt());
    assert_eq!(power.next_rise(), at(2 << 23));
}

#[test]
fn the_button_is_an_event() {
    let mut power = Power::new(TSC_HZ, Ticks(0));
    power.press_button();
    assert!(!power.interrupt());
    power.write(0, 0x0100_0000, 0xFF00_0000, Ticks(0));
    assert!(power.interrupt());
    power.write(0, 0x100, 0xFFFF, Ticks(0));
    assert!(!power.interrupt());
    assert_eq!(power.read(0, Ticks(0)), 0x0100_0000);
}

#[test]
fn a_hostile_state_is_refused() {
    let good = Power::new(TSC_HZ, Ticks(0)).save();
    assert_eq!(
        Power::restore(TSC_HZ, &good).expect("its own state").save(),
        good
    );
    let spoil: [fn(&mut PowerStateV1); 3] = [
        |s| s.status = 2,
        |s| s.enable = 0x10,
        |s| s.control = 1 << 13,
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut state = good.clone();
        spoil(&mut state);
        assert!(Power::restore(TSC_HZ, &state).is_err(), "case {index}");
    }
    let strange = PowerStateV1 {
        cycle: u64::MAX,
        enable: 1,
        ..good
    };
    let _ = Power::restore(TSC_HZ, &strange)
        .expect("strange")
        .next_rise();
}

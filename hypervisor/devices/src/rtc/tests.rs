//! The MC146818A against its data sheet.

use super::*;

/// 2001-09-09 01:46:40, a Sunday.
const START: u64 = 1_000_000_000;
const TSC_HZ: u64 = CLOCK_HZ * 1000;

fn at(cycle: u64) -> Ticks {
    Rate::new(CLOCK_HZ, TSC_HZ).at(cycle)
}

fn seconds(n: u64) -> Ticks {
    at(n * CLOCK_HZ)
}

fn rtc() -> Rtc {
    Rtc::new(TSC_HZ, 64 << 20, START, Ticks(0))
}

fn get(rtc: &mut Rtc, index: u8, now: Ticks) -> u8 {
    rtc.select(index);
    rtc.read(now)
}

fn put(rtc: &mut Rtc, index: u8, value: u8, now: Ticks) {
    rtc.select(index);
    rtc.write(value, now);
}

/// Century, year, month, day, weekday, hour, minute, second.
fn shown(rtc: &mut Rtc, now: Ticks) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| get(rtc, index, now))
}

#[test]
fn shows_the_wall_clock_and_goes_on() {
    let mut rtc = rtc();
    assert_eq!(
        shown(&mut rtc, Ticks(0)),
        [0x20, 0x01, 0x09, 0x09, 1, 0x01, 0x46, 0x40]
    );
    let before = Ticks(seconds(1).0 - 1);
    assert_eq!(shown(&mut rtc, before)[7], 0x40);
    assert_eq!(shown(&mut rtc, seconds(1))[7], 0x41);
    let days = seconds(22 * 86_400 + 20);
    assert_eq!(
        shown(&mut rtc, days),
        [0x20, 0x01, 0x10, 0x01, 2, 0x01, 0x47, 0x00]
    );
    assert_eq!(get(&mut rtc, 0x0D, Ticks(0)), 0x80);
}

#[test]
fn a_clock_made_late_starts_with_a_whole_second() {
    let now = at(12_345);
    let mut rtc = Rtc::new(TSC_HZ, 0, START, now);
    assert_eq!(shown(&mut rtc, at(12_345 + CLOCK_HZ - 1))[7], 0x40);
    assert_eq!(shown(&mut rtc, at(12_345 + CLOCK_HZ))[7], 0x41);
}

#[test]
fn update_in_progress_for_2228_microseconds() {
    let mut rtc = rtc();
    assert_eq!(get(&mut rtc, 0x0A, at(CLOCK_HZ - 74)), 0x26);
    assert_eq!(get(&mut rtc, 0x0A, at(CLOCK_HZ - 73)), 0xA6);
    assert_eq!(get(&mut rtc, 0x0A, at(CLOCK_HZ - 1)), 0xA6);
    assert_eq!(get(&mut rtc, 0x0A, at(CLOCK_HZ)), 0x26);
    put(&mut rtc, 0x0B, 0x82, at(CLOCK_HZ));
    assert_eq!(
        get(&mut rtc, 0x0A, at(2 * CLOCK_HZ - 1)),
        0x26,
        "no update while SET"
    );
}

#[test]
fn setting_the_time_takes_effect_half_a_second_after_the_divider_runs() {
    let mut rtc = rtc();
    put(&mut rtc, 0x0B, 0x82, at(100));
    put(&mut rtc, 0x0A, 0x76, at(100));
    for (index, value) in [
        (0, 0x59),
        (2, 0x59),
        (4, 0x23),
        (7, 0x28),
        (8, 0x02),
        (9, 0x04),
    ] {
        put(&mut rtc, index, value, at(200));
    }
    assert_eq!(get(&mut rtc, 0, seconds(50)), 0x59);
    put(&mut rtc, 0x0A, 0x26, at(50 * CLOCK_HZ + 777));
    put(&mut rtc, 0x0B, 0x02, at(50 * CLOCK_HZ + 777));
    let update = 50 * CLOCK_HZ + 777 + CLOCK_HZ / 2;
    assert_eq!(get(&mut rtc, 0, at(update - 1)), 0x59);
    assert_eq!(
        shown(&mut rtc, at(update)),
        [0x20, 0x04, 0x02, 0x29, 2, 0x00, 0x00, 0x00]
    );
}

#[test]
fn twelve_hours_and_binary() {
    let mut rtc = rtc();
    put(&mut rtc, 0x0B, 0x04, Ticks(0));
    put(&mut rtc, 4, 0x80 | 11, Ticks(0));
    put(&mut rtc, 2, 59, Ticks(0));
    put(&mut rtc, 0, 59, Ticks(0));
    for (index, value) in [(7, 31), (8, 12), (9, 99), (0x32, 19)] {
        put(&mut rtc, index, value, Ticks(0));
    }
    assert_eq!(shown(&mut rtc, seconds(1)), [20, 0, 1, 1, 2, 12, 0, 0]);
}

#[test]
fn periodic_interrupt_at_its_rate() {
    let mut rtc = rtc();
    assert_eq!(rtc.next_rise(), Ticks::NEVER);
    put(&mut rtc, 0x0B, 0x42, at(5));
    assert_eq!(rtc.next_rise(), at(32), "1024 Hz");
    rtc.sync(Ticks(at(32).0 - 1));
    assert!(!rtc.interrupt());
    rtc.sync(at(32));
    assert!(rtc.interrupt());
    assert_eq!(
        rtc.next_rise(),
        Ticks::NEVER,
        "a pending interrupt needs no deadline"
    );
    assert_eq!(get(&mut rtc, 0x0C, at(100)), 0xC0);
    assert!(!rtc.interrupt());
    assert_eq!(get(&mut rtc, 0x0C, at(100)), 0);
    assert_eq!(rtc.next_rise(), at(128));
    let cycles = [(1, 128), (2, 256), (3, 4), (6, 32), (15, 16_384)];
    for (rate, cycles) in cycles {
        put(&mut rtc, 0x0A, 0x20 | rate, at(1 << 20));
        get(&mut rtc, 0x0C, at(1 << 20));
        assert_eq!(rtc.next_rise(), at((1 << 20) + cycles));
    }
    put(&mut rtc, 0x0A, 0x20, at(1 << 20));
    assert_eq!(rtc.next_rise(), Ticks::NEVER);
}

#[test]
fn flags_are_set_without_their_interrupts() {
    let mut rtc = rtc();
    put(&mut rtc, 1, 0x41, Ticks(0));
    put(&mut rtc, 3, 0xC0, Ticks(0));
    put(&mut rtc, 5, 0xFF, Ticks(0));
    assert_eq!(rtc.next_rise(), Ticks::NEVER);
    assert_eq!(get(&mut rtc, 0x0C, seconds(1)), 0x70);
    assert!(!rtc.interrupt());
    assert_eq!(
        get(&mut rtc, 0x0C, seconds(2)),
        0x50,
        "the alarm was a second ago"
    );
    // An enable that comes after its flag interrupts at once.
    rtc.sync(seconds(3));
    put(&mut rtc, 0x0B, 0x12, seconds(3));
    assert!(rtc.interrupt());
}

#[test]
fn alarm_once_a_day_and_once_a_minute() {
    let mut rtc = rtc();
    for (index, value) in [(1, 0x00), (3, 0x00), (5, 0x02)] {
        put(&mut rtc, index, value, Ticks(0));
    }
    put(&mut rtc, 0x0B, 0x22, Ticks(0));
    let first = 13 * 60 + 20;
    assert_eq!(rtc.next_rise(), seconds(first));
    rtc.sync(seconds(first));
    assert_eq!(get(&mut rtc, 0x0C, seconds(first)) & 0xA0, 0xA0);
    assert_eq!(rtc.next_rise(), seconds(first + 86_400));
    put(&mut rtc, 3, 0xFF, seconds(first));
    put(&mut rtc, 5, 0xFF, seconds(first));
    assert_eq!(rtc.next_rise(), seconds(first + 60));
    put(&mut rtc, 1, 0x7F, seconds(first));
    assert_eq!(rtc.next_rise(), Ticks::NEVER, "no second reads 7F");
}

#[test]
fn set_clears_the_update_interrupt() {
    let mut rtc = rtc();
    put(&mut rtc, 0x0B, 0x12, Ticks(0));
    assert_eq!(rtc.next_rise(), seconds(1));
    put(&mut rtc, 0x0B, 0x92, Ticks(0));
    assert_eq!(get(&mut rtc, 0x0B, Ticks(0)), 0x82);
    assert_eq!(rtc.next_rise(), Ticks::NEVER);
}

#[test]
fn reset_keeps_time_and_memory() {
    let mut rtc = rtc();
    put(&mut rtc, 0x40, 0x5A, Ticks(0));
    put(&mut rtc, 0x0B, 0x7A, Ticks(0));
    rtc.reset(seconds(7));
    assert_eq!(get(&mut rtc, 0x0B, seconds(7)), 0x02);
    assert!(!rtc.interrupt());
    assert_eq!(get(&mut rtc, 0x40, seconds(7)), 0x5A);
    assert_eq!(get(&mut rtc, 0, seconds(7)), 0x47);
}

#[test]
fn a_hostile_state_is_refused() {
    let good = rtc().save();
    assert_eq!(
        Rtc::restore(TSC_HZ, &good).expect("its own state").save(),
        good
    );
    let spoil: [fn(&mut RtcStateV1); 4] = [
        |s| s.phase = 32_768,
        |s| s.c = 0x80,
        |s| s.a = 0x80,
        |s| s.memory.truncate(127),
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut state = good.clone();
        spoil(&mut state);
        assert!(Rtc::restore(TSC_HZ, &state).is_err(), "case {index}");
    }
    // What is merely strange does no harm.
    let strange = RtcStateV1 {
        time: [0xFF; 8],
        cycle: u64::MAX,
        b: 0x7F,
        ..good
    };
    let mut rtc = Rtc::restore(TSC_HZ, &strange).expect("strange");
    rtc.sync(Ticks(u64::MAX));
    let _ = rtc.next_rise();
    let _ = shown(&mut rtc, Ticks(u64::MAX));
}

//! The board's clock chip (MC146818), read once at boot.

use crate::port;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

const UPDATE_IN_PROGRESS: u8 = 1 << 7;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
const PM: u8 = 1 << 7;

/// Seconds since 1970-01-01 00:00 UTC by the board's clock, taken to run in UTC; `None` when there
/// is no clock that keeps still between two readings.
///
/// # Safety
///
/// The caller must own ports 0x70 and 0x71.
#[must_use]
pub unsafe fn unix_time() -> Option<u64> {
    const ATTEMPTS: usize = 100_000;
    let mut last = None;
    for _ in 0..ATTEMPTS {
        // SAFETY: passed on to the caller.
        let Some(reading) = (unsafe { sample() }) else {
            continue;
        };
        if last == Some(reading) {
            return decode(reading);
        }
        last = Some(reading);
    }
    None
}

/// Seconds, minutes, hours, day, month, year, century, register B.
type Reading = [u8; 8];

/// # Safety
///
/// As [`unix_time`].
unsafe fn sample() -> Option<Reading> {
    // SAFETY: the index register selects, the data register reads; neither changes the clock.
    let register = |index: u8| unsafe {
        port::write_u8(INDEX, index);
        port::read_u8(DATA)
    };
    if register(0x0a) & UPDATE_IN_PROGRESS != 0 {
        return None;
    }
    Some([0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32, 0x0b].map(register))
}

fn decode(reading: Reading) -> Option<u64> {
    let [second, minute, hour, day, month, year, century, b] = reading;
    let binary = |value: u8| {
        if b & BINARY != 0 {
            value
        } else {
            (value >> 4) * 10 + (value & 0xf)
        }
    };
    let mut hours = u64::from(binary(hour & !PM));
    if b & HOURS_24 == 0 {
        hours = hours % 12 + if hour & PM != 0 { 12 } else { 0 };
    }
    let century = match binary(century) {
        century @ 19..=21 => u64::from(century),
        _ => 20,
    };
    let year = century * 100 + u64::from(binary(year));
    let (month, day) = (u64::from(binary(month)), u64::from(binary(day)));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    let days = days_before(year, month) + day - 1;
    Some(((days * 24 + hours) * 60 + u64::from(binary(minute))) * 60 + u64::from(binary(second)))
}

/// Days from 1970-01-01 to the first of a month.
fn days_before(year: u64, month: u64) -> u64 {
    const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let month_days = BEFORE_MONTH[(month - 1) as usize % 12] + u64::from(leap && month > 2);
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969) + month_days
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn readings_decode_in_every_format() {
        // 2001-09-09 01:46:40 is 10^9.
        assert_eq!(
            decode([0x40, 0x46, 0x01, 0x09, 0x09, 0x01, 0x20, 0x02]),
            Some(1_000_000_000)
        );
        assert_eq!(decode([40, 46, 1, 9, 9, 1, 20, 0x06]), Some(1_000_000_000));
        assert_eq!(
            decode([0x40, 0x46, 0x81, 0x09, 0x09, 0x01, 0x20, 0x00]),
            Some(1_000_043_200)
        );
        // Noon and midnight in 12-hour format; a leap day.
        assert_eq!(
            decode([0, 0, 0x12, 0x29, 0x02, 0x24, 0x20, 0x00]),
            Some(1_709_164_800)
        );
        assert_eq!(
            decode([0, 0, 0x92, 0x29, 0x02, 0x24, 0x20, 0x00]),
            Some(1_709_208_000)
        );
    }

    #[test]
    fn an_absent_clock_is_not_a_date() {
        assert_eq!(decode([0xff; 8]), None);
    }
}

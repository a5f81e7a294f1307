//! The time registers: how the chip writes a moment, and when an alarm matches it.

use super::calendar::{DAY, Moment};

/// The day of the week, 1 (Sunday) to 7, of 1970-01-01.
const UNIX_WEEKDAY: u64 = 5;

/// How time is written: register B's DM and 24/12 bits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// Binary rather than BCD.
    pub(super) binary: bool,
    /// Hours run from 0 to 23 rather than from 1 to 12 with bit 7 for the afternoon.
    pub(super) hours_24: bool,
}

/// Bit 7 of an hour in the 12-hour format.
const AFTERNOON: u8 = 0x80;

impl Format {
    fn encode(self, value: u8) -> u8 {
        if self.binary {
            value
        } else {
            ((value / 10 % 10) << 4) | (value % 10)
        }
    }

    fn decode(self, raw: u8) -> u8 {
        if self.binary {
            raw
        } else {
            (raw >> 4) * 10 + (raw & 0xF)
        }
    }

    pub(super) fn encode_hour(self, hour: u8) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let twelve = match hour % 12 {
            0 => 12,
            hour => hour,
        };
        self.encode(twelve) | if hour >= 12 { AFTERNOON } else { 0 }
    }

    fn decode_hour(self, raw: u8) -> u8 {
        if self.hours_24 {
            return self.decode(raw).min(23);
        }
        let afternoon = raw & AFTERNOON != 0;
        self.decode(raw & !AFTERNOON) % 12 + if afternoon { 12 } else { 0 }
    }
}

/// The time and calendar registers, as they read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct TimeRegisters {
    pub(super) second: u8,
    pub(super) minute: u8,
    pub(super) hour: u8,
    pub(super) weekday: u8,
    pub(super) day: u8,
    pub(super) month: u8,
    pub(super) year: u8,
    pub(super) century: u8,
}

impl TimeRegisters {
    /// The registers at a Unix time.
    pub(super) fn from_unix(seconds: u64, format: Format) -> Self {
        let mut registers = Self {
            second: 0,
            minute: 0,
            hour: 0,
            weekday: ((UNIX_WEEKDAY - 1 + seconds / DAY) % 7) as u8 + 1,
            day: 0,
            month: 0,
            year: 0,
            century: 0,
        };
        registers.put(Moment::from_unix(seconds), format);
        registers
    }

    fn put(&mut self, moment: Moment, format: Format) {
        self.second = format.encode(moment.second);
        self.minute = format.encode(moment.minute);
        self.hour = format.encode_hour(moment.hour);
        self.day = format.encode(moment.day);
        self.month = format.encode(moment.month);
        self.year = format.encode((moment.year % 100) as u8);
        self.century = format.encode((moment.year / 100) as u8);
    }

    /// The moment that the registers show; what is out of range is taken as the nearest that is not.
    pub(super) fn moment(&self, format: Format) -> Moment {
        let century = u16::from(format.decode(self.century).min(99));
        Moment {
            year: century * 100 + u16::from(format.decode(self.year).min(99)),
            month: format.decode(self.month).clamp(1, 12),
            day: format.decode(self.day).clamp(1, 31),
            hour: format.decode_hour(self.hour),
            minute: format.decode(self.minute).min(59),
            second: format.decode(self.second).min(59),
        }
    }

    /// Goes on by `seconds`.
    pub(super) fn advance(&mut self, seconds: u64, format: Format) {
        if seconds == 0 {
            return;
        }
        let before = self.moment(format).seconds();
        let after = before.saturating_add(seconds);
        let days = after / DAY - before / DAY;
        if days > 0 {
            let weekday = u64::from(self.weekday.clamp(1, 7)) - 1;
            self.weekday = ((weekday + days % 7) % 7) as u8 + 1;
        }
        self.put(Moment::from_seconds(after), format);
    }
}

/// The alarm registers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Alarm {
    pub(super) second: u8,
    pub(super) minute: u8,
    pub(super) hour: u8,
}

/// Whether an alarm register matches a time register; the two highest bits mean "don't care".
const fn matches(alarm: u8, time: u8) -> bool {
    alarm >= 0xC0 || alarm == time
}

impl Alarm {
    /// How many seconds after `second` of a day the alarm strikes next: 1 to 86400, or never.
    pub(super) fn next_after(&self, second: u32, format: Format) -> Option<u32> {
        // A register that no time can match would otherwise be searched for through a whole day.
        let possible = (0..24).any(|hour| matches(self.hour, format.encode_hour(hour)))
            && (0..60).any(|minute| matches(self.minute, format.encode(minute)))
            && (0..60).any(|second| matches(self.second, format.encode(second)));
        if !possible {
            return None;
        }
        let day = DAY as u32;
        let limit = second + day;
        let mut at = second + 1;
        while at <= limit {
            let time = at % day;
            if !matches(self.hour, format.encode_hour((time / 3600) as u8)) {
                at += 3600 - time % 3600;
            } else if !matches(self.minute, format.encode((time / 60 % 60) as u8)) {
                at += 60 - time % 60;
            } else if !matches(self.second, format.encode((time % 60) as u8)) {
                at += 1;
            } else {
                return Some(at - second);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn formats() -> impl Strategy<Value = Format> {
        (any::<bool>(), any::<bool>()).prop_map(|(binary, hours_24)| Format { binary, hours_24 })
    }

    #[test]
    fn hours_in_both_formats() {
        let twelve = Format {
            binary: false,
            hours_24: false,
        };
        assert_eq!(twelve.encode_hour(0), 0x12);
        assert_eq!(twelve.encode_hour(11), 0x11);
        assert_eq!(twelve.encode_hour(12), 0x92);
        assert_eq!(twelve.encode_hour(23), 0x91);
    }

    proptest! {
        #[test]
        fn registers_show_the_time(seconds in 0u64..253_402_300_800, format in formats()) {
            let registers = TimeRegisters::from_unix(seconds, format);
            prop_assert_eq!(registers.moment(format), Moment::from_unix(seconds));
        }

        #[test]
        fn going_on_is_being_later(
            seconds in 0u64..4_000_000_000,
            on in 0u64..1 << 32,
            format in formats(),
        ) {
            let mut registers = TimeRegisters::from_unix(seconds, format);
            registers.advance(on, format);
            prop_assert_eq!(registers, TimeRegisters::from_unix(seconds + on, format));
        }

        #[test]
        fn any_registers_go_on(raw: [u8; 8], on: u64, format in formats()) {
            let [second, minute, hour, weekday, day, month, year, century] = raw;
            let mut registers =
                TimeRegisters { second, minute, hour, weekday, day, month, year, century };
            registers.advance(on, format);
        }

        #[test]
        fn the_next_alarm_is_the_first_second_that_matches(
            raw: [u8; 3],
            start in 0u32..86_400,
            format in formats(),
            wild in 0u8..8,
            near in 1u32..5000,
        ) {
            // Alarms that can strike are as likely as those that cannot.
            let goal = (start + near) % 86_400;
            let pick = |bit: u8, raw: u8, value: u8| match wild & 1 << bit {
                0 if raw >= 0x80 => 0xC0 | raw,
                0 => raw,
                _ => value,
            };
            let alarm = Alarm {
                hour: pick(0, raw[0], format.encode_hour((goal / 3600) as u8)),
                minute: pick(1, raw[1], format.encode((goal / 60 % 60) as u8)),
                second: pick(2, raw[2], format.encode((goal % 60) as u8)),
            };
            let expected = (1..=86_400).find(|after| {
                let time = (start + after) % 86_400;
                matches(alarm.hour, format.encode_hour((time / 3600) as u8))
                    && matches(alarm.minute, format.encode((time / 60 % 60) as u8))
                    && matches(alarm.second, format.encode((time % 60) as u8))
            });
            prop_assert_eq!(alarm.next_after(start, format), expected);
        }
    }
}

//! The time of day as the MC146818 keeps it.

use core::fmt;

/// The clock's registers, as read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Registers {
    /// Registers 0, 2, 4: seconds, minutes, hours.
    pub time: [u8; 3],
    /// Registers 7, 8, 9: day of the month, month, year of the century.
    pub date: [u8; 3],
    /// Register 0x32 of the usual PC: the century.
    pub century: u8,
    /// Register B: whether numbers are binary, and hours go to 24.
    pub mode: u8,
}

/// A date and time of day.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DateTime {
    /// Year, with its century.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
const AFTERNOON: u8 = 1 << 7;

impl Registers {
    fn number(&self, value: u8) -> Option<u8> {
        if self.mode & BINARY != 0 {
            Some(value)
        } else {
            let (tens, ones) = (value >> 4, value & 15);
            (tens < 10 && ones < 10).then_some(tens * 10 + ones)
        }
    }

    /// Makes sense of the registers; `None` if there is none in them.
    #[must_use]
    pub fn decode(&self) -> Option<DateTime> {
        let [second, minute, hour] = self.time;
        let hour = if self.mode & HOURS_24 != 0 {
            self.number(hour)?
        } else {
            let twelve = self.number(hour & !AFTERNOON)?;
            if !(1..=12).contains(&twelve) {
                return None;
            }
            twelve % 12 + if hour & AFTERNOON != 0 { 12 } else { 0 }
        };
        let [day, month, year] = self.date;
        // A board without a century register has some other number there.
        let century = self
            .number(self.century)
            .filter(|century| (19..=21).contains(century))
            .unwrap_or(20);
        let date = DateTime {
            year: u16::from(century) * 100 + u16::from(self.number(year)?),
            month: self.number(month)?,
            day: self.number(day)?,
            hour,
            minute: self.number(minute)?,
            second: self.number(second)?,
        };
        let right = (1..=12).contains(&date.month)
            && (1..=31).contains(&date.day)
            && date.hour < 24
            && date.minute < 60
            && date.second < 60;
        right.then_some(date)
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self;
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Registers;

    #[test]
    fn all_formats() {
        let show = |time, date, century, mode| {
            Registers {
                time,
                date,
                century,
                mode,
            }
            .decode()
            .map(|date| date.to_string())
        };
        let expected = Some("2001-09-09 13:46:40".to_owned());
        assert_eq!(
            show([0x40, 0x46, 0x13], [0x09, 0x09, 0x01], 0x20, 2),
            expected
        );
        assert_eq!(show([40, 46, 13], [9, 9, 1], 20, 6), expected);
        assert_eq!(
            show([0x40, 0x46, 0x81], [0x09, 0x09, 0x01], 0x20, 0),
            expected
        );
        assert_eq!(show([40, 46, 0x81], [9, 9, 1], 0xff, 4), expected);
        assert_eq!(
            show([0, 0, 0x92], [1, 1, 0x99], 0x19, 0),
            Some("1999-01-01 12:00:00".to_owned())
        );
        assert_eq!(
            show([0, 0, 0x12], [1, 1, 0x99], 0x19, 0),
            Some("1999-01-01 00:00:00".to_owned())
        );
        assert_eq!(show([0xff; 3], [0xff; 3], 0xff, 0xff), None);
        assert_eq!(show([0x60, 0, 0], [1, 1, 1], 0x20, 2), None);
        assert_eq!(show([0, 0, 0], [0, 0, 0], 0, 0), None);
    }
}

//! The Gregorian calendar of the clock chip: years 0 to 9999.

/// Seconds in a day.
pub(super) const DAY: u64 = 86_400;

/// Days in 400 years, after which the calendar repeats.
const DAYS_400_YEARS: u64 = 146_097;

/// Days from 0000-01-01 to 1970-01-01.
const UNIX_EPOCH: u64 = 719_528;

/// Days from 0000-01-01 to 10000-01-01.
const DAYS_10_000_YEARS: u64 = 25 * DAYS_400_YEARS;

/// A moment, as clock and calendar show it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    /// 0 to 9999.
    pub(super) year: u16,
    /// 1 to 12.
    pub(super) month: u8,
    /// 1 to 31.
    pub(super) day: u8,
    /// 0 to 23.
    pub(super) hour: u8,
    /// 0 to 59.
    pub(super) minute: u8,
    /// 0 to 59.
    pub(super) second: u8,
}

/// Whether `year` has a 29th of February.
const fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Days in `month` (1 to 12).
const fn month_days(year: u64, month: u8) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 0000-01-01 to the first day of `year`.
const fn days_before(year: u64) -> u64 {
    match year {
        0 => 0,
        _ => {
            // Year 0 is a leap year, so the multiples below `year` include 0.
            let last = year - 1;
            365 * year + 1 + last / 4 - last / 100 + last / 400
        }
    }
}

impl Moment {
    /// The moment at `seconds` since 1970-01-01 00:00:00; after 9999 the calendar starts over.
    pub(super) const fn from_unix(seconds: u64) -> Self {
        Self::from_seconds((UNIX_EPOCH + seconds / DAY) % DAYS_10_000_YEARS * DAY + seconds % DAY)
    }

    /// The moment at `seconds` since 0000-01-01 00:00:00; after 9999 the calendar starts over.
    pub(super) const fn from_seconds(seconds: u64) -> Self {
        let mut day = seconds / DAY % DAYS_10_000_YEARS;
        // A guess that is never late, and early by no more than a year or so.
        let mut year = day / 366;
        while days_before(year + 1) <= day {
            year += 1;
        }
        day -= days_before(year);
        let mut month = 1;
        while day >= month_days(year, month) {
            day -= month_days(year, month);
            month += 1;
        }
        let time = seconds % DAY;
        Self {
            year: year as u16,
            month,
            day: day as u8 + 1,
            hour: (time / 3600) as u8,
            minute: (time / 60 % 60) as u8,
            second: (time % 60) as u8,
        }
    }

    /// Seconds since 0000-01-01 00:00:00. A day beyond its month counts on into the next one.
    pub(super) fn seconds(&self) -> u64 {
        let year = u64::from(self.year);
        let mut days = days_before(year);
        for month in 1..self.month {
            days += month_days(year, month);
        }
        days += u64::from(self.day.saturating_sub(1));
        days * DAY + u64::from(self.second_of_day())
    }

    /// Seconds since midnight.
    pub(super) fn second_of_day(&self) -> u32 {
        u32::from(self.hour) * 3600 + u32::from(self.minute) * 60 + u32::from(self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moment(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Moment {
        Moment {
            year,
            month,
            day,
            hour,
            minute,
            second,
        }
    }

    #[test]
    fn known_moments() {
        assert_eq!(Moment::from_unix(0), moment(1970, 1, 1, 0, 0, 0));
        assert_eq!(Moment::from_unix(951_782_400), moment(2000, 2, 29, 0, 0, 0));
        assert_eq!(
            Moment::from_unix(1_000_000_000),
            moment(2001, 9, 9, 1, 46, 40)
        );
        assert_eq!(
            Moment::from_unix(4_107_542_399),
            moment(2100, 2, 28, 23, 59, 59)
        );
        assert_eq!(
            Moment::from_unix(4_107_542_400),
            moment(2100, 3, 1, 0, 0, 0)
        );
        let _ = Moment::from_unix(u64::MAX);
    }

    #[test]
    fn the_calendar_starts_over_after_9999() {
        let end = moment(9999, 12, 31, 23, 59, 59).seconds();
        assert_eq!(Moment::from_seconds(end), moment(9999, 12, 31, 23, 59, 59));
        assert_eq!(Moment::from_seconds(end + 1), moment(0, 1, 1, 0, 0, 0));
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut expected = (0u16, 1u8, 1u8);
        for day in 0..DAYS_10_000_YEARS {
            let now = Moment::from_seconds(day * DAY);
            assert_eq!((now.year, now.month, now.day), expected);
            let (year, month, date) = expected;
            expected = if u64::from(date) < month_days(u64::from(year), month) {
                (year, month, date + 1)
            } else if month < 12 {
                (year, month + 1, 1)
            } else {
                (year + 1, 1, 1)
            };
        }
    }

    proptest! {
        #[test]
        fn seconds_and_moments_are_inverse(seconds in 0..DAYS_10_000_YEARS * DAY) {
            prop_assert_eq!(Moment::from_seconds(seconds).seconds(), seconds);
        }

        #[test]
        fn moments_are_ordered_as_seconds(a in 0..DAYS_10_000_YEARS * DAY, b in 0..DAYS_10_000_YEARS * DAY) {
            prop_assert_eq!(Moment::from_seconds(a).cmp(&Moment::from_seconds(b)), a.cmp(&b));
        }
    }
}

//! Where a guest's time begins, on the board's clock.

use devices::Ticks;

/// The board's TSC at guest time zero. That lies before the board's own start where the guest came from another board: then
/// it is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin(pub(super) i64);

impl Origin {
    /// Where guest time is `time` when the board's TSC is `tsc`.
    pub(super) const fn of(time: Ticks, tsc: u64) -> Self {
        Self(tsc.wrapping_sub(time.0).cast_signed())
    }

    /// Guest time at a TSC value of the board; zero before it began.
    #[inline(always)]
    pub(super) const fn time(self, tsc: u64) -> Ticks {
        let time = tsc.wrapping_sub(self.0.cast_unsigned());
        if time.cast_signed() < 0 {
            return Ticks(0);
        }
        Ticks(time)
    }

    /// The board's TSC at a guest time; [`u64::MAX`] for what never comes, zero for what was before the board's start.
    #[inline(always)]
    pub(super) const fn tsc(self, time: Ticks) -> u64 {
        // Half of what a counter can show is a lifetime away.
        if time.0.cast_signed() < 0 {
            return u64::MAX;
        }
        let tsc = self.0.saturating_add(time.0.cast_signed());
        if tsc < 0 { 0 } else { tsc.cast_unsigned() }
    }

    /// What is added to the board's TSC to get guest time.
    pub(super) const fn offset(self) -> u64 {
        self.0.cast_unsigned().wrapping_neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_was_started_here_has_its_time_from_then_on() {
        let origin = Origin::of(Ticks(0), 1000);
        assert_eq!(origin.time(1500), Ticks(500));
        assert_eq!(origin.time(999), Ticks(0));
        assert_eq!(origin.tsc(Ticks(500)), 1500);
        assert_eq!(origin.tsc(Ticks::NEVER), u64::MAX);
        assert_eq!(1500_u64.wrapping_add(origin.offset()), 500);
    }

    #[test]
    fn a_guest_can_be_older_than_the_board() {
        let origin = Origin::of(Ticks(70_000), 1000);
        assert_eq!(origin.0, -69_000);
        assert_eq!(origin.time(1000), Ticks(70_000));
        assert_eq!(origin.time(0), Ticks(69_000));
        assert_eq!(origin.tsc(Ticks(70_001)), 1001);
        assert_eq!(origin.tsc(Ticks(68_000)), 0);
        assert_eq!(origin.tsc(Ticks::NEVER), u64::MAX);
        assert_eq!(1000_u64.wrapping_add(origin.offset()), 70_000);
    }
}

//! The right to release outputs, and how long it lasts.

use core::time::Duration;

use crate::Instant;

/// What may leave the guests. It closes by the clock: a board that was frozen and thaws finds it closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// Nothing.
    Closed,
    /// What the backup has acknowledged, until a moment.
    Until(Instant),
    /// Everything at once: there is no backup that could take over.
    Open,
}

impl Gate {
    /// Whether something may leave at a time.
    #[must_use]
    pub fn open(self, now: Instant) -> bool {
        match self {
            Self::Closed => false,
            Self::Until(end) => now < end,
            Self::Open => true,
        }
    }
}

/// A primary's lease. It runs from the time at which the heartbeat was made that the backup last echoed: at that time the
/// backup had not yet begun to count the silence after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    length: Duration,
    /// Heartbeats before this do not count any more.
    from: Instant,
    /// The newest one echoed; none if none was.
    echo: Option<Instant>,
}

impl Lease {
    /// One that is over.
    pub(crate) const fn new(length: Duration) -> Self {
        Self {
            length,
            from: Instant(0),
            echo: None,
        }
    }

    /// Renews it by the echo of a heartbeat made at `echo`. What was not sent yet is not believed.
    pub(crate) fn renew(&mut self, echo: Instant, now: Instant) {
        if echo >= self.from && echo <= now && self.echo < Some(echo) {
            self.echo = Some(echo);
        }
    }

    /// Ends it: only echoes of heartbeats from `from` on count.
    pub(crate) fn end(&mut self, from: Instant) {
        self.from = self.from.max(from);
        self.echo = None;
    }

    /// When it is over; 0 if it never began.
    pub(crate) fn end_of(&self) -> Instant {
        self.echo.map_or(Instant(0), |echo| echo + self.length)
    }

    /// Whether it holds.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        now < self.end_of()
    }
}

#[cfg(test)]
impl Lease {
    /// Itself, with its times as somebody sees them.
    pub(crate) fn seen(self, at: impl Fn(Instant) -> Instant) -> Self {
        Self {
            from: at(self.from),
            echo: self.echo.map(at),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_nanos(10);

    #[test]
    fn it_runs_from_what_was_echoed_not_from_when_that_was_heard() {
        let mut lease = Lease::new(LENGTH);
        assert!(!lease.holds(Instant(0)));
        lease.renew(Instant(5), Instant(12));
        assert!(lease.holds(Instant(14)) && !lease.holds(Instant(15)));
        // Echoes that come late take nothing back, and those of what was never sent are not believed.
        lease.renew(Instant(4), Instant(13));
        lease.renew(Instant(14), Instant(13));
        assert_eq!(lease.end_of(), Instant(15));
    }

    #[test]
    fn an_ended_one_is_renewed_by_later_heartbeats_only() {
        let mut lease = Lease::new(LENGTH);
        lease.renew(Instant(5), Instant(5));
        lease.end(Instant(8));
        lease.renew(Instant(7), Instant(9));
        assert!(!lease.holds(Instant(9)));
        lease.renew(Instant(8), Instant(9));
        assert_eq!(lease.end_of(), Instant(18));
    }

    #[test]
    fn gates_close_by_themselves() {
        assert!(Gate::Open.open(Instant(u64::MAX)) && !Gate::Closed.open(Instant(0)));
        let gate = Gate::Until(Instant(7));
        assert!(gate.open(Instant(6)) && !gate.open(Instant(7)));
    }
}

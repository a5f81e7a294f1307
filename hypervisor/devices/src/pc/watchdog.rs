//! The watchdog's place on the board.

use super::{Effects, Pc};
use crate::pci::Pci;
use crate::time::Ticks;
use crate::watchdog::Watchdog;

impl Pc {
    fn watchdog(&self) -> Option<&Watchdog> {
        self.pci.as_ref().and_then(Pci::watchdog)
    }

    fn watchdog_mut(&mut self) -> Option<&mut Watchdog> {
        self.pci.as_mut().and_then(Pci::watchdog_mut)
    }

    /// Whether the watchdog, if there is one, has run out, and no driver has cleared its flag of that.
    #[must_use]
    pub fn watchdog_timed_out(&self) -> bool {
        self.watchdog().is_some_and(Watchdog::timed_out)
    }

    /// The guest, which did not run for a while, runs again from `now` on: its watchdog waits anew for what it could not do.
    pub fn excuse_absence(&mut self, now: Ticks) {
        if let Some(watchdog) = self.watchdog_mut() {
            watchdog.feed(now);
            self.settle_watchdog();
        }
    }

    /// The watchdog's next event.
    pub(super) fn watchdog_event(&self) -> Ticks {
        self.watchdog().map_or(Ticks::NEVER, Watchdog::next_event)
    }

    /// Brings the watchdog up to `now`.
    pub(super) fn sync_watchdog(&mut self, now: Ticks) {
        if let Some(watchdog) = self.watchdog_mut() {
            watchdog.sync(now);
            self.watchdog_next = watchdog.next_event();
            self.settle_lines();
        }
    }

    /// After an access that may have been to the watchdog.
    pub(super) fn settle_watchdog(&mut self) {
        let next = self.watchdog_event();
        if next != self.watchdog_next {
            self.watchdog_next = next;
            self.rearm();
        }
    }

    /// Tells the world if the watchdog has run out.
    pub(super) fn tell_of_watchdog(&mut self, effects: &mut impl Effects) {
        if self.watchdog_mut().is_some_and(Watchdog::take_failure) {
            effects.watchdog_expired();
            self.settle_watchdog();
        }
    }
}

//! The inputs at which cards' interrupt pins arrive, which other devices of the board may share.

use crate::host::Interrupts;
use core::sync::atomic::{AtomicU32, Ordering};
use spin::Mutex;

/// Interrupts in a row that no card claims before something else must be behind them. A card's own may be claimed with the one
/// before, but not so many.
const UNCLAIMED_MAX: u32 = 64;

/// Inputs that are routed to the tender.
pub(super) struct Pins {
    interrupts: Mutex<Interrupts>,
    /// Interrupts since one was a card's.
    unclaimed: AtomicU32,
}

impl Pins {
    pub(super) fn new(interrupts: Interrupts) -> Self {
        Self {
            interrupts: Mutex::new(interrupts),
            unclaimed: AtomicU32::new(0),
        }
    }

    /// An interrupt came, which was a card's or not. Returns whether, just now, too many were not.
    pub(super) fn note(&self, claimed: bool) -> bool {
        if claimed {
            self.unclaimed.store(0, Ordering::Relaxed);
            return false;
        }
        // One processor takes all of them.
        self.unclaimed.fetch_add(1, Ordering::Relaxed) + 1 == UNCLAIMED_MAX
    }

    /// Keeps the interrupts at an input away for good.
    pub(super) fn mask(&self, input: u32) {
        self.interrupts.lock().mask(input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn interrupts_that_are_nobodys_are_borne_for_a_while() {
        let pins = Pins::new(Interrupts::new(Vec::new(), Vec::new()));
        let unclaimed = |count| (0..count).filter(|_| pins.note(false)).count();
        assert_eq!(unclaimed(UNCLAIMED_MAX - 1), 0);
        assert!(!pins.note(true));
        assert_eq!(unclaimed(UNCLAIMED_MAX - 1), 0);
        assert!(pins.note(false));
        // That is told once.
        assert_eq!(unclaimed(UNCLAIMED_MAX), 0);
    }
}

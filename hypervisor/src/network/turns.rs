//! When the tender takes a turn, and how long that lasts.

use super::Turn;
use crate::cpu;
use crate::guest::{TIMER_QUIET, WORK_NEAR};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use drivers::tsc;

/// Microseconds for which received frames are taken in one go, before guests run again.
const TURN_MICROSECONDS: u64 = 4;
/// TSC ticks of such a go at least: as many as guests get before the next one.
const TURN_TICKS: u64 = cpu::PROGRESS;
/// Microseconds for which guests run between two such goes.
const PAUSE_MICROSECONDS: u64 = 10;

/// When a turn stops, in the board's TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// From here on, no part of the work does more than finish what it has begun.
    pub(super) until: u64,
    /// From here on, no other part begins.
    pub(super) last: u64,
}

/// The tender's turns. Times are the board's TSC.
pub(super) struct Turns {
    /// There is something for the tender.
    waits: AtomicBool,
    /// The last turn left something.
    left: AtomicBool,
    /// When the tender looks although nobody asked it to.
    next_look: AtomicU64,
    /// Until when a turn is put off that was due; 0 if none is.
    put_off: AtomicU64,
    /// Ticks of a turn, and of the pause behind it.
    turn: u64,
    pause: u64,
}

impl Turns {
    pub(super) const fn new(ticks_per_microsecond: u64) -> Self {
        let turn = TURN_MICROSECONDS * ticks_per_microsecond;
        Self {
            waits: AtomicBool::new(true),
            left: AtomicBool::new(false),
            next_look: AtomicU64::new(0),
            put_off: AtomicU64::new(0),
            turn: if turn > TURN_TICKS { turn } else { TURN_TICKS },
            pause: PAUSE_MICROSECONDS * ticks_per_microsecond,
        }
    }

    /// There is something for the tender. Returns whether it is to be told: who knows already, looks.
    pub(super) fn want(&self) -> bool {
        !self.waits.swap(true, Ordering::AcqRel)
    }

    /// Whether a turn is due.
    #[inline]
    pub(super) fn are_due(&self, now: u64) -> bool {
        self.waits.load(Ordering::Acquire) || now >= self.next_look()
    }

    /// When the tender must look at the latest.
    #[inline]
    pub(super) fn next_look(&self) -> u64 {
        self.next_look.load(Ordering::Relaxed)
    }

    /// Whether the tender is to go on at once with what the last turn left; then a turn is due.
    pub(super) fn hurry(&self) -> bool {
        let left = self.left.swap(false, Ordering::Relaxed);
        if left {
            self.waits.store(true, Ordering::Relaxed);
        }
        left
    }

    /// Begins a turn that is due; `None` if it is put off, for one of these timers. That is done once and not again, so that no timer
    /// keeps the tender from its work.
    pub(super) fn begin(&self, now: u64, timers: impl Iterator<Item = u64>) -> Option<Limits> {
        let put_off = self.put_off.load(Ordering::Relaxed);
        if now < put_off {
            return None;
        }
        let last = match before_timers(now, timers) {
            Ok(last) => last,
            Err(later) if put_off == 0 => {
                self.put_off.store(later, Ordering::Relaxed);
                self.next_look.store(later, Ordering::Relaxed);
                return None;
            }
            Err(_) => now + self.turn,
        };
        self.put_off.store(0, Ordering::Relaxed);
        self.waits.store(false, Ordering::Release);
        let until = last.min(now + self.turn);
        Some(Limits { until, last })
    }

    /// Ends a turn.
    pub(super) fn end(&self, turn: Turn) {
        self.left.store(turn.more, Ordering::Relaxed);
        let next = if turn.more {
            tsc::read() + self.pause
        } else {
            turn.next
        };
        self.next_look.store(next, Ordering::Relaxed);
    }
}

/// Until when a turn that begins now may begin parts of its work, for each to be done before the next of these timers. Where one is about due,
/// late, or just being seen to, the turn is to come later: the error says when.
fn before_timers(now: u64, timers: impl Iterator<Item = u64>) -> Result<u64, u64> {
    let mut last = u64::MAX;
    let mut later = None;
    for at in timers {
        if at > now + WORK_NEAR {
            last = last.min(at - WORK_NEAR);
        } else {
            let seen_to = if at + TIMER_QUIET > now { at } else { now } + TIMER_QUIET;
            later = later.max(Some(seen_to));
        }
    }
    later.map_or(Ok(last), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn turns_stay_away_from_timers() {
        const TIMER: u64 = 1_000_000;
        let plan = |now| before_timers(now, [TIMER, 3 * TIMER].into_iter());
        let around = TIMER - WORK_NEAR..TIMER + TIMER_QUIET;
        for now in [0, around.start - 1] {
            assert_eq!(plan(now), Ok(around.start));
        }
        for now in [around.start, TIMER - 1, TIMER, around.end - 1] {
            assert_eq!(plan(now), Err(around.end));
        }
        assert_eq!(plan(around.end), Err(around.end + TIMER_QUIET));
        assert_eq!(before_timers(TIMER, core::iter::empty()), Ok(u64::MAX));
    }

    #[test]
    fn a_turn_is_put_off_once() {
        const TIMER: u64 = 1_000_000;
        let turns = Turns::new(50);
        let begin = |now| turns.begin(now, core::iter::once(now + 1));
        assert_eq!(begin(TIMER), None);
        let later = turns.next_look();
        assert_eq!(later, TIMER + 1 + TIMER_QUIET);
        assert_eq!(begin(later - 1), None);
        let until = later + TURN_TICKS;
        let limits = Limits { until, last: until };
        assert_eq!(begin(later), Some(limits));
        assert_eq!(begin(until), None);
    }

    proptest! {
        /// However timers fall, a turn can begin something, and is put off for no longer than the time around one.
        #[test]
        fn turns_are_neither_empty_nor_far(
            now in 20_000u64..1 << 40,
            near in prop::collection::vec(-20_000i64..20_000, 0..4),
        ) {
            let timers = near.iter().map(|at| now.saturating_add_signed(*at));
            match before_timers(now, timers) {
                Ok(last) => prop_assert!(last > now),
                Err(later) => prop_assert!(later > now && later - now <= WORK_NEAR + TIMER_QUIET),
            }
        }
    }
}

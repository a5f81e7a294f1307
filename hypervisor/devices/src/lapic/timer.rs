//! The timer of a local APIC (SDM 11.5.4).
//!
//! Its clock is the guest's TSC divided by [`TICKS_PER_CYCLE`], so every count is an exact number of ticks whatever the
//! TSC's frequency. IA32_TSC_DEADLINE is compared with guest time, so where a guest's TSC differs from that (it wrote to
//! it), whoever passes the MSR on converts it. Nothing is stepped: the timer is a deadline, from which the count follows.

use super::lvt::TimerMode;
use crate::time::Ticks;

/// TSC ticks in a cycle of the APIC's clock. A guest that believes CPUID leaf 15H must read this ratio there (EBX over
/// EAX), and the clock's frequency (ECX).
pub const TICKS_PER_CYCLE: u64 = 8;

/// The writable bits of the divide configuration register.
pub(super) const DIVIDE_BITS: u8 = 0x0B;

/// The timer's counter and its deadline.
#[derive(Clone, Debug)]
pub(super) struct Timer {
    /// Divide configuration register.
    pub(super) divide: u8,
    /// Initial count register.
    pub(super) initial: u32,
    /// When the count reaches 0 or the TSC the deadline; [`Ticks::NEVER`] when stopped.
    pub(super) deadline: Ticks,
    /// Periods that ended together with another.
    pub(super) missed: u64,
}

impl Timer {
    pub(super) const fn new() -> Self {
        Self {
            divide: 0,
            initial: 0,
            deadline: Ticks::NEVER,
            missed: 0,
        }
    }

    /// The power of two of ticks that a count lasts (SDM figure 11-10): 111 divides by 1, the others by 2 and up.
    const fn shift(&self) -> u32 {
        let code = (self.divide & 3) | (self.divide >> 1 & 4);
        TICKS_PER_CYCLE.ilog2() + (code as u32 + 1) % 8
    }

    /// Starts to count from `count` at `now`; 0 stops.
    fn count_from(&mut self, count: u32, now: Ticks) {
        self.deadline = if count == 0 {
            Ticks::NEVER
        } else {
            Ticks(now.0.saturating_add(u64::from(count) << self.shift()))
        };
    }

    /// A write to the initial count register.
    pub(super) fn start(&mut self, count: u32, now: Ticks) {
        self.initial = count;
        self.count_from(count, now);
    }

    /// The current count, once what was due by `now` has been let happen. 0 in TSC-deadline mode, where the initial
    /// count is 0.
    pub(super) fn count(&self, now: Ticks) -> u32 {
        if self.deadline == Ticks::NEVER {
            return 0;
        }
        let left = self.deadline.0.saturating_sub(now.0);
        let counts = left.div_ceil(1 << self.shift());
        counts.min(u64::from(self.initial)) as u32
    }

    /// A write to the divide configuration register: what is left of the count goes on at the new pace.
    pub(super) fn set_divide(&mut self, divide: u8, mode: TimerMode, now: Ticks) {
        let divide = divide & DIVIDE_BITS;
        if divide == self.divide {
            return;
        }
        let left = self.count(now);
        self.divide = divide;
        if mode.counts() {
            self.count_from(left, now);
        }
    }

    /// The timer's mode is changed. To and from TSC-deadline mode, that disarms it.
    pub(super) fn change_mode(&mut self, from: TimerMode, to: TimerMode) {
        if from != to && !(from.counts() && to.counts()) {
            self.initial = 0;
            self.deadline = Ticks::NEVER;
        }
    }

    /// The timer is due: makes it wait for its next period, if it has one.
    pub(super) fn expire(&mut self, mode: TimerMode, now: Ticks) {
        if mode != TimerMode::Periodic {
            self.deadline = Ticks::NEVER;
            return;
        }
        let period = (u64::from(self.initial) << self.shift()).max(1);
        let late = now.0.saturating_sub(self.deadline.0);
        let missed = late / period;
        self.missed = self.missed.saturating_add(missed);
        // The end of the last period that has begun, which is after `now`.
        self.deadline = Ticks(now.0.saturating_add(period - late % period));
    }
}

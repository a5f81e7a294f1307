//! A processor's own timer, its local APIC's, set by the TSC.

use crate::cpu::vector;
use drivers::local_apic::LocalApic;
use drivers::tsc;
use vcpu::DeadlineTimer;

/// The timer of the processor that uses it.
pub(crate) struct Timer {
    apic: LocalApic,
    /// Timer ticks per 2^32 TSC ticks, where the timer takes no TSC deadlines.
    ratio: u64,
}

impl Timer {
    /// This processor's timer, measured if need be: that takes a hundredth of a second.
    pub(crate) fn new(apic: LocalApic, tsc_hz: u64) -> Self {
        let mut ratio = 0;
        if !apic.has_deadline_mode() {
            let hundredth = tsc_hz / 100;
            let ticks = apic.timer_ticks_during(hundredth);
            ratio = (u64::from(ticks) << 32) / hundredth.max(1);
        }
        Self { apic, ratio }
    }
}

impl DeadlineTimer for Timer {
    fn arm(&self, at: u64) {
        if self.apic.has_deadline_mode() {
            self.apic.arm_deadline(vector::TIMER, at);
            return;
        }
        let left = at.saturating_sub(tsc::read());
        let ticks = (u128::from(left) * u128::from(self.ratio)) >> 32;
        // Early is fine (who waits looks again), and beyond 32 bits is early.
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        self.apic.arm_one_shot(vector::TIMER, ticks);
    }

    fn disarm(&self) {
        self.apic.disarm();
    }
}

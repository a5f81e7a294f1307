//! The interval timer of a PC: an 8254 at 1.193182 MHz, with the gate and speaker bits of port 0x61.
//!
//! Sources: Intel 8254 data sheet (231164), IBM PC AT technical reference for port 0x61.
//!
//! Nothing is stepped: a counter knows its state at some clock cycle and computes any later one. Counter 0's output
//! is the timer interrupt; the gates of counters 0 and 1 are tied high, that of counter 2 is a bit of port 0x61.

mod control;
mod counter;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::pc::StateError;
use crate::time::{Rate, Ticks};
pub use control::{Access, Mode};
use counter::Counter;
pub use counter::CounterStateV1;

/// The timer's input clock in Hz: a third of the colour burst's four, 14.31818 MHz / 12.
pub const CLOCK_HZ: u64 = 1_193_182;

/// Clock cycles between memory refreshes (15.085 us); each toggles bit 4 of port 0x61.
const REFRESH_CYCLES: u64 = 18;

bitflags! {
    /// System control port B, 0x61.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct PortB: u8 {
        /// Gate of counter 2.
        const GATE = 1 << 0;
        /// Speaker data. There is no speaker.
        const SPEAKER = 1 << 1;
        /// Parity check disable: storage only.
        const PARITY_OFF = 1 << 2;
        /// I/O channel check disable: storage only.
        const CHECK_OFF = 1 << 3;
        /// Toggles with each memory refresh; read only.
        const REFRESH = 1 << 4;
        /// Output of counter 2; read only.
        const OUT = 1 << 5;

        /// The bits that a write sets.
        const WRITABLE = Self::GATE.bits()
            | Self::SPEAKER.bits()
            | Self::PARITY_OFF.bits()
            | Self::CHECK_OFF.bits();
    }

    /// Read-back command: the control port with both counter select bits set.
    #[derive(Copy, Clone, Debug)]
    struct ReadBack: u8 {
        /// Counter 0 is meant; the two bits above stand for counters 1 and 2.
        const COUNTER_0 = 1 << 1;
        /// Do not latch the status.
        const NO_STATUS = 1 << 4;
        /// Do not latch the count.
        const NO_COUNT = 1 << 5;
    }
}

/// The saved state of the timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PitStateV1 {
    /// The three counters.
    pub counters: [CounterStateV1; 3],
    /// The writable bits of port 0x61.
    pub port_b: u8,
    /// Periods of counter 0 that passed unseen, see [`Pit::missed`].
    pub missed: u64,
}

/// An 8254 with port 0x61.
#[derive(Clone, Debug)]
pub struct Pit {
    rate: Rate,
    counters: [Counter; 3],
    port_b: PortB,
    missed: u64,
}

impl Pit {
    /// The timer as a PC's firmware leaves it: counter 0 gives 18.2 square waves a second, counter 1 refreshes memory,
    /// counter 2 waits for its gate.
    #[must_use]
    pub fn new(tsc_hz: u64, now: Ticks) -> Self {
        let rate = Rate::new(CLOCK_HZ, tsc_hz);
        let cycle = rate.count(now);
        Self {
            rate,
            counters: [
                Counter::programmed(Mode::SquareWave, Access::Both, 0, true, cycle),
                Counter::programmed(Mode::RateGenerator, Access::Low, 18, true, cycle),
                Counter::programmed(Mode::SquareWave, Access::Both, 0, false, cycle),
            ],
            port_b: PortB::empty(),
            missed: 0,
        }
    }

    /// The clock cycle at `now`.
    #[inline]
    fn cycle(&self, now: Ticks) -> u64 {
        self.rate.count(now)
    }

    /// Brings counter 0 up to `now`; returns whether its output rose since it was last looked at.
    pub fn sync(&mut self, now: Ticks) -> bool {
        let cycle = self.cycle(now);
        let rises = self.counters[0].sync(cycle);
        self.missed = self.missed.saturating_add(rises.saturating_sub(1));
        rises > 0
    }

    /// Rises of counter 0's output that came too soon after another to be told apart by whoever calls
    /// [`sync`](Self::sync): timer ticks that the guest did not get.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Counter 0's output when last looked at.
    #[inline]
    #[must_use]
    pub fn output(&self) -> bool {
        self.counters[0].output()
    }

    /// When counter 0's output rises next.
    #[must_use]
    pub fn next_rise(&self) -> Ticks {
        match self.counters[0].next_rise() {
            Some(cycle) => self.rate.at(cycle),
            None => Ticks::NEVER,
        }
    }

    /// A read of counter `index` (0 to 2).
    pub fn read_counter(&mut self, index: u8, now: Ticks) -> u8 {
        let cycle = self.cycle(now);
        match self.counters.get_mut(usize::from(index)) {
            Some(counter) => {
                counter.sync(cycle);
                counter.read()
            }
            None => 0xFF,
        }
    }

    /// A write to counter `index` (0 to 2).
    pub fn write_counter(&mut self, index: u8, value: u8, now: Ticks) {
        let cycle = self.cycle(now);
        if let Some(counter) = self.counters.get_mut(usize::from(index)) {
            counter.sync(cycle);
            counter.write(value);
        }
    }

    /// A write to the control port; returns whether it programs counter 0.
    pub fn write_control(&mut self, value: u8, now: Ticks) -> bool {
        let cycle = self.cycle(now);
        let selected = usize::from(value >> 6);
        if let Some(counter) = self.counters.get_mut(selected) {
            counter.sync(cycle);
            let Some(access) = Access::decode(value) else {
                counter.latch_count();
                return false;
            };
            counter.control(Mode::decode(value), access, value & 1 != 0);
            return selected == 0;
        }
        let command = ReadBack::from_bits_truncate(value);
        for (index, counter) in self.counters.iter_mut().enumerate() {
            if value & (ReadBack::COUNTER_0.bits() << index) == 0 {
                continue;
            }
            counter.sync(cycle);
            if !command.contains(ReadBack::NO_COUNT) {
                counter.latch_count();
            }
            if !command.contains(ReadBack::NO_STATUS) {
                counter.latch_status();
            }
        }
        false
    }

    /// A read of port 0x61.
    pub fn read_port_b(&mut self, now: Ticks) -> u8 {
        let cycle = self.cycle(now);
        let mut value = self.port_b;
        value.set(PortB::REFRESH, (cycle / REFRESH_CYCLES) & 1 != 0);
        self.counters[2].sync(cycle);
        value.set(PortB::OUT, self.counters[2].output());
        value.bits()
    }

    /// A write to port 0x61.
    pub fn write_port_b(&mut self, value: u8, now: Ticks) {
        let cycle = self.cycle(now);
        self.port_b = PortB::from_bits_truncate(value) & PortB::WRITABLE;
        self.counters[2].sync(cycle);
        self.counters[2].set_gate(self.port_b.contains(PortB::GATE));
    }

    /// The timer's state.
    #[must_use]
    pub fn save(&self) -> PitStateV1 {
        PitStateV1 {
            counters: self.counters.each_ref().map(Counter::save),
            port_b: self.port_b.bits(),
            missed: self.missed,
        }
    }

    /// The timer in a saved state.
    ///
    /// # Errors
    ///
    /// [`StateError::Invalid`] for a state that the timer cannot be in.
    pub fn restore(tsc_hz: u64, state: &PitStateV1) -> Result<Self, StateError> {
        let port_b = PortB::from_bits(state.port_b)
            .filter(|bits| PortB::WRITABLE.contains(*bits))
            .ok_or(StateError::Invalid("8254: port 0x61"))?;
        let [zero, one, two] = &state.counters;
        Ok(Self {
            rate: Rate::new(CLOCK_HZ, tsc_hz),
            counters: [
                Counter::restore(zero, true)?,
                Counter::restore(one, true)?,
                Counter::restore(two, port_b.contains(PortB::GATE))?,
            ],
            port_b,
            missed: state.missed,
        })
    }
}

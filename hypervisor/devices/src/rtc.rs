//! The real-time clock and its battery-backed memory: a MC146818A at 32.768 kHz with 128 bytes.
//!
//! Source: Motorola MC146818A data sheet; the meaning of the memory bytes is that of the IBM PC AT.
//!
//! The clock is brought up to date when it is looked at. Only an enabled interrupt gives it a deadline, and a pending
//! one needs none. Daylight saving (DSE) is stored and has no effect; the square wave output does not exist.

mod calendar;
mod clock;
mod cmos;
#[cfg(test)]
mod tests;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::pc::StateError;
use crate::time::{Rate, Ticks};
use clock::{Alarm, Format, TimeRegisters};

/// The time base in Hz.
const CLOCK_HZ: u64 = 32_768;

/// Cycles from the start of UIP to the end of the update: 244 us of warning and 1984 us of update.
const UPDATE_CYCLES: u64 = 8 + 65;

/// Bytes of memory, clock registers included.
const MEMORY_SIZE: usize = 128;

/// Register A: UIP, the divider and the rate.
const UPDATE_IN_PROGRESS: u8 = 0x80;
const DIVIDER: u8 = 0x70;
/// The divider setting for a 32.768 kHz time base. The others hold the divider or are for faster crystals.
const DIVIDER_32_KHZ: u8 = 0x20;
const RATE: u8 = 0x0F;
/// What firmware leaves in register A: 32.768 kHz, 1024 Hz.
const REGISTER_A: u8 = DIVIDER_32_KHZ | 0x06;

/// Register D: valid RAM and time.
const VALID: u8 = 0x80;

/// Port 0x70: the index; the bit above it masks NMIs, of which a PC without parity errors has none.
const INDEX: u8 = 0x7F;

bitflags! {
    /// Register B.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Control: u8 {
        /// Daylight saving enable; no effect.
        const DSE = 1 << 0;
        /// Hours from 0 to 23.
        const HOURS_24 = 1 << 1;
        /// Binary rather than BCD.
        const BINARY = 1 << 2;
        /// Square wave enable; no effect.
        const SQWE = 1 << 3;
        /// Update-ended interrupt enable.
        const UIE = 1 << 4;
        /// Alarm interrupt enable.
        const AIE = 1 << 5;
        /// Periodic interrupt enable.
        const PIE = 1 << 6;
        /// Updates are inhibited.
        const SET = 1 << 7;
    }

    /// Register C; the bits stand where their enables stand in register B.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Flags: u8 {
        /// An update ended.
        const UF = 1 << 4;
        /// The alarm matched.
        const AF = 1 << 5;
        /// A period ended.
        const PF = 1 << 6;
        /// A flag is set whose interrupt is enabled; computed.
        const IRQF = 1 << 7;
    }
}

/// A register of the chip, or a byte of its memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Register {
    Second,
    SecondAlarm,
    Minute,
    MinuteAlarm,
    Hour,
    HourAlarm,
    Weekday,
    Day,
    Month,
    Year,
    A,
    B,
    C,
    D,
    Century,
    Memory(u8),
}

impl Register {
    const fn decode(index: u8) -> Self {
        match index {
            0x00 => Self::Second,
            0x01 => Self::SecondAlarm,
            0x02 => Self::Minute,
            0x03 => Self::MinuteAlarm,
            0x04 => Self::Hour,
            0x05 => Self::HourAlarm,
            0x06 => Self::Weekday,
            0x07 => Self::Day,
            0x08 => Self::Month,
            0x09 => Self::Year,
            0x0A => Self::A,
            0x0B => Self::B,
            0x0C => Self::C,
            0x0D => Self::D,
            0x32 => Self::Century,
            index => Self::Memory(index),
        }
    }
}

/// The saved state of the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtcStateV1 {
    /// Port 0x70.
    pub index: u8,
    /// Second, minute, hour, weekday, day, month, year and century, as they read.
    pub time: [u8; 8],
    /// Second, minute and hour of the alarm.
    pub alarm: [u8; 3],
    /// Register A without UIP.
    pub a: u8,
    /// Register B.
    pub b: u8,
    /// Register C without IRQF.
    pub c: u8,
    /// Cycles of a second that the divider was ahead of the time base at tick 0, 0 to 32767.
    pub phase: u16,
    /// The cycle of the time base at which the rest holds.
    pub cycle: u64,
    /// The 128 bytes of memory; those of clock registers are unused.
    pub memory: alloc::vec::Vec<u8>,
}

/// A MC146818A.
#[derive(Clone, Debug)]
pub struct Rtc {
    rate: Rate,
    index: u8,
    time: TimeRegisters,
    alarm: Alarm,
    a: u8,
    b: Control,
    c: Flags,
    phase: u64,
    cycle: u64,
    memory: [u8; MEMORY_SIZE],
}

impl Rtc {
    /// A clock that shows `wall_clock` (Unix seconds, UTC) at `now`, beside memory that describes a PC with
    /// `memory_bytes` of RAM.
    #[must_use]
    pub fn new(tsc_hz: u64, memory_bytes: u64, wall_clock: u64, now: Ticks) -> Self {
        let rate = Rate::new(CLOCK_HZ, tsc_hz);
        let cycle = rate.count(now);
        let b = Control::HOURS_24;
        Self {
            rate,
            index: 0,
            time: TimeRegisters::from_unix(wall_clock, format_of(b)),
            alarm: Alarm {
                second: 0,
                minute: 0,
                hour: 0,
            },
            a: REGISTER_A,
            b,
            c: Flags::empty(),
            phase: phase_at(cycle, 0),
            cycle,
            memory: cmos::contents(memory_bytes),
        }
    }

    /// The RESET pin: interrupts are off, time and memory stay.
    pub fn reset(&mut self, now: Ticks) {
        self.sync(now);
        self.b
            .remove(Control::PIE | Control::AIE | Control::UIE | Control::SQWE);
        self.c = Flags::empty();
    }

    fn format(&self) -> Format {
        format_of(self.b)
    }

    fn running(&self) -> bool {
        self.a & DIVIDER == DIVIDER_32_KHZ
    }

    fn updating(&self) -> bool {
        self.running() && !self.b.contains(Control::SET)
    }

    /// The length of a period as a power of two of cycles; `None` if there is no periodic rate.
    fn period_shift(&self) -> Option<u32> {
        match self.a & RATE {
            0 => None,
            // 256 Hz and 128 Hz, as 8 and 9.
            rate @ 1..=2 => Some(u32::from(rate) + 6),
            rate => Some(u32::from(rate) - 1),
        }
    }

    /// The IRQ output: whether a flag is set whose interrupt is enabled.
    #[inline]
    #[must_use]
    pub fn interrupt(&self) -> bool {
        let enables = (Control::PIE | Control::AIE | Control::UIE).bits();
        self.c.bits() & self.b.bits() & enables != 0
    }

    /// Brings the clock up to `now`.
    pub fn sync(&mut self, now: Ticks) {
        let cycle = self.rate.count(now).max(self.cycle);
        if !self.running() {
            self.cycle = cycle;
            return;
        }
        let from = self.cycle.saturating_add(self.phase);
        let to = cycle.saturating_add(self.phase);
        self.cycle = cycle;
        if self
            .period_shift()
            .is_some_and(|shift| to >> shift != from >> shift)
        {
            self.c.insert(Flags::PF);
        }
        let seconds = to / CLOCK_HZ - from / CLOCK_HZ;
        if seconds > 0 && !self.b.contains(Control::SET) {
            self.c.insert(Flags::UF);
            if self
                .seconds_to_alarm()
                .is_some_and(|after| u64::from(after) <= seconds)
            {
                self.c.insert(Flags::AF);
            }
            self.time.advance(seconds, self.format());
        }
    }

    fn seconds_to_alarm(&self) -> Option<u32> {
        let format = self.format();
        self.alarm
            .next_after(self.time.moment(format).second_of_day(), format)
    }

    /// When the IRQ output rises next, if nothing is written before.
    #[must_use]
    pub fn next_rise(&self) -> Ticks {
        if self.interrupt() || !self.running() {
            return Ticks::NEVER;
        }
        let from = self.cycle.saturating_add(self.phase);
        let second = from / CLOCK_HZ;
        let mut next = u64::MAX;
        if self.b.contains(Control::PIE)
            && let Some(shift) = self.period_shift()
        {
            next = ((from >> shift) + 1).saturating_mul(1 << shift);
        }
        if self.updating() {
            if self.b.contains(Control::UIE) {
                next = next.min((second + 1).saturating_mul(CLOCK_HZ));
            }
            if self.b.contains(Control::AIE)
                && let Some(after) = self.seconds_to_alarm()
            {
                next = next.min((second + u64::from(after)).saturating_mul(CLOCK_HZ));
            }
        }
        match next {
            u64::MAX => Ticks::NEVER,
            cycle => self.rate.at(cycle.saturating_sub(self.phase)),
        }
    }

    /// A write to port 0x70: the index, and in bit 7 the NMI mask. There is no NMI to mask.
    #[inline]
    pub fn select(&mut self, value: u8) {
        self.index = value;
    }

    /// A read of port 0x71.
    pub fn read(&mut self, now: Ticks) -> u8 {
        let register = Register::decode(self.index & INDEX);
        if let Register::Memory(index) = register {
            return self.memory.get(usize::from(index)).copied().unwrap_or(0xFF);
        }
        self.sync(now);
        match register {
            Register::Second => self.time.second,
            Register::SecondAlarm => self.alarm.second,
            Register::Minute => self.time.minute,
            Register::MinuteAlarm => self.alarm.minute,
            Register::Hour => self.time.hour,
            Register::HourAlarm => self.alarm.hour,
            Register::Weekday => self.time.weekday,
            Register::Day => self.time.day,
            Register::Month => self.time.month,
            Register::Year => self.time.year,
            Register::Century => self.time.century,
            Register::A => {
                let second = self.cycle.saturating_add(self.phase) % CLOCK_HZ;
                let busy = self.updating() && second >= CLOCK_HZ - UPDATE_CYCLES;
                self.a | if busy { UPDATE_IN_PROGRESS } else { 0 }
            }
            Register::B => self.b.bits(),
            Register::C => {
                let mut flags = self.c;
                flags.set(Flags::IRQF, self.interrupt());
                self.c = Flags::empty();
                flags.bits()
            }
            Register::D => VALID,
            Register::Memory(_) => 0xFF,
        }
    }

    /// A write to port 0x71.
    pub fn write(&mut self, value: u8, now: Ticks) {
        self.sync(now);
        match Register::decode(self.index & INDEX) {
            Register::Second => self.time.second = value,
            Register::SecondAlarm => self.alarm.second = value,
            Register::Minute => self.time.minute = value,
            Register::MinuteAlarm => self.alarm.minute = value,
            Register::Hour => self.time.hour = value,
            Register::HourAlarm => self.alarm.hour = value,
            Register::Weekday => self.time.weekday = value,
            Register::Day => self.time.day = value,
            Register::Month => self.time.month = value,
            Register::Year => self.time.year = value,
            Register::Century => self.time.century = value,
            Register::A => {
                let ran = self.running();
                self.a = value & !UPDATE_IN_PROGRESS;
                if !ran && self.running() {
                    // "The first update cycle begins one-half second later."
                    self.phase = phase_at(self.cycle, CLOCK_HZ / 2);
                }
            }
            Register::B => {
                let control = Control::from_bits_retain(value);
                let sets = control.contains(Control::SET) && !self.b.contains(Control::SET);
                self.b = control;
                if sets {
                    self.b.remove(Control::UIE);
                }
            }
            Register::C | Register::D => {}
            Register::Memory(index) => {
                if let Some(byte) = self.memory.get_mut(usize::from(index)) {
                    *byte = value;
                }
            }
        }
    }

    /// The clock's state.
    #[must_use]
    pub fn save(&self) -> RtcStateV1 {
        let TimeRegisters {
            second,
            minute,
            hour,
            weekday,
            day,
            month,
            year,
            century,
        } = self.time;
        RtcStateV1 {
            index: self.index,
            time: [second, minute, hour, weekday, day, month, year, century],
            alarm: [self.alarm.second, self.alarm.minute, self.alarm.hour],
            a: self.a,
            b: self.b.bits(),
            c: self.c.bits(),
            phase: self.phase as u16,
            cycle: self.cycle,
            memory: self.memory.to_vec(),
        }
    }

    /// The clock in a saved state.
    ///
    /// # Errors
    ///
    /// [`StateError::Invalid`] for a state that the clock cannot be in.
    pub fn restore(tsc_hz: u64, state: &RtcStateV1) -> Result<Self, StateError> {
        let c = Flags::from_bits(state.c)
            .filter(|flags| !flags.contains(Flags::IRQF))
            .ok_or(StateError::Invalid("MC146818: register C"))?;
        if state.a & UPDATE_IN_PROGRESS != 0 {
            return Err(StateError::Invalid("MC146818: register A"));
        }
        if u64::from(state.phase) >= CLOCK_HZ {
            return Err(StateError::Invalid("MC146818: phase"));
        }
        let memory = state.memory.as_slice().try_into();
        let [second, minute, hour, weekday, day, month, year, century] = state.time;
        let [alarm_second, alarm_minute, alarm_hour] = state.alarm;
        Ok(Self {
            rate: Rate::new(CLOCK_HZ, tsc_hz),
            index: state.index,
            time: TimeRegisters {
                second,
                minute,
                hour,
                weekday,
                day,
                month,
                year,
                century,
            },
            alarm: Alarm {
                second: alarm_second,
                minute: alarm_minute,
                hour: alarm_hour,
            },
            a: state.a,
            b: Control::from_bits_retain(state.b),
            c,
            phase: u64::from(state.phase),
            cycle: state.cycle,
            memory: memory.map_err(|_| StateError::Invalid("MC146818: memory size"))?,
        })
    }
}

/// How time is written under a setting of register B.
fn format_of(control: Control) -> Format {
    Format {
        binary: control.contains(Control::BINARY),
        hours_24: control.contains(Control::HOURS_24),
    }
}

/// The phase with which the divider stands at `position` (below 32768) at `cycle`.
fn phase_at(cycle: u64, position: u64) -> u64 {
    (position + CLOCK_HZ - cycle % CLOCK_HZ) % CLOCK_HZ
}

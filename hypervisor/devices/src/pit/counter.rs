//! One counter of the 8254, computed rather than stepped.
//!
//! Each mode follows the data sheet's "Mode Definitions". Cycles are falling edges of CLK; what a write or a gate edge
//! sets off happens on the next one.

use serde::{Deserialize, Serialize};

use super::control::{Access, Mode};
use crate::pc::StateError;

/// The saved state of a counter.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterStateV1 {
    /// The mode.
    pub mode: Mode,
    /// Which bytes an access moves.
    pub access: Access,
    /// Whether the counter counts in decimal.
    pub bcd: bool,
    /// The count register, as written.
    pub count: u16,
    /// The low byte of a count whose high byte is to come.
    pub low_byte: Option<u8>,
    /// Whether the next read gives the high byte.
    pub read_high: bool,
    /// The latched count.
    pub latched_count: Option<u16>,
    /// The latched status.
    pub latched_status: Option<u8>,
    /// Whether the count register was written since the control word.
    pub written: bool,
    /// Whether the counting element was loaded since the control word.
    pub loaded: bool,
    /// Whether the count register is newer than the counting element.
    pub null: bool,
    /// Whether the next cycle loads the counting element.
    pub load_pending: bool,
    /// Whether the end of the count still has an effect on the output.
    pub armed: bool,
    /// The gate input.
    pub gate: bool,
    /// The output.
    pub out: bool,
    /// The counting element at `cycle`: cycles to go, 0 to 65536. In mode 3: cycles until the output toggles. Before
    /// the first load: what a read gives.
    pub element: u32,
    /// Mode 3: the period of which the present half is one, 2 to 65536.
    pub period: u32,
    /// Mode 3: whether the present half is the low one.
    pub low_half: bool,
    /// The clock cycle at which the rest holds.
    pub cycle: u64,
}

/// A counter of the 8254.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    state: CounterStateV1,
}

/// The length in cycles of the low or the high half of a square wave.
const fn half(period: u32, low: bool) -> u32 {
    if low { period / 2 } else { period - period / 2 }
}

impl Counter {
    /// A counter that was programmed earlier and is loaded with `count` at `cycle`.
    pub(super) fn programmed(
        mode: Mode,
        access: Access,
        count: u16,
        gate: bool,
        cycle: u64,
    ) -> Self {
        let mut counter = Self {
            state: CounterStateV1 {
                mode,
                access,
                bcd: false,
                count,
                low_byte: None,
                read_high: false,
                latched_count: None,
                latched_status: None,
                written: true,
                loaded: false,
                null: false,
                load_pending: false,
                armed: false,
                gate,
                out: true,
                element: 0,
                period: 0,
                low_half: false,
                cycle,
            },
        };
        counter.load();
        counter
    }

    /// The output, when last brought up to date.
    #[inline]
    pub(super) fn output(&self) -> bool {
        self.state.out
    }

    /// The number of values that the counting element takes.
    fn modulus(&self) -> u32 {
        if self.state.bcd { 10_000 } else { 0x1_0000 }
    }

    /// The count register as a number of cycles: 0 stands for the modulus. A decimal digit above nine counts with its
    /// weight, and the periodic modes take their illegal count of 1 as 2.
    fn initial(&self) -> u32 {
        let raw = u32::from(self.state.count);
        let count = if self.state.bcd {
            let digit = |position: u32| (raw >> (4 * position)) & 0xF;
            (digit(3) * 1000 + digit(2) * 100 + digit(1) * 10 + digit(0)) % 10_000
        } else {
            raw
        };
        match count {
            0 => self.modulus(),
            1 if self.state.mode.periodic() => 2,
            count => count,
        }
    }

    /// The counting element as it reads.
    fn value(&self) -> u16 {
        let state = &self.state;
        if !state.loaded {
            return state.element as u16;
        }
        let number = if state.mode == Mode::SquareWave {
            // Counts down by two from the even part of the period; the longer half of an odd one has a cycle at 0.
            let passed = half(state.period, state.low_half).saturating_sub(state.element);
            (state.period & !1).saturating_sub(2 * passed)
        } else {
            state.element
        };
        if state.bcd {
            let digit = |weight: u32| number / weight % 10;
            (digit(1000) << 12 | digit(100) << 8 | digit(10) << 4 | digit(1)) as u16
        } else {
            number as u16
        }
    }

    /// The counting element takes the count register.
    fn load(&mut self) {
        let count = self.initial();
        let state = &mut self.state;
        state.load_pending = false;
        state.loaded = true;
        state.null = false;
        state.armed = true;
        state.element = count;
        match state.mode {
            Mode::TerminalCount | Mode::OneShot => state.out = false,
            Mode::SquareWave => {
                state.period = count;
                state.low_half = false;
                state.element = half(count, false);
                state.out = true;
            }
            Mode::RateGenerator | Mode::SoftwareStrobe | Mode::HardwareStrobe => state.out = true,
        }
    }

    /// Whether cycles count, once the counting element is loaded.
    fn enabled(&self) -> bool {
        let state = &self.state;
        match state.mode {
            // Between the two bytes of a new count, mode 0 stands still.
            Mode::TerminalCount => state.gate && state.low_byte.is_none(),
            Mode::OneShot | Mode::HardwareStrobe => true,
            Mode::RateGenerator | Mode::SquareWave | Mode::SoftwareStrobe => state.gate,
        }
    }

    /// Brings the counter up to `cycle`; returns how often its output rose on the way.
    pub(super) fn sync(&mut self, cycle: u64) -> u64 {
        let mut cycles = cycle.saturating_sub(self.state.cycle);
        if cycles == 0 {
            return 0;
        }
        self.state.cycle = cycle;
        let mut rises = 0;
        if self.state.mode.strobes() && !self.state.out {
            self.state.out = true;
            rises += 1;
        }
        if self.state.load_pending {
            self.load();
            cycles -= 1;
        }
        if cycles > 0 && self.state.loaded && self.enabled() {
            rises += match self.state.mode {
                Mode::TerminalCount | Mode::OneShot => self.run_once(cycles),
                Mode::SoftwareStrobe | Mode::HardwareStrobe => self.run_strobe(cycles),
                Mode::RateGenerator => self.run_rate(cycles),
                Mode::SquareWave => self.run_square(cycles),
            };
        }
        rises
    }

    /// Counts down, through 0 and on.
    fn count_down(&mut self, cycles: u64) {
        let modulus = u64::from(self.modulus());
        let element = u64::from(self.state.element) + modulus - cycles % modulus;
        self.state.element = (element % modulus) as u32;
    }

    /// Modes 0 and 1.
    fn run_once(&mut self, cycles: u64) -> u64 {
        let ends = self.state.armed && cycles >= u64::from(self.state.element);
        self.count_down(cycles);
        if ends {
            self.state.armed = false;
            self.state.out = true;
        }
        u64::from(ends)
    }

    /// Modes 4 and 5, from a high output.
    fn run_strobe(&mut self, cycles: u64) -> u64 {
        let end = u64::from(self.state.element);
        let ends = self.state.armed && cycles >= end;
        self.count_down(cycles);
        if ends {
            self.state.armed = false;
            self.state.out = cycles > end;
        }
        u64::from(ends && self.state.out)
    }

    /// Mode 2.
    fn run_rate(&mut self, cycles: u64) -> u64 {
        let end = u64::from(self.state.element);
        let mut rises = 0;
        if cycles < end {
            self.state.element = (end - cycles) as u32;
        } else {
            let period = u64::from(self.initial());
            let into = cycles - end;
            self.state.null = false;
            self.state.element = (period - into % period) as u32;
            rises = 1 + into / period;
        }
        self.state.out = self.state.element != 1;
        rises
    }

    /// Mode 3.
    fn run_square(&mut self, cycles: u64) -> u64 {
        let end = u64::from(self.state.element);
        if cycles < end {
            self.state.element = (end - cycles) as u32;
            return 0;
        }
        let period = self.initial();
        let mut low = !self.state.low_half;
        let into = cycles - end;
        let mut rises = u64::from(!low) + into / u64::from(period);
        let mut rest = (into % u64::from(period)) as u32;
        if rest >= half(period, low) {
            rest -= half(period, low);
            low = !low;
            rises += u64::from(!low);
        }
        self.state.null = false;
        self.state.period = period;
        self.state.low_half = low;
        self.state.element = half(period, low) - rest;
        self.state.out = !low;
        rises
    }

    /// The cycle at which the output rises next, if nothing is written before.
    pub(super) fn next_rise(&self) -> Option<u64> {
        let state = &self.state;
        if state.mode.strobes() && !state.out {
            return Some(state.cycle.saturating_add(1));
        }
        if !self.enabled() {
            return None;
        }
        let strobe = u64::from(state.mode.strobes());
        let cycles = if state.load_pending {
            1 + u64::from(self.initial()) + strobe
        } else if !state.loaded {
            return None;
        } else {
            let end = u64::from(state.element);
            match state.mode {
                Mode::RateGenerator => end,
                Mode::SquareWave if state.low_half => end,
                Mode::SquareWave => end + u64::from(half(self.initial(), true)),
                _ if state.armed => end + strobe,
                _ => return None,
            }
        };
        Some(state.cycle.saturating_add(cycles))
    }

    /// Drives the gate input.
    pub(super) fn set_gate(&mut self, gate: bool) {
        let state = &mut self.state;
        if gate == state.gate {
            return;
        }
        state.gate = gate;
        if gate {
            let triggers = state.mode.triggered() || state.mode.periodic();
            state.load_pending |= triggers && state.written;
        } else if state.mode.periodic() {
            state.out = true;
        }
    }

    /// A control word for this counter.
    pub(super) fn control(&mut self, mode: Mode, access: Access, bcd: bool) {
        let element = u32::from(self.value());
        let CounterStateV1 { gate, cycle, .. } = self.state;
        self.state = CounterStateV1 {
            mode,
            access,
            bcd,
            count: 0,
            low_byte: None,
            read_high: false,
            latched_count: None,
            latched_status: None,
            written: false,
            loaded: false,
            null: true,
            load_pending: false,
            armed: false,
            gate,
            out: mode != Mode::TerminalCount,
            element,
            period: 0,
            low_half: false,
            cycle,
        };
    }

    /// A write of the count.
    pub(super) fn write(&mut self, value: u8) {
        let state = &mut self.state;
        let count = match (state.access, state.low_byte.take()) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from(value) << 8,
            (Access::Both, Some(low)) => u16::from_le_bytes([low, value]),
            (Access::Both, None) => {
                state.low_byte = Some(value);
                if state.mode == Mode::TerminalCount {
                    state.out = false;
                    state.load_pending = false;
                }
                return;
            }
        };
        state.count = count;
        state.written = true;
        state.null = true;
        match state.mode {
            Mode::TerminalCount => {
                state.out = false;
                state.load_pending = true;
            }
            Mode::SoftwareStrobe => state.load_pending = true,
            Mode::RateGenerator | Mode::SquareWave => state.load_pending |= !state.loaded,
            Mode::OneShot | Mode::HardwareStrobe => {}
        }
    }

    /// A read of the latched status, the latched count or the counting element.
    pub(super) fn read(&mut self) -> u8 {
        if let Some(status) = self.state.latched_status.take() {
            return status;
        }
        let [low, high] = self
            .state
            .latched_count
            .unwrap_or_else(|| self.value())
            .to_le_bytes();
        let state = &mut self.state;
        match state.access {
            Access::Low => {
                state.latched_count = None;
                low
            }
            Access::High => {
                state.latched_count = None;
                high
            }
            Access::Both if state.read_high => {
                state.read_high = false;
                state.latched_count = None;
                high
            }
            Access::Both => {
                state.read_high = true;
                low
            }
        }
    }

    /// Counter latch command. A count that was latched and not read stays.
    pub(super) fn latch_count(&mut self) {
        if self.state.latched_count.is_none() {
            self.state.latched_count = Some(self.value());
        }
    }

    /// Latches the status byte, unless one is latched already.
    pub(super) fn latch_status(&mut self) {
        let state = &mut self.state;
        let status = u8::from(state.out) << 7
            | u8::from(state.null) << 6
            | state.access.number() << 4
            | state.mode.number() << 1
            | u8::from(state.bcd);
        state.latched_status.get_or_insert(status);
    }

    pub(super) fn save(&self) -> CounterStateV1 {
        self.state
    }

    /// A counter in a saved state, whose gate must be at `gate`.
    pub(super) fn restore(state: &CounterStateV1, gate: bool) -> Result<Self, StateError> {
        let counter = Self { state: *state };
        let range = if !state.loaded {
            0..=0xFFFF
        } else if state.mode == Mode::SquareWave {
            1..=half(state.period, state.low_half)
        } else {
            u32::from(state.armed)..=counter.modulus()
        };
        if !range.contains(&state.element) {
            return Err(StateError::Invalid("8254: counting element"));
        }
        if state.period > counter.modulus() {
            return Err(StateError::Invalid("8254: period"));
        }
        if state.gate != gate {
            return Err(StateError::Invalid("8254: gate"));
        }
        let ordered = (state.written || !(state.loaded || state.load_pending))
            && (state.loaded || !state.armed)
            && (state.low_byte.is_none() || state.access == Access::Both)
            && (!state.read_high || state.access == Access::Both);
        if !ordered {
            return Err(StateError::Invalid("8254: flags"));
        }
        Ok(counter)
    }
}

//! The watchdog timer of the 6300ESB, as a PCI function of its own.
//!
//! Source: Intel 6300ESB I/O Controller Hub data sheet, chapter 16.
//!
//! A driver feeds it by an unlocked write to the reload register. Where that does not come, a first stage ends, which may
//! bring an interrupt, and then a second one: that drives WDT_TOUT#, which on this board says that the guest has failed.
//! The pin stays as it is until a reset, so the free-running mode, which would toggle it again and again, ends there, too.
//! The chip's own way to an interrupt is an input of its I/O APIC; here it is the PCI pin.

mod registers;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::acpi::PCI_MEMORY;
use crate::pc::StateError;
use crate::pci::endpoint::{Bar, Endpoint, EndpointStateV1, Identity};
use crate::time::{Rate, Ticks};
use registers::{
    CONFIGURATION, Configuration, INTERRUPT_STATUS, InterruptStatus, KEYS, LENGTH, LOCK, Lock,
    PRELOAD, PRELOAD_1, PRELOAD_2, RELOAD, Reload,
};

/// The PCI clock in Hz, and the cycles of it that the counter is exact to, as a power of 2.
const PCI_HZ: u64 = 33_333_333;
const CYCLE_SHIFT: u32 = 5;
/// The cycles that a preload is of without [`Configuration::FINE`], in those.
const COARSE_SHIFT: u32 = 15 - CYCLE_SHIFT;

/// The base address register.
const MEMORY_BAR: usize = 0;
/// What the firmware keeps in the PCI memory for each device.
const FIRMWARE_STEP: u32 = 0x1000;

/// What a board's watchdog is like.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchdogConfig {
    /// Whether it has run out before the board was made: its flag of that outlasts the board's life.
    pub timed_out: bool,
}

/// What the counter is at. Times are in units of 2^5 cycles of the PCI clock, from guest time 0.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CounterStateV1 {
    /// It does not run: it is not enabled, or ran out where nobody is to see that.
    Stopped,
    /// The first stage.
    First {
        /// When it ends.
        ends: u64,
    },
    /// The second stage.
    Second {
        /// When it ends.
        ends: u64,
    },
    /// The guest has failed, for good.
    Failed {
        /// Whether the world was told so.
        told: bool,
    },
}

/// How far the lock of the registers in memory is opened, for one write.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnlockStateV1 {
    /// Not at all.
    Locked,
    /// The first of two keys was written.
    Half,
    /// Both were.
    Open,
}

/// The saved state of the watchdog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogStateV1 {
    /// The configuration header.
    pub endpoint: EndpointStateV1,
    /// The configuration register.
    pub configuration: u32,
    /// The lock register.
    pub lock: u32,
    /// Both preload registers.
    pub preloads: [u32; 2],
    /// The general interrupt status register.
    pub interrupts: u32,
    /// Whether it has run out.
    pub timed_out: bool,
    /// The lock of the registers in memory.
    pub unlock: UnlockStateV1,
    /// The counter.
    pub counter: CounterStateV1,
}

/// The watchdog.
#[derive(Clone, Debug)]
pub(crate) struct Watchdog {
    endpoint: Endpoint,
    rate: Rate,
    configuration: Configuration,
    lock: Lock,
    preloads: [u32; 2],
    interrupts: InterruptStatus,
    timed_out: bool,
    unlock: UnlockStateV1,
    counter: CounterStateV1,
}

impl Watchdog {
    /// Device `device` of the bus.
    pub(crate) fn new(device: u8, tsc_hz: u64, config: WatchdogConfig) -> Self {
        const INTEL: u16 = 0x8086;
        const MODEL: u16 = 0x25AB;
        let none = Bar::None;
        let header = Identity {
            vendor: INTEL,
            device: MODEL,
            // Base system peripheral, other.
            class: 0x08_8000,
            revision: 2,
            subsystem_vendor: INTEL,
            subsystem: MODEL,
            capabilities: false,
            bars: [Bar::Memory(u32::from(LENGTH)), none, none, none, none, none],
        };
        let firmware = PCI_MEMORY.0 + FIRMWARE_STEP * u32::from(device);
        let endpoint = Endpoint::new(device, header, [firmware, 0, 0, 0, 0, 0]);
        let rate = Rate::new(PCI_HZ >> CYCLE_SHIFT, tsc_hz);
        Self::fresh(endpoint, rate, config.timed_out)
    }

    fn fresh(endpoint: Endpoint, rate: Rate, timed_out: bool) -> Self {
        Self {
            endpoint,
            rate,
            configuration: Configuration::empty(),
            lock: Lock::empty(),
            preloads: [PRELOAD; 2],
            interrupts: InterruptStatus::empty(),
            timed_out,
            unlock: UnlockStateV1::Locked,
            counter: CounterStateV1::Stopped,
        }
    }

    /// A reset of the board.
    pub(crate) fn reset(&mut self) {
        self.endpoint.reset();
        *self = Self::fresh(self.endpoint.clone(), self.rate, self.timed_out);
    }

    /// The device number on the bus.
    pub(crate) const fn device(&self) -> u8 {
        self.endpoint.device()
    }

    /// Whether it has run out, since its driver cleared the flag of that.
    pub(crate) const fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// The time from a load of a preload register to the counter's zero, which is a count, too.
    fn period(&self, preload: u32) -> u64 {
        let shift = if self.configuration.contains(Configuration::FINE) {
            0
        } else {
            COARSE_SHIFT
        };
        (u64::from(preload) + 1) << shift
    }

    /// The counter starts with the first stage of its mode.
    fn start(&mut self, now: Ticks) {
        let cycle = self.rate.count(now);
        let [first, second] = self.preloads;
        self.counter = match self.counter {
            failed @ CounterStateV1::Failed { .. } => failed,
            _ if self.lock.contains(Lock::FREE_RUNNING) => CounterStateV1::Second {
                ends: cycle.saturating_add(self.period(second)),
            },
            _ => CounterStateV1::First {
                ends: cycle.saturating_add(self.period(first)),
            },
        };
    }

    /// Feeds it, if it counts.
    pub(crate) fn feed(&mut self, now: Ticks) {
        if self.counts() {
            self.start(now);
        }
    }

    fn counts(&self) -> bool {
        use CounterStateV1::{First, Second};
        matches!(self.counter, First { .. } | Second { .. })
    }

    /// Brings the counter up to `now`, as before every access from the [next event](Self::next_event) on.
    pub(crate) fn sync(&mut self, now: Ticks) {
        let cycle = self.rate.count(now);
        if let CounterStateV1::First { ends } = self.counter
            && cycle >= ends
        {
            self.interrupts |= InterruptStatus::FIRST_STAGE;
            let [_, second] = self.preloads;
            self.counter = CounterStateV1::Second {
                ends: ends.saturating_add(self.period(second)),
            };
        }
        if let CounterStateV1::Second { ends } = self.counter
            && cycle >= ends
        {
            self.timed_out = true;
            self.counter = if self.configuration.contains(Configuration::OUTPUT_OFF) {
                CounterStateV1::Stopped
            } else {
                CounterStateV1::Failed { told: false }
            };
        }
    }

    /// When something happens next, if nothing is written before: the past, if the world is to be told something.
    pub(crate) fn next_event(&self) -> Ticks {
        match self.counter {
            CounterStateV1::First { ends } | CounterStateV1::Second { ends } => self.rate.at(ends),
            CounterStateV1::Failed { told: false } => Ticks(0),
            CounterStateV1::Stopped | CounterStateV1::Failed { told: true } => Ticks::NEVER,
        }
    }

    /// Whether the guest has failed, which is told once.
    pub(crate) fn take_failure(&mut self) -> bool {
        let fails = self.counter == CounterStateV1::Failed { told: false };
        if fails {
            self.counter = CounterStateV1::Failed { told: true };
        }
        fails
    }

    /// Whether it asks for its interrupt.
    fn asks(&self) -> bool {
        let wanted = (self.configuration & Configuration::INTERRUPT_TYPE).is_empty();
        wanted && self.interrupts.contains(InterruptStatus::FIRST_STAGE)
    }

    /// The I/O APIC's input that the device asserts.
    pub(crate) fn line(&self) -> Option<u8> {
        self.endpoint.input(self.asks())
    }

    /// The offset of an address among the registers.
    pub(crate) fn address(&self, address: u64) -> Option<u16> {
        let base = self.endpoint.memory_base(MEMORY_BAR)?;
        let offset = address.checked_sub(base)?;
        (offset < u64::from(LENGTH)).then_some(offset as u16)
    }

    /// The doubleword at `offset`, a multiple of 4.
    pub(crate) fn read_memory(&self, offset: u16) -> u32 {
        let [first, second] = self.preloads;
        match offset {
            PRELOAD_1 => first,
            PRELOAD_2 => second,
            INTERRUPT_STATUS => self.interrupts.bits(),
            RELOAD if self.timed_out => Reload::TIMEOUT.bits(),
            _ => 0,
        }
    }

    /// Writes those bits of the doubleword at `offset`, a multiple of 4, that are set in `lanes`.
    pub(crate) fn write_memory(&mut self, offset: u16, value: u32, lanes: u32, now: Ticks) {
        let [first, second] = &mut self.preloads;
        match offset {
            PRELOAD_1 | PRELOAD_2 if self.unlock == UnlockStateV1::Open => {
                self.unlock = UnlockStateV1::Locked;
                let preload = if offset == PRELOAD_1 { first } else { second };
                *preload = (*preload & !lanes | value & lanes) & PRELOAD;
            }
            INTERRUPT_STATUS => {
                self.interrupts
                    .remove(InterruptStatus::from_bits_truncate(value & lanes));
            }
            RELOAD => self.write_reload(value & lanes, now),
            _ => {}
        }
    }

    fn write_reload(&mut self, value: u32, now: Ticks) {
        let [first, second] = KEYS;
        let unlock = self.unlock;
        self.unlock = match unlock {
            _ if value == first => UnlockStateV1::Half,
            UnlockStateV1::Half if value == second => UnlockStateV1::Open,
            _ => UnlockStateV1::Locked,
        };
        if unlock != UnlockStateV1::Open {
            return;
        }
        let reload = Reload::from_bits_truncate(value);
        if reload.contains(Reload::RELOAD) && self.lock.contains(Lock::ENABLED) {
            self.start(now);
        }
        if reload.contains(Reload::TIMEOUT) {
            self.timed_out = false;
        }
    }

    /// Reads a register of the configuration space.
    pub(crate) fn read_configuration(&self, register: u8) -> u32 {
        match register {
            CONFIGURATION => self.configuration.bits(),
            LOCK => self.lock.bits(),
            _ => self.endpoint.read(register, self.asks()),
        }
    }

    /// Writes those bits of a register of the configuration space that are set in `lanes`.
    pub(crate) fn write_configuration(&mut self, register: u8, value: u32, lanes: u32, now: Ticks) {
        match register {
            CONFIGURATION => {
                let kept = self.configuration.bits() & !lanes;
                self.configuration = Configuration::from_bits_truncate(kept | value & lanes);
            }
            LOCK => self.write_lock(value, lanes, now),
            _ => self.endpoint.write(register, value, lanes),
        }
    }

    fn write_lock(&mut self, value: u32, lanes: u32, now: Ticks) {
        if self.lock.contains(Lock::LOCKED) {
            return;
        }
        let before = self.lock;
        self.lock = Lock::from_bits_truncate(before.bits() & !lanes | value & lanes);
        let enabled = self.lock.contains(Lock::ENABLED);
        if enabled && !before.contains(Lock::ENABLED) {
            self.start(now);
        } else if !enabled && self.counts() {
            self.counter = CounterStateV1::Stopped;
        }
    }

    pub(crate) fn save(&self) -> WatchdogStateV1 {
        WatchdogStateV1 {
            endpoint: self.endpoint.save(),
            configuration: self.configuration.bits(),
            lock: self.lock.bits(),
            preloads: self.preloads,
            interrupts: self.interrupts.bits(),
            timed_out: self.timed_out,
            unlock: self.unlock,
            counter: self.counter,
        }
    }

    /// Takes on a saved state.
    pub(crate) fn restore(&mut self, state: &WatchdogStateV1) -> Result<(), StateError> {
        self.endpoint.restore(&state.endpoint)?;
        let invalid = StateError::Invalid("watchdog: register");
        self.configuration = Configuration::from_bits(state.configuration).ok_or(invalid)?;
        self.lock = Lock::from_bits(state.lock).ok_or(invalid)?;
        self.interrupts = InterruptStatus::from_bits(state.interrupts).ok_or(invalid)?;
        if state.preloads.iter().any(|preload| preload & !PRELOAD != 0) {
            return Err(invalid);
        }
        self.preloads = state.preloads;
        self.timed_out = state.timed_out;
        self.unlock = state.unlock;
        self.counter = state.counter;
        if self.counts() && !self.lock.contains(Lock::ENABLED) {
            return Err(StateError::Invalid("watchdog: counter"));
        }
        Ok(())
    }
}

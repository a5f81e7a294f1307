//! The ACPI power management registers: PM1 events and control, and the PM timer.
//!
//! Sources: ACPI 6.4, 4.8.3 (register formats); Intel 82371AB (PIIX4) data sheet, "Power management I/O space".
//!
//! This is the guest's way to switch itself off: SLP_EN with SLP_TYP 5 in PM1_CNT. The firmware tables that describe
//! the block must name that type for \_S5. Other sleep types do nothing. There is no SMI command port: the board is in
//! ACPI mode from the start, and SCI_EN is mere storage.

#[cfg(test)]
mod tests;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::pc::StateError;
use crate::time::{Rate, Ticks};

/// The first port of the block: PM1_STS, PM1_EN at 2, PM1_CNT at 4, PM_TMR at 8.
pub const BASE: u16 = 0x600;

/// The interrupt request line of the system control interrupt.
pub const SCI_IRQ: u8 = 9;

/// The PM timer's clock in Hz.
pub const TIMER_HZ: u64 = 3_579_545;

/// The SLP_TYP that means soft-off.
pub const SOFT_OFF: u8 = 5;

/// The PM timer has 24 bits; TMR_STS is set when the highest toggles.
const TIMER_MASK: u64 = 0xFF_FFFF;
const TIMER_TOP: u32 = 23;

bitflags! {
    /// PM1 status and enable.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Events: u16 {
        /// The timer's highest bit toggled.
        const TIMER = 1 << 0;
        /// Bus master status; nothing sets it.
        const BUS_MASTER = 1 << 4;
        /// Global lock; nothing sets it.
        const GLOBAL = 1 << 5;
        /// Power button.
        const POWER_BUTTON = 1 << 8;
        /// Alarm of the real-time clock; nothing sets it.
        const CLOCK = 1 << 10;
        /// Wake from sleep; nothing sets it.
        const WAKE = 1 << 15;

        /// The events that have an enable.
        const ENABLES = Self::TIMER.bits()
            | Self::GLOBAL.bits()
            | Self::POWER_BUTTON.bits()
            | Self::CLOCK.bits();
    }

    /// PM1 control.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Control: u16 {
        /// Events raise the SCI.
        const SCI_EN = 1 << 0;
        /// Bus master requests wake from C3; storage.
        const BM_RLD = 1 << 1;
        /// Sleep type.
        const SLP_TYP = 0b111 << 10;
        /// Sleep now; write only.
        const SLP_EN = 1 << 13;
    }
}

/// The saved state of the block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerStateV1 {
    /// PM1_STS.
    pub status: u16,
    /// PM1_EN.
    pub enable: u16,
    /// PM1_CNT.
    pub control: u16,
    /// The cycle of the timer's clock at which the status holds.
    pub cycle: u64,
}

/// A request that a write makes of the board.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Switch off.
    PowerOff,
}

/// The power management block.
#[derive(Clone, Debug)]
pub struct Power {
    rate: Rate,
    status: Events,
    enable: Events,
    control: Control,
    cycle: u64,
}

impl Power {
    /// The block after reset, in ACPI mode.
    #[must_use]
    pub fn new(tsc_hz: u64, now: Ticks) -> Self {
        let rate = Rate::new(TIMER_HZ, tsc_hz);
        Self {
            rate,
            status: Events::empty(),
            enable: Events::empty(),
            control: Control::SCI_EN,
            cycle: rate.count(now),
        }
    }

    /// Brings the status up to `now`.
    pub fn sync(&mut self, now: Ticks) {
        let cycle = self.rate.count(now).max(self.cycle);
        if cycle >> TIMER_TOP != self.cycle >> TIMER_TOP {
            self.status.insert(Events::TIMER);
        }
        self.cycle = cycle;
    }

    /// The system control interrupt.
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.control.contains(Control::SCI_EN) && self.status.intersects(self.enable)
    }

    /// When the system control interrupt rises next, if nothing is written before.
    #[must_use]
    pub fn next_rise(&self) -> Ticks {
        let waits = self.control.contains(Control::SCI_EN)
            && self.enable.contains(Events::TIMER)
            && !self.interrupt();
        if waits {
            self.rate
                .at(((self.cycle >> TIMER_TOP) + 1).saturating_mul(1 << TIMER_TOP))
        } else {
            Ticks::NEVER
        }
    }

    /// Presses the power button.
    pub fn press_button(&mut self) {
        self.status.insert(Events::POWER_BUTTON);
    }

    /// Whether there is a register at `offset` from the base port.
    #[must_use]
    pub const fn claims(offset: u16) -> bool {
        matches!(offset, 0..=5 | 8..=11)
    }

    /// Reads the aligned doubleword at `offset` (0, 4 or 8) from the base port.
    pub fn read(&mut self, offset: u16, now: Ticks) -> u32 {
        match offset {
            0 => {
                self.sync(now);
                u32::from(self.enable.bits()) << 16 | u32::from(self.status.bits())
            }
            4 => u32::from(self.control.bits()),
            8 => (self.rate.count(now) & TIMER_MASK) as u32,
            _ => u32::MAX,
        }
    }

    /// Writes those bits of the aligned doubleword at `offset` that are set in `lanes`.
    pub fn write(&mut self, offset: u16, value: u32, lanes: u32, now: Ticks) -> Option<Request> {
        self.sync(now);
        match offset {
            0 => {
                self.status
                    .remove(Events::from_bits_truncate((value & lanes) as u16));
                let kept = u32::from(self.enable.bits()) & !(lanes >> 16);
                let enable = kept | (value & lanes) >> 16;
                self.enable = Events::from_bits_truncate(enable as u16) & Events::ENABLES;
                None
            }
            4 => {
                let kept = u32::from(self.control.bits()) & !lanes;
                let control = Control::from_bits_truncate((kept | value & lanes) as u16);
                self.control = control - Control::SLP_EN;
                let sleeps = control.contains(Control::SLP_EN);
                let kind =
                    (control & Control::SLP_TYP).bits() >> Control::SLP_TYP.bits().trailing_zeros();
                (sleeps && kind == u16::from(SOFT_OFF)).then_some(Request::PowerOff)
            }
            _ => None,
        }
    }

    /// The block's state.
    #[must_use]
    pub fn save(&self) -> PowerStateV1 {
        PowerStateV1 {
            status: self.status.bits(),
            enable: self.enable.bits(),
            control: self.control.bits(),
            cycle: self.cycle,
        }
    }

    /// The block in a saved state.
    ///
    /// # Errors
    ///
    /// [`StateError::Invalid`] for a state that the block cannot be in.
    pub fn restore(tsc_hz: u64, state: &PowerStateV1) -> Result<Self, StateError> {
        let enable = Events::from_bits(state.enable).filter(|e| Events::ENABLES.contains(*e));
        let control = Control::from_bits(state.control).filter(|c| !c.contains(Control::SLP_EN));
        match (Events::from_bits(state.status), enable, control) {
            (Some(status), Some(enable), Some(control)) => Ok(Self {
                rate: Rate::new(TIMER_HZ, tsc_hz),
                status,
                enable,
                control,
                cycle: state.cycle,
            }),
            _ => Err(StateError::Invalid("ACPI PM: register")),
        }
    }
}

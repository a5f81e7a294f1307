//! The interrupt controllers of a PC: two 8259As in cascade.
//!
//! Sources: Intel 8259A data sheet (231468), Intel 82371AB (PIIX4) data sheet for the edge/level control registers.

mod chip;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::pc::StateError;
pub use chip::ChipStateV1;
use chip::{Chip, Inputs};

/// The input of the master to which the slave's INT output is wired.
const CASCADE: u8 = 2;

/// Inputs whose sense the edge/level control registers can change: not the timer (0), the keyboard (1), the cascade
/// (2), the clock (8) and the coprocessor (13). PIIX4, "ELCR1" and "ELCR2".
const MASTER_SENSES: u8 = 0xF8;
const SLAVE_SENSES: u8 = 0xDE;

/// A register of the pair, by the port that reaches it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Register {
    /// 0x20 and 0xA0: ICW1, OCW2, OCW3; reads IRR or ISR.
    Command,
    /// 0x21 and 0xA1: ICW2 to ICW4, OCW1; reads the mask.
    Data,
}

/// One of the two controllers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// At 0x20, inputs IRQ 0 to 7.
    Master,
    /// At 0xA0, inputs IRQ 8 to 15.
    Slave,
}

bitflags! {
    /// Interrupt requests that the pair would not pass on, whatever comes.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub struct Masked: u8 {
        /// IRQ 0, the timer.
        const TIMER = 1 << 0;
        /// IRQ 8, the real-time clock.
        const CLOCK = 1 << 1;
        /// IRQ 9, the system control interrupt.
        const SYSTEM = 1 << 2;
    }
}

/// The saved state of the pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PicStateV1 {
    /// The controller at 0x20.
    pub master: ChipStateV1,
    /// The controller at 0xA0.
    pub slave: ChipStateV1,
}

/// Two 8259As in cascade, with their edge/level control registers.
#[derive(Clone, Debug)]
pub struct Pic {
    master: Chip,
    slave: Chip,
    /// The master's INT output, the processor's INTR.
    interrupt: bool,
}

impl Pic {
    /// The pair as a PC's firmware leaves it: vectors from 0x08 and 0x70, every input masked.
    #[must_use]
    pub fn new() -> Self {
        Self {
            master: Chip::new(0x08, 1 << CASCADE),
            slave: Chip::new(0x70, CASCADE),
            interrupt: false,
        }
    }

    /// A hardware reset, followed by what firmware does. The devices' lines keep their levels; a line that is high
    /// needs a new edge to request.
    pub fn reset(&mut self) {
        let (master, slave) = (self.master.inputs.lines(), self.slave.inputs.lines());
        *self = Self::new();
        self.master.inputs = Inputs::with_lines(master & !(1 << CASCADE));
        self.slave.inputs = Inputs::with_lines(slave);
        self.update();
    }

    /// Drives the interrupt request line `irq` (0 to 15; others and 2 do not exist).
    #[inline]
    pub fn set_line(&mut self, irq: u8, level: bool) {
        let changed = match irq {
            CASCADE => false,
            0..=7 => self.master.inputs.set(1 << irq, level),
            8..=15 => self.slave.inputs.set(1 << (irq - 8), level),
            _ => false,
        };
        if changed {
            self.update();
        }
    }

    /// Lets the interrupt request line of the timer fall, if it is high, and rise.
    #[inline]
    pub fn strike_timer(&mut self) {
        self.master.inputs.set(1, false);
        self.master.inputs.set(1, true);
        // Nothing has changed at the slave, nor could anybody have looked in between.
        self.interrupt = self.master.interrupt();
    }

    /// The level of the interrupt request line `irq`.
    #[must_use]
    pub fn line(&self, irq: u8) -> bool {
        match irq {
            0..=7 => self.master.inputs.lines() & 1 << irq != 0,
            8..=15 => self.slave.inputs.lines() & 1 << (irq - 8) != 0,
            _ => false,
        }
    }

    /// Whether the processor's INTR input is driven.
    #[inline]
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.interrupt
    }

    /// The processor's two INTA cycles; returns the vector.
    ///
    /// A request that is gone by now gives the default vector of input 7, without an in-service bit ("DEFAULT IR7").
    pub fn acknowledge(&mut self) -> u8 {
        let level = self.master.acknowledge();
        let vector = if level == CASCADE && self.master.cascaded(CASCADE) {
            let level = self.slave.acknowledge();
            self.lower_cascade();
            self.slave.vector(level)
        } else {
            self.master.vector(level)
        };
        self.update();
        vector
    }

    /// A read of a controller.
    #[inline]
    pub fn read(&mut self, which: Which, register: Register) -> u8 {
        let chip = match which {
            Which::Master => &self.master,
            Which::Slave => &self.slave,
        };
        if chip.polling() {
            return self.poll(which);
        }
        match register {
            Register::Command => chip.status(),
            Register::Data => chip.mask(),
        }
    }

    /// The read that follows a poll command: an acknowledge to one controller.
    #[cold]
    #[inline(never)]
    fn poll(&mut self, which: Which) -> u8 {
        let answer = match which {
            Which::Master => self.master.poll(),
            Which::Slave => {
                let answer = self.slave.poll();
                self.lower_cascade();
                answer
            }
        };
        self.update();
        answer
    }

    /// A write to a controller.
    #[inline]
    pub fn write(&mut self, which: Which, register: Register, value: u8) {
        let chip = match which {
            Which::Master => &mut self.master,
            Which::Slave => &mut self.slave,
        };
        match register {
            Register::Command => chip.write_command(value),
            Register::Data => chip.write_data(value),
        }
        self.update();
    }

    /// The edge/level control register of a controller (0x4D0, 0x4D1): a set bit makes that input level-sensitive.
    #[must_use]
    pub fn sense(&self, which: Which) -> u8 {
        match which {
            Which::Master => self.master.inputs.level_sensitive(),
            Which::Slave => self.slave.inputs.level_sensitive(),
        }
    }

    /// Writes the edge/level control register of a controller; inputs with a fixed sense keep it.
    pub fn set_sense(&mut self, which: Which, value: u8) {
        match which {
            Which::Master => self
                .master
                .inputs
                .set_level_sensitive(value & MASTER_SENSES),
            Which::Slave => self.slave.inputs.set_level_sensitive(value & SLAVE_SENSES),
        }
        self.update();
    }

    /// Both interrupt mask registers, the slave's in the high byte.
    #[inline]
    #[must_use]
    pub fn masks(&self) -> u16 {
        u16::from_le_bytes([self.master.mask(), self.slave.mask()])
    }

    /// Timers whose requests cannot reach the processor before the guest writes to a controller.
    #[inline]
    #[must_use]
    pub fn masked(&self) -> Masked {
        let (master, slave) = (self.master.mask(), self.slave.mask());
        let slave = if master & (1 << CASCADE) != 0 {
            0xFF
        } else {
            slave
        };
        let mut masked = Masked::empty();
        masked.set(Masked::TIMER, master & 1 != 0);
        masked.set(Masked::CLOCK, slave & 1 != 0);
        masked.set(Masked::SYSTEM, slave & 2 != 0);
        masked
    }

    /// The slave drops INT once its request is taken, so a next one is a new edge for the master.
    fn lower_cascade(&mut self) {
        self.master.inputs.set(1 << CASCADE, false);
    }

    /// Brings the cascade and the processor's line up to date.
    #[inline]
    fn update(&mut self) {
        self.master.inputs.set(1 << CASCADE, self.slave.interrupt());
        self.interrupt = self.master.interrupt();
    }

    /// The pair's state.
    #[must_use]
    pub fn save(&self) -> PicStateV1 {
        PicStateV1 {
            master: self.master.save(),
            slave: self.slave.save(),
        }
    }

    /// The pair in a saved state.
    ///
    /// # Errors
    ///
    /// [`StateError::Invalid`] for a state that the pair cannot be in.
    pub fn restore(state: &PicStateV1) -> Result<Self, StateError> {
        let mut pic = Self {
            master: Chip::restore(&state.master, MASTER_SENSES)?,
            slave: Chip::restore(&state.slave, SLAVE_SENSES)?,
            interrupt: false,
        };
        let cascade = pic.master.inputs.lines() & (1 << CASCADE) != 0;
        if cascade != pic.slave.interrupt() {
            return Err(StateError::Invalid("8259: cascade line"));
        }
        pic.update();
        Ok(pic)
    }
}

impl Default for Pic {
    fn default() -> Self {
        Self::new()
    }
}

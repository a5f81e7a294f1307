//! An I/O APIC with 24 inputs.
//!
//! Sources: Intel 82093AA (I/O APIC) data sheet (290566); the EOI register is that of version 20H (Intel ICH and PCH
//! data sheets, "I/O APIC").
//!
//! Inputs are asserted or not; the polarity of an entry is stored and has no effect.

mod entry;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::msi::Dispatch;
use crate::pc::StateError;
use entry::Entry;

/// The number of inputs.
pub const INPUTS: u8 = 24;

/// The version register: 20H, which has the EOI register, and the number of the last entry.
const VERSION: u32 = 0x20 | (INPUTS as u32 - 1) << 16;

/// Offsets in the page.
const INDEX: u16 = 0x00;
const DATA: u16 = 0x10;
const END_OF_INTERRUPT: u16 = 0x40;

/// A register behind the index.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Register {
    Id,
    Version,
    Arbitration,
    EntryLow(u8),
    EntryHigh(u8),
}

impl Register {
    const fn decode(index: u8) -> Option<Self> {
        Some(match index {
            0x00 => Self::Id,
            0x01 => Self::Version,
            0x02 => Self::Arbitration,
            0x10..=0x3F if index & 1 == 0 => Self::EntryLow((index - 0x10) / 2),
            0x10..=0x3F => Self::EntryHigh((index - 0x10) / 2),
            _ => return None,
        })
    }
}

/// The saved state of an I/O APIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApicStateV1 {
    /// Index register.
    pub index: u8,
    /// ID register, 4 bits.
    pub id: u8,
    /// The redirection table.
    pub entries: [u64; INPUTS as usize],
    /// The inputs that are asserted, a bit for each.
    pub lines: u32,
}

/// An I/O APIC.
#[derive(Clone, Debug)]
pub struct IoApic {
    index: u8,
    id: u8,
    entries: [Entry; INPUTS as usize],
    lines: u32,
}

impl IoApic {
    /// An I/O APIC after a reset: every input masked.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            index: 0,
            id: 0,
            entries: [Entry::RESET; INPUTS as usize],
            lines: 0,
        }
    }

    /// A hardware reset. The devices' lines keep their levels.
    pub fn reset(&mut self) {
        *self = Self {
            lines: self.lines,
            ..Self::new()
        };
    }

    /// Asserts an input or ends that; returns the message that comes of it. Inputs from 24 on do not exist.
    ///
    /// Edges at a masked input are lost; an asserted level waits until it is not masked.
    #[inline]
    pub fn set_line(&mut self, input: u8, asserted: bool) -> Option<Dispatch> {
        let entry = self.entries.get_mut(usize::from(input))?;
        let bit = 1 << input;
        let was = self.lines & bit != 0;
        if was == asserted {
            return None;
        }
        self.lines ^= bit;
        if asserted { entry.fire() } else { None }
    }

    /// Whether an input is asserted.
    #[must_use]
    pub fn line(&self, input: u8) -> bool {
        input < INPUTS && self.lines & 1 << input != 0
    }

    /// Whether nothing comes of an input now, whatever happens to it, until the guest writes to the redirection table.
    #[inline]
    #[must_use]
    pub fn masked(&self, input: u8) -> bool {
        self.entries
            .get(usize::from(input))
            .is_none_or(|entry| entry.masked())
    }

    /// A local APIC ends a level-triggered interrupt of this vector. Inputs that are still asserted `send` anew.
    pub fn end_of_interrupt(&mut self, vector: u8, mut send: impl FnMut(Dispatch)) {
        for (input, entry) in self.entries.iter_mut().enumerate() {
            if entry.end(vector)
                && self.lines & 1 << input != 0
                && let Some(dispatch) = entry.fire()
            {
                send(dispatch);
            }
        }
    }

    /// No local APIC took a message of this vector, so none will end it. A level stays asserted; the next write to its
    /// entry sends anew.
    pub fn undelivered(&mut self, vector: u8) {
        for entry in &mut self.entries {
            entry.end(vector);
        }
    }

    /// A 32-bit read at `offset` in the page.
    #[must_use]
    pub fn mmio_read(&self, offset: u16) -> u32 {
        match offset {
            INDEX => u32::from(self.index),
            DATA => self.read(),
            _ => 0,
        }
    }

    fn read(&self) -> u32 {
        let entry = |input: u8| self.entries.get(usize::from(input)).map_or(0, |e| e.bits());
        match Register::decode(self.index) {
            Some(Register::Id | Register::Arbitration) => u32::from(self.id) << 24,
            Some(Register::Version) => VERSION,
            Some(Register::EntryLow(input)) => entry(input) as u32,
            Some(Register::EntryHigh(input)) => (entry(input) >> 32) as u32,
            None => 0,
        }
    }

    /// A 32-bit write at `offset` in the page; what it lets through is given to `send`.
    pub fn mmio_write(&mut self, offset: u16, value: u32, mut send: impl FnMut(Dispatch)) {
        match offset {
            INDEX => self.index = value as u8,
            DATA => {
                if let Some(dispatch) = self.write(value) {
                    send(dispatch);
                }
            }
            END_OF_INTERRUPT => self.end_of_interrupt(value as u8, send),
            _ => {}
        }
    }

    fn write(&mut self, value: u32) -> Option<Dispatch> {
        match Register::decode(self.index)? {
            Register::Id => self.id = (value >> 24) as u8 & 0xF,
            Register::Version | Register::Arbitration => {}
            Register::EntryHigh(input) => {
                self.entries.get_mut(usize::from(input))?.set_high(value);
            }
            Register::EntryLow(input) => {
                let asserted = self.line(input);
                let entry = self.entries.get_mut(usize::from(input))?;
                entry.set_low(value);
                if asserted && entry.holds() {
                    return entry.fire();
                }
            }
        }
        None
    }

    /// The I/O APIC's state.
    #[must_use]
    pub fn save(&self) -> IoApicStateV1 {
        IoApicStateV1 {
            index: self.index,
            id: self.id,
            entries: self.entries.map(|entry| entry.bits()),
            lines: self.lines,
        }
    }

    /// An I/O APIC in a saved state.
    ///
    /// # Errors
    ///
    /// [`StateError::Invalid`] for a state that it cannot be in.
    pub fn restore(state: &IoApicStateV1) -> Result<Self, StateError> {
        let mut apic = Self {
            index: state.index,
            id: state.id,
            lines: state.lines,
            ..Self::new()
        };
        if state.id > 0xF || state.lines >> INPUTS != 0 {
            return Err(StateError::Invalid("I/O APIC: ID or lines"));
        }
        for (entry, bits) in apic.entries.iter_mut().zip(state.entries) {
            *entry = Entry::restore(bits).ok_or(StateError::Invalid("I/O APIC: entry"))?;
        }
        Ok(apic)
    }
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

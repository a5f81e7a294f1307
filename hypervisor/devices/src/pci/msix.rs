//! MSI-X: a device's table of messages (PCI Local Bus 3.0, 6.8.2).

use alloc::vec::Vec;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::msi::{self, Dispatch};
use crate::pc::StateError;

/// The capability's identity.
const ID: u32 = 0x11;
/// Where the pending bits are in the page; the table is at its start.
pub(crate) const PENDING: u16 = 0x800;
/// Bytes of an entry.
const ENTRY: u16 = 16;
/// Most messages: their pending bits are in one quadword.
pub(crate) const VECTORS_MAX: u16 = 64;

bitflags! {
    /// Message control.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Control: u16 {
        /// All messages are held back.
        const FUNCTION_MASK = 1 << 14;
        /// Messages instead of the interrupt pin.
        const ENABLE = 1 << 15;
    }
}

/// The saved state of an entry.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageStateV1 {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// Whether it is held back.
    pub masked: bool,
}

/// The saved state of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsiXStateV1 {
    /// Message control, without the table's size.
    pub control: u16,
    /// The entries.
    pub entries: Vec<MessageStateV1>,
    /// Messages that wait, a bit for each.
    pub pending: u64,
}

/// A table of messages.
#[derive(Clone, Debug)]
pub(crate) struct MsiX {
    control: Control,
    entries: Vec<MessageStateV1>,
    pending: u64,
}

impl MsiX {
    /// A table after a reset, of 1 to [`VECTORS_MAX`] entries.
    pub(crate) fn new(vectors: u16) -> Self {
        let masked = MessageStateV1 {
            address: 0,
            data: 0,
            masked: true,
        };
        Self {
            control: Control::empty(),
            entries: (0..vectors.min(VECTORS_MAX)).map(|_| masked).collect(),
            pending: 0,
        }
    }

    /// A reset of the board.
    pub(crate) fn reset(&mut self) {
        self.control = Control::empty();
        self.pending = 0;
        for entry in &mut self.entries {
            *entry = MessageStateV1 {
                address: 0,
                data: 0,
                masked: true,
            };
        }
    }

    /// Whether messages replace the interrupt pin.
    pub(crate) fn enabled(&self) -> bool {
        self.control.contains(Control::ENABLE)
    }

    /// The capability's register at `offset` (0, 4 or 8). The table is behind base address register `bar`.
    pub(crate) fn read_capability(&self, offset: u8, next: u8, bar: u8) -> u32 {
        match offset {
            0 => {
                let size = self.entries.len().saturating_sub(1) as u32;
                let control = size | u32::from(self.control.bits());
                control << 16 | u32::from(next) << 8 | ID
            }
            4 => u32::from(bar),
            8 => u32::from(PENDING) | u32::from(bar),
            _ => 0,
        }
    }

    /// Writes those bits of the capability's register at `offset` that are set in `lanes`.
    pub(crate) fn write_capability(&mut self, offset: u8, value: u32, lanes: u32) {
        if offset != 0 {
            return;
        }
        let kept = u32::from(self.control.bits()) << 16 & !lanes;
        self.control = Control::from_bits_truncate(((kept | value & lanes) >> 16) as u16);
        if !self.enabled() {
            self.pending = 0;
        }
    }

    /// The doubleword at `offset` in the page.
    pub(crate) fn read(&self, offset: u16) -> u32 {
        match offset {
            PENDING => self.pending as u32,
            0x804 => (self.pending >> 32) as u32,
            _ => {
                let entry = self.entries.get(usize::from(offset / ENTRY));
                entry.map_or(0, |entry| match offset % ENTRY {
                    0 => entry.address as u32,
                    4 => (entry.address >> 32) as u32,
                    8 => entry.data,
                    _ => u32::from(entry.masked),
                })
            }
        }
    }

    /// Writes the doubleword at `offset` in the page.
    pub(crate) fn write(&mut self, offset: u16, value: u32) {
        let Some(entry) = self.entries.get_mut(usize::from(offset / ENTRY)) else {
            return;
        };
        match offset % ENTRY {
            // The low two bits of an address are 0.
            0 => entry.address = entry.address & !0xFFFF_FFFF | u64::from(value & !3),
            4 => entry.address = entry.address & 0xFFFF_FFFF | u64::from(value) << 32,
            8 => entry.data = value,
            _ => entry.masked = value & 1 != 0,
        }
    }

    /// Asks for a message. It goes out with the next [`send`](Self::send), or when it is no more held back.
    pub(crate) fn raise(&mut self, vector: u16) {
        if self.enabled() && usize::from(vector) < self.entries.len() {
            self.pending |= 1 << vector;
        }
    }

    /// Sends what waits and is not held back. The device must be allowed to.
    #[inline]
    pub(crate) fn send(&mut self, mut to: impl FnMut(Dispatch)) {
        if self.pending == 0 || self.control.contains(Control::FUNCTION_MASK) {
            return;
        }
        for (vector, entry) in self.entries.iter().enumerate() {
            let bit = 1 << vector;
            if self.pending & bit == 0 || entry.masked {
                continue;
            }
            self.pending &= !bit;
            if let Some(dispatch) = msi::decode(entry.address, entry.data) {
                to(dispatch);
            }
        }
    }

    pub(crate) fn save(&self) -> MsiXStateV1 {
        MsiXStateV1 {
            control: self.control.bits(),
            entries: self.entries.clone(),
            pending: self.pending,
        }
    }

    pub(crate) fn restore(&mut self, state: &MsiXStateV1) -> Result<(), StateError> {
        let invalid = StateError::Invalid("PCI: MSI-X");
        let control = Control::from_bits(state.control).ok_or(invalid)?;
        let vectors = self.entries.len() as u32;
        let possible = state.entries.len() == self.entries.len()
            && state.entries.iter().all(|entry| entry.address & 3 == 0)
            && state.pending.checked_shr(vectors).unwrap_or(0) == 0
            && (state.pending == 0 || control.contains(Control::ENABLE));
        if !possible {
            return Err(invalid);
        }
        self.control = control;
        self.entries.clone_from(&state.entries);
        self.pending = state.pending;
        Ok(())
    }
}

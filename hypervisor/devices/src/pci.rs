//! PCI configuration mechanism 1, and the functions on bus 0.
//!
//! Sources: PCI Local Bus 3.0, 3.2.2.3.2 (the mechanism) and chapter 6 (the header); Intel 440FX data sheet (82441FX);
//! Intel 82371AB (PIIX4) data sheet.

mod functions;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::pc::StateError;
use functions::{Definition, HOST_BRIDGE, ISA_BRIDGE, POWER_MANAGEMENT};

bitflags! {
    /// CONFIG_ADDRESS, 0xCF8.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Address: u32 {
        /// The doubleword register, bits 7 to 2.
        const REGISTER = 0xFC;
        /// The function, bits 10 to 8.
        const FUNCTION = 0x700;
        /// The device, bits 15 to 11.
        const DEVICE = 0xF800;
        /// The bus, bits 23 to 16.
        const BUS = 0xFF_0000;
        /// Accesses to 0xCFC are configuration cycles.
        const ENABLE = 1 << 31;
    }
}

/// A function's place on bus 0.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

/// The configuration space of a function.
///
/// Registers are aligned doublewords, named by their offset (0 to 0xFC, a multiple of 4).
pub trait Function {
    /// Reads a register. Registers that do not exist read 0.
    fn read(&self, register: u8) -> u32;
    /// Writes those bits of a register that are set in `lanes`.
    fn write(&mut self, register: u8, value: u32, lanes: u32);
}

/// The saved state of a function: its registers' values in the order of its definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionStateV1 {
    /// Device number.
    pub device: u8,
    /// Function number.
    pub function: u8,
    /// The registers.
    pub values: Vec<u32>,
}

/// The saved state of the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciStateV1 {
    /// CONFIG_ADDRESS.
    pub address: u32,
    /// The functions, in the order of their slots.
    pub functions: Vec<FunctionStateV1>,
}

/// A function that is no more than a table of registers: a chipset's.
#[derive(Clone, Debug)]
struct Table {
    slot: Slot,
    definition: &'static Definition,
    values: Vec<u32>,
}

impl Table {
    fn new(device: u8, function: u8, definition: &'static Definition) -> Self {
        let values = definition.iter().map(|register| register.initial).collect();
        Self {
            slot: Slot { device, function },
            definition,
            values,
        }
    }

    fn position(&self, offset: u8) -> Option<usize> {
        self.definition
            .iter()
            .position(|register| register.offset == offset)
    }
}

impl Function for Table {
    fn read(&self, register: u8) -> u32 {
        self.position(register)
            .and_then(|at| self.values.get(at))
            .copied()
            .unwrap_or(0)
    }

    fn write(&mut self, register: u8, value: u32, lanes: u32) {
        let Some(at) = self.position(register) else {
            return;
        };
        if let (Some(definition), Some(stored)) = (self.definition.get(at), self.values.get_mut(at))
        {
            let writable = definition.writable & lanes;
            *stored = *stored & !writable | value & writable;
        }
    }
}

/// The host bridge's configuration mechanism with the chipset behind it.
#[derive(Clone, Debug)]
pub struct Pci {
    address: Address,
    functions: [Table; 3],
}

impl Pci {
    /// A bus with a 440FX host bridge, a PIIX4 ISA bridge and its power management function.
    #[must_use]
    pub fn new() -> Self {
        Self {
            address: Address::empty(),
            functions: [
                Table::new(0, 0, HOST_BRIDGE),
                Table::new(1, 0, ISA_BRIDGE),
                Table::new(1, 3, POWER_MANAGEMENT),
            ],
        }
    }

    /// CONFIG_ADDRESS. Only a doubleword access to 0xCF8 reaches it.
    #[must_use]
    pub fn address(&self) -> u32 {
        self.address.bits()
    }

    /// Writes CONFIG_ADDRESS; reserved bits read 0.
    pub fn set_address(&mut self, value: u32) {
        self.address = Address::from_bits_truncate(value);
    }

    /// Whether 0xCFC to 0xCFF are CONFIG_DATA rather than ordinary ports.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.address.contains(Address::ENABLE)
    }

    /// The slot that CONFIG_ADDRESS names, if it is on bus 0.
    fn slot(&self) -> Option<Slot> {
        let field = |mask: Address| (self.address & mask).bits() >> mask.bits().trailing_zeros();
        (field(Address::BUS) == 0).then(|| Slot {
            device: field(Address::DEVICE) as u8,
            function: field(Address::FUNCTION) as u8,
        })
    }

    fn register(&self) -> u8 {
        (self.address & Address::REGISTER).bits() as u8
    }

    fn function(&self) -> Option<&dyn Function> {
        let slot = self.slot()?;
        let table = self
            .functions
            .iter()
            .find(|function| function.slot == slot)?;
        Some(table)
    }

    fn function_mut(&mut self) -> Option<&mut dyn Function> {
        let slot = self.slot()?;
        let table = self
            .functions
            .iter_mut()
            .find(|function| function.slot == slot)?;
        Some(table)
    }

    /// The addressed register as CONFIG_DATA reads it; a function that is absent reads all ones.
    #[must_use]
    pub fn read(&self) -> u32 {
        self.function()
            .map_or(u32::MAX, |function| function.read(self.register()))
    }

    /// Writes those bits of the addressed register that are set in `lanes`.
    pub fn write(&mut self, value: u32, lanes: u32) {
        let register = self.register();
        if let Some(function) = self.function_mut() {
            function.write(register, value, lanes);
        }
    }

    /// The bus's state.
    #[must_use]
    pub fn save(&self) -> PciStateV1 {
        let functions = self.functions.iter().map(|table| FunctionStateV1 {
            device: table.slot.device,
            function: table.slot.function,
            values: table.values.clone(),
        });
        PciStateV1 {
            address: self.address.bits(),
            functions: functions.collect(),
        }
    }

    /// The bus in a saved state.
    ///
    /// # Errors
    ///
    /// [`StateError::Invalid`] for other functions than this bus has, or for values that a register cannot hold.
    pub fn restore(state: &PciStateV1) -> Result<Self, StateError> {
        let invalid = StateError::Invalid("PCI: functions");
        let mut pci = Self::new();
        pci.address =
            Address::from_bits(state.address).ok_or(StateError::Invalid("PCI: address"))?;
        if state.functions.len() != pci.functions.len() {
            return Err(invalid);
        }
        for (table, saved) in pci.functions.iter_mut().zip(&state.functions) {
            let slot = Slot {
                device: saved.device,
                function: saved.function,
            };
            if table.slot != slot || saved.values.len() != table.values.len() {
                return Err(invalid);
            }
            for (register, value) in table.definition.iter().zip(&saved.values) {
                if (value ^ register.initial) & !register.writable != 0 {
                    return Err(StateError::Invalid("PCI: read-only register"));
                }
            }
            table.values.clone_from(&saved.values);
        }
        Ok(pci)
    }
}

impl Default for Pci {
    fn default() -> Self {
        Self::new()
    }
}

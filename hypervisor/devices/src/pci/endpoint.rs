//! The configuration header of a device: type 0, with base address registers and an interrupt pin.
//!
//! Source: PCI Local Bus 3.0, chapter 6.

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use super::router;
use crate::acpi::pci_input;
use crate::pc::StateError;

/// Base address registers of a header.
const BARS: usize = 6;
/// The interrupt pin.
const PIN_A: u8 = 0;
/// Where capabilities begin.
pub(crate) const CAPABILITIES: u8 = 0x40;
/// I/O below is the board's own: a base address there decodes nothing.
pub(crate) const IO_FIRST: u32 = 0x1000;
/// Where the firmware puts the ports of device 0, and how many it keeps for each device.
const FIRMWARE_IO: u32 = 0xC000;
const FIRMWARE_IO_STEP: u32 = 0x100;

bitflags! {
    /// The command register (6.2.2).
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(crate) struct Command: u16 {
        /// I/O base addresses decode.
        const IO = 1 << 0;
        /// Memory base addresses decode.
        const MEMORY = 1 << 1;
        /// The device may access memory and send messages.
        const MASTER = 1 << 2;
        /// The interrupt pin is off.
        const INTX_DISABLE = 1 << 10;
    }

    /// The status register (6.2.3).
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Status: u16 {
        /// The device asks for the interrupt pin.
        const INTERRUPT = 1 << 3;
        /// There are capabilities.
        const CAPABILITIES = 1 << 4;
    }
}

/// What a base address register claims.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bar {
    /// Nothing: it reads 0.
    None,
    /// Ports, a power of two of them from 4 to 256.
    Io(u16),
    /// Bytes of memory below 4 GiB, a power of two from 16 on.
    Memory(u32),
}

impl Bar {
    /// The bits that can be programmed. Those of an I/O base above 64 KiB cannot, as on any PC (6.2.5.1).
    const fn writable(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Io(size) => 0xFFFF & !(size as u32 - 1),
            Self::Memory(size) => !(size - 1),
        }
    }

    /// The bits that say what it is.
    const fn kind(self) -> u32 {
        match self {
            Self::Io(_) => 1,
            Self::None | Self::Memory(_) => 0,
        }
    }
}

/// What does not change about a header.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    /// Base class, sub-class, interface.
    pub(crate) class: u32,
    pub(crate) revision: u8,
    pub(crate) subsystem_vendor: u16,
    pub(crate) subsystem: u16,
    /// Whether there are capabilities, from [`CAPABILITIES`] on.
    pub(crate) capabilities: bool,
    pub(crate) bars: [Bar; BARS],
}

/// The saved state of a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStateV1 {
    /// Command register.
    pub command: u16,
    /// Base addresses, without the bits that say what they are.
    pub bases: [u32; BARS],
    /// Interrupt line register.
    pub line: u8,
}

/// A header. The device has one function and interrupt pin A.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The device number on the bus.
    device: u8,
    identity: Identity,
    /// What the firmware put into the base address registers.
    firmware: [u32; BARS],
    command: Command,
    bases: [u32; BARS],
    line: u8,
}

impl Endpoint {
    /// The header of device `device` as firmware leaves it: with base addresses, decoding them, and with the interrupt
    /// line to which it routed the pin.
    pub(crate) fn new(device: u8, identity: Identity, firmware: [u32; BARS]) -> Self {
        Self {
            device,
            identity,
            firmware,
            command: Command::IO | Command::MEMORY,
            bases: firmware,
            line: router::firmware_line(device, PIN_A),
        }
    }

    /// A reset of the board, and the firmware after it.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.device, self.identity, self.firmware);
    }

    /// The device number on the bus.
    pub(crate) const fn device(&self) -> u8 {
        self.device
    }

    pub(crate) fn command(&self) -> Command {
        self.command
    }

    /// The I/O APIC's input that the device's pin drives, if it `asks` and may use it.
    pub(crate) fn input(&self, asks: bool) -> Option<u8> {
        let off = self.command.contains(Command::INTX_DISABLE);
        (asks && !off).then(|| pci_input(self.device, PIN_A))
    }

    /// Reads a register of the header. `interrupt` is whether the device asks for its pin.
    pub(crate) fn read(&self, register: u8, interrupt: bool) -> u32 {
        let pair = |low: u16, high: u16| u32::from(high) << 16 | u32::from(low);
        let identity = &self.identity;
        match register {
            0x00 => pair(identity.vendor, identity.device),
            0x04 => {
                let mut status = Status::empty();
                status.set(Status::CAPABILITIES, identity.capabilities);
                status.set(Status::INTERRUPT, interrupt);
                pair(self.command.bits(), status.bits())
            }
            0x08 => identity.class << 8 | u32::from(identity.revision),
            0x10..=0x24 => match bar(register) {
                Some(at) => {
                    let kind = identity.bars.get(at).map_or(0, |bar| bar.kind());
                    self.bases.get(at).map_or(0, |base| base | kind)
                }
                None => 0,
            },
            0x2C => pair(identity.subsystem_vendor, identity.subsystem),
            0x34 if identity.capabilities => u32::from(CAPABILITIES),
            // Pins are counted from 1 here.
            0x3C => u32::from(PIN_A + 1) << 8 | u32::from(self.line),
            _ => 0,
        }
    }

    /// Writes those bits of a register of the header that are set in `lanes`.
    pub(crate) fn write(&mut self, register: u8, value: u32, lanes: u32) {
        match register {
            0x04 => {
                let kept = u32::from(self.command.bits()) & !lanes;
                self.command = Command::from_bits_truncate((kept | value & lanes) as u16);
            }
            0x10..=0x24 => {
                let at = bar(register).unwrap_or(BARS);
                if let (Some(base), Some(bar)) =
                    (self.bases.get_mut(at), self.identity.bars.get(at))
                {
                    *base = (*base & !lanes | value & lanes) & bar.writable();
                }
            }
            0x3C if lanes & 0xFF != 0 => self.line = value as u8,
            _ => {}
        }
    }

    /// The first port of a base address register, if it decodes ports.
    pub(crate) fn io_base(&self, at: usize) -> Option<u16> {
        let decodes = self.command.contains(Command::IO)
            && matches!(self.identity.bars.get(at), Some(Bar::Io(_)));
        let base = *self.bases.get(at).filter(|_| decodes)?;
        u16::try_from(base).ok().filter(|_| base >= IO_FIRST)
    }

    /// The first byte of a base address register, if it decodes memory.
    pub(crate) fn memory_base(&self, at: usize) -> Option<u64> {
        let decodes = self.command.contains(Command::MEMORY)
            && matches!(self.identity.bars.get(at), Some(Bar::Memory(_)));
        let base = *self.bases.get(at).filter(|_| decodes)?;
        (base != 0).then_some(u64::from(base))
    }

    pub(crate) fn save(&self) -> EndpointStateV1 {
        EndpointStateV1 {
            command: self.command.bits(),
            bases: self.bases,
            line: self.line,
        }
    }

    pub(crate) fn restore(&mut self, state: &EndpointStateV1) -> Result<(), StateError> {
        let invalid = StateError::Invalid("PCI: device header");
        self.command = Command::from_bits(state.command).ok_or(invalid)?;
        for (bar, base) in self.identity.bars.iter().zip(state.bases) {
            if base & !bar.writable() != 0 {
                return Err(invalid);
            }
        }
        self.bases = state.bases;
        self.line = state.line;
        Ok(())
    }
}

/// Where the firmware puts the ports of a device, which are at most 256.
pub(crate) fn firmware_io(device: u8) -> u32 {
    FIRMWARE_IO + FIRMWARE_IO_STEP * u32::from(device)
}

/// Whether a write to a register of the header can move or switch what a device decodes.
pub(crate) const fn moves(register: u8) -> bool {
    matches!(register, 0x04 | 0x10..=0x24)
}

/// Which base address register a register is.
const fn bar(register: u8) -> Option<usize> {
    match register.checked_sub(0x10) {
        Some(offset) => Some(offset as usize / 4),
        None => None,
    }
}

//! One function on the bus: its header, its address ranges, its capabilities.

use super::{Configuration, Message, PciAddress};
use alloc::vec::Vec;
use bitflags::bitflags;
use core::ops::Range;

/// Byte offsets of the header's double words (section 6.1).
mod offset {
    pub(super) const IDENTITY: u8 = 0x00;
    pub(super) const COMMAND: u8 = 0x04;
    pub(super) const CLASS: u8 = 0x08;
    pub(super) const HEADER_TYPE: u8 = 0x0C;
    pub(super) const BARS: u8 = 0x10;
    /// Of a bridge (PCI-to-PCI Bridge Architecture Specification 1.2, section 3.2.5).
    pub(super) const BUS_NUMBERS: u8 = 0x18;
    pub(super) const CAPABILITIES: u8 = 0x34;
    pub(super) const INTERRUPT: u8 = 0x3C;
}

bitflags! {
    /// The command register (section 6.2.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Command: u16 {
        /// Answers at I/O ports.
        const IO = 1 << 0;
        /// Answers at memory addresses.
        const MEMORY = 1 << 1;
        /// May access memory by itself, and send messages.
        const BUS_MASTER = 1 << 2;
        /// Must not use its interrupt pin.
        const INTERRUPT_DISABLE = 1 << 10;
        const _ = !0;
    }
}

/// An address range that a function answers at (section 6.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bar {
    /// I/O ports.
    Io(Range<u32>),
    /// Memory.
    Memory(Range<u64>),
}

/// Kinds of capabilities (appendix H).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Message-signalled interrupts (section 6.8.1).
    Msi = 0x05,
    /// PCI Express (PCI Express Base Specification 3.0, section 7.8).
    Express = 0x10,
}

/// A function on the PCI bus.
#[derive(Clone)]
pub struct Function {
    configuration: &'static dyn Configuration,
    address: PciAddress,
    vendor: u16,
    device: u16,
    bridge: Option<PciAddress>,
}

impl Function {
    /// `None` if there is no such function.
    pub(super) fn find(
        configuration: &'static dyn Configuration,
        address: PciAddress,
    ) -> Option<Self> {
        const NOBODY: u16 = 0xFFFF;
        let identity = configuration.read(address, offset::IDENTITY);
        let vendor = identity as u16;
        (vendor != NOBODY).then_some(Self {
            configuration,
            address,
            vendor,
            device: (identity >> 16) as u16,
            bridge: None,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> PciAddress {
        self.address
    }

    /// Who made it, as a number.
    #[must_use]
    pub fn vendor(&self) -> u16 {
        self.vendor
    }

    /// What it is, as its vendor's number.
    #[must_use]
    pub fn device(&self) -> u16 {
        self.device
    }

    /// Class and subclass (appendix D).
    #[must_use]
    pub fn class(&self) -> (u8, u8) {
        let class = self.read(offset::CLASS);
        ((class >> 24) as u8, (class >> 16) as u8)
    }

    /// The interrupt line register: what the firmware routed its pin to, if it is to be believed. `None` without a pin.
    #[must_use]
    pub fn interrupt_line(&self) -> Option<u8> {
        let [line, pin, ..] = self.read(offset::INTERRUPT).to_le_bytes();
        (pin != 0).then_some(line)
    }

    /// The bridge that its bus is behind, as [`super::enumerate`] found it.
    #[must_use]
    pub fn bridge(&self) -> Option<PciAddress> {
        self.bridge
    }

    pub(super) fn has_siblings(&self) -> bool {
        self.header_type() & 0x80 != 0
    }

    /// The bus behind it, if it is a bridge.
    pub(super) fn secondary_bus(&self) -> Option<u8> {
        const BRIDGE: u8 = 1;
        (self.header_type() & 0x7F == BRIDGE).then(|| (self.read(offset::BUS_NUMBERS) >> 8) as u8)
    }

    pub(super) fn set_bridge(&mut self, bridge: Option<PciAddress>) {
        self.bridge = bridge;
    }

    fn header_type(&self) -> u8 {
        (self.read(offset::HEADER_TYPE) >> 16) as u8
    }

    /// The command register.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::from_bits_retain(self.read(offset::COMMAND) as u16)
    }

    /// Sets the command register.
    pub fn set_command(&self, command: Command) {
        // Writing zeroes to the status register, which is the upper half, changes nothing there.
        self.write(offset::COMMAND, u32::from(command.bits()));
    }

    /// Its address ranges that have an address, each with its index. Decoding is off for a moment.
    #[must_use]
    pub fn bars(&self) -> Vec<(u8, Bar)> {
        const BRIDGE: u8 = 1;
        let count = match self.header_type() & 0x7F {
            0 => 6,
            BRIDGE => 2,
            _ => 0,
        };
        let command = self.command();
        self.set_command(command - Command::IO - Command::MEMORY);
        let mut bars = Vec::new();
        let mut index = 0;
        while index < count {
            let (bar, registers) = self.read_bar(index, count);
            bars.extend(bar.map(|bar| (index, bar)));
            index += registers;
        }
        self.set_command(command);
        bars
    }

    /// The address range with this index, and how many registers it takes.
    fn read_bar(&self, index: u8, count: u8) -> (Option<Bar>, u8) {
        const IO: u32 = 1 << 0;
        const KIND: u32 = 0b11 << 1;
        const KIND_64: u32 = 0b10 << 1;
        let at = offset::BARS + 4 * index;
        let low = self.read(at);
        let low_mask = self.probe(at, low);
        if low & IO != 0 {
            let (base, mask) = (low & !0b11, low_mask & !0b11);
            // Devices may leave the upper half unimplemented.
            let size = (mask | 0xFFFF_0000).wrapping_neg();
            let there = mask != 0 && base != 0;
            return (there.then(|| Bar::Io(base..base.saturating_add(size))), 1);
        }
        let wide = low & KIND == KIND_64 && index + 1 < count;
        let (high, high_mask) = if wide {
            let high = self.read(at + 4);
            (high, self.probe(at + 4, high))
        } else {
            (0, u32::MAX)
        };
        let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low & !0b1111);
        let (base, mask) = (join(high, low), join(high_mask, low_mask));
        let there = low_mask & !0b1111 != 0 && base != 0;
        let range = base..base.saturating_add(mask.wrapping_neg());
        (there.then_some(Bar::Memory(range)), 1 + u8::from(wide))
    }

    /// What a BAR keeps of all ones; its value is put back.
    fn probe(&self, at: u8, value: u32) -> u32 {
        self.write(at, u32::MAX);
        let kept = self.read(at);
        self.write(at, value);
        kept
    }

    /// Where in configuration space a capability is (section 6.7).
    fn capability(&self, wanted: Capability) -> Option<u8> {
        const HAS_LIST: u32 = 1 << 20;
        /// As many as fit behind the header: a list that is longer runs in a circle.
        const MOST: usize = 48;
        if self.read(offset::COMMAND) & HAS_LIST == 0 {
            return None;
        }
        let mut at = self.read(offset::CAPABILITIES) as u8 & !3;
        for _ in 0..MOST {
            if at == 0 {
                break;
            }
            let [kind, next, ..] = self.read(at).to_le_bytes();
            if kind == wanted as u8 {
                return Some(at);
            }
            at = next & !3;
        }
        None
    }

    /// Whether it has this capability.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.capability(capability).is_some()
    }

    /// Makes it interrupt by this message instead of its pin. Returns whether it can.
    pub fn enable_message(&self, message: Message) -> bool {
        const ENABLE: u32 = 1 << 16;
        const SEVERAL: u32 = 0b111 << 20;
        const WIDE: u32 = 1 << 23;
        const MASKABLE: u32 = 1 << 24;
        let Some(at) = self.capability(Capability::Msi) else {
            return false;
        };
        let control = self.read(at) & !ENABLE & !SEVERAL;
        let wide = control & WIDE != 0;
        if message.address > u64::from(u32::MAX) && !wide {
            return false;
        }
        self.write(at, control);
        self.write(at + 4, message.address as u32);
        let mut next = at + 8;
        if wide {
            self.write(next, (message.address >> 32) as u32);
            next += 4;
        }
        self.write(next, message.data);
        if control & MASKABLE != 0 {
            self.write(next + 4, 0);
        }
        self.set_command(self.command() | Command::INTERRUPT_DISABLE);
        self.write(at, control | ENABLE);
        true
    }

    /// Makes it interrupt by its pin.
    pub fn enable_pin(&self) {
        const ENABLE: u32 = 1 << 16;
        if let Some(at) = self.capability(Capability::Msi) {
            self.write(at, self.read(at) & !ENABLE);
        }
        self.set_command(self.command() - Command::INTERRUPT_DISABLE);
    }

    /// Keeps its link out of the low-power states L0s and L1 (PCI Express Base Specification 3.0, sections 5.4.1 and 7.8.7):
    /// first at its own end, then at the bridge's.
    pub fn forbid_link_power_states(&self) {
        self.forbid_at_this_end();
        let bridge = self
            .bridge
            .and_then(|at| Self::find(self.configuration, at));
        if let Some(bridge) = bridge {
            bridge.forbid_at_this_end();
        }
    }

    fn forbid_at_this_end(&self) {
        const LINK_CONTROL: u8 = 0x10;
        const CONTROL: u32 = 0xFFFF;
        const L0S_AND_L1: u32 = 0b11;
        if let Some(at) = self.capability(Capability::Express) {
            // Writing zeroes to the status register, which is the upper half, changes nothing there.
            let control = self.read(at + LINK_CONTROL) & CONTROL & !L0S_AND_L1;
            self.write(at + LINK_CONTROL, control);
        }
    }

    fn read(&self, offset: u8) -> u32 {
        self.configuration.read(self.address, offset)
    }

    fn write(&self, offset: u8, value: u32) {
        self.configuration.write(self.address, offset, value);
    }
}

//! The RTL8029: an NE2000 that is a PCI function.
//!
//! Source: Realtek RTL8029AS data sheet, chapter 5.2.

use serde::{Deserialize, Serialize};

use super::{Ne2000, Ne2000StateV1, PORTS};
use crate::nic::NicConfig;
use crate::pc::StateError;
use crate::pci::endpoint::{self, Bar, Endpoint, EndpointStateV1, Identity};

/// The base address register of the ports.
const PORTS_BAR: usize = 0;

/// The saved state of an RTL8029.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtl8029StateV1 {
    /// The configuration header.
    pub endpoint: EndpointStateV1,
    /// The card.
    pub card: Ne2000StateV1,
}

/// An RTL8029.
#[derive(Clone, Debug)]
pub(crate) struct Rtl8029 {
    endpoint: Endpoint,
    pub(crate) card: Ne2000,
}

impl Rtl8029 {
    /// Device `device` of the bus, network card `nic` of the board.
    pub(crate) fn new(device: u8, nic: u8, config: &NicConfig) -> Self {
        const REALTEK: u16 = 0x10EC;
        const MODEL: u16 = 0x8029;
        let none = Bar::None;
        let header = Identity {
            vendor: REALTEK,
            device: MODEL,
            // Network controller, Ethernet.
            class: 0x02_0000,
            revision: 0,
            subsystem_vendor: REALTEK,
            subsystem: MODEL,
            capabilities: false,
            bars: [Bar::Io(PORTS), none, none, none, none, none],
        };
        let firmware = [endpoint::firmware_io(device), 0, 0, 0, 0, 0];
        Self {
            endpoint: Endpoint::new(device, header, firmware),
            card: Ne2000::realtek(nic, config),
        }
    }

    /// A reset of the board.
    pub(crate) fn reset(&mut self) {
        self.endpoint.reset();
        self.card.power_up();
    }

    /// The device number on the bus.
    pub(crate) const fn device(&self) -> u8 {
        self.endpoint.device()
    }

    /// The I/O APIC's input that the device asserts.
    pub(crate) fn line(&self) -> Option<u8> {
        self.endpoint.input(self.card.interrupt())
    }

    /// The first of the device's ports and how many they are, if it decodes them.
    pub(crate) fn ports(&self) -> Option<(u16, u16)> {
        Some((self.endpoint.io_base(PORTS_BAR)?, PORTS))
    }

    /// Reads a register of the configuration space.
    pub(crate) fn read_configuration(&self, register: u8) -> u32 {
        self.endpoint.read(register, self.card.interrupt())
    }

    /// Writes those bits of a register of the configuration space that are set in `lanes`.
    pub(crate) fn write_configuration(&mut self, register: u8, value: u32, lanes: u32) {
        self.endpoint.write(register, value, lanes);
    }

    pub(crate) fn save(&self) -> Rtl8029StateV1 {
        Rtl8029StateV1 {
            endpoint: self.endpoint.save(),
            card: self.card.save(),
        }
    }

    /// Takes on a saved state.
    pub(crate) fn restore(&mut self, state: &Rtl8029StateV1) -> Result<(), StateError> {
        self.endpoint.restore(&state.endpoint)?;
        self.card.restore(&state.card)
    }
}

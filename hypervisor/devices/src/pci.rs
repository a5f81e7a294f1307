//! PCI configuration mechanism 1, and the functions on bus 0.
//!
//! Sources: PCI Local Bus 3.0, 3.2.2.3.2 (the mechanism) and chapter 6 (the header); Intel 440FX data sheet (82441FX);
//! Intel 82371AB (PIIX4) data sheet.

mod decoder;
mod device;
pub(crate) mod endpoint;
mod functions;
pub(crate) mod msix;
pub(crate) mod router;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::msi::Dispatch;
use crate::ne2000::{Ne2000, Rtl8029};
use crate::nic::NicModel;
use crate::pc::{Effects, PcConfig, StateError};
use crate::time::Ticks;
use crate::virtio::{self, DISKS_MAX};
use crate::watchdog::Watchdog;
use decoder::Decoder;
pub(crate) use device::Device;
pub use device::DeviceStateV1;
use functions::{Definition, HOST_BRIDGE, ISA_BRIDGE, POWER_MANAGEMENT};
use router::Asserted;

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

/// The device number of the first device that is not the chipset's.
const FIRST_DEVICE: u8 = 2;

/// A function's place on bus 0.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

/// The saved state of a chipset's function: its registers' values in the order of its definition.
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
    /// The chipset's functions, in the order of their slots.
    pub functions: Vec<FunctionStateV1>,
    /// The devices, in the order of their slots.
    pub devices: Vec<DeviceStateV1>,
    /// Which of those is the next to work.
    pub turn: u8,
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

    /// Reads a register, named by its offset: 0 to 0xFC, a multiple of 4. Those that do not exist read 0.
    fn read(&self, register: u8) -> u32 {
        self.position(register)
            .and_then(|at| self.values.get(at))
            .copied()
            .unwrap_or(0)
    }

    /// Writes those bits of a register that are set in `lanes`.
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

    /// Takes on a saved state.
    fn restore(&mut self, saved: &FunctionStateV1) -> Result<(), StateError> {
        let slot = Slot {
            device: saved.device,
            function: saved.function,
        };
        if self.slot != slot || saved.values.len() != self.values.len() {
            return Err(StateError::Invalid("PCI: functions"));
        }
        for (register, value) in self.definition.iter().zip(&saved.values) {
            if (value ^ register.initial) & !register.writable != 0 {
                return Err(StateError::Invalid("PCI: read-only register"));
            }
        }
        self.values.clone_from(&saved.values);
        Ok(())
    }
}

/// What a configuration access reaches.
enum Target<'a> {
    Chipset(&'a mut Table),
    Device(&'a mut Device),
}

/// The host bridge's configuration mechanism with the chipset and the devices behind it.
#[derive(Clone, Debug)]
pub struct Pci {
    address: Address,
    functions: [Table; 3],
    devices: Vec<Device>,
    decoder: Decoder,
    /// Which of the devices is the next to work, so that none waits for another's end.
    turn: usize,
}

impl Pci {
    /// A bus with a 440FX host bridge, a PIIX4 ISA bridge and its power management function, virtio devices, network
    /// cards behind them, and the watchdog behind those.
    #[must_use]
    pub fn new(config: &PcConfig) -> Self {
        let mut virtio: Vec<virtio::Function> = Vec::new();
        let mut slots = FIRST_DEVICE..;
        for (number, disk) in (0..).zip(config.virtio.disks.iter().take(DISKS_MAX)) {
            virtio.extend(
                slots
                    .next()
                    .map(|at| virtio::Function::disk(at, number, *disk)),
            );
        }
        if config.virtio.console {
            virtio.extend(slots.next().map(virtio::Function::console));
        }
        if config.virtio.entropy {
            virtio.extend(slots.next().map(virtio::Function::entropy));
        }
        let mut devices: Vec<Device> = virtio.into_iter().map(Device::Virtio).collect();
        let cards = (0..).zip(&config.nics).filter_map(|(nic, config)| {
            let virtio = |at, pairs| Device::Virtio(virtio::Function::net(at, nic, config, pairs));
            Some(match config.model {
                NicModel::Virtio { pairs } => virtio(slots.next()?, pairs),
                NicModel::Rtl8029 => Device::Rtl8029(Rtl8029::new(slots.next()?, nic, config)),
                NicModel::Ne2000 { .. } => return None,
            })
        });
        devices.extend(cards);
        devices.extend(
            config
                .watchdog
                .zip(slots.next())
                .map(|(watchdog, at)| Device::Watchdog(Watchdog::new(at, config.tsc_hz, watchdog))),
        );
        let mut pci = Self {
            address: Address::empty(),
            functions: chipset(),
            devices,
            decoder: Decoder::new(),
            turn: 0,
        };
        pci.decoder.update(&pci.devices);
        pci
    }

    /// A reset of the board, and the firmware after it.
    pub fn reset(&mut self, effects: &mut impl Effects) {
        self.address = Address::empty();
        self.functions = chipset();
        for device in &mut self.devices {
            device.reset(effects);
        }
        self.decoder.update(&self.devices);
        self.turn = 0;
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

    /// What CONFIG_ADDRESS names, if there is something.
    fn target(&mut self) -> Option<Target<'_>> {
        let slot = self.slot()?;
        if let Some(table) = self.functions.iter_mut().find(|table| table.slot == slot) {
            return Some(Target::Chipset(table));
        }
        let there = |device: &&mut Device| slot.function == 0 && device.number() == slot.device;
        self.devices.iter_mut().find(there).map(Target::Device)
    }

    /// The addressed register as CONFIG_DATA reads it; a function that is absent reads all ones.
    pub fn read(&mut self) -> u32 {
        let register = self.register();
        match self.target() {
            Some(Target::Chipset(table)) => table.read(register),
            Some(Target::Device(device)) => device.read_configuration(register),
            None => u32::MAX,
        }
    }

    /// Writes those bits of the addressed register that are set in `lanes`.
    pub fn write(&mut self, value: u32, lanes: u32, now: Ticks, effects: &mut impl Effects) {
        let register = self.register();
        match self.target() {
            Some(Target::Chipset(table)) => table.write(register, value, lanes),
            Some(Target::Device(device)) => {
                device.write_configuration(register, value, lanes, now, effects);
                if endpoint::moves(register) {
                    self.decoder.update(&self.devices);
                }
            }
            None => {}
        }
    }

    /// The device that decodes a port, and the port's offset among its own.
    #[inline]
    pub(crate) fn port(&mut self, port: u16) -> Option<(&mut Device, u16)> {
        let device = self.devices.get_mut(self.decoder.find(port)?)?;
        let (first, _) = device.ports()?;
        Some((device, port - first))
    }

    /// The NE2000 that decodes a port, and the port's offset among its own.
    pub(crate) fn card_at(&mut self, port: u16) -> Option<(&mut Ne2000, u16)> {
        match self.port(port)? {
            (Device::Rtl8029(function), offset) => Some((&mut function.card, offset)),
            (Device::Virtio(_) | Device::Watchdog(_), _) => None,
        }
    }

    /// The virtio devices.
    fn virtio(&self) -> impl Iterator<Item = &virtio::Function> {
        self.devices.iter().filter_map(Device::virtio)
    }

    /// The virtio devices.
    fn virtio_mut(&mut self) -> impl Iterator<Item = &mut virtio::Function> {
        self.devices.iter_mut().filter_map(Device::virtio_mut)
    }

    /// The device that decodes an address, and its offset in what the device decodes.
    pub(crate) fn memory(&mut self, address: u64) -> Option<(&mut Device, u16)> {
        self.devices
            .iter_mut()
            .find_map(|device| device.address(address).map(|offset| (device, offset)))
    }

    /// Whether a device decodes an address.
    #[must_use]
    pub fn mapped(&self, address: u64) -> bool {
        self.devices
            .iter()
            .any(|device| device.address(address).is_some())
    }

    /// The watchdog, which is the last of the devices.
    pub(crate) fn watchdog(&self) -> Option<&Watchdog> {
        match self.devices.last() {
            Some(Device::Watchdog(watchdog)) => Some(watchdog),
            _ => None,
        }
    }

    /// The watchdog, which is the last of the devices.
    pub(crate) fn watchdog_mut(&mut self) -> Option<&mut Watchdog> {
        match self.devices.last_mut() {
            Some(Device::Watchdog(watchdog)) => Some(watchdog),
            _ => None,
        }
    }

    /// The console.
    pub(crate) fn console(&self) -> Option<&virtio::Function> {
        self.virtio().find(|function| function.is_console())
    }

    /// The console.
    pub(crate) fn console_mut(&mut self) -> Option<&mut virtio::Function> {
        self.virtio_mut().find(|function| function.is_console())
    }

    /// The virtio device that is network card `nic` of the board.
    pub(crate) fn nic(&mut self, nic: u8) -> Option<&mut virtio::Function> {
        self.virtio_mut()
            .find(|function| function.nic() == Some(nic))
    }

    /// The NE2000 that is network card `nic` of the board.
    pub(crate) fn card(&self, nic: u8) -> Option<&Ne2000> {
        self.devices.iter().find_map(|device| match device {
            Device::Rtl8029(function) if function.card.nic() == nic => Some(&function.card),
            _ => None,
        })
    }

    /// The NE2000 that is network card `nic` of the board.
    pub(crate) fn card_mut(&mut self, nic: u8) -> Option<&mut Ne2000> {
        self.devices.iter_mut().find_map(|device| match device {
            Device::Rtl8029(function) if function.card.nic() == nic => Some(&mut function.card),
            _ => None,
        })
    }

    /// Takes back what was lent to the world.
    pub(crate) fn rest(&mut self, effects: &mut impl Effects) {
        for function in self.virtio_mut() {
            function.take_back(effects);
        }
    }

    /// Lends it again.
    pub(crate) fn resume(&mut self, effects: &mut impl Effects) {
        for function in self.virtio_mut() {
            function.lend(effects);
        }
    }

    /// What devices assert.
    pub(crate) fn asserted(&self) -> Asserted {
        let inputs = self.devices.iter().filter_map(Device::line);
        let inputs = inputs.fold(0, |inputs, input| inputs | 1 << input);
        if inputs == 0 {
            return Asserted::default();
        }
        let [_, isa_bridge, _] = &self.functions;
        Asserted::routed(inputs, isa_bridge.read(router::REGISTER))
    }

    /// Sends the messages that wait.
    pub(crate) fn send(&mut self, mut to: impl FnMut(Dispatch)) {
        for device in &mut self.devices {
            device.send(&mut to);
        }
    }

    /// Whether a device has work left.
    pub(crate) fn working(&self) -> bool {
        self.devices.iter().any(Device::working)
    }

    /// Lets the next device that has work left do some.
    pub(crate) fn work(&mut self, effects: &mut impl Effects) {
        let count = self.devices.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            if let Some(device) = self.devices.get_mut(at)
                && device.working()
            {
                device.work(effects);
                self.turn = (at + 1) % count;
                return;
            }
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
            devices: self.devices.iter().map(Device::save).collect(),
            turn: self.turn as u8,
        }
    }

    /// The bus in a saved state.
    ///
    /// # Errors
    ///
    /// [`StateError`] for other functions than this bus has, or for values that a register cannot hold.
    pub fn restore(config: &PcConfig, state: &PciStateV1) -> Result<Self, StateError> {
        let mut pci = Self::new(config);
        pci.address =
            Address::from_bits(state.address).ok_or(StateError::Invalid("PCI: address"))?;
        pci.turn = usize::from(state.turn);
        if state.functions.len() != pci.functions.len()
            || state.devices.len() != pci.devices.len()
            || pci.turn > pci.devices.len().saturating_sub(1)
        {
            return Err(StateError::Devices);
        }
        for (table, saved) in pci.functions.iter_mut().zip(&state.functions) {
            table.restore(saved)?;
        }
        for (device, saved) in pci.devices.iter_mut().zip(&state.devices) {
            device.restore(saved)?;
        }
        pci.decoder.update(&pci.devices);
        Ok(pci)
    }
}

fn chipset() -> [Table; 3] {
    [
        Table::new(0, 0, HOST_BRIDGE),
        Table::new(1, 0, ISA_BRIDGE),
        Table::new(1, 3, POWER_MANAGEMENT),
    ]
}

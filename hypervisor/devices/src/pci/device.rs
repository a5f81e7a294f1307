//! A device on the bus, whatever it is.

use serde::{Deserialize, Serialize};

use crate::msi::Dispatch;
use crate::ne2000::{Rtl8029, Rtl8029StateV1};
use crate::pc::{Effects, StateError, Width};
use crate::time::Ticks;
use crate::virtio;
use crate::watchdog::{Watchdog, WatchdogStateV1};

/// The saved state of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceStateV1 {
    /// A virtio device.
    Virtio(virtio::FunctionStateV1),
    /// A network card.
    Rtl8029(Rtl8029StateV1),
    /// A watchdog.
    Watchdog(WatchdogStateV1),
}

/// A device.
#[derive(Clone, Debug)]
pub(crate) enum Device {
    Virtio(virtio::Function),
    Rtl8029(Rtl8029),
    Watchdog(Watchdog),
}

impl Device {
    /// A reset of the board.
    pub(super) fn reset(&mut self, effects: &mut impl Effects) {
        match self {
            Self::Virtio(function) => function.reset(effects),
            Self::Rtl8029(function) => function.reset(),
            Self::Watchdog(watchdog) => watchdog.reset(),
        }
    }

    /// The device number.
    pub(super) const fn number(&self) -> u8 {
        match self {
            Self::Virtio(function) => function.device(),
            Self::Rtl8029(function) => function.device(),
            Self::Watchdog(watchdog) => watchdog.device(),
        }
    }

    /// The virtio device.
    pub(super) const fn virtio(&self) -> Option<&virtio::Function> {
        match self {
            Self::Virtio(function) => Some(function),
            Self::Rtl8029(_) | Self::Watchdog(_) => None,
        }
    }

    /// The virtio device.
    pub(super) const fn virtio_mut(&mut self) -> Option<&mut virtio::Function> {
        match self {
            Self::Virtio(function) => Some(function),
            Self::Rtl8029(_) | Self::Watchdog(_) => None,
        }
    }

    /// The input of the I/O APIC that the device asserts.
    pub(super) fn line(&self) -> Option<u8> {
        match self {
            Self::Virtio(function) => function.line(),
            Self::Rtl8029(function) => function.line(),
            Self::Watchdog(watchdog) => watchdog.line(),
        }
    }

    /// Sends the messages that wait.
    pub(super) fn send(&mut self, to: impl FnMut(Dispatch)) {
        if let Self::Virtio(function) = self {
            function.send(to);
        }
    }

    /// Whether there is work left.
    pub(super) fn working(&self) -> bool {
        match self {
            Self::Virtio(function) => function.working(),
            Self::Rtl8029(function) => function.card.working(),
            Self::Watchdog(_) => false,
        }
    }

    /// Does some of it.
    pub(super) fn work(&mut self, effects: &mut impl Effects) {
        match self {
            Self::Virtio(function) => function.work(effects),
            Self::Rtl8029(function) => function.card.work(effects),
            Self::Watchdog(_) => {}
        }
    }

    /// The first of the device's ports and how many they are, if it decodes them: a power of two from 32 on.
    pub(super) fn ports(&self) -> Option<(u16, u16)> {
        match self {
            Self::Virtio(function) => function.ports(),
            Self::Rtl8029(function) => function.ports(),
            Self::Watchdog(_) => None,
        }
    }

    /// A read of `width` from the port at `offset`.
    pub(crate) fn read_port(
        &mut self,
        offset: u16,
        width: Width,
        effects: &mut impl Effects,
    ) -> u32 {
        match self {
            Self::Virtio(function) => function.read_port(offset, width),
            Self::Rtl8029(function) => function.card.read_port(offset, width, effects),
            // It has none.
            Self::Watchdog(_) => width.mask(),
        }
    }

    /// A write of `width` to the port at `offset`.
    pub(crate) fn write_port(
        &mut self,
        offset: u16,
        width: Width,
        value: u32,
        effects: &mut impl Effects,
    ) {
        match self {
            Self::Virtio(function) => function.write_port(offset, width, value, effects),
            Self::Rtl8029(function) => function.card.write_port(offset, width, value, effects),
            Self::Watchdog(_) => {}
        }
    }

    /// The offset of an address in the memory that the device decodes.
    pub(super) fn address(&self, address: u64) -> Option<u16> {
        match self {
            Self::Virtio(function) => function.address(address),
            Self::Rtl8029(_) => None,
            Self::Watchdog(watchdog) => watchdog.address(address),
        }
    }

    /// The doubleword at `offset`, a multiple of 4, in the device's memory.
    pub(crate) fn read_memory(&self, offset: u16) -> u32 {
        match self {
            Self::Virtio(function) => function.read_memory(offset),
            // It has none.
            Self::Rtl8029(_) => u32::MAX,
            Self::Watchdog(watchdog) => watchdog.read_memory(offset),
        }
    }

    /// Writes those bits of the doubleword at `offset`, a multiple of 4, in the device's memory that are set in `lanes`.
    pub(crate) fn write_memory(&mut self, offset: u16, value: u32, lanes: u32, now: Ticks) {
        match self {
            // Only whole entries of the table can be written.
            Self::Virtio(function) if lanes == u32::MAX => function.write_memory(offset, value),
            Self::Virtio(_) | Self::Rtl8029(_) => {}
            Self::Watchdog(watchdog) => watchdog.write_memory(offset, value, lanes, now),
        }
    }

    /// Reads a register of the configuration space.
    pub(super) fn read_configuration(&mut self, register: u8) -> u32 {
        match self {
            Self::Virtio(function) => function.read_configuration(register),
            Self::Rtl8029(function) => function.read_configuration(register),
            Self::Watchdog(watchdog) => watchdog.read_configuration(register),
        }
    }

    /// Writes those bits of a register of the configuration space that are set in `lanes`.
    pub(super) fn write_configuration(
        &mut self,
        register: u8,
        value: u32,
        lanes: u32,
        now: Ticks,
        effects: &mut impl Effects,
    ) {
        match self {
            Self::Virtio(function) => {
                function.write_configuration(register, value, lanes, effects);
            }
            Self::Rtl8029(function) => function.write_configuration(register, value, lanes),
            Self::Watchdog(watchdog) => watchdog.write_configuration(register, value, lanes, now),
        }
    }

    pub(super) fn save(&self) -> DeviceStateV1 {
        match self {
            Self::Virtio(function) => DeviceStateV1::Virtio(function.save()),
            Self::Rtl8029(function) => DeviceStateV1::Rtl8029(function.save()),
            Self::Watchdog(watchdog) => DeviceStateV1::Watchdog(watchdog.save()),
        }
    }

    /// Takes on a saved state.
    pub(super) fn restore(&mut self, state: &DeviceStateV1) -> Result<(), StateError> {
        match (self, state) {
            (Self::Virtio(function), DeviceStateV1::Virtio(state)) => function.restore(state),
            (Self::Rtl8029(function), DeviceStateV1::Rtl8029(state)) => function.restore(state),
            (Self::Watchdog(watchdog), DeviceStateV1::Watchdog(state)) => watchdog.restore(state),
            _ => Err(StateError::Devices),
        }
    }
}

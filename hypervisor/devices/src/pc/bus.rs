//! The buses' place on the board: ports and memory of devices, their interrupts and their work.

use super::ports::lanes;
use super::{Effects, Pc, Width};
use crate::pci::Pci;
use crate::time::Ticks;

/// Ticks from the start of a device's work to where it goes on with what it left: more than one go takes, so that the
/// guest runs in between.
const WORK_PAUSE: u64 = 10_000;

impl Pc {
    /// A read of a device's ports, if it is one. The bus is to be settled then.
    pub(super) fn read_device(
        &mut self,
        port: u16,
        width: Width,
        effects: &mut impl Effects,
    ) -> Option<u32> {
        let (device, offset) = self.pci.as_mut()?.port(port)?;
        Some(device.read_port(offset, width, effects))
    }

    /// A write to a device's ports; whether it was one. The bus is to be settled then.
    pub(super) fn write_device(
        &mut self,
        port: u16,
        width: Width,
        value: u32,
        effects: &mut impl Effects,
    ) -> bool {
        let Some((device, offset)) = self.pci.as_mut().and_then(|pci| pci.port(port)) else {
            return false;
        };
        device.write_port(offset, width, value, effects);
        true
    }

    /// Whether a device on the PCI bus is mapped at a guest-physical address.
    #[must_use]
    pub fn mapped(&self, address: u64) -> bool {
        self.pci.as_ref().is_some_and(|pci| pci.mapped(address))
    }

    /// A read of `size` bytes (1, 2, 4 or 8) from a device that is mapped into memory. It sees an aligned register of
    /// that size or, as far as it does not, 0.
    #[must_use]
    pub fn memory_read(&mut self, address: u64, size: u32, now: Ticks) -> u64 {
        self.tick(now);
        let Some((device, offset)) = self.pci.as_mut().and_then(|pci| pci.memory(address)) else {
            return u64::MAX;
        };
        let low = u64::from(device.read_memory(offset & !3));
        match size {
            8 if offset.is_multiple_of(8) => low | u64::from(device.read_memory(offset + 4)) << 32,
            _ => low >> (8 * (offset & 3)),
        }
    }

    /// A write of `size` bytes (1, 2, 4 or 8) to a device that is mapped into memory. What is not within a doubleword, or
    /// an aligned quadword, is not written.
    pub fn memory_write(&mut self, address: u64, size: u32, value: u64, now: Ticks) {
        self.tick(now);
        let Some((device, offset)) = self.pci.as_mut().and_then(|pci| pci.memory(address)) else {
            return;
        };
        let width = match size {
            1 => Width::Byte,
            2 => Width::Word,
            4 => Width::Dword,
            8 if offset.is_multiple_of(8) => {
                device.write_memory(offset, value as u32, u32::MAX, now);
                device.write_memory(offset + 4, (value >> 32) as u32, u32::MAX, now);
                return self.settle_function(now);
            }
            _ => return,
        };
        let within = (offset & 3) as u8;
        if let Some(lanes) = lanes(within, width) {
            device.write_memory(offset & !3, (value as u32) << (8 * within), lanes, now);
            self.settle_function(now);
        }
    }

    /// After a write to what devices have beside ports: memory and configuration.
    pub(super) fn settle_function(&mut self, now: Ticks) {
        self.settle_bus(now);
        self.settle_watchdog();
    }

    /// Lets devices go on with work that they left.
    #[cold]
    #[inline(never)]
    pub(super) fn work(&mut self, now: Ticks, effects: &mut impl Effects) {
        self.work_next = Ticks::NEVER;
        if let Some(pci) = &mut self.pci {
            pci.work(effects);
        }
        for adapter in &mut self.adapters {
            if adapter.card.working() {
                adapter.card.work(effects);
            }
        }
        self.settle_bus(now);
        self.rearm();
    }

    /// There is no time for devices' work now.
    #[cold]
    pub(super) fn put_work_off(&mut self, now: Ticks) {
        self.work_next = Ticks(now.0.saturating_add(WORK_PAUSE));
        self.rearm();
    }

    /// Lines, messages and work after anything that happened on a bus.
    pub(super) fn settle_bus(&mut self, now: Ticks) {
        self.settle_lines();
        if let Some(pci) = &mut self.pci {
            pci.send(|dispatch| self.lines.send(dispatch));
        }
        let working = self.working();
        if working != (self.work_next != Ticks::NEVER) {
            self.work_next = if working {
                Ticks(now.0.saturating_add(WORK_PAUSE))
            } else {
                Ticks::NEVER
            };
            self.rearm();
        }
    }

    /// Whether devices have work left.
    pub(super) fn working(&self) -> bool {
        self.pci.as_ref().is_some_and(Pci::working)
            || self.adapters.iter().any(|adapter| adapter.card.working())
    }

    pub(super) fn settle_lines(&mut self) {
        self.settle_adapters();
        if let Some(pci) = &self.pci {
            self.lines.set_pci(pci.asserted());
        }
    }
}

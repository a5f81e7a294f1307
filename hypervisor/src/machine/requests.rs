//! What the devices reach of the world: the guest's memory and console, and the end of its run.

use super::Machine;
use super::exits::End;
use crate::console;
use crate::memory::OutOfBounds;
use devices::virtio::{Fault, Part};
use devices::{DiskError, Effects, OutsideMemory, ResetCause};
use log::{debug, warn};

/// What the devices ask for in the course of an access.
pub(super) struct Requests {
    machine: &'static Machine,
    end: Option<End>,
}

impl Requests {
    pub(super) const fn new(machine: &'static Machine) -> Self {
        Self { machine, end: None }
    }

    /// The end of the run, if that was asked for.
    #[inline(always)]
    pub(super) fn end(self) -> Option<End> {
        self.end
    }
}

fn outside(error: OutOfBounds) -> OutsideMemory {
    OutsideMemory(error.address)
}

impl Effects for Requests {
    fn console_output(&mut self, byte: u8) {
        console::write_guest(self.machine.handle, byte);
    }

    fn reset(&mut self, _cause: ResetCause) {
        self.end = Some(End::Reset);
    }

    fn power_off(&mut self) {
        self.end = Some(End::PowerOff);
    }

    fn read_memory(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), OutsideMemory> {
        self.machine.memory.read(address, bytes).map_err(outside)
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), OutsideMemory> {
        self.machine.memory.write(address, bytes).map_err(outside)
    }

    fn load_u16(&mut self, address: u64) -> Result<u16, OutsideMemory> {
        self.machine.memory.load_u16(address).map_err(outside)
    }

    fn store_u16(&mut self, address: u64, value: u16) -> Result<(), OutsideMemory> {
        self.machine
            .memory
            .store_u16(address, value)
            .map_err(outside)
    }

    fn read_disk(&mut self, _disk: u8, _offset: u64, _into: Part) -> Result<(), DiskError> {
        Err(DiskError::Disk)
    }

    fn write_disk(&mut self, _disk: u8, _offset: u64, _from: Part) -> Result<(), DiskError> {
        Err(DiskError::Disk)
    }

    fn flush_disk(&mut self, _disk: u8) -> Result<(), DiskError> {
        Err(DiskError::Disk)
    }

    fn virtio_console_output(&mut self, bytes: &[u8]) {
        for byte in bytes {
            console::write_guest(self.machine.handle, *byte);
        }
    }

    fn entropy(&mut self, _bytes: &mut [u8]) -> usize {
        0
    }

    fn device_stopped(&mut self, device: u8, fault: Fault, count: u32) {
        let name = &self.machine.handle.name;
        // A guest that does nothing else does not fill the log.
        if count.is_power_of_two() {
            warn!("{name}: PCI device {device} stopped ({count} times so far): {fault}");
        } else {
            debug!("{name}: PCI device {device} stopped: {fault}");
        }
    }
}

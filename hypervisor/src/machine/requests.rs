//! What the devices reach of the world: the guest's memory, disks and console, and the end of its run.

use super::Machine;
use super::disk::Disk;
use super::exits::End;
use crate::console;
use crate::memory::OutOfBounds;
use devices::nic::{Outgoing, Sent};
use devices::virtio::{Fault, Part, Receiver};
use devices::{DiskError, Effects, MemoryAccess, OutsideMemory, ResetCause};
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

    fn disk(&self, number: u8) -> Result<&Disk, DiskError> {
        let disk = self.machine.disks.get(usize::from(number));
        disk.ok_or(DiskError::Disk)
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

impl MemoryAccess for Requests {
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
}

impl Effects for Requests {
    fn console_output(&mut self, byte: u8) {
        console::write_guest(self.machine.handle, &[byte]);
    }

    fn reset(&mut self, _cause: ResetCause) {
        self.end = Some(End::Reset);
    }

    fn power_off(&mut self) {
        self.end = Some(End::PowerOff);
    }

    fn read_disk(&mut self, disk: u8, offset: u64, into: Part) -> Result<(), DiskError> {
        self.disk(disk)?.read(offset, &self.machine.memory, into)
    }

    fn write_disk(&mut self, disk: u8, offset: u64, from: Part) -> Result<(), DiskError> {
        self.disk(disk)?.write(offset, &self.machine.memory, from)
    }

    fn flush_disk(&mut self, disk: u8) -> Result<(), DiskError> {
        // What was written is in memory, where disks are.
        self.disk(disk).map(|_| ())
    }

    fn virtio_console_output(&mut self, bytes: &[u8]) {
        console::write_guest(self.machine.handle, bytes);
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> usize {
        self.machine
            .entropy
            .map_or(0, |generator| generator.fill(bytes))
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

    fn send_frame(&mut self, _nic: u8, _frame: &Outgoing<'_>) -> Result<Sent, OutsideMemory> {
        Ok(Sent::Done)
    }

    fn room_for_frames(&mut self, _nic: u8) {}

    fn lend_receiver(&mut self, _nic: u8, _receiver: Receiver) {}

    fn take_receiver(&mut self, _nic: u8) -> Option<Receiver> {
        None
    }
}

//! What the devices reach of the world: the guest's memory, disks and console, and the end of its run.

use super::disk::Disk;
use super::exits::End;
use super::{Ending, Machine};
use crate::console;
use crate::guest::WORK_NEAR;
use crate::memory::{GuestMemory, OutOfBounds};
use crate::mirror::Put;
use crate::network::{Frame, Rest};
use devices::nic::{Outgoing, Sent};
use devices::virtio::{Fault, Part, Receiver};
use devices::{DiskError, Effects, MemoryAccess, OutsideMemory, ResetCause};
use drivers::tsc;
use log::{debug, warn};

/// What the devices ask for in the course of an access.
pub(super) struct Requests {
    machine: &'static Machine,
    end: Option<End>,
    /// A card has room for frames that wait.
    made_room: bool,
}

impl Requests {
    pub(super) const fn new(machine: &'static Machine) -> Self {
        Self {
            machine,
            end: None,
            made_room: false,
        }
    }

    fn disk(&self, number: u8) -> Result<&Disk, DiskError> {
        let disk = self.machine.disks.get(usize::from(number));
        disk.ok_or(DiskError::Disk)
    }

    /// Text leaves for the console.
    fn say(&self, text: &[u8]) {
        let guest = self.machine.handle;
        match guest
            .outputs
            .as_ref()
            .map(|outputs| outputs.put_console(text))
        {
            None | Some(Put::Passes) => console::write_guest(guest, text),
            Some(Put::Held) => {}
            // A console has no way to have a guest wait.
            Some(Put::Full) => debug!("{}: there is no room for its text", guest.name),
        }
    }

    /// Whether a card has room for frames that wait.
    #[inline(always)]
    pub(super) const fn made_room(&self) -> bool {
        self.made_room
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

impl MemoryAccess for &GuestMemory {
    fn read_memory(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), OutsideMemory> {
        self.read(address, bytes).map_err(outside)
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), OutsideMemory> {
        self.write(address, bytes).map_err(outside)
    }

    fn load_u16(&mut self, address: u64) -> Result<u16, OutsideMemory> {
        GuestMemory::load_u16(self, address).map_err(outside)
    }

    fn store_u16(&mut self, address: u64, value: u16) -> Result<(), OutsideMemory> {
        GuestMemory::store_u16(self, address, value).map_err(outside)
    }
}

impl MemoryAccess for Requests {
    fn read_memory(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), OutsideMemory> {
        self.machine.memory().read_memory(address, bytes)
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), OutsideMemory> {
        self.machine.memory().write_memory(address, bytes)
    }

    fn load_u16(&mut self, address: u64) -> Result<u16, OutsideMemory> {
        MemoryAccess::load_u16(&mut self.machine.memory(), address)
    }

    fn store_u16(&mut self, address: u64, value: u16) -> Result<(), OutsideMemory> {
        MemoryAccess::store_u16(&mut self.machine.memory(), address, value)
    }
}

impl Effects for Requests {
    fn console_output(&mut self, byte: u8) {
        self.say(&[byte]);
    }

    fn reset(&mut self, _cause: ResetCause) {
        self.end = Some(End::Reset);
    }

    fn power_off(&mut self) {
        self.end = Some(End::PowerOff);
    }

    fn watchdog_expired(&mut self) {
        // Whoever brings the devices up to date is told, in the midst of anything.
        if let Some(policy) = self.machine.config.watchdog {
            self.machine.end_run(Some(Ending::Watchdog(policy)));
        }
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
        self.say(bytes);
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

    fn has_time(&mut self) -> bool {
        let guest = self.machine.handle;
        !guest.urgent || !guest.is_about_due(tsc::read(), WORK_NEAR)
    }

    fn send_frame(&mut self, nic: u8, frame: &Outgoing<'_>) -> Result<Sent, OutsideMemory> {
        let memory = &self.machine.memory;
        for part in frame.rest {
            if !memory.contains(part.address, u64::from(part.length)) {
                return Err(OutsideMemory(part.address));
            }
        }
        if !self.has_time() {
            return Ok(Sent::Busy);
        }
        let rest = Rest::Guest(memory, frame.rest);
        Ok(self.machine.network.put(
            self.machine.handle,
            nic,
            &Frame::new(frame.head, rest, frame.offload),
        ))
    }

    fn room_for_frames(&mut self, nic: u8) {
        if self.machine.network.waits_for_room(nic) {
            self.machine.handle.note_network();
            self.made_room = true;
        }
    }

    fn lend_receiver(&mut self, nic: u8, receiver: Receiver) {
        self.machine.network.lend(nic, receiver);
    }

    fn take_receiver(&mut self, nic: u8) -> Option<Receiver> {
        self.machine.network.take_back(nic)
    }
}

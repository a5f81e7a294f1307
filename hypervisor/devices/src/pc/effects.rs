//! The devices' way to the world.

use core::fmt;

use crate::nic::{Outgoing, Sent};
use crate::virtio::{Fault, Part, Receiver};

use super::ResetCause;

/// An access to guest memory that is, not wholly inside, at this guest-physical address. Nothing was copied.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct OutsideMemory(pub u64);

impl fmt::Display for OutsideMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} is outside the guest's memory", self.0)
    }
}

impl core::error::Error for OutsideMemory {}

/// Why nothing moved between a disk and guest memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The guest named memory that it does not have.
    Memory(OutsideMemory),
    /// There is no such place on the disk, or it failed.
    Disk,
}

impl From<OutsideMemory> for DiskError {
    fn from(outside: OutsideMemory) -> Self {
        Self::Memory(outside)
    }
}

/// Access to a guest's memory.
///
/// Addresses come from the guest, unchecked: whoever implements this checks them, keeps no reference, and marks what is
/// written as dirty. Processors of the guest may change memory meanwhile.
pub trait MemoryAccess {
    /// Copies from guest memory.
    ///
    /// # Errors
    ///
    /// [`OutsideMemory`].
    fn read_memory(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), OutsideMemory>;
    /// Copies into guest memory.
    ///
    /// # Errors
    ///
    /// [`OutsideMemory`].
    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), OutsideMemory>;
    /// Reads a little-endian word at an even address of guest memory in one access.
    ///
    /// # Errors
    ///
    /// [`OutsideMemory`].
    fn load_u16(&mut self, address: u64) -> Result<u16, OutsideMemory>;
    /// Writes a little-endian word at an even address of guest memory in one access.
    ///
    /// # Errors
    ///
    /// [`OutsideMemory`].
    fn store_u16(&mut self, address: u64, value: u16) -> Result<(), OutsideMemory>;
}

/// What an access can do to the world outside the board. Disk offsets are checked here and again there, since a restored
/// state brings them too.
pub trait Effects: MemoryAccess {
    /// COM1 sent a byte.
    fn console_output(&mut self, byte: u8);
    /// The guest asked for a reset: stop it and call [`Pc::reset`](super::Pc::reset).
    fn reset(&mut self, cause: ResetCause);
    /// The guest switched its board off.
    fn power_off(&mut self);
    /// The guest has not fed its watchdog: it has failed. To be done about it is what is done about a reset.
    fn watchdog_expired(&mut self);

    /// Copies from disk `disk`, from byte `offset` on, into guest memory.
    ///
    /// # Errors
    ///
    /// [`DiskError`]; nothing was copied.
    fn read_disk(&mut self, disk: u8, offset: u64, into: Part) -> Result<(), DiskError>;
    /// Copies from guest memory to disk `disk`, from byte `offset` on.
    ///
    /// # Errors
    ///
    /// [`DiskError`]; nothing was copied.
    fn write_disk(&mut self, disk: u8, offset: u64, from: Part) -> Result<(), DiskError>;
    /// Makes what was written to disk `disk` last.
    ///
    /// # Errors
    ///
    /// [`DiskError`], if it may not.
    fn flush_disk(&mut self, disk: u8) -> Result<(), DiskError>;

    /// The virtio console sent bytes.
    fn virtio_console_output(&mut self, bytes: &[u8]);
    /// Fills `bytes` with random ones from the front on; returns how many there are now.
    fn entropy(&mut self, bytes: &mut [u8]) -> usize;
    /// The virtio device in PCI slot `device` stopped until its driver resets it, for the `count`th time.
    fn device_stopped(&mut self, device: u8, fault: Fault, count: u32);

    /// Whether there is time for the work of devices now: if not, they go on a little later.
    fn has_time(&mut self) -> bool {
        true
    }
    /// Network card `nic` sends a frame.
    ///
    /// # Errors
    ///
    /// [`OutsideMemory`], if a part of it is; nothing was sent.
    fn send_frame(&mut self, nic: u8, frame: &Outgoing<'_>) -> Result<Sent, OutsideMemory>;
    /// Network card `nic` has room for frames again, which it had not.
    fn room_for_frames(&mut self, nic: u8);

    /// Lends the receive queues of network card `nic`, which a driver drives now, to the world.
    fn lend_receiver(&mut self, nic: u8, receiver: Receiver);
    /// Takes the receive queues of network card `nic` back, if they are lent. Nobody works on them any more then.
    fn take_receiver(&mut self, nic: u8) -> Option<Receiver>;
}

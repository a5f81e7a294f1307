//! What is around a board under test.

use net::Offload;

use crate::nic::{Outgoing, Sent};
use crate::pc::{DiskError, Effects, MemoryAccess, OutsideMemory, ResetCause};
use crate::virtio::{Fault, Part, Receiver, SECTOR};

/// Bytes of guest memory.
pub(crate) const MEMORY: usize = 256 << 10;

/// A frame that a network card sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) nic: u8,
    /// How many of its bytes were its head.
    pub(crate) head: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
}

/// Receive queues that are lent, by network card.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lent(pub(crate) [Option<Receiver>; 2]);

impl PartialEq for Lent {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

impl Eq for Lent {}

/// Memory, disks, and what went out of the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) console: Vec<u8>,
    pub(crate) resets: Vec<ResetCause>,
    pub(crate) power_offs: u32,
    pub(crate) watchdog_expirations: u32,
    pub(crate) memory: Vec<u8>,
    pub(crate) disks: Vec<Vec<u8>>,
    pub(crate) flushes: u32,
    pub(crate) virtio_console: Vec<u8>,
    pub(crate) stops: Vec<(u8, Fault, u32)>,
    /// Whether there are random bytes to be had, each the count of those before it.
    pub(crate) random: bool,
    pub(crate) drawn: u8,
    /// Bytes of data that moved.
    pub(crate) moved: u64,
    pub(crate) sent: Vec<Frame>,
    /// Whether there is no room for a frame.
    pub(crate) busy: bool,
    /// How many are given a frame.
    pub(crate) takers: u32,
    /// Network cards that have room again.
    pub(crate) rooms: Vec<u8>,
    pub(crate) lent: Lent,
}

impl Default for World {
    fn default() -> Self {
        let sector = SECTOR as usize;
        Self {
            console: Vec::new(),
            resets: Vec::new(),
            power_offs: 0,
            watchdog_expirations: 0,
            memory: vec![0; MEMORY],
            disks: vec![
                (0..64 * sector).map(|at| (at / 7) as u8).collect(),
                vec![0x5A; 8 * sector],
            ],
            flushes: 0,
            virtio_console: Vec::new(),
            stops: Vec::new(),
            random: true,
            drawn: 0,
            moved: 0,
            sent: Vec::new(),
            busy: false,
            takers: 1,
            rooms: Vec::new(),
            lent: Lent::default(),
        }
    }
}

impl World {
    fn at(&mut self, address: u64, length: usize) -> Result<&mut [u8], OutsideMemory> {
        let start = usize::try_from(address).map_err(|_| OutsideMemory(address))?;
        let end = start.checked_add(length).ok_or(OutsideMemory(address))?;
        self.moved += length as u64;
        self.memory
            .get_mut(start..end)
            .ok_or(OutsideMemory(address))
    }

    fn on_disk(&mut self, disk: u8, offset: u64, length: u32) -> Result<&mut [u8], DiskError> {
        let disk = self.disks.get_mut(usize::from(disk));
        let start = offset as usize;
        disk.and_then(|disk| disk.get_mut(start..start + length as usize))
            .ok_or(DiskError::Disk)
    }
}

impl MemoryAccess for World {
    fn read_memory(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), OutsideMemory> {
        bytes.copy_from_slice(self.at(address, bytes.len())?);
        Ok(())
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), OutsideMemory> {
        self.at(address, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn load_u16(&mut self, address: u64) -> Result<u16, OutsideMemory> {
        assert!(address.is_multiple_of(2));
        let mut bytes = [0; 2];
        self.read_memory(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn store_u16(&mut self, address: u64, value: u16) -> Result<(), OutsideMemory> {
        assert!(address.is_multiple_of(2));
        self.write_memory(address, &value.to_le_bytes())
    }
}

impl Effects for World {
    fn console_output(&mut self, byte: u8) {
        self.console.push(byte);
    }

    fn reset(&mut self, cause: ResetCause) {
        self.resets.push(cause);
    }

    fn power_off(&mut self) {
        self.power_offs += 1;
    }

    fn watchdog_expired(&mut self) {
        self.watchdog_expirations += 1;
    }

    fn read_disk(&mut self, disk: u8, offset: u64, into: Part) -> Result<(), DiskError> {
        let data = self.on_disk(disk, offset, into.length)?.to_vec();
        Ok(self.write_memory(into.address, &data)?)
    }

    fn write_disk(&mut self, disk: u8, offset: u64, from: Part) -> Result<(), DiskError> {
        let mut data = vec![0; self.on_disk(disk, offset, from.length)?.len()];
        self.read_memory(from.address, &mut data)?;
        self.on_disk(disk, offset, from.length)?
            .copy_from_slice(&data);
        Ok(())
    }

    fn flush_disk(&mut self, _disk: u8) -> Result<(), DiskError> {
        self.flushes += 1;
        Ok(())
    }

    fn virtio_console_output(&mut self, bytes: &[u8]) {
        self.virtio_console.extend_from_slice(bytes);
    }

    fn entropy(&mut self, bytes: &mut [u8]) -> usize {
        if !self.random {
            return 0;
        }
        for byte in bytes.iter_mut() {
            *byte = self.drawn;
            self.drawn = self.drawn.wrapping_add(1);
        }
        bytes.len()
    }

    fn device_stopped(&mut self, device: u8, fault: Fault, count: u32) {
        self.stops.push((device, fault, count));
    }

    fn send_frame(&mut self, nic: u8, frame: &Outgoing<'_>) -> Result<Sent, OutsideMemory> {
        let mut bytes = frame.head.to_vec();
        for part in frame.rest {
            bytes.extend_from_slice(self.at(part.address, part.length as usize)?);
        }
        if self.busy {
            return Ok(Sent::Busy);
        }
        self.sent.push(Frame {
            nic,
            head: frame.head.len(),
            bytes,
            offload: frame.offload,
        });
        Ok(Sent::Done {
            takers: self.takers,
        })
    }

    fn room_for_frames(&mut self, nic: u8) {
        self.rooms.push(nic);
    }

    fn lend_receiver(&mut self, nic: u8, receiver: Receiver) {
        let old = self.lent.0[usize::from(nic)].replace(receiver);
        assert!(old.is_none(), "lent twice");
    }

    fn take_receiver(&mut self, nic: u8) -> Option<Receiver> {
        self.lent.0[usize::from(nic)].take()
    }
}

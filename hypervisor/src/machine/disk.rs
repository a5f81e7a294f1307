//! Disks in the board's memory. They are filled once, when their guest starts for the first time, and keep what it
//! writes over its restarts.

use super::StartFailure;
use crate::memory::{GuestMemory, OutOfBounds, PhysicalMemory};
use devices::virtio::Part;
use devices::{DiskError, OutsideMemory};

const _: () = assert!(config::Guest::DISKS_MAX == devices::virtio::DISKS_MAX);
const _: () = assert!(config::Guest::DISK_UNIT.is_multiple_of(devices::virtio::SECTOR as u64));

/// A disk.
pub(super) struct Disk {
    /// Its sectors, reached as guest memory is: by copying.
    sectors: GuestMemory,
    /// What it holds at first; zeroes follow.
    image: &'static [u8],
    read_only: bool,
}

impl Disk {
    /// Takes memory for a disk that holds `image` at first.
    pub(super) fn new(
        config: &config::GuestDisk,
        image: &'static [u8],
        memory: &mut PhysicalMemory,
    ) -> Result<Self, StartFailure> {
        if image.len() as u64 > config.size {
            return Err(StartFailure(alloc::format!(
                "a disk of {} bytes has an image of {}",
                config.size,
                image.len()
            )));
        }
        let host_physical = memory.take_for_guest(config.size)?;
        let map = vcpu::FrameSource::direct_map(memory);
        // SAFETY: the range was taken for this disk just now, nothing else uses it, and free memory is mapped for good.
        let sectors = unsafe { GuestMemory::new(map, host_physical, config.size) };
        Ok(Self {
            sectors,
            image,
            read_only: config.read_only,
        })
    }

    /// What it holds.
    pub(super) fn sectors(&self) -> &GuestMemory {
        &self.sectors
    }

    /// What the guest is told of it.
    pub(super) fn config(&self) -> devices::virtio::Disk {
        devices::virtio::Disk {
            sectors: self.sectors.size() / u64::from(devices::virtio::SECTOR),
            read_only: self.read_only,
        }
    }

    /// Fills it from byte `from` on with at most `step` bytes of what it holds at first; returns where to go on, if
    /// it is not full.
    pub(super) fn fill(&self, from: u64, step: u64) -> Result<Option<u64>, OutOfBounds> {
        let end = from.saturating_add(step).min(self.sectors.size());
        let image_end = end.min(self.image.len() as u64);
        if let Some(piece) = self.image.get(from as usize..image_end as usize) {
            self.sectors.write(from, piece)?;
        }
        self.sectors.scrub(image_end.max(from)..end);
        Ok((end < self.sectors.size()).then_some(end))
    }

    /// Copies from the disk into guest memory.
    pub(super) fn read(
        &self,
        offset: u64,
        memory: &GuestMemory,
        into: Part,
    ) -> Result<(), DiskError> {
        self.check(offset, into)?;
        memory
            .transfer(into.address, &self.sectors, offset, into.length as usize)
            .map_err(|_| outside(into))
    }

    /// Copies from guest memory to the disk.
    pub(super) fn write(
        &self,
        offset: u64,
        memory: &GuestMemory,
        from: Part,
    ) -> Result<(), DiskError> {
        self.check(offset, from)?;
        self.sectors
            .transfer(offset, memory, from.address, from.length as usize)
            .map_err(|_| outside(from))
    }

    fn check(&self, offset: u64, part: Part) -> Result<(), DiskError> {
        let inside = self.sectors.contains(offset, u64::from(part.length));
        inside.then_some(()).ok_or(DiskError::Disk)
    }
}

/// The disk's side was checked, so it is the guest's that is not there.
fn outside(part: Part) -> DiskError {
    DiskError::Memory(OutsideMemory(part.address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::fake;

    fn disk(size: usize, image: &'static [u8]) -> Disk {
        Disk {
            sectors: fake::memory(size),
            image,
            read_only: false,
        }
    }

    fn part(address: u64, length: u32) -> Part {
        Part { address, length }
    }

    #[test]
    fn it_is_filled_step_by_step() {
        for step in [1, 3, 512, 4096, 10_000] {
            let disk = disk(4096, b"an image");
            let mut at = Some(0);
            let mut steps = 0;
            while let Some(from) = at {
                at = disk.fill(from, step).unwrap();
                steps += 1;
            }
            assert_eq!(steps, 4096_u64.div_ceil(step));
            let mut bytes = [0xee; 4096];
            disk.sectors.read(0, &mut bytes).unwrap();
            assert_eq!(&bytes[..8], b"an image");
            assert_eq!(bytes[8..], [0; 4088]);
        }
    }

    #[test]
    fn transfers_stay_inside() {
        let disk = disk(4096, &[]);
        let memory = fake::memory(1024);
        memory.write(0, &[7; 512]).unwrap();
        assert_eq!(disk.write(3584, &memory, part(0, 512)), Ok(()));
        assert_eq!(disk.read(3584, &memory, part(512, 512)), Ok(()));
        assert_eq!(memory.read_u32(1020), Ok(0x0707_0707));
        let outside = Err(DiskError::Memory(OutsideMemory(1000)));
        assert_eq!(disk.read(0, &memory, part(1000, 512)), outside);
        assert_eq!(disk.write(0, &memory, part(1000, 512)), outside);
        for offset in [3585, 4096, u64::MAX] {
            assert_eq!(
                disk.read(offset, &memory, part(0, 512)),
                Err(DiskError::Disk)
            );
            assert_eq!(
                disk.write(offset, &memory, part(0, 512)),
                Err(DiskError::Disk)
            );
        }
    }
}

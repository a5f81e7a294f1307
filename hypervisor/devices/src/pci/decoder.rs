//! Which device a port belongs to.

use alloc::boxed::Box;
use alloc::vec;

use super::device::Device;

/// Ports that are decoded together: no device has fewer, and each device's are aligned to its size.
const GRANULE: usize = 32;
const GRANULES: usize = (1 << 16) / GRANULE;
/// What says that a granule is no device's.
const NONE: u8 = 0xFF;

/// A table from ports to devices, so that an access costs the same however many there are.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    /// Positions among the devices.
    table: Box<[u8]>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            table: vec![NONE; GRANULES].into_boxed_slice(),
        }
    }

    /// Takes the devices' base addresses as they are now. Of two at the same place, the first answers.
    pub(super) fn update(&mut self, devices: &[Device]) {
        self.table.fill(NONE);
        for (at, device) in devices.iter().enumerate().rev() {
            let Some((first, count)) = device.ports() else {
                continue;
            };
            let start = usize::from(first) / GRANULE;
            let end = start + usize::from(count) / GRANULE;
            if let Some(granules) = self.table.get_mut(start..end) {
                granules.fill(at as u8);
            }
        }
    }

    /// The position of the device that decodes a port.
    #[inline]
    pub(super) fn find(&self, port: u16) -> Option<usize> {
        let owner = *self.table.get(usize::from(port) / GRANULE)?;
        (owner != NONE).then_some(usize::from(owner))
    }
}

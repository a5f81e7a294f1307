//! What the controller addresses: a PROM with the card's address, and the memory for frames.
//!
//! Source: the NE2000's decoder looks at no more than two lines of the address: the PROM is below 0x4000, again and
//! again, and 16 KiB of memory from there on. The RTL8029AS data sheet, 6.1, has the same map.

use alloc::boxed::Box;
use alloc::vec;

use net::MacAddress;

/// Bytes of the PROM.
const PROM: usize = 32;
/// Where memory begins, and its size.
const FIRST: usize = 0x4000;
pub(super) const SIZE: usize = 0x4000;
/// Bytes of a page, which is what buffers consist of.
pub(super) const PAGE: usize = 0x100;

/// The address space behind a controller.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    prom: [u8; PROM],
    ram: Box<[u8]>,
}

impl Memory {
    /// The PROM of a card with 16 bits of data: each byte twice, 0x57 at the end.
    pub(super) fn new(address: MacAddress) -> Self {
        const WIDE: u8 = 0x57;
        let mut prom = [0; PROM];
        let doubled = address.0.iter().flat_map(|byte| [*byte; 2]);
        for (to, from) in prom.iter_mut().zip(doubled) {
            *to = from;
        }
        for to in prom.iter_mut().rev().take(4) {
            *to = WIDE;
        }
        Self {
            prom,
            ram: vec![0; SIZE].into_boxed_slice(),
        }
    }

    /// What a reset of the board leaves.
    pub(super) fn clear(&mut self) {
        self.ram.fill(0);
    }

    /// All of the memory for frames.
    pub(super) fn ram(&self) -> &[u8] {
        &self.ram
    }

    /// All of the memory for frames.
    pub(super) fn ram_mut(&mut self) -> &mut [u8] {
        &mut self.ram
    }

    /// `length` bytes from `address` on, if all of them are memory for frames.
    pub(super) fn frame(&self, address: u16, length: usize) -> Option<&[u8]> {
        let start = usize::from(address).checked_sub(FIRST)?;
        self.ram.get(start..start.checked_add(length)?)
    }

    /// The same, to be written to.
    pub(super) fn frame_mut(&mut self, address: u16, length: usize) -> Option<&mut [u8]> {
        let start = usize::from(address).checked_sub(FIRST)?;
        self.ram.get_mut(start..start.checked_add(length)?)
    }

    /// A byte; where nothing is, all ones.
    pub(super) fn read(&self, address: u16) -> u8 {
        let at = usize::from(address);
        let byte = if at < FIRST {
            self.prom.get(at % PROM)
        } else {
            self.ram.get(at - FIRST)
        };
        byte.copied().unwrap_or(0xFF)
    }

    /// Writes a byte, where there is memory.
    pub(super) fn write(&mut self, address: u16, value: u8) {
        if let Some([byte]) = self.frame_mut(address, 1) {
            *byte = value;
        }
    }
}

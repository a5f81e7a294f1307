//! The rings of a split virtqueue, from the device's side (2.7).
//!
//! What is in them is a claim of the driver's: an index or a descriptor is read once and checked. Nothing here allocates.

use core::sync::atomic::{Ordering, fence};

use bitflags::bitflags;

use super::Fault;
use super::chain::Part;
use crate::pc::MemoryAccess;

/// Bytes of a descriptor, and of an element of the used ring.
const DESCRIPTOR: u64 = 16;
const USED_ELEMENT: u64 = 8;
/// Offsets in both rings: flags, index, elements.
const INDEX: u64 = 2;
const RING: u64 = 4;
/// VIRTQ_AVAIL_F_NO_INTERRUPT.
const NO_INTERRUPT: u16 = 1;
/// VIRTQ_USED_F_NO_NOTIFY.
const NO_NOTIFY: u16 = 1;

bitflags! {
    /// A descriptor's flags (2.7.5).
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Flags: u16 {
        /// The chain goes on.
        const NEXT = 1;
        /// The buffer is to be written.
        const WRITE = 2;
        /// The buffer is a table of descriptors.
        const INDIRECT = 4;
    }
}

/// What the driver and the device agreed upon.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreement {
    /// VIRTIO_F_INDIRECT_DESC.
    pub(super) indirect: bool,
    /// VIRTIO_F_EVENT_IDX.
    pub(super) event_index: bool,
    /// All features that the driver chose.
    pub(super) features: u64,
}

/// Where rings are, and how far the device got in them.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Ring {
    /// Descriptors, a power of two.
    pub(super) size: u16,
    /// Guest-physical addresses.
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    /// The next element of the available ring to be taken.
    pub(super) next_available: u16,
    /// The available index when it was last read.
    pub(super) seen: u16,
    /// The next element of the used ring to be written.
    pub(super) next_used: u16,
    /// Where `next_used` stood when an interrupt was last considered.
    pub(super) signalled: u16,
    /// At which index the driver was last asked to notify, if that is known.
    pub(super) asked: Option<u16>,
}

impl Ring {
    /// The first descriptor of the chain that is `ahead` chains behind the next one, if the driver made as many
    /// available.
    #[inline]
    pub(super) fn head(
        &mut self,
        ahead: u16,
        memory: &mut impl MemoryAccess,
    ) -> Result<Option<u16>, Fault> {
        if ahead >= self.known() && ahead >= self.waiting(memory)? {
            return Ok(None);
        }
        let slot = self.slot(self.next_available.wrapping_add(ahead));
        let head = memory.load_u16(at(self.available, RING + 2 * slot)?)?;
        if head >= self.size {
            return Err(Fault::Head);
        }
        Ok(Some(head))
    }

    /// How many chains the driver is known to have made available beyond those that were taken.
    const fn known(&self) -> u16 {
        self.seen.wrapping_sub(self.next_available)
    }

    /// How many chains the driver made available beyond those that were taken.
    fn waiting(&mut self, memory: &mut impl MemoryAccess) -> Result<u16, Fault> {
        let index = memory.load_u16(at(self.available, INDEX)?)?;
        // What the index announces is read after it.
        fence(Ordering::Acquire);
        let waiting = index.wrapping_sub(self.next_available);
        if waiting > self.size {
            return Err(Fault::AvailableIndex);
        }
        self.seen = index;
        Ok(waiting)
    }

    const fn slot(&self, index: u16) -> u64 {
        (index & self.size.wrapping_sub(1)) as u64
    }

    /// Gives the buffers of a chain to `push`, and whether they are to be written; reads each descriptor once. Returns
    /// how many it were. `push` must end a chain that goes in circles.
    #[inline]
    pub(super) fn collect(
        &self,
        head: u16,
        agreed: Agreement,
        memory: &mut impl MemoryAccess,
        mut push: impl FnMut(Part, bool) -> Result<(), Fault>,
    ) -> Result<u32, Fault> {
        let mut table = self.descriptors;
        let mut entries = u32::from(self.size);
        let mut index = head;
        let mut indirect = false;
        let mut count = 0;
        loop {
            count += 1;
            let descriptor = at(table, DESCRIPTOR * u64::from(index))?;
            let (part, flags, next) = descriptor_at(descriptor, memory)?;
            if flags.contains(Flags::INDIRECT) {
                // At most one, at the end of the chain (2.7.5.3).
                let misplaced = indirect || !agreed.indirect || flags.contains(Flags::NEXT);
                entries = part.length / DESCRIPTOR as u32;
                if misplaced || entries == 0 || !part.length.is_multiple_of(DESCRIPTOR as u32) {
                    return Err(Fault::Indirect);
                }
                indirect = true;
                table = part.address;
                index = 0;
                continue;
            }
            push(part, flags.contains(Flags::WRITE))?;
            if !flags.contains(Flags::NEXT) {
                return Ok(count);
            }
            if u32::from(next) >= entries {
                return Err(Fault::Next);
            }
            index = next;
        }
    }

    /// Takes chains: the next one is behind them.
    pub(super) const fn take(&mut self, count: u16) {
        self.next_available = self.next_available.wrapping_add(count);
    }

    /// Leaves the chain that was taken last to be taken again.
    pub(super) const fn put_back(&mut self) {
        self.next_available = self.next_available.wrapping_sub(1);
    }

    /// Puts a chain into the used ring, which shows with [`publish`](Self::publish).
    #[inline]
    pub(super) fn give(
        &mut self,
        head: u16,
        written: u32,
        memory: &mut impl MemoryAccess,
    ) -> Result<(), Fault> {
        let element = u64::from(written) << 32 | u64::from(head);
        let place = at(self.used, RING + USED_ELEMENT * self.slot(self.next_used))?;
        memory.write_memory(place, &element.to_le_bytes())?;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(())
    }

    /// Shows the driver what was given.
    #[inline]
    pub(super) fn publish(&self, memory: &mut impl MemoryAccess) -> Result<(), Fault> {
        // The index says that the elements, and what they stand for, are there.
        fence(Ordering::Release);
        Ok(memory.store_u16(at(self.used, INDEX)?, self.next_used)?)
    }

    /// The first descriptor of the next chain. If none is left, the driver is asked to notify of more.
    #[inline]
    pub(super) fn head_or_rest(
        &mut self,
        agreed: Agreement,
        memory: &mut impl MemoryAccess,
    ) -> Result<Option<u16>, Fault> {
        if agreed.event_index && self.known() == 0 && self.asked != Some(self.next_available) {
            memory.store_u16(self.available_event()?, self.next_available)?;
            self.asked = Some(self.next_available);
            // The driver writes its index, then reads ours.
            fence(Ordering::SeqCst);
        }
        self.head(0, memory)
    }

    /// Asks not to be notified. By event index, the driver will all the same once in 65536 chains.
    pub(super) fn silence(
        &mut self,
        agreed: Agreement,
        memory: &mut impl MemoryAccess,
    ) -> Result<(), Fault> {
        if agreed.event_index {
            let passed = self.next_available.wrapping_sub(1);
            self.asked = Some(passed);
            return Ok(memory.store_u16(self.available_event()?, passed)?);
        }
        Ok(memory.store_u16(self.used, NO_NOTIFY)?)
    }

    /// avail_event, behind the used ring (2.7.10).
    fn available_event(&self) -> Result<u64, Fault> {
        at(self.used, RING + USED_ELEMENT * u64::from(self.size))
    }

    /// Whether the driver wants an interrupt for what was given back since this was last asked.
    #[inline]
    pub(super) fn interrupts(
        &mut self,
        agreed: Agreement,
        memory: &mut impl MemoryAccess,
    ) -> Result<bool, Fault> {
        let (before, now) = (self.signalled, self.next_used);
        if before == now {
            return Ok(false);
        }
        self.signalled = now;
        // The driver writes what it wants, then reads our index.
        fence(Ordering::SeqCst);
        if !agreed.event_index {
            let flags = memory.load_u16(self.available)?;
            return Ok(flags & NO_INTERRUPT == 0);
        }
        // used_event, behind the available ring (2.7.7).
        let event = at(self.available, RING + 2 * u64::from(self.size))?;
        let event = memory.load_u16(event)?;
        Ok(now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before))
    }
}

/// The address at `offset` in a ring or table; one that does not exist is outside memory.
fn at(base: u64, offset: u64) -> Result<u64, Fault> {
    base.checked_add(offset).ok_or(Fault::Address(base))
}

/// Reads a descriptor (2.7.5).
#[inline]
fn descriptor_at(
    address: u64,
    memory: &mut impl MemoryAccess,
) -> Result<(Part, Flags, u16), Fault> {
    let mut bytes = [0; DESCRIPTOR as usize];
    memory.read_memory(address, &mut bytes)?;
    let bits = u128::from_le_bytes(bytes);
    let part = Part {
        address: bits as u64,
        length: (bits >> 64) as u32,
    };
    let flags = Flags::from_bits_truncate((bits >> 96) as u16);
    Ok((part, flags, (bits >> 112) as u16))
}

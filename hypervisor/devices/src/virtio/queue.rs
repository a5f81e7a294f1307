//! The split virtqueue, from the device's side (2.7).

use core::sync::atomic::{Ordering, fence};

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use super::chain::{Chain, Part};
use super::{Budget, ChainStateV1, Fault};
use crate::pc::{MemoryAccess, StateError};

/// The longest queue of these devices, which is also the size that they propose.
pub(super) const SIZE_MAX: u16 = 128;

/// What a look at a descriptor costs, in units of a budget.
const DESCRIPTOR_COST: u32 = 64;

/// "No vector", as a queue's vector reads (4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xFFFF;

/// Bytes of a descriptor, and of an element of the used ring.
const DESCRIPTOR: u64 = 16;
const USED_ELEMENT: u64 = 8;
/// Offsets in both rings: flags, index, elements.
const INDEX: u64 = 2;
const RING: u64 = 4;
/// VIRTQ_AVAIL_F_NO_INTERRUPT.
const NO_INTERRUPT: u16 = 1;

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

/// What the driver and the device agreed upon that matters to a queue.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreement {
    /// VIRTIO_F_INDIRECT_DESC.
    pub(super) indirect: bool,
    /// VIRTIO_F_EVENT_IDX.
    pub(super) event_index: bool,
}

/// The saved state of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStateV1 {
    /// Its size in descriptors.
    pub size: u16,
    /// Whether the driver enabled it.
    pub enabled: bool,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
    /// Its MSI-X vector, 0xFFFF if it has none.
    pub vector: u16,
    /// The next element of the available ring to be taken.
    pub next_available: u16,
    /// The next element of the used ring to be written.
    pub next_used: u16,
    /// Where `next_used` stood when an interrupt was last considered.
    pub signalled: u16,
    /// Whether there may be something to do.
    pub notified: bool,
    /// The chain that is being worked on.
    pub chain: Option<ChainStateV1>,
}

/// A virtqueue.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(super) size: u16,
    pub(super) enabled: bool,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    pub(super) vector: u16,
    /// Whether there may be something to do: the driver rang, or there is more than there was a budget for.
    pub(super) notified: bool,
    next_available: u16,
    next_used: u16,
    signalled: u16,
    /// Whether `chain` is being worked on.
    busy: bool,
    chain: Chain,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self::with(Chain::new(SIZE_MAX))
    }

    /// A queue after a reset, with the room for chains that there is.
    fn with(chain: Chain) -> Self {
        Self {
            size: SIZE_MAX,
            enabled: false,
            descriptors: 0,
            available: 0,
            used: 0,
            vector: NO_VECTOR,
            notified: false,
            next_available: 0,
            next_used: 0,
            signalled: 0,
            busy: false,
            chain,
        }
    }

    /// A reset of the device.
    pub(super) fn reset(&mut self) {
        let chain = core::mem::replace(&mut self.chain, Chain::new(0));
        *self = Self::with(chain);
    }

    /// The device stops: nothing will come of what was begun.
    pub(super) fn abandon(&mut self) {
        self.busy = false;
        self.notified = false;
    }

    /// The driver enables the queue.
    pub(super) fn enable(&mut self) -> Result<(), Fault> {
        if !self.well_laid_out() {
            return Err(Fault::Layout);
        }
        self.enabled = true;
        Ok(())
    }

    /// Whether size and alignments are as in 2.7.
    fn well_laid_out(&self) -> bool {
        self.size.is_power_of_two()
            && self.size <= SIZE_MAX
            && self.descriptors.is_multiple_of(16)
            && self.available.is_multiple_of(2)
            && self.used.is_multiple_of(4)
    }

    /// The chain to work on, if there is one: that of last time, or the next that the driver made available.
    pub(super) fn fetch(
        &mut self,
        agreed: Agreement,
        budget: &mut Budget,
        memory: &mut impl MemoryAccess,
    ) -> Result<Option<&mut Chain>, Fault> {
        if !self.busy {
            let waiting = self.waiting(memory)?;
            if waiting == 0 {
                return Ok(None);
            }
            if waiting > self.size {
                return Err(Fault::AvailableIndex);
            }
            let slot = self.slot(self.next_available);
            let head = memory.load_u16(at(self.available, RING + 2 * slot)?)?;
            if head >= self.size {
                return Err(Fault::Head);
            }
            self.chain.begin(head);
            self.collect(head, agreed, budget, memory)?;
            self.next_available = self.next_available.wrapping_add(1);
            self.busy = true;
        }
        Ok(Some(&mut self.chain))
    }

    /// How many chains the driver made available beyond those that were taken.
    fn waiting(&self, memory: &mut impl MemoryAccess) -> Result<u16, Fault> {
        let index = memory.load_u16(at(self.available, INDEX)?)?;
        // What the index announces is read after it.
        fence(Ordering::Acquire);
        Ok(index.wrapping_sub(self.next_available))
    }

    const fn slot(&self, index: u16) -> u64 {
        (index & (self.size - 1)) as u64
    }

    /// Copies the descriptors of a chain, each of them once.
    fn collect(
        &mut self,
        head: u16,
        agreed: Agreement,
        budget: &mut Budget,
        memory: &mut impl MemoryAccess,
    ) -> Result<(), Fault> {
        let mut table = self.descriptors;
        let mut entries = u32::from(self.size);
        let mut index = head;
        let mut indirect = false;
        loop {
            budget.spend(DESCRIPTOR_COST);
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
            self.chain.push(part, flags.contains(Flags::WRITE))?;
            if !flags.contains(Flags::NEXT) {
                return Ok(());
            }
            if u32::from(next) >= entries {
                return Err(Fault::Next);
            }
            index = next;
        }
    }

    /// Gives the chain that was worked on back to the driver.
    pub(super) fn complete(&mut self, memory: &mut impl MemoryAccess) -> Result<(), Fault> {
        let element = u64::from(self.chain.written()) << 32 | u64::from(self.chain.head());
        let slot = self.slot(self.next_used);
        let place = at(self.used, RING + USED_ELEMENT * slot)?;
        memory.write_memory(place, &element.to_le_bytes())?;
        self.next_used = self.next_used.wrapping_add(1);
        self.busy = false;
        // The index says that the element, and what it stands for, is there.
        fence(Ordering::Release);
        Ok(memory.store_u16(at(self.used, INDEX)?, self.next_used)?)
    }

    /// Nothing is left: asks to be notified of more. Returns whether more came meanwhile.
    pub(super) fn rest(
        &mut self,
        agreed: Agreement,
        memory: &mut impl MemoryAccess,
    ) -> Result<bool, Fault> {
        if !agreed.event_index {
            return Ok(false);
        }
        // avail_event, behind the used ring (2.7.10).
        let event = at(self.used, RING + USED_ELEMENT * u64::from(self.size))?;
        memory.store_u16(event, self.next_available)?;
        // The driver writes its index, then reads ours.
        fence(Ordering::SeqCst);
        Ok(self.waiting(memory)? != 0)
    }

    /// Whether the driver wants an interrupt for what was given back since this was last asked.
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

    /// The queue's state.
    pub(super) fn save(&self) -> QueueStateV1 {
        QueueStateV1 {
            size: self.size,
            enabled: self.enabled,
            descriptors: self.descriptors,
            available: self.available,
            used: self.used,
            vector: self.vector,
            next_available: self.next_available,
            next_used: self.next_used,
            signalled: self.signalled,
            notified: self.notified,
            chain: self.busy.then(|| self.chain.save()),
        }
    }

    /// A queue in a saved state. The vector is left to whoever knows how many there are.
    pub(super) fn restore(state: &QueueStateV1) -> Result<Self, StateError> {
        let mut queue = Self {
            size: state.size,
            enabled: state.enabled,
            descriptors: state.descriptors,
            available: state.available,
            used: state.used,
            vector: state.vector,
            notified: state.notified,
            next_available: state.next_available,
            next_used: state.next_used,
            signalled: state.signalled,
            busy: state.chain.is_some(),
            chain: Chain::new(SIZE_MAX),
        };
        if state.enabled && !queue.well_laid_out() {
            return Err(StateError::Invalid("virtio: queue"));
        }
        let idle = state.chain.is_none() && !state.notified;
        if !state.enabled && !idle {
            return Err(StateError::Invalid("virtio: work for a queue that is off"));
        }
        if let Some(chain) = &state.chain {
            queue.chain.restore(chain)?;
        }
        Ok(queue)
    }
}

/// The address at `offset` in a ring or table; one that does not exist is outside memory.
fn at(base: u64, offset: u64) -> Result<u64, Fault> {
    base.checked_add(offset).ok_or(Fault::Address(base))
}

/// Reads a descriptor (2.7.5).
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

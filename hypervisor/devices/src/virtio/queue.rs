//! A virtqueue: what the driver configured, the rings, and the chain that is being worked on.

use serde::{Deserialize, Serialize};

use super::chain::Chain;
use super::ring::{Agreement, Ring};
use super::{Budget, ChainStateV1, Fault};
use crate::pc::{MemoryAccess, StateError};

/// What a look at a descriptor costs, in units of a budget.
const DESCRIPTOR_COST: u32 = 64;

/// "No vector", as a queue's vector reads (4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xFFFF;

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
    /// The longest that it can be, which is also the size that it proposes.
    max: u16,
    pub(super) enabled: bool,
    pub(super) vector: u16,
    /// Whether there may be something to do: the driver rang, or there is more than there was a budget for.
    pub(super) notified: bool,
    /// Somebody else may have the rings meanwhile; then only their places hold.
    pub(super) ring: Ring,
    /// Whether `chain` is being worked on.
    busy: bool,
    chain: Chain,
}

impl Queue {
    /// A queue of at most `max` descriptors, a power of two.
    pub(super) fn new(max: u16) -> Self {
        Self::with(max, Chain::new(max))
    }

    /// A queue after a reset, with the room for chains that there is.
    fn with(max: u16, chain: Chain) -> Self {
        Self {
            max,
            enabled: false,
            vector: NO_VECTOR,
            notified: false,
            ring: Ring {
                size: max,
                ..Ring::default()
            },
            busy: false,
            chain,
        }
    }

    /// A reset of the device.
    pub(super) fn reset(&mut self) {
        let chain = core::mem::replace(&mut self.chain, Chain::new(0));
        *self = Self::with(self.max, chain);
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
        let ring = &self.ring;
        ring.size.is_power_of_two()
            && ring.size <= self.max
            && ring.descriptors.is_multiple_of(16)
            && ring.available.is_multiple_of(2)
            && ring.used.is_multiple_of(4)
    }

    /// The chain to work on, if there is one: that of last time, or the next that the driver made available. If there is none,
    /// the driver is asked to notify of more.
    pub(super) fn fetch(
        &mut self,
        agreed: Agreement,
        budget: &mut Budget,
        memory: &mut impl MemoryAccess,
    ) -> Result<Option<&mut Chain>, Fault> {
        if !self.busy {
            let Some(head) = self.ring.head_or_rest(agreed, memory)? else {
                return Ok(None);
            };
            let chain = &mut self.chain;
            chain.begin(head);
            let push = |part, writable| chain.push(part, writable);
            let count = self.ring.collect(head, agreed, memory, push)?;
            budget.spend(DESCRIPTOR_COST.saturating_mul(count));
            self.ring.take(1);
            self.busy = true;
        }
        Ok(Some(&mut self.chain))
    }

    /// Gives the chain that was worked on back to the driver.
    pub(super) fn complete(&mut self, memory: &mut impl MemoryAccess) -> Result<(), Fault> {
        let (head, written) = (self.chain.head(), self.chain.written());
        self.ring.give(head, written, memory)?;
        self.busy = false;
        self.ring.publish(memory)
    }

    /// Leaves the chain, of which nothing was done, to be fetched again.
    pub(super) fn put_back(&mut self) {
        self.busy = false;
        self.ring.put_back();
    }

    /// The queue's state.
    pub(super) fn save(&self) -> QueueStateV1 {
        QueueStateV1 {
            size: self.ring.size,
            enabled: self.enabled,
            descriptors: self.ring.descriptors,
            available: self.ring.available,
            used: self.ring.used,
            vector: self.vector,
            next_available: self.ring.next_available,
            next_used: self.ring.next_used,
            signalled: self.ring.signalled,
            notified: self.notified,
            chain: self.busy.then(|| self.chain.save()),
        }
    }

    /// Takes on a saved state. The vector is left to whoever knows how many there are.
    pub(super) fn restore(&mut self, state: &QueueStateV1) -> Result<(), StateError> {
        self.enabled = state.enabled;
        self.vector = state.vector;
        self.notified = state.notified;
        self.ring = Ring {
            size: state.size,
            descriptors: state.descriptors,
            available: state.available,
            used: state.used,
            next_available: state.next_available,
            seen: state.next_available,
            next_used: state.next_used,
            signalled: state.signalled,
            asked: None,
        };
        self.busy = state.chain.is_some();
        if state.enabled && !self.well_laid_out() {
            return Err(StateError::Invalid("virtio: queue"));
        }
        let idle = state.chain.is_none() && !state.notified;
        if !state.enabled && !idle {
            return Err(StateError::Invalid("virtio: work for a queue that is off"));
        }
        if let Some(chain) = &state.chain {
            self.chain.restore(chain)?;
        }
        Ok(())
    }
}

//! What kind of device stands behind a transport.

use alloc::boxed::Box;

use serde::{Deserialize, Serialize};

use super::block::Block;
use super::console::Console;
use super::entropy::Entropy;
use super::net::{self, Net};
use super::queue::Queue;
use super::ring::Agreement;
use super::transport::Dependency;
use super::{BlockStateV1, Budget, ConsoleStateV1, Fault, NetStateV1, Progress};
use crate::pc::{Effects, StateError};

/// The longest queue of most devices.
pub(super) const QUEUE_SIZE: u16 = 128;

/// The saved state of what is behind a transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelStateV1 {
    /// A disk.
    Block(BlockStateV1),
    /// A console.
    Console(ConsoleStateV1),
    /// A source of entropy, which has no state.
    Entropy,
    /// A network card.
    Net(NetStateV1),
}

/// What tells kinds of devices apart (5, and 4.1.2 for the PCI device ID).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The device type.
    pub(super) kind: u16,
    /// The PCI class code: base, sub, interface.
    pub(super) class: u32,
    /// Queues.
    pub(super) queues: u16,
    /// The longest that each of them can be, a power of two.
    pub(super) queue_size: u16,
}

/// A device behind its transport.
#[derive(Clone, Debug)]
pub(super) enum Model {
    Block(Block),
    Console(Console),
    Entropy(Entropy),
    Net(Box<Net>),
}

impl Model {
    pub(super) const fn identity(&self) -> Identity {
        match self {
            // Mass storage, other.
            Self::Block(_) => Identity {
                kind: 2,
                class: 0x01_8000,
                queues: 1,
                queue_size: QUEUE_SIZE,
            },
            // Simple communication, other.
            Self::Console(_) => Identity {
                kind: 3,
                class: 0x07_8000,
                queues: 2,
                queue_size: QUEUE_SIZE,
            },
            // Ethernet.
            Self::Net(net) => Identity {
                kind: 1,
                class: 0x02_0000,
                queues: net.queues(),
                queue_size: net::QUEUE_SIZE,
            },
            // None of the classes that there are.
            Self::Entropy(_) => Identity {
                kind: 4,
                class: 0xFF_0000,
                queues: 1,
                queue_size: QUEUE_SIZE,
            },
        }
    }

    /// Features of this kind of device.
    pub(super) fn features(&self) -> u64 {
        match self {
            Self::Block(block) => block.features(),
            Self::Net(net) => net.features(),
            Self::Console(_) | Self::Entropy(_) => 0,
        }
    }

    /// Which of them need others.
    pub(super) fn dependencies(&self) -> &'static [Dependency] {
        match self {
            Self::Net(_) => Net::dependencies(),
            Self::Block(_) | Self::Console(_) | Self::Entropy(_) => &[],
        }
    }

    /// The doubleword at `offset` in the device's configuration.
    pub(super) fn configuration(&self, offset: u16) -> u32 {
        match self {
            Self::Block(block) => block.configuration(offset),
            Self::Net(net) => net.configuration(offset),
            Self::Console(_) | Self::Entropy(_) => 0,
        }
    }

    /// A reset of the device.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Block(block) => block.reset(),
            Self::Console(console) => console.reset(),
            Self::Net(net) => net.reset(),
            Self::Entropy(_) => {}
        }
    }

    /// Works on queue `index` until nothing is to do or the budget is used up.
    pub(super) fn serve(
        &mut self,
        index: usize,
        queue: &mut Queue,
        agreed: Agreement,
        budget: &mut Budget,
        effects: &mut impl Effects,
    ) -> Result<(), Fault> {
        // Where the device waits for the world, the driver need not tell of more buffers.
        while self.wants(index, agreed) {
            if budget.left() == 0 {
                return Ok(());
            }
            let Some(chain) = queue.fetch(agreed, budget, effects)? else {
                break;
            };
            let progress = match self {
                Self::Block(block) => block.serve(chain, budget, effects)?,
                Self::Console(console) => console.serve(index, chain, budget, effects)?,
                Self::Entropy(entropy) => entropy.serve(chain, budget, effects)?,
                Self::Net(net) => net.serve(index, chain, agreed, budget, effects)?,
            };
            match progress {
                Progress::Done => queue.complete(effects)?,
                Progress::More => return Ok(()),
                Progress::Later => {
                    queue.put_back();
                    return Ok(());
                }
            }
        }
        queue.notified = false;
        Ok(())
    }

    /// Whether the device has a use for buffers of a queue.
    fn wants(&self, index: usize, agreed: Agreement) -> bool {
        match self {
            Self::Net(net) => net.wants(index, agreed),
            Self::Console(console) => console.wants(index),
            Self::Block(_) | Self::Entropy(_) => true,
        }
    }

    pub(super) fn save(&self) -> ModelStateV1 {
        match self {
            Self::Block(block) => ModelStateV1::Block(block.save()),
            Self::Console(console) => ModelStateV1::Console(console.save()),
            Self::Entropy(_) => ModelStateV1::Entropy,
            Self::Net(net) => ModelStateV1::Net(net.save()),
        }
    }

    /// Takes on a saved state. `busy` is whether the first queue has a chain that is being worked on.
    pub(super) fn restore(&mut self, state: &ModelStateV1, busy: bool) -> Result<(), StateError> {
        match (self, state) {
            (Self::Block(block), ModelStateV1::Block(state)) => block.restore(state, busy),
            (Self::Console(console), ModelStateV1::Console(state)) => console.restore(state),
            (Self::Entropy(_), ModelStateV1::Entropy) => Ok(()),
            (Self::Net(net), ModelStateV1::Net(state)) => net.restore(state),
            _ => Err(StateError::Devices),
        }
    }
}

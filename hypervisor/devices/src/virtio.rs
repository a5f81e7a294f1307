//! Virtio devices on the PCI bus: disks, a console, a source of entropy, network cards.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, OASIS committee specification; section numbers are its.
//!
//! The devices are of version 1 only, without the legacy interface. What a driver does often, and what simple drivers do
//! at all, needs no decoding of instructions: configuration, interrupt status and doorbell are in an I/O BAR; only the
//! MSI-X table is in memory.
//!
//! Whatever a ring holds is a claim of the guest's. A descriptor is copied once and checked; one that breaks the rules
//! stops its device ([`Fault`], status DEVICE_NEEDS_RESET) until the driver resets it, and harms nothing else.
//! What one notification can cost is bounded by a [`Budget`]; what is left is done at [`Pc::next_deadline`].
//!
//! [`Pc::next_deadline`]: crate::Pc::next_deadline

mod block;
mod chain;
mod console;
mod entropy;
mod fault;
mod function;
mod model;
mod net;
mod queue;
mod ring;
#[cfg(test)]
pub(crate) mod tests;
mod transport;

use alloc::vec::Vec;

pub use block::{BlockStateV1, RequestStateV1, SECTOR};
pub use chain::{ChainStateV1, Part};
pub use console::ConsoleStateV1;
pub use fault::Fault;
pub(crate) use function::Function;
pub use function::{FunctionStateV1, WindowStateV1};
pub use model::ModelStateV1;
pub use net::{
    AddressesStateV1, Delivery, FilterStateV1, NetStateV1, PAIRS_MAX, Payload, Receiver, Refusal,
    Takes,
};
pub use queue::QueueStateV1;
pub use transport::TransportStateV1;

/// Most disks of a board.
pub const DISKS_MAX: usize = 16;

/// A disk.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size in sectors of [`SECTOR`] bytes.
    pub sectors: u64,
    /// Whether the guest can only read it.
    pub read_only: bool,
}

/// Which virtio devices a board has. They are on its PCI bus, from device 2 on, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtioConfig {
    /// Disks, of which the first [`DISKS_MAX`] are there.
    pub disks: Vec<Disk>,
    /// Whether there is a console with one port.
    pub console: bool,
    /// Whether there is a source of entropy.
    pub entropy: bool,
}

/// How much a device may do in one go, so that an exit stays short: a unit is about what copying a byte costs.
#[derive(Debug)]
pub(crate) struct Budget(u32);

impl Budget {
    /// Units in one go: some thousands of a processor's ticks.
    pub(crate) const FULL: u32 = 16 << 10;

    pub(crate) const fn new() -> Self {
        Self(Self::FULL)
    }

    /// What is left.
    pub(crate) const fn left(&self) -> u32 {
        self.0
    }

    /// Takes units off; the last piece of work may exceed what is left.
    pub(crate) const fn spend(&mut self, units: u32) {
        self.0 = self.0.saturating_sub(units);
    }
}

/// How far a request got.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its buffers can be given back.
    Done,
    /// It goes on when there is a budget again.
    More,
    /// Nothing of it was done; it is to be fetched again later.
    Later,
}

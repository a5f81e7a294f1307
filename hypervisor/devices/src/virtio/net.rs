//! The network card (5.1).
//!
//! What it sends is served where the driver rings. What it receives is not served here at all: while a driver drives the
//! device, its receive queues are lent to the world as a [`Receiver`], and whoever has a frame for the guest puts it there.

mod control;
mod features;
mod filter;
mod header;
mod receiver;
mod transmit;

use net::MacAddress;
use serde::{Deserialize, Serialize};

use super::chain::Chain;
use super::queue::Queue;
use super::ring::Agreement;
use super::transport::Dependency;
use super::{Budget, Fault, Progress};
use crate::nic::NicConfig;
use crate::pc::{Effects, StateError};
use features::Features;
use filter::Filter;
pub use filter::{AddressesStateV1, FilterStateV1};
pub use receiver::{Delivery, Payload, Receiver, Refusal, Takes};

/// The longest queue of a network card.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Most pairs of queues of a network card.
pub const PAIRS_MAX: u16 = 8;

/// Bits of the status in the configuration (5.1.4).
const LINK_UP: u16 = 1;
const ANNOUNCE: u16 = 2;

/// What a queue is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Role {
    Receive,
    Transmit,
    Control,
}

/// The saved state of a network card; nothing of it is lent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStateV1 {
    /// Its address, and what else it receives.
    pub filter: FilterStateV1,
    /// Pairs of queues in use.
    pub active: u16,
    /// Whether there is a link.
    pub link: bool,
    /// Whether the driver is asked to announce itself.
    pub announce: bool,
    /// Frames to be sent that were dropped because they or their headers cannot be.
    pub malformed: u64,
}

/// A network card.
#[derive(Clone, Debug)]
pub(super) struct Net {
    /// Which of the board's network cards it is.
    nic: u8,
    pairs: u16,
    mtu: u16,
    /// Its address as it was made.
    mac: MacAddress,
    filter: Filter,
    active: u16,
    link: bool,
    announce: bool,
    malformed: u64,
    /// The receive queues' side for the world, while it is not lent.
    receiver: Option<Receiver>,
    /// The first bytes of what is being sent.
    head: transmit::Head,
}

impl Net {
    /// Network card `nic` of the board, with 1 to [`PAIRS_MAX`] pairs of queues.
    pub(super) fn new(nic: u8, config: &NicConfig, pairs: u16) -> Self {
        let pairs = pairs.clamp(1, PAIRS_MAX);
        Self {
            nic,
            pairs,
            mtu: config.mtu,
            mac: config.mac,
            filter: Filter::new(config.mac),
            active: 1,
            link: true,
            announce: false,
            malformed: 0,
            receiver: Some(Receiver::new(pairs, config.mac)),
            head: transmit::NO_HEAD,
        }
    }

    /// Which of the board's network cards it is.
    pub(super) const fn nic(&self) -> u8 {
        self.nic
    }

    /// Queues, with the control queue.
    pub(super) const fn queues(&self) -> u16 {
        2 * self.pairs + 1
    }

    pub(super) fn features(&self) -> u64 {
        let mut features = Features::all();
        if self.pairs == 1 {
            features.remove(Features::MQ);
        }
        features.bits()
    }

    pub(super) const fn dependencies() -> &'static [Dependency] {
        features::DEPENDENCIES
    }

    /// The configuration (5.1.4).
    pub(super) fn configuration(&self, offset: u16) -> u32 {
        let [a, b, c, d, e, f] = self.filter.mac.0;
        match offset {
            0x00 => u32::from_le_bytes([a, b, c, d]),
            0x04 => u32::from(self.status()) << 16 | u32::from(u16::from_le_bytes([e, f])),
            0x08 => u32::from(self.mtu) << 16 | u32::from(self.pairs),
            _ => 0,
        }
    }

    fn status(&self) -> u16 {
        let bit = |set, bit| if set { bit } else { 0 };
        bit(self.link, LINK_UP) | bit(self.announce, ANNOUNCE)
    }

    /// A reset of the device: what the driver chose is forgotten, the link stays.
    pub(super) fn reset(&mut self) {
        self.filter = Filter::new(self.mac);
        self.active = 1;
        self.announce = false;
    }

    /// What queue `index` is for. Without multiqueue, the control queue is behind the first pair (5.1.2).
    fn role(&self, index: usize, features: Features) -> Role {
        if index == 2 * usize::from(self.usable(features)) {
            Role::Control
        } else if index.is_multiple_of(2) {
            Role::Receive
        } else {
            Role::Transmit
        }
    }

    /// Pairs of queues that the driver can use.
    fn usable(&self, features: Features) -> u16 {
        if features.contains(Features::MQ) {
            self.pairs
        } else {
            1
        }
    }

    /// Whether the device itself has a use for buffers of a queue.
    pub(super) fn wants(&self, index: usize, agreed: Agreement) -> bool {
        self.role(index, Features::of(agreed)) != Role::Receive
    }

    /// Works on a chain of a queue that it has a use for.
    pub(super) fn serve(
        &mut self,
        index: usize,
        chain: &mut Chain,
        agreed: Agreement,
        budget: &mut Budget,
        effects: &mut impl Effects,
    ) -> Result<Progress, Fault> {
        let features = Features::of(agreed);
        match self.role(index, features) {
            Role::Control => self.control(chain, features, budget, effects),
            Role::Receive | Role::Transmit => self.transmit(chain, features, budget, effects),
        }
    }

    /// Lends the receive queues to the world, if they are here. Those that the driver did not enable take no frames.
    pub(super) fn lend(
        &mut self,
        queues: &[Queue],
        agreed: Agreement,
        effects: &mut impl Effects,
    ) -> Result<(), Fault> {
        let usable = usize::from(self.usable(Features::of(agreed)));
        let Some(receiver) = &mut self.receiver else {
            return Ok(());
        };
        receiver.begin(agreed);
        receiver.set(&self.filter, self.active);
        let receiving = queues.iter().step_by(2).take(usable).enumerate();
        for (pair, queue) in receiving.filter(|(_, queue)| queue.enabled) {
            // Nobody waits for buffers, so nobody need be told of them.
            let mut ring = queue.ring;
            ring.silence(agreed, effects)?;
            receiver.open(pair, ring);
        }
        if let Some(receiver) = self.receiver.take() {
            effects.lend_receiver(self.nic, receiver);
        }
        Ok(())
    }

    /// Takes the receive queues back, if they are lent.
    pub(super) fn take_back(&mut self, queues: &mut [Queue], effects: &mut impl Effects) {
        if self.receiver.is_some() {
            return;
        }
        self.receiver = effects.take_receiver(self.nic);
        if let Some(receiver) = &mut self.receiver {
            for (queue, ring) in queues.iter_mut().step_by(2).zip(receiver.close()) {
                if let Some(ring) = ring {
                    queue.ring = ring;
                }
            }
        }
    }

    /// Whether the receive queues are here because one of them is broken.
    pub(super) fn broken(&self) -> bool {
        self.receiver.as_ref().is_some_and(Receiver::broken)
    }

    /// The link comes or goes; whether that is news.
    pub(super) fn set_link(&mut self, up: bool) -> bool {
        core::mem::replace(&mut self.link, up) != up
    }

    /// Asks the driver to announce itself, if it can.
    pub(super) fn announce(&mut self, agreed: Agreement) -> bool {
        let able = Features::of(agreed).contains(Features::GUEST_ANNOUNCE | Features::STATUS);
        self.announce |= able;
        able
    }

    /// Frames to be sent that were dropped because they or their headers cannot be.
    pub(super) const fn malformed(&self) -> u64 {
        self.malformed
    }

    pub(super) fn save(&self) -> NetStateV1 {
        NetStateV1 {
            filter: self.filter.save(),
            active: self.active,
            link: self.link,
            announce: self.announce,
            malformed: self.malformed,
        }
    }

    pub(super) fn restore(&mut self, state: &NetStateV1) -> Result<(), StateError> {
        if !(1..=self.pairs).contains(&state.active) {
            return Err(StateError::Invalid("virtio: pairs of queues"));
        }
        self.filter = Filter::restore(&state.filter)?;
        self.active = state.active;
        self.link = state.link;
        self.announce = state.announce;
        self.malformed = state.malformed;
        Ok(())
    }
}

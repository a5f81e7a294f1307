//! The network cards' side towards the world.

use super::{Effects, Pc};
use crate::ne2000::Ne2000;
use crate::time::Ticks;
use crate::virtio::{Fault, Function};

impl Pc {
    /// The virtio device that is network card `nic`.
    fn nic(&mut self, nic: u8) -> Option<&mut Function> {
        self.pci.as_mut().and_then(|pci| pci.nic(nic))
    }

    /// Frames were put into these receive queues of network card `nic`, a bit for each, whose driver wants an interrupt;
    /// or one of its rings was found broken, which stops the device.
    pub fn received(
        &mut self,
        nic: u8,
        queues: u32,
        fault: Option<Fault>,
        now: Ticks,
        effects: &mut impl Effects,
    ) {
        if let Some(function) = self.nic(nic) {
            function.received(queues, fault, effects);
            self.settle_bus(now);
        }
    }

    /// The link of network card `nic` comes or goes. At first it is there.
    pub fn set_link(&mut self, nic: u8, up: bool, now: Ticks) {
        if let Some(function) = self.nic(nic) {
            function.set_link(up);
            self.settle_bus(now);
        }
    }

    /// Asks the driver of network card `nic` to announce itself to the network, where the board is now another. Returns
    /// whether it will: else others must, if anyone.
    pub fn announce(&mut self, nic: u8, now: Ticks) -> bool {
        let will = self.nic(nic).is_some_and(Function::announce);
        if will {
            self.settle_bus(now);
        }
        will
    }

    /// Frames of network card `nic` that were not sent because they, or what was to be done to them, were malformed.
    #[must_use]
    pub fn malformed_frames(&mut self, nic: u8) -> u64 {
        self.nic(nic).map_or(0, |function| function.malformed())
    }

    /// Whether network card `nic`, an NE2000, would not lose a frame now for want of memory: it has room for the longest,
    /// or is off line and loses all of them. [`Effects::room_for_frames`] tells of room that comes.
    #[must_use]
    pub fn nic_room(&self, nic: u8) -> bool {
        let adapters = self.adapters.iter().map(|adapter| &adapter.card);
        let card = adapters.into_iter().find(|card| card.nic() == nic);
        let card = card.or_else(|| self.pci.as_ref().and_then(|pci| pci.card(nic)));
        card.is_none_or(Ne2000::room)
    }

    /// A frame comes from the wire to network card `nic`, an NE2000: whole, without the check sequence. Returns whether it
    /// was not lost; a card without room tells its driver of the loss.
    pub fn receive_frame(&mut self, nic: u8, frame: &[u8], now: Ticks) -> bool {
        self.tick(now);
        let adapters = self.adapters.iter_mut().map(|adapter| &mut adapter.card);
        let card = adapters.into_iter().find(|card| card.nic() == nic);
        let card = card.or_else(|| self.pci.as_mut().and_then(|pci| pci.card_mut(nic)));
        let taken = card.is_some_and(|card| card.receive(frame));
        self.settle_bus(now);
        taken
    }

    /// Takes back what is lent to the world: before the board's state is [saved](Self::save), or the board goes.
    pub fn rest(&mut self, effects: &mut impl Effects) {
        if let Some(pci) = &mut self.pci {
            pci.rest(effects);
        }
    }

    /// Lends it again, after a [rest](Self::rest) or to a restored board.
    pub fn resume(&mut self, now: Ticks, effects: &mut impl Effects) {
        if let Some(pci) = &mut self.pci {
            pci.resume(effects);
            self.settle_bus(now);
        }
    }
}

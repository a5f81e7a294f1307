//! Cards on the ISA bus.

use alloc::vec::Vec;

use super::{Effects, Pc, Width};
use crate::ne2000::{Ne2000, PORTS};
use crate::nic::{NicConfig, NicModel};

/// An NE2000 at its ports and on its interrupt line.
#[derive(Clone, Debug)]
pub(super) struct Adapter {
    /// The first of its ports.
    port: u16,
    pub(super) irq: u8,
    pub(super) card: Ne2000,
}

impl Adapter {
    /// Those of a board with these network cards.
    pub(super) fn all(nics: &[NicConfig]) -> Vec<Self> {
        let adapters = (0..).zip(nics).filter_map(|(nic, config)| {
            let NicModel::Ne2000 { port, irq } = config.model else {
                return None;
            };
            let card = Ne2000::new(nic, config);
            Some(Self { port, irq, card })
        });
        adapters.collect()
    }
}

impl Pc {
    /// The position of the card that a port belongs to, and the port's offset among the card's.
    #[inline]
    fn adapter(&self, port: u16) -> Option<(usize, u16)> {
        let mut adapters = self.adapters.iter().enumerate();
        adapters.find_map(|(at, adapter)| {
            let offset = port.checked_sub(adapter.port)?;
            (offset < PORTS).then_some((at, offset))
        })
    }

    /// A read of a card's ports, if it is one. The bus is to be settled then.
    #[inline]
    pub(super) fn read_adapter(
        &mut self,
        port: u16,
        width: Width,
        effects: &mut impl Effects,
    ) -> Option<u32> {
        let (at, offset) = self.adapter(port)?;
        let card = &mut self.adapters.get_mut(at)?.card;
        Some(card.read_port(offset, width, effects))
    }

    /// A write to a card's ports; whether it was one. The bus is to be settled then.
    #[inline]
    pub(super) fn write_adapter(
        &mut self,
        port: u16,
        width: Width,
        value: u32,
        effects: &mut impl Effects,
    ) -> bool {
        let Some((at, offset)) = self.adapter(port) else {
            return false;
        };
        if let Some(adapter) = self.adapters.get_mut(at) {
            adapter.card.write_port(offset, width, value, effects);
        }
        true
    }

    /// Gives the cards' lines their levels.
    pub(super) fn settle_adapters(&mut self) {
        for adapter in &self.adapters {
            self.lines.set(adapter.irq, adapter.card.interrupt());
        }
    }

    /// The card whose data port a port is, on either bus.
    pub(super) fn data_port(&mut self, port: u16) -> Option<&mut Ne2000> {
        let (card, offset) = if let Some((at, offset)) = self.adapter(port) {
            (&mut self.adapters.get_mut(at)?.card, offset)
        } else {
            self.pci.as_mut()?.card_at(port)?
        };
        Ne2000::is_data(offset).then_some(card)
    }
}

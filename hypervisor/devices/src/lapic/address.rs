//! Which messages a local APIC listens to (SDM 11.6.2, 11.12.10).

use crate::msi::{DeliveryMode, Destination, Dispatch};

/// How a local APIC understands logical destinations.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// Disabled: it hears nothing.
    Off,
    /// xAPIC, flat: a bit for each of eight.
    Flat,
    /// xAPIC, cluster: four bits, in each of 15 clusters.
    Cluster,
    /// x2APIC: 16 bits, in each of 2^16 clusters.
    Wide,
}

/// All that decides whether a message is for a local APIC, for processors that do not own it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The APIC ID.
    pub id: u32,
    /// The logical APIC ID of an xAPIC. That of an x2APIC follows from its ID.
    pub logical: u8,
    /// What a logical destination means.
    pub model: Model,
    /// Whether it is enabled by software, so that it takes interrupts.
    pub enabled: bool,
}

impl Address {
    /// Whether a message is for this local APIC, which is the sender's or not.
    #[inline]
    #[must_use]
    pub const fn matches(self, destination: Destination, sender: bool) -> bool {
        if matches!(self.model, Model::Off) {
            return false;
        }
        match destination {
            Destination::Itself => sender,
            Destination::Everyone => true,
            Destination::Others => !sender,
            Destination::Physical(id) => id == self.id,
            Destination::Logical(id) => match self.model {
                Model::Off => false,
                Model::Flat => id <= 0xFF && id as u8 & self.logical != 0,
                Model::Cluster => {
                    id <= 0xFF
                        && id as u8 >> 4 == self.logical >> 4
                        && id as u8 & self.logical & 0x0F != 0
                }
                Model::Wide => {
                    let own = wide_logical(self.id);
                    id >> 16 == own >> 16 && id & own & 0xFFFF != 0
                }
            },
        }
    }

    /// The address in one word, for an atomic cell that other processors read.
    #[inline]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        let model = match self.model {
            Model::Off => 0,
            Model::Flat => 1,
            Model::Cluster => 2,
            Model::Wide => 3,
        };
        self.id as u64 | (self.logical as u64) << 32 | model << 40 | (self.enabled as u64) << 42
    }

    /// The address in a word; 0 is one that hears nothing.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            id: bits as u32,
            logical: (bits >> 32) as u8,
            model: match bits >> 40 & 3 {
                0 => Model::Off,
                1 => Model::Flat,
                2 => Model::Cluster,
                _ => Model::Wide,
            },
            enabled: bits >> 42 & 1 != 0,
        }
    }
}

/// The logical APIC ID of an x2APIC: its cluster of 16, and its bit there.
pub(super) const fn wide_logical(id: u32) -> u32 {
    (id >> 4 & 0xFFFF) << 16 | 1 << (id & 0xF)
}

/// The processors, as indices into `addresses`, that a message from processor `sender` (or from a device) is for.
///
/// Of a lowest-priority message that is one of those that take interrupts. Which one follows from the vector, so an
/// interrupt stays with a processor, as with the chipsets that hash vectors.
pub fn receivers<A>(
    dispatch: Dispatch,
    sender: Option<usize>,
    addresses: A,
) -> impl Iterator<Item = usize>
where
    A: Iterator<Item = Address> + Clone,
{
    let Dispatch {
        destination,
        message,
    } = dispatch;
    let one = message.mode == DeliveryMode::LowestPriority;
    let matching = addresses
        .enumerate()
        .filter(move |(index, address)| {
            address.matches(destination, sender == Some(*index)) && (address.enabled || !one)
        })
        .map(|(index, _)| index);
    let (skip, take) = if one {
        let count = matching.clone().count().max(1);
        (usize::from(message.vector) % count, 1)
    } else {
        (0, usize::MAX)
    };
    matching.skip(skip).take(take)
}

//! Network cards as the board and the world around it see them.

use net::{MacAddress, Offload};

use crate::virtio::Part;

/// What a network card is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum NicModel {
    /// A virtio network device with this many pairs of queues.
    Virtio {
        /// Pairs of queues, 1 to 8.
        pairs: u16,
    },
    /// A Realtek RTL8029, the NE2000 on the PCI bus.
    Rtl8029,
    /// An NE2000 on the ISA bus.
    Ne2000 {
        /// The first of its 32 ports.
        port: u16,
        /// Its interrupt line.
        irq: u8,
    },
}

/// A network card of a board. Those on the PCI bus come behind the other devices there, in their order.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct NicConfig {
    /// What it is.
    pub model: NicModel,
    /// Its address.
    pub mac: MacAddress,
    /// The longest packet in bytes, without the Ethernet header. Only a virtio device tells its driver.
    pub mtu: u16,
}

/// A frame that a guest sends.
#[derive(Copy, Clone, Debug)]
pub struct Outgoing<'a> {
    /// Its first bytes, copied out of the guest's reach: all headers that anybody looks at, with the checksum's place, or
    /// the whole frame.
    pub head: &'a [u8],
    /// Where in guest memory the others are.
    pub rest: &'a [Part],
    /// What is left to be done to it.
    pub offload: Offload,
}

/// What became of a frame that was to be sent.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way, or dropped.
    Done {
        /// How many were given it, each at its own cost.
        takers: u32,
    },
    /// There is no room for it now: the device tries again later.
    Busy,
}

impl Sent {
    /// Nobody was given it.
    pub const DROPPED: Self = Self::Done { takers: 0 };
}

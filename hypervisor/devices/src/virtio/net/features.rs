//! Features of a network card, and what some of them need (5.1.3).

use bitflags::bitflags;

use super::super::ring::Agreement;
use super::super::transport::Dependency;

bitflags! {
    /// Features (5.1.3).
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Features: u64 {
        /// The device completes checksums of what is sent.
        const CSUM = 1 << 0;
        /// The driver takes frames with incomplete checksums.
        const GUEST_CSUM = 1 << 1;
        /// The configuration has the longest packet.
        const MTU = 1 << 3;
        /// The configuration has the address.
        const MAC = 1 << 5;
        /// The driver takes long frames of TCP over IPv4.
        const GUEST_TSO4 = 1 << 7;
        /// The driver takes long frames of TCP over IPv6.
        const GUEST_TSO6 = 1 << 8;
        /// The driver takes such with CWR.
        const GUEST_ECN = 1 << 9;
        /// The device cuts long frames of TCP over IPv4.
        const HOST_TSO4 = 1 << 11;
        /// The device cuts long frames of TCP over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// The device cuts such with CWR.
        const HOST_ECN = 1 << 13;
        /// A frame may be received into several chains.
        const MRG_RXBUF = 1 << 15;
        /// The configuration has a status.
        const STATUS = 1 << 16;
        /// There is a control queue.
        const CTRL_VQ = 1 << 17;
        /// It takes commands for what is received.
        const CTRL_RX = 1 << 18;
        /// It takes more of those.
        const CTRL_RX_EXTRA = 1 << 20;
        /// The driver can announce itself.
        const GUEST_ANNOUNCE = 1 << 21;
        /// There are several pairs of queues.
        const MQ = 1 << 22;
        /// The driver can set the address.
        const CTRL_MAC_ADDR = 1 << 23;
        /// The driver takes long frames of UDP over IPv4.
        const GUEST_USO4 = 1 << 54;
        /// The driver takes long frames of UDP over IPv6.
        const GUEST_USO6 = 1 << 55;
        /// The device cuts long frames of UDP.
        const HOST_USO = 1 << 56;
    }
}

impl Features {
    /// Those that the driver chose.
    pub(super) const fn of(agreed: Agreement) -> Self {
        Self::from_bits_truncate(agreed.features)
    }
}

const fn needs(feature: Features, one_of: Features) -> Dependency {
    Dependency {
        feature: feature.bits(),
        one_of: one_of.bits(),
    }
}

/// Which feature needs which (5.1.3.1).
pub(super) const DEPENDENCIES: &[Dependency] = &[
    needs(Features::GUEST_TSO4, Features::GUEST_CSUM),
    needs(Features::GUEST_TSO6, Features::GUEST_CSUM),
    needs(
        Features::GUEST_ECN,
        Features::GUEST_TSO4.union(Features::GUEST_TSO6),
    ),
    needs(Features::GUEST_USO4, Features::GUEST_CSUM),
    needs(Features::GUEST_USO6, Features::GUEST_CSUM),
    needs(Features::HOST_TSO4, Features::CSUM),
    needs(Features::HOST_TSO6, Features::CSUM),
    needs(
        Features::HOST_ECN,
        Features::HOST_TSO4.union(Features::HOST_TSO6),
    ),
    needs(Features::HOST_USO, Features::CSUM),
    needs(Features::CTRL_RX, Features::CTRL_VQ),
    needs(Features::CTRL_RX_EXTRA, Features::CTRL_VQ),
    needs(Features::GUEST_ANNOUNCE, Features::CTRL_VQ),
    needs(Features::MQ, Features::CTRL_VQ),
    needs(Features::CTRL_MAC_ADDR, Features::CTRL_VQ),
];

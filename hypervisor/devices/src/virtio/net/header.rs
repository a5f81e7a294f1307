//! The header before every frame in a ring, `virtio_net_hdr` (5.1.6).

use bitflags::bitflags;
use net::{Offload, PartialChecksum, Segmentation, SegmentationKind};

use super::features::Features;
use super::receiver::Takes;

/// Bytes of the header.
pub(super) const LENGTH: usize = 12;
/// Bytes of an Ethernet header, and those before its type.
pub(super) const ETHERNET: usize = 14;
const ADDRESSES: usize = 12;
/// Bytes of a VLAN tag.
const TAG: usize = 4;

bitflags! {
    /// `flags`.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    struct Flags: u8 {
        /// The checksum is incomplete.
        const NEEDS_CSUM = 1;
        /// The checksums were found right.
        const DATA_VALID = 2;
    }
}

/// `gso_type`, and the bit in it that says that the header has CWR.
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// The version of IP that a frame carries, if it does; it may have a VLAN tag.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Ip {
    V4,
    V6,
}

impl Ip {
    /// The version that a frame carries which begins with `head`, and where its header begins.
    fn find(head: &[u8]) -> Option<(Self, usize)> {
        let kind = |at: usize| {
            let bytes = head.get(at..)?.first_chunk()?;
            Some(u16::from_be_bytes(*bytes))
        };
        let at = match kind(ADDRESSES)? {
            0x8100 => ADDRESSES + TAG,
            _ => ADDRESSES,
        };
        let version = match kind(at)? {
            0x0800 => Self::V4,
            0x86DD => Self::V6,
            _ => return None,
        };
        Some((version, at + size_of::<u16>()))
    }

    pub(super) fn of(head: &[u8]) -> Option<Self> {
        Self::find(head).map(|(version, _)| version)
    }

    /// Bytes of the shortest header.
    const fn header(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

/// Whether a checksum is one of TCP or UDP over IP: what is stored lies behind everything that a switch, or somebody who guards
/// addresses, looks at before it is stored.
fn is_of_transport(checksum: PartialChecksum, head: &[u8]) -> bool {
    /// Where TCP and UDP have theirs (RFC 9293, RFC 768).
    const PLACES: [u16; 2] = [16, 6];
    let start = usize::from(checksum.start);
    let end = start + usize::from(checksum.offset) + size_of::<u16>();
    Ip::find(head).is_some_and(|(version, at)| start >= at + version.header())
        && PLACES.contains(&checksum.offset)
        && end <= head.len()
}

/// What a driver left to be done to the frame that begins with `head`. There is none for headers that ask for what was
/// not agreed upon, or cannot be done.
pub(super) fn decode(header: &[u8; LENGTH], head: &[u8], chosen: Features) -> Option<Offload> {
    let [
        flags,
        gso,
        _,
        _,
        size_low,
        size_high,
        start_low,
        start_high,
        offset_low,
        offset_high,
        ..,
    ] = *header;
    let mut offload = Offload::default();
    if Flags::from_bits_truncate(flags).contains(Flags::NEEDS_CSUM) {
        let checksum = PartialChecksum {
            start: u16::from_le_bytes([start_low, start_high]),
            offset: u16::from_le_bytes([offset_low, offset_high]),
        };
        if !is_of_transport(checksum, head) || !chosen.contains(Features::CSUM) {
            return None;
        }
        offload.checksum = Some(checksum);
    }
    if gso != GSO_NONE {
        // Each piece gets a checksum of its own (5.1.6.2.1).
        offload.checksum?;
        let size = u16::from_le_bytes([size_low, size_high]);
        let segmentation = segmentation(gso, size, head, chosen)?;
        offload.segmentation = Some(segmentation);
    }
    Some(offload)
}

fn segmentation(gso: u8, size: u16, head: &[u8], chosen: Features) -> Option<Segmentation> {
    let congestion = gso & GSO_ECN != 0;
    let (kind, mut needed, carried) = match gso & !GSO_ECN {
        GSO_TCP4 => (SegmentationKind::Tcp4, Features::HOST_TSO4, Some(Ip::V4)),
        GSO_TCP6 => (SegmentationKind::Tcp6, Features::HOST_TSO6, Some(Ip::V6)),
        GSO_UDP if !congestion => (SegmentationKind::Udp, Features::HOST_USO, None),
        _ => return None,
    };
    if congestion {
        needed |= Features::HOST_ECN;
    }
    let ip = Ip::of(head)?;
    let possible =
        size != 0 && chosen.contains(needed) && carried.is_none_or(|carried| carried == ip);
    possible.then_some(Segmentation {
        kind,
        size,
        congestion,
    })
}

/// The header of a frame that begins with `head` and takes `buffers` chains, for a driver that takes what is left to be
/// done to it.
#[inline]
pub(super) fn encode(offload: &Offload, head: &[u8], buffers: u16, takes: Takes) -> [u8; LENGTH] {
    let mut flags = Flags::empty();
    let (mut gso, mut length, mut size) = (GSO_NONE, 0, 0);
    let (mut start, mut offset) = (0, 0);
    if let Some(checksum) = offload.checksum {
        flags |= Flags::NEEDS_CSUM;
        (start, offset) = (checksum.start, checksum.offset);
        if let Some(segmentation) = offload.segmentation {
            gso = kind(segmentation);
            size = segmentation.size;
            length = headers(head, start, segmentation.kind);
        }
    } else if offload.verified && takes.contains(Takes::CHECKSUM) {
        flags |= Flags::DATA_VALID;
    }
    let bits = u128::from(flags.bits())
        | u128::from(gso) << 8
        | u128::from(length) << 16
        | u128::from(size) << 32
        | u128::from(start) << 48
        | u128::from(offset) << 64
        | u128::from(buffers) << 80;
    let mut header = [0; LENGTH];
    for (to, from) in header.iter_mut().zip(bits.to_le_bytes()) {
        *to = from;
    }
    header
}

const fn kind(segmentation: Segmentation) -> u8 {
    let kind = match segmentation.kind {
        SegmentationKind::Tcp4 => GSO_TCP4,
        SegmentationKind::Tcp6 => GSO_TCP6,
        SegmentationKind::Udp => GSO_UDP,
    };
    if segmentation.congestion {
        kind | GSO_ECN
    } else {
        kind
    }
}

/// Bytes of all headers of a frame whose transport header is at `start`.
fn headers(head: &[u8], start: u16, kind: SegmentationKind) -> u16 {
    const UDP: u16 = 8;
    const TCP_OFFSET: usize = 12;
    let transport = match kind {
        SegmentationKind::Udp => UDP,
        SegmentationKind::Tcp4 | SegmentationKind::Tcp6 => {
            let words = head.get(usize::from(start) + TCP_OFFSET);
            words.map_or(0, |words| 4 * u16::from(words >> 4))
        }
    };
    start.saturating_add(transport)
}

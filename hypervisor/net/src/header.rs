//! The Ethernet header and the tag of IEEE 802.1Q.

use crate::{MacAddress, VlanId};

/// Type of a frame with a tag (IEEE 802.1Q, 9.4), and those of tags around or behind it: of service providers, and an old one of
/// the same meaning.
const TAG_TYPE: u16 = 0x8100;
const SERVICE_TAG_TYPE: u16 = 0x88A8;
const OLD_SERVICE_TAG_TYPE: u16 = 0x9100;
/// Type of ARP and its sender's hardware address's place in the packet (RFC 826).
const ARP_TYPE: u16 = 0x0806;
const ARP_SENDER: usize = 8;
/// Type of RARP (RFC 903), which has the same layout.
pub(crate) const RARP_TYPE: u16 = 0x8035;
/// Bytes of both addresses, and of a tag.
pub(crate) const ADDRESSES: usize = 12;
const TAG: usize = 4;
/// Bits of a tag: priority, and the VLAN's number.
const PRIORITY_SHIFT: u16 = 13;
const VLAN_MASK: u16 = 0xFFF;

/// Bytes of a header without a tag.
pub(crate) const HEADER: usize = 14;
/// Bytes of a header that is rewritten, at most.
pub const REWRITTEN_MAX: usize = ADDRESSES + TAG;

/// What a frame's tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Priority, 0 to 7.
    pub(crate) priority: u8,
    /// The number of the VLAN; 0 if the tag only gives a priority.
    pub(crate) vlan: u16,
}

/// A header as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) destination: MacAddress,
    pub(crate) source: MacAddress,
    pub(crate) tag: Option<Tag>,
    /// The type, behind the tag if there is one.
    kind: u16,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*pair))
}

fn address(bytes: &[u8], at: usize) -> Option<MacAddress> {
    bytes.get(at..)?.first_chunk().copied().map(MacAddress)
}

impl Header {
    /// Reads the header of a frame that begins with `head`; `None` if that is too short.
    #[inline]
    pub(crate) fn read(head: &[u8]) -> Option<Self> {
        let kind = word(head, ADDRESSES)?;
        let (tag, kind) = if kind == TAG_TYPE {
            let bits = word(head, HEADER)?;
            let tag = Tag {
                priority: (bits >> PRIORITY_SHIFT) as u8,
                vlan: bits & VLAN_MASK,
            };
            (Some(tag), word(head, ADDRESSES + TAG)?)
        } else {
            (None, kind)
        };
        Some(Self {
            destination: address(head, 0)?,
            source: address(head, 6)?,
            tag,
            kind,
        })
    }

    /// The type of what it carries.
    pub(crate) const fn kind(&self) -> u16 {
        self.kind
    }

    /// Whether there are tags beside the one that is looked at: whoever strips that would have the frame in a VLAN that nobody
    /// has checked.
    pub(crate) const fn has_more_tags(&self) -> bool {
        matches!(
            self.kind,
            TAG_TYPE | SERVICE_TAG_TYPE | OLD_SERVICE_TAG_TYPE
        )
    }

    /// Where the packet begins.
    pub(crate) const fn length(&self) -> usize {
        match self.tag {
            Some(_) => HEADER + TAG,
            None => HEADER,
        }
    }

    /// Whether a station with this address could have sent the frame, by what it says of its sender.
    pub(crate) fn is_of(&self, station: MacAddress, head: &[u8]) -> bool {
        let inner = match self.kind {
            ARP_TYPE | RARP_TYPE => address(head, self.length() + ARP_SENDER),
            _ => Some(station),
        };
        self.source == station && inner == Some(station)
    }
}

/// The first bytes of a frame as they are to leave a port, instead of those that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    bytes: [u8; REWRITTEN_MAX],
    length: u8,
    replaces: u8,
}

impl Rewritten {
    /// The new bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&[])
    }

    /// How many of the frame's first bytes they replace.
    #[must_use]
    pub const fn replaces(&self) -> usize {
        self.replaces as usize
    }

    /// The first bytes of a frame that begins with `head` and has a tag or not, with a tag that says `vlan` and `priority`,
    /// or without.
    pub(crate) fn new(head: &[u8], tagged: bool, tag: Option<(VlanId, u8)>) -> Option<Self> {
        let mut bytes = [0; REWRITTEN_MAX];
        let (addresses, rest) = bytes.split_first_chunk_mut::<ADDRESSES>()?;
        addresses.copy_from_slice(head.get(..ADDRESSES)?);
        if let Some((vlan, priority)) = tag {
            let bits = u16::from(priority) << PRIORITY_SHIFT | vlan.number();
            rest.copy_from_slice(&(u32::from(TAG_TYPE) << 16 | u32::from(bits)).to_be_bytes());
        }
        let with = |tagged| (ADDRESSES + if tagged { TAG } else { 0 }) as u8;
        Some(Self {
            bytes,
            length: with(tag.is_some()),
            replaces: with(tagged),
        })
    }
}

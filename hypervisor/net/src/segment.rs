//! Cutting frames that are too long for the wire.

use core::ops::Range;

use crate::checksum::{fold, sum};
use crate::header::Header;
use crate::offload::{BadOffload, Offload, PartialChecksum, SegmentationKind};

/// Most bytes of all headers of a frame that can be cut.
pub const HEADERS_MAX: usize = 192;

/// Most pieces of a frame: each costs whoever cuts it time that others wait for. 64 KiB are fewer in TCP's default size (536 bytes;
/// RFC 9293, 3.7.1).
pub const PIECES_MAX: usize = 128;

/// Types of frames (RFC 894, RFC 2464).
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;
/// Protocols (RFC 790).
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Headers between IPv6's own and the transport's that each piece may have (RFC 8200, 4.3, 4.4, 4.6): options for all hops,
/// the route, options for the destination. Their lengths count in units of 8 bytes, from the first one on.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
const EXTENSION_UNIT: usize = 8;

/// Where things are in an IPv4 header (RFC 791), from its start, and its length without options.
const IPV4_LENGTH: usize = 2;
const IPV4_ID: usize = 4;
const IPV4_FRAGMENT: usize = 6;
const IPV4_PROTOCOL: usize = 9;
const IPV4_CHECKSUM: usize = 10;
const IPV4_ADDRESSES: Range<usize> = 12..20;
const IPV4_HEADER: usize = 20;
/// Of the fragment word: that more follow, and where this one belongs.
const FRAGMENT_MASK: u16 = 0x3FFF;
/// In an IPv6 header (RFC 8200).
const IPV6_LENGTH: usize = 4;
const IPV6_NEXT: usize = 6;
const IPV6_ADDRESSES: Range<usize> = 8..40;
const IPV6_HEADER: usize = 40;
/// In a TCP header (RFC 9293).
const TCP_SEQUENCE: usize = 4;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: u16 = 16;
const TCP_HEADER: usize = 20;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// In a UDP header (RFC 768).
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: u16 = 6;
const UDP_HEADER: usize = 8;

/// A piece of a frame.
#[derive(Debug)]
pub struct Segment<'a> {
    /// Its headers, with the sum of the pseudo-header in the checksum's place.
    pub headers: &'a [u8],
    /// Which bytes of the frame follow.
    pub payload: Range<usize>,
    /// The checksum that is to be completed once it is whole.
    pub checksum: PartialChecksum,
}

/// Cuts one frame.
#[derive(Clone, Debug)]
pub struct Segmenter {
    /// The headers of the last piece.
    headers: [u8; HEADERS_MAX],
    /// Their length.
    length: usize,
    /// Where the network's and the transport's begin.
    network: usize,
    transport: usize,
    v4: bool,
    tcp: bool,
    /// The flags of the frame's TCP header, and its sequence number.
    flags: u8,
    sequence: u32,
    id: u16,
    /// Bytes of payload in a piece.
    size: usize,
    /// Bytes of the frame.
    total: usize,
    /// Where in the frame the next piece's payload begins.
    next: usize,
    done: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_be_bytes)
}

impl Segmenter {
    /// Begins to cut a frame of `total` bytes that begins with `head`, which holds all its headers.
    ///
    /// # Errors
    ///
    /// [`BadOffload`] for a frame that cannot be cut so.
    pub fn new(head: &[u8], total: usize, offload: &Offload) -> Result<Self, BadOffload> {
        let segmentation = offload.segmentation.ok_or(BadOffload::Size)?;
        let checksum = offload.checksum.ok_or(BadOffload::Checksum)?;
        let transport = usize::from(checksum.start);
        let size = usize::from(segmentation.size);
        if size == 0 {
            return Err(BadOffload::Size);
        }
        let parts = Parts::read(head, transport, segmentation.kind).ok_or(BadOffload::Headers)?;
        let place = if parts.tcp {
            TCP_CHECKSUM
        } else {
            UDP_CHECKSUM
        };
        if checksum.offset != place {
            return Err(BadOffload::Checksum);
        }
        let own = head.get(..parts.length).ok_or(BadOffload::Headers)?;
        let mut headers = [0; HEADERS_MAX];
        headers
            .get_mut(..parts.length)
            .ok_or(BadOffload::Headers)?
            .copy_from_slice(own);
        let largest = parts.length - parts.network + size;
        let pieces = total.saturating_sub(parts.length).div_ceil(size);
        if total < parts.length || largest > usize::from(u16::MAX) || pieces > PIECES_MAX {
            return Err(BadOffload::Size);
        }
        let byte = |at: usize| own.get(transport + at).copied().unwrap_or(0);
        let sequence = own
            .get(transport + TCP_SEQUENCE..)
            .and_then(<[u8]>::first_chunk)
            .map_or(0, |bytes| u32::from_be_bytes(*bytes));
        Ok(Self {
            headers,
            length: parts.length,
            network: parts.network,
            transport,
            v4: parts.v4,
            tcp: parts.tcp,
            flags: byte(TCP_FLAGS),
            sequence,
            id: word(own, parts.network + IPV4_ID).unwrap_or(0),
            size,
            total,
            next: parts.length,
            done: 0,
        })
    }

    /// How many pieces are left.
    #[must_use]
    pub fn count(&self) -> usize {
        let left = (self.total - self.next).div_ceil(self.size);
        // A frame without payload is a piece, too.
        if self.done == 0 { left.max(1) } else { left }
    }

    /// The next piece.
    #[allow(clippy::should_implement_trait, reason = "the piece borrows from this")]
    pub fn next(&mut self) -> Option<Segment<'_>> {
        if self.count() == 0 {
            return None;
        }
        let payload = self.next..self.total.min(self.next + self.size);
        let last = payload.end == self.total;
        self.write_network(payload.len());
        if self.tcp {
            let passed = (payload.start - self.length) as u32;
            self.put(
                self.transport + TCP_SEQUENCE,
                &self.sequence.wrapping_add(passed).to_be_bytes(),
            );
            let mut flags = self.flags;
            if !last {
                flags &= !(FIN | PSH);
            }
            if self.done > 0 {
                flags &= !CWR;
            }
            self.put(self.transport + TCP_FLAGS, &[flags]);
        } else {
            let length = (UDP_HEADER + payload.len()) as u16;
            self.put(self.transport + UDP_LENGTH, &length.to_be_bytes());
        }
        let offset = if self.tcp { TCP_CHECKSUM } else { UDP_CHECKSUM };
        let seed = self.pseudo_header(payload.len());
        self.put(self.transport + usize::from(offset), &seed.to_be_bytes());
        self.next = payload.end;
        self.done += 1;
        Some(Segment {
            headers: self.headers.get(..self.length).unwrap_or(&[]),
            payload,
            checksum: PartialChecksum {
                start: self.transport as u16,
                offset,
            },
        })
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.headers.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Brings the network's header up to a piece's length.
    fn write_network(&mut self, payload: usize) {
        let length = self.length - self.network + payload;
        if !self.v4 {
            let length = (length - IPV6_HEADER) as u16;
            return self.put(self.network + IPV6_LENGTH, &length.to_be_bytes());
        }
        self.put(self.network + IPV4_LENGTH, &(length as u16).to_be_bytes());
        let id = self.id.wrapping_add(self.done as u16);
        self.put(self.network + IPV4_ID, &id.to_be_bytes());
        self.put(self.network + IPV4_CHECKSUM, &[0, 0]);
        let header = self.headers.get(self.network..self.transport);
        let checksum = !fold(sum(header.unwrap_or(&[])));
        self.put(self.network + IPV4_CHECKSUM, &checksum.to_be_bytes());
    }

    /// The sum of the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1).
    fn pseudo_header(&self, payload: usize) -> u16 {
        let addresses = if self.v4 {
            IPV4_ADDRESSES
        } else {
            IPV6_ADDRESSES
        };
        let range = self.network + addresses.start..self.network + addresses.end;
        let protocol = if self.tcp { TCP } else { UDP };
        let length = self.length - self.transport + payload;
        let addresses = sum(self.headers.get(range).unwrap_or(&[]));
        fold(addresses + u64::from(protocol) + length as u64)
    }
}

/// Where the headers are.
struct Parts {
    network: usize,
    /// Of all headers together.
    length: usize,
    v4: bool,
    tcp: bool,
}

impl Parts {
    /// Reads the headers of a frame whose transport header is said to be at `transport`.
    fn read(head: &[u8], transport: usize, kind: SegmentationKind) -> Option<Self> {
        let header = Header::read(head)?;
        let network = header.length();
        let v4 = match (header.kind(), kind) {
            (IPV4, SegmentationKind::Tcp4 | SegmentationKind::Udp) => true,
            (IPV6, SegmentationKind::Tcp6 | SegmentationKind::Udp) => false,
            _ => return None,
        };
        let tcp = kind != SegmentationKind::Udp;
        let protocol = if tcp { TCP } else { UDP };
        let packet = head.get(network..)?;
        let (end, carried) = if v4 {
            ipv4_end(packet)?
        } else {
            ipv6_end(packet)?
        };
        (network + end == transport && carried == protocol).then_some(())?;
        let own = if tcp {
            let words = *head.get(transport + TCP_DATA_OFFSET)? >> 4;
            let length = usize::from(words) * 4;
            (length >= TCP_HEADER).then_some(length)?
        } else {
            UDP_HEADER
        };
        let length = transport + own;
        (length <= head.len() && length <= HEADERS_MAX).then_some(Self {
            network,
            length,
            v4,
            tcp,
        })
    }
}

/// Where the header of an IPv4 packet ends, and what follows it; `None` if that cannot be cut.
fn ipv4_end(packet: &[u8]) -> Option<(usize, u8)> {
    let first = *packet.first()?;
    let length = usize::from(first & 0xF) * 4;
    let whole = word(packet, IPV4_FRAGMENT)? & FRAGMENT_MASK == 0;
    let sound = first >> 4 == 4 && length >= IPV4_HEADER && whole;
    sound.then_some((length, *packet.get(IPV4_PROTOCOL)?))
}

/// Where the headers of an IPv6 packet end that its pieces have in common, and what follows them.
fn ipv6_end(packet: &[u8]) -> Option<(usize, u8)> {
    (packet.first()? >> 4 == 6).then_some(())?;
    let mut end = IPV6_HEADER;
    let mut next = *packet.get(IPV6_NEXT)?;
    while EXTENSIONS.contains(&next) {
        let [following, units] = *packet.get(end..)?.first_chunk()?;
        end += EXTENSION_UNIT * (1 + usize::from(units));
        next = following;
    }
    Some((end, next))
}

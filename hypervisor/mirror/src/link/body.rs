//! The bodies of the link's frames.
//!
//! ```text
//! Data                                   Ack
//!  0  lane u8, zero u8                    0  maps u8 (bit n: one of lane n follows), zero u8
//!  2  delay u16                           2  delay u16       µs from the arrival of the newest to this frame
//!  4  newest u32                          4  newest u32      the highest order that came
//!  8  next 4 × u32                        8  next 4 × u32    of each lane: the first segment that was not taken
//! 24  order u32                          24  maps, 32 bytes each: bit n, from the lowest of the first byte on,
//! 28  sequence u32                           says that segment next + n came
//! 32  segment
//! ```
//!
//! Sequences count the segments of a lane, orders the Data frames of all lanes, repeated ones as well. Both wrap.

use super::{LANES, Lane, LinkError};

/// The highest window, and the bits of a map.
pub(super) const WINDOW_MAX: usize = 256;
const MAP: usize = WINDOW_MAX / 8;
const ACKS: usize = 24;
/// Bytes of a Data frame's body before the segment.
pub(super) const DATA_HEAD: usize = 32;
/// The first sequence and order: they wrap soon, so what goes wrong there goes wrong in each session.
pub(super) const FIRST: u32 = u32::MAX - 99;

/// How far `later` is ahead of `earlier`; none if it is behind.
#[inline]
pub(super) const fn ahead(later: u32, earlier: u32) -> Option<usize> {
    let distance = later.wrapping_sub(earlier);
    if distance < 1 << 31 {
        Some(distance as usize)
    } else {
        None
    }
}

/// Which segments came.
pub(super) type Map = [u8; MAP];

/// What a frame of either kind says has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acks {
    /// In µs.
    pub(super) delay: u16,
    pub(super) newest: u32,
    pub(super) next: [u32; LANES],
}

/// What a Data frame says of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataHead {
    pub(super) lane: Lane,
    pub(super) order: u32,
    pub(super) sequence: u32,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*word))
}

fn put(bytes: &mut [u8], at: usize, word: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

impl Acks {
    fn encode(&self, first: u8) -> [u8; ACKS] {
        let mut bytes = [0; ACKS];
        bytes[0] = first;
        bytes[2..4].copy_from_slice(&self.delay.to_le_bytes());
        put(&mut bytes, 4, self.newest);
        for (index, next) in self.next.into_iter().enumerate() {
            put(&mut bytes, 8 + 4 * index, next);
        }
        bytes
    }

    /// What a body says, and its first byte.
    fn decode(body: &[u8]) -> Option<(u8, Self)> {
        let head: &[u8; ACKS] = body.first_chunk()?;
        let mut next = [0; LANES];
        for (index, next) in next.iter_mut().enumerate() {
            *next = word(head, 8 + 4 * index)?;
        }
        let acks = Self {
            delay: u16::from_le_bytes([head[2], head[3]]),
            newest: word(head, 4)?,
            next,
        };
        (head[1] == 0).then_some((head[0], acks))
    }
}

/// Writes a Data frame's body; its length, or none if `body` is too short.
pub(super) fn encode_data(
    acks: &Acks,
    head: &DataHead,
    segment: &[u8],
    body: &mut [u8],
) -> Option<usize> {
    let length = DATA_HEAD + segment.len();
    let (place, rest) = body
        .get_mut(..length)?
        .split_first_chunk_mut::<DATA_HEAD>()?;
    let (first, second) = place.split_first_chunk_mut()?;
    *first = acks.encode(head.lane as u8);
    put(second, 0, head.order);
    put(second, 4, head.sequence);
    rest.copy_from_slice(segment);
    Some(length)
}

/// What is in a Data frame's body.
///
/// # Errors
///
/// [`LinkError::Malformed`].
pub(super) fn decode_data(body: &[u8]) -> Result<(Acks, DataHead, &[u8]), LinkError> {
    let (lane, acks) = Acks::decode(body).ok_or(LinkError::Malformed)?;
    let (head, segment) = body
        .split_at_checked(DATA_HEAD)
        .ok_or(LinkError::Malformed)?;
    let head = DataHead {
        lane: Lane::new(lane).ok_or(LinkError::Malformed)?,
        order: word(head, ACKS).ok_or(LinkError::Malformed)?,
        sequence: word(head, ACKS + 4).ok_or(LinkError::Malformed)?,
    };
    Ok((acks, head, segment))
}

/// Writes an Ack frame's body with the lanes' maps, where there are any; its length, or none if `body` is too short.
pub(super) fn encode_ack(
    acks: &Acks,
    maps: &[Option<Map>; LANES],
    body: &mut [u8],
) -> Option<usize> {
    let mut which = 0;
    let mut length = ACKS;
    for (index, map) in maps.iter().enumerate() {
        if let Some(map) = map {
            which |= 1 << index;
            *body.get_mut(length..)?.first_chunk_mut()? = *map;
            length += MAP;
        }
    }
    *body.first_chunk_mut()? = acks.encode(which);
    Some(length)
}

/// What is in an Ack frame's body.
///
/// # Errors
///
/// [`LinkError::Malformed`].
pub(super) fn decode_ack(body: &[u8]) -> Result<(Acks, [Option<Map>; LANES]), LinkError> {
    let (which, acks) = Acks::decode(body).ok_or(LinkError::Malformed)?;
    let mut rest = body.get(ACKS..).ok_or(LinkError::Malformed)?;
    let mut maps = [None; LANES];
    for (index, map) in maps.iter_mut().enumerate() {
        if which & 1 << index != 0 {
            let (first, more) = rest.split_first_chunk().ok_or(LinkError::Malformed)?;
            *map = Some(*first);
            rest = more;
        }
    }
    if which >> LANES != 0 || !rest.is_empty() {
        return Err(LinkError::Malformed);
    }
    Ok((acks, maps))
}

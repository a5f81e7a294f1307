//! The receive queues in the hands of whoever has frames for the guest.

use alloc::vec::Vec;
use core::fmt;

use bitflags::bitflags;
use net::{MacAddress, Offload, SegmentationKind};

use super::super::Fault;
use super::super::chain::{Cursor, Part};
use super::super::ring::{Agreement, Ring};
use super::QUEUE_SIZE;
use super::features::Features;
use super::filter::{Filter, Modes};
use super::header::{self, Ip};
use crate::pc::{MemoryAccess, OutsideMemory};

/// Most buffers for a frame, and most chains that they are in.
const PARTS_MAX: usize = QUEUE_SIZE as usize;

bitflags! {
    /// What can be left to be done to a frame for a driver.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub struct Takes: u8 {
        /// A checksum.
        const CHECKSUM = 1 << 0;
        /// Cutting of TCP over IPv4.
        const TSO4 = 1 << 1;
        /// Cutting of TCP over IPv6.
        const TSO6 = 1 << 2;
        /// The same with CWR.
        const ECN = 1 << 3;
        /// Cutting of UDP over IPv4.
        const USO4 = 1 << 4;
        /// Cutting of UDP over IPv6.
        const USO6 = 1 << 5;
    }
}

impl Takes {
    /// What the receiver of a frame that begins with `head` must take.
    #[inline]
    #[must_use]
    pub fn needed(offload: &Offload, head: &[u8]) -> Self {
        let mut needed = Self::empty();
        needed.set(Self::CHECKSUM, offload.checksum.is_some());
        if let Some(segmentation) = offload.segmentation {
            needed |= Self::CHECKSUM;
            needed |= match segmentation.kind {
                SegmentationKind::Tcp4 => Self::TSO4,
                SegmentationKind::Tcp6 => Self::TSO6,
                SegmentationKind::Udp if Ip::of(head) == Some(Ip::V6) => Self::USO6,
                SegmentationKind::Udp => Self::USO4,
            };
            needed.set(Self::ECN, segmentation.congestion);
        }
        needed
    }

    fn of(chosen: Features) -> Self {
        [
            (Features::GUEST_CSUM, Self::CHECKSUM),
            (Features::GUEST_TSO4, Self::TSO4),
            (Features::GUEST_TSO6, Self::TSO6),
            (Features::GUEST_ECN, Self::ECN),
            (Features::GUEST_USO4, Self::USO4),
            (Features::GUEST_USO6, Self::USO6),
        ]
        .into_iter()
        .filter(|(feature, _)| chosen.contains(*feature))
        .fold(Self::empty(), |takes, (_, take)| takes | take)
    }
}

/// A frame that a guest is to receive.
pub trait Payload {
    /// Its bytes.
    fn length(&self) -> u32;
    /// Its first bytes as they arrive: all headers, or the whole frame.
    fn head(&self) -> &[u8];
    /// Copies its bytes from `offset` on into the receiving guest's memory; they are there, who made the frame saw to that.
    ///
    /// # Errors
    ///
    /// [`OutsideMemory`], if `into` is.
    fn copy(&self, offset: u32, into: Part) -> Result<(), OutsideMemory>;
}

/// A frame is in the guest's memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Which receive queue it is in, from 0 on: the bit for [`Pc::received`](crate::Pc::received).
    pub queue: u8,
    /// Whether the driver is to be interrupted.
    pub interrupt: bool,
}

/// Why a frame is not received. Nothing of the driver's was used up.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The driver gave no buffers, or not enough.
    NoBuffers,
    /// The frame is longer than the buffer that the driver gave for it.
    TooLong,
    /// More is left to be done to the frame than the driver [takes](Receiver::takes).
    Offload,
    /// The driver's ring is broken. This comes once, then there are no buffers; the device is to be
    /// [told](crate::Pc::received).
    Fault(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<OutsideMemory> for Refusal {
    fn from(outside: OutsideMemory) -> Self {
        Self::Fault(outside.into())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBuffers => "the driver gave no buffers",
            Self::TooLong => "the frame is longer than the driver's buffer",
            Self::Offload => "the driver does not take the frame as it is",
            Self::Fault(fault) => return write!(f, "the driver's ring is broken: {fault}"),
        })
    }
}

impl core::error::Error for Refusal {}

/// A chain that a frame, or a part of it, goes into.
#[derive(Copy, Clone, Debug)]
struct Taken {
    head: u16,
    room: u32,
}

/// The receive queues of a network card, lent to the world while a driver drives it
/// ([`Effects::lend_receiver`](crate::Effects::lend_receiver)).
#[derive(Clone, Debug)]
pub struct Receiver {
    /// The queues; those that the driver does not use have no ring.
    rings: Vec<Option<Ring>>,
    /// How many of them are in use.
    active: u32,
    agreed: Agreement,
    takes: Takes,
    mergeable: bool,
    filter: Filter,
    broken: bool,
    /// The buffers and the chains for a frame. They are made once and used again and again.
    parts: Vec<Part>,
    taken: Vec<Taken>,
}

impl Receiver {
    pub(super) fn new(pairs: u16, mac: MacAddress) -> Self {
        Self {
            rings: (0..pairs).map(|_| None).collect(),
            active: 1,
            agreed: Agreement::default(),
            takes: Takes::empty(),
            mergeable: false,
            filter: Filter::new(mac),
            broken: false,
            parts: Vec::with_capacity(PARTS_MAX),
            taken: Vec::with_capacity(PARTS_MAX),
        }
    }

    /// Makes it ready to be lent, without rings.
    pub(super) fn begin(&mut self, agreed: Agreement) {
        let chosen = Features::of(agreed);
        self.agreed = agreed;
        self.takes = Takes::of(chosen);
        self.mergeable = chosen.contains(Features::MRG_RXBUF);
        self.broken = false;
        self.rings.fill(None);
    }

    /// Gives it the ring of queue `pair`.
    pub(super) fn open(&mut self, pair: usize, ring: Ring) {
        if let Some(place) = self.rings.get_mut(pair) {
            *place = Some(ring);
        }
    }

    /// Takes its rings, in their order.
    pub(super) fn close(&mut self) -> impl Iterator<Item = Option<Ring>> {
        self.rings.iter_mut().map(Option::take)
    }

    /// What is received, and by how many queues.
    pub(super) fn set(&mut self, filter: &Filter, active: u16) {
        self.filter.clone_from(filter);
        self.active = u32::from(active);
        // Without commands for what is received, a driver cannot name its groups.
        if !Features::of(self.agreed).contains(Features::CTRL_RX) {
            self.filter.modes |= Modes::ALL_MULTICAST;
        }
    }

    pub(super) const fn broken(&self) -> bool {
        self.broken
    }

    /// What can be left to be done to a frame for this driver.
    #[inline]
    #[must_use]
    pub const fn takes(&self) -> Takes {
        self.takes
    }

    /// The card's address, which a driver may have set.
    #[must_use]
    pub const fn mac(&self) -> MacAddress {
        self.filter.mac
    }

    /// Whether the driver wants to receive a frame with these first bytes.
    #[inline]
    #[must_use]
    pub fn wants(&self, head: &[u8]) -> bool {
        head.first_chunk()
            .is_some_and(|to| self.filter.passes(MacAddress(*to)))
    }

    /// Puts a frame into the guest's memory. Frames with the same `hash` stay in order.
    ///
    /// Whoever calls this has the receiver for himself; the guest sees no more than a device at work.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; the frame is dropped, as by any network card, and no buffer used up.
    pub fn deliver(
        &mut self,
        frame: &impl Payload,
        offload: &Offload,
        hash: u32,
        memory: &mut impl MemoryAccess,
    ) -> Result<Delivery, Refusal> {
        let result = self.receive(frame, offload, hash, memory);
        if let Err(Refusal::Fault(_)) = result {
            self.broken = true;
        }
        result
    }

    fn receive(
        &mut self,
        frame: &impl Payload,
        offload: &Offload,
        hash: u32,
        memory: &mut impl MemoryAccess,
    ) -> Result<Delivery, Refusal> {
        let head = frame.head();
        if !self.takes.contains(Takes::needed(offload, head)) {
            return Err(Refusal::Offload);
        }
        let queue = hash.checked_rem(self.active).unwrap_or(0);
        let ring = match self.rings.get_mut(queue as usize) {
            Some(Some(ring)) if !self.broken => ring,
            _ => return Err(Refusal::NoBuffers),
        };
        let length = frame.length();
        let needed = length.saturating_add(header::LENGTH as u32);
        let mut room = 0;
        self.parts.clear();
        self.taken.clear();
        while room < needed {
            let next = self.taken.len() as u16;
            let Some(head) = ring.head(next, memory)? else {
                return Err(Refusal::NoBuffers);
            };
            let chain = collect(ring, head, self.agreed, &mut self.parts, memory)?;
            // Every chain can hold a header (5.1.6.3.1).
            if chain.room < header::LENGTH as u32 {
                return Err(Fault::Request.into());
            }
            if !self.mergeable && chain.room < needed {
                return Err(Refusal::TooLong);
            }
            room = room.saturating_add(chain.room);
            self.taken.push(chain);
        }
        let count = self.taken.len() as u16;
        let mut to = Cursor::default();
        let header = header::encode(offload, head, count, self.takes);
        let mut left = header.as_slice();
        while let Some(piece) = to.next(&self.parts, self.parts.len(), left.len() as u32) {
            let (now, later) = left.split_at(piece.length as usize);
            memory.write_memory(piece.address, now)?;
            left = later;
        }
        let mut offset = 0;
        while let Some(piece) = to.next(&self.parts, self.parts.len(), length - offset) {
            frame.copy(offset, piece)?;
            offset += piece.length;
        }
        let mut written = needed;
        for chain in &self.taken {
            let here = written.min(chain.room);
            ring.give(chain.head, here, memory)?;
            written -= here;
        }
        ring.take(count);
        ring.publish(memory)?;
        Ok(Delivery {
            queue: queue as u8,
            interrupt: ring.interrupts(self.agreed, memory)?,
        })
    }
}

/// Collects a chain's buffers behind those that there are for the frame.
#[inline]
fn collect(
    ring: &Ring,
    head: u16,
    agreed: Agreement,
    parts: &mut Vec<Part>,
    memory: &mut impl MemoryAccess,
) -> Result<Taken, Fault> {
    let mut room = 0_u32;
    ring.collect(head, agreed, memory, |part, writable| {
        if !writable {
            return Err(Fault::Direction);
        }
        if parts.len() >= PARTS_MAX {
            return Err(Fault::Loop);
        }
        room = room.checked_add(part.length).ok_or(Fault::Length)?;
        parts.push(part);
        Ok(())
    })?;
    Ok(Taken { head, room })
}

//! Segments in order over a wire that loses, repeats, changes and mixes up frames.
//!
//! There are four lanes, each a stream of its own; what waits in a higher one goes first. All share a window of segments,
//! which the sender keeps until the peer has *taken* them: so a peer that does not take stops the sender, and what it keeps in between never
//! is more than a window. A lane leaves a part of the window to those before it, so a lane that stands still stops no
//! higher one.
//!
//! A segment is copied once into the window, where the caller may make it at once, and once from there into a frame. The receiver takes
//! it from the frame that it came in. Nothing is allocated after [`Link::new`].
//!
//! The link has a wire of its own, so it does not look for room among others' frames: its window is all that limits it.

mod body;
mod receive;
mod rtt;
mod send;
mod slab;

use core::fmt;
use core::time::Duration;

use crate::Instant;
use crate::wire::{Kind, OVERHEAD};

use body::{DATA_HEAD, decode_ack, decode_data, encode_ack};
use receive::Receiving;
use send::Sending;

/// How many lanes there are.
const LANES: usize = 4;
/// The lowest window, in segments. A window is cut into so many parts, one of which each lane leaves to the one before it.
const WINDOW_MIN: usize = 16;

/// A stream of segments. Lower ones go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// What the mirror itself says.
    Control,
    /// What goes into guests.
    Inputs,
    /// Pages of guests with deadlines.
    UrgentPages,
    /// Other guests' pages.
    Pages,
}

impl Lane {
    /// All, in their order.
    pub const ALL: [Self; LANES] = [Self::Control, Self::Inputs, Self::UrgentPages, Self::Pages];

    fn new(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// How a link is to be.
#[derive(Clone, Copy, Debug)]
pub struct LinkConfig {
    /// Bytes of an Ethernet frame's payload: 1500, or up to 9000 with jumbo frames; not below 256. The same on both boards.
    pub mtu: u16,
    /// Segments that may be under way: 16 to 256; what is beyond is taken for the limit.
    pub window: usize,
    /// How long an acknowledgement waits for a frame that carries it.
    pub answer_delay: Duration,
    /// The shortest time without an answer after which a segment is sent again.
    pub retransmit_floor: Duration,
    /// The longest.
    pub retransmit_ceiling: Duration,
}

/// The longest segment in frames of `mtu` bytes: 1412 in those of 1500.
#[must_use]
pub const fn segment_bytes(mtu: u16) -> usize {
    (mtu as usize).saturating_sub(OVERHEAD + DATA_HEAD)
}

/// The window has no room for another segment of this lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the link's window is full")
    }
}

impl core::error::Error for Full {}

/// Why a frame of the peer goes unheeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// It is not one of the link's, or has lengths or numbers that there are not.
    Malformed,
    /// It has more bytes than this board's frames.
    Long,
    /// Its segment is beyond any window.
    Window,
    /// It acknowledges what was not sent.
    Unsent,
    /// It came out of order or was not taken, and there is no slot to keep it. It will come again.
    NoSlot,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the frame is malformed",
            Self::Long => "the segment is longer than this board's frames",
            Self::Window => "the segment is beyond the window",
            Self::Unsent => "the frame acknowledges what was not sent",
            Self::NoSlot => "no slot is free for the segment",
        })
    }
}

impl core::error::Error for LinkError {}

/// What went over the link, of all sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Data frames, repeated ones as well.
    pub sent_frames: u64,
    /// Bytes of their segments.
    pub sent_bytes: u64,
    /// How many of the frames were repeated.
    pub retransmissions: u64,
    /// Frames with nothing but acknowledgements.
    pub sent_acks: u64,
    /// Data frames that came for the first time.
    pub received_frames: u64,
    /// Bytes of their segments.
    pub received_bytes: u64,
    /// Data frames that had come before.
    pub duplicates: u64,
}

/// One end of the link.
pub struct Link {
    answer_delay: Duration,
    sending: Sending,
    receiving: Receiving,
    counters: LinkCounters,
}

impl Link {
    /// An end to which nothing was sent. It has two windows of memory, one for each direction.
    #[must_use]
    pub fn new(config: &LinkConfig) -> Self {
        let segment = segment_bytes(config.mtu);
        Self {
            answer_delay: config.answer_delay,
            sending: Sending::new(config, segment),
            receiving: Receiving::new(config, segment),
            counters: LinkCounters::default(),
        }
    }

    /// Begins anew, for a new session. What was under way is gone; the counters stay.
    pub fn reset(&mut self) {
        self.sending.reset();
        self.receiving.reset();
    }

    /// What went over the link.
    #[must_use]
    pub const fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// How many segments [`Self::send`] takes now for `lane`.
    #[must_use]
    pub const fn room(&self, lane: Lane) -> usize {
        self.sending.room(lane)
    }

    /// Puts a segment into `lane`. `fill` writes it into the window, at most [`segment_bytes`], and says how many bytes it has.
    ///
    /// # Errors
    ///
    /// [`Full`]; then `fill` is not called.
    pub fn send(&mut self, lane: Lane, fill: impl FnOnce(&mut [u8]) -> usize) -> Result<(), Full> {
        self.sending.send(lane, fill)
    }

    /// Writes the next frame's body, if one is due: to be called until there is none.
    /// `body` is to have room for [`segment_bytes`] and 32 bytes.
    pub fn poll_transmit(&mut self, now: Instant, body: &mut [u8]) -> Option<(Kind, usize)> {
        let acks = self.receiving.acks(now);
        let due = self.receiving.deadline().is_some_and(|due| due <= now);
        let maps = due.then(|| self.receiving.maps());
        if let Some(maps) = maps
            && maps.iter().any(Option::is_some)
        {
            return self.acknowledge(&acks, &maps, body);
        }
        self.sending.expire(now, self.answer_delay);
        if let Some(length) = self.sending.poll(&acks, now, &mut self.counters, body) {
            self.receiving.answered();
            return Some((Kind::Data, length));
        }
        self.acknowledge(&acks, &maps?, body)
    }

    fn acknowledge(
        &mut self,
        acks: &body::Acks,
        maps: &[Option<body::Map>; LANES],
        body: &mut [u8],
    ) -> Option<(Kind, usize)> {
        let length = encode_ack(acks, maps, body)?;
        self.receiving.answered();
        self.counters.sent_acks += 1;
        Some((Kind::Ack, length))
    }

    /// A frame of the link came in this session. `take` gets the segments that are next in their lanes, and says whether it takes
    /// them; one that it refuses stops that lane until [`Self::resume`].
    ///
    /// # Errors
    ///
    /// Why it goes unheeded, or its segment does.
    pub fn receive(
        &mut self,
        kind: Kind,
        body: &[u8],
        now: Instant,
        mut take: impl FnMut(Lane, &[u8]) -> bool,
    ) -> Result<(), LinkError> {
        match kind {
            Kind::Data => {
                let (acks, head, segment) = decode_data(body)?;
                self.sending.acknowledged(&acks, &[None; LANES], now)?;
                let counters = &mut self.counters;
                self.receiving
                    .receive(&head, segment, now, counters, &mut take)
            }
            Kind::Ack => {
                let (acks, maps) = decode_ack(body)?;
                self.sending.acknowledged(&acks, &maps, now)
            }
            _ => Err(LinkError::Malformed),
        }
    }

    /// Offers the segments again that `take` refused.
    pub fn resume(&mut self, now: Instant, mut take: impl FnMut(Lane, &[u8]) -> bool) {
        self.receiving.resume(now, &mut take);
    }

    /// When [`Self::poll_transmit`] has something next, if nothing else happens; it may be a moment that has passed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.sending.is_ready() {
            return Some(Instant::default());
        }
        let sending = self.sending.deadline(self.answer_delay);
        let receiving = self.receiving.deadline();
        sending.into_iter().chain(receiving).min()
    }
}

#[cfg(test)]
mod tests;

//! The half of the link that receives.

use alloc::boxed::Box;
use alloc::vec;
use core::time::Duration;

use crate::Instant;

use super::body::{Acks, DataHead, FIRST, Map, WINDOW_MAX, ahead};
use super::slab::{Slab, SlotId};
use super::{LANES, Lane, LinkConfig, LinkCounters, LinkError, WINDOW_MIN};

/// An acknowledgement waits for at most so many frames.
const FRAMES_PER_ACK: u32 = 8;

/// What came of a lane.
struct Stream {
    /// The first segment that was not taken.
    next: u32,
    /// The slots of those that are kept, by their sequence modulo the highest window.
    slots: Box<[Option<SlotId>]>,
    /// How many are.
    kept: usize,
}

const fn index(sequence: u32) -> usize {
    sequence as usize % WINDOW_MAX
}

/// The receiving half.
pub(super) struct Receiving {
    slab: Slab,
    streams: [Stream; LANES],
    /// The highest order that came, and when.
    newest: u32,
    newest_at: Instant,
    /// Frames that came since the last acknowledgement.
    unanswered: u32,
    /// When one is due at the latest; none if nothing came.
    answer_by: Option<Instant>,
    answer_delay: Duration,
}

impl Receiving {
    pub(super) fn new(config: &LinkConfig, segment: usize) -> Self {
        let stream = || Stream {
            next: FIRST,
            slots: vec![None; WINDOW_MAX].into_boxed_slice(),
            kept: 0,
        };
        let window = config.window.clamp(WINDOW_MIN, WINDOW_MAX);
        let slots = SlotId::try_from(window).unwrap_or(SlotId::MAX);
        Self {
            slab: Slab::new(slots, segment),
            streams: [stream(), stream(), stream(), stream()],
            newest: FIRST.wrapping_sub(1),
            newest_at: Instant::default(),
            unanswered: 0,
            answer_by: None,
            answer_delay: config.answer_delay,
        }
    }

    pub(super) fn reset(&mut self) {
        self.slab.clear();
        for stream in &mut self.streams {
            (stream.next, stream.kept) = (FIRST, 0);
            stream.slots.fill(None);
        }
        self.newest = FIRST.wrapping_sub(1);
        (self.unanswered, self.answer_by) = (0, None);
    }

    /// A segment came. `take` gets what is next in its lane, from the frame itself, and says whether it takes it.
    ///
    /// # Errors
    ///
    /// [`LinkError::Window`], [`LinkError::Long`] or [`LinkError::NoSlot`].
    pub(super) fn receive(
        &mut self,
        head: &DataHead,
        segment: &[u8],
        now: Instant,
        counters: &mut LinkCounters,
        take: &mut impl FnMut(Lane, &[u8]) -> bool,
    ) -> Result<(), LinkError> {
        if segment.len() > self.slab.stride() {
            return Err(LinkError::Long);
        }
        let stream = &mut self.streams[head.lane as usize];
        let place = match ahead(head.sequence, stream.next) {
            Some(WINDOW_MAX..) => return Err(LinkError::Window),
            Some(_) => Some(index(head.sequence)).filter(|at| stream.slots[*at].is_none()),
            None => None,
        };
        if ahead(head.order, self.newest).is_some_and(|by| by > 0) {
            (self.newest, self.newest_at) = (head.order, now);
        }
        self.unanswered = self.unanswered.saturating_add(1);
        let mut patience = self.answer_delay;
        let Some(place) = place else {
            counters.duplicates += 1;
            self.answer_now(now);
            return Ok(());
        };
        if head.sequence == stream.next && take(head.lane, segment) {
            stream.next = stream.next.wrapping_add(1);
            self.drain(head.lane, take);
        } else {
            let slot = self.slab.put(|into| {
                into[..segment.len()].copy_from_slice(segment);
                segment.len()
            });
            let Some(slot) = slot else {
                return Err(LinkError::NoSlot);
            };
            stream.slots[place] = Some(slot);
            stream.kept += 1;
        }
        counters.received_frames += 1;
        counters.received_bytes += segment.len() as u64;
        // What is kept is said in maps, and those at once: a Data frame has no place for them.
        let kept = self.streams.iter().any(|stream| stream.kept > 0);
        if kept || self.unanswered >= FRAMES_PER_ACK {
            patience = Duration::ZERO;
        }
        let due = now + patience;
        self.answer_by = Some(self.answer_by.map_or(due, |by| by.min(due)));
        Ok(())
    }

    fn answer_now(&mut self, now: Instant) {
        self.answer_by = Some(self.answer_by.map_or(now, |by| by.min(now)));
    }

    /// Hands out what is kept of a lane and next, as long as `take` takes it; whether it took any.
    fn drain(&mut self, lane: Lane, take: &mut impl FnMut(Lane, &[u8]) -> bool) -> bool {
        let stream = &mut self.streams[lane as usize];
        let mut taken = false;
        while let Some(slot) = stream.slots[index(stream.next)]
            && take(lane, self.slab.get(slot))
        {
            stream.slots[index(stream.next)] = None;
            stream.kept -= 1;
            stream.next = stream.next.wrapping_add(1);
            self.slab.release(slot);
            taken = true;
        }
        taken
    }

    /// Offers again what was refused.
    pub(super) fn resume(&mut self, now: Instant, take: &mut impl FnMut(Lane, &[u8]) -> bool) {
        for lane in Lane::ALL {
            if self.drain(lane, take) {
                self.answer_now(now);
            }
        }
    }

    /// What came, as it is said in a frame that is sent now.
    pub(super) fn acks(&self, now: Instant) -> Acks {
        let delay = now.since(self.newest_at).as_micros();
        Acks {
            delay: u16::try_from(delay).unwrap_or(u16::MAX),
            newest: self.newest,
            next: core::array::from_fn(|lane| self.streams[lane].next),
        }
    }

    /// What came out of order or was refused.
    pub(super) fn maps(&self) -> [Option<Map>; LANES] {
        core::array::from_fn(|lane| {
            let stream = &self.streams[lane];
            (stream.kept > 0).then(|| {
                let mut map = Map::default();
                for at in 0..WINDOW_MAX {
                    let kept = stream.slots[(index(stream.next) + at) % WINDOW_MAX].is_some();
                    map[at / 8] |= u8::from(kept) << (at % 8);
                }
                map
            })
        })
    }

    /// When an acknowledgement is to go out at the latest.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.answer_by
    }

    /// What came was said.
    pub(super) const fn answered(&mut self) {
        (self.unanswered, self.answer_by) = (0, None);
    }
}

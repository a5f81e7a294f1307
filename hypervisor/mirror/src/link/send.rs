//! The half of the link that sends.

use alloc::boxed::Box;
use alloc::vec;
use core::time::Duration;

use crate::Instant;

use super::body::{Acks, DataHead, FIRST, Map, WINDOW_MAX, ahead, encode_data};
use super::rtt::RoundTrip;
use super::slab::{Slab, SlotId};
use super::{Full, LANES, Lane, LinkConfig, LinkCounters, LinkError, WINDOW_MIN};

/// So many later frames that came make one count as lost (RFC 9002, section 6.1.1).
const LATER_FRAMES: usize = 3;

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing yet.
    Fresh,
    /// It is on its way.
    Flying { order: u32, at: Instant },
    /// It is to be sent again.
    Lost,
    /// The peer keeps it, but has not taken it.
    Kept,
}

/// The segments of a lane.
struct Stream {
    /// The first that the peer has not taken; the first that was not sent; the next that comes.
    first: u32,
    fresh: u32,
    end: u32,
    /// Their slots, by their sequence modulo the highest window.
    slots: Box<[SlotId]>,
    /// How many are [`State::Lost`].
    lost: usize,
}

const fn index(sequence: u32) -> usize {
    sequence as usize % WINDOW_MAX
}

/// The sending half.
pub(super) struct Sending {
    slab: Slab,
    states: Box<[State]>,
    streams: [Stream; LANES],
    /// Of the next frame.
    order: u32,
    /// The highest that the peer has.
    newest: u32,
    trip: RoundTrip,
    /// From when on nothing was heard of what is under way; none if nothing is.
    waiting_since: Option<Instant>,
    /// How many timeouts passed since.
    tries: u32,
}

impl Sending {
    pub(super) fn new(config: &LinkConfig, segment: usize) -> Self {
        let stream = || Stream {
            first: FIRST,
            fresh: FIRST,
            end: FIRST,
            slots: vec![0; WINDOW_MAX].into_boxed_slice(),
            lost: 0,
        };
        let window = config.window.clamp(WINDOW_MIN, WINDOW_MAX);
        let slots = SlotId::try_from(window).unwrap_or(SlotId::MAX);
        Self {
            slab: Slab::new(slots, segment),
            states: vec![State::Fresh; window].into_boxed_slice(),
            streams: [stream(), stream(), stream(), stream()],
            order: FIRST,
            newest: FIRST.wrapping_sub(1),
            trip: RoundTrip::new(config.retransmit_floor, config.retransmit_ceiling),
            waiting_since: None,
            tries: 0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.slab.clear();
        for stream in &mut self.streams {
            (stream.first, stream.fresh, stream.end, stream.lost) = (FIRST, FIRST, FIRST, 0);
        }
        (self.order, self.newest) = (FIRST, FIRST.wrapping_sub(1));
        (self.waiting_since, self.tries) = (None, 0);
    }

    /// How many more segments `lane` takes. Each lane leaves a part of the window to those before it.
    pub(super) const fn room(&self, lane: Lane) -> usize {
        let reserve = lane as usize * (self.slab.slots() / WINDOW_MIN);
        self.slab.free().saturating_sub(reserve)
    }

    pub(super) fn send(
        &mut self,
        lane: Lane,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), Full> {
        if self.room(lane) == 0 {
            return Err(Full);
        }
        let slot = self.slab.put(fill).ok_or(Full)?;
        self.states[usize::from(slot)] = State::Fresh;
        let stream = &mut self.streams[lane as usize];
        stream.slots[index(stream.end)] = slot;
        stream.end = stream.end.wrapping_add(1);
        Ok(())
    }

    /// The slots of a lane's segments that were sent and not taken.
    fn sent(stream: &Stream) -> impl Iterator<Item = SlotId> {
        let count = stream.fresh.wrapping_sub(stream.first);
        (0..count).map(|offset| stream.slots[index(stream.first.wrapping_add(offset))])
    }

    /// The next Data frame's body, if something is to be sent.
    pub(super) fn poll(
        &mut self,
        acks: &Acks,
        now: Instant,
        counters: &mut LinkCounters,
        body: &mut [u8],
    ) -> Option<usize> {
        let lane = Lane::ALL.into_iter().find(|lane| {
            let stream = &self.streams[*lane as usize];
            stream.lost > 0 || stream.fresh != stream.end
        })?;
        let stream = &mut self.streams[lane as usize];
        let again = stream.lost > 0;
        let sequence = if again {
            let (slots, states) = (&stream.slots, &self.states);
            let count = stream.fresh.wrapping_sub(stream.first);
            (0..count)
                .map(|offset| stream.first.wrapping_add(offset))
                .find(|at| states[usize::from(slots[index(*at)])] == State::Lost)?
        } else {
            stream.fresh
        };
        let slot = stream.slots[index(sequence)];
        let head = DataHead {
            lane,
            order: self.order,
            sequence,
        };
        let segment = self.slab.get(slot);
        let length = encode_data(acks, &head, segment, body)?;
        counters.sent_frames += 1;
        counters.sent_bytes += segment.len() as u64;
        if again {
            stream.lost -= 1;
            counters.retransmissions += 1;
        } else {
            stream.fresh = stream.fresh.wrapping_add(1);
        }
        self.states[usize::from(slot)] = State::Flying {
            order: self.order,
            at: now,
        };
        self.order = self.order.wrapping_add(1);
        self.waiting_since.get_or_insert(now);
        Some(length)
    }

    /// Whether something is to be sent that was not or is lost.
    pub(super) fn is_ready(&self) -> bool {
        let ready = |stream: &Stream| stream.lost > 0 || stream.fresh != stream.end;
        self.streams.iter().any(ready)
    }

    /// When [`Self::expire`] is due, if it is.
    pub(super) fn deadline(&self, answer_delay: Duration) -> Option<Instant> {
        let timeout = self.trip.timeout(answer_delay, self.tries);
        self.waiting_since.map(|since| since + timeout)
    }

    /// Nothing was heard for too long: the oldest segment under way is to be sent again. Its answer says what became of the
    /// others. If the peer has all but takes none, this asks whether it does meanwhile.
    pub(super) fn expire(&mut self, now: Instant, answer_delay: Duration) {
        if self.deadline(answer_delay).is_none_or(|due| now < due) || self.is_ready() {
            return;
        }
        let reference = self.order;
        let age = |state: State| match state {
            State::Flying { order, .. } => Some(reference.wrapping_sub(order)),
            State::Kept => Some(0),
            State::Fresh | State::Lost => None,
        };
        let oldest = self
            .streams
            .iter()
            .enumerate()
            .flat_map(|(lane, stream)| Self::sent(stream).map(move |slot| (lane, slot)))
            .filter_map(|(lane, slot)| Some((age(self.states[usize::from(slot)])?, lane, slot)))
            .max_by_key(|(age, ..)| *age);
        if let Some((_, lane, slot)) = oldest {
            self.states[usize::from(slot)] = State::Lost;
            self.streams[lane].lost += 1;
        }
        self.waiting_since = Some(now);
        self.tries = self.tries.saturating_add(1);
    }

    /// The peer says what it has.
    ///
    /// # Errors
    ///
    /// [`LinkError::Unsent`]; then nothing was noted.
    pub(super) fn acknowledged(
        &mut self,
        acks: &Acks,
        maps: &[Option<Map>; LANES],
        now: Instant,
    ) -> Result<(), LinkError> {
        let sent = |(stream, next): (&Stream, &u32)| ahead(stream.fresh, *next).is_some();
        let all = self.streams.iter().zip(&acks.next).all(sent);
        if !all || ahead(self.order.wrapping_sub(1), acks.newest).is_none() {
            return Err(LinkError::Unsent);
        }
        let newer = ahead(acks.newest, self.newest).is_some_and(|by| by > 0);
        if newer {
            self.newest = acks.newest;
        }
        let mut progress = false;
        let mut sample = None;
        for (lane, next) in acks.next.iter().enumerate() {
            let stream = &mut self.streams[lane];
            let Some(taken) = ahead(*next, stream.first) else {
                // It was overtaken by a newer one.
                continue;
            };
            for _ in 0..taken {
                let slot = stream.slots[index(stream.first)];
                let state = self.states[usize::from(slot)];
                stream.lost -= usize::from(state == State::Lost);
                sample = sample.or(sent_at(state, acks.newest));
                self.slab.release(slot);
                stream.first = stream.first.wrapping_add(1);
                progress = true;
            }
            let Some(map) = &maps[lane] else {
                continue;
            };
            let set = |at: &u32| map[*at as usize / 8] >> (at % 8) & 1 == 1;
            for at in (0..stream.fresh.wrapping_sub(stream.first)).filter(set) {
                let slot = usize::from(stream.slots[index(stream.first.wrapping_add(at))]);
                let state = core::mem::replace(&mut self.states[slot], State::Kept);
                stream.lost -= usize::from(state == State::Lost);
                sample = sample.or(sent_at(state, acks.newest));
                progress |= state != State::Kept;
            }
        }
        if newer && let Some(at) = sample {
            let kept = Duration::from_micros(u64::from(acks.delay));
            self.trip.sample(now.since(at).saturating_sub(kept));
        }
        if newer || progress {
            self.judge(now);
        }
        if progress {
            self.tries = 0;
        }
        Ok(())
    }

    /// What is under way although later frames came is lost.
    fn judge(&mut self, now: Instant) {
        let patience = self.trip.reordering();
        let mut waiting = false;
        for stream in &mut self.streams {
            for offset in 0..stream.fresh.wrapping_sub(stream.first) {
                let slot = stream.slots[index(stream.first.wrapping_add(offset))];
                let state = &mut self.states[usize::from(slot)];
                waiting = true;
                let State::Flying { order, at } = *state else {
                    continue;
                };
                let later = ahead(self.newest, order).unwrap_or(0);
                if later >= LATER_FRAMES || later > 0 && now.since(at) >= patience {
                    *state = State::Lost;
                    stream.lost += 1;
                }
            }
        }
        self.waiting_since = waiting.then_some(now);
    }
}

/// When the frame `order` was sent, if a segment was under way in that.
fn sent_at(state: State, newest: u32) -> Option<Instant> {
    match state {
        State::Flying { order, at } if order == newest => Some(at),
        _ => None,
    }
}

//! What lies between the ends of a wire, without threads and clocks: what is sent goes in with the time, and comes out in
//! due time. All times are since the wire was laid.

use super::line::{Fate, Faults, Line, Loss};
use super::random::{Random, Share};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// Frames on their way at most; what is sent beyond that is lost.
const UNDER_WAY: usize = 1 << 16;
/// The seed where none is given.
const SEED: u64 = 1;

/// Which directions of a wire's cables are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// What any end sends. Every frame goes through this once.
    All,
    /// What this end sends.
    From(usize),
    /// What comes to this end.
    To(usize),
    /// Both directions of this end's cable.
    End(usize),
}

/// A change of what a direction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// See [`Faults::delay`].
    Delay(Duration),
    /// See [`Faults::jitter`].
    Jitter(Duration),
    /// See [`Faults::loss`].
    Loss(Share),
    /// See [`Faults::duplicate`].
    Duplicate(Share),
    /// See [`Faults::reorder`].
    Reorder(Share),
    /// See [`Faults::corrupt`].
    Corrupt(Share),
    /// See [`Faults::rate`].
    Rate(Option<u64>),
    /// See [`Faults::longest`].
    Longest(Option<usize>),
    /// Nothing is carried any more.
    Cut,
    /// What was cut carries again, with the faults it had.
    Restore,
    /// Nothing is carried for so long.
    Flap(Duration),
    /// No faults any more, and whole.
    Clear,
}

impl Action {
    fn apply(self, line: &mut Line, now: Duration) {
        let faults: &mut Faults = &mut line.faults;
        match self {
            Self::Delay(delay) => faults.delay = delay,
            Self::Jitter(jitter) => faults.jitter = jitter,
            Self::Loss(share) => faults.loss = share,
            Self::Duplicate(share) => faults.duplicate = share,
            Self::Reorder(share) => faults.reorder = share,
            Self::Corrupt(share) => faults.corrupt = share,
            Self::Rate(rate) => faults.rate = rate,
            Self::Longest(longest) => faults.longest = longest,
            Self::Cut => line.cut = true,
            Self::Restore => line.cut = false,
            Self::Flap(length) => line.flap(now, length),
            Self::Clear => line.clear(),
        }
    }
}

/// What became of the frames that an end sent or was to get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// It sent these.
    pub sent: u64,
    /// It got these.
    pub delivered: u64,
    /// Lost on its cable, in either direction, by chance, for their length or for want of room.
    pub lost: u64,
    /// Lost because its cable was cut.
    pub cut: u64,
    /// Doubled on its cable.
    pub duplicated: u64,
    /// Overtaken on its cable.
    pub overtaken: u64,
    /// Changed on its cable.
    pub corrupted: u64,
}

impl Counts {
    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Lost(Loss::Cut) => self.cut += 1,
            Fate::Lost(_) => self.lost += 1,
            Fate::Carried {
                again,
                late,
                inverted,
                ..
            } => {
                self.duplicated += u64::from(again.is_some());
                self.overtaken += u64::from(late);
                self.corrupted += u64::from(inverted.is_some());
            }
        }
    }
}

#[derive(Debug)]
struct End {
    from: Line,
    to: Line,
    counts: Counts,
}

/// Where a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// It has come from this end.
    Middle(usize),
    /// It has come to this end.
    At(usize),
}

/// A frame on its way. The first two fields decide which comes first: times, and the order of sending where they are the same.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    due: Duration,
    number: u64,
    place: Place,
    bytes: Vec<u8>,
}

/// Between two ends a wire, which carries everything; among more, or fewer, a switch that learns which address is where.
#[derive(Debug)]
pub(super) struct Segment {
    ends: Vec<End>,
    learnt: BTreeMap<[u8; 6], usize>,
    /// It does not learn.
    floods: bool,
    events: BinaryHeap<Reverse<Event>>,
    /// Of the next event.
    number: u64,
    seed: u64,
}

impl Segment {
    /// One without ends.
    pub(super) fn new() -> Self {
        Self {
            ends: Vec::new(),
            learnt: BTreeMap::new(),
            floods: false,
            events: BinaryHeap::new(),
            number: 0,
            seed: SEED,
        }
    }

    /// Adds an end and returns its number; the first is 0.
    pub(super) fn add_end(&mut self) -> usize {
        let end = self.ends.len();
        let [from, to] = self.randoms(end);
        self.ends.push(End {
            from: Line::new(from),
            to: Line::new(to),
            counts: Counts::default(),
        });
        end
    }

    /// Everything comes out at all other ends from here on.
    pub(super) fn flood(&mut self) {
        self.floods = true;
    }

    /// Begins the sequences of chance anew.
    pub(super) fn seed(&mut self, seed: u64) {
        self.seed = seed;
        for end in 0..self.ends.len() {
            let [from, to] = self.randoms(end);
            self.ends[end].from.seed(from);
            self.ends[end].to.seed(to);
        }
    }

    fn randoms(&self, end: usize) -> [Random; 2] {
        [0, 1].map(|direction| Random::new(self.seed, end as u64 * 2 + direction))
    }

    /// Changes what directions do. Ends that there are not are left out.
    pub(super) fn apply(&mut self, target: Target, action: Action, now: Duration) {
        let (from, to) = match target {
            Target::All => (None, None),
            Target::From(end) => (Some(end), None),
            Target::To(end) => (None, Some(end)),
            Target::End(end) => (Some(end), Some(end)),
        };
        for (number, end) in self.ends.iter_mut().enumerate() {
            if target == Target::All || from == Some(number) {
                action.apply(&mut end.from, now);
            }
            if to == Some(number) {
                action.apply(&mut end.to, now);
            }
        }
    }

    /// Takes a frame that an end sends.
    pub(super) fn send(&mut self, from: usize, bytes: Vec<u8>, now: Duration) -> Fate {
        let full = self.events.len() >= UNDER_WAY;
        let Some(end) = self.ends.get_mut(from) else {
            return Fate::Lost(Loss::Cut);
        };
        let mut bytes = bytes;
        end.counts.sent += 1;
        let fate = if full {
            Fate::Lost(Loss::Full)
        } else {
            end.from.send(&mut bytes, now)
        };
        end.counts.count(fate);
        self.put(fate, Place::Middle(from), bytes);
        fate
    }

    /// When the next frame is to be moved on.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.events.peek().map(|Reverse(event)| event.due)
    }

    /// The next frame that has come to an end by now, and which end that is.
    pub(super) fn deliver(&mut self, now: Duration) -> Option<(usize, Vec<u8>)> {
        while self.next_due()? <= now {
            let Reverse(event) = self.events.pop()?;
            match event.place {
                Place::Middle(from) => self.distribute(from, event.due, &event.bytes),
                Place::At(end) => {
                    self.ends[end].counts.delivered += 1;
                    return Some((end, event.bytes));
                }
            }
        }
        None
    }

    pub(super) fn counts(&self, end: usize) -> Counts {
        self.ends
            .get(end)
            .map_or(Counts::default(), |end| end.counts)
    }

    fn put(&mut self, fate: Fate, place: Place, bytes: Vec<u8>) {
        let Fate::Carried { due, again, .. } = fate else {
            return;
        };
        let mut put = |due, bytes| {
            self.events.push(Reverse(Event {
                due,
                number: self.number,
                place,
                bytes,
            }));
            self.number += 1;
        };
        if let Some(again) = again {
            put(again, bytes.clone());
        }
        put(due, bytes);
    }

    /// Moves a frame on to the ends that are to get it.
    fn distribute(&mut self, from: usize, now: Duration, bytes: &[u8]) {
        let address = |at: usize| bytes.get(at..at + 6)?.try_into().ok();
        let is_wire = self.ends.len() == 2;
        let known = match (address(0), address(6)) {
            (Some(to), Some(by)) if !is_wire && !self.floods => {
                if !is_group(by) {
                    self.learnt.insert(by, from);
                }
                self.learnt.get(&to).copied()
            }
            _ => None,
        };
        for number in 0..self.ends.len() {
            if number == from || known.is_some_and(|known| known != number) {
                continue;
            }
            let mut bytes = bytes.to_vec();
            let end = &mut self.ends[number];
            let fate = end.to.send(&mut bytes, now);
            end.counts.count(fate);
            self.put(fate, Place::At(number), bytes);
        }
    }
}

/// Whether an address is that of a group (IEEE 802, 8.2.2).
const fn is_group(address: [u8; 6]) -> bool {
    address[0] & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const BROADCAST: u8 = 0xff;

    fn segment(ends: usize) -> Segment {
        let mut segment = Segment::new();
        for end in 0..ends {
            assert_eq!(segment.add_end(), end);
        }
        segment
    }

    /// A frame between stations that are numbers.
    fn frame(to: u8, by: u8) -> Vec<u8> {
        let station = |number: u8| match number {
            BROADCAST => [BROADCAST; 6],
            number => [2, 0, 0, 0, 0, number],
        };
        [&station(to)[..], &station(by), &[0x88, 0xb5]].concat()
    }

    fn receivers(segment: &mut Segment, now: Duration) -> Vec<usize> {
        let all = std::iter::from_fn(|| segment.deliver(now));
        let mut ends: Vec<_> = all.map(|(end, _)| end).collect();
        ends.sort_unstable();
        ends
    }

    #[test]
    fn a_hub_carries_everything_everywhere() {
        let mut segment = segment(3);
        segment.flood();
        for (from, to, by) in [(0, 12, 10), (1, 10, 11), (2, 10, 10)] {
            segment.send(from, frame(to, by), MS);
            assert_eq!(receivers(&mut segment, MS).len(), 2);
        }
    }

    #[test]
    fn a_wire_carries_everything_to_the_other_end() {
        let mut segment = segment(2);
        for bytes in [frame(1, 2), frame(2, 2), frame(BROADCAST, 1), vec![7]] {
            for from in [0, 1] {
                segment.send(from, bytes.clone(), MS);
                assert_eq!(segment.deliver(MS), Some((1 - from, bytes.clone())));
                assert_eq!(segment.deliver(MS), None);
            }
        }
    }

    #[test]
    fn a_switch_learns_where_stations_are_and_that_they_move() {
        let mut segment = segment(3);
        let mut sent = |from, to, by| {
            segment.send(from, frame(to, by), MS);
            receivers(&mut segment, MS)
        };
        assert_eq!(sent(0, 12, 10), [1, 2], "unknown");
        assert_eq!(sent(1, 10, 11), [0]);
        assert_eq!(sent(2, 11, 12), [1]);
        assert_eq!(sent(0, BROADCAST, 10), [1, 2]);
        assert!(sent(0, 10, 10).is_empty(), "it is where it came from");
        assert_eq!(sent(2, BROADCAST, 10), [0, 1], "it has moved");
        assert_eq!(sent(1, 10, 11), [2]);
    }

    #[test]
    fn each_direction_has_faults_of_its_own() {
        let mut segment = segment(3);
        segment.apply(Target::From(0), Action::Delay(5 * MS), MS);
        segment.apply(Target::To(1), Action::Cut, MS);
        segment.send(0, frame(BROADCAST, 10), MS);
        segment.send(1, frame(BROADCAST, 11), MS);
        assert_eq!(receivers(&mut segment, 5 * MS), [0, 2]);
        assert_eq!(segment.next_due(), Some(6 * MS));
        assert_eq!(receivers(&mut segment, 6 * MS), [2]);
        assert_eq!((segment.counts(1).cut, segment.counts(0).cut), (1, 0));
        segment.apply(Target::End(0), Action::Cut, 6 * MS);
        segment.send(0, frame(BROADCAST, 10), 6 * MS);
        segment.send(2, frame(BROADCAST, 12), 6 * MS);
        assert!(receivers(&mut segment, 9 * MS).is_empty());
        segment.apply(Target::To(1), Action::Clear, 6 * MS);
        segment.apply(Target::All, Action::Restore, 6 * MS);
        segment.send(2, frame(BROADCAST, 12), 6 * MS);
        assert_eq!(receivers(&mut segment, 9 * MS), [1], "0 hears nothing yet");
    }

    proptest! {
        /// Every frame is delivered, lost or cut, and a doubled one delivered twice; the same seed does the same.
        #[test]
        fn no_frame_is_forgotten(seed: u64, shares: [u8; 3], count in 1_u64..200) {
            let run = || {
                let mut segment = segment(2);
                segment.seed(seed);
                let [loss, duplicate, reorder] = shares.map(|share| Share::percent(u32::from(share % 61)));
                segment.apply(Target::All, Action::Loss(loss), MS);
                segment.apply(Target::All, Action::Duplicate(duplicate), MS);
                segment.apply(Target::All, Action::Reorder(reorder), MS);
                segment.apply(Target::All, Action::Jitter(3 * MS), MS);
                for number in 0..count {
                    segment.send(0, number.to_be_bytes().to_vec(), MS * number as u32 / 4);
                }
                let mut got = Vec::new();
                while let Some((_, bytes)) = segment.deliver(Duration::MAX) {
                    got.push(bytes);
                }
                (got, segment.counts(0), segment.counts(1))
            };
            let (got, sender, receiver) = run();
            prop_assert_eq!(sender.sent, count);
            prop_assert_eq!(receiver.delivered, count - sender.lost + sender.duplicated);
            prop_assert_eq!(receiver.delivered, got.len() as u64);
            prop_assert_eq!((got, sender, receiver), run());
        }
    }
}

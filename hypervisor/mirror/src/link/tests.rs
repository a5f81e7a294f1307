use super::*;
use crate::wire::{Opener, Sealer, Sender};
use crate::{Epoch, PairKey, Path, Side, Term};
use proptest::prelude::*;
use std::collections::VecDeque;

const US: Duration = Duration::from_micros(1);
const CONFIG: LinkConfig = LinkConfig {
    mtu: 256,
    window: 32,
    answer_delay: Duration::from_micros(200),
    retransmit_floor: Duration::from_millis(1),
    retransmit_ceiling: Duration::from_millis(50),
};

/// One end, with what went in and came out.
struct End {
    link: Link,
    sealer: Sealer,
    opener: Opener,
    /// What is to be sent and what was taken, by lane.
    waiting: [VecDeque<Vec<u8>>; LANES],
    sent: [Vec<Vec<u8>>; LANES],
    taken: [Vec<Vec<u8>>; LANES],
}

impl End {
    fn new(side: Side) -> Self {
        let key = PairKey::new(&[1; 16]).frames();
        Self {
            link: Link::new(&CONFIG),
            sealer: Sealer::new(key.clone(), 1, Sender::Board(side), Path::Link),
            opener: Opener::new(key, 1, Sender::Board(side), Path::Link),
            waiting: Default::default(),
            sent: Default::default(),
            taken: Default::default(),
        }
    }

    fn give(&mut self, lane: Lane, segment: Vec<u8>) {
        self.waiting[lane as usize].push_back(segment);
    }

    /// Sends as much as there is room for.
    fn fill(&mut self) {
        for lane in Lane::ALL {
            while self.link.room(lane) > 0
                && let Some(segment) = self.waiting[lane as usize].pop_front()
            {
                let sent = self.link.send(lane, |place| {
                    place[..segment.len()].copy_from_slice(&segment);
                    segment.len()
                });
                assert_eq!(sent, Ok(()));
                self.sent[lane as usize].push(segment);
            }
        }
    }

    /// The next frame, sealed.
    fn frame(&mut self, now: Instant) -> Option<Vec<u8>> {
        let mut buffer = [0; CONFIG.mtu as usize];
        let link = &mut self.link;
        let length = self.sealer.seal(Term(1), Epoch(1), &mut buffer, |body| {
            link.poll_transmit(now, body)
        })?;
        Some(buffer[..length].to_vec())
    }

    fn frames(&mut self, now: Instant) -> Vec<Vec<u8>> {
        core::iter::from_fn(|| self.frame(now)).collect()
    }

    /// A frame came; `refuse` says which lanes are not taken.
    fn hear(&mut self, bytes: &[u8], now: Instant, refuse: &[Lane]) -> Result<(), LinkError> {
        let Ok(frame) = self.opener.open(bytes) else {
            return Ok(());
        };
        let taken = &mut self.taken;
        self.link
            .receive(frame.kind, frame.body, now, |lane, segment| {
                take(taken, refuse, lane, segment)
            })
    }

    fn resume(&mut self, now: Instant) {
        let taken = &mut self.taken;
        self.link
            .resume(now, |lane, segment| take(taken, &[], lane, segment));
    }
}

fn take(taken: &mut [Vec<Vec<u8>>; LANES], refuse: &[Lane], lane: Lane, segment: &[u8]) -> bool {
    let takes = !refuse.contains(&lane);
    if takes {
        taken[lane as usize].push(segment.to_vec());
    }
    takes
}

/// What a wire does to a frame.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Lose,
    Repeat,
    Delay(u64),
    Change(u8),
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        6 => Just(Fault::None),
        2 => Just(Fault::Lose),
        1 => Just(Fault::Repeat),
        2 => (1u64..2000).prop_map(Fault::Delay),
        1 => any::<u8>().prop_map(Fault::Change),
    ];
    prop::collection::vec(fault, 1..300)
}

/// A wire with a delay of 20 µs and then one fault for each frame, until there are no more.
struct Wire {
    faults: std::vec::IntoIter<Fault>,
    /// When, to which end, what.
    under_way: Vec<(Instant, usize, Vec<u8>)>,
}

impl Wire {
    fn put(&mut self, now: Instant, to: usize, mut frame: Vec<u8>) {
        let arrival = now + 20 * US;
        match self.faults.next().unwrap_or(Fault::None) {
            Fault::None => self.under_way.push((arrival, to, frame)),
            Fault::Lose => {}
            Fault::Repeat => {
                self.under_way.push((arrival, to, frame.clone()));
                self.under_way.push((arrival + 30 * US, to, frame));
            }
            Fault::Delay(us) => {
                let late = arrival + Duration::from_micros(us);
                self.under_way.push((late, to, frame));
            }
            Fault::Change(at) => {
                let at = usize::from(at) % frame.len();
                frame[at] ^= 0x10;
                self.under_way.push((arrival, to, frame));
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        self.under_way.iter().map(|(at, ..)| *at).min()
    }

    /// The frames that arrive by now, in the order of their arrival.
    fn arrived(&mut self, now: Instant) -> Vec<(Instant, usize, Vec<u8>)> {
        let mut arrived: Vec<_> = self.under_way.extract_if(.., |it| it.0 <= now).collect();
        arrived.sort_by_key(|it| it.0);
        arrived
    }
}

/// Runs until nobody has anything to do. `refusals` says for each frame which lanes are refused, until there are no more.
fn run(ends: &mut [End; 2], faults: Vec<Fault>, refusals: Vec<Option<Lane>>) -> Instant {
    let mut wire = Wire {
        faults: faults.into_iter(),
        under_way: Vec::new(),
    };
    let mut refusals = refusals.into_iter();
    let mut now = Instant(0);
    loop {
        for (_, to, frame) in wire.arrived(now) {
            let refuse = refusals.next().flatten();
            let heard = ends[to].hear(&frame, now, refuse.as_slice());
            assert!(
                matches!(heard, Ok(()) | Err(LinkError::NoSlot)),
                "{heard:?}"
            );
        }
        for (from, end) in ends.iter_mut().enumerate() {
            if refusals.len() == 0 {
                end.resume(now);
            }
            end.fill();
            for frame in end.frames(now) {
                wire.put(now, 1 - from, frame);
            }
        }
        let deadlines = ends.iter().filter_map(|end| end.link.next_deadline());
        let Some(next) = deadlines.chain(wire.next()).min() else {
            return now;
        };
        assert!(next > now, "everything due was done");
        now = next;
        assert!(now < Instant(0) + 60_000_000 * US, "it does not end");
    }
}

fn load() -> impl Strategy<Value = Vec<(usize, usize, Vec<u8>)>> {
    let longest = segment_bytes(CONFIG.mtu);
    let segment = (
        0..2usize,
        0..LANES,
        prop::collection::vec(any::<u8>(), 0..=longest),
    );
    prop::collection::vec(segment, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn all_segments_come_in_order_and_once_whatever_the_wire_does(
        load in load(),
        faults in faults(),
        refusals in prop::collection::vec(prop::option::of(prop::sample::select(&Lane::ALL[..])), 0..100),
    ) {
        let mut ends = [End::new(Side::A), End::new(Side::B)];
        for (end, lane, segment) in load {
            ends[end].give(Lane::ALL[lane], segment);
        }
        run(&mut ends, faults, refusals);
        let [a, b] = ends;
        for (from, to) in [(&a, &b), (&b, &a)] {
            let segments = from.sent.iter().map(Vec::len).sum::<usize>() as u64;
            let (from, to) = (from.link.counters(), to.link.counters());
            prop_assert_eq!(from.sent_frames - from.retransmissions, segments);
            prop_assert_eq!(to.received_frames, segments);
        }
        prop_assert_eq!(a.sent, b.taken);
        prop_assert_eq!(b.sent, a.taken);
        for waiting in [a.waiting, b.waiting].iter().flatten() {
            prop_assert!(waiting.is_empty());
        }
        for link in [a.link, b.link] {
            prop_assert_eq!(link.room(Lane::Control), CONFIG.window);
        }
    }

    #[test]
    fn no_body_upsets_the_link(
        kind in prop::sample::select(vec![Kind::Data, Kind::Ack]),
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20),
    ) {
        let mut end = End::new(Side::A);
        for body in bodies {
            let _ = end.link.receive(kind, &body, Instant(0), |_, _| true);
            prop_assert!(end.link.room(Lane::Control) == CONFIG.window);
        }
    }
}

fn two() -> [End; 2] {
    [End::new(Side::A), End::new(Side::B)]
}

fn at(us: u64) -> Instant {
    Instant(us * 1000)
}

/// Sends segments of one byte, 0 and on, and returns their frames.
fn sent(end: &mut End, lane: Lane, count: u8, now: Instant) -> Vec<Vec<u8>> {
    for number in 0..count {
        end.give(lane, vec![number]);
    }
    end.fill();
    end.frames(now)
}

#[test]
fn a_whole_wire_repeats_nothing_and_answers_seldom() {
    let mut ends = two();
    for number in 0..400_u16 {
        ends[0].give(Lane::Pages, number.to_le_bytes().to_vec());
    }
    run(&mut ends, Vec::new(), Vec::new());
    let (a, b) = (ends[0].link.counters(), ends[1].link.counters());
    assert_eq!((a.sent_frames, a.retransmissions), (400, 0));
    assert_eq!((b.received_frames, b.duplicates), (400, 0));
    assert_eq!((a.sent_bytes, b.received_bytes), (800, 800));
    assert!(b.sent_acks <= 400 / 8 + 1, "{} acks", b.sent_acks);
}

#[test]
fn a_gap_is_filled_after_three_later_frames_without_a_timeout() {
    let [mut a, mut b] = two();
    let frames = sent(&mut a, Lane::Inputs, 4, at(0));
    for frame in &frames[1..] {
        b.hear(frame, at(20), &[]).unwrap();
    }
    // What came out of order is said at once.
    let answers = b.frames(at(20));
    assert_eq!(answers.len(), 1);
    a.hear(&answers[0], at(40), &[]).unwrap();
    let again = a.frames(at(40));
    assert_eq!(again.len(), 1);
    b.hear(&again[0], at(60), &[]).unwrap();
    assert_eq!(b.taken[Lane::Inputs as usize], [[0], [1], [2], [3]]);
    assert_eq!(a.link.counters().retransmissions, 1);
}

#[test]
fn a_lost_end_is_sent_again_after_the_timeout_and_ever_more_seldom() {
    let [mut a, _] = two();
    assert_eq!(sent(&mut a, Lane::Control, 2, at(0)).len(), 2);
    let mut now = at(0);
    let mut gaps = Vec::new();
    for _ in 0..8 {
        let next = a.link.next_deadline().unwrap();
        assert!(a.frames(Instant(next.0 - 1)).is_empty());
        assert_eq!(a.frames(next).len(), 1, "one asks for all");
        gaps.push(next.since(now).as_millis());
        now = next;
    }
    assert_eq!(gaps, [4, 8, 16, 32, 50, 50, 50, 50]);
}

#[test]
fn the_answer_to_a_repeated_frame_tells_what_became_of_the_others() {
    let [mut a, mut b] = two();
    sent(&mut a, Lane::Control, 3, at(0));
    let again = a.frames(at(4000));
    b.hear(&again[0], at(4020), &[]).unwrap();
    for answer in b.frames(at(4220)) {
        a.hear(&answer, at(4240), &[]).unwrap();
    }
    assert_eq!(
        a.frames(at(4240)).len(),
        2,
        "no further timeout is waited for"
    );
}

#[test]
fn higher_lanes_go_first_and_have_room_when_lower_ones_stand_still() {
    let [mut a, mut b] = two();
    let pages = sent(&mut a, Lane::Pages, 40, at(0));
    for frame in &pages {
        b.hear(frame, at(20), &[Lane::Pages]).unwrap();
    }
    for answer in b.frames(at(20)) {
        a.hear(&answer, at(40), &[]).unwrap();
    }
    assert_eq!(a.link.room(Lane::Pages), 0);
    assert_eq!(a.link.send(Lane::Pages, |_| unreachable!()), Err(Full));
    let room = [Lane::UrgentPages, Lane::Inputs, Lane::Control].map(|lane| a.link.room(lane));
    assert_eq!(room, [2, 4, 6]);
    for lane in [Lane::UrgentPages, Lane::Inputs, Lane::Control] {
        a.give(lane, vec![9]);
        a.fill();
    }
    let lanes: Vec<Vec<u8>> = a.frames(at(50));
    for frame in &lanes {
        b.hear(frame, at(60), &[Lane::Pages]).unwrap();
    }
    let order: Vec<u8> = lanes.iter().map(|frame| frame[OVERHEAD - 16]).collect();
    assert_eq!(order, [0, 1, 2]);
    assert_eq!(b.taken.each_ref().map(Vec::len), [1, 1, 1, 0]);
    b.resume(at(70));
    assert_eq!(b.taken[Lane::Pages as usize].len(), pages.len());
}

#[test]
fn a_peer_that_takes_again_is_noticed_although_its_word_is_lost() {
    let [mut a, mut b] = two();
    for frame in sent(&mut a, Lane::Control, 1, at(0)) {
        b.hear(&frame, at(20), &[Lane::Control]).unwrap();
    }
    for answer in b.frames(at(20)) {
        a.hear(&answer, at(40), &[]).unwrap();
    }
    assert!(a.frames(at(50)).is_empty());
    b.resume(at(60));
    assert_eq!(b.frames(at(60)).len(), 1, "which is lost");
    let due = a.link.next_deadline().unwrap();
    for frame in a.frames(due) {
        b.hear(&frame, due, &[]).unwrap();
    }
    for answer in b.frames(due) {
        a.hear(&answer, due, &[]).unwrap();
    }
    assert_eq!(b.taken[Lane::Control as usize], [[0]]);
    assert_eq!(a.link.room(Lane::Control), CONFIG.window);
    assert_eq!(a.link.next_deadline(), None);
}

#[test]
fn what_was_not_sent_cannot_be_acknowledged() {
    let [mut a, _] = two();
    sent(&mut a, Lane::Control, 2, at(0));
    let last = body::FIRST.wrapping_add(1);
    let ack = |newest: u32, taken: u32| {
        let mut next = [body::FIRST; LANES];
        next[0] = next[0].wrapping_add(taken);
        let acks = body::Acks {
            delay: 0,
            newest,
            next,
        };
        let mut body = [0; 200];
        let length = encode_ack(&acks, &[None; LANES], &mut body).unwrap();
        body[..length].to_vec()
    };
    let mut hear = |body: &[u8]| a.link.receive(Kind::Ack, body, at(9), |_, _| true);
    assert_eq!(hear(&ack(last, 3)), Err(LinkError::Unsent));
    assert_eq!(hear(&ack(last.wrapping_add(1), 2)), Err(LinkError::Unsent));
    assert_eq!(hear(&ack(last, 2)), Ok(()));
    assert_eq!(hear(&ack(last, 1)), Ok(()), "it was overtaken");
    assert_eq!(a.link.next_deadline(), None);
}

#[test]
fn frames_of_other_boards_makes_are_refused() {
    let [_, mut b] = two();
    let acks = body::Acks {
        delay: 0,
        newest: body::FIRST.wrapping_sub(1),
        next: [body::FIRST; LANES],
    };
    let mut hear = |offset: u32, length: usize| {
        let head = body::DataHead {
            lane: Lane::Pages,
            order: body::FIRST,
            sequence: body::FIRST.wrapping_add(offset),
        };
        let mut body = vec![0; DATA_HEAD + length];
        body::encode_data(&acks, &head, &vec![0; length], &mut body).unwrap();
        b.link.receive(Kind::Data, &body, at(0), |_, _| true)
    };
    let longest = segment_bytes(CONFIG.mtu);
    assert_eq!(hear(0, longest + 1), Err(LinkError::Long));
    assert_eq!(hear(256, 0), Err(LinkError::Window));
    // A sender with a higher window than this board's is heard as far as there are slots.
    for offset in 224..=255 {
        assert_eq!(hear(offset, 0), Ok(()));
    }
    assert_eq!(hear(100, 0), Err(LinkError::NoSlot));
    assert_eq!(hear(0, longest), Ok(()), "what is next needs none");
    assert_eq!(
        b.link.receive(Kind::Hello, &[], at(0), |_, _| true),
        Err(LinkError::Malformed)
    );
}

#[test]
fn a_new_session_begins_anew() {
    let mut ends = two();
    sent(&mut ends[0], Lane::Control, 5, at(0));
    for frame in sent(&mut ends[1], Lane::Inputs, 3, at(0)) {
        ends[0].hear(&frame, at(20), &[Lane::Inputs]).unwrap();
    }
    for end in &mut ends {
        end.link.reset();
        assert_eq!(end.link.next_deadline(), None);
        assert_eq!(end.link.room(Lane::Control), CONFIG.window);
        (end.sent, end.taken) = Default::default();
    }
    ends[0].give(Lane::Control, vec![7]);
    run(&mut ends, Vec::new(), Vec::new());
    assert_eq!(ends[1].taken[0], [[7]]);
    assert!(ends[0].taken.iter().all(Vec::is_empty));
}

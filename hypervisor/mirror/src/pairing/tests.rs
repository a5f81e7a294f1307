use super::*;
use crate::wire::OVERHEAD;
use core::num::NonZeroU128;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const PATHS: [Path; 2] = [Path::Link, Path::Lan];

fn facts() -> Facts {
    Facts {
        format: 3,
        configuration: 0xC0,
        cpu: 0xC9,
        tsc_hz: 2_000_000_000,
        software: Software::new("0.1.0"),
    }
}

fn config(side: Side) -> PairingConfig {
    PairingConfig {
        side,
        key: PairKey::new(b"a secret of both"),
        facts: facts(),
        clock_tolerance: 500,
        hello_interval: 100 * MS,
        silence: 300 * MS,
    }
}

fn nonce(number: u128) -> Nonce {
    Nonce(NonZeroU128::new(number).unwrap())
}

/// A board that sends heartbeats in its session.
struct Board {
    pairing: Pairing,
    news: Vec<News>,
    /// When heartbeats came.
    beats: Vec<Instant>,
}

impl Board {
    fn new(config: PairingConfig, boot: u128) -> Self {
        Self {
            pairing: Pairing::new(config, nonce(boot)),
            news: Vec::new(),
            beats: Vec::new(),
        }
    }

    fn session(&mut self) -> Option<u64> {
        self.pairing.session().map(|session| session.id())
    }

    /// What it sends now on `path`.
    fn frames(&mut self, path: Path, now: Instant) -> Vec<Vec<u8>> {
        let mut buffer = [0; OVERHEAD + Hello::BYTES];
        let mut frames = Vec::new();
        while let Some(length) = self.pairing.poll_hello(path, now, &mut buffer) {
            frames.push(buffer[..length].to_vec());
            assert!(frames.len() <= 2, "a Hello and a Confirm at a time");
        }
        if let Some(session) = self.pairing.session() {
            let beat = |_: &mut [u8]| Some((Kind::Heartbeat, 0));
            let length = session.seal(path, Term(1), Epoch(1), &mut buffer, beat);
            frames.push(buffer[..length.unwrap()].to_vec());
        }
        frames
    }

    fn hear(&mut self, path: Path, bytes: &[u8], now: Instant) -> Result<(), Dropped> {
        let opened = self.pairing.open(path, bytes, Term(0), now)?;
        self.news.extend(opened.news);
        if let Some(frame) = opened.frame {
            assert_eq!((frame.kind, frame.term), (Kind::Heartbeat, Term(1)));
            self.beats.push(now);
        }
        Ok(())
    }
}

/// Two boards, the time, and all that was ever sent: to which, by which path.
struct Pair {
    boards: [Board; 2],
    now: Instant,
    record: Vec<(usize, Path, Vec<u8>)>,
}

impl Pair {
    fn new(a: PairingConfig, b: PairingConfig) -> Self {
        Self {
            boards: [Board::new(a, 1), Board::new(b, 2)],
            now: Instant(0),
            record: Vec::new(),
        }
    }

    fn ordinary() -> Self {
        Self::new(config(Side::A), config(Side::B))
    }

    /// Lets `time` pass, in steps of 10 ms; `pass` says which frames arrive.
    fn run(&mut self, time: Duration, mut pass: impl FnMut(usize, Path) -> bool) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + 10 * MS;
            for from in 0..2 {
                for path in PATHS {
                    for frame in self.boards[from].frames(path, self.now) {
                        let to = 1 - from;
                        if pass(from, path) {
                            let _ = self.boards[to].hear(path, &frame, self.now);
                        }
                        self.record.push((to, path, frame));
                    }
                }
            }
        }
    }

    fn restart(&mut self, which: usize, boot: u128) {
        let config = self.boards[which].pairing.config.clone();
        self.boards[which] = Board::new(config, boot);
    }

    /// The session of both, in which frames come.
    fn session(&mut self) -> Option<u64> {
        let now = self.now;
        let live = self.boards.iter().all(|it| it.pairing.is_live(now));
        let [a, b] = self.boards.each_mut().map(Board::session);
        a.filter(|_| live && a == b)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn boards_pair_as_soon_as_frames_come_whatever_was_lost_before(
        lost in prop::collection::vec(any::<bool>(), 0..300),
        restarts in prop::collection::vec((0..2usize, 1u64..60), 0..4),
        dead in prop::option::of(prop::sample::select(&PATHS[..])),
    ) {
        let mut pair = Pair::ordinary();
        let mut lost = lost.into_iter();
        for (boot, (which, steps)) in restarts.into_iter().enumerate() {
            pair.run(steps as u32 * 10 * MS, |_, path| Some(path) != dead && !lost.next().unwrap_or(false));
            pair.restart(which, 10 + boot as u128);
        }
        pair.run(1000 * MS, |_, path| Some(path) != dead && !lost.next().unwrap_or(false));
        pair.run(1000 * MS, |_, path| Some(path) != dead);
        let session = pair.session();
        prop_assert!(session.is_some());
        // And it stays.
        pair.run(1000 * MS, |_, path| Some(path) != dead);
        prop_assert_eq!(pair.session(), session);
    }

    #[test]
    fn nothing_recorded_takes_a_session_down(
        restarts in prop::collection::vec((0..2usize, 1u64..60), 0..4),
        replays in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..200),
    ) {
        let mut pair = Pair::ordinary();
        for (boot, (which, steps)) in restarts.into_iter().enumerate() {
            pair.run(steps as u32 * 10 * MS, |_, _| true);
            pair.restart(which, 10 + boot as u128);
        }
        pair.run(1000 * MS, |_, _| true);
        let session = pair.session();
        prop_assert!(session.is_some());
        for board in &mut pair.boards {
            board.news.clear();
            board.beats.clear();
        }
        for (which, elsewhere) in replays {
            // Anything, back to where it came from and by the other path as well.
            let (to, path, frame) = pair.record[which.index(pair.record.len())].clone();
            let to = if elsewhere { 1 - to } else { to };
            for path in PATHS.into_iter().filter(|it| elsewhere || *it == path) {
                let now = pair.now;
                let beats = pair.boards[to].beats.len();
                let _ = pair.boards[to].hear(path, &frame, now);
                prop_assert_eq!(pair.boards[to].beats.len(), beats, "no frame counts twice");
            }
            pair.run(10 * MS, |_, _| true);
            prop_assert_eq!(pair.session(), session);
        }
        for board in &pair.boards {
            prop_assert!(board.news.is_empty(), "{:?}", board.news);
        }
    }

    #[test]
    fn nothing_recorded_makes_a_session_in_an_outage(
        restarts in prop::collection::vec((0..2usize, 50u64..60), 0..4),
        replays in prop::collection::vec((any::<prop::sample::Index>(), 0..2usize), 1..200),
    ) {
        let mut pair = Pair::ordinary();
        for (boot, (which, steps)) in restarts.into_iter().enumerate() {
            pair.run(steps as u32 * 10 * MS, |_, _| true);
            pair.restart(which, 10 + boot as u128);
        }
        pair.run(1000 * MS, |_, _| true);
        let session = pair.session();
        prop_assert!(session.is_some());
        let record = pair.record.clone();
        pair.run(500 * MS, |_, _| false);
        for (which, to) in replays {
            let (_, path, frame) = &record[which.index(record.len())];
            let _ = pair.boards[to].hear(*path, frame, pair.now);
            pair.run(10 * MS, |_, _| false);
            prop_assert_eq!(pair.boards[to].session(), session);
            prop_assert!(!pair.boards[to].pairing.is_live(pair.now));
        }
    }

    #[test]
    fn no_hello_is_read_otherwise_than_written(
        [format, padding] in any::<[u16; 2]>(),
        [configuration, cpu, peer] in any::<[u128; 3]>(),
        tsc_hz: u64,
        software in "\\PC{0,40}",
        round: u32,
        cut in 0..=Hello::BYTES,
    ) {
        let heard = NonZeroU128::new(peer).map(|it| Offer { nonce: Nonce(it), round });
        let software = Software::new(&software);
        let hello = Hello {
            offer: Offer { nonce: nonce(7), round: round ^ 1 },
            heard,
            facts: Facts { format, configuration, cpu, tsc_hz, software },
        };
        let mut body = [0; Hello::BYTES + 1];
        prop_assert_eq!(hello.encode(&mut body), Some(Hello::BYTES));
        prop_assert_eq!(Hello::decode(&body[..Hello::BYTES]), Some(hello));
        prop_assert_eq!(Hello::decode(&body), None);
        prop_assert_eq!(Hello::decode(&body[..cut]), (cut == Hello::BYTES).then_some(hello));
        body[42..44].copy_from_slice(&padding.to_le_bytes());
        prop_assert_eq!(Hello::decode(&body[..Hello::BYTES]).is_some(), padding == 0);
    }
}

#[test]
fn a_pair_is_made_within_an_interval_and_then_nobody_says_hello() {
    let mut pair = Pair::ordinary();
    pair.run(100 * MS, |_, _| true);
    assert!(pair.session().is_some());
    for board in &mut pair.boards {
        assert_eq!(board.news, [News::Paired]);
        assert_eq!(board.pairing.session().map(|it| *it.facts()), Some(facts()));
    }
    pair.record.clear();
    pair.run(1000 * MS, |_, _| true);
    assert_eq!(
        pair.record.len(),
        2 * 2 * 100,
        "heartbeats, and nothing else"
    );
    for board in &pair.boards {
        assert!(board.pairing.next_deadline() > pair.now);
    }
}

#[test]
fn a_board_that_starts_again_has_another_session_after_the_silence() {
    let mut pair = Pair::ordinary();
    pair.run(500 * MS, |_, _| true);
    let first = pair.session();
    pair.restart(1, 3);
    pair.run(400 * MS, |_, _| true);
    let second = pair.session();
    assert!(second.is_some() && second != first);
    assert_eq!(pair.boards[0].news, [News::Paired, News::Paired]);
    // What was sent in the first is of no session now.
    let (_, path, old) = &pair.record[pair.record.len() / 2];
    let dropped = pair.boards[0].hear(*path, old, pair.now);
    assert_eq!(dropped, Err(Dropped::Session(first.unwrap())));
}

#[test]
fn an_outage_is_no_end_of_a_session_if_its_frames_are_the_first_to_come() {
    let mut pair = Pair::ordinary();
    pair.run(500 * MS, |_, _| true);
    let session = pair.session();
    pair.run(2050 * MS, |_, _| false);
    assert_eq!(pair.session(), None);
    pair.run(30 * MS, |_, _| true);
    assert_eq!(pair.session(), session);
    assert_eq!(pair.boards[0].news, [News::Paired]);
}

#[test]
fn what_the_boards_differ_in_is_told_once_until_it_changes() {
    let differ = |change: fn(&mut PairingConfig)| {
        let mut other = config(Side::B);
        change(&mut other);
        let mut pair = Pair::new(config(Side::A), other);
        pair.run(1000 * MS, |_, _| true);
        assert_eq!(pair.session(), None);
        let [a, b] = pair.boards;
        let ([News::Refused(seen)], [News::Refused(_)]) = (&a.news[..], &b.news[..]) else {
            panic!("{:?} {:?}", a.news, b.news);
        };
        seen.to_string()
    };
    assert_eq!(
        differ(|it| (it.facts.format, it.facts.software) = (4, Software::new("0.2.0"))),
        "the peer's software 0.2.0 has states of version 4, this board's software 0.1.0 of version 3"
    );
    assert_eq!(
        differ(|it| it.facts.configuration = 0xC1),
        "the boards' files differ: the peer's has the digest 000000000000000000000000000000c1, \
         this board's 000000000000000000000000000000c0"
    );
    assert_eq!(
        differ(|it| it.facts.cpu = 0xCA),
        "the boards' processors differ for guests: the peer's has the digest \
         000000000000000000000000000000ca, this board's 000000000000000000000000000000c9"
    );
    assert_eq!(
        differ(|it| it.facts.tsc_hz += 1_001_000),
        "the peer's time-stamp counter has 2001001000 Hz, this board's 2000000000 Hz: \
         more than 500 millionths apart"
    );
    assert_eq!(
        differ(|it| it.side = Side::A),
        "both boards are side a: one must be side b"
    );
    let (own, peer) = (config(Side::A).key.id(), PairKey::new(&[9; 16]).id());
    assert_eq!(
        differ(|it| it.key = PairKey::new(&[9; 16])),
        format!(
            "the boards' keys differ: the peer's is of the pair {peer:016x}, this board's of the pair {own:016x}"
        )
    );
}

#[test]
fn a_difference_that_is_gone_or_small_is_none() {
    let mut other = config(Side::B);
    other.facts.tsc_hz += 1_000_000;
    let mut wrong = other.clone();
    wrong.facts.cpu = 1;
    let mut pair = Pair::new(config(Side::A), wrong);
    pair.run(300 * MS, |_, _| true);
    pair.boards[1] = Board::new(other, 5);
    pair.run(300 * MS, |_, _| true);
    assert!(pair.session().is_some());
    assert!(matches!(
        pair.boards[0].news[..],
        [
            News::Refused(Refusal::Cpu { own: 0xC9, peer: 1 }),
            News::Paired
        ]
    ));
}

#[test]
fn another_version_is_told_of_the_link_only() {
    let mut board = Board::new(config(Side::A), 1);
    let mut frame = [0; 100];
    frame[0] = 9;
    for path in [Path::Lan, Path::Lan, Path::Link] {
        assert!(board.news.is_empty());
        let _ = board.hear(path, &frame, Instant(0));
    }
    let refusal = Refusal::Version { own: 1, peer: 9 };
    assert_eq!(board.news, [News::Refused(refusal)]);
    assert_eq!(
        refusal.to_string(),
        "the peer's frames are of version 9, this board's of version 1"
    );
    // What no tag vouches for is told once, whatever it says.
    frame[0] = 8;
    let again = board.hear(Path::Link, &frame, Instant(0));
    assert_eq!(again, Err(Dropped::Version(8)));
}

#[test]
fn a_board_does_not_pair_with_itself() {
    let mut board = Board::new(config(Side::A), 1);
    for frame in board.frames(Path::Link, Instant(0)) {
        let dropped = board.hear(Path::Link, &frame, Instant(0));
        assert_eq!(dropped, Err(Dropped::Own));
        let crossed = board.hear(Path::Lan, &frame, Instant(0));
        assert_eq!(crossed, Err(Dropped::Path));
    }
    assert!(board.news.is_empty());
    assert_eq!(
        board.pairing.drops(Path::Link).counts.iter().sum::<u64>(),
        1
    );
    assert_eq!(board.pairing.drops(Path::Lan).counts.iter().sum::<u64>(), 1);
}

#[test]
fn the_link_goes_on_in_the_newest_term_only() {
    let mut pair = Pair::ordinary();
    pair.run(200 * MS, |_, _| true);
    let now = pair.now;
    let mut sealed = |kind| {
        let session = pair.boards[0].pairing.session().unwrap();
        let mut buffer = [0; OVERHEAD];
        session.seal(Path::Link, Term(4), Epoch(0), &mut buffer, |_| {
            Some((kind, 0))
        });
        buffer
    };
    let frames = [Kind::Data, Kind::Ack, Kind::Heartbeat, Kind::Dying].map(&mut sealed);
    let more = sealed(Kind::Data);
    let [_, Board { pairing, .. }] = &mut pair.boards;
    let heard = frames.map(|bytes| pairing.open(Path::Link, &bytes, Term(5), now).map(|_| ()));
    let old = Err(Dropped::OldTerm(Term(4)));
    assert_eq!(heard, [old, old, Ok(()), Ok(())]);
    assert!(pairing.open(Path::Link, &more, Term(4), now).is_ok());
}

#[test]
fn a_flood_of_old_hellos_is_answered_at_a_bounded_rate_and_keeps_nobody_from_pairing() {
    let mut pair = Pair::ordinary();
    pair.run(10 * MS, |_, _| false);
    let (_, _, hello) = pair.record[0].clone();
    pair.restart(0, 3);
    pair.record.clear();
    let flood = |pair: &mut Pair, pass: fn(usize, Path) -> bool| {
        for _ in 0..100 {
            for _ in 0..10 {
                let _ = pair.boards[1].hear(Path::Link, &hello, pair.now);
            }
            pair.run(10 * MS, pass);
        }
    };
    flood(&mut pair, |_, _| false);
    let answers = pair
        .record
        .iter()
        .filter(|it| (it.0, it.1) == (0, Path::Link))
        .count();
    assert!((20..=40).contains(&answers), "{answers} in a second");
    flood(&mut pair, |_, _| true);
    assert!(pair.session().is_some());
}

use super::*;
use crate::PairKey;
use proptest::prelude::*;

const A: Sender = Sender::Board(Side::A);
const B: Sender = Sender::Board(Side::B);

fn key() -> PairKey {
    PairKey::new(b"sixteen of these")
}

/// The ends of one way of a session.
fn ends(path: Path) -> (Sealer, Opener) {
    let key = key().frames();
    (
        Sealer::new(key.clone(), 7, A, path),
        Opener::new(key, 7, B, path),
    )
}

fn seal(sealer: &mut Sealer, kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0xEE; OVERHEAD + body.len()];
    let length = sealer.seal(Term(3), Epoch(1 << 40), &mut buffer, |place| {
        place.copy_from_slice(body);
        Some((kind, body.len()))
    });
    assert_eq!(length, Some(buffer.len()));
    buffer
}

proptest! {
    #[test]
    fn what_was_sealed_is_opened_once(
        body in prop::collection::vec(any::<u8>(), 0..200),
        kind in prop::sample::select(&Kind::ALL[..]),
        padding in 0usize..20,
    ) {
        for path in [Path::Link, Path::Lan] {
            let (mut sealer, mut opener) = ends(path);
            let mut bytes = seal(&mut sealer, kind, &body);
            bytes.resize(bytes.len() + padding, 0);
            let frame = Frame { sender: A, kind, term: Term(3), epoch: Epoch(1 << 40), body: &body };
            prop_assert_eq!(opener.open(&bytes), Ok(frame));
            prop_assert_eq!(opener.open(&bytes), Err(Dropped::Replay));
        }
    }

    #[test]
    fn a_changed_frame_is_dropped_and_takes_no_counter(
        body in prop::collection::vec(any::<u8>(), 0..60),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut sealer, mut opener) = ends(Path::Link);
        let bytes = seal(&mut sealer, Kind::Data, &body);
        let mut changed = bytes.clone();
        for (at, mask) in changes {
            changed[at.index(bytes.len())] ^= mask;
        }
        if changed != bytes {
            prop_assert!(opener.open(&changed).is_err());
        }
        prop_assert!(opener.open(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(opener.open(&bytes).is_ok());
    }

    #[test]
    fn no_bytes_make_a_frame(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let (_, mut opener) = ends(Path::Link);
        prop_assert!(opener.open(&bytes).is_err());
    }

    #[test]
    fn headers_are_read_as_they_were_written(
        kind in prop::sample::select(&Kind::ALL[..]),
        sender in prop::sample::select(vec![A, B, Sender::Witness]),
        path in prop::sample::select(vec![Path::Link, Path::Lan]),
        length: u16,
        [session, counter, term, epoch]: [u64; 4],
    ) {
        let header = Header {
            kind, sender, path, length, session, counter, term: Term(term), epoch: Epoch(epoch),
        };
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
}

#[test]
fn a_frame_is_as_the_format_says() {
    let (mut sealer, _) = ends(Path::Lan);
    seal(&mut sealer, Kind::Hello, b"");
    let bytes = seal(&mut sealer, Kind::Dying, b"body");
    let expected = [
        &[1, 0, 6, 0x10, 4, 0, 0, 0][..],
        &[7, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 1, 0, 0],
        b"body",
    ]
    .concat();
    let (signed, tag) = bytes.split_at(expected.len());
    assert_eq!(signed, expected);
    assert_eq!(tag, key().frames().tag(&expected));
}

#[test]
fn each_cause_of_a_drop_is_told_and_counted() {
    let (mut sealer, mut opener) = ends(Path::Link);
    let bytes = seal(&mut sealer, Kind::Data, b"x");
    let with = |at: usize, value| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        bytes
    };
    let (mut from_lan, _) = ends(Path::Lan);
    let mut from_peer = Sealer::new(key().frames(), 7, B, Path::Link);
    let mut drops = Drops::default();
    for (bytes, cause) in [
        (with(0, 2), Dropped::Version(2)),
        (with(2, 0), Dropped::Malformed),
        (with(3, 3), Dropped::Malformed),
        (with(3, 0x20), Dropped::Malformed),
        (with(4, 2), Dropped::Malformed),
        (with(6, 1), Dropped::Malformed),
        (with(8, 8), Dropped::Session(8)),
        (with(40, b'y'), Dropped::Tag),
        (seal(&mut from_lan, Kind::Data, b"x"), Dropped::Path),
        (seal(&mut from_peer, Kind::Data, b"x"), Dropped::Own),
    ] {
        assert_eq!(opener.open(&bytes), Err(cause));
        drops.count(cause);
    }
    assert!(opener.open(&bytes).is_ok());
    drops.count(Dropped::Replay);
    drops.count(Dropped::OldTerm(Term(1)));
    // In the order of the names.
    assert_eq!(drops.counts, [5, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn a_buffer_that_is_too_short_makes_no_frame() {
    let (mut sealer, mut opener) = ends(Path::Link);
    let mut buffer = [0; OVERHEAD + 3];
    let mut seal = |size: usize, length| {
        let fill = |body: &mut [u8]| {
            assert_eq!(body.len(), size - OVERHEAD);
            Some((Kind::Data, length))
        };
        sealer.seal(Term(0), Epoch(0), &mut buffer[..size], fill)
    };
    assert_eq!(seal(OVERHEAD - 1, 0), None);
    assert_eq!(seal(OVERHEAD + 3, 4), None);
    assert_eq!(seal(OVERHEAD, 0), Some(OVERHEAD));
    // It is the first, for the others took no counter.
    assert_eq!(buffer[16], 1);
    assert!(opener.open(&buffer).is_ok());
    let mut large = vec![0; 70_000];
    let length = sealer.seal(Term(0), Epoch(0), &mut large, |body| {
        Some((Kind::Data, body.len()))
    });
    assert_eq!(length, Some(OVERHEAD + 0xFFFF));
    assert!(opener.open(&large).is_ok());
}

#[test]
fn outside_of_sessions_frames_may_come_again() {
    let mut sealer = Sealer::outside_sessions(&key(), Sender::Witness, Path::Lan);
    let mut opener = Opener::outside_sessions(&key(), Path::Lan);
    let bytes = seal(&mut sealer, Kind::Answer, b"yes");
    assert_eq!(opener.open(&bytes), opener.open(&bytes));
    assert_eq!(opener.open(&bytes).map(|it| it.sender), Ok(Sender::Witness));
    let other = PairKey::new(b"another of these");
    let mut stranger = Opener::outside_sessions(&other, Path::Lan);
    assert_eq!(
        stranger.open(&bytes),
        Err(Dropped::Session(key().id())),
        "another pair's frames are not mistaken for changed ones",
    );
}

//! A board of a pair hears frames of any bytes, and frames of any kind and body that somebody with the pair's key sealed: its
//! session stays, and no frame comes out that is not of it.
#![no_main]

use core::num::NonZeroU128;
use core::time::Duration;
use libfuzzer_sys::fuzz_target;
use mirror::{
    Epoch, Facts, Instant, Kind, News, Nonce, OVERHEAD, PairKey, Pairing, PairingConfig, Path,
    Sealer, Sender, Side, Software, Term,
};

const KINDS: [Kind; 8] = [
    Kind::Hello,
    Kind::Confirm,
    Kind::Heartbeat,
    Kind::Data,
    Kind::Ack,
    Kind::Dying,
    Kind::Ask,
    Kind::Answer,
];
const STEP: Duration = Duration::from_millis(50);

fn key() -> PairKey {
    PairKey::new(b"sixteen of these")
}

fn board(side: Side, nonce: NonZeroU128) -> Pairing {
    let config = PairingConfig {
        side,
        key: key(),
        facts: Facts {
            format: 1,
            configuration: 2,
            cpu: 3,
            tsc_hz: 1_000_000_000,
            software: Software::new("fuzz"),
        },
        clock_tolerance: 500,
        hello_interval: 2 * STEP,
        silence: 4 * STEP,
    };
    Pairing::new(config, Nonce(nonce))
}

/// Two boards that have paired.
fn pair() -> ([Pairing; 2], Instant) {
    let mut boards = [
        board(Side::A, NonZeroU128::MIN),
        board(Side::B, NonZeroU128::MAX),
    ];
    let mut buffer = [0; 300];
    let mut now = Instant(0);
    while boards.iter_mut().any(|board| board.session().is_none()) {
        for from in 0..2 {
            let term = Term(0);
            let mut frames = Vec::new();
            while let Some(length) = boards[from].poll_hello(Path::Link, now, &mut buffer) {
                frames.push(buffer[..length].to_vec());
            }
            if let Some(session) = boards[from].session() {
                let beat = |_: &mut [u8]| Some((Kind::Heartbeat, 0));
                let length = session.seal(Path::Link, term, Epoch(0), &mut buffer, beat);
                frames.extend(length.map(|length| buffer[..length].to_vec()));
            }
            for frame in frames {
                let _ = boards[1 - from].open(Path::Link, &frame, term, now);
            }
        }
        now = now + STEP;
    }
    (boards, now)
}

fuzz_target!(|bytes: &[u8]| {
    let ([_, mut board], mut now) = pair();
    let session = board.session().map(|session| session.id());
    let mut buffer = [0; OVERHEAD + 256];
    let mut rest = bytes;
    while let [step, length, more @ ..] = rest {
        let (body, more) = more.split_at(more.len().min(usize::from(*length)));
        rest = more;
        let path = match step & 1 {
            0 => Path::Link,
            _ => Path::Lan,
        };
        let kind = KINDS[usize::from(step >> 1 & 7)];
        let sender = match step >> 4 & 3 {
            0 => Sender::Board(Side::A),
            1 => Sender::Board(Side::B),
            _ => Sender::Witness,
        };
        let frame = if step & 0x40 == 0 {
            body
        } else {
            let mut sealer = Sealer::outside_sessions(&key(), sender, path);
            let fill = |place: &mut [u8]| {
                place[..body.len()].copy_from_slice(body);
                Some((kind, body.len()))
            };
            let length = sealer.seal(Term(9), Epoch(9), &mut buffer, fill);
            &buffer[..length.expect("there is room")]
        };
        if let Ok(opened) = board.open(path, frame, Term(0), now) {
            assert_eq!(opened.frame, None);
            assert_ne!(opened.news, Some(News::Paired));
        }
        assert_eq!(board.session().map(|session| session.id()), session);
        let mut hello = [0; 300];
        while let Some(length) = board.poll_hello(path, now, &mut hello) {
            assert!(length <= hello.len());
        }
        if step & 0x80 != 0 {
            now = now + STEP;
        }
    }
});

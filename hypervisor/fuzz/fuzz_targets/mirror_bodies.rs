//! Bodies of the mirror's frames, and a witness's file: any bytes are one thing or none, and what they are is written as the same
//! bytes; an understudy takes any records, and stays within the guest; so does what is kept of frames for guests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mirror::witness::{ANSWER_BYTES, ASK_BYTES, Answer, Ask, Ledger};
use mirror::{
    Epoch, Extent, HEARTBEAT_BYTES, Heartbeat, INPUT_MAX, INPUT_MIN, Inputs, Instant, Memory,
    Place, Record, Records, Understudy,
};
use std::time::Duration;

/// Pages of the guest's only area.
const PAGES: u32 = 16;

struct Guest;

impl Guest {
    fn check(place: Place) {
        assert!(place.guest == 0 && place.area.0 == 0 && place.number < PAGES);
    }
}

impl Memory for Guest {
    fn clear(&mut self, place: Place) {
        Self::check(place);
    }

    fn bring(&mut self, place: Place) {
        Self::check(place);
    }

    fn write(&mut self, place: Place, offset: usize, bytes: &[u8]) {
        Self::check(place);
        assert!(offset + bytes.len() <= mirror::PAGE_SIZE);
    }

    fn flip(&mut self, place: Place) {
        Self::check(place);
    }
}

fuzz_target!(|data: &[u8]| {
    if let Some(body) = data.first_chunk::<HEARTBEAT_BYTES>()
        && let Some(heartbeat) = Heartbeat::decode(body)
    {
        assert_eq!(heartbeat.encode(), *body);
    }
    if let Some(body) = data.first_chunk::<ASK_BYTES>()
        && let Some(ask) = Ask::decode(body)
    {
        assert_eq!(ask.encode(), *body);
    }
    if let Some(body) = data.first_chunk::<ANSWER_BYTES>()
        && let Some(answer) = Answer::decode(body)
    {
        assert_eq!(answer.encode(), *body);
    }
    if let Ok(text) = core::str::from_utf8(data)
        && let Ok(ledger) = text.parse::<Ledger>()
    {
        assert_eq!(ledger.to_string().parse(), Ok(ledger));
    }
    let mut understudy = Understudy::new(&[Extent {
        guest: 0,
        areas: vec![PAGES],
    }]);
    let mut inputs = Inputs::new();
    let served = data.first().map(|byte| Epoch(u64::from(byte % 4)));
    if data.len() % 2 == 0 {
        inputs.take_over(served);
    }
    for record in Records::new(data) {
        let Ok(record) = record else { break };
        if let Record::Input(piece) = record {
            // What does not follow is named, and nothing of it is kept.
            let _ = inputs.receive(&piece);
            continue;
        }
        if understudy.receive(&record, &mut Guest).is_err() {
            break;
        }
        while understudy.flip(&mut Guest, PAGES as usize) {}
    }
    inputs.take_over(served);
    let more = inputs.deliver(Instant(0), Duration::ZERO, |_, _, frame| {
        assert!((INPUT_MIN..=INPUT_MAX).contains(&frame.len()));
        frame.len() % 3 != 0
    });
    assert!(!more);
});

//! Two ends of the mirror's link with a wire that loses, repeats and mixes up frames as it likes: what is taken of a lane is
//! what was sent, in order. And one end whose peer says anything: its windows stay what they are.
#![no_main]

use core::time::Duration;
use libfuzzer_sys::fuzz_target;
use mirror::{Instant, Kind, Lane, Link, LinkConfig};

const CONFIG: LinkConfig = LinkConfig {
    mtu: 256,
    window: 16,
    answer_delay: Duration::from_micros(200),
    retransmit_floor: Duration::from_millis(1),
    retransmit_ceiling: Duration::from_millis(50),
};

struct End {
    link: Link,
    sent: [u8; 4],
    taken: [u8; 4],
}

impl End {
    fn new() -> Self {
        Self {
            link: Link::new(&CONFIG),
            sent: [0; 4],
            taken: [0; 4],
        }
    }

    fn send(&mut self, lane: Lane) {
        let number = &mut self.sent[lane as usize];
        let room = self.link.room(lane);
        let sent = self.link.send(lane, |place| {
            place[..3].fill(*number);
            3
        });
        assert_eq!(sent.is_ok(), room > 0);
        *number = number.wrapping_add(sent.is_ok().into());
    }

    fn poll(&mut self, now: Instant) -> Option<(Kind, Vec<u8>)> {
        let mut body = [0; 200];
        let (kind, length) = self.link.poll_transmit(now, &mut body)?;
        Some((kind, body[..length].to_vec()))
    }
}

/// Takes what is next of its lane, unless the lane is refused.
fn take(taken: &mut [u8; 4], refused: u8, lane: Lane, segment: &[u8]) -> bool {
    let number = &mut taken[lane as usize];
    assert_eq!(segment, [*number; 3]);
    let takes = refused & 1 << lane as u8 == 0;
    *number = number.wrapping_add(takes.into());
    takes
}

fn honest(script: &[u8]) {
    let mut ends = [End::new(), End::new()];
    let mut wire = Vec::<(usize, Kind, Vec<u8>)>::new();
    let mut now = Instant(0);
    let mut refused = 0;
    for step in script {
        let (what, which) = (step >> 5, usize::from(step & 0x1F));
        let [from, lane] = [which & 1, which >> 1 & 3];
        match what {
            0 => ends[from].send(Lane::ALL[lane]),
            1 => {
                if let Some((kind, body)) = ends[from].poll(now) {
                    wire.push((1 - from, kind, body));
                }
            }
            2 | 3 if which < wire.len() => {
                let (to, kind, body) = match what {
                    2 => wire.remove(which),
                    _ => wire[which].clone(),
                };
                let End { link, taken, .. } = &mut ends[to];
                let heard = link.receive(kind, &body, now, |lane, segment| {
                    take(taken, refused, lane, segment)
                });
                assert_eq!(heard, Ok(()));
            }
            4 if which < wire.len() => {
                wire.swap_remove(which);
            }
            5 => now = now + Duration::from_micros(1 << which.min(16)),
            6 => refused = step & 0xF,
            7 => {
                let End { link, taken, .. } = &mut ends[from];
                link.resume(now, |lane, segment| take(taken, refused, lane, segment));
            }
            _ => {}
        }
    }
}

fn hostile(script: &[u8]) {
    let mut end = End::new();
    let mut now = Instant(0);
    let mut rest = script;
    while let [step, length, more @ ..] = rest {
        let (body, more) = more.split_at(more.len().min(usize::from(*length)));
        rest = more;
        let (kind, lane) = (step & 1, usize::from(step >> 1 & 3));
        let kind = if kind == 0 { Kind::Data } else { Kind::Ack };
        let takes = step & 8 == 0;
        let _ = end.link.receive(kind, body, now, |_, _| takes);
        end.send(Lane::ALL[lane]);
        for _ in 0..2 {
            let _ = end.poll(now);
        }
        assert!(end.link.room(Lane::Control) <= CONFIG.window);
        now = now + Duration::from_micros(u64::from(step >> 4) * 1000);
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let [first, script @ ..] = bytes {
        match first & 1 {
            0 => honest(script),
            _ => hostile(script),
        }
    }
});

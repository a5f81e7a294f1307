//! Frames of any kind through buffers of any kind.

use proptest::prelude::*;

use super::*;
use crate::pc::Pc;
use crate::pc::tests::config;

/// Where the buffer of each descriptor is, and how long it can be.
const ROOM: u32 = 0x800;

fn buffer(descriptor: u16) -> u64 {
    BUFFERS + u64::from(ROOM) * u64::from(descriptor)
}

/// A driver that takes what it receives out of its ring.
struct Driver {
    bench: Bench,
    /// Descriptors and lengths of the buffers behind each chain's head.
    chains: [Vec<(u16, u32)>; SIZE as usize],
    /// Descriptors that are free.
    free: Vec<u16>,
    next_used: u16,
}

impl Driver {
    fn new(features: u64) -> Self {
        Self {
            bench: Bench::driven(CARD, features),
            chains: Default::default(),
            free: (0..SIZE).collect(),
            next_used: 0,
        }
    }

    /// Gives a chain of buffers of these lengths, if there are descriptors.
    fn give(&mut self, lengths: &[u32]) {
        if self.free.len() < lengths.len() {
            return;
        }
        let parts: Vec<_> = self
            .free
            .drain(..lengths.len())
            .zip(lengths.iter().copied())
            .collect();
        for (at, (descriptor, length)) in parts.iter().enumerate() {
            let next = parts.get(at + 1).map(|(next, _)| *next);
            let flags = WRITE | next.map_or(0, |_| NEXT);
            let part = (buffer(*descriptor), *length);
            let table = ring(RECEIVE);
            self.bench
                .describe(table, *descriptor, part, flags, next.unwrap_or(0));
        }
        let head = parts[0].0;
        self.chains[usize::from(head)] = parts;
        self.bench.offer(RECEIVE, head);
    }

    /// The bytes of the next chain in the used ring.
    fn take(&mut self) -> Vec<u8> {
        let (head, written) = self.bench.used_element(RECEIVE, self.next_used);
        self.next_used = self.next_used.wrapping_add(1);
        let parts = core::mem::take(&mut self.chains[head as usize]);
        let mut bytes = Vec::new();
        for (descriptor, length) in &parts {
            let left = (written as usize - bytes.len()).min(*length as usize);
            bytes.extend(self.bench.load(buffer(*descriptor), left));
        }
        assert_eq!(bytes.len(), written as usize);
        self.free
            .extend(parts.iter().map(|(descriptor, _)| descriptor));
        bytes
    }

    /// The frames that are there.
    fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while self.bench.used(RECEIVE) != self.next_used {
            let mut bytes = self.take();
            let chains = u16::from_le_bytes([bytes[10], bytes[11]]);
            for _ in 1..chains {
                bytes.extend(self.take());
            }
            frames.push(bytes.split_off(HEADER as usize));
        }
        frames
    }
}

proptest! {
    /// Frames arrive whole and in their order; one that is refused leaves no trace.
    #[test]
    fn what_is_delivered_is_received(
        mergeable: bool,
        event_index: bool,
        steps in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(0..ROOM, 0..4).prop_map(|mut lengths| {
                    lengths.insert(0, HEADER);
                    (lengths, 0)
                }),
                (14usize..3000).prop_map(|length| (Vec::new(), length)),
            ],
            1..100,
        ),
        restored: bool,
    ) {
        let mut features = 0;
        if mergeable { features |= MRG_RXBUF; }
        if event_index { features |= EVENT_IDX; }
        let mut driver = Driver::new(features);
        let mut rest = 0_u32;
        for (number, (lengths, length)) in steps.iter().enumerate() {
            if !lengths.is_empty() {
                driver.give(lengths);
                continue;
            }
            let mut frame = frame(*length);
            frame[13] = number as u8;
            let room: u32 = driver.chains.iter().flatten().map(|(_, length)| length).sum();
            match driver.bench.receive(&frame) {
                Ok(delivery) => {
                    prop_assert_eq!(delivery.queue, 0);
                    prop_assert_eq!(driver.frames(), [frame]);
                }
                Err(Refusal::NoBuffers) if mergeable => {
                    prop_assert!(room < *length as u32 + HEADER);
                }
                Err(Refusal::NoBuffers) => prop_assert_eq!(room, 0),
                Err(Refusal::TooLong) => {
                    prop_assert!(!mergeable);
                    // The first chain is the oldest; make way for another.
                    let shorter = frame[..14].to_vec();
                    if driver.bench.receive(&shorter).is_ok() {
                        prop_assert_eq!(driver.frames(), [shorter]);
                    }
                }
                Err(refusal) => prop_assert!(false, "{}", refusal),
            }
            rest += 1;
            if restored && rest.is_multiple_of(3) {
                driver.bench.rest();
                driver.bench.pc = Pc::restore(config(), driver.bench.pc.save()).expect("its own");
                driver.bench.resume();
            }
        }
        prop_assert!(driver.bench.world.stops.is_empty());
    }

    /// A frame is sent as it is, however it is cut into buffers.
    #[test]
    fn what_is_given_is_sent(
        indirect: bool,
        frames in proptest::collection::vec(
            (14usize..1518, proptest::collection::vec(any::<prop::sample::Index>(), 0..12)),
            1..20,
        ),
    ) {
        let mut bench = Bench::driven(CARD, if indirect { INDIRECT_DESC } else { 0 });
        for (length, cuts) in &frames {
            let mut bytes = vec![0; HEADER as usize];
            let frame = frame(*length);
            bytes.extend(&frame);
            bench.store(BUFFERS, &bytes);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<_> = cuts
                .windows(2)
                .map(|cut| (BUFFERS + cut[0] as u64, (cut[1] - cut[0]) as u32, 0))
                .collect();
            if indirect {
                let table = 0x8000;
                for (at, (address, length, _)) in (0..).zip(&parts) {
                    let flags = if usize::from(at) + 1 < parts.len() { NEXT } else { 0 };
                    bench.describe(table, at, (*address, *length), flags, at + 1);
                }
                let table = (table, 16 * parts.len() as u32);
                bench.describe(ring(TRANSMIT), 0, table, INDIRECT, 0);
            } else {
                bench.chain(TRANSMIT, 0, &parts);
            }
            bench.offer(TRANSMIT, 0);
            bench.ring(TRANSMIT);
            bench.finish();
            let sent = bench.world.sent.pop().expect("sent");
            prop_assert_eq!(sent.head, (*length).min(192));
            prop_assert_eq!(sent.bytes, frame);
        }
        prop_assert_eq!(bench.used(TRANSMIT), frames.len() as u16);
        prop_assert!(bench.world.sent.is_empty());
    }
}

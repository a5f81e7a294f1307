//! Rings of any kind: no device panics, works without end, exceeds its budget, or touches memory that no ring names.

use proptest::prelude::*;

use net::Offload;

use super::driver::*;
use super::net::{SETS, frame};
use super::world::MEMORY;
use crate::pc::Pc;
use crate::pc::tests::config;
use crate::pc::{PcStateV1, Width};
use crate::virtio::Budget;

/// What memory no ring names holds.
const CANARY: u8 = 0xC5;
/// Where buffers and tables are, and behind it nothing may change.
const BUFFERS: u64 = 0x8000;
const BUFFERS_LENGTH: u64 = 0x4000;

/// Work at which a step ends, and the most that the last request may add: descriptors are read at 64 units each.
const STEP_MAX: u64 = Budget::FULL as u64 + 129 * 64 + 4096;
/// What the longest frame, and the descriptors of the longest chain, add to that.
const FRAME_MAX: u64 = 65_593 + 257 * 16;

/// Queues of the device that has most.
const QUEUES: u16 = 5;

#[derive(Clone, Debug)]
enum Step {
    Describe(u16, u16, u64, u32, u16, u16),
    /// The same in the buffers, as a table.
    Table(u64, u64, u32, u16, u16),
    Header(u64, u32, u64),
    Offer(u16, u16),
    Available(u16, u64, u16),
    Ring(u16),
    Port(u16, u32),
    Input(usize),
    /// Whether there is entropy, and room for frames.
    Ready(bool),
    Deliver(usize, u32),
    Wait,
    Restart,
    Restore,
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => BUFFERS..BUFFERS + BUFFERS_LENGTH,
        10 => (0..BUFFERS_LENGTH / 16).prop_map(|at| BUFFERS + 16 * at),
        2 => (MEMORY as u64 - 16)..(MEMORY as u64 + 16),
        1 => any::<u64>(),
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        5 => Just(16u32),
        2 => Just(0u32),
        5 => Just(1u32),
        5 => (0u32..17).prop_map(|count| 512 * count),
        5 => (0u32..17).prop_map(|count| 16 * count),
        5 => 0u32..0x4000,
        1 => any::<u32>(),
    ]
}

fn flags() -> impl Strategy<Value = u16> {
    prop_oneof![
        8 => Just(NEXT),
        8 => Just(WRITE),
        8 => Just(WRITE | NEXT),
        4 => Just(INDIRECT),
        1 => 0u16..8,
        1 => any::<u16>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let next = prop_oneof![20 => 0..SIZE, 1 => any::<u16>()];
    let head = prop_oneof![20 => 0..SIZE, 1 => any::<u16>()];
    let kind = prop_oneof![Just(0u32), Just(1), Just(4), Just(8), any::<u32>()];
    let describe = (
        0..QUEUES,
        0..SIZE,
        address(),
        length(),
        flags(),
        next.clone(),
    );
    prop_oneof![
        20 => describe.prop_map(|(q, at, a, l, f, n)| Step::Describe(q, at, a, l, f, n)),
        10 => (address(), address(), length(), flags(), next)
            .prop_map(|(at, a, l, f, n)| Step::Table(at, a, l, f, n)),
        10 => (address(), kind, 0u64..70).prop_map(|(at, kind, sector)| Step::Header(at, kind, sector)),
        20 => (0..QUEUES, head).prop_map(|(queue, head)| Step::Offer(queue, head)),
        1 => (0..QUEUES, 0u64..40, any::<u16>()).prop_map(|(q, at, v)| Step::Available(q, at, v)),
        20 => (0..=QUEUES).prop_map(Step::Ring),
        3 => (0u16..0x100, any::<u32>()).prop_map(|(port, value)| Step::Port(port, value)),
        2 => (0usize..80).prop_map(Step::Input),
        1 => any::<bool>().prop_map(Step::Ready),
        20 => (14usize..9000, any::<u32>()).prop_map(|(length, hash)| Step::Deliver(length, hash)),
        5 => Just(Step::Wait),
        2 => Just(Step::Restart),
        2 => Just(Step::Restore),
    ]
}

/// A driver that means no good, of one device.
struct Villain {
    bench: Bench,
    features: u64,
    queues: u16,
    /// For each byte of memory, whether a device may have written it.
    may_write: Vec<bool>,
}

impl Villain {
    fn new(device: u8, features: u64) -> Self {
        let mut bench = Bench::new(device);
        bench.world.memory.fill(CANARY);
        let queues = bench.queues();
        let rings = 0x1000 * u32::from(queues);
        bench.store(RINGS, &vec![0; rings as usize]);
        bench.start(features);
        bench.world.moved = 0;
        let mut villain = Self {
            bench,
            features,
            queues,
            may_write: vec![false; MEMORY],
        };
        villain.allow(RINGS, rings);
        villain
    }

    fn allow(&mut self, address: u64, length: u32) {
        let start = (address as usize).min(MEMORY);
        let end = start.saturating_add(length as usize).min(MEMORY);
        self.may_write[start..end].fill(true);
    }

    fn describe(&mut self, table: u64, index: u16, part: (u64, u32), flags: u16, next: u16) {
        if table + 16 * u64::from(index) + 16 <= MEMORY as u64 {
            // Bytes may be read as a descriptor in more than one way, so a table is written in its own right.
            self.allow(table + 16 * u64::from(index), 16);
            if flags & WRITE != 0 {
                self.allow(part.0, part.1);
            }
            self.bench.describe(table, index, part, flags, next);
        }
    }

    fn perform(&mut self, step: &Step) {
        match *step {
            Step::Describe(queue, at, address, length, flags, next) => {
                let table = ring(queue % self.queues);
                self.describe(table, at, (address, length), flags, next);
            }
            // Aligned, so that no other descriptor than these can be read.
            Step::Table(at, address, length, flags, next) => {
                self.describe(at & !15, 0, (address, length), flags, next);
            }
            Step::Header(at, kind, sector) if at < MEMORY as u64 - 16 => {
                self.allow(at, 16);
                let bytes = (u128::from(sector) << 64 | u128::from(kind)).to_le_bytes();
                self.bench.store(at, &bytes);
            }
            Step::Header(..) => {}
            Step::Offer(queue, head) => self.bench.offer(queue % self.queues, head),
            Step::Available(queue, at, value) => {
                let queue = queue % self.queues;
                self.bench.set_available(queue, at & !1, value);
            }
            Step::Ring(queue) => self.bench.ring(queue),
            // The rings stay where they are: who moves them may write anywhere.
            Step::Port(port, _) if (0x20..0x38).contains(&port) => {}
            Step::Port(port, value) => self.bench.out(port & !3, Width::Dword, value),
            Step::Input(count) => {
                let Bench { pc, world, now, .. } = &mut self.bench;
                pc.console_input(&vec![b'x'; count], *now, world);
            }
            Step::Ready(ready) => {
                self.bench.world.random = ready;
                self.bench.world.busy = !ready;
            }
            Step::Deliver(length, hash) => {
                let frame = frame(length);
                let result = self.bench.deliver(&frame, &Offload::default(), hash);
                self.bench.tell(result);
            }
            Step::Wait => {
                if let Some(at) = self.bench.pc.next_deadline() {
                    self.bench.now = at;
                    self.bench.pc.expire(at, &mut self.bench.world);
                }
            }
            Step::Restart => self.bench.start(self.features),
            Step::Restore => {
                self.bench.rest();
                let state = self.bench.pc.save();
                let bytes = postcard::to_allocvec(&state).expect("serializable");
                let state: PcStateV1 = postcard::from_bytes(&bytes).expect("its own bytes");
                self.bench.pc = Pc::restore(config(), state).expect("its own state");
                self.bench.resume();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_in_the_rings(
        device in DISK..=CARD,
        set in 0..SETS.len(),
        indirect: bool,
        event_index: bool,
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let card = device == CARD;
        let most = STEP_MAX + if card { FRAME_MAX } else { 0 };
        let mut features = if card { SETS[set] } else { 0 };
        if indirect { features |= INDIRECT_DESC; }
        if event_index { features |= EVENT_IDX; }
        let mut villain = Villain::new(device, features);
        for step in &steps {
            let before = villain.bench.world.moved;
            villain.perform(step);
            let moved = villain.bench.world.moved - before;
            prop_assert!(moved <= most, "{moved} bytes at {step:?}");
            let _ = villain.bench.vectors();
        }
        villain.bench.world.random = true;
        villain.bench.world.busy = false;
        villain.bench.finish();
        for (at, byte) in villain.bench.world.memory.iter().enumerate() {
            prop_assert!(
                *byte == CANARY || villain.may_write[at],
                "{at:#x} was written by the device"
            );
        }
        // Whatever happened, the driver can start over.
        let Villain { mut bench, features, queues, .. } = villain;
        bench.store(RINGS, &vec![0; 0x1000 * usize::from(queues)]);
        bench.configure(0x04, 7);
        bench.start(features);
        let stops = bench.world.stops.len();
        match device {
            CONSOLE => {
                bench.chain(1, 0, &[(BUFFERS, 3, 0)]);
                bench.offer(1, 0);
                bench.ring(1);
                prop_assert_eq!(bench.used(1), 1);
            }
            CARD => {
                bench.give(0, 0, &[(BUFFERS, 100)]);
                prop_assert!(bench.receive(&frame(60)).is_ok());
                let sent = bench.world.sent.len();
                bench.send(&[0; 12], &frame(60));
                prop_assert_eq!(bench.world.sent.len(), sent + 1);
            }
            ENTROPY => {
                bench.chain(0, 0, &[(BUFFERS, 3, WRITE)]);
                bench.offer(0, 0);
                bench.ring(0);
                prop_assert_eq!(bench.used(0), 1);
            }
            _ => prop_assert_eq!(bench.perform(4, 0, &[]), 0),
        }
        prop_assert_eq!(bench.world.stops.len(), stops);
    }
}

//! Whatever a guest does to a card, and whatever arrives.

use proptest::prelude::*;

use super::*;
use crate::pc::{Pc, Width};
use crate::time::Ticks;

#[derive(Clone, Debug)]
enum Step {
    Read(u16, Width),
    Write(u16, Width, u32),
    ReadString(Width, usize),
    WriteString(Width, Vec<u8>),
    Arrive([u8; 6], usize),
    Busy(bool),
    Expire,
    Save,
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::Byte), Just(Width::Word), Just(Width::Dword)]
}

fn step() -> impl Strategy<Value = Step> {
    let destination = prop_oneof![Just(ISA_MAC), Just(BROADCAST), any::<[u8; 6]>()];
    let command = prop_oneof![Just(START), Just(STOP), Just(SEND), any::<u8>()];
    prop_oneof![
        3 => (0..32u16, width()).prop_map(|(at, width)| Step::Read(at, width)),
        6 => (0..32u16, width(), any::<u32>()).prop_map(|(at, width, value)| Step::Write(at, width, value)),
        3 => command.prop_map(|value| Step::Write(0, Width::Byte, value.into())),
        2 => (width(), 0..2000usize).prop_map(|(width, count)| Step::ReadString(width, count)),
        2 => (width(), prop::collection::vec(any::<u8>(), 0..600)).prop_map(|(width, bytes)| Step::WriteString(width, bytes)),
        4 => (destination, 6..1600usize).prop_map(|(to, length)| Step::Arrive(to, length)),
        1 => any::<bool>().prop_map(Step::Busy),
        1 => Just(Step::Expire),
        1 => Just(Step::Save),
    ]
}

/// Does a step; what the guest saw of it. String accesses are done at once, or one element at a time.
fn take(bench: &mut Bench, step: &Step, at_once: bool) -> Vec<u32> {
    match step {
        Step::Read(offset, width) => vec![bench.read(*offset, *width)],
        Step::Write(offset, width, value) => {
            bench.write(*offset, *width, *value);
            vec![]
        }
        Step::ReadString(width, count) => {
            let size = usize::from(width.bytes());
            let mut bytes = vec![0; count - count % size];
            let done = if at_once {
                bench.read_string(*width, &mut bytes)
            } else {
                0
            };
            for element in bytes[done..].chunks_mut(size) {
                let value = bench.read(DATA, *width).to_le_bytes();
                element.copy_from_slice(&value[..size]);
            }
            bytes.into_iter().map(u32::from).collect()
        }
        Step::WriteString(width, bytes) => {
            let size = usize::from(width.bytes());
            let bytes = &bytes[..bytes.len() - bytes.len() % size];
            let done = if at_once {
                bench.write_string(*width, bytes)
            } else {
                0
            };
            for element in bytes[done..].chunks(size) {
                let mut value = [0; 4];
                value[..size].copy_from_slice(element);
                bench.write(DATA, *width, u32::from_le_bytes(value));
            }
            vec![]
        }
        Step::Arrive(destination, length) => {
            vec![u32::from(bench.arrive(&frame(*destination, *length)))]
        }
        Step::Busy(busy) => {
            bench.world.busy = *busy;
            vec![]
        }
        Step::Expire => {
            bench.now = Ticks(bench.now.0 + 20_000);
            bench.pc.expire(bench.now, &mut bench.world);
            vec![]
        }
        Step::Save => {
            bench.renew();
            vec![]
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A string instruction at once is the same as one element after the other, after anything.
    #[test]
    fn accesses_at_once_are_accesses_one_by_one(
        nic in prop_oneof![Just(ISA), Just(PCI)],
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let (mut one, mut other) = (Bench::driven(nic), Bench::driven(nic));
        for step in &steps {
            prop_assert_eq!(take(&mut one, step, true), take(&mut other, step, false));
            prop_assert!(one.world == other.world);
        }
        prop_assert!(one.pc.save() == other.pc.save());
        // Whatever it was, a driver that starts over can work.
        one.world.busy = false;
        one.start();
        let sent = frame(BROADCAST, 200);
        prop_assert!(one.arrive(&sent));
        prop_assert_eq!(one.take(), Some((0x21, stored(&sent))));
        one.send(&sent);
        prop_assert_eq!(&one.world.sent.last().expect("sent").bytes, &sent);
    }

    /// What is received is read in its order and whole, and what was lost is counted.
    #[test]
    fn the_ring_is_a_queue(
        nic in prop_oneof![Just(ISA), Just(PCI)],
        steps in prop::collection::vec((any::<bool>(), 14..=1518usize), 1..120),
    ) {
        let mut bench = Bench::driven(nic);
        let mut expected = std::collections::VecDeque::new();
        let mut lost = 0;
        for (arrives, length) in steps {
            if arrives {
                let frame = frame(BROADCAST, length);
                let room = bench.room();
                let taken = bench.arrive(&frame);
                prop_assert!(taken || !room, "room for the longest is room for any");
                if taken {
                    expected.push_back(frame);
                } else {
                    lost += 1;
                    prop_assert!(bench.inb(ISR) & OVERWRITE != 0);
                }
            } else {
                let taken = bench.take();
                let first = expected.pop_front().map(|frame| (0x21, stored(&frame)));
                prop_assert_eq!(taken, first);
            }
        }
        for frame in expected {
            prop_assert_eq!(bench.take(), Some((0x21, stored(&frame))));
        }
        prop_assert_eq!(bench.take(), None);
        prop_assert!(bench.room());
        prop_assert_eq!(bench.inb(MISSED), lost);
    }

    /// A board in any state that can be restored is one that works.
    #[test]
    fn a_restored_card_is_the_saved_one(steps in prop::collection::vec(step(), 0..60)) {
        let mut bench = Bench::driven(PCI);
        for step in &steps {
            take(&mut bench, step, true);
        }
        let state = bench.pc.save();
        let again = Pc::restore(board(), state.clone()).expect("its own state");
        prop_assert!(again.save() == state);
        prop_assert_eq!(again.next_deadline(), bench.pc.next_deadline());
        prop_assert_eq!(again.interrupt_pending(), bench.pc.interrupt_pending());
    }
}

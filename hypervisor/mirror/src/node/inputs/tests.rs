use super::*;
use crate::inputs::Inputs;
use crate::lease::Gate;
use crate::link::LinkConfig;
use crate::node::{Inspection, Order, Report};
use crate::record::Records;
use crate::time::Path;
use crate::understudy::{Memory, Place};
use alloc::collections::VecDeque;

const GROUP: u8 = 3;
const EPOCH: Epoch = Epoch(9);

/// A board on which frames come for guests, and nothing else.
#[derive(Default)]
struct Frames {
    waiting: VecDeque<(u8, u8, Vec<u8>)>,
    ended: usize,
}

struct NoCheckpoint;

impl crate::epoch::Checkpoint for NoCheckpoint {
    fn front(&self) -> Option<Place> {
        None
    }

    fn look<R>(&self, look: impl FnOnce(&crate::page::Page, Option<&crate::page::Page>) -> R) -> R {
        look(&[0; crate::page::PAGE_SIZE], None)
    }

    fn told(&mut self) {}

    fn state(&mut self, _: &mut [u8]) -> Option<(u8, u32, usize)> {
        None
    }
}

impl Memory for Frames {
    fn clear(&mut self, _: Place) {}
    fn bring(&mut self, _: Place) {}
    fn write(&mut self, _: Place, _: usize, _: &[u8]) {}
    fn flip(&mut self, _: Place) {}
}

impl Board for Frames {
    type Checkpoint = NoCheckpoint;

    fn send(&mut self, _: Path, _: &[u8]) {}
    fn ask(&mut self, _: &[u8]) {}
    fn order(&mut self, _: u8, _: Order) {}
    fn checkpoint(&mut self, _: u8) -> Option<&mut NoCheckpoint> {
        None
    }
    fn presses(&mut self, _: u8) -> bool {
        false
    }
    fn acknowledge(&mut self, _: u8, _: Epoch) {}
    fn inspect(&mut self, _: u8, _: &[u8], _: bool) -> Inspection {
        Inspection::Good
    }
    fn gate(&mut self, _: Gate) {}
    fn start(&mut self) {}
    fn resume(&mut self, _: u8, _: &[u8], _: u64) {}
    fn start_cold(&mut self) {}
    fn go_on(&mut self) {}
    fn suspend(&mut self) {}
    fn stop(&mut self) {}
    fn releases(&mut self, _: u8) -> bool {
        false
    }
    fn input(&mut self, group: u8, frame: &mut Vec<u8>) -> Option<(u8, u8)> {
        assert_eq!(group, GROUP);
        let (guest, card, bytes) = self.waiting.pop_front()?;
        frame.extend_from_slice(&bytes);
        Some((guest, card))
    }
    fn end_inputs(&mut self, group: u8) {
        assert_eq!(group, GROUP);
        self.ended += 1;
    }
    fn deliver(&mut self, _: u8, _: u8, _: &[u8]) -> bool {
        true
    }
    fn tell(&mut self, _: Report) {}
}

fn link() -> Link {
    Link::new(&LinkConfig {
        mtu: 1500,
        window: 16,
        answer_delay: Duration::ZERO,
        retransmit_floor: Duration::from_millis(1),
        retransmit_ceiling: Duration::from_millis(1),
    })
}

/// Carries what is on one end to the other, and puts together what it is.
fn carried(from: &mut Link, to: &mut Link, inputs: &mut Inputs) {
    let (now, mut body) = (Instant(0), [0; 1500]);
    let mut nothing = |_: Lane, _: &[u8]| true;
    while let Some((kind, length)) = from.poll_transmit(now, &mut body) {
        let take = |lane, segment: &[u8]| {
            assert_eq!(lane, Lane::Inputs);
            for record in Records::new(segment) {
                let Ok(Record::Input(piece)) = record else {
                    panic!("{record:?}");
                };
                inputs.receive(&piece).unwrap();
            }
            true
        };
        to.receive(kind, &body[..length], now, take).unwrap();
        while let Some((kind, length)) = to.poll_transmit(now, &mut body) {
            from.receive(kind, &body[..length], now, &mut nothing)
                .unwrap();
        }
    }
}

/// What is there behind [`EPOCH`].
fn delivered(inputs: &mut Inputs) -> Vec<(u8, u8, Vec<u8>)> {
    let mut all = Vec::new();
    inputs.take_over(Some(EPOCH));
    let more = inputs.deliver(Instant(0), Duration::ZERO, |guest, card, bytes| {
        all.push((guest, card, bytes.to_vec()));
        true
    });
    assert!(!more);
    all
}

fn frame(number: usize, length: usize) -> (u8, u8, Vec<u8>) {
    let bytes = (0..length).map(|at| (at ^ number) as u8).collect();
    (number as u8, number as u8 % 3, bytes)
}

#[test]
fn frames_of_any_length_arrive_whole_and_in_order() {
    let frames: Vec<_> = [60, 14, 1514, 1394, 1395, 9018, 60, 200, 33_000]
        .into_iter()
        .enumerate()
        .map(|(number, length)| frame(number, length))
        .collect();
    let (mut ours, mut theirs, mut inputs) = (link(), link(), Inputs::new());
    let mut board = Frames::default();
    board.waiting.extend(frames.iter().cloned());
    // What the peer would not take is not told.
    board.waiting.push_front(frame(0, INPUT_MIN - 1));
    board.waiting.push_front(frame(0, INPUT_MAX + 1));
    let mut departing = Departing::new([1, GROUP].into_iter());
    // More than the window has room for at once.
    while departing.count < frames.len() as u64 {
        departing.tell(GROUP, EPOCH, &mut ours, &mut board);
        carried(&mut ours, &mut theirs, &mut inputs);
    }
    assert!(delivered(&mut inputs) == frames);
}

#[test]
fn frames_follow_guests_that_went_and_then_no_more() {
    let (mut ours, mut theirs, mut inputs) = (link(), link(), Inputs::new());
    let mut board = Frames::default();
    let mut departing = Departing::new([GROUP].into_iter());
    let went = Instant(5_000_000);
    board.waiting.push_back(frame(1, 60));
    departing.turn(&mut ours, went, &mut board);
    assert_eq!((board.waiting.len(), departing.next_deadline()), (1, None));
    departing.leave(GROUP, EPOCH, went);
    assert_eq!(departing.next_deadline(), Some(went + FOLLOWS));
    departing.turn(&mut ours, went, &mut board);
    board.waiting.push_back(frame(2, 60));
    let last = Instant((went + FOLLOWS).0 - 1);
    departing.turn(&mut ours, last, &mut board);
    assert_eq!(board.ended, 0);
    board.waiting.push_back(frame(3, 60));
    for _ in 0..2 {
        departing.turn(&mut ours, went + FOLLOWS, &mut board);
        assert_eq!(board.ended, 1);
    }
    carried(&mut ours, &mut theirs, &mut inputs);
    assert_eq!(delivered(&mut inputs), [frame(1, 60), frame(2, 60)]);
    // A board that gets the guests back ends it, too.
    departing.leave(GROUP, EPOCH, went);
    departing.end(&mut board);
    departing.end(&mut board);
    assert_eq!((board.ended, departing.next_deadline()), (2, None));
}

#[test]
fn a_frame_that_is_told_in_part_is_told_anew_in_a_new_session() {
    let (mut ours, mut board) = (link(), Frames::default());
    let mut departing = Departing::new([GROUP].into_iter());
    let long = frame(5, 60_000);
    board.waiting.push_back(long.clone());
    departing.tell(GROUP, EPOCH, &mut ours, &mut board);
    assert!(board.waiting.is_empty() && departing.count == 0);
    ours.reset();
    departing.session();
    let (mut theirs, mut inputs) = (link(), Inputs::new());
    while departing.count == 0 {
        departing.tell(GROUP, EPOCH, &mut ours, &mut board);
        carried(&mut ours, &mut theirs, &mut inputs);
    }
    assert!(delivered(&mut inputs) == [long]);
}

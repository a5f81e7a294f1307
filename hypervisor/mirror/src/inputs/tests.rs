use super::*;
use alloc::vec;
use proptest::prelude::*;

const PATIENCE: Duration = Duration::from_millis(100);
const EPOCH: Epoch = Epoch(7);

const fn piece(epoch: Epoch, offset: usize, last: bool, bytes: &[u8]) -> InputPiece<'_> {
    InputPiece {
        guest: 1,
        card: 2,
        epoch,
        offset: offset as u32,
        last,
        bytes,
    }
}

/// A whole frame of one value.
fn put(inputs: &mut Inputs, epoch: u64, value: u8) {
    let bytes = [value; 60];
    assert_eq!(
        inputs.receive(&piece(Epoch(epoch), 0, true, &bytes)),
        Ok(())
    );
}

/// What is delivered, by the frames' first bytes.
fn delivered(inputs: &mut Inputs) -> Vec<u8> {
    let mut all = Vec::new();
    let more = inputs.deliver(Instant(0), PATIENCE, |guest, card, bytes| {
        assert_eq!((guest, card), (1, 2));
        all.push(bytes[0]);
        true
    });
    assert!(!more);
    all
}

#[test]
fn guests_get_what_came_behind_the_epoch_that_they_go_on_from() {
    let mut inputs = Inputs::new();
    for (epoch, value) in [(6, 1), (7, 2), (7, 3), (8, 4)] {
        put(&mut inputs, epoch, value);
    }
    assert_eq!(delivered(&mut inputs), []);
    inputs.take_over(Some(EPOCH));
    assert_eq!(delivered(&mut inputs), [2, 3]);
    // What the other board still gets for them follows, and nothing else.
    put(&mut inputs, 7, 5);
    put(&mut inputs, 8, 6);
    assert_eq!(delivered(&mut inputs), [5]);
    assert_eq!(inputs.counters().delivered, 3);
}

#[test]
fn an_epoch_holds_what_came_before_its_end() {
    let mut inputs = Inputs::new();
    put(&mut inputs, 7, 1);
    put(&mut inputs, 8, 2);
    inputs.committed(Epoch(8));
    inputs.take_over(Some(Epoch(8)));
    assert_eq!(delivered(&mut inputs), [2]);
}

#[test]
fn without_an_image_there_is_nobody_to_take_them() {
    let mut inputs = Inputs::new();
    put(&mut inputs, 7, 1);
    inputs.take_over(None);
    inputs.take_over(Some(EPOCH));
    assert_eq!(delivered(&mut inputs), []);
}

#[test]
fn frames_that_nobody_takes_are_not_kept_for_ever() {
    let mut inputs = Inputs::new();
    inputs.take_over(Some(EPOCH));
    put(&mut inputs, 7, 1);
    put(&mut inputs, 7, 2);
    let at = |milliseconds: u64| Instant(milliseconds * 1_000_000);
    assert!(inputs.deliver(at(5), PATIENCE, |_, _, _| false));
    let mut taken = 0;
    let one = |_: u8, _: u8, _: &[u8]| {
        taken += 1;
        taken == 1
    };
    // Once one is taken, the next has all the time again.
    assert!(inputs.deliver(at(104), PATIENCE, one));
    assert!(inputs.deliver(at(203), PATIENCE, |_, _, _| false));
    assert!(!inputs.deliver(at(204), PATIENCE, |_, _, _| false));
    let counters = InputCounters {
        told: 0,
        delivered: 1,
        dropped: 1,
    };
    assert_eq!(*inputs.counters(), counters);
    put(&mut inputs, 7, 3);
    assert_eq!(delivered(&mut inputs), [3]);
}

#[test]
fn there_is_room_for_so_much_and_not_more() {
    let mut inputs = Inputs::new();
    let long = vec![9; INPUT_MAX];
    for _ in 0..10 {
        assert_eq!(inputs.receive(&piece(EPOCH, 0, true, &long)), Ok(()));
    }
    assert_eq!(inputs.counters().dropped, 7);
    inputs.take_over(Some(EPOCH));
    assert_eq!(delivered(&mut inputs).len(), 3);
    assert_eq!(inputs.receive(&piece(EPOCH, 0, true, &long)), Ok(()));
    assert_eq!(delivered(&mut inputs).len(), 1);
}

#[test]
fn pieces_that_do_not_follow_each_other_are_named() {
    let bytes = [3; 1000];
    let found = |offset, length| {
        Err(Violation::Input {
            guest: 1,
            offset,
            length,
        })
    };
    let mut inputs = Inputs::new();
    let stray = piece(EPOCH, 1000, true, &bytes);
    assert_eq!(inputs.receive(&stray), found(1000, 0));
    let first = piece(EPOCH, 0, false, &bytes);
    assert_eq!(inputs.receive(&first), Ok(()));
    assert_eq!(
        inputs.receive(&piece(EPOCH, 999, true, &bytes)),
        found(999, 1000)
    );
    assert_eq!(inputs.receive(&first), Ok(()));
    let other = InputPiece { card: 0, ..stray };
    assert_eq!(inputs.receive(&other), found(1000, 1000));
    // A new session: the rest of the frame will not come.
    assert_eq!(inputs.receive(&first), Ok(()));
    inputs.interrupt();
    assert_eq!(inputs.receive(&stray), found(1000, 0));
    // A frame may begin anew, and end when nothing counts any more.
    assert_eq!(inputs.receive(&first), Ok(()));
    assert_eq!(inputs.receive(&first), Ok(()));
    inputs.forget();
    assert_eq!(inputs.receive(&stray), Ok(()));
    let short = piece(EPOCH, 0, true, &bytes[..INPUT_MIN - 1]);
    assert_eq!(inputs.receive(&short), found(0, 0));
    let long = vec![0; INPUT_MAX];
    assert_eq!(inputs.receive(&piece(EPOCH, 0, false, &long)), Ok(()));
    let length = INPUT_MAX as u32;
    let more = piece(EPOCH, INPUT_MAX, true, &bytes[..1]);
    assert_eq!(inputs.receive(&more), found(length, INPUT_MAX));
    inputs.take_over(Some(EPOCH));
    assert_eq!(delivered(&mut inputs), [3]);
}

proptest! {
    #[test]
    fn any_pieces_take_no_more_than_the_room(
        pieces in prop::collection::vec((0u8..2, 0u64..3, 0u32..3, any::<bool>(), 0usize..40_000), 0..60),
        served in prop::option::of(0u64..3),
    ) {
        let bytes = vec![0; 40_000];
        let mut inputs = Inputs::new();
        inputs.take_over(served.map(Epoch));
        for (card, epoch, part, last, length) in pieces {
            let open = inputs.open.as_ref().map_or(0, |open| open.bytes.len());
            let offset = if part == 0 { 0 } else { open as u32 + part - 1 };
            let _ = inputs.receive(&InputPiece {
                guest: 0,
                card,
                epoch: Epoch(epoch),
                offset,
                last,
                bytes: &bytes[..length],
            });
            let all: usize = inputs.whole.iter().map(Input::room).sum();
            prop_assert_eq!(all, inputs.taken);
            prop_assert!(all <= ROOM);
            prop_assert!(inputs.open.as_ref().is_none_or(|open| open.bytes.len() <= INPUT_MAX));
            prop_assert!(inputs.whole.iter().all(|input| input.bytes.len() >= INPUT_MIN));
        }
    }
}

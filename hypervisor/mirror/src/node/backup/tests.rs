use super::*;
use crate::inputs::InputPiece;
use crate::understudy::{Extent, Place};
use alloc::vec;

/// Guests without memory need none.
struct Nothing;

impl Memory for Nothing {
    fn clear(&mut self, place: Place) {
        panic!("there is no {place}");
    }

    fn bring(&mut self, place: Place) {
        panic!("there is no {place}");
    }

    fn write(&mut self, place: Place, _: usize, _: &[u8]) {
        panic!("there is no {place}");
    }

    fn flip(&mut self, place: Place) {
        panic!("there is no {place}");
    }
}

/// Two groups of one guest each, whose numbers are the groups'.
fn following() -> Following {
    Following::new(&[1, 2].map(|number| GroupConfig {
        number,
        extents: vec![Extent {
            guest: number,
            areas: vec![],
        }],
        epoch: Duration::ZERO,
        urgent: false,
    }))
}

/// What comes of a record.
fn hear(following: &mut Following, record: Record<'_>) -> Vec<Event> {
    let mut events = Events::default();
    if matches!(record, Record::Begin { group: ALL, .. }) {
        let mut segment = [0; 20];
        let length = record.write(&mut segment).unwrap();
        following.control(&segment[..length], &mut events);
    } else {
        while following.flip(&mut Nothing) {}
        assert!(!following.inspect(|_, _, _| Inspection::Good, &mut events));
        let (now, memory) = (Instant::default(), &mut Nothing);
        let taken = following.record(0, &record, &mut None, now, memory, &mut events);
        assert_eq!(taken, Ok(true));
    }
    events.0
}

const fn begin(bond: u32, group: u8) -> Record<'static> {
    let bond = Bond(bond);
    Record::Begin { bond, group }
}

const fn commit(group: u8, epoch: u64) -> Record<'static> {
    Record::Commit {
        group,
        epoch: Epoch(epoch),
        pages: 0,
        time: 0,
        states: 0,
    }
}

/// Tells both groups' understudies by a bond, up to the last commit.
fn nearly_all(following: &mut Following, bond: u32) {
    let begun = hear(following, begin(bond, ALL));
    assert_eq!(begun, [Event::ResyncBegun(Bond(bond))]);
    for record in [begin(bond, 1), begin(bond, 2), commit(1, 7)] {
        assert_eq!(hear(following, record), []);
    }
}

#[test]
fn an_epoch_of_the_bond_before_completes_nothing() {
    let mut following = following();
    nearly_all(&mut following, 1);
    assert_eq!(
        hear(&mut following, commit(2, 7)),
        [Event::Complete(Bond(1))]
    );
    // The next bond's announcement overtakes what is on the lanes of the last one's.
    let begun = hear(&mut following, begin(2, ALL));
    assert_eq!(begun, [Event::ResyncBegun(Bond(2))]);
    for record in [commit(2, 8), begin(2, 1), begin(2, 2), commit(1, 9)] {
        assert_eq!(hear(&mut following, record), []);
    }
    assert_eq!(
        hear(&mut following, commit(2, 9)),
        [Event::Complete(Bond(2))]
    );
}

#[test]
fn a_new_session_counts_bonds_anew() {
    let mut following = following();
    for _ in 0..2 {
        nearly_all(&mut following, 1);
        assert_eq!(
            hear(&mut following, commit(2, 7)),
            [Event::Complete(Bond(1))]
        );
        following.session();
    }
}

#[test]
fn an_image_stays_as_it_is_while_it_is_looked_at() {
    let mut following = following();
    nearly_all(&mut following, 1);
    assert_eq!(
        hear(&mut following, commit(2, 7)),
        [Event::Complete(Bond(1))]
    );
    let mut events = Events::default();
    let busy = |guest, _: &[u8], _| match guest {
        1 => Inspection::Good,
        _ => Inspection::Busy,
    };
    assert!(following.inspect(busy, &mut events));
    let next = commit(2, 8);
    let (now, memory) = (Instant::default(), &mut Nothing);
    let taken = following.record(0, &next, &mut None, now, memory, &mut events);
    assert_eq!(taken, Ok(false));
    assert!(!following.inspect(|_, _, _| Inspection::Bad, &mut events));
    assert_eq!(events.0, [Event::ImageLost]);
    assert_eq!(hear(&mut following, next), []);
}

#[test]
fn the_first_image_of_a_bond_is_looked_at_as_such() {
    let mut following = following();
    let look = |following: &mut Following, seen: Inspection| {
        let (mut events, mut first) = (Events::default(), Vec::new());
        while following.flip(&mut Nothing) {}
        following.inspect(
            |guest, _, unproven| {
                first.push((guest, unproven));
                seen
            },
            &mut events,
        );
        first
    };
    for bond in 1..3 {
        nearly_all(&mut following, bond);
        // The last commit is seen with the next record.
        assert_eq!(look(&mut following, Inspection::Busy), [(1, true)]);
        assert_eq!(look(&mut following, Inspection::Good), [(1, true)]);
        hear(&mut following, commit(1, 8));
        assert_eq!(look(&mut following, Inspection::Good), [(1, false)]);
    }
}

/// A segment with a frame for a guest that came behind an epoch.
fn input(guest: u8, epoch: u64) -> Vec<u8> {
    let record = Record::Input(InputPiece {
        guest,
        card: 0,
        offset: 0,
        last: true,
        epoch: Epoch(epoch),
        bytes: &[guest; 60],
    });
    let mut segment = vec![0; 100];
    let length = record.write(&mut segment).unwrap();
    segment.truncate(length);
    segment
}

/// Whose frames are delivered.
fn delivered(following: &mut Following) -> Vec<u8> {
    let mut guests = Vec::new();
    let take = |guest, _, frame: &[u8]| {
        assert_eq!(frame, [guest; 60]);
        guests.push(guest);
        true
    };
    assert!(!following.deliver(Instant(0), Duration::ZERO, take));
    guests
}

#[test]
fn frames_go_to_their_groups_and_wait_for_the_takeover() {
    let mut following = following();
    nearly_all(&mut following, 1);
    for segment in [input(2, 7), input(1, 7), input(1, 8)] {
        assert_eq!(following.inputs(&segment), Ok(()));
    }
    assert_eq!(
        hear(&mut following, commit(2, 7)),
        [Event::Complete(Bond(1))]
    );
    assert_eq!(delivered(&mut following), []);
    for group in &mut following.groups {
        let committed = group.understudy.committed();
        group.inputs.take_over(committed.map(|it| it.epoch));
    }
    assert_eq!(delivered(&mut following), [1, 2]);
    assert_eq!(following.input_counters().delivered, 2);
    // The peer has the guests again, and tells of them anew.
    assert_eq!(
        hear(&mut following, begin(2, 1)),
        [Event::ResyncBegun(Bond(2))]
    );
    assert_eq!(following.inputs(&input(1, 7)), Ok(()));
    assert_eq!(delivered(&mut following), []);
}

#[test]
fn what_is_no_frame_for_a_guest_here_is_named() {
    let mut following = following();
    assert_eq!(following.inputs(&input(3, 7)), Err(Violation::NoGroup));
    let mut segment = [0; 40];
    let length = commit(1, 7).write(&mut segment).unwrap();
    assert_eq!(following.inputs(&segment[..length]), Err(Violation::Lane));
    let short = Err(Violation::Record(crate::record::BadRecord::Short));
    assert_eq!(following.inputs(&input(1, 7)[..50]), short);
    // On a lane of pages it is nothing either.
    let (now, memory) = (Instant::default(), &mut Nothing);
    let piece = input(1, 7);
    let record = Records::new(&piece).next().unwrap().unwrap();
    let mut events = Events::default();
    let taken = following.record(0, &record, &mut None, now, memory, &mut events);
    assert_eq!(taken, Err(Violation::NoGroup));
}

use super::*;
use crate::page::PAGE_SIZE;
use crate::record::{Area, Records};
use crate::role::Bond;
use crate::understudy::{Committed, Extent, Memory, Progress, Understudy, Violation};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const PAGES: [u32; 2] = [70, 3];
const GROUP: u8 = 4;
const GUESTS: [u8; 2] = [1, 6];

type Image = BTreeMap<Place, Page>;

/// All pages of the guests, of zeroes.
fn zeroes() -> Image {
    let mut image = Image::new();
    for guest in GUESTS {
        for (area, pages) in (0..).map(Area).zip(PAGES) {
            for number in 0..pages {
                let place = Place {
                    guest,
                    area,
                    number,
                };
                image.insert(place, [0; PAGE_SIZE]);
            }
        }
    }
    image
}

fn places() -> Vec<Place> {
    zeroes().into_keys().collect()
}

/// What a primary remembers: which version of each page the backup has.
#[derive(Default)]
struct Primary {
    known: Image,
    pages: VecDeque<(Place, Page)>,
    states: VecDeque<(u8, Vec<u8>)>,
    told: usize,
}

impl Checkpoint for Primary {
    fn front(&self) -> Option<Place> {
        self.pages.front().map(|(place, _)| *place)
    }

    fn look<R>(&self, look: impl FnOnce(&Page, Option<&Page>) -> R) -> R {
        let (place, page) = self.pages.front().unwrap();
        look(page, self.known.get(place))
    }

    fn told(&mut self) {
        let (place, page) = self.pages.pop_front().unwrap();
        self.known.insert(place, page);
    }

    fn state(&mut self, out: &mut [u8]) -> Option<(u8, u32, usize)> {
        let (guest, state) = self.states.front()?;
        let (guest, from) = (*guest, self.told);
        let length = out.len().min(state.len() - from);
        out[..length].copy_from_slice(&state[from..from + length]);
        self.told += length;
        if self.told == state.len() {
            self.states.pop_front();
            self.told = 0;
        }
        Some((guest, from as u32, length))
    }
}

/// The backup's memory.
struct Stage {
    live: Image,
    staged: Image,
}

impl Stage {
    fn new() -> Self {
        Self {
            live: zeroes(),
            // What was there before must not matter.
            staged: zeroes()
                .into_keys()
                .map(|place| (place, [0xa5; PAGE_SIZE]))
                .collect(),
        }
    }
}

impl Memory for Stage {
    fn clear(&mut self, place: Place) {
        self.staged.insert(place, [0; PAGE_SIZE]);
    }

    fn bring(&mut self, place: Place) {
        self.staged.insert(place, self.live[&place]);
    }

    fn write(&mut self, place: Place, offset: usize, bytes: &[u8]) {
        let page = self.staged.get_mut(&place).unwrap();
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn flip(&mut self, place: Place) {
        self.live.insert(place, self.staged[&place]);
    }
}

const BEGIN: Record<'_> = Record::Begin {
    bond: Bond(1),
    group: GROUP,
};

fn understudy() -> Understudy {
    Understudy::new(&GUESTS.map(|guest| Extent {
        guest,
        areas: PAGES.to_vec(),
    }))
}

/// A write of the guests': which page, where, what.
type Write = (usize, usize, u64);

fn write(image: &mut Image, places: &[Place], (place, at, value): Write) -> Place {
    let place = places[place % places.len()];
    let at = at % (PAGE_SIZE / 8) * 8;
    image.get_mut(&place).unwrap()[at..at + 8].copy_from_slice(&value.to_le_bytes());
    place
}

/// Hands a segment to the backup, which flips `pages` pages at a time where it must.
fn deliver(
    segment: &[u8],
    backup: &mut Understudy,
    stage: &mut Stage,
    pages: usize,
) -> Result<Option<Epoch>, Violation> {
    let mut committed = None;
    for record in Records::new(segment) {
        let record = record?;
        loop {
            match backup.receive(&record, stage)? {
                Progress::Taken => break,
                Progress::Committed(epoch) => {
                    committed = Some(epoch);
                    break;
                }
                Progress::Busy => while backup.flip(stage, pages) {},
            }
        }
    }
    Ok(committed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Epochs with any writes come through; between any two segments a takeover finds exactly the last committed one.
    #[test]
    fn a_takeover_finds_the_last_epoch_at_any_moment(
        epochs in prop::collection::vec(prop::collection::vec((any::<usize>(), any::<usize>(), 0..3_u64), 0..40), 1..6),
        size in 60..1500_usize,
        flips in 0..9_usize,
        anew_at in prop::option::of(1..6_usize),
    ) {
        let places = places();
        let (mut guests, mut primary, mut teller) = (zeroes(), Primary::default(), Teller::new(GROUP, Bond(1)));
        let (mut backup, mut stage) = (understudy(), Stage::new());
        let mut last: Option<(Committed, Image)> = None;
        // The first epoch has every page.
        let mut dirty: Vec<Place> = places.clone();
        for (index, writes) in epochs.iter().enumerate() {
            if anew_at == Some(index) {
                // A new session: the primary does not know what arrived.
                (primary, teller) = (Primary::default(), Teller::new(GROUP, Bond(1)));
                dirty.clone_from(&places);
            }
            dirty.extend(writes.iter().map(|it| write(&mut guests, &places, *it)));
            dirty.sort_unstable();
            dirty.dedup();
            primary.pages.extend(dirty.drain(..).map(|place| (place, guests[&place])));
            let commit = Committed { epoch: Epoch(index as u64 + 1), time: index as u64 * 1000 };
            let states = GUESTS.map(|guest| (guest, vec![index as u8; 3000 + usize::from(guest)]));
            primary.states.extend(states.clone());
            teller.end_with(commit.epoch, commit.time);
            loop {
                let mut segment = vec![0; size];
                let length = teller.fill(&mut primary, &mut segment);
                prop_assert!(length != 0, "the epoch never ends");
                let done = deliver(&segment[..length], &mut backup, &mut stage, 7).unwrap();
                backup.flip(&mut stage, flips);
                if let Some(epoch) = done {
                    prop_assert_eq!(epoch, commit.epoch);
                    last = Some((commit, guests.clone()));
                }
                // A board that takes over now, of which this one's state is a copy.
                let (mut heir, mut memory) = (backup.clone(), Stage { live: stage.live.clone(), staged: stage.staged.clone() });
                heir.forget_staged();
                while heir.flip(&mut memory, 5) {}
                prop_assert_eq!(heir.committed(), last.as_ref().map(|(commit, _)| *commit));
                if let Some((commit, image)) = &last {
                    prop_assert!(memory.live == *image, "the image is not that of {:?}", commit);
                    let wanted = [commit.epoch.0 as u8 - 1];
                    for guest in GUESTS {
                        let state = heir.state(guest).unwrap();
                        prop_assert_eq!(state.len(), 3000 + usize::from(guest));
                        prop_assert!(state.iter().all(|byte| [*byte] == wanted));
                    }
                }
                if done.is_some() {
                    break;
                }
            }
        }
    }

    /// Whatever a primary says, the backup keeps the image that it has.
    #[test]
    fn nonsense_takes_nothing_away(
        segments in prop::collection::vec(prop::collection::vec((1..6_u8, any::<u8>(), 0..3_u8, 0..8_u8, 0..80_u32, 0..30_usize), 1..6), 1..20),
    ) {
        let (mut backup, mut stage) = (understudy(), Stage::new());
        let (mut primary, mut teller) = (Primary::default(), Teller::new(GROUP, Bond(1)));
        primary.pages.extend(zeroes().into_keys().map(|place| (place, [place.number as u8 | 1; PAGE_SIZE])));
        primary.states.extend(GUESTS.map(|guest| (guest, vec![1; 10])));
        teller.end_with(Epoch(1), 0);
        let mut segment = vec![0; 8900];
        loop {
            let length = teller.fill(&mut primary, &mut segment);
            if deliver(&segment[..length], &mut backup, &mut stage, 1).unwrap().is_some() {
                break;
            }
        }
        while backup.flip(&mut stage, 1) {}
        let (live, before) = (stage.live.clone(), backup.committed());
        for records in segments {
            let mut segment = Vec::new();
            for (kind, of, area, flags, number, length) in records {
                segment.extend([kind, of % 8, area, flags]);
                segment.extend(number.to_le_bytes());
                segment.extend((length as u16).to_le_bytes());
                segment.extend(vec![1; length]);
            }
            if let Ok(Some(_)) = deliver(&segment, &mut backup, &mut stage, 1) {
                // It happened to be an epoch of nothing.
                while backup.flip(&mut stage, 1) {}
            }
        }
        let committed = backup.committed().map(|it| it.epoch);
        if committed == before.map(|it| it.epoch) {
            prop_assert!(stage.live == live);
        }
    }
}

#[test]
fn violations_are_named() {
    let refuse = |record: Record<'_>| {
        let (mut backup, mut stage) = (understudy(), Stage::new());
        let begun = backup.receive(&BEGIN, &mut stage);
        assert_eq!(begun, Ok(Progress::Taken));
        let violation = backup.receive(&record, &mut stage).unwrap_err();
        // What follows has no meaning.
        assert_eq!(backup.receive(&record, &mut stage), Ok(Progress::Taken));
        violation
    };
    let page = |guest, area, number, first, runs| Record::Page {
        guest,
        area: Area(area),
        number,
        first,
        last: true,
        runs,
    };
    let base = Some(crate::Base::Zero);
    for (record, text) in [
        (
            page(2, 0, 0, base, &[]),
            "there is no page 0x0 of area 0 of guest 2 here",
        ),
        (
            page(1, 2, 0, base, &[]),
            "there is no page 0x0 of area 2 of guest 1 here",
        ),
        (
            page(1, 1, 3, base, &[]),
            "there is no page 0x3 of area 1 of guest 1 here",
        ),
        (
            page(1, 1, 2, None, &[]),
            "a piece of page 0x2 of area 1 of guest 1 came out of order",
        ),
        (
            page(1, 1, 2, base, &[1]),
            "a piece of a page is no sequence of runs",
        ),
        (
            Record::State {
                guest: 1,
                offset: 4,
                bytes: &[],
            },
            "bytes at 4 of the state of guest 1, of which 0 are there",
        ),
        (
            Record::State {
                guest: 5,
                offset: 0,
                bytes: &[],
            },
            "guest 5 is not of the group",
        ),
        (
            Record::Commit {
                group: GROUP,
                epoch: Epoch(9),
                pages: 1,
                time: 0,
                states: 2,
            },
            "an epoch of 1 pages and 2 bytes of state, of which 0 and 0 arrived",
        ),
        (
            Record::Acknowledged {
                bond: Bond(1),
                group: GROUP,
                epoch: Epoch(9),
            },
            "an acknowledgement of something that was never sent",
        ),
    ] {
        assert_eq!(alloc::format!("{}", refuse(record)), text);
    }
}

#[test]
fn an_epoch_may_not_be_left_out() {
    let (mut backup, mut stage) = (understudy(), Stage::new());
    backup.receive(&BEGIN, &mut stage).unwrap();
    let mut commit = |epoch| {
        let record = Record::Commit {
            group: GROUP,
            epoch: Epoch(epoch),
            pages: 0,
            time: 0,
            states: 0,
        };
        let result = backup.receive(&record, &mut stage);
        backup.flip(&mut stage, 1);
        result
    };
    assert_eq!(commit(7), Ok(Progress::Committed(Epoch(7))));
    assert_eq!(commit(8), Ok(Progress::Committed(Epoch(8))));
    let violation = Violation::Epoch {
        last: Epoch(8),
        found: Epoch(10),
    };
    assert_eq!(commit(10), Err(violation));
    // Not even the right one, since what was lost may belong to it.
    assert_eq!(commit(9), Ok(Progress::Taken));
}

#[test]
fn outputs_leave_with_their_epoch() {
    let mut gate = OutputGate::new();
    assert!(!gate.take());
    gate.put();
    gate.put();
    assert_eq!(gate.seal(), Epoch(1));
    gate.put();
    assert!(!gate.take());
    gate.acknowledge(Epoch(1));
    assert!(gate.take() && gate.take() && !gate.take());
    assert_eq!(gate.seal(), Epoch(2));
    assert_eq!(gate.seal(), Epoch(3));
    gate.put();
    gate.acknowledge(Epoch(3));
    assert_eq!(gate.free(), 1);
    gate.release();
    assert_eq!(gate.free(), 2);
}

#[test]
fn what_left_after_a_seal_that_was_not_told_waits_for_the_next_epoch() {
    let mut gate = OutputGate::new();
    let first = Epoch::default().next();
    gate.begin(first);
    gate.put();
    assert_eq!(gate.seal(), first);
    gate.put();
    // It is sealed once more: another guest of the group was not there.
    gate.begin(first);
    gate.put();
    assert_eq!(gate.seal(), first);
    gate.put();
    gate.acknowledge(first);
    assert_eq!(gate.free(), 1);
    gate.begin(first.next());
    assert_eq!(gate.seal(), first.next());
    gate.acknowledge(first.next());
    assert_eq!(gate.free(), 4);
}

#[test]
fn the_first_image_comes_about_before_its_commit_and_later_ones_behind_theirs() {
    let (mut backup, mut stage) = (understudy(), Stage::new());
    let place = places()[5];
    backup.receive(&BEGIN, &mut stage).unwrap();
    for (epoch, value) in [(Epoch(1), 7), (Epoch(2), 9)] {
        let mut page = [0; PAGE_SIZE];
        page[8] = value;
        let mut primary = Primary::default();
        primary.pages.push_back((place, page));
        let mut teller = Teller::new(GROUP, Bond(1));
        teller.stage = crate::epoch::Stage::Pages;
        teller.end_with(epoch, 0);
        let mut segment = [0; 1000];
        let length = teller.fill(&mut primary, &mut segment);
        let (pages, commit) = Records::new(&segment[..length])
            .map(Result::unwrap)
            .partition::<Vec<_>, _>(|record| !matches!(record, Record::Commit { .. }));
        for record in &pages {
            backup.receive(record, &mut stage).unwrap();
        }
        // The second one's page waits beside the first one's.
        assert_eq!(stage.live[&place][8], 7);
        for record in &commit {
            assert_eq!(
                backup.receive(record, &mut stage),
                Ok(Progress::Committed(epoch))
            );
        }
        while backup.flip(&mut stage, 1) {}
        assert_eq!(stage.live[&place][8], value);
    }
}

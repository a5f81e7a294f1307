//! An intruder on a wire of the pair's: it has no key, but it hears the mirror's frames, and sends what it likes.

use crate::wire::{Random, Tap, Wire};
use anyhow::{Result, ensure};
use mirror::ETHER_TYPE;
use std::thread;
use std::time::{Duration, Instant};

/// Where an Ethernet frame has its type, and where its payload begins.
const TYPE: std::ops::Range<usize> = 12..14;
const PAYLOAD: usize = TYPE.end;
/// Where the payload has its version.
const VERSION: std::ops::Range<usize> = PAYLOAD..PAYLOAD + 2;
/// The longest payload of chance.
const CHANCE_MAX: u64 = 1500;
/// From one frame to the next: a thousand a second, which emulated cards take.
const PACE: Duration = Duration::from_millis(1);
/// Forgeries are the same each time.
const SEED: u64 = 1;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trick {
    /// It notes the mirror's last frames on the wire.
    Record,
    /// It sends what it noted again ...
    Replay,
    /// ... or as if it were of this version of the frames.
    Revise(u16),
    /// It sends so many that it makes from the mirror's last frames: changed, cut short, put together, and chance.
    Forge(u32),
}

/// The one on a wire.
#[derive(Debug)]
pub(super) struct Intruder {
    tap: Tap,
    noted: Vec<Vec<u8>>,
}

/// Whether a frame is the mirror's.
fn is_mirrors(bytes: &[u8]) -> bool {
    bytes.get(TYPE) == Some(&ETHER_TYPE.to_be_bytes()[..])
}

impl Intruder {
    /// Puts one on a wire.
    pub(super) fn attach(wire: &Wire) -> Self {
        Self {
            tap: wire.tap(),
            noted: Vec::new(),
        }
    }

    /// Does what it is told, and waits until that is done.
    ///
    /// # Errors
    ///
    /// Where it has heard nothing yet that it could use.
    pub(super) fn play(&mut self, wire: &Wire, trick: Trick) -> Result<()> {
        match trick {
            Trick::Record => {
                self.noted = self.heard(wire);
                ensure!(!self.noted.is_empty(), "the mirror has sent nothing here");
            }
            Trick::Replay => self.send(self.noted()?.iter().cloned()),
            Trick::Revise(version) => {
                let noted = self.noted()?.iter().cloned();
                self.send(noted.map(|mut frame| {
                    if let Some(place) = frame.get_mut(VERSION) {
                        place.copy_from_slice(&version.to_le_bytes());
                    }
                    frame
                }));
            }
            Trick::Forge(count) => {
                let heard = self.heard(wire);
                ensure!(!heard.is_empty(), "the mirror has sent nothing here");
                let mut random = Random::new(SEED, 0);
                self.send((0..count).map(|_| forge(&heard, &mut random)));
            }
        }
        Ok(())
    }

    /// The mirror's last frames, but for its own.
    fn heard(&self, wire: &Wire) -> Vec<Vec<u8>> {
        let frames = wire.recent().into_iter();
        let others = frames.filter(|frame| frame.from != self.tap.end());
        let bytes = others.map(|frame| frame.bytes);
        bytes.filter(|bytes| is_mirrors(bytes)).collect()
    }

    fn noted(&self) -> Result<&[Vec<u8>]> {
        ensure!(!self.noted.is_empty(), "nothing is recorded");
        Ok(&self.noted)
    }

    fn send(&self, frames: impl Iterator<Item = Vec<u8>>) {
        let mut due = Instant::now();
        for frame in frames {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.tap.send(&frame);
            due += PACE;
        }
    }
}

/// A frame of the mirror's type that none of its boards has made, but for one that only its padding tells apart.
fn forge(models: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut model = || &models[random.below(models.len() as u64) as usize];
    let (model, other) = (model(), model());
    let place = |random: &mut Random, frame: &[u8]| {
        let length = frame.len().saturating_sub(PAYLOAD) as u64;
        PAYLOAD + random.below(length) as usize
    };
    let mut forged = model.clone();
    match random.below(4) {
        0 => {
            let bit = random.below(8);
            let at = place(random, &forged);
            if let Some(byte) = forged.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        1 => forged.truncate(place(random, model)),
        2 => {
            let at = place(random, model);
            forged.truncate(at);
            forged.extend_from_slice(other.get(at..).unwrap_or_default());
        }
        _ => {
            forged.truncate(PAYLOAD);
            let length = random.below(CHANCE_MAX);
            forged.extend((0..length).map(|_| random.next() as u8));
        }
    }
    forged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ether_type: u16, payload: &[u8]) -> Vec<u8> {
        [&[0xff; 6][..], &[2; 6], &ether_type.to_be_bytes(), payload].concat()
    }

    #[test]
    fn what_it_heard_of_the_mirror_comes_again_or_as_of_another_version() {
        let wire = Wire::lay().unwrap();
        let board = wire.tap();
        let mut intruder = Intruder::attach(&wire);
        assert!(intruder.play(&wire, Trick::Record).is_err());
        let own = frame(ETHER_TYPE, &[1, 0, 7, 8]);
        board.send(&frame(0x0800, &[4; 50]));
        board.send(&own);
        assert!(intruder.play(&wire, Trick::Replay).is_err());
        intruder.play(&wire, Trick::Record).unwrap();
        intruder.play(&wire, Trick::Replay).unwrap();
        assert_eq!(board.receive(Duration::ZERO), Some(own.clone()));
        intruder.play(&wire, Trick::Revise(0x0203)).unwrap();
        let revised = frame(ETHER_TYPE, &[3, 2, 7, 8]);
        assert_eq!(board.receive(Duration::ZERO), Some(revised));
        assert_eq!(intruder.heard(&wire), [own], "its own are none");
    }

    #[test]
    fn forgeries_are_of_the_mirrors_type_and_all_kinds_and_the_same_each_time() {
        let models = [
            frame(ETHER_TYPE, &[5; 80]),
            frame(ETHER_TYPE, &[6; 1400]),
            frame(ETHER_TYPE, &[]),
        ];
        let all = || -> Vec<_> {
            let mut random = Random::new(SEED, 0);
            (0..1000).map(|_| forge(&models, &mut random)).collect()
        };
        let forged = all();
        assert_eq!(forged, all());
        assert!(forged.iter().all(|frame| is_mirrors(frame)));
        assert!(forged.iter().any(|frame| frame.len() < PAYLOAD + 40));
        assert!(forged.iter().any(|frame| frame.len() > models[1].len()));
        let as_one = |frame: &&Vec<u8>| models.contains(frame);
        assert!(forged.iter().filter(as_one).count() < forged.len() / 3);
    }
}

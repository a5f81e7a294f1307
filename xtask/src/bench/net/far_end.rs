//! The far end of the wire: a card of the board's is at the other one.

use crate::emulator::{CardModel, NetworkCard};
use crate::wire::{Tap, Wire};
use anyhow::Result;
use std::path::Path;

/// The last byte of the card's address. The guest that receives must have the same address: Bochs brings a card only frames for
/// its own address and for all.
pub(super) const CARD: u8 = 1;
/// This end's address.
const OWN: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0xfe];
/// The one that IEEE 802 keeps for experiments.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

/// Frames that are wanted from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    frames: u32,
    length: usize,
}

impl Wanted {
    /// Reads a line `ask frames=N length=BYTES`.
    pub(super) fn read(line: &str) -> Option<Self> {
        let rest = line.trim().strip_prefix("ask frames=")?;
        let (frames, length) = rest.split_once(" length=")?;
        Some(Self {
            frames: frames.parse().ok()?,
            length: length.parse().ok()?,
        })
    }

    /// Whether they are to wait until all of them are there.
    pub(super) const fn is_many(self) -> bool {
        self.frames > 1
    }

    fn frame(self, to: [u8; 6]) -> Vec<u8> {
        let mut frame = [&to[..], &OWN, &ETHER_TYPE].concat();
        frame.resize(self.length.max(frame.len()), 0);
        frame
    }
}

/// The far end.
pub(super) struct FarEnd {
    wire: Wire,
    tap: Tap,
    card: NetworkCard,
}

impl FarEnd {
    /// Lays the wire. What it carries is captured in a folder.
    ///
    /// # Errors
    ///
    /// Where this host has no room for it.
    pub(super) fn lay(folder: &Path) -> Result<Self> {
        let wire = Wire::lay()?;
        let card = NetworkCard::on(&wire, CardModel::E1000, CARD)?;
        let tap = wire.tap();
        wire.capture(&folder.join("wire.pcapng"))?;
        Ok(Self { wire, tap, card })
    }

    /// The card for the board.
    pub(super) const fn card(&self) -> NetworkCard {
        self.card
    }

    /// Sends what is wanted, at once. The emulator takes one frame from its socket every millisecond.
    pub(super) fn send(&self, wanted: Wanted) {
        let frame = wanted.frame(self.card.address);
        for _ in 0..wanted.frames {
            self.tap.send(&frame);
        }
    }

    /// How many frames the card has sent.
    pub(super) fn heard(&self) -> u64 {
        self.wire.counts(self.card.plug.end).sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_read() {
        let wanted = Wanted::read("ask frames=3 length=64\r\n").unwrap();
        assert_eq!((wanted.frames, wanted.length), (3, 64));
        assert_eq!(Wanted::read("ask frames=3"), None);
        assert_eq!(Wanted::read("ask frames=x length=64"), None);
        let frame = wanted.frame([2; 6]);
        assert_eq!(frame.len(), 64);
        assert!(frame.starts_with(&[[2; 6], OWN].concat()));
    }
}

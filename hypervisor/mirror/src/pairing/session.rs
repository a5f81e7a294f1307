//! What two boards have once they are paired.

use crate::key::{Nonce, Offer, PairKey};
use crate::wire::{Dropped, Frame, Header, Kind, Opener, Sealer, Sender};
use crate::{Epoch, Path, Side, Term};

use super::hello::Facts;

/// One way between the boards, there and back.
#[derive(Debug)]
struct Way {
    sealer: Sealer,
    opener: Opener,
}

/// A session of two boards: what both are, and the keys of their frames.
#[derive(Debug)]
pub struct Session {
    id: u64,
    peer: Nonce,
    facts: Facts,
    link: Way,
    lan: Way,
}

impl Session {
    /// The session of the board `side` with its offer `own`, and the peer's offer and facts.
    pub(super) fn new(key: &PairKey, side: Side, own: Offer, peer: Offer, facts: Facts) -> Self {
        let keys = match side {
            Side::A => key.session(own, peer),
            Side::B => key.session(peer, own),
        };
        let id = keys.id();
        let sender = Sender::Board(side);
        let way = |path| Way {
            sealer: Sealer::new(keys.frames(side, path), id, sender, path),
            opener: Opener::new(keys.frames(side.peer(), path), id, sender, path),
        };
        Self {
            id,
            peer: peer.nonce,
            facts,
            link: way(Path::Link),
            lan: way(Path::Lan),
        }
    }

    /// The number in all its frames.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The peer's boot.
    #[must_use]
    pub const fn peer(&self) -> Nonce {
        self.peer
    }

    /// What the peer says of itself.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    const fn way(&mut self, path: Path) -> &mut Way {
        match path {
            Path::Link => &mut self.link,
            Path::Lan => &mut self.lan,
        }
    }

    /// Makes a frame for `path`, as [`Sealer::seal`] does.
    pub fn seal(
        &mut self,
        path: Path,
        term: Term,
        epoch: Epoch,
        buffer: &mut [u8],
        fill: impl FnOnce(&mut [u8]) -> Option<(Kind, usize)>,
    ) -> Option<usize> {
        self.way(path).sealer.seal(term, epoch, buffer, fill)
    }

    pub(super) fn open<'a>(
        &mut self,
        path: Path,
        header: Header,
        bytes: &'a [u8],
        floor: Term,
    ) -> Result<Frame<'a>, Dropped> {
        let frame = self.way(path).opener.open_headed(header, bytes)?;
        let link = matches!(frame.kind, Kind::Data | Kind::Ack);
        if link && frame.term < floor {
            return Err(Dropped::OldTerm(frame.term));
        }
        Ok(frame)
    }
}

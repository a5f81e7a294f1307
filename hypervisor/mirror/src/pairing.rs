//! How two boards become a pair.
//!
//! Both do the same. A board that has no session, or hears nothing in the one that it has, says Hello by both paths: what it
//! is, its offer for the next session, and the offer that it heard by this path. A Hello that has heard this board's offer makes
//! a candidate of a session. The candidate becomes the session with the first frame that holds under its keys; to that end, boards send a
//! Confirm under a candidate's keys behind each Hello. An offer is good for one session.
//!
//! So a frame that was recorded takes nothing down: while a session's frames come, no Hello is heeded; and later, a Hello of another boot has not
//! heard this boot's nonce, and one of this boot has heard an offer that was used. After an outage, the boards go on in their
//! session if its frames come before a Hello does.

mod hello;
mod refusal;
mod session;

use core::time::Duration;

use crate::key::{Nonce, Offer, PairKey};
use crate::wire::{Dropped, Drops, Frame, Header, Kind, Opener, Sealer, Sender, VERSION};
use crate::{Epoch, Instant, Path, Side, Term};

use hello::Hello;

pub use hello::{Facts, Software};
pub use refusal::Refusal;
pub use session::Session;

/// Answers to Hellos keep this part of the interval between them.
const ANSWERS_PER_INTERVAL: u32 = 4;

/// What a board needs to pair.
#[derive(Clone, Debug)]
pub struct PairingConfig {
    /// Which side it is.
    pub side: Side,
    /// The pair's secret.
    pub key: PairKey,
    /// What it is.
    pub facts: Facts,
    /// What the time-stamp counters' rates may differ by, in millionths.
    pub clock_tolerance: u32,
    /// How often it says Hello while it has no session.
    pub hello_interval: Duration,
    /// How long it hears nothing in its session until it says Hello again.
    pub silence: Duration,
}

/// What is new about the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// There is a new session, [`Pairing::session`]. What was under way in the old one is void.
    Paired,
    /// A board is heard that cannot be the peer. It is said once, not for each of its frames.
    Refused(Refusal),
}

/// What came in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// To be heeded before the frame.
    pub news: Option<News>,
    /// A frame of the peer in the session; none if it was a Hello or a Confirm.
    pub frame: Option<Frame<'a>>,
}

/// What a board knows of one path.
#[derive(Debug)]
struct Door {
    sealer: Sealer,
    opener: Opener,
    /// The peer's newest offer that came this way.
    heard: Option<Offer>,
    /// When the last Hello was said.
    said: Option<Instant>,
    /// When an answer is due, if one is.
    due: Option<Instant>,
    /// A Confirm is to follow.
    confirm: bool,
    drops: Drops,
}

/// The machine that makes a pair.
#[derive(Debug)]
pub struct Pairing {
    config: PairingConfig,
    offer: Offer,
    link: Door,
    lan: Door,
    candidate: Option<Session>,
    current: Option<Session>,
    /// When a frame of the session came last.
    heard: Instant,
    /// What was said, since the last session, of who the peer is not.
    told: Option<Refusal>,
    /// Whether something was said that no tag vouched for.
    guessed: bool,
}

impl Pairing {
    /// A board with this boot's nonce, unpaired, which says Hello at once.
    #[must_use]
    pub fn new(config: PairingConfig, nonce: Nonce) -> Self {
        let door = |path| Door {
            sealer: Sealer::outside_sessions(&config.key, Sender::Board(config.side), path),
            opener: Opener::outside_sessions(&config.key, path),
            heard: None,
            said: None,
            due: None,
            confirm: false,
            drops: Drops::default(),
        };
        Self {
            offer: Offer { nonce, round: 0 },
            link: door(Path::Link),
            lan: door(Path::Lan),
            candidate: None,
            current: None,
            heard: Instant::default(),
            told: None,
            guessed: false,
            config,
        }
    }

    /// The session, which frames are to be sealed in.
    pub const fn session(&mut self) -> Option<&mut Session> {
        self.current.as_mut()
    }

    /// What was dropped that came by `path`.
    #[must_use]
    pub const fn drops(&self, path: Path) -> &Drops {
        match path {
            Path::Link => &self.link.drops,
            Path::Lan => &self.lan.drops,
        }
    }

    const fn door(&mut self, path: Path) -> &mut Door {
        match path {
            Path::Link => &mut self.link,
            Path::Lan => &mut self.lan,
        }
    }

    /// Whether frames of the session come.
    #[must_use]
    pub fn is_live(&self, now: Instant) -> bool {
        self.current.is_some() && now.since(self.heard) < self.config.silence
    }

    /// What came by `path` in the frame `bytes`, without its Ethernet header. The link's frames of a term below `floor` are dropped.
    ///
    /// # Errors
    ///
    /// Why the frame is dropped. It is counted.
    pub fn open<'a>(
        &mut self,
        path: Path,
        bytes: &'a [u8],
        floor: Term,
        now: Instant,
    ) -> Result<Opened<'a>, Dropped> {
        let opened = self.look(path, bytes, floor, now);
        if let Err(cause) = opened {
            self.door(path).drops.count(cause);
            if let Some(refusal) = self.guess(path, cause, bytes, now) {
                return Ok(Opened {
                    news: Some(News::Refused(refusal)),
                    frame: None,
                });
            }
        }
        opened
    }

    fn look<'a>(
        &mut self,
        path: Path,
        bytes: &'a [u8],
        floor: Term,
        now: Instant,
    ) -> Result<Opened<'a>, Dropped> {
        let header = Header::decode(bytes)?;
        let (frame, news) = match (&mut self.current, &mut self.candidate) {
            (Some(session), _) if session.id() == header.session => {
                (session.open(path, header, bytes, floor)?, None)
            }
            (_, Some(session)) if session.id() == header.session => {
                let frame = session.open(path, header, bytes, floor)?;
                self.adopt();
                (frame, Some(News::Paired))
            }
            _ => {
                let frame = self.door(path).opener.open_headed(header, bytes)?;
                let news = self.hear(path, &frame, now)?;
                return Ok(Opened { news, frame: None });
            }
        };
        self.heard = now;
        let frame = (frame.kind != Kind::Confirm).then_some(frame);
        Ok(Opened { news, frame })
    }

    /// The candidate is the session.
    fn adopt(&mut self) {
        self.current = self.candidate.take();
        self.offer.round = self.offer.round.saturating_add(1);
        (self.told, self.guessed) = (None, false);
        for path in [Path::Link, Path::Lan] {
            let door = self.door(path);
            (door.heard, door.due, door.confirm) = (None, None, false);
        }
    }

    /// A Hello came whose tag holds.
    fn hear(
        &mut self,
        path: Path,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<Option<News>, Dropped> {
        let (Kind::Hello, Sender::Board(side)) = (frame.kind, frame.sender) else {
            return Err(Dropped::Malformed);
        };
        let hello = Hello::decode(frame.body).ok_or(Dropped::Malformed)?;
        let peer = hello.offer;
        if peer.nonce == self.offer.nonce {
            return Err(Dropped::Own);
        }
        if self.is_live(now) {
            return Ok(None);
        }
        let config = &self.config;
        let refusal = if side == config.side {
            Some(Refusal::Side(side))
        } else {
            Refusal::of(&config.facts, &hello.facts, config.clock_tolerance)
        };
        if let Some(refusal) = refusal {
            let new = self.told != Some(refusal);
            self.told = Some(refusal);
            return Ok(new.then_some(News::Refused(refusal)));
        }
        if hello.heard == Some(self.offer) {
            let (key, own) = (&self.config.key, self.offer);
            let new = Session::new(key, self.config.side, own, peer, hello.facts);
            if self.candidate.as_ref().map(Session::id) != Some(new.id()) {
                self.candidate = Some(new);
            }
        }
        let gap = self.config.hello_interval / ANSWERS_PER_INTERVAL;
        let door = self.door(path);
        door.heard = Some(peer);
        let soon = door.said.map_or(now, |said| said + gap);
        door.due = Some(door.due.map_or(soon, |due| due.min(soon)));
        Ok(None)
    }

    /// What a frame that was dropped lets one guess about who is at the other end of the link, where no other pair is.
    fn guess(&mut self, path: Path, cause: Dropped, bytes: &[u8], now: Instant) -> Option<Refusal> {
        if path != Path::Link || self.guessed || self.is_live(now) {
            return None;
        }
        let refusal = match cause {
            Dropped::Version(peer) => Refusal::Version { own: VERSION, peer },
            Dropped::Session(peer) if Header::decode(bytes).ok()?.kind == Kind::Hello => {
                let own = self.config.key.id();
                Refusal::Key { own, peer }
            }
            _ => return None,
        };
        self.guessed = true;
        Some(refusal)
    }

    /// When something is due on this path.
    fn due(&self, door: &Door) -> Instant {
        if door.confirm {
            return Instant::default();
        }
        let interval = self.config.hello_interval;
        let mut regular = door.said.map_or(Instant::default(), |said| said + interval);
        if self.current.is_some() {
            regular = regular.max(self.heard + self.config.silence);
        }
        door.due.map_or(regular, |due| due.min(regular))
    }

    /// When [`Self::poll_hello`] has something next.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        self.due(&self.link).min(self.due(&self.lan))
    }

    /// Makes the Hello or Confirm that is due on `path`, if one is, at the start of `buffer`, and returns its length. It is to be sent
    /// to everybody. There may be another right away.
    pub fn poll_hello(&mut self, path: Path, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        let due = match path {
            Path::Link => self.due(&self.link),
            Path::Lan => self.due(&self.lan),
        };
        if due > now {
            return None;
        }
        let (offer, facts) = (self.offer, self.config.facts);
        let candidate = self.candidate.is_some();
        let door = self.door(path);
        let confirm = core::mem::replace(&mut door.confirm, false);
        let (term, epoch) = (Term::default(), Epoch::default());
        if confirm && let Some(session) = &mut self.candidate {
            return session.seal(path, term, epoch, buffer, |_| Some((Kind::Confirm, 0)));
        }
        let door = self.door(path);
        (door.said, door.due) = (Some(now), None);
        door.confirm = candidate;
        let hello = Hello {
            offer,
            heard: door.heard,
            facts,
        };
        let fill = |body: &mut [u8]| Some((Kind::Hello, hello.encode(body)?));
        door.sealer.seal(term, epoch, buffer, fill)
    }
}

#[cfg(test)]
mod tests;

//! A board of the pair: roles, pairing, the link and the epochs, put together.
//!
//! A [`Node`] is driven by its board: frames and the time go in, and what is to be done comes out as calls of [`Board`]. The board
//! calls [`Node::turn`] after whatever it told the node, and when the time that the turn named has come.

mod backup;
mod inputs;
mod primary;

use crate::epoch::Checkpoint;
use crate::inputs::InputCounters;
use crate::key::Nonce;
use crate::lease::Gate;
use crate::link::{Lane, Link, LinkConfig, segment_bytes};
use crate::pairing::{News, Pairing, PairingConfig, Refusal};
use crate::role::{
    Action, Command, Config, Event, HEARTBEAT_BYTES, Heartbeat, RoleMachine, Source, Tell,
};
use crate::time::{Epoch, Instant, Path};
use crate::understudy::{Committed, Extent, Memory, Violation};
use crate::wire::{Dropped, Drops, Frame, Kind, OVERHEAD, Opener, Sealer, Sender};
use crate::witness::{ANSWER_BYTES, Answer, Boot};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use backup::Following;
use primary::Leading;

/// The group of what is said of all guests together.
const ALL: u8 = u8::MAX;
/// Frames that are sent in one turn at most.
const BATCH: usize = 16;
/// A backup that is heard, but has not acknowledged an epoch after so many times T_dead, is given up: outputs are held meanwhile.
const EPOCH_PATIENCE: u32 = 10;
/// When to offer a guest again what it did not take.
const OFFER: Duration = Duration::from_micros(500);
/// Bytes of a frame for the witness.
const WITNESS_BYTES: usize = OVERHEAD + ANSWER_BYTES;

/// Guests that have their checkpoints in common.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Its number, below 255.
    pub number: u8,
    /// The guests' memory.
    pub extents: Vec<Extent>,
    /// Time from one checkpoint to the next.
    pub epoch: Duration,
    /// Whether its pages go before others'.
    pub urgent: bool,
}

/// What a node is.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Who may serve.
    pub role: Config,
    /// How it finds its peer.
    pub pairing: PairingConfig,
    /// The link.
    pub link: LinkConfig,
    /// Groups of guests whose state is mirrored.
    pub groups: Vec<GroupConfig>,
}

/// What a group's guests are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Note what they write from now on; all pages are to be told.
    Track,
    /// Hand over the pages that were written, while they run; then [`Node::passed`].
    Pass,
    /// Freeze, hand over the pages that were written and the state, and go on. What leaves from here on belongs to the next epoch and is
    /// held. Then [`Node::frozen`].
    Freeze,
    /// The same, but the guests do not go on: they stand still, and what comes for them is kept, until they are told to go on, or are stopped
    /// or untracked. Then [`Node::frozen`].
    FreezeForGood,
    /// Note nothing more: what is held belongs to no epoch.
    Untrack,
}

/// What an operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Of roles.
    Role(Tell),
    /// A board is heard that cannot be the peer.
    Refused(Refusal),
    /// What the primary sent was nonsense.
    Nonsense(Violation),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(tell) => tell.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Nonsense(violation) => write!(f, "the primary sent nonsense: {violation}"),
        }
    }
}

/// What has come of looking at an understudy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// It is what it should be, as far as is known.
    Good,
    /// It is not.
    Bad,
    /// That is not known yet.
    Busy,
}

/// What a node has done by its board.
pub trait Board: Memory {
    /// A group's checkpoint.
    type Checkpoint: Checkpoint;

    /// Sends a frame to everybody on a path, behind an Ethernet header.
    fn send(&mut self, path: Path, frame: &[u8]);
    /// Sends a datagram to the witness.
    fn ask(&mut self, datagram: &[u8]);
    /// What a group's guests are to do. It is done when the node is told so.
    fn order(&mut self, group: u8, order: Order);
    /// What a group has handed over and is not yet told; none if there is no such group.
    fn checkpoint(&mut self, group: u8) -> Option<&mut Self::Checkpoint>;
    /// Whether a group has written about as much as a checkpoint can hold: then the next one does not wait for its time.
    fn presses(&mut self, group: u8) -> bool;
    /// The backup has an epoch: what left the group's guests up to its freeze is held for its sake no longer.
    fn acknowledge(&mut self, group: u8, epoch: Epoch);
    /// A guest's live image and its state are as of a commit, the first one of its bond or another: whether that is what it should be, and
    /// can be gone on from. Called again while that is not known; the image stays as it is until then.
    fn inspect(&mut self, guest: u8, state: &[u8], first: bool) -> Inspection;
    /// Whether anything may leave that is not held for an epoch's sake.
    fn gate(&mut self, gate: Gate);
    /// Starts all mirrored guests afresh.
    fn start(&mut self);
    /// Lets a guest of a group go on from its understudy, whose live image is complete. `time` is what its clock would show now, in nanoseconds.
    fn resume(&mut self, guest: u8, state: &[u8], time: u64);
    /// Starts the mirrored guests of which nothing but their image is kept.
    fn start_cold(&mut self);
    /// Lets guests go on that were suspended, stopped or frozen for good: these get what was kept for them. A freeze for good that is ordered
    /// and not done is a freeze.
    fn go_on(&mut self);
    /// Suspends the guests; what they put out stays held.
    fn suspend(&mut self);
    /// Stops the guests, and drops what is held. What comes for those that were frozen for good is still kept, until
    /// [`Self::end_inputs`].
    fn stop(&mut self);
    /// Whether something that is held for an epoch's sake no longer has not left yet.
    fn releases(&mut self, group: u8) -> bool;
    /// Puts the next frame that was kept for a guest of a group frozen for good into `frame`, with all checksums: whose it is, and for which card. The guest
    /// gets it even so, if it goes on.
    fn input(&mut self, group: u8, frame: &mut Vec<u8>) -> Option<(u8, u8)>;
    /// Nothing that comes for a group's guests, which were stopped, is to be kept any more.
    fn end_inputs(&mut self, group: u8);
    /// Gives a frame to a card of a guest that was resumed. Whether that is done with; if not, it comes again.
    fn deliver(&mut self, guest: u8, card: u8, frame: &[u8]) -> bool;
    /// Tells the operator.
    fn tell(&mut self, report: Report);
}

/// A board of the pair.
pub struct Node {
    role: RoleMachine,
    pairing: Pairing,
    link: Link,
    /// How long the link may say nothing.
    silence: Duration,
    to_witness: Sealer,
    from_witness: Opener,
    leading: Leading,
    following: Following,
    /// The last heartbeat that was made.
    heartbeat: Option<Heartbeat>,
    /// When a frame of the session came over the link that was no Confirm.
    link_heard: Option<Instant>,
    /// The link's card has a carrier.
    carrier: bool,
    link_up: bool,
    buffer: Vec<u8>,
}

impl Node {
    /// A board that has just started, with this boot's nonce.
    #[must_use]
    pub fn new(config: NodeConfig, nonce: Nonce, now: Instant) -> Self {
        let (key, side) = (config.pairing.key.clone(), config.role.side);
        let room = OVERHEAD + segment_bytes(config.link.mtu) + 64;
        Self {
            role: RoleMachine::new(config.role, now),
            silence: config.role.dead,
            pairing: Pairing::new(config.pairing, nonce),
            link: Link::new(&config.link),
            to_witness: Sealer::outside_sessions(&key, Sender::Board(side), Path::Lan),
            from_witness: Opener::outside_sessions(&key, Path::Lan),
            following: Following::new(&config.groups),
            leading: Leading::new(config.groups),
            heartbeat: None,
            link_heard: None,
            carrier: false,
            link_up: false,
            buffer: vec![0; room.max(WITNESS_BYTES)],
        }
    }

    /// The machine of roles, to look at.
    #[must_use]
    pub const fn role(&self) -> &RoleMachine {
        &self.role
    }

    /// The link, to look at.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// What was dropped that came by a path.
    #[must_use]
    pub const fn drops(&self, path: Path) -> &Drops {
        self.pairing.drops(path)
    }

    /// Each group's last epoch that ended here, and that the backup has.
    pub fn epochs(&self) -> impl Iterator<Item = (u8, Epoch, Epoch)> + '_ {
        self.leading.epochs()
    }

    /// What the understudies of a backup are as of, by group.
    pub fn committed(&self) -> impl Iterator<Item = (u8, Option<Committed>)> + '_ {
        self.following.committed()
    }

    /// What became of frames for guests that were handed over.
    #[must_use]
    pub fn inputs(&self) -> InputCounters {
        InputCounters {
            told: self.leading.inputs.count,
            ..self.following.input_counters()
        }
    }

    /// A frame came by a path, without its Ethernet header.
    ///
    /// # Errors
    ///
    /// Why it was dropped, which is counted.
    pub fn receive(
        &mut self,
        path: Path,
        bytes: &[u8],
        now: Instant,
        board: &mut impl Board,
    ) -> Result<(), Dropped> {
        let opened = self.pairing.open(path, bytes, self.role.term(), now)?;
        match opened.news {
            Some(News::Paired) => self.paired(now, board),
            Some(News::Refused(refusal)) => board.tell(Report::Refused(refusal)),
            None => {}
        }
        if let Some(frame) = opened.frame {
            // A Hello would not do: it may have been recorded long ago.
            if path == Path::Link {
                self.link_heard = Some(now);
            }
            self.frame(path, frame, now, board);
        }
        Ok(())
    }

    /// There is a new session: what was under way in the old one is void.
    fn paired(&mut self, now: Instant, board: &mut impl Board) {
        self.link.reset();
        self.following.session();
        self.leading.inputs.session();
        self.failed(now, board);
        if let Some(peer) = self.pairing.session().map(|session| session.peer()) {
            let peer = Boot(peer.0.get());
            self.event(Event::Session { peer }, now, board);
        }
    }

    fn frame(&mut self, path: Path, frame: Frame<'_>, now: Instant, board: &mut impl Board) {
        let heartbeat = || {
            let body: &[u8; HEARTBEAT_BYTES] = frame.body.try_into().ok()?;
            Heartbeat::decode(body)
        };
        let event = match frame.kind {
            Kind::Heartbeat => heartbeat().map(|heartbeat| Event::Heartbeat { heartbeat, path }),
            Kind::Dying => heartbeat().map(Event::Dying),
            _ => Some(Event::Frame {
                term: frame.term,
                path,
            }),
        };
        if let Some(event) = event {
            self.event(event, now, board);
        }
        if path == Path::Link && matches!(frame.kind, Kind::Data | Kind::Ack) {
            self.segment(frame.kind, frame.body, now, board);
        }
    }

    /// A frame of the link's.
    fn segment(&mut self, kind: Kind, body: &[u8], now: Instant, board: &mut impl Board) {
        let Self {
            link,
            leading,
            following,
            ..
        } = self;
        let mut events = Events::default();
        // What is not heeded will come again.
        let _ = link.receive(kind, body, now, |lane, segment| {
            take(lane, segment, now, leading, following, board, &mut events)
        });
        self.raise(events, now, board);
    }

    fn raise(&mut self, events: Events, now: Instant, board: &mut impl Board) {
        for event in events.0 {
            self.event(event, now, board);
        }
    }

    /// A datagram of the witness's came.
    ///
    /// # Errors
    ///
    /// Why it was dropped.
    pub fn answer(
        &mut self,
        bytes: &[u8],
        now: Instant,
        board: &mut impl Board,
    ) -> Result<(), Dropped> {
        let frame = self.from_witness.open(bytes)?;
        let body: Option<&[u8; ANSWER_BYTES]> = frame.body.try_into().ok();
        let answer = body
            .filter(|_| frame.kind == Kind::Answer && frame.sender == Sender::Witness)
            .and_then(Answer::decode)
            .ok_or(Dropped::Malformed)?;
        self.event(Event::Answer(answer), now, board);
        Ok(())
    }

    /// An operator wants something.
    pub fn command(&mut self, command: Command, now: Instant, board: &mut impl Board) {
        self.event(Event::Command(command), now, board);
    }

    /// The link's card has a carrier, or has lost it.
    pub const fn set_carrier(&mut self, carrier: bool) {
        self.carrier = carrier;
    }

    /// The uplink has a carrier, or has lost it.
    pub fn set_uplink(&mut self, up: bool, now: Instant, board: &mut impl Board) {
        self.event(Event::Uplink(up), now, board);
    }

    /// A group's pass is over, which handed over so many pages.
    pub fn passed(&mut self, group: u8, pages: u32) {
        self.leading.passed(group, pages);
    }

    /// A group is frozen, or was: everything of `epoch` is handed over, which is what its output gate called it as it was sealed.
    /// `time` is the guests', in nanoseconds.
    pub fn frozen(&mut self, group: u8, epoch: Epoch, time: u64) {
        self.leading.frozen(group, epoch, time);
    }

    /// A group's checkpoint came to nothing: the backup cannot be brought forward any more.
    pub fn failed(&mut self, now: Instant, board: &mut impl Board) {
        if let Some(bond) = self.leading.fail(board) {
            self.event(Event::ResyncFailed(bond), now, board);
        }
    }

    /// Does what is to be done now, a few frames' worth. Returns when it is to be called at the latest.
    pub fn turn(&mut self, now: Instant, board: &mut impl Board) -> Instant {
        let heard = self
            .link_heard
            .is_some_and(|heard| now.since(heard) < self.silence);
        let up = heard && self.carrier && !self.leading.is_broken();
        if up != self.link_up {
            self.link_up = up;
            self.event(Event::Link(up), now, board);
        }
        self.event(Event::Tick, now, board);
        let patience = self.silence.saturating_mul(EPOCH_PATIENCE);
        if self.leading.has_waited(now, patience) {
            self.failed(now, board);
        }
        let mut events = Events::default();
        let more = self.following.flip(board)
            || self.following.inspect(
                |guest, state, first| board.inspect(guest, state, first),
                &mut events,
            );
        self.raise(events, now, board);
        if !more {
            let Self {
                link,
                leading,
                following,
                ..
            } = self;
            let mut events = Events::default();
            link.resume(now, |lane, segment| {
                take(lane, segment, now, leading, following, board, &mut events)
            });
            self.raise(events, now, board);
        }
        let waits = self
            .following
            .deliver(now, self.silence, |guest, card, frame| {
                board.deliver(guest, card, frame)
            });
        self.hello(now, board);
        let events = self.leading.turn(&mut self.link, now, board);
        self.following.answer(&mut self.link);
        self.raise(events, now, board);
        let full = self.transmit(now, board);
        if more || full {
            return now;
        }
        let link = self
            .link
            .next_deadline()
            .filter(|_| self.session_is_there());
        [
            Some(self.role.next_deadline()),
            Some(self.pairing.next_deadline()),
            link,
            self.leading.next_deadline(now),
            waits.then(|| now + OFFER),
        ]
        .into_iter()
        .flatten()
        .fold(now + self.silence, Instant::min)
    }

    fn session_is_there(&mut self) -> bool {
        self.pairing.session().is_some()
    }

    /// Sends what makes and keeps the pair.
    fn hello(&mut self, now: Instant, board: &mut impl Board) {
        for path in [Path::Link, Path::Lan] {
            while let Some(length) = self.pairing.poll_hello(path, now, &mut self.buffer) {
                board.send(path, self.buffer.get(..length).unwrap_or(&[]));
            }
        }
    }

    /// Sends the link's frames; whether there may be more.
    fn transmit(&mut self, now: Instant, board: &mut impl Board) -> bool {
        let (term, epoch) = (self.role.term(), self.leading.epoch());
        let Self {
            pairing,
            link,
            buffer,
            ..
        } = self;
        let Some(session) = pairing.session() else {
            return false;
        };
        for _ in 0..BATCH {
            let fill = |body: &mut [u8]| link.poll_transmit(now, body);
            let Some(length) = session.seal(Path::Link, term, epoch, buffer, fill) else {
                return false;
            };
            board.send(Path::Link, buffer.get(..length).unwrap_or(&[]));
        }
        true
    }

    /// Tells the machine of roles something, and does what it wants.
    fn event(&mut self, event: Event, now: Instant, board: &mut impl Board) {
        self.role.handle(event, now);
        while let Some(action) = self.role.poll_action() {
            self.act(action, now, board);
        }
    }

    fn act(&mut self, action: Action, now: Instant, board: &mut impl Board) {
        match action {
            Action::Heartbeat(heartbeat) => {
                self.heartbeat = Some(heartbeat);
                self.beat(&heartbeat, board);
            }
            Action::Gate(gate) => board.gate(gate),
            Action::Serve { source, .. } => {
                self.leading.inputs.end(board);
                match source {
                    Source::Cold => board.start(),
                    Source::Understudy => self.following.take_over(now, board),
                    Source::Own => {
                        self.leading.go_on();
                        board.go_on();
                    }
                }
            }
            Action::Suspend => board.suspend(),
            Action::Stop => self.leading.stop(now, board),
            Action::Finish => self.leading.finish(),
            Action::Resync(bond) => self.leading.begin(bond, board),
            Action::Abandon(bond) => self.leading.abandon(bond, board),
            Action::Ask(ask) => {
                let fill = |body: &mut [u8]| {
                    let ask = ask.encode();
                    body.get_mut(..ask.len())?.copy_from_slice(&ask);
                    Some((Kind::Ask, ask.len()))
                };
                let (term, epoch) = (self.role.term(), Epoch::default());
                if let Some(length) = self.to_witness.seal(term, epoch, &mut self.buffer, fill) {
                    board.ask(self.buffer.get(..length).unwrap_or(&[]));
                }
            }
            Action::Tell(tell) => board.tell(Report::Role(tell)),
        }
    }

    /// Sends a heartbeat on both paths.
    fn beat(&mut self, heartbeat: &Heartbeat, board: &mut impl Board) {
        let epoch = self.leading.epoch();
        let Some(session) = self.pairing.session() else {
            return;
        };
        let body = heartbeat.encode();
        for path in [Path::Link, Path::Lan] {
            let fill = |to: &mut [u8]| {
                to.get_mut(..body.len())?.copy_from_slice(&body);
                Some((Kind::Heartbeat, body.len()))
            };
            if let Some(length) = session.seal(path, heartbeat.term, epoch, &mut self.buffer, fill)
            {
                board.send(path, self.buffer.get(..length).unwrap_or(&[]));
            }
        }
    }

    /// The frame by which a dying board tells the peer, at the start of `buffer`: its guests put out nothing any more.
    pub fn dying(&mut self, path: Path, buffer: &mut [u8]) -> Option<usize> {
        let heartbeat = self.heartbeat?;
        let body = heartbeat.encode();
        let session = self.pairing.session()?;
        session.seal(path, heartbeat.term, Epoch::default(), buffer, |to| {
            to.get_mut(..body.len())?.copy_from_slice(&body);
            Some((Kind::Dying, body.len()))
        })
    }
}

/// What the machine of roles is to be told.
#[derive(Debug, Default)]
struct Events(Vec<Event>);

/// A segment came in its turn; whether it is taken.
fn take(
    lane: Lane,
    segment: &[u8],
    now: Instant,
    leading: &mut Leading,
    following: &mut Following,
    board: &mut impl Board,
    events: &mut Events,
) -> bool {
    match lane {
        Lane::Control => {
            leading.control(segment, board, events);
            following.control(segment, events);
            true
        }
        Lane::Inputs => {
            if let Err(violation) = following.inputs(segment) {
                board.tell(Report::Nonsense(violation));
            }
            true
        }
        Lane::UrgentPages | Lane::Pages => following.take(segment, now, board, events),
    }
}

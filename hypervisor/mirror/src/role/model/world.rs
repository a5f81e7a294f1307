//! The boards and all that is between them.

use std::collections::VecDeque;

use super::moves::{Lan, Mutant, Violation, Way};
use super::{TICK, config};
use crate::role::{Action, Arbiter, Bond, Config, Event, Heartbeat, Role, RoleMachine, Source};
use crate::witness::{Answer, Ask, Boot, Ledger, Pair};
use crate::{Gate, Instant, Path, Side};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Message {
    Beat(Heartbeat),
    Dying(Heartbeat),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Data {
    Begin(Bond),
    /// The state that is complete with it.
    Complete(Bond, u32),
    Ack(Bond),
}

/// The lives of both boards.
pub(super) type Session = [Option<Boot>; 2];

#[derive(Clone, Debug, Hash)]
pub(super) struct Board {
    pub(super) machine: RoleMachine,
    pub(super) boot: Boot,
    pub(super) session: Session,
    pub(super) frozen: bool,
    pub(super) link: bool,
    pub(super) last: Option<Heartbeat>,
    /// The state of the guests, and of the understudy.
    pub(super) own: u32,
    pub(super) image: Option<(Bond, u32)>,
    /// A complete understudy is on its way: outputs are held.
    pub(super) holds: Option<Bond>,
    pub(super) final_epoch: bool,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct World {
    pub(super) boards: [Option<Board>; 2],
    pub(super) ways: [Way; 2],
    /// Heartbeats to each board.
    pub(super) beats: [VecDeque<(Session, Message)>; 2],
    pub(super) lans: [Lan; 2],
    pub(super) asks: [VecDeque<Ask>; 2],
    pub(super) answers: [VecDeque<Answer>; 2],
    pub(super) link: Way,
    pub(super) data: [VecDeque<(Session, Data)>; 2],
    pub(super) ledger: Ledger,
    /// What left last.
    pub(super) newest: u32,
    pub(super) boots: u128,
}

/// A world, and what does not belong to its state.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) world: World,
    pub(super) now: Instant,
    pub(super) arbiter: Arbiter,
    pub(super) mutant: Mutant,
}

/// At most so much is kept of what is kept back: the oldest and the newest.
const KEPT: usize = 3;

fn keep<T>(queue: &mut VecDeque<T>) {
    if queue.len() > KEPT {
        queue.remove(1);
    }
}

impl Run {
    pub(super) fn new(arbiter: Arbiter, mutant: Mutant) -> Self {
        let mut run = Self {
            world: World {
                boards: [None, None],
                ways: [Way::Carries; 2],
                beats: Default::default(),
                lans: [Lan::Carries; 2],
                asks: Default::default(),
                answers: Default::default(),
                link: Way::Carries,
                data: Default::default(),
                ledger: Ledger::new(Pair(7)),
                newest: 1,
                boots: 0,
            },
            now: Instant(100 * TICK),
            arbiter,
            mutant,
        };
        run.start(0);
        run.start(1);
        run
    }

    fn config(&self, side: usize, boot: u128) -> Config {
        let mut config = config([Side::A, Side::B][side], boot, self.arbiter);
        if self.mutant == Mutant::NoLease {
            config.lease *= 1000;
        }
        config
    }

    pub(super) fn start(&mut self, side: usize) {
        self.world.boots += 1;
        let config = self.config(side, self.world.boots);
        self.world.boards[side] = Some(Board {
            machine: RoleMachine::new(config, self.now),
            boot: config.boot,
            session: [None; 2],
            frozen: false,
            link: false,
            last: None,
            own: 0,
            image: None,
            holds: None,
            final_epoch: false,
        });
        self.act(side);
    }

    pub(super) fn role(&self, side: usize) -> Option<Role> {
        self.world.boards[side]
            .as_ref()
            .map(|board| board.machine.role())
    }

    pub(super) fn serves(&self, side: usize) -> bool {
        self.board(side)
            .is_some_and(|board| board.machine.gate().open(self.now))
    }

    /// A board that runs.
    fn board(&self, side: usize) -> Option<&Board> {
        self.world.boards[side]
            .as_ref()
            .filter(|board| !board.frozen)
    }

    fn board_mut(&mut self, side: usize) -> Option<&mut Board> {
        self.world.boards[side]
            .as_mut()
            .filter(|board| !board.frozen)
    }

    pub(super) fn tell(&mut self, side: usize, event: Event) {
        let now = self.now;
        if let Some(board) = self.board_mut(side) {
            board.machine.handle(event, now);
            assert!(
                board.machine.next_deadline() > now,
                "a deadline that has passed"
            );
            self.act(side);
        }
    }

    /// Does what a board wants.
    fn act(&mut self, side: usize) {
        let world = &mut self.world;
        let Some(board) = world.boards[side].as_mut() else {
            return;
        };
        while let Some(action) = board.machine.poll_action() {
            match action {
                Action::Heartbeat(beat) => {
                    board.last = Some(beat);
                    world.beats[1 - side].push_back((board.session, Message::Beat(beat)));
                }
                Action::Ask(ask) => {
                    // The same question again says nothing new while the last one is on its way.
                    if !world.asks[side].contains(&ask) {
                        world.asks[side].push_back(ask);
                    }
                }
                Action::Resync(bond) => {
                    board.holds = Some(bond);
                    for data in [Data::Begin(bond), Data::Complete(bond, board.own)] {
                        world.data[1 - side].push_back((board.session, data));
                    }
                }
                Action::Abandon(_) => board.holds = None,
                Action::Finish => board.final_epoch = true,
                Action::Serve { source, .. } => {
                    board.holds = None;
                    board.final_epoch = false;
                    match source {
                        Source::Own => {}
                        Source::Understudy => {
                            board.own = board.image.take().expect("an understudy").1;
                        }
                        Source::Cold => {
                            world.newest += 1;
                            board.own = world.newest;
                        }
                    }
                }
                Action::Gate(_) | Action::Suspend | Action::Stop | Action::Tell(_) => {}
            }
        }
    }

    /// One tick.
    pub(super) fn tick(&mut self) -> Result<(), Violation> {
        self.now = Instant(self.now.0 + TICK);
        self.meet();
        let beats = [self.arrived(0), self.arrived(1)];
        for (side, beats) in beats.into_iter().enumerate() {
            for (session, message) in beats {
                self.hear(side, session, message);
            }
        }
        self.carry_data();
        self.ask_witness()?;
        for side in 0..2 {
            self.tell(side, Event::Tick);
            self.finish(side);
        }
        self.check()
    }

    /// A session, if both boards can hear each other and have none.
    fn meet(&mut self) {
        let lives = [0, 1].map(|side| self.board(side).map(|board| board.boot));
        if lives.contains(&None) || self.world.ways != [Way::Carries; 2] {
            return;
        }
        for side in 0..2 {
            if let (Some(board), Some(peer)) = (self.board_mut(side), lives[1 - side])
                && board.session != lives
            {
                board.session = lives;
                board.link = false;
                board.holds = None;
                self.tell(side, Event::Session { peer });
            }
        }
    }

    /// What a board hears now.
    fn arrived(&mut self, side: usize) -> VecDeque<(Session, Message)> {
        let queue = &mut self.world.beats[side];
        match self.world.ways[1 - side] {
            Way::Loses => queue.clear(),
            Way::Keeps => {}
            Way::Carries => {
                if !self.world.boards[side]
                    .as_ref()
                    .is_some_and(|board| board.frozen)
                {
                    return core::mem::take(queue);
                }
            }
        }
        keep(queue);
        VecDeque::new()
    }

    fn hear(&mut self, side: usize, session: Session, message: Message) {
        let Some(board) = self.board(side).filter(|board| board.session == session) else {
            return;
        };
        let path = Path::Lan;
        match message {
            Message::Beat(mut heartbeat) => {
                match self.mutant {
                    Mutant::LeaseFromEcho if heartbeat.echo.0 > 0 => heartbeat.echo = self.now,
                    Mutant::IgnoresTerms if heartbeat.term > board.machine.term() => {
                        heartbeat.term = board.machine.term();
                        heartbeat.role = Role::Backup;
                        heartbeat.asked = heartbeat.term;
                    }
                    _ => {}
                }
                self.tell(side, Event::Heartbeat { heartbeat, path });
            }
            Message::Dying(heartbeat) => self.tell(side, Event::Dying(heartbeat)),
        }
    }

    /// Whether the link carries between the two boards, which are in the same session.
    pub(super) fn linked(&self) -> bool {
        match (self.board(0), self.board(1)) {
            (Some(a), Some(b)) => a.session == b.session && a.session[0].is_some(),
            _ => false,
        }
    }

    fn carry_data(&mut self) {
        let up = self.world.link != Way::Loses;
        let linked = self.linked();
        for side in 0..2 {
            let session = self.board(side).map_or([None; 2], |board| board.session);
            let up = up && session[0].is_some();
            if self.board(side).is_some_and(|board| board.link != up) && (linked || !up) {
                if let Some(board) = self.board_mut(side) {
                    board.link = up;
                }
                self.tell(side, Event::Link(up));
            }
        }
        if !up {
            self.world.data = Default::default();
        }
        if self.world.link != Way::Carries {
            return;
        }
        for side in 0..2 {
            if self.board(side).is_none() {
                continue;
            }
            for (session, data) in core::mem::take(&mut self.world.data[side]) {
                let Some(board) = self
                    .board_mut(side)
                    .filter(|board| board.session == session)
                else {
                    continue;
                };
                match data {
                    Data::Begin(bond) => {
                        if !board.machine.role().owns() {
                            board.image = None;
                            self.tell(side, Event::ResyncBegun(bond));
                        }
                    }
                    Data::Complete(bond, state) => {
                        if !board.machine.role().owns() {
                            board.image = Some((bond, state));
                            self.world.data[1 - side].push_back((session, Data::Ack(bond)));
                            self.tell(side, Event::Complete(bond));
                        }
                    }
                    Data::Ack(bond) => {
                        if board.holds == Some(bond) {
                            self.tell(side, Event::Bonded(bond));
                            if let Some(board) = self.board_mut(side) {
                                board.holds = None;
                            }
                        }
                    }
                }
            }
        }
    }

    fn ask_witness(&mut self) -> Result<(), Violation> {
        for side in 0..2 {
            let lan = self.world.lans[side];
            let asks = match lan {
                Lan::Keeps => {
                    keep(&mut self.world.asks[side]);
                    continue;
                }
                _ => core::mem::take(&mut self.world.asks[side]),
            };
            for ask in asks.into_iter().filter(|_| lan != Lan::Loses) {
                let before = self.world.ledger;
                let ask = match (self.mutant, before.last) {
                    (Mutant::AnyLife, Some(last)) => Ask {
                        of: Some(last.holder.boot),
                        ..ask
                    },
                    _ => ask,
                };
                let (mut answer, after) = before.decide(&ask).expect("the pair's");
                self.world.ledger = after;
                match self.mutant {
                    Mutant::GrantsTwice => answer.granted = true,
                    Mutant::Forgets => self.world.ledger.last = None,
                    _ => {}
                }
                // A term goes to another board only if the first one never served in it, and agrees.
                if let (Some(before), Some(after)) = (before.last, after.last) {
                    let moved =
                        before.term == after.term && before.holder.boot != after.holder.boot;
                    let served = before.holder.how != crate::witness::How::Granted;
                    if after.term < before.term || moved && served {
                        return Err(Violation::TwoHolders);
                    }
                }
                if lan != Lan::LosesAnswers {
                    self.world.answers[side].push_back(answer);
                }
            }
            if lan == Lan::KeepsAnswers || self.board(side).is_none() {
                keep(&mut self.world.answers[side]);
                continue;
            }
            for answer in core::mem::take(&mut self.world.answers[side]) {
                self.tell(side, Event::Answer(answer));
            }
        }
        Ok(())
    }

    /// The final epoch of a switchover, if the link carries.
    fn finish(&mut self, side: usize) {
        let carried = self.world.link == Way::Carries && self.linked();
        let Some(board) = self.board_mut(side) else {
            return;
        };
        if board.final_epoch && carried && board.machine.role() == Role::HandingOver {
            board.final_epoch = false;
            self.tell(side, Event::FinalAcked);
        }
    }

    fn check(&mut self) -> Result<(), Violation> {
        let open = [0, 1].map(|side| self.serves(side));
        if open == [true; 2] {
            return Err(Violation::TwoServe);
        }
        let carried = self.world.link == Way::Carries && self.linked();
        for (side, _) in open.into_iter().enumerate().filter(|(_, open)| *open) {
            self.release(side, carried)?;
        }
        Ok(())
    }

    /// Something leaves the guests, if it may.
    fn release(&mut self, side: usize, carried: bool) -> Result<(), Violation> {
        let newest = self.world.newest;
        let Some(board) = self.board(side) else {
            return Ok(());
        };
        let bound = board.machine.gate() != Gate::Open;
        if board.holds.is_some() || board.final_epoch {
            return Ok(());
        }
        if bound {
            let bond = board.machine.bond();
            let peer = self.world.boards[1 - side].as_mut().filter(|_| carried);
            let Some(image) = peer
                .and_then(|peer| peer.image.as_mut())
                .filter(|image| Some(image.0) == bond)
            else {
                return Ok(());
            };
            image.1 = newest + 1;
        }
        let Some(board) = self.board_mut(side) else {
            return Ok(());
        };
        if board.own != newest {
            return Err(Violation::Outdated);
        }
        board.own += 1;
        self.world.newest += 1;
        Ok(())
    }
}

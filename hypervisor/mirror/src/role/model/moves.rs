//! What the adversary may do, and an operator; and how wrong implementations differ.

use super::world::{Message, Run};
use crate::role::{Arbiter, Command, Event, Role};

/// What a way does with what is sent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Way {
    Carries,
    Loses,
    Keeps,
}

/// What happens to the questions of a board to the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lan {
    Carries,
    /// Questions are lost.
    Loses,
    /// Answers are lost.
    LosesAnswers,
    /// Questions are kept.
    Keeps,
    /// Answers are kept.
    KeepsAnswers,
}

/// What the adversary may do, and an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Move {
    /// Heartbeats of this board, or of both.
    Way(Option<usize>, Way),
    /// What was kept comes in the reverse order.
    Reversed,
    Lan(usize, Lan),
    Link(Way),
    Freeze(usize),
    Thaw(usize),
    Crash(usize),
    Die(usize),
    Start(usize),
    /// Both at once.
    Restart(usize),
    Uplink(usize, bool),
    Command(usize, Command),
}

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// Both gates are open.
    TwoServe,
    /// Something leaves a state that does not explain what left before.
    Outdated,
    /// A term has two holders.
    TwoHolders,
    /// Something goes on and on although nothing happens.
    Restless,
}

/// How a wrong implementation differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    None,
    /// A lease never ends.
    NoLease,
    /// It runs from when the echo is heard.
    LeaseFromEcho,
    /// The witness grants whatever it is asked.
    GrantsTwice,
    /// The witness forgets.
    Forgets,
    /// Heartbeats of later terms are read as if they were of this one, and of a backup.
    IgnoresTerms,
    /// The witness does not look at whose a basis is.
    AnyLife,
}

impl Run {
    /// All that may be done now and would change something.
    pub(super) fn moves(&self) -> Vec<Move> {
        let world = &self.world;
        let mut moves = Vec::new();
        for way in [Way::Carries, Way::Loses, Way::Keeps] {
            for side in 0..2 {
                if world.ways[side] != way {
                    moves.push(Move::Way(Some(side), way));
                }
            }
            if world.ways[0] != way && world.ways[1] != way {
                moves.push(Move::Way(None, way));
            }
            if world.link != way {
                moves.push(Move::Link(way));
            }
        }
        if world.ways.contains(&Way::Keeps) {
            moves.push(Move::Reversed);
        }
        for side in 0..2 {
            if self.arbiter == Arbiter::Witness {
                let lans = [
                    Lan::Carries,
                    Lan::Loses,
                    Lan::LosesAnswers,
                    Lan::Keeps,
                    Lan::KeepsAnswers,
                ];
                let others = lans.into_iter().filter(|lan| *lan != world.lans[side]);
                moves.extend(others.map(|lan| Move::Lan(side, lan)));
            }
            match &world.boards[side] {
                None => moves.push(Move::Start(side)),
                Some(board) if board.frozen => moves.extend([Move::Thaw(side), Move::Crash(side)]),
                Some(board) => {
                    moves.extend([
                        Move::Freeze(side),
                        Move::Crash(side),
                        Move::Die(side),
                        Move::Restart(side),
                    ]);
                    if board.machine.role() == Role::Primary {
                        moves.push(Move::Command(side, Command::Switchover));
                    }
                }
            }
        }
        moves
    }

    pub(super) fn make(&mut self, step: Move) {
        let world = &mut self.world;
        match step {
            Move::Way(side, way) => {
                for each in 0..2 {
                    if side.is_none_or(|side| side == each) {
                        world.ways[each] = way;
                    }
                }
            }
            Move::Reversed => {
                world.ways = [Way::Carries; 2];
                for queue in &mut world.beats {
                    queue.make_contiguous().reverse();
                }
            }
            Move::Lan(side, lan) => world.lans[side] = lan,
            Move::Link(way) => world.link = way,
            Move::Freeze(side) | Move::Thaw(side) => {
                if let Some(board) = &mut world.boards[side] {
                    board.frozen = matches!(step, Move::Freeze(_));
                }
            }
            Move::Crash(side) => world.boards[side] = None,
            Move::Die(side) => {
                if let Some(board) = world.boards[side].take()
                    && let Some(last) = board.last
                {
                    world.beats[1 - side].push_back((board.session, Message::Dying(last)));
                }
            }
            Move::Start(side) | Move::Restart(side) => self.start(side),
            Move::Uplink(side, up) => self.tell(side, Event::Uplink(up)),
            Move::Command(side, command) => self.tell(side, Event::Command(command)),
        }
    }
}

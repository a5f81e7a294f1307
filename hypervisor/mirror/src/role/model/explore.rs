//! Every run with a few moves of the adversary.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use proptest::prelude::*;

use super::moves::{Move, Mutant, Violation};
use super::world::Run;
use super::{ASSUME_DEAD, BACKUP, HOLD, WITNESS};
use crate::role::Arbiter;

/// How a run came to what must never be.
struct Found {
    violation: Violation,
    /// The moves, and when.
    moves: Vec<(u64, Move)>,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} after {:?}", self.violation, self.moves)
    }
}

struct Explorer<F> {
    allowed: F,
    /// States from which moves were made.
    inner: HashSet<u64>,
    /// States that only time led on from.
    outer: HashSet<u64>,
}

/// Ticks after which a world to which nothing happens repeats itself.
const REST: u64 = 100;

/// A run, and its moves.
type Trail = (Run, Vec<(u64, Move)>);

/// A state as a number. Two that have the same one would be explored once: of some millions and with 64 bits, hardly any have.
fn number(run: &Run) -> u64 {
    let mut hasher = DefaultHasher::new();
    run.seen().hash(&mut hasher);
    hasher.finish()
}

/// Follows a run as long as its states are new.
fn follow(
    mut run: Run,
    trail: &[(u64, Move)],
    mut new: impl FnMut(&Run) -> bool,
) -> Result<(), Box<Found>> {
    let found = |violation| {
        Box::new(Found {
            violation,
            moves: trail.to_vec(),
        })
    };
    for _ in 0..REST {
        run.tick().map_err(found)?;
        if !new(&run) {
            return Ok(());
        }
    }
    Err(found(Violation::Restless))
}

impl<F: Fn(Move) -> bool> Explorer<F> {
    fn new(allowed: F) -> Self {
        Self {
            allowed,
            inner: HashSet::new(),
            outer: HashSet::new(),
        }
    }

    /// Explores all runs of at most so many moves. States with more moves before them come first, so that none is taken for explored that
    /// was not with as many.
    fn explore(&mut self, run: Run, moves: usize) -> Result<usize, Box<Found>> {
        let mut starts = vec![(run, Vec::new())];
        for left in (1..=moves).rev() {
            let mut next = Vec::new();
            for (run, trail) in starts {
                let mut states = Vec::new();
                let inner = &mut self.inner;
                follow(run, &trail, |run| {
                    let new = inner.insert(number(run));
                    if new {
                        states.push(run.clone());
                    }
                    new
                })?;
                for run in states {
                    for branch in self.branches(&run, &trail) {
                        if left > 1 {
                            next.push(branch);
                        } else {
                            self.end(branch)?;
                        }
                    }
                }
            }
            starts = next;
        }
        Ok(self.inner.len() + self.outer.len())
    }

    /// Follows a run without a further move.
    fn end(&mut self, (run, trail): Trail) -> Result<(), Box<Found>> {
        follow(run, &trail, |run| {
            let number = number(run);
            !self.inner.contains(&number) && self.outer.insert(number)
        })
    }

    fn branches(&self, run: &Run, trail: &[(u64, Move)]) -> Vec<Trail> {
        let moves = run.moves().into_iter().filter(|step| (self.allowed)(*step));
        moves
            .map(|step| {
                let mut branch = run.clone();
                branch.make(step);
                let at = run.now.0 / super::TICK - 100;
                (branch, [trail, &[(at, step)]].concat())
            })
            .collect()
    }
}

/// What the adversary may do. Without a witness, going on when the peer is silent is sound only if silence means death.
fn fair(arbiter: Arbiter, step: Move) -> bool {
    arbiter != ASSUME_DEAD || !matches!(step, Move::Way(..) | Move::Reversed | Move::Freeze(_))
}

fn explore(arbiter: Arbiter, mutant: Mutant, moves: usize) -> Result<usize, Box<Found>> {
    Explorer::new(|step| fair(arbiter, step)).explore(Run::new(arbiter, mutant), moves)
}

fn safe(arbiter: Arbiter, moves: usize) {
    match explore(arbiter, Mutant::None, moves) {
        Ok(states) => println!("{arbiter:?}: {states} states"),
        Err(found) => panic!("{found:?}"),
    }
}

#[test]
fn safe_with_a_witness() {
    safe(WITNESS, 2);
}

#[test]
fn safe_if_both_wait() {
    safe(HOLD, 2);
}

#[test]
fn safe_if_the_backup_goes_on() {
    safe(BACKUP, 2);
}

#[test]
fn safe_if_silence_means_death() {
    safe(ASSUME_DEAD, 2);
}

#[test]
#[ignore = "takes a minute in a release build"]
fn safe_with_a_witness_and_more_moves() {
    safe(WITNESS, 3);
}

#[test]
#[ignore = "takes a minute in a release build"]
fn safe_without_a_witness_and_more_moves() {
    for arbiter in [HOLD, BACKUP] {
        safe(arbiter, 3);
    }
    safe(ASSUME_DEAD, 4);
}

/// A long run: before each move so many ticks, and of the moves that there are one by its number.
fn long_run(arbiter: Arbiter, moves: &[(u64, usize)]) -> Result<(), Box<Found>> {
    let mut run = Run::new(arbiter, Mutant::None);
    let mut made = Vec::new();
    for (ticks, choice) in moves {
        for _ in 0..*ticks {
            run.tick().map_err(|violation| {
                let moves = made.clone();
                Box::new(Found { violation, moves })
            })?;
        }
        let moves: Vec<_> = run
            .moves()
            .into_iter()
            .filter(|step| fair(arbiter, *step))
            .collect();
        if let Some(step) = moves.get(choice % moves.len().max(1)) {
            made.push((*ticks, *step));
            run.make(*step);
        }
    }
    follow(run, &made, |_| true).or_else(|found| {
        // It need not come to rest here: only what is never allowed counts.
        if found.violation == Violation::Restless {
            Ok(())
        } else {
            Err(found)
        }
    })
}

fn arbiters() -> impl Strategy<Value = Arbiter> {
    prop_oneof![3 => Just(WITNESS), 1 => Just(HOLD), 1 => Just(BACKUP), 1 => Just(ASSUME_DEAD)]
}

fn long_runs(moves: usize) -> impl Strategy<Value = Vec<(u64, usize)>> {
    proptest::collection::vec((0..9_u64, any::<usize>()), 0..moves)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn safe_in_long_runs(arbiter in arbiters(), moves in long_runs(20)) {
        if let Err(found) = long_run(arbiter, &moves) {
            prop_assert!(false, "{:?}", found);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "takes minutes in a release build"]
    fn safe_in_very_many_long_runs(arbiter in arbiters(), moves in long_runs(40)) {
        if let Err(found) = long_run(arbiter, &moves) {
            prop_assert!(false, "{:?}", found);
        }
    }
}

/// What the model finds if something is wrong, in so many moves.
fn caught(arbiter: Arbiter, mutant: Mutant, moves: usize) -> Violation {
    explore(arbiter, mutant, moves)
        .expect_err("the mutant is caught")
        .violation
}

#[test]
fn without_a_lease_both_serve() {
    assert_eq!(caught(BACKUP, Mutant::NoLease, 1), Violation::TwoServe);
}

#[test]
fn a_lease_that_runs_from_when_the_echo_comes_is_too_long() {
    assert_eq!(
        caught(BACKUP, Mutant::LeaseFromEcho, 2),
        Violation::TwoServe
    );
}

#[test]
fn a_witness_that_grants_twice_lets_both_serve() {
    assert_eq!(caught(WITNESS, Mutant::GrantsTwice, 2), Violation::TwoServe);
}

#[test]
fn a_witness_that_forgets_lets_both_serve() {
    assert_eq!(caught(WITNESS, Mutant::Forgets, 2), Violation::TwoServe);
}

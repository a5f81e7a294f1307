//! Every run with a few moves of the adversary.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::world::{Move, Mutant, Run, Violation};
use super::{ASSUME_DEAD, BACKUP, HOLD, WITNESS};
use crate::role::Arbiter;

/// How a run came to what must never be.
#[derive(Debug)]
struct Found {
    violation: Violation,
    /// The moves, and the ticks before each.
    moves: Vec<(u64, Move)>,
}

struct Explorer<F> {
    allowed: F,
    visited: HashSet<u64>,
}

/// A run, and its moves.
type Trail = (Run, Vec<(u64, Move)>);

impl<F: Fn(Move) -> bool> Explorer<F> {
    fn new(allowed: F) -> Self {
        Self {
            allowed,
            visited: HashSet::new(),
        }
    }

    /// Whether a state is new. Two states that are taken for one would be explored once: with some millions of them and 64 bits, there
    /// are hardly any.
    fn new_state(&mut self, run: &Run) -> bool {
        let mut hasher = DefaultHasher::new();
        run.seen().hash(&mut hasher);
        self.visited.insert(hasher.finish())
    }

    /// Explores all runs of at most so many moves.
    fn explore(&mut self, run: Run, moves: usize) -> Result<usize, Box<Found>> {
        let mut starts = vec![(run, Vec::new())];
        for left in (0..=moves).rev() {
            let mut next = Vec::new();
            for (mut run, trail) in starts {
                loop {
                    run.tick().map_err(|violation| {
                        Box::new(Found {
                            violation,
                            moves: trail.clone(),
                        })
                    })?;
                    if !self.new_state(&run) {
                        break;
                    }
                    if left > 0 {
                        self.branch(&run, &trail, &mut next);
                    }
                }
            }
            starts = next;
        }
        Ok(self.visited.len())
    }

    fn branch(&self, run: &Run, trail: &[(u64, Move)], next: &mut Vec<Trail>) {
        for step in run.moves().into_iter().filter(|step| (self.allowed)(*step)) {
            let mut branch = run.clone();
            branch.make(step);
            let mut trail = trail.to_vec();
            trail.push((run.now.0 / super::TICK - 100, step));
            next.push((branch, trail));
        }
    }
}

fn explore(arbiter: Arbiter, mutant: Mutant, moves: usize) -> Result<usize, Box<Found>> {
    // Without a witness, going on when the peer is silent is sound only if silence means death.
    let sound = move |step: Move| {
        arbiter != ASSUME_DEAD
            || !matches!(step, Move::Way(..) | Move::Reversed | Move::Freeze(_))
    };
    Explorer::new(sound).explore(Run::new(arbiter, mutant), moves)
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
    safe(ASSUME_DEAD, 3);
}

#[test]
#[ignore = "takes minutes, in a release build"]
fn safe_with_a_witness_and_more_moves() {
    safe(WITNESS, 3);
}

#[test]
#[ignore = "takes minutes, in a release build"]
fn safe_without_a_witness_and_more_moves() {
    for arbiter in [HOLD, BACKUP] {
        safe(arbiter, 3);
    }
    safe(ASSUME_DEAD, 5);
}

/// What the model finds if something is wrong, in how many moves.
fn caught(arbiter: Arbiter, mutant: Mutant, moves: usize) -> Violation {
    let found = explore(arbiter, mutant, moves).expect_err("the mutant is caught");
    println!("{mutant:?}: {found:?}");
    found.violation
}

#[test]
fn without_a_lease_both_serve() {
    assert_eq!(caught(BACKUP, Mutant::NoLease, 1), Violation::TwoServe);
}

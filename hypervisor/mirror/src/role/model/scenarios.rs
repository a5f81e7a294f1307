//! What must happen, step by step: the model's other tests only show what never does.

use super::moves::{Lan, Move, Mutant, Violation, Way};
use super::world::Run;
use super::{ASSUME_DEAD, BACKUP, HOLD, WITNESS};
use crate::Side;
use crate::role::{Arbiter, Command, Protection, Role};

const A: usize = 0;
const B: usize = 1;
const ALL: [Arbiter; 4] = [WITNESS, HOLD, BACKUP, ASSUME_DEAD];
/// Ticks of T_dead.
const DEAD: u64 = 5;

impl Run {
    fn ticks(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.tick().expect("nothing that must never be");
        }
    }

    /// Ticks until something is so.
    fn until(&mut self, what: impl Fn(&Self) -> bool) -> u64 {
        for ticks in 0..60 {
            if what(self) {
                return ticks;
            }
            self.ticks(1);
        }
        panic!("it never comes to that: {:?}", [self.role(A), self.role(B)]);
    }

    fn protected(&self, side: usize) -> bool {
        self.serves(side)
            && self.world.boards[side]
                .as_ref()
                .is_some_and(|board| board.machine.protection() == Protection::Protected)
    }

    fn with(mut self, moves: &[Move]) -> Self {
        for step in moves {
            self.make(*step);
        }
        self
    }
}

/// A pair whose side a is protected.
fn pair(arbiter: Arbiter) -> Run {
    let mut run = Run::new(arbiter, Mutant::None);
    run.until(|run| run.protected(A));
    assert_eq!(
        [run.role(A), run.role(B)],
        [Some(Role::Primary), Some(Role::Backup)]
    );
    run.ticks(3);
    run
}

#[test]
fn two_new_boards_become_a_pair() {
    for arbiter in ALL {
        let mut run = Run::new(arbiter, Mutant::None);
        assert!(run.until(|run| run.protected(A)) < 10);
        run.ticks(50);
        assert!(run.protected(A), "it stays one");
    }
}

#[test]
fn the_backup_goes_on_when_the_primary_is_dead() {
    for arbiter in [WITNESS, BACKUP, ASSUME_DEAD] {
        let mut run = pair(arbiter).with(&[Move::Crash(A)]);
        let ticks = run.until(|run| run.serves(B));
        assert!((DEAD..DEAD + 4).contains(&ticks), "{ticks}");
        run = run.with(&[Move::Start(A)]);
        run.until(|run| run.protected(B));
        // And back.
        run = run.with(&[Move::Crash(B)]);
        run.until(|run| run.serves(A));
    }
}

#[test]
fn if_both_shall_wait_an_operator_decides() {
    let mut run = pair(HOLD).with(&[Move::Crash(A)]);
    run.ticks(40);
    assert_eq!(run.role(B), Some(Role::Backup));
    run = run.with(&[Move::Command(B, Command::Force)]);
    run.until(|run| run.serves(B));
    let mut run = pair(HOLD).with(&[Move::Crash(B)]);
    run.ticks(40);
    assert_eq!(run.role(A), Some(Role::Held));
    run = run.with(&[Move::Command(A, Command::Force)]);
    run.until(|run| run.serves(A));
}

#[test]
fn a_board_that_says_it_dies_is_not_waited_for() {
    for arbiter in ALL {
        let mut run = pair(arbiter).with(&[Move::Die(A)]);
        assert!(run.until(|run| run.serves(B)) < DEAD - 1);
        let mut run = pair(arbiter).with(&[Move::Die(B)]);
        run.until(|run| run.role(A) == Some(Role::Solo));
        run.ticks(20);
        assert!(run.serves(A));
    }
}

#[test]
fn a_primary_that_starts_anew_finds_the_backup_serving() {
    for arbiter in ALL {
        let mut run = pair(arbiter).with(&[Move::Restart(A)]);
        assert!(run.until(|run| run.serves(B)) < DEAD);
        run.until(|run| run.protected(B));
        assert_eq!(run.role(A), Some(Role::Backup));
    }
}

#[test]
fn a_backup_that_starts_anew_gets_another_understudy() {
    for arbiter in ALL {
        let mut run = pair(arbiter).with(&[Move::Restart(B)]);
        for _ in 0..20 {
            run.ticks(1);
            assert!(run.serves(A), "the service goes on meanwhile");
        }
        assert!(run.protected(A));
    }
}

#[test]
fn a_dead_backup_costs_the_service_a_short_time_or_an_operator() {
    for (arbiter, goes_on) in [
        (WITNESS, true),
        (ASSUME_DEAD, true),
        (HOLD, false),
        (BACKUP, false),
    ] {
        let mut run = pair(arbiter).with(&[Move::Crash(B)]);
        run.ticks(DEAD + 4);
        assert_eq!(run.serves(A), goes_on, "{arbiter:?}");
        run.ticks(40);
        assert_eq!(run.serves(A), goes_on, "{arbiter:?}");
    }
}

#[test]
fn a_lost_link_costs_protection_but_no_service() {
    for arbiter in ALL {
        let mut run = pair(arbiter).with(&[Move::Link(Way::Loses)]);
        for _ in 0..30 {
            run.ticks(1);
            assert!(run.serves(A));
        }
        assert_eq!(
            [run.role(A), run.role(B)],
            [Some(Role::Solo), Some(Role::Outdated)]
        );
        run = run.with(&[Move::Link(Way::Carries)]);
        run.until(|run| run.protected(A));
    }
}

#[test]
fn an_outdated_board_serves_only_by_force() {
    let outdated = || {
        let mut run = pair(WITNESS).with(&[Move::Link(Way::Loses)]);
        run.until(|run| run.role(B) == Some(Role::Outdated));
        run.ticks(3);
        run = run.with(&[Move::Crash(A)]);
        run.ticks(60);
        run
    };
    let run = outdated();
    assert_eq!(run.role(B), Some(Role::Outdated));
    // What leaves it then does not explain what left before: that is what the operator answers for.
    let mut run = outdated().with(&[Move::Command(B, Command::Force)]);
    let broken = (0..20).find_map(|_| run.tick().err());
    assert_eq!(broken, Some(Violation::Outdated));
}

#[test]
fn two_cut_boards_do_not_both_go_on_and_find_together_again() {
    for arbiter in [WITNESS, BACKUP] {
        let mut run = pair(arbiter).with(&[Move::Way(None, Way::Loses), Move::Link(Way::Loses)]);
        run.ticks(30);
        assert!(run.serves(A) != run.serves(B));
        run = run.with(&[Move::Way(None, Way::Carries), Move::Link(Way::Carries)]);
        run.until(|run| run.protected(A) || run.protected(B));
    }
    // If both wait, the primary goes on when it hears its backup.
    let mut run = pair(HOLD).with(&[Move::Way(None, Way::Loses)]);
    run.ticks(30);
    assert!(!run.serves(A) && !run.serves(B));
    run = run.with(&[Move::Way(None, Way::Carries)]);
    assert!(run.until(|run| run.protected(A)) < 4);
}

#[test]
fn a_cut_while_the_witness_is_away_ends_without_harm() {
    let cut = [
        Move::Lan(A, Lan::Loses),
        Move::Lan(B, Lan::Loses),
        Move::Way(None, Way::Loses),
    ];
    for ticks in 0..20 {
        let mut run = pair(WITNESS).with(&cut);
        run.ticks(ticks);
        run = run.with(&[Move::Way(None, Way::Carries)]);
        run.until(|run| run.serves(A) && run.role(A) == Some(Role::Primary));
        run.ticks(20);
        assert!(run.serves(A));
        // Both have asked for terms that nobody uses. That must not stand in the way of what comes later.
        run = run.with(&[Move::Lan(A, Lan::Carries), Move::Lan(B, Lan::Carries)]);
        run.until(|run| run.protected(A));
        run = run.with(&[Move::Crash(A)]);
        run.until(|run| run.serves(B));
    }
}

#[test]
fn a_switchover_changes_the_boards() {
    for arbiter in ALL {
        let mut run = pair(arbiter).with(&[Move::Command(A, Command::Switchover)]);
        assert!(run.until(|run| run.serves(B)) < DEAD);
        run.until(|run| run.protected(B));
        assert_eq!(
            [run.role(A), run.role(B)],
            [Some(Role::Backup), Some(Role::Primary)]
        );
    }
}

#[test]
fn a_switchover_survives_the_old_primary() {
    for ticks in 0..20 {
        let mut run = pair(WITNESS).with(&[Move::Command(A, Command::Switchover)]);
        run.ticks(ticks);
        run = run.with(&[Move::Crash(A)]);
        run.until(|run| run.serves(B));
        run = run.with(&[Move::Start(A)]);
        run.until(|run| run.protected(B));
    }
}

#[test]
fn a_switchover_survives_the_new_primary_unless_it_has_begun_alone() {
    let mut alone = 0;
    for ticks in 0..20 {
        let mut run = pair(WITNESS).with(&[Move::Command(A, Command::Switchover)]);
        run.ticks(ticks);
        let granted = run
            .world
            .ledger
            .last
            .is_some_and(|last| last.holder.side == Side::B);
        run = run.with(&[Move::Crash(B)]);
        run.ticks(40);
        if run.serves(A) {
            run = run.with(&[Move::Start(B)]);
            run.until(|run| run.protected(A));
        } else {
            // Its guests are lost with it, as those of any board that serves unprotected.
            alone += 1;
            assert!(granted);
            run = run.with(&[Move::Command(A, Command::Force)]);
            let outdated = (0..10).find_map(|_| run.tick().err());
            assert!(run.serves(A));
            assert!(outdated.is_none_or(|broken| broken == Violation::Outdated));
        }
    }
    assert!(alone < 8, "it was alone for {alone} ticks");
}

#[test]
fn a_switchover_that_nobody_takes_is_taken_back() {
    for arbiter in [WITNESS, HOLD, BACKUP] {
        // The link carries nothing: there is no final epoch.
        let mut run = pair(arbiter).with(&[
            Move::Link(Way::Keeps),
            Move::Command(A, Command::Switchover),
        ]);
        run.ticks(2);
        assert_eq!(run.role(A), Some(Role::HandingOver));
        run.until(|run| run.role(A) == Some(Role::Primary));
        // The peer hears of nothing for a while.
        let mut run = pair(arbiter).with(&[Move::Command(A, Command::Switchover)]);
        run.ticks(1);
        run = run.with(&[Move::Way(Some(A), Way::Loses)]);
        run.ticks(4);
        assert!(!run.serves(A) && !run.serves(B));
        run = run.with(&[Move::Way(Some(A), Way::Carries)]);
        run.until(|run| run.protected(A));
    }
}

#[test]
fn a_lost_uplink_is_a_reason_to_switch_over_once() {
    let mut run = pair(WITNESS).with(&[Move::Uplink(A, false)]);
    assert!(run.until(|run| run.serves(B)) < 10);
    run.until(|run| run.protected(B));
    // Both are down: nothing is better than anything else.
    run = run.with(&[Move::Uplink(B, false)]);
    run.ticks(40);
    assert!(run.protected(B));
    run = run.with(&[Move::Uplink(A, true)]);
    run.until(|run| run.protected(A));
}

#[test]
fn after_a_double_power_loss_the_pair_starts_again() {
    for arbiter in ALL {
        let mut run = pair(arbiter).with(&[Move::Crash(A), Move::Crash(B)]);
        run.ticks(30);
        run = run.with(&[Move::Start(A), Move::Start(B)]);
        run.until(|run| run.protected(A) || run.protected(B));
    }
    // Also if the side that is not the first one was the last to serve, and was only just granted that.
    let mut run = pair(WITNESS).with(&[Move::Crash(A), Move::Lan(B, Lan::LosesAnswers)]);
    run.ticks(20);
    assert!(!run.serves(B));
    run = run.with(&[
        Move::Crash(B),
        Move::Lan(B, Lan::Carries),
        Move::Start(A),
        Move::Start(B),
    ]);
    run.until(|run| run.protected(A) || run.protected(B));
}

#[test]
fn a_board_alone_starts_by_the_witness_or_an_operator() {
    // The last one to serve may.
    let mut run = pair(WITNESS).with(&[Move::Crash(A), Move::Crash(B), Move::Start(A)]);
    run.until(|run| run.serves(A));
    // The other one may not: the first could still have the guests.
    let mut run = pair(WITNESS).with(&[Move::Crash(A), Move::Crash(B), Move::Start(B)]);
    run.ticks(60);
    assert_eq!(run.role(B), Some(Role::Waiting));
    run = run.with(&[Move::Command(B, Command::Force)]);
    run.until(|run| run.serves(B));
    // Without a witness, only silence that means death is enough.
    for (arbiter, starts) in [(HOLD, false), (BACKUP, false), (ASSUME_DEAD, true)] {
        let mut run = pair(arbiter).with(&[Move::Crash(A), Move::Crash(B), Move::Start(B)]);
        run.ticks(60);
        assert_eq!(run.serves(B), starts, "{arbiter:?}");
    }
}

#[test]
fn force_does_not_need_the_witness() {
    let mut run = pair(WITNESS).with(&[Move::Crash(A), Move::Lan(B, Lan::Loses)]);
    run.ticks(20);
    assert!(!run.serves(B));
    run = run.with(&[Move::Command(B, Command::Force)]);
    assert!(run.until(|run| run.serves(B)) < 6);
    // The witness hears of it later, and then nobody else is let in.
    run = run.with(&[Move::Lan(B, Lan::Carries)]);
    run.ticks(5);
    run = run.with(&[Move::Way(None, Way::Loses), Move::Start(A)]);
    run.ticks(60);
    assert_eq!(run.role(A), Some(Role::Waiting));
}

#[test]
fn a_detached_backup_can_be_switched_off() {
    for arbiter in ALL {
        let mut run = pair(arbiter).with(&[Move::Command(A, Command::Detach)]);
        run.until(|run| run.role(A) == Some(Role::Solo));
        run = run.with(&[Move::Crash(B)]);
        for _ in 0..30 {
            run.ticks(1);
            assert!(run.serves(A));
        }
        run = run.with(&[Move::Start(B)]);
        run.until(|run| run.protected(A));
    }
}

#[test]
fn a_frozen_primary_that_thaws_serves_no_more() {
    for arbiter in [WITNESS, BACKUP] {
        let mut run = pair(arbiter).with(&[Move::Freeze(A)]);
        run.until(|run| run.serves(B));
        run = run.with(&[Move::Thaw(A)]);
        run.until(|run| run.protected(B));
        assert_eq!(run.role(A), Some(Role::Backup));
    }
}

/// One board serves alone, is frozen, and an operator forces the other one. What the pair comes to when the first one thaws.
fn forced_beside_a_frozen_one(mutant: Mutant) -> [bool; 2] {
    let mut run = pair(WITNESS).with(&[Move::Link(Way::Loses)]);
    run.until(|run| run.role(A) == Some(Role::Solo));
    run.ticks(3);
    run.mutant = mutant;
    run = run.with(&[Move::Freeze(A), Move::Lan(A, Lan::Loses)]);
    run.ticks(DEAD + 3);
    run = run.with(&[Move::Command(B, Command::Force)]);
    // By the operator's will, an outdated state serves, and until they hear of each other both do.
    for _ in 0..10 {
        let _ = run.tick();
    }
    run.make(Move::Thaw(A));
    for _ in 0..10 {
        let _ = run.tick();
    }
    [run.serves(A), run.serves(B)]
}

#[test]
fn a_later_term_stops_the_earlier_one() {
    assert_eq!(forced_beside_a_frozen_one(Mutant::None), [false, true]);
    assert_eq!(
        forced_beside_a_frozen_one(Mutant::IgnoresTerms),
        [true, true]
    );
}

/// The pair goes on in a term that it agreed on, unknown to the witness. Then the primary starts anew twice, and is granted the
/// term of that number; the backup must not take it for the one that it knows.
fn another_life_in_a_term_of_the_same_number(mutant: Mutant) -> Result<(), Violation> {
    let mut run = Run::new(WITNESS, mutant);
    let moves = [
        (2, Move::Lan(B, Lan::Keeps)),
        (4, Move::Command(A, Command::Switchover)),
        (0, Move::Lan(A, Lan::Loses)),
        (6, Move::Way(Some(B), Way::Loses)),
        (0, Move::Restart(A)),
        (0, Move::Restart(A)),
        (4, Move::Lan(A, Lan::Carries)),
        (3, Move::Lan(B, Lan::Carries)),
    ];
    for (ticks, step) in moves {
        for _ in 0..ticks {
            run.tick()?;
        }
        run.make(step);
    }
    for _ in 0..20 {
        run.tick()?;
    }
    Ok(())
}

#[test]
fn a_basis_is_somebodys() {
    let run = another_life_in_a_term_of_the_same_number;
    assert_eq!(run(Mutant::None), Ok(()));
    assert_eq!(run(Mutant::AnyLife), Err(Violation::TwoServe));
}

#[test]
fn a_term_that_a_board_raised_itself_to_is_not_the_peers() {
    let mut run = Run::new(WITNESS, Mutant::None);
    let moves = [
        (4, Move::Lan(A, Lan::Loses)),
        (0, Move::Freeze(B)),
        (2, Move::Way(Some(B), Way::Loses)),
        (2, Move::Way(Some(B), Way::Carries)),
        (1, Move::Thaw(B)),
        (3, Move::Way(None, Way::Loses)),
        (2, Move::Link(Way::Loses)),
        (4, Move::Lan(A, Lan::Carries)),
    ];
    for (ticks, step) in moves {
        run.ticks(ticks);
        run.make(step);
    }
    // Both are in a term of the same number: the one that was granted it, and the one that wanted it.
    run.ticks(20);
    assert_eq!(run.role(B), Some(Role::Solo));
    run = run.with(&[Move::Way(None, Way::Carries), Move::Link(Way::Carries)]);
    run.until(|run| run.protected(B));
}

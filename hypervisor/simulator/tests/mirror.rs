//! The mirror under the judge's eyes.
//!
//! `SIMULATOR_SEEDS` says how many wild runs there are of each arbiter, and `SIMULATOR_FIRST` with which seed they begin.

use mirror::{Arbiter, Command, OnSilence, Path, Side};
use simulator::{ARBITERS, Fault, Figures, Mutation, Scenario, run};
use std::time::{Duration, Instant};

/// Wild runs of each arbiter, where nobody says otherwise.
const SEEDS: u64 = 10;

const fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number"))
    })
}

fn passes(scenario: &Scenario) -> Figures {
    run(scenario).unwrap_or_else(|failure| panic!("{failure}"))
}

/// Runs with these faults at these times in milliseconds, by every arbiter and some seeds.
fn always_passes(length: u64, faults: &[(u64, Fault)]) {
    for arbiter in ARBITERS {
        for seed in 0..6 {
            let mut scenario = Scenario::calm(seed, arbiter, at(length));
            let faults = faults.iter().map(|(when, fault)| (at(*when), *fault));
            scenario.faults = faults.collect();
            let figures = passes(&scenario);
            assert!(figures.replies > 100, "{figures:?}");
        }
    }
}

#[test]
fn without_faults_guests_are_soon_protected_and_stay_so() {
    for arbiter in ARBITERS {
        for seed in 0..3 {
            let figures = passes(&Scenario::calm(seed, arbiter, at(5000)));
            assert_eq!(
                (figures.protections, figures.starts, figures.takeovers),
                (1, 1, 0)
            );
            let first = figures.first_protection.expect("they were protected");
            assert!(first < at(400), "{first:?}");
            assert!(figures.replies > 1000, "{figures:?}");
        }
    }
}

#[test]
fn a_run_is_the_same_every_time() {
    let scenario = Scenario::wild(7, Arbiter::Witness, at(5000));
    assert_eq!(passes(&scenario), passes(&scenario));
}

fn wild(arbiter: Arbiter) {
    let (first, seeds) = (
        number("SIMULATOR_FIRST", 0),
        number("SIMULATOR_SEEDS", SEEDS),
    );
    let begin = Instant::now();
    let mut all = Figures::default();
    for seed in first..first + seeds {
        let figures = passes(&Scenario::wild(seed, arbiter, at(20_000)));
        all.add(&figures);
    }
    let rate = all.steps as f64 / begin.elapsed().as_secs_f64();
    println!("{arbiter:?}: {all}; {rate:.0} steps a second");
    assert!(
        all.takeovers > seeds && all.proofs >= seeds / 4,
        "nothing happened: {all:?}"
    );
}

#[test]
fn wild_runs_with_a_witness() {
    wild(Arbiter::Witness);
}

#[test]
fn wild_runs_where_the_backup_goes_on() {
    wild(Arbiter::Rule(OnSilence::Backup));
}

#[test]
fn wild_runs_where_both_wait_for_the_operator() {
    wild(Arbiter::Rule(OnSilence::Hold));
}

#[test]
fn wild_runs_where_a_silent_peer_is_dead() {
    wild(Arbiter::Rule(OnSilence::AssumeDead));
}

/// The backup once took the first understudy of the peer's new life for the one that it had by that number from the life before.
#[test]
fn a_board_that_started_anew_counts_understudies_from_one_again() {
    always_passes(
        5000,
        &[
            (1000, Fault::Command(Side::A, Command::Switchover)),
            (2000, Fault::Kill(Side::B)),
            (2900, Fault::Start(Side::B)),
            (4000, Fault::Command(Side::A, Command::Switchover)),
        ],
    );
}

/// The guests once ran on with all that they put out held, and were said to be protected.
#[test]
fn epochs_go_on_when_a_switchover_is_called_off() {
    always_passes(
        2000,
        &[
            (1000, Fault::Cut(Path::Link, Side::A, true)),
            (1000, Fault::Command(Side::A, Command::Switchover)),
            (1300, Fault::Cut(Path::Link, Side::A, false)),
        ],
    );
}

/// Switchovers there and back, on good wires, with clients of whom none may have to ask again.
fn lossless(seed: u64, arbiter: Arbiter, switched: bool) -> Scenario {
    let order = |turn: u64| {
        let side = if turn % 2 == 1 { Side::A } else { Side::B };
        let command = Fault::Command(side, Command::Switchover);
        (at(1000 + turn * 400), command)
    };
    let mut scenario = Scenario::calm(seed, arbiter, at(6000));
    scenario.faults = (1..12).map(order).collect();
    (scenario.lossless, scenario.switched) = (true, switched);
    scenario
}

/// Whatever came while the guests stood still, or came to the board on which they are no longer, was once lost.
#[test]
fn no_request_is_lost_in_a_switchover() {
    for arbiter in ARBITERS {
        for switched in [false, true] {
            for seed in 0..6 {
                let figures = passes(&lossless(seed, arbiter, switched));
                assert!(figures.takeovers >= 8, "{figures:?}");
                assert!(figures.replies > 1000, "{figures:?}");
            }
        }
    }
}

#[test]
fn a_request_that_is_lost_is_found() {
    for switched in [false, true] {
        let scenario = lossless(0, Arbiter::Witness, switched).with(Mutation::LostInputs);
        let failure = run(&scenario).expect_err("it is found");
        assert!(failure.what.contains("must be asked again"), "{failure}");
    }
}

/// A board once told the peer to go on before its own last frames were on the wire.
#[test]
fn nobody_transmits_after_he_handed_over() {
    let order = |turn: u64| {
        let side = if turn % 2 == 1 { Side::A } else { Side::B };
        (turn * 300, Fault::Command(side, Command::Switchover))
    };
    let faults: Vec<_> = (1..40).map(order).collect();
    always_passes(12_000, &faults);
}

/// Guests once put out nothing any more, and were said to be protected, while heartbeats came and nothing was acknowledged.
#[test]
fn a_backup_that_is_heard_and_acknowledges_nothing_is_given_up() {
    for arbiter in ARBITERS {
        let mut scenario = Scenario::calm(1, arbiter, at(5000));
        scenario.faults.push((at(1000), Fault::Short(true)));
        let figures = passes(&scenario);
        // They were unprotected meanwhile, and are protected again when all is well.
        let seen = (figures.protections, figures.takeovers);
        assert_eq!(seen, (2, 0), "{figures:?}");
    }
}

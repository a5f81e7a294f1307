//! The judge judged: each mistake that is made on purpose must be found.

use mirror::{Arbiter, Command, OnSilence, Path, Side};
use simulator::{ARBITERS, Failure, Fault, Mutation, Scenario, run, shrink};
use std::time::Duration;

/// Seeds that are tried until the mistake is found.
const SEEDS: u64 = 200;
const LENGTH: Duration = Duration::from_secs(8);

/// Runs with a mistake until the judge finds it; what he says.
fn found(mutation: Mutation, arbiters: &[Arbiter]) -> Failure {
    for seed in 0..SEEDS {
        for arbiter in arbiters {
            let scenario = Scenario::wild(seed, *arbiter, LENGTH).with(mutation);
            if let Err(failure) = run(&scenario) {
                println!("{mutation:?}, {arbiter:?}, seed {seed}: {}", failure.what);
                return *failure;
            }
        }
    }
    panic!("{mutation:?} is not found in {SEEDS} seeds");
}

#[test]
fn outputs_that_leave_before_they_are_acknowledged_are_found() {
    let failure = found(Mutation::EarlyRelease, &ARBITERS);
    assert!(failure.what.contains("and the backup has"), "{failure}");
}

#[test]
fn pages_written_into_the_live_image_are_found() {
    let failure = found(Mutation::Unstaged, &ARBITERS);
    assert!(failure.what.contains("is not what it was"), "{failure}");
}

#[test]
fn marks_of_the_hypervisor_that_are_left_out_are_found() {
    let failure = found(Mutation::OmittedMarks, &ARBITERS);
    assert!(failure.what.contains("is not what it was"), "{failure}");
}

#[test]
fn a_lease_without_an_end_is_found() {
    let failure = found(Mutation::NoLease, &[Arbiter::Rule(OnSilence::Backup)]);
    assert!(failure.what.contains("both boards serve"), "{failure}");
}

#[test]
fn a_witness_that_grants_everything_is_found() {
    let failure = found(Mutation::GrantsTwice, &[Arbiter::Witness]);
    let two = [
        "both boards serve",
        "that does not hold what clients have seen",
    ];
    assert!(
        two.iter().any(|what| failure.what.contains(what)),
        "{failure}"
    );
}

/// An operator detaches the peer, and later, when the boards do not hear each other, has the peer go on, though the first one serves.
fn forced_wrongly(seed: u64) -> Scenario {
    let at = Duration::from_millis;
    let arbiter = Arbiter::Rule(OnSilence::Hold);
    let mut scenario = Scenario::calm(seed, arbiter, at(3500));
    for side in [Side::A, Side::B] {
        let detach = Fault::Command(side, Command::Detach);
        scenario.faults.push((at(1000), detach));
        for path in [Path::Link, Path::Lan] {
            let cut = |cut| Fault::Cut(path, side, cut);
            scenario.faults.push((at(1500), cut(true)));
            scenario.faults.push((at(2500), cut(false)));
        }
    }
    scenario
        .faults
        .push((at(2000), Fault::ForceWrongly(Side::B)));
    scenario
}

#[test]
fn two_that_serve_become_one_when_they_hear_each_other() {
    for seed in 0..5 {
        if let Err(failure) = run(&forced_wrongly(seed)) {
            panic!("{failure}");
        }
    }
}

#[test]
fn a_later_term_that_is_ignored_is_found() {
    let failure = run(&forced_wrongly(0).with(Mutation::IgnoredTerm)).expect_err("it is found");
    assert!(
        failure.what.contains("although they hear each other"),
        "{failure}"
    );
}

#[test]
fn a_run_that_fails_is_made_shorter() {
    let mut scenario = forced_wrongly(0).with(Mutation::IgnoredTerm);
    let early = [
        Fault::WitnessRestarts,
        Fault::Command(Side::B, Command::Attach),
    ];
    scenario
        .faults
        .extend(early.map(|fault| (Duration::from_millis(300), fault)));
    let shorter = shrink(&scenario);
    assert!(run(&shorter).is_err());
    assert!(shorter.faults.len() < scenario.faults.len());
    assert!(
        !shorter
            .faults
            .iter()
            .any(|(_, fault)| early.contains(fault))
    );
}

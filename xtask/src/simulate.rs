//! `cargo xtask simulate`: the mirror in a simulator where boards and wires fail.

use crate::cli::{self, SimulateOptions};
use mirror::{Arbiter, OnSilence};
use simulator::{ARBITERS, Figures, Scenario};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs until something is wrong, or to the end.
pub(crate) fn simulate(options: &SimulateOptions) -> ExitCode {
    let chosen = options.arbiter.map(|arbiter| [arbiter.into()]);
    let arbiters = chosen.as_ref().map_or(&ARBITERS[..], |one| &one[..]);
    for arbiter in arbiters {
        let begin = Instant::now();
        let mut all = Figures::default();
        for seed in options.seed..options.seed.saturating_add(options.runs) {
            let length = Duration::from_secs(options.length);
            let scenario = Scenario::wild(seed, *arbiter, length);
            match simulator::run(&scenario) {
                Ok(figures) => all.add(&figures),
                Err(failure) => {
                    println!("{failure}");
                    if options.shrink {
                        shrink(&scenario);
                    }
                    return ExitCode::FAILURE;
                }
            }
        }
        let rate = all.steps as f64 / begin.elapsed().as_secs_f64();
        println!("{}: {all}; {rate:.0} steps a second", name(*arbiter));
    }
    ExitCode::SUCCESS
}

fn shrink(scenario: &Scenario) {
    let shorter = simulator::shrink(scenario);
    println!("With these faults it fails as well:");
    for (at, fault) in &shorter.faults {
        println!("{:>10.3} ms {fault:?}", at.as_secs_f64() * 1e3);
    }
    if let Err(failure) = simulator::run(&shorter) {
        println!("{failure}");
    }
}

const fn name(arbiter: Arbiter) -> &'static str {
    match arbiter {
        Arbiter::Witness => "witness",
        Arbiter::Rule(OnSilence::Backup) => "backup",
        Arbiter::Rule(OnSilence::Hold) => "hold",
        Arbiter::Rule(OnSilence::AssumeDead) => "assume-dead",
    }
}

impl From<cli::Arbiter> for Arbiter {
    fn from(arbiter: cli::Arbiter) -> Self {
        match arbiter {
            cli::Arbiter::Witness => Self::Witness,
            cli::Arbiter::Backup => Self::Rule(OnSilence::Backup),
            cli::Arbiter::Hold => Self::Rule(OnSilence::Hold),
            cli::Arbiter::AssumeDead => Self::Rule(OnSilence::AssumeDead),
        }
    }
}

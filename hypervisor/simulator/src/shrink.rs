//! From a run that fails to a shorter one that fails too.

use crate::scenario::Scenario;
use crate::world::run;

/// Leaves out what may be left out of a run that fails, so that it fails still, maybe for another reason.
#[must_use]
pub fn shrink(scenario: &Scenario) -> Scenario {
    let mut best = scenario.clone();
    let mut chunk = best.faults.len();
    while chunk > 0 {
        let mut at = 0;
        while at < best.faults.len() {
            let mut less = best.clone();
            less.faults.drain(at..best.faults.len().min(at + chunk));
            if run(&less).is_err() {
                best = less;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    best
}

//! Small guests that probe or attack the hypervisor, each with what must come of it.

use super::Case;
use super::lab::Lab;
use anyhow::Result;

/// What a probe must lead to.
enum Outcome {
    /// The probe itself says that all is well.
    Passes,
    /// The guest crashes, and nothing else does.
    Crashes,
}

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![Case::new(
        "probe-triple-fault",
        "a triple fault stops the guest and nothing else",
        180,
        |lab| probe(lab, "triple-fault", &Outcome::Crashes),
    )]
}

fn probe(lab: &Lab, name: &str, outcome: &Outcome) -> Result<()> {
    let mut session = lab.boot(&format!(
        "[board]\nname = \"probe\"\ncpus = 2\n\n\
         [[guest]]\nname = \"probe\"\nimage = \"@probes\"\nmemory = \"16M\"\ncpu = 1\n\
         command_line = \"{name}\"\n"
    ))?;
    match outcome {
        Outcome::Passes => session.expect(&format!("probe {name}: ok"))?,
        Outcome::Crashes => session.expect("probe: crashed: ")?,
    };
    session.never_said("FAILED")?;
    // The hypervisor must still be there.
    session.send("\x0fh")?;
    session.expect("understudy> ")?;
    session.send("poweroff\r")?;
    session.wait_power_off()
}

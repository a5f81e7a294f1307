//! Small guests that probe or attack the hypervisor, each with what must come of it.

use super::Case;
use super::boards::{self, PROMPT};
use super::lab::{Lab, Session};
use super::rtos;
use anyhow::Result;

/// Probes that say themselves whether all is well, on one PC after the other, which then powers off.
macro_rules! pass {
    ($name:literal, $about:literal, $($probe:literal),+) => {
        Case::new(concat!("probe-", $name), $about, 240, |lab| pass(lab, &[$($probe),+]))
    };
}

/// A probe that must not survive.
macro_rules! crashes {
    ($name:literal, $about:literal) => {
        Case::new(concat!("probe-", $name), $about, 180, |lab| {
            crashes(lab, $name)
        })
    };
}

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        pass!("memory", "all RAM of the memory map is there", "memory-map"),
        pass!(
            "instructions",
            "instructions and registers that are not there raise their exceptions; CPUID holds together",
            "undefined",
            "absent-msr",
            "vmx-instructions",
            "cr",
            "cpuid"
        ),
        pass!(
            "exceptions",
            "exceptions, single steps and debug registers are as on a processor, emulated instructions included",
            "exceptions",
            "single-step",
            "debug-registers"
        ),
        pass!(
            "msrs",
            "every MSR that is not there raises its exception, read or written",
            "msrs"
        ),
        pass!(
            "strings",
            "string I/O stops exactly at page ends and segment limits, and goes on from there",
            "string-pages",
            "string-segments"
        ),
        pass!(
            "modes",
            "odd page tables, real mode, 16-bit code and code that changes itself work",
            "page-tables",
            "real-mode",
            "16-bit",
            "self-modifying"
        ),
        pass!(
            "tasks",
            "hardware task switches and their faults are as on a processor",
            "task-switch",
            "task-fault"
        ),
        pass!(
            "ports",
            "every port can be read; the unclaimed ones answer all ones",
            "ports"
        ),
        pass!(
            "time",
            "the timer interrupt comes at its rate and wakes a halted processor",
            "timer",
            "hlt"
        ),
        pass!(
            "fpu",
            "the floating-point registers survive ten thousand exits",
            "fpu"
        ),
        crashes!(
            "triple-fault",
            "a triple fault stops the guest and nothing else"
        ),
        crashes!(
            "wild-memory",
            "an access to memory that is not there stops the guest"
        ),
        Case::new(
            "probe-console",
            "what is typed reaches a guest that polls its serial port",
            180,
            console,
        ),
        Case::new(
            "probe-reset",
            "a guest can reset its PC in each of the three old ways",
            300,
            reset,
        ),
        Case::new(
            "probe-spin",
            "a guest that spins with interrupts off can be stopped",
            180,
            spin,
        ),
        Case::new(
            "probe-spin-neighbour",
            "a guest that spins with interrupts off does not delay a more urgent one",
            300,
            spin_neighbour,
        ),
    ]
}

fn board(command_line: &str) -> String {
    format!(
        "[board]\nname = \"probe\"\ncpus = 2\nwhen_all_off = \"power-off\"\n\n\
         [[guest]]\nname = \"probe\"\nimage = \"@probes\"\nmemory = \"16M\"\ncpu = 1\n\
         command_line = \"{command_line}\"\n"
    )
}

fn pass(lab: &Lab, probes: &[&str]) -> Result<()> {
    let mut session = lab.boot(&board(&probes.join(" ")))?;
    for probe in probes {
        session.expect_unless(&format!("probe {probe}: passed"), "FAILED")?;
    }
    session.wait_power_off()?;
    session.never_said("probe: crashed")
}

fn crashes(lab: &Lab, name: &str) -> Result<()> {
    let mut session = lab.boot(&board(name).replace("power-off", "stay"))?;
    session.expect_unless("probe: crashed: ", "FAILED")?;
    boards::shell(&mut session)?;
    power_off(&mut session)?;
    session.never_said("FAILED")
}

/// The hypervisor must still be there.
fn power_off(session: &mut Session) -> Result<()> {
    session.send("poweroff\r")?;
    session.wait_power_off()
}

fn console(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(&board("console"))?;
    session.expect("probe console: ready")?;
    for text in [
        "hello",
        "The quick brown fox jumps over the lazy dog 0123456789",
    ] {
        session.send(&format!("{text}\r"))?;
        session.expect(&format!("probe console: echo {text}\n"))?;
    }
    session.send("quit\r")?;
    session.expect("probe console: passed")?;
    session.wait_power_off()
}

fn reset(lab: &Lab) -> Result<()> {
    for way in ["kbd", "92", "cf9"] {
        let mut session = lab.boot(&board(&format!("reset-{way}")))?;
        // The PC starts afresh and comes to the same point again.
        for _ in 0..2 {
            session.expect("probe reset: resetting by")?;
            session.expect_unless("probe: reset by the guest", "FAILED")?;
        }
    }
    Ok(())
}

fn spin(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(&board("spin").replace("power-off", "stay"))?;
    session.expect("probe spin: about to spin")?;
    boards::shell(&mut session)?;
    session.send("dump probe\r")?;
    session.expect("rip")?;
    session.send("stop probe\r")?;
    session.expect("probe: stopped")?;
    power_off(&mut session)
}

fn spin_neighbour(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(
        "[board]\nname = \"neighbours\"\ncpus = 1\n\n\
         [[guest]]\nname = \"spin\"\nimage = \"@probes\"\nmemory = \"16M\"\ncpu = 0\n\
         priority = 10\ncommand_line = \"spin\"\n\n\
         [[guest]]\nname = \"rtos\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = 0\n\
         priority = 200\n",
    )?;
    session.expect("probe spin: about to spin")?;
    session.send("\x0f2\r")?;
    rtos::ready(&mut session)?;
    session.send("selftest\r")?;
    session.expect(" passed, 0 failed")?;
    session.send("jitter 500\r")?;
    session.expect("jitter: n=500 ")?;
    session.expect(", 0 overruns")?;
    session.send("\x0fh")?;
    session.expect(PROMPT)?;
    power_off(&mut session)
}

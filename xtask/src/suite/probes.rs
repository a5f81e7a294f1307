//! Small guests that probe or attack the hypervisor, each with what must come of it.

use super::Case;
use super::boards::{self, PROMPT};
use super::lab::{Lab, Session};
use super::natively;
use super::rtos;
use anyhow::{Result, ensure};

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
            "vmx-pointers",
            "svm-instructions",
            "refused",
            "cr",
            "cr0-paging-alone",
            "cr0-cache-mode",
            "cpuid"
        ).on_both(),
        pass!(
            "exceptions",
            "exceptions, single steps and debug registers are as on a processor, emulated instructions included",
            "exceptions",
            "segment-limit",
            "single-step",
            "debug-registers",
            "debug-reserved"
        ).on_both(),
        pass!(
            "msrs",
            "every MSR that is not there raises its exception, read or written",
            "msrs",
            "memory-types",
            "canonical"
        ).on_both(),
        pass!(
            "strings",
            "string I/O stops exactly at page ends and segment limits, and goes on from there",
            "string-pages",
            "string-segments"
        ).on_both(),
        pass!(
            "lengths",
            "instructions that exit end where they end, with prefixes, and where addresses wrap",
            "prefixes",
            "wrap"
        ).on_both(),
        pass!(
            "modes",
            "odd page tables, real mode, 16-bit code and code that changes itself work",
            "page-tables",
            "page-reserved",
            "page-pointers",
            "real-mode",
            "16-bit",
            "self-modifying"
        ).on_both(),
        pass!(
            "tasks",
            "hardware task switches and their faults are as on a processor",
            "task-switch",
            "task-fault",
            "task-trap",
            "task-entry-fault"
        ).on_both(),
        pass!(
            "ports",
            "every port can be read; the unclaimed ones answer all ones",
            "ports"
        ),
        pass!(
            "time",
            "the timer interrupt comes at its rate, wakes a halted processor, and none of a storm is lost",
            "timer",
            "hlt",
            "storm"
        ).on_both(),
        pass!(
            "fpu",
            "the floating-point registers survive ten thousand exits",
            "fpu"
        ).on_both(),
        crashes!(
            "triple-fault",
            "a triple fault stops the guest and nothing else"
        ).on_both(),
        Case::new(
            "probe-wild",
            "an access of any kind to memory that is not there stops the guest, and its neighbour notices nothing",
            300,
            wild,
        ).on_both(),
        Case::new(
            "probe-wild-tables",
            "the same for tables that are not there",
            300,
            wild_tables,
        ).on_both(),
        Case::new(
            "probe-apic",
            "every claimed form of an access to a mapped device does as on RAM; NMIs come one at a time",
            240,
            apic,
        ).on_both(),
        Case::new(
            "probe-vectors",
            "two guests on one processor have vector registers of their own",
            240,
            vectors,
        ).on_both(),
        Case::new(
            "probe-storm",
            "a guest in a storm of interrupts does not delay a more urgent one",
            300,
            storm,
        ).on_both(),
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
            "a guest that spins with interrupts off can be restarted and stopped",
            180,
            spin,
        ),
        Case::new(
            "probe-spin-neighbour",
            "a guest that spins with interrupts off does not delay a more urgent one",
            300,
            spin_neighbour,
        ).on_both(),
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
    let possible = |probe: &&str| !(lab.is_tcg() && natively::is_lacking(probe));
    let probes: Vec<_> = probes.iter().copied().filter(possible).collect();
    let mut session = lab.boot(&board(&probes.join(" ")))?;
    for probe in &probes {
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

/// A guest for a board of several.
fn guest(name: &str, image: &str, cpu: u32, priority: u32, more: &str) -> String {
    format!(
        "[[guest]]\nname = \"{name}\"\nimage = \"{image}\"\nmemory = \"16M\"\ncpu = {cpu}\n\
         priority = {priority}\n{more}\n\n"
    )
}

fn wild(lab: &Lab) -> Result<()> {
    let probes = [
        ("wild-read", "read of memory it does not own at 0xc0000000"),
        (
            "wild-write",
            "write of memory it does not own at 0xc0000000",
        ),
        (
            "wild-fetch",
            "instruction fetch of memory it does not own at 0xc0000000",
        ),
        (
            "wild-stack",
            "write of memory it does not own at 0xbffffffc",
        ),
        (
            "wild-string",
            "string I/O on memory it does not own at 0xc0000000",
        ),
    ];
    crash_beside_a_neighbour(lab, &probes)
}

fn wild_tables(lab: &Lab) -> Result<()> {
    // AMD-V leaves task switches to the processor.
    let task = if lab.has_svm() {
        "write of memory it does not own at 0xc0000000"
    } else {
        "task switch in memory it does not own at 0xc0000000"
    };
    let probes = [
        ("wild-tables", "of memory it does not own at 0xc000"),
        ("wild-idt", "read of memory it does not own at 0xc0000018"),
        ("wild-task", task),
    ];
    crash_beside_a_neighbour(lab, &probes)
}

/// Each of the probes crashes by its cause, and an RTOS notices nothing.
fn crash_beside_a_neighbour(lab: &Lab, probes: &[(&str, &str)]) -> Result<()> {
    let mut text = "[board]\nname = \"wild\"\ncpus = 2\n\n".to_owned();
    text += &guest("rtos", "@rtos", 1, 1, "");
    for (priority, (name, _)) in (1..).zip(probes) {
        let more = format!("command_line = \"{name}\"\nautostart = false");
        text += &guest(name, "@probes", 0, priority, &more);
    }
    let mut session = lab.boot(&text)?;
    rtos::ready(&mut session)?;
    boards::shell(&mut session)?;
    for (name, cause) in probes {
        session.send(&format!("start {name}\r"))?;
        session.expect(&format!("{name}: crashed: "))?;
        let said = session.expect("\n")?;
        ensure!(
            said.contains(*cause),
            "{name} crashed by another cause: {said}"
        );
    }
    session.send("\x0f1\r")?;
    rtos::ready(&mut session)?;
    session.send("selftest\r")?;
    session.expect(" passed, 0 failed")?;
    boards::shell(&mut session)?;
    power_off(&mut session)?;
    session.never_said("survived")?;
    session.never_said("rtos: crashed")
}

fn apic(lab: &Lab) -> Result<()> {
    let devices = "command_line = \"mmio-forms nmi hlt\"\n\
                   devices = [\"com1\", \"rtc\", \"pci\", \"apic\"]";
    let text = board("").replace("command_line = \"\"", devices);
    let mut session = lab.boot(&text)?;
    for probe in ["mmio-forms", "nmi", "hlt"] {
        session.expect_unless(&format!("probe {probe}: passed"), "FAILED")?;
    }
    session.wait_power_off()?;
    session.never_said("probe: crashed")
}

fn vectors(lab: &Lab) -> Result<()> {
    let line = |seed| format!("command_line = \"vectors seed={seed}\"");
    let text = "[board]\nname = \"vectors\"\ncpus = 1\n\n".to_owned()
        + &guest("spins", "@probes", 0, 10, &line("spins"))
        + &guest("halts", "@probes", 0, 20, &line("halts"));
    let mut session = lab.boot(&text)?;
    for _ in 0..2 {
        session.expect_unless(": powered off", "FAILED")?;
    }
    boards::shell(&mut session)?;
    for name in ["spins", "halts"] {
        session.send(&format!("show {name}\r"))?;
        session.expect_unless("probe vectors: passed", "FAILED")?;
    }
    power_off(&mut session)?;
    session.never_said("crashed")
}

fn storm(lab: &Lab) -> Result<()> {
    let storms = ["storm"; 20].join(" ");
    let more = format!("autostart = false\ncommand_line = \"{storms}\"");
    let text = "[board]\nname = \"storm\"\ncpus = 1\n\n".to_owned()
        + &guest("rtos", "@rtos", 0, 200, "")
        + &guest("storm", "@probes", 0, 10, &more);
    let mut session = lab.boot(&text)?;
    rtos::ready(&mut session)?;
    boards::shell(&mut session)?;
    session.send("start storm\r")?;
    session.expect("storm: started")?;
    session.send("\x0f1\rjitter 500\r")?;
    session.expect("jitter: n=500 ")?;
    session.expect(", 0 overruns")?;
    boards::shell(&mut session)?;
    // It is still raging.
    session.send("stop storm\r")?;
    session.expect("storm: stopped")?;
    power_off(&mut session)
}

fn spin(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(&board("spin").replace("power-off", "stay"))?;
    session.expect("probe spin: about to spin")?;
    boards::shell(&mut session)?;
    session.send("dump probe\r")?;
    session.expect("rip")?;
    session.send("restart probe\r")?;
    session.expect("probe: started")?;
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

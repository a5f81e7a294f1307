//! The board as a whole: what it refuses, how its shell works, and that guests do not hurt
//! each other.

use super::Case;
use super::lab::{Lab, Session};
use super::rtos;
use crate::emulator::Chipset;
use anyhow::{Context, Result, ensure};
use std::thread;
use std::time::Duration;

/// Ctrl-O, the console's escape key.
const ESCAPE: &str = "\x0f";
/// The hypervisor's prompt.
pub(super) const PROMPT: &str = "understudy> ";

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "board-without-ept",
            "a processor that has VT-x but no EPT is refused in a clear sentence",
            120,
            without_ept,
        )
        .on_bochs(),
        Case::new(
            "board-refusals",
            "processors without nested paging, or without any virtualization, are refused in a clear sentence",
            120,
            refusals,
        )
        .on_qemu(),
        Case::new(
            "board-too-few-cpus",
            "a board that lacks processors is refused in a clear sentence",
            120,
            too_few_cpus,
        ),
        Case::new(
            "board-older-chipset",
            "a board with the older chipset, and memory above 4 GiB, serves as well",
            180,
            older_chipset,
        )
        .on_qemu(),
        Case::new(
            "shell-commands",
            "the hypervisor's shell answers every command and powers the board off",
            180,
            shell_commands,
        ),
        Case::new(
            "crash-leaves-neighbour",
            "a crashed guest leaves its neighbour on another processor alone, and starts again",
            240,
            |lab| crash(lab, 2),
        )
        .on_both(),
        Case::new(
            "crash-leaves-neighbour-1cpu",
            "the same where both share the one processor",
            240,
            |lab| crash(lab, 1),
        )
        .on_both(),
        Case::new(
            "crash-restarts-by-itself",
            "a guest with on_crash = \"restart\" comes back without help",
            240,
            restart_by_itself,
        ),
        Case::new(
            "stop-and-start",
            "a guest without autostart waits; start, stop and restart work on it",
            240,
            stop_and_start,
        ),
        Case::new(
            "console-flood",
            "a console that is asked for more than its line carries goes on when that is over",
            60,
            console_flood,
        ),
        Case::new(
            "panic",
            "a hypervisor that panics says why and where, whoever is just writing to the console",
            240,
            last_words,
        )
        .on_both(),
    ]
}

fn console_flood(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(&pair(2, "", ""))?;
    to_guest(&mut session, 2)?;
    for _ in 0..3 {
        shell(&mut session)?;
        session.send(&"help\r".repeat(60))?;
        // Its line may lose what comes while it has no room.
        thread::sleep(Duration::from_secs(2));
        session.send("\rguests\r")?;
        session.expect("running")?;
        session.expect(PROMPT)?;
    }
    Ok(())
}

fn last_words(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(&pair(2, "", ""))?;
    to_guest(&mut session, 2)?;
    // It lists its commands, some hundred bytes, while the board ends.
    shell(&mut session)?;
    session.send(&format!(
        "{ESCAPE}2help\rhelp\rhelp\rhelp\r{ESCAPE}hpanic\r"
    ))?;
    session.expect("PANIC: ")?;
    session.expect("an operator wanted it")?;
    // Two frames of the panic itself, and those around the command.
    for _ in 0..4 {
        session.expect("  at 0x")?;
    }
    session.expect("\n")?;
    let trace = session.backtrace()?;
    ensure!(
        trace.contains("shell"),
        "no shell is in the backtrace:\n{trace}"
    );
    Ok(())
}

fn without_ept(lab: &Lab) -> Result<()> {
    let mut session = lab.boot_with(&rtos::board(1, ""), |setup| {
        setup.cpu_model = Some("core2_penryn_t9600".into());
    })?;
    session.expect("EPT")?;
    session.expect("\n")?;
    let text = session.text();
    let line = text.lines().find(|line| line.contains("EPT"));
    let line = line.context("the line with EPT is gone")?;
    ensure!(
        line.contains("VT-x"),
        "the refusal does not name VT-x: {line}"
    );
    session.never_said("PANIC")?;
    session.never_said("first guest instruction")
}

fn refusals(lab: &Lab) -> Result<()> {
    let no_nested_paging = (
        "EPYC,-npt",
        "AMD-V has no nested paging (CPUID reports no NP): Understudy needs AMD-V with nested paging",
    );
    let nothing = (
        "EPYC,-svm,-vmx",
        "this processor has neither Intel VT-x nor AMD-V",
    );
    // Where QEMU shows VT-x, what AMD-V lacks is not asked for.
    let amd = lab.has_svm().then_some(no_nested_paging);
    for (model, sentence) in amd.into_iter().chain([nothing]) {
        let mut session = lab.boot_with(&rtos::board(1, ""), |setup| {
            setup.cpu_model = Some(model.into());
        })?;
        session.expect("cannot run guests: ")?;
        session.expect(sentence)?;
        session.never_said("PANIC")?;
        session.never_said("first guest instruction")?;
    }
    Ok(())
}

fn too_few_cpus(lab: &Lab) -> Result<()> {
    let mut session = lab.boot_with(&rtos::board(2, ""), |setup| setup.cpus = 1)?;
    session.expect("wants 2 processors, but 1 run")?;
    session.never_said("first guest instruction")
}

fn older_chipset(lab: &Lab) -> Result<()> {
    let mut session = lab.boot_with(&rtos::board(2, "run=selftest;halt"), |setup| {
        setup.chipset = Some(Chipset::Pc);
        setup.megabytes = 5 << 10;
    })?;
    session.expect("memory: 0x0100000000 to ")?;
    session.expect_unless(" passed, 0 failed", "FAILED")?;
    session.wait_power_off()
}

/// Two RTOS guests; on one processor the second is the more urgent.
fn pair(cpus: u32, first: &str, second: &str) -> String {
    let guest = |name: &str, cpu: u32, priority: u32, more: &str| {
        format!(
            "[[guest]]\nname = \"{name}\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = {cpu}\n\
             priority = {priority}\n{more}\n"
        )
    };
    format!(
        "[board]\nname = \"pair\"\ncpus = {cpus}\n\n{}{}",
        guest("first", 0, 10, first),
        guest("second", cpus - 1, 20, second)
    )
}

/// Goes to the shell.
pub(super) fn shell(session: &mut Session) -> Result<()> {
    session.send(&format!("{ESCAPE}h"))?;
    session.expect(PROMPT).map(drop)
}

/// Gives the shell a command and returns its answer.
pub(super) fn command(session: &mut Session, line: &str) -> Result<String> {
    session.send(&format!("{line}\r"))?;
    session.expect(&format!("{line}\n"))?;
    session.expect(PROMPT)
}

/// Goes to a guest's console and waits for its answer to an empty line.
fn to_guest(session: &mut Session, number: u32) -> Result<()> {
    session.send(&format!("{ESCAPE}{number}"))?;
    session.send("\r")?;
    rtos::ready(session)
}

fn shell_commands(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(&rtos::board(2, ""))?;
    rtos::ready(&mut session)?;
    shell(&mut session)?;
    for (line, answers) in [
        ("help", &["poweroff", "guests", "dump", "stat", "log"][..]),
        ("guests", &["rtos", "running", "16M"]),
        ("cpus", &["cpu 0", "cpu 1", "guests: rtos"]),
        ("mem", &["KiB free"]),
        ("log", &["INFO"]),
        ("nonsense", &["no such command"]),
        ("stop nobody", &["no such guest"]),
    ] {
        let said = command(&mut session, line)?;
        for answer in answers {
            ensure!(
                said.contains(answer),
                "\"{line}\" did not answer \"{answer}\":\n{said}"
            );
        }
    }
    session.send("stat\r")?;
    session.expect("rtos vcpu 0: guest ")?;
    session.send("dump rtos\r")?;
    session.expect("rip")?;
    session.send("poweroff\r")?;
    session.wait_power_off()
}

fn crash(lab: &Lab, cpus: u32) -> Result<()> {
    let mut session = lab.boot(&pair(cpus, "", ""))?;
    session.expect("first guest instruction of first")?;
    to_guest(&mut session, 2)?;
    to_guest(&mut session, 1)?;
    session.send("crash triple\r")?;
    session.expect("first: crashed: ")?;
    to_guest(&mut session, 2)?;
    session.send("uptime\r")?;
    session.expect("uptime: ")?;
    rtos::ready(&mut session)?;
    shell(&mut session)?;
    let said = command(&mut session, "guests")?;
    let state = |name: &str, state: &str| {
        said.lines()
            .any(|line| line.contains(name) && line.contains(state))
    };
    ensure!(
        state("first", "crashed"),
        "the crashed guest is not shown as such:\n{said}"
    );
    ensure!(
        state("second", "running"),
        "the neighbour no longer runs:\n{said}"
    );
    session.send("restart first\r")?;
    session.expect("first: started")?;
    to_guest(&mut session, 1)?;
    to_guest(&mut session, 2)?;
    session.never_said("second: started\nsecond: ")?;
    session.never_said("second: crashed")?;
    shell(&mut session)?;
    session.send("poweroff\r")?;
    session.wait_power_off()
}

fn restart_by_itself(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(&pair(2, "on_crash = \"restart\"", ""))?;
    to_guest(&mut session, 1)?;
    session.send("crash triple\r")?;
    session.expect("first: crashed: ")?;
    session.expect("first: restarting")?;
    session.expect("first: started")?;
    to_guest(&mut session, 1)?;
    to_guest(&mut session, 2)
}

fn stop_and_start(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(&pair(2, "", "autostart = false"))?;
    to_guest(&mut session, 1)?;
    session.never_said("second: started")?;
    shell(&mut session)?;
    session.send("start second\r")?;
    session.expect("second: started")?;
    to_guest(&mut session, 2)?;
    shell(&mut session)?;
    session.send("stop second\r")?;
    session.expect("second: stopped")?;
    to_guest(&mut session, 1)?;
    shell(&mut session)?;
    session.send("restart second\r")?;
    session.expect("second: started")?;
    to_guest(&mut session, 2)
}

#[cfg(test)]
mod tests {
    use super::pair;

    #[test]
    fn boards_are_right() {
        for cpus in [1, 2] {
            config::toml::parse(&pair(cpus, "", "autostart = false"), "b", None).unwrap();
        }
    }
}

//! An unmodified Linux beside the legacy real-time system.

use super::Case;
use super::lab::{Lab, Session};
use anyhow::{Context, Result, ensure};

/// Memory of the emulated machine in MiB: Linux's, and what the boot loader brought.
const BOARD_MEMORY: u32 = 1024;
/// Seconds that Linux sleeps while its clock is compared with the board's.
const SLEEP: f64 = 10.0;
/// How far the clocks may be apart, as a part of the time: the kernel's sleep is not exact either.
const CLOCK_TOLERANCE: f64 = 0.02;
/// Complaints of a kernel that finds its hardware wrong.
const COMPLAINTS: [&str; 4] = ["WARNING: CPU", "unchecked MSR", "BUG:", "Call Trace"];

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![Case::new(
        "linux-beside-rtos",
        "Debian's kernel reaches userland, keeps time and powers off, beside the RTOS's self-test",
        600,
        beside_rtos,
    )]
}

fn beside_rtos(lab: &Lab) -> Result<()> {
    let board = "[board]\nname = \"linux\"\ncpus = 2\nwhen_all_off = \"power-off\"\n\n\
        [[guest]]\nname = \"linux\"\nimage = \"@linux\"\nmemory = \"256M\"\ncpu = 0\n\
        command_line = \"console=ttyS0\"\nmodules = [{ image = \"@initramfs\" }]\n\n\
        [[guest]]\nname = \"rtos\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = 1\n\
        command_line = \"run=selftest;halt\"\n";
    let mut session = lab.boot_with(board, |setup| setup.megabytes = BOARD_MEMORY)?;
    session.expect_unless("linux: userland reached", "linux: crashed")?;
    session.expect("# ")?;

    check_clock(&mut session)?;
    session.send("cat /sys/devices/system/clocksource/clocksource0/current_clocksource\n")?;
    session
        .expect("\ntsc")
        .context("Linux does not trust the TSC")?;
    session.send("\u{f}hshow rtos\r")?;
    session
        .expect("17 passed, 0 failed")
        .context("the RTOS's self-test")?;
    session.send("\u{f}1poweroff -f\n")?;
    session.expect("linux: powered off")?;
    session.wait_power_off()?;
    for complaint in COMPLAINTS {
        session.never_said(complaint)?;
    }
    Ok(())
}

/// Compares a sleep of Linux's with the hypervisor's clock, which its log shows.
fn check_clock(session: &mut Session) -> Result<()> {
    let before = board_time(session)?;
    session.send(&format!("sleep {SLEEP}; echo slept\n"))?;
    session.expect("\nslept")?;
    let passed = board_time(session)? - before;
    // What typing and the shell take comes on top of the sleep.
    let slack = 1.0;
    let range = SLEEP * (1.0 - CLOCK_TOLERANCE)..SLEEP * (1.0 + CLOCK_TOLERANCE) + slack;
    ensure!(
        range.contains(&passed),
        "{SLEEP} s of Linux's clock were {passed:.3} s of the board's"
    );
    Ok(())
}

/// The board's time in seconds, from a log line that the shell is made to print.
fn board_time(session: &mut Session) -> Result<f64> {
    session.send("\u{f}hdump linux\r")?;
    let said = session.expect("INFO  linux: running")?;
    let line = said.lines().last().unwrap_or_default();
    let stamp = line
        .trim_start_matches(|c: char| c != '[')
        .trim_start_matches('[');
    let seconds = stamp.split(']').next().unwrap_or_default().trim();
    session.send("\u{f}1\n")?;
    session.expect("# ")?;
    seconds
        .parse()
        .with_context(|| format!("no time in the log line {line:?}"))
}

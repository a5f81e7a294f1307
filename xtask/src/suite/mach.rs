//! A kernel that this project did not write: GNU Mach for the 486, unmodified.
//!
//! It exercises the old PC as a kernel of its time does: interrupt controllers, timer, clock,
//! serial port, PCI, and the probing of devices that are not there. It has no system to start, and
//! says so at the end; that is its success.

use super::Case;
use super::lab::Lab;
use crate::emulator::bochs::TIME0;
use crate::packages;
use crate::paths;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

const PACKAGE: &str = "gnumach-image-1.8-486";
/// Guest RAM in MiB.
const MEMORY: u64 = 64;
/// How far the guest's clock may be from the board's: its start takes some seconds.
const CLOCK_SLACK: u64 = 120;

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "mach-1cpu",
            "GNU Mach 1.8 boots unmodified on a board with one processor",
            420,
            |lab| boot(lab, 1),
        )
        .on_both(),
        Case::new(
            "mach-2cpu",
            "the same on the second of two processors",
            420,
            |lab| boot(lab, 2),
        ),
    ]
}

/// The kernel's file, fetched once.
fn kernel(may_fetch: bool) -> Result<PathBuf> {
    let tree = packages::unpacked(PACKAGE, "i386", may_fetch)?;
    let kernel = tree.join("gnumach");
    if !kernel.is_file() {
        packages::gunzip(&tree.join("boot/gnumach-1.8-486.gz"), &kernel)?;
    }
    Ok(kernel)
}

fn boot(lab: &Lab, cpus: u32) -> Result<()> {
    let kernel = kernel(lab.may_install)?;
    let mut session = lab.boot(&format!(
        "[board]\nname = \"mach\"\ncpus = {cpus}\n\n\
         [[guest]]\nname = \"mach\"\nimage = \"{}\"\nmemory = \"{MEMORY}M\"\ncpu = {}\n\
         command_line = \"console=com0\"\n",
        kernel.display(),
        cpus - 1
    ))?;
    session.expect("GNU Mach 1.8")?;
    let map = session.expect("vm_page: ")?;
    check_memory(&map)?;
    let time = session.expect_line("RTC time is ")?;
    check_time(&time)?;
    session.expect("No bootstrap code loaded with the kernel!")?;
    session
        .never_said("mach: crashed")
        .with_context(|| paths::shown(&kernel))
}

/// Checks that the available ranges are the RAM that the guest was given.
fn check_memory(text: &str) -> Result<()> {
    let mut available = Vec::new();
    for line in text.lines() {
        let range = line.strip_prefix("biosmem: ");
        let Some(range) = range.and_then(|rest| rest.strip_suffix(", available")) else {
            continue;
        };
        let (start, end) = range.split_once(':').context("a memory range has no end")?;
        available.push((
            u64::from_str_radix(start, 16)?,
            u64::from_str_radix(end, 16)?,
        ));
    }
    let [(0, low), (0x10_0000, high)] = available[..] else {
        anyhow::bail!(
            "the kernel sees other memory than two ranges from 0 and 1 MiB: {available:x?}"
        );
    };
    ensure!(
        (0x9_f000..=0xa_0000).contains(&low),
        "the low memory ends at {low:#x}, not just below 640 KiB"
    );
    let top = MEMORY << 20;
    ensure!(
        (top - 0x10_0000..=top).contains(&high),
        "the high memory ends at {high:#x}, not at {top:#x}"
    );
    Ok(())
}

/// Checks a time like `2001-09-09 01:46:50` against the board's clock at power-on.
fn check_time(text: &str) -> Result<()> {
    let parts: Vec<u64> = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [year, month, day, hour, minute, second] = parts[..] else {
        anyhow::bail!("\"{text}\" is not a date and time");
    };
    ensure!(
        (year, month, day) == (2001, 9, 9),
        "the date is {text}, the board's clock says 2001-09-09"
    );
    let time = hour * 3600 + minute * 60 + second;
    let start = TIME0 % 86400;
    ensure!(
        (start..=start + CLOCK_SLACK).contains(&time),
        "the time is {text}, the board's clock started at 01:46:40"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check_memory, check_time};

    #[test]
    fn times_near_the_boards_start_are_right() {
        assert!(check_time("2001-09-09 01:46:50").is_ok());
        assert!(check_time("2001-09-09 01:46:39").is_err());
        assert!(check_time("1970-01-01 00:00:00").is_err());
        assert!(check_time("soon").is_err());
    }

    #[test]
    fn the_memory_map_must_be_that_of_the_guest() {
        let map = |high: &str| {
            format!(
                "biosmem: 000000000000000000:00000000000009f000, available\n\
                 biosmem: 00000000000009f000:0000000000000a0000, reserved\n\
                 biosmem: 000000000000100000:{high}, available\n"
            )
        };
        assert!(check_memory(&map("000000000004000000")).is_ok());
        assert!(check_memory(&map("000000000008000000")).is_err());
        assert!(check_memory("").is_err());
    }
}

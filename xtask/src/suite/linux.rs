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
    vec![
        Case::new(
            "linux-beside-rtos",
            "Debian's kernel reaches userland, keeps time and powers off, beside the RTOS's self-test",
            600,
            beside_rtos,
        ),
        Case::new(
            "linux-virtio",
            "Debian's drivers find disks, console and entropy; a disk outlives a reboot",
            900,
            virtio,
        ),
    ]
}

/// A command of the guest's shell, and what it must say. Quotes keep the echo of a command from being taken for its
/// answer.
type Question = (&'static str, &'static str);

/// What Linux is asked about its virtio devices.
const DEVICES: &[Question] = &[
    ("blockdev --getsize64 /dev/vda", "16777216"),
    (
        "blockdev --getro /dev/vda; blockdev --getro /dev/vdb",
        "1\n0",
    ),
    // The image on the first disk is the archive that the kernel unpacked at its start; zeroes follow it.
    (
        "gunzip -c </dev/vda >/tmp/archive 2>/dev/null; cpio -t </tmp/archive >/tmp/list; \
         grep lib/modules/ord.r$ /tmp/list",
        "lib/modules/order",
    ),
    (
        "dd if=/dev/urandom of=/tmp/random bs=64k count=32 && cat /tmp/random >/dev/vdb && sync && \
         echo 3 >/proc/sys/vm/drop_caches && head -c 2097152 /dev/vdb >/tmp/back && \
         cmp /tmp/back /tmp/random && echo sa''me",
        "same",
    ),
    (
        "dd if=/dev/zero of=/dev/vda bs=512 count=1 || echo re''fused",
        "refused",
    ),
    ("echo 'over h''vc0' >/dev/hvc0", "over hvc0"),
    ("cat /sys/class/misc/hw_random/rng_current", "virtio_rng.0"),
    ("head -c 1000 /dev/hwrng | wc -c", "\n1000"),
    ("grep -c 'PCI-MSI.*virtio' /proc/interrupts", "\n9"),
    ("echo kept >/dev/vdb; sync; echo wri''tten", "written"),
];

/// What it is asked about the disk after a reboot.
const KEPT: Question = ("head -c 5 /dev/vdb", "kept");

fn virtio(lab: &Lab) -> Result<()> {
    let board = "[board]\nname = \"linux\"\ncpus = 1\nwhen_all_off = \"power-off\"\n\n\
        [[guest]]\nname = \"linux\"\nimage = \"@linux\"\nmemory = \"256M\"\ncpu = 0\n\
        command_line = \"console=ttyS0\"\nmodules = [{ image = \"@initramfs\" }]\n\
        devices = [\"com1\", \"rtc\", \"pci\", \"virtio-console\", \"virtio-rng\"]\n\
        disks = [{ image = \"@initramfs\", size = \"16M\", read_only = true }, { size = \"4M\" }]\n";
    let mut session = lab.boot_with(board, |setup| setup.megabytes = BOARD_MEMORY)?;
    session.expect_unless("linux: userland reached", "linux: crashed")?;
    session.expect("# ")?;
    for question in DEVICES {
        ask(&mut session, *question)?;
    }
    session.send("reboot -f\n")?;
    session.expect("linux: reset by the guest")?;
    session.expect_unless("linux: userland reached", "linux: crashed")?;
    session.expect("# ")?;
    ask(&mut session, KEPT)?;
    session.send("poweroff -f\n")?;
    session.wait_power_off()?;
    for complaint in COMPLAINTS {
        session.never_said(complaint)?;
    }
    session.never_said("stopped (")
}

fn ask(session: &mut Session, (command, answer): Question) -> Result<()> {
    session.send(&format!("{command}\n"))?;
    session
        .expect(answer)
        .with_context(|| format!("Linux's answer to {command:?}"))?;
    session.expect("# ")?;
    Ok(())
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

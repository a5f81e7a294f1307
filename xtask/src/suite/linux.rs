//! An unmodified Linux beside the legacy real-time system, and another kernel that loads as Linux does.

use super::Case;
use super::lab::{Lab, Session};
use super::rtos;
use crate::emulator::Watch;
use crate::emulator::bochs::IPS;
use crate::packages;
use crate::paths;
use anyhow::{Context, Result, ensure};

/// Seconds over which Linux's clock is compared with the board's.
const CLOCK_SECONDS: u32 = 10;
/// How far the clocks may be apart.
const CLOCK_TOLERANCE_PPM: f64 = 1000.0;
/// Complaints of a kernel that finds its hardware wrong, or that got no time to run.
const COMPLAINTS: [&str; 7] = [
    "WARNING: CPU",
    "unchecked MSR",
    "BUG:",
    "Call Trace",
    "Marking clocksource",
    "rcu: INFO",
    "nobody cared",
];
const USERLAND: &str = "linux: userland reached";
/// What the hypervisor calls a processor's APIC virtualization in the log.
const APIC_VIRTUALIZATION: &str = "APIC virtualization";
/// The end of the shell's prompt.
const PROMPT: &str = "# ";
const MEMTEST: &str = "memtest86+";

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "linux-beside-rtos",
            "Debian's kernel keeps time, idles, keeps registers and powers off beside the RTOS",
            900,
            beside_rtos,
        )
        .on_both(),
        Case::new(
            "linux-sandy-bridge",
            "the same kernel on a processor without APIC virtualization",
            900,
            sandy_bridge,
        )
        .on_bochs(),
        Case::new(
            "linux-2vcpu",
            "the same kernel on two processors, with translations under change",
            900,
            two_vcpus,
        )
        .on_both(),
        Case::new(
            "linux-1cpu",
            "Linux with two vCPUs and the RTOS share one processor, and nothing starves",
            900,
            one_cpu,
        )
        .on_both(),
        Case::new(
            "linux-freeze",
            "Linux on two processors and the RTOS are frozen, erased and thawed, and go on with all they had begun",
            900,
            freeze,
        )
        .on_both(),
        Case::new(
            "linux-virtio",
            "Debian's drivers find disks, console and entropy; a disk outlives a reboot",
            900,
            virtio,
        ),
        Case::new(
            "linux-format-memtest86+",
            "memtest86+ runs as a guest and finds no error",
            420,
            memtest,
        ),
    ]
}

/// A board with Linux on these processors, and the RTOS on one of them or on its own.
pub(super) fn board(cpus: u32, linux: &str, rtos: u32, rtos_line: &str) -> String {
    format!(
        "[board]\nname = \"linux\"\ncpus = {cpus}\nwhen_all_off = \"power-off\"\n\n\
         [[guest]]\nname = \"linux\"\nimage = \"@linux\"\nmemory = \"256M\"\ncpu = {linux}\n\
         priority = 10\ncommand_line = \"console=ttyS0\"\n\
         modules = [{{ image = \"@initramfs\" }}]\ndisks = [{{ size = \"4M\" }}]\n\n\
         [[guest]]\nname = \"rtos\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = {rtos}\n\
         priority = 200\ncommand_line = \"{rtos_line}\"\n"
    )
}

fn beside_rtos(lab: &Lab) -> Result<()> {
    let board = board(2, "0", 1, "run=selftest;halt");
    let mut session = lab.boot_with(&board, |setup| setup.watch = Watch::Marks(2))?;
    userland(&mut session)?;
    check_clock(lab, &mut session)?;
    ask(
        &mut session,
        "cat /sys/devices/system/clocksource/clocksource0/current_clocksource",
        "\ntsc\n",
    )
    .context("Linux does not trust the TSC")?;
    ensure!(
        session.text().contains("x2apic enabled"),
        "Linux has not enabled x2APIC mode"
    );
    ask(&mut session, "idlecheck", "idlecheck: ok")?;
    ask(&mut session, "vectors", "vectors: ok")?;
    ask(&mut session, "disktest /dev/vda 2", "disktest: ok")?;
    session.send("\u{f}hshow rtos\r")?;
    session
        .expect_unless("17 passed, 0 failed", "FAILED")
        .context("the RTOS's self-test")?;
    if session.text().contains(APIC_VIRTUALIZATION) {
        check_interrupts(&mut session)?;
    }
    session.send("\u{f}1")?;
    power_off(&mut session)
}

fn sandy_bridge(lab: &Lab) -> Result<()> {
    let board = board(2, "0", 1, "run=selftest;halt");
    let mut session = lab.boot_with(&board, |setup| {
        setup.cpu_model = Some(rtos::SANDY_BRIDGE.to_owned());
    })?;
    userland(&mut session)?;
    session.never_said(APIC_VIRTUALIZATION)?;
    power_off(&mut session)
}

/// Most of Linux's interrupts are its timer's, which it sets by a write of an MSR. Where the processor keeps the local
/// APIC, the end of an interrupt is no exit. Few come while the guest takes none and so cost the exit of a window.
fn check_interrupts(session: &mut Session) -> Result<()> {
    session.send("\u{f}hstat linux\r")?;
    session.expect("INFO  linux vcpu 0: guest")?;
    let said = session.expect("\n  other")?;
    let words: Vec<&str> = said.split([' ', ',', '\n', '\r']).collect();
    // The number before or behind a word; an exit that never came is not named.
    let near = |word: &str, step: isize| {
        let at = words.iter().position(|other| *other == word)?;
        words.get(at.checked_add_signed(step)?)?.parse::<u64>().ok()
    };
    let interrupts = near("interrupts", -1).context("no interrupts in the statistics")?;
    let writes = near("wrmsr", 1).unwrap_or(0);
    let windows = near("window", 1).unwrap_or(0);
    ensure!(
        writes < interrupts + interrupts / 4 && windows < interrupts / 5,
        "{interrupts} interrupts took {writes} exits by WRMSR and {windows} by interrupt windows"
    );
    Ok(())
}

fn two_vcpus(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(&board(2, "[0, 1]", 1, "run=selftest;halt"))?;
    userland(&mut session)?;
    ask(&mut session, "nproc", "\n2\n")?;
    ask(&mut session, "tlb 3", "tlb: ok")?;
    ask(&mut session, "vectors 10", "vectors: ok")?;
    ask(&mut session, "load 3", "load: ok")?;
    ask(&mut session, "clockcheck 3", "clockcheck: ok")?;
    ask(&mut session, "idlecheck 3", "idlecheck: ok")?;
    power_off(&mut session)
}

fn one_cpu(lab: &Lab) -> Result<()> {
    // Two vCPUs by turns, and a clock that is not the TSC.
    let board = board(1, "[0, 0]", 0, "run=selftest").replace(
        "priority = 10\n",
        "priority = 10\nclock = \"paravirtual\"\n",
    );
    let mut session = lab.boot(&board)?;
    userland(&mut session)?;
    ask(&mut session, "nproc", "\n2\n")?;
    ask(
        &mut session,
        "cat /sys/devices/system/clocksource/clocksource0/current_clocksource",
        "\nkvm-clock\n",
    )
    .context("Linux does not use the paravirtual clock")?;
    ask(&mut session, "clockcheck 5", "clockcheck: ok")?;
    ask(&mut session, "tlb 3", "tlb: ok")?;
    session.send("load 10\n")?;
    session.expect("load: line 5 ")?;
    session.send("\u{f}2\r")?;
    rtos::ready(&mut session)?;
    session.send("selftest\r")?;
    session
        .expect_unless(" passed, 0 failed", "FAILED")
        .context("the RTOS's self-test under load")?;
    session.send("jitter 1000\r")?;
    session.expect("jitter: n=1000 ")?;
    session.expect(", 0 overruns")?;
    session.send("\u{f}1")?;
    session
        .expect_unless("load: ok", "FAILED")
        .context("Linux's load beside the RTOS")?;
    session.expect(PROMPT)?;
    ask(&mut session, "vectors 5", "vectors: ok")?;
    session.send("\u{f}hshow rtos\r")?;
    session
        .expect_unless("17 passed, 0 failed", "FAILED")
        .context("the RTOS's self-test while Linux started")?;
    session.send("poweroff\r")?;
    session.wait_power_off()?;
    no_complaints(&session)
}

/// What Linux does while it is frozen and thawed: clocks, a timer, a disk, registers.
const UNDER_WAY: &str = "(clockcheck 15; echo clock da''tum) & (sleep 12; echo timer fi''red) & \
     (vectors 10; disktest /dev/vda 2; echo all do''ne) &\n";

/// MiB of both guests together: where their memory is kept.
const MEMORY_OF_BOTH: u32 = 256 + 16;

fn freeze(lab: &Lab) -> Result<()> {
    let mut session = lab.boot_with(&board(2, "[0, 1]", 1, ""), |setup| {
        setup.megabytes += MEMORY_OF_BOTH;
    })?;
    userland(&mut session)?;
    session.send("\u{f}2register 101\r")?;
    session.expect("101 registered")?;
    session.send(&format!("\u{f}1{UNDER_WAY}"))?;
    session.expect(PROMPT)?;
    session.send("\u{f}h")?;
    for (number, guest) in [(1, "linux"), (2, "rtos")] {
        session.send(&format!("freeze {guest}\r"))?;
        session.expect_unless(&format!("{guest}: frozen"), "cannot be frozen")?;
        session.send("guests\r")?;
        session.expect(&format!(" {number}  {guest}"))?;
        let line = session.expect("M")?;
        ensure!(line.contains(" frozen "), "{guest} is not frozen: {line}");
        session.send(&format!("thaw {guest}\r"))?;
        session.expect_unless(&format!("{guest}: thawed"), "cannot")?;
    }
    session.send("\u{f}2register 101\r")?;
    session
        .expect("101 already registered")
        .context("the RTOS has forgotten a subscriber")?;
    session.send("\u{f}1")?;
    for end in ["timer fired", "all done", "clock datum"] {
        // They come in no certain order.
        if !session.text().contains(end) {
            session
                .expect_unless(end, "FAILED")
                .context("what Linux had begun")?;
        }
    }
    ensure!(
        session.text().contains("clockcheck: ok"),
        "Linux's clocks did not agree over the freeze"
    );
    session.send("\u{f}2selftest\r")?;
    session
        .expect_unless(" passed, 0 failed", "FAILED")
        .context("the RTOS's self-test after the freeze")?;
    session.send("halt\r")?;
    session.expect("rtos: powered off")?;
    session.send("\u{f}1\n")?;
    session.expect(PROMPT)?;
    ask(&mut session, "nproc", "\n2\n")?;
    power_off(&mut session)
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
    let mut session = lab.boot(board)?;
    userland(&mut session)?;
    for (command, answer) in DEVICES {
        ask(&mut session, command, answer)?;
    }
    session.send("reboot -f\n")?;
    session.expect("linux: reset by the guest")?;
    userland(&mut session)?;
    let (command, answer) = KEPT;
    ask(&mut session, command, answer)?;
    power_off(&mut session)?;
    session.never_said("stopped (")
}

/// Waits for Linux's first shell.
pub(super) fn userland(session: &mut Session) -> Result<()> {
    session.expect_unless(USERLAND, "linux: crashed")?;
    session.expect(PROMPT).map(drop)
}

/// Runs a command in Linux's shell, which must answer so.
pub(super) fn ask(session: &mut Session, command: &str, answer: &str) -> Result<String> {
    session.send(&format!("{command}\n"))?;
    let said = session
        .expect_unless(answer, "FAILED")
        .with_context(|| format!("Linux's answer to {command:?}"))?;
    session.expect(PROMPT)?;
    Ok(said)
}

/// Compares Linux's clocks with its PC's, and in Bochs with the emulator's own time as well.
fn check_clock(lab: &Lab, session: &mut Session) -> Result<()> {
    let said = ask(
        session,
        &format!("clockcheck {CLOCK_SECONDS}"),
        "clockcheck: ok",
    )?;
    if !lab.is_bochs() {
        return Ok(());
    }
    let monotonic = said
        .split_once("monotonic ")
        .and_then(|(_, rest)| rest.split_once(" s"))
        .and_then(|(seconds, _)| seconds.parse::<f64>().ok())
        .with_context(|| format!("no time in {said:?}"))?;
    let stops = session.stops()?;
    let [start, end] = stops[..] else {
        anyhow::bail!("clockcheck came to {} magic breakpoints", stops.len());
    };
    let board = (end - start) as f64 / IPS as f64;
    let ppm = (monotonic / board - 1.0) * 1e6;
    ensure!(
        ppm.abs() <= CLOCK_TOLERANCE_PPM,
        "{board:.6} s of the board were {monotonic:.6} s of Linux's clock: {ppm:.0} ppm apart"
    );
    Ok(())
}

pub(super) fn power_off(session: &mut Session) -> Result<()> {
    session.send("poweroff -f\n")?;
    session.expect("linux: powered off")?;
    session.wait_power_off()?;
    no_complaints(session)
}

fn no_complaints(session: &Session) -> Result<()> {
    COMPLAINTS
        .iter()
        .try_for_each(|complaint| session.never_said(complaint))
}

/// The memory tester of Debian: a 64-bit kernel of the Linux boot protocol that knows the PC by heart.
fn memtest(lab: &Lab) -> Result<()> {
    let tree = packages::unpacked(MEMTEST, "amd64", lab.may_install)?;
    let kernel = tree.join("boot/memtest86+x64.bin");
    let mut session = lab.boot(&format!(
        "[board]\nname = \"memtest\"\ncpus = 1\n\n\
         [[guest]]\nname = \"memtest\"\nimage = \"{}\"\nformat = \"linux\"\nmemory = \"8M\"\n\
         cpu = 0\ncommand_line = \"console=ttyS0,115200\"\n",
        kernel.display()
    ))?;
    session
        .expect("Memtest86+ v")
        .with_context(|| paths::shown(&kernel))?;
    // It shows what it does every two seconds only, and the tests in between are shorter.
    for test in ["Address test", "8 bit pattern", "64 bit pattern"] {
        session.expect(test)?;
    }
    session.expect("Errors: 0 ")?;
    session.send("\u{f}hpoweroff\r")?;
    session.wait_power_off()?;
    let text = session.text();
    let errors = text
        .match_indices("Errors: ")
        .map(|(at, start)| &text[at + start.len()..]);
    for count in errors {
        ensure!(count.starts_with("0 "), "memtest86+ found errors");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::board;

    #[test]
    fn boards_are_right() {
        for (cpus, linux, rtos) in [(2, "0", 1), (2, "[0, 1]", 1), (1, "0", 0)] {
            config::toml::parse(&board(cpus, linux, rtos, "run=selftest"), "b", None).unwrap();
        }
    }
}

//! Guests with a watchdog.

use super::Case;
use super::lab::Lab;
use super::linux::{ask, power_off, userland};
use anyhow::{Context, Result};
use std::thread;
use std::time::Duration;

/// How long Linux is frozen: for longer than its watchdog waits.
const ABSENCE: Duration = Duration::from_secs(3);

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "linux-watchdog",
            "a guest that halts for good starts again, and so does Linux, knowing why, once it does not feed its watchdog",
            400,
            |lab| halts(lab).and_then(|()| starves(lab)),
        )
        .on_qemu(),
    ]
}

/// A guest that nothing can wake.
fn halts(lab: &Lab) -> Result<()> {
    let mut session = lab.boot(
        "[board]\nname = \"hang\"\ncpus = 1\n\n\
         [[guest]]\nname = \"probe\"\nimage = \"@probes\"\nmemory = \"16M\"\ncpu = 0\n\
         command_line = \"hang\"\nwatchdog = \"restart\"\n",
    )?;
    session.expect("probe vcpu 0: halted with interrupts off")?;
    session.expect("probe: its watchdog has expired: restart")?;
    session.expect("probe hang: about to halt")?;
    session.send("\u{f}hpoweroff\r")?;
    session.wait_power_off()
}

/// A system whose driver is the distribution's.
fn starves(lab: &Lab) -> Result<()> {
    /// MiB of the guest: where its memory is kept while it is frozen.
    const MEGABYTES: u32 = 256;
    const BOOT_STATUS: &str = "cat /sys/class/watchdog/watchdog0/bootstatus";
    let board = format!(
        "[board]\nname = \"linux\"\ncpus = 1\nwhen_all_off = \"power-off\"\n\n\
         [[guest]]\nname = \"linux\"\nimage = \"@linux-generic\"\nmemory = \"{MEGABYTES}M\"\ncpu = 0\n\
         command_line = \"console=ttyS0\"\nmodules = [{{ image = \"@initramfs-generic\" }}]\n\
         watchdog = \"restart\"\n"
    );
    let mut session = lab.boot_with(&board, |setup| setup.megabytes += MEGABYTES)?;
    userland(&mut session)?;
    ask(
        &mut session,
        "cat /sys/class/watchdog/watchdog0/identity",
        "\ni6300ESB timer\n",
    )?;
    ask(&mut session, BOOT_STATUS, "\n0\n")?;
    // It is fed twice a second, and waits for two.
    ask(
        &mut session,
        "watchdog -t 500ms -T 2 /dev/watchdog; sleep 4; echo ali''ve",
        "alive",
    )?;
    // Frozen, it cannot feed it.
    session.send("\u{f}hfreeze linux\r")?;
    session.expect_unless("linux: frozen", "cannot be frozen")?;
    thread::sleep(ABSENCE);
    session.send("thaw linux\r")?;
    session.expect_unless("linux: thawed", "cannot")?;
    session.send("\u{f}1\n")?;
    session.expect("# ")?;
    ask(&mut session, "sleep 3; echo sti''ll", "still")?;
    session.never_said("its watchdog has expired")?;
    session.send("kill -9 $(pidof watchdog)\n")?;
    session.expect("linux: its watchdog has expired: restart")?;
    userland(&mut session).context("after it starved")?;
    // WDIOF_CARDRESET of the kernel's interface.
    ask(&mut session, BOOT_STATUS, "\n32\n")?;
    power_off(&mut session)
}

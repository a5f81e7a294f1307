//! Guests with a watchdog.

use super::Case;
use super::lab::Lab;
use super::linux::{ask, power_off, userland};
use anyhow::{Context, Result};

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
    let board = "[board]\nname = \"linux\"\ncpus = 1\nwhen_all_off = \"power-off\"\n\n\
        [[guest]]\nname = \"linux\"\nimage = \"@linux-generic\"\nmemory = \"256M\"\ncpu = 0\n\
        command_line = \"console=ttyS0\"\nmodules = [{ image = \"@initramfs-generic\" }]\n\
        watchdog = \"restart\"\n";
    const BOOT_STATUS: &str = "cat /sys/class/watchdog/watchdog0/bootstatus";
    let mut session = lab.boot(board)?;
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
        "watchdog -t 500ms -T 2 /dev/watchdog; sleep 5; echo ali''ve",
        "alive",
    )?;
    session.never_said("its watchdog has expired")?;
    session.send("kill -9 $(pidof watchdog)\n")?;
    session.expect("linux: its watchdog has expired: restart")?;
    userland(&mut session).context("after it starved")?;
    // WDIOF_CARDRESET of the kernel's interface.
    ask(&mut session, BOOT_STATUS, "\n32\n")?;
    power_off(&mut session)
}

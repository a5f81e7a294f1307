//! Old network cards, driven by drivers that this project did not write: those of the distribution's kernel for real
//! hardware.

use super::Case;
use super::lab::{Lab, Session};
use super::linux::{ask, power_off, userland};
use anyhow::{Context, Result};

/// MiB of the guest: where its memory is kept while it is frozen.
const MEGABYTES: u32 = 256;

/// The tests.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "linux-rtl8029",
            "Debian's driver of the RTL8029 talks to the hypervisor's own station, before and after a freeze",
            400,
            |lab| drives(lab, "", "IRQ 18", "IO-APIC"),
        )
        .on_qemu(),
        Case::new(
            "linux-rtl8029-pic",
            "the same where the kernel uses the 8259s",
            400,
            |lab| drives(lab, "noapic", "IRQ 10", "XT-PIC"),
        )
        .on_qemu(),
    ]
}

/// The card is found with this interrupt, and works with this controller.
fn drives(lab: &Lab, words: &str, interrupt: &str, controller: &str) -> Result<()> {
    let board = format!(
        "[board]\nname = \"linux\"\ncpus = 1\nwhen_all_off = \"power-off\"\n\n\
         [[guest]]\nname = \"linux\"\nimage = \"@linux-generic\"\nmemory = \"{MEGABYTES}M\"\ncpu = 0\n\
         command_line = \"console=ttyS0 {words} net=10.0.0.3/24\"\n\
         modules = [{{ image = \"@initramfs-generic\" }}]\nnics = [{{ model = \"rtl8029\" }}]\n\n\
         [management]\naddress = \"10.0.0.2/24\"\n"
    );
    let mut session = lab.boot_with(&board, |setup| setup.megabytes += MEGABYTES)?;
    userland(&mut session)?;
    let found = format!("eth0: RealTek RTL-8029(AS) found at 0xc200, {interrupt},");
    ask(&mut session, "dmesg | grep ne2k-pci", &found)?;
    talk(&mut session)?;
    session.send("\u{f}hfreeze linux\r")?;
    session.expect_unless("linux: frozen", "cannot be frozen")?;
    session.send("thaw linux\r")?;
    session.expect_unless("linux: thawed", "cannot")?;
    session.send("\u{f}1\n")?;
    session.expect("# ")?;
    talk(&mut session).context("after the freeze")?;
    ask(
        &mut session,
        &format!("grep -c '{controller}.*eth0' /proc/interrupts"),
        "\n1",
    )?;
    // Nothing was lost, and nothing was wrong: errors and drops of both directions.
    ask(
        &mut session,
        "awk '/eth0/ {print \"er''rors\", $4 + $5 + $6 + $7 + $12 + $13 + $14}' /proc/net/dev",
        "errors 0",
    )?;
    power_off(&mut session)
}

fn talk(session: &mut Session) -> Result<()> {
    for (command, answer) in [
        ("ping -c 2 -s 0 10.0.0.2", ", 0% packet loss"),
        ("ping -c 2 -s 1472 10.0.0.2", ", 0% packet loss"),
        ("ping -A -q -c 200 -s 700 10.0.0.2", "200 packets received"),
        (
            "wget -q -O - http://10.0.0.2/status | grep -c '\"linux\"'",
            "\n1",
        ),
    ] {
        ask(session, command, answer)?;
    }
    Ok(())
}

//! QEMU with KVM, where the host offers VT-x to its guests.

use super::{End, Setup, process};
use crate::install;
use std::fs::{self, OpenOptions};
use std::process::{Command, ExitStatus};

/// Whether this host can run a hypervisor inside a KVM guest.
pub(crate) fn host_has_nested_vtx() -> bool {
    let nested = fs::read_to_string("/sys/module/kvm_intel/parameters/nested").unwrap_or_default();
    let usable = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    usable && matches!(nested.trim(), "Y" | "1")
}

/// Whether QEMU is installed.
pub(crate) fn is_installed() -> bool {
    install::missing(&[install::QEMU]).is_empty()
}

/// The call.
pub(crate) fn command(setup: &Setup, com1_port: u16) -> Command {
    let mut command = process::command("qemu-system-x86_64");
    command.args(["-accel", "kvm", "-machine", "q35", "-cpu", "host,+vmx"]);
    command.args(["-smp", &setup.cpus.to_string()]);
    command.args(["-m", &setup.megabytes.to_string()]);
    command.args([
        "-display",
        "none",
        "-monitor",
        "none",
        "-nic",
        "none",
        "-no-reboot",
    ]);
    command.args(["-serial", &format!("tcp:127.0.0.1:{com1_port}")]);
    // The clock of Bochs's boards, so that tests can know it.
    command.args(["-rtc", "base=2001-09-09T01:46:40"]);
    command.arg("-cdrom").arg(&setup.iso);
    command
}

/// Tells from its exit status why QEMU ended: a power-off and a reset both give 0.
pub(crate) fn end(status: ExitStatus) -> End {
    if status.success() {
        End::PowerOff
    } else {
        End::Fault(format!("QEMU ended with {status}"))
    }
}

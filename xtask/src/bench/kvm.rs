//! The peer: KVM, measured in the same emulator by a program that makes the same exits.

use super::LIMIT;
use super::figures;
use super::peer::{self, Peer};
use crate::emulator::console::Echo;
use crate::emulator::{Emulator, Machine};
use crate::paths;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// KVM without its mitigations of processor defects, which is at its fastest.
const PEER: Peer = Peer {
    package: "linux-image-cloud-amd64",
    modules: &["kvm_intel"],
    devices: &[("dev/kvm", 10, 232)],
    sources: &["kvm-exits.c"],
    command_line: "console=ttyS0 quiet mitigations=off",
    megabytes: 512,
};

/// Measures, and returns names and ticks as the probes' bench gives them.
///
/// # Errors
///
/// Where the peer cannot be fetched, built or run.
pub(super) fn measure(folder: &Path, may_install: bool) -> Result<Vec<(String, u64)>> {
    let setup = PEER.make(folder, may_install)?;
    let logs = folder.join("run");
    let mut machine = Machine::start(Emulator::Bochs, &setup, &logs, Echo::Off)?;
    let context = || format!("see {}", paths::shown(&logs));
    machine.wait_power_off(LIMIT).with_context(context)?;
    let console = machine.console.text();
    peer::check(&console).with_context(context)?;
    let lines = figures::bench_lines(&console);
    if lines.is_empty() {
        bail!("KVM said no figures; {}", context());
    }
    Ok(lines)
}

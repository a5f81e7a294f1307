//! The peer: KVM with vhost-net, whose guests are on a bridge with the card.

use super::super::LIMIT;
use super::super::peer::{self, Peer};
use super::far_end::{FarEnd, Wanted};
use super::figures::Frames;
use crate::emulator::console::Echo;
use crate::emulator::{Emulator, Machine};
use crate::paths;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;

/// KVM at its fastest: without mitigations of processor defects, and without clearing pages before they are used. It is told not to
/// copy bytewise (ERMS), which is the fastest on silicon, but of which the emulator counts every byte as a tick.
///
/// The cloud kernel has no driver for the card. The emulator's CPUID claims another rate than its time-stamp counter
/// has. The first program must get at the card's registers beside the driver.
const PEER: Peer = Peer {
    package: "linux-image-amd64",
    modules: &["kvm_intel", "bridge", "e1000", "tun", "vhost_net"],
    devices: &[
        ("dev/kvm", 10, 232),
        ("dev/net/tun", 10, 200),
        ("dev/vhost-net", 10, 238),
    ],
    sources: &[
        "kvm-net/main.c",
        "kvm-net/network.c",
        "kvm-net/vm.c",
        "kvm-net/guest.c",
    ],
    command_line: "console=ttyS0 quiet mitigations=off init_on_alloc=0 clearcpuid=erms \
                   tsc_early_khz=50000 ipv6.disable=1 iomem=relaxed",
    megabytes: 512,
};
/// What the first program says when it is done.
const END: &str = "end sent=";

/// Measures.
///
/// # Errors
///
/// Where the peer cannot be fetched, built or run, or frames were lost.
pub(super) fn measure(folder: &Path, may_install: bool) -> Result<Vec<Frames>> {
    let mut setup = PEER.make(folder, may_install)?;
    let far_end = FarEnd::lay(folder)?;
    setup.cards = vec![far_end.card()];
    let logs = folder.join("run");
    let mut machine = Machine::start(Emulator::Bochs, &setup, &logs, Echo::Off)?;
    let mut frames = Vec::new();
    let sent = serve(&mut machine, &far_end, &mut frames)
        .with_context(|| format!("see {}", paths::shown(&logs)))?;
    let heard = far_end.heard();
    ensure!(
        sent == heard,
        "the guests sent {sent} frames to the wire, but {heard} came"
    );
    Ok(frames)
}

/// Serves the first program until it is done, and returns how many frames its guests sent to the wire.
fn serve(machine: &mut Machine, far_end: &FarEnd, frames: &mut Vec<Frames>) -> Result<u64> {
    loop {
        let line = machine.expect("\n", LIMIT)?;
        peer::check(&line)?;
        if let Some(wanted) = Wanted::read(&line) {
            far_end.send(wanted);
        } else if let Some(some) = Frames::read(&line) {
            frames.push(some);
        } else if let Some(sent) = line.trim().strip_prefix(END) {
            machine.wait_power_off(LIMIT)?;
            let Ok(sent) = sent.parse() else {
                bail!("\"{sent}\" is no number of frames");
            };
            return Ok(sent);
        }
    }
}

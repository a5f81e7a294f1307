//! `cargo xtask bench net`: what a network frame costs.
//!
//! Everybody is measured alike, on a machine with one processor in Bochs. What a frame costs is every tick that the machine is
//! not idle for it, whoever spends it: the guest's driver, the hypervisor, the card's driver. A window is opened, frames go their
//! way, their last consequences are waited for, and the window is closed; what the same window costs without frames is
//! taken off. Idle is what somebody gets who runs only while nobody else wants to: a guest with the lowest priority
//! (`guests/probes/src/net`), and a thread of the class for idle time with the peer (`guests/linux/kvm-net/main.c`).
//!
//! The ways are
//!
//! * `to-wire`: a guest's frames to the card and out of it,
//! * `from-wire`: frames that wait in the card's ring to a guest,
//! * `to-guest`: from a guest to another one,
//!
//! each `single` (one frame, with all else idle: every stage has to be woken for it), `each` (64 frames, the driver rings after
//! each one where the device asks for that) and `batch` (64 frames, the driver rings after the last). Guests' drivers do as those of
//! operating systems: they suppress the doorbells and interrupts that the event index makes needless, halt while
//! there is nothing to do, and let many frames share an interrupt. They do not look into the frames. Lengths count from the
//! destination's address on, without the checksum.
//!
//! Beside that, `exchange` tells how long a question from the wire to the RTOS waits for its answer.

mod capture;
mod exchange;
mod far_end;
mod figures;
mod kvm;
mod own;

use super::Workshop;
use crate::cli::{NetOptions, Peer};
use crate::progress;
use anyhow::Result;
use figures::Figures;
use std::process::ExitCode;

/// Measures.
///
/// # Errors
///
/// Where the machine does not run through.
pub(crate) fn net(options: &NetOptions) -> Result<ExitCode> {
    let workshop = Workshop::open(&options.bench)?;
    let wanted = options.part.as_deref().unwrap_or("");
    let mut figures = Figures::default();
    if "frames".contains(wanted) {
        let (frames, quiet) = progress::step("Measure our network", || own::measure(&workshop))?;
        progress::note(&format!(
            "without frames, {quiet:.1} ticks of 1000 are busy"
        ));
        (figures.frames, figures.quiet) = (frames, quiet);
        if let Some(Peer::Kvm) = options.peer {
            let peer = progress::step("Measure the network of KVM", || {
                kvm::measure(&workshop.folder("kvm-net"), !options.bench.no_install)
            })?;
            figures.peer = Some(peer);
        }
    }
    if "exchange".contains(wanted) {
        figures.exchange = progress::step("Measure the exchange's answers", || {
            exchange::measure(&workshop)
        })?;
    }
    workshop.publish("net", &figures.json(), &figures.table())?;
    Ok(ExitCode::SUCCESS)
}

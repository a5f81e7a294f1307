//! Audits: what the backup has is what the primary had, byte for byte, over a whole start of Linux.

use super::linux::{LINUX, with_linux};
use super::watched::station;
use super::{PATIENCE, pair_text, protected, running};
use crate::suite::lab::Lab;
use crate::suite::lan::wait_for_gateway;
use crate::suite::management::Metrics;
use anyhow::{Result, ensure};
use mirror::Side;

/// Epochs of a guest that are compared at least.
const EPOCHS: f64 = 5.0;

pub(super) fn finds(lab: &Lab) -> Result<()> {
    let text = with_linux(&pair_text(None)?);
    let (mut pair, client) = running(lab, &text)?;
    pair.shell(Side::A, "mirror audit")?;
    wait_for_gateway(lab, &client, LINUX, "/healthz")?;
    let metrics = Metrics::read_from(&client, station(Side::B))?;
    for guest in ["rtos", "linux"] {
        let of = |name: &str| {
            metrics.of(&format!(
                "understudy_mirror_{name}_epochs_total{{guest=\"{guest}\"}}"
            ))
        };
        let (audited, wrong) = (of("audited")?, of("wrong")?);
        ensure!(
            audited >= EPOCHS && wrong == 0.0,
            "{wrong} of {audited} audited epochs of {guest} are wrong"
        );
    }
    // What is wrong is found, and mended.
    pair.shell(Side::B, "mirror spoil")?;
    let found = "the understudy is not what it should be";
    pair.machine(Side::B)?.expect(found, PATIENCE)?;
    pair.shell(Side::A, "mirror audit off")?;
    protected(&mut pair)
}

//! What the mirror of Linux costs, while it is idle and while it is busy. The legacy system is mirrored and called beside it.

use super::costs::{cost, epochs, hertz};
use super::readings::{Cost, Epochs};
use super::{LIMIT, Scene};
use anyhow::Result;
use mirror::Side;
use std::thread;
use std::time::Duration;

/// Its name on the board.
pub(super) const GUEST: &str = "linux";
/// By how much the load outlasts what is watched: as long as pages of metrics may take to come.
const MARGIN: Duration = Duration::from_secs(60);

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Linux {
    /// Of the board's time-stamp counter.
    pub(super) hertz: f64,
    /// Those while it was idle, and while it was busy.
    pub(super) epochs: [Epochs; 2],
    /// All since the board's start.
    pub(super) cost: Cost,
}

/// Measures.
///
/// # Errors
///
/// Where Linux does not get to its shell, or the board does not tell.
pub(super) fn measure(scene: &mut Scene, length: Duration) -> Result<Linux> {
    let machine = scene.pair.machine(Side::A)?;
    machine.send("\u{f}2\n")?;
    machine.expect("# ", LIMIT)?;
    let idle = watch(scene, length)?;
    let machine = scene.pair.machine(Side::A)?;
    let load = length + MARGIN;
    machine.send(&format!("load {}\n", load.as_secs()))?;
    machine.expect("load: line 5 ", LIMIT)?;
    let busy = watch(scene, length)?;
    Ok(Linux {
        hertz: hertz(scene)?,
        epochs: [idle, busy],
        cost: cost(scene, GUEST)?,
    })
}

fn watch(scene: &Scene, length: Duration) -> Result<Epochs> {
    let before = epochs(scene, GUEST)?;
    thread::sleep(length);
    Ok(epochs(scene, GUEST)?.since(&before))
}

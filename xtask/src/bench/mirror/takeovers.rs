//! How long after a board's last word the other one serves.

use super::readings::{self, Takeover};
use super::{PATIENCE, Scene};
use crate::progress;
use crate::twin::{Role, SIDES, Until};
use anyhow::{Result, bail, ensure};
use mirror::Side;
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked who serves.
const LOOK: Duration = Duration::from_millis(300);
/// How long both boards go on before one dies.
const STEADY: Duration = Duration::from_secs(5);

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Takeovers {
    /// In the time of the board that survived.
    pub(super) all: Vec<Takeover>,
    /// For so long in this host's time both boards were on ...
    pub(super) watched: Duration,
    /// ... and so often one took the other for dead.
    pub(super) false_ones: usize,
    /// The callers' longest time without an answer, in this host's. None if it came to an end early: a board died that a false takeover
    /// had just left without an understudy.
    pub(super) gap: Option<Duration>,
}

const fn other(side: Side) -> Side {
    match side {
        Side::A => Side::B,
        Side::B => Side::A,
    }
}

/// Pulls the plug of whichever board serves, as often as is wanted, and powers it on again.
///
/// # Errors
///
/// Where the other one does not take over, or an answer is wrong.
pub(super) fn measure(scene: &mut Scene, count: u32) -> Result<Takeovers> {
    let mut takeovers = Takeovers::default();
    // What a board had said when it was looked at last.
    let mut seen = [0, 0];
    for round in 1..=count {
        let begun = Instant::now();
        scene.warm()?;
        thread::sleep(STEADY);
        let serving = serving(scene)?;
        let survivor = other(serving);
        for (side, seen) in SIDES.into_iter().zip(&mut seen) {
            let said = scene.said(side)?;
            let lines = readings::log(said.get(*seen..).unwrap_or(&said));
            takeovers.false_ones += readings::takes(&lines);
            *seen = said.len();
        }
        takeovers.watched += begun.elapsed();
        scene.pair.kill(serving)?;
        let solo = Until::Is(Role::Solo, None);
        if let Err(error) = scene.pair.until(survivor, &solo, PATIENCE) {
            let status = scene.pair.status(survivor)?;
            ensure!(status.role == Role::Backup && !status.protected, error);
            progress::note(&format!(
                "{round}: board {serving} died without an understudy"
            ));
            return Ok(takeovers);
        }
        let said = scene.said(survivor)?;
        for (side, seen) in SIDES.into_iter().zip(&mut seen) {
            if side == survivor {
                let lines = readings::log(said.get(*seen..).unwrap_or(&said));
                let takeover = Takeover::read(&lines)?;
                progress::note(&format!("{round}: board {side} serves, {takeover}"));
                takeovers.all.push(takeover);
                *seen = said.len();
            } else {
                *seen = 0;
            }
        }
        scene.pair.start(serving)?;
    }
    takeovers.gap = Some(scene.judge()?);
    Ok(takeovers)
}

/// Waits until one board serves and the other would; which serves.
fn serving(scene: &mut Scene) -> Result<Side> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        for side in SIDES {
            let pair = &mut scene.pair;
            if let (Ok(own), Ok(peer)) = (pair.status(side), pair.status(other(side)))
                && (own.role, own.protected) == (Role::Primary, true)
                && peer.role == Role::Backup
            {
                return Ok(side);
            }
        }
        thread::sleep(LOOK);
    }
    bail!("no board is protected")
}

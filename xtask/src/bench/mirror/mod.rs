//! `cargo xtask bench mirror`: what the mirror costs a pair of boards, and how long a takeover takes.
//!
//! Callers ask the exchange of the legacy system all the time. Meanwhile its board serves with an understudy, alone, and while an
//! understudy is sent ([`costs`]); and boards that serve have their plugs pulled ([`takeovers`]). In Bochs a tick is an instruction of the
//! board's. Each board has its own clock, which runs no faster than this host's, and slower where the host does not come along; so
//! figures of one board are exact, and those between two of them, or between one and the callers, are this host's as well.

mod costs;
mod figures;
mod linux;
mod readings;
mod takeovers;

use super::{LIMIT, Workshop};
use crate::cli::MirrorOptions;
use crate::client::ledger::{Load, Plan};
use crate::client::{Client, Station};
use crate::emulator::{CardModel, Emulator};
use crate::paths;
use crate::progress;
use crate::suite::mirror::{pair_text, with_address_of_cards, with_linux};
use crate::twin::{Image, Pair, Role, SIDES, Until};
use anyhow::{Context, Result, bail, ensure};
use figures::Figures;
use mirror::Side;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// The callers' station, and the exchange.
const STATION: Station = Station::new([10, 0, 0, 9]);
const EXCHANGE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), protocol::PORT);
/// How the callers ask.
const PLAN: Plan = Plan {
    exchange: EXCHANGE,
    callers: 4,
    identity: 1,
    subscriber: 1001,
    pause: Duration::from_millis(10),
    wait: Duration::from_millis(500),
};
/// Answers before anything is measured.
const WARM: usize = 100;
/// How long it may take for a page of metrics, and for the last answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// A peer is taken for dead after so many missed heartbeats.
const MISSED: u32 = 10;

/// Times in a board file, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    epoch: u32,
    heartbeat: u32,
}

/// Measures.
///
/// # Errors
///
/// Where a board does not do as it should.
pub(crate) fn mirror(options: &MirrorOptions) -> Result<ExitCode> {
    let (emulator, _) = options.emulator.settle(!options.bench.no_install)?;
    let workshop = Workshop::open_for(&options.bench, emulator)?;
    let length = Duration::from_secs(options.seconds);
    let mut figures = Figures::new(emulator);
    for epoch in &options.epochs {
        let what = format!("Measure the mirror with epochs of {epoch} ms");
        let times = Times {
            epoch: *epoch,
            heartbeat: options.patient_heartbeat,
        };
        let costs = progress::step(&what, || {
            Scene::set(&workshop, "costs", emulator, times, Beside::Nobody)?
                .play(|scene| costs::measure(scene, length))
        })?;
        figures.costs.push((times, costs));
    }
    if let Some(epoch) = options.epochs.last().filter(|_| options.takeovers > 0) {
        let what = format!("Measure {} takeovers", options.takeovers);
        let times = Times {
            epoch: *epoch,
            heartbeat: options.heartbeat,
        };
        let takeovers = progress::step(&what, || {
            let scene = Scene::set(&workshop, "takeovers", emulator, times, Beside::Nobody)?;
            scene.play(|scene| takeovers::measure(scene, options.takeovers))
        })?;
        figures.takeovers = Some((times, takeovers));
    }
    if let Some(epoch) = options.epochs.last().filter(|_| options.linux) {
        let times = Times {
            epoch: *epoch,
            heartbeat: options.patient_heartbeat,
        };
        figures.linux = Some(progress::step("Measure the mirror of Linux", || {
            let scene = Scene::set(&workshop, "linux", emulator, times, Beside::Linux)?;
            scene.play(|scene| linux::measure(scene, length))
        })?);
    }
    workshop.publish("mirror", &figures.json(), &figures.table())?;
    Ok(ExitCode::SUCCESS)
}

/// The text of the pair's board file, with other times.
fn text(emulator: Emulator, times: Times, beside: Beside) -> Result<String> {
    let mut text = pair_text(None)?;
    if emulator == Emulator::Bochs {
        text = with_address_of_cards(&text);
    }
    let mut changed = 0;
    let mut line = |line: &str| {
        let (name, _) = line.split_once(" = ").unwrap_or((line, ""));
        let value = match name {
            "epoch" => times.epoch,
            "heartbeat" => times.heartbeat,
            "dead_after" => times.heartbeat * MISSED,
            _ => return format!("{line}\n"),
        };
        changed += 1;
        format!("{name} = \"{value}ms\"\n")
    };
    let text: String = text.lines().map(&mut line).collect();
    ensure!(
        changed == 3,
        "the pair's file names {changed} of three times"
    );
    Ok(match beside {
        Beside::Nobody => text,
        Beside::Linux => with_linux(&text),
    })
}

/// Waits until board a serves, and b would.
fn protected(pair: &mut Pair) -> Result<()> {
    let primary = Until::Is(Role::Primary, Some(true));
    pair.until(Side::A, &primary, LIMIT)?;
    pair.until(Side::B, &Until::Is(Role::Backup, None), LIMIT)
}

/// Who else is a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nobody,
    /// Linux, with the epochs of the tests.
    Linux,
}

/// The boards, and who asks them.
struct Scene {
    pair: Pair,
    client: Client,
    load: Load,
    folder: std::path::PathBuf,
    /// When the boards were protected first.
    begun: Instant,
}

impl Scene {
    /// Starts boards and callers. Board a serves.
    fn set(
        workshop: &Workshop,
        name: &str,
        emulator: Emulator,
        times: Times,
        beside: Beside,
    ) -> Result<Self> {
        let folder = workshop.folder(&format!("mirror-{name}-{}", times.epoch));
        paths::fresh_folder(&folder)?;
        let text = text(emulator, times, beside)?;
        let image = |side: Side| {
            let folder = folder.join(format!("image-{side}"));
            paths::make_folder(&folder)?;
            Image::make(&text, side, &workshop.programs, &folder)
        };
        let images = [image(Side::A)?, image(Side::B)?];
        let mut nics = images[0].board.guests.iter().flat_map(|guest| &guest.nics);
        let own = nics.next().context("the guest has no card")?.mac.0;
        let mut pair = Pair::new(emulator, CardModel::E1000, images, &folder, false)?;
        if emulator == Emulator::Bochs {
            pair.lan.suit_bochs(own);
        }
        let client = Client::attach(&pair.lan, STATION)?;
        pair.client_is(client.end());
        for side in SIDES {
            pair.start(side)?;
        }
        protected(&mut pair)?;
        let load = Load::start(&client, PLAN)?;
        let scene = Self {
            pair,
            client,
            load,
            folder,
            begun: Instant::now(),
        };
        scene.warm()?;
        Ok(scene)
    }

    /// Waits until the callers have got some answers.
    fn warm(&self) -> Result<()> {
        let begun = Instant::now();
        while self.load.second(begun.elapsed()).answered < WARM {
            ensure!(begun.elapsed() < PATIENCE, "the exchange does not answer");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Measures, and says where the logs are if that fails.
    fn play<T>(mut self, measure: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let measured = measure(&mut self);
        measured.with_context(|| format!("see {}", paths::shown(&self.folder)))
    }

    /// All that a board's console has shown since its start.
    fn said(&mut self, side: Side) -> Result<String> {
        Ok(self.pair.machine(side)?.console.text())
    }

    /// Lets the callers end, and judges their answers; the longest time without one.
    fn judge(&mut self) -> Result<Duration> {
        self.load.halt(PATIENCE)?;
        self.load.inspect_all(PATIENCE)?;
        match self.load.ledger().judge() {
            Ok(summary) => Ok(summary.gap),
            Err(faults) => {
                let first = faults.first().map(ToString::to_string);
                bail!(
                    "{} answers are wrong: {}",
                    faults.len(),
                    first.unwrap_or_default()
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_have_the_times_that_are_asked_for() {
        let times = Times {
            epoch: 5,
            heartbeat: 10,
        };
        let text = text(Emulator::Bochs, times, Beside::Nobody).unwrap();
        let (board, _) = config::toml::parse(&text, "b", Some(Side::A)).unwrap();
        let mirror = board.mirror.unwrap();
        assert_eq!((mirror.heartbeat, mirror.dead_after), (10_000, 100_000));
        assert_eq!(board.guests[0].mirror.unwrap().epoch, 5000);
        let text = super::text(Emulator::Bochs, times, Beside::Linux).unwrap();
        let (board, _) = config::toml::parse(&text, "b", Some(Side::B)).unwrap();
        assert_eq!(board.guests[0].mirror.unwrap().epoch, 5000);
        assert_eq!(board.guests[1].name, linux::GUEST);
    }
}

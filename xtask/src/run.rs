//! `cargo xtask run`: one board, at this terminal or without one.

use crate::build;
use crate::cli::RunOptions;
use crate::emulator::console::{Echo, Wait};
use crate::emulator::{Choice, Emulator, End, Machine, Pace, Setup};
use crate::network::{self, Network};
use crate::paths;
use crate::progress;
use crate::symbolize;
use crate::terminal;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a headless run may take where no limit is given.
const HEADLESS_TIMEOUT: Duration = Duration::from_secs(300);
/// How often an interactive run looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// How a run ended, for people and for the exit code.
enum Outcome {
    Good(String),
    Bad(String),
}

/// Builds, boots and attends to a board.
///
/// # Errors
///
/// Where it cannot be built or started.
pub(crate) fn run(options: &RunOptions) -> Result<ExitCode> {
    let typing = options.typing()?;
    let may_install = !options.build.no_install;
    if options.debugger && (options.headless || options.emulator == Choice::Qemu) {
        bail!("--debugger needs Bochs and a terminal, so neither --headless nor QEMU");
    }
    let (emulator, why) = if options.debugger {
        (Emulator::Bochs, "it has the debugger".to_owned())
    } else {
        options.emulator.settle(may_install)?
    };
    eprintln!("==> Emulator: {emulator}, because {why}");
    let script = network::script(&options.network)?;
    let built = build::build(&options.build, emulator.needs())?;
    let claim = paths::claim("run")?;
    let folder = &claim.folder;
    let (cpus, memory) = (
        options.cpus.unwrap_or(built.board.cpus),
        options.mem.unwrap_or(built.megabytes),
    );
    let mut setup = Setup::new(built.iso, cpus, memory);
    setup.cpu_model.clone_from(&options.cpu_model);
    setup.chipset = options.machine;
    setup.debugger = options.debugger;
    let mut network = Network::lay(&options.network, script, &built.board.uplinks)?;
    setup.cards.clone_from(&network.cards);
    // Those around the board live in this host's time.
    if !options.headless || options.network.is_used() {
        setup.pace = Pace::RealTime;
    }
    eprintln!(
        "==> Boot \"{}\" with {} processor(s) and {} MiB; logs in {}",
        built.board.name,
        setup.cpus,
        setup.megabytes,
        paths::shown(folder)
    );
    let start = Instant::now();
    network.start();
    let outcome = if options.headless {
        headless(emulator, &setup, folder, options, &typing)
    } else {
        interactive(emulator, &setup, folder, options, &typing)
    }?;
    let took = progress::seconds(start.elapsed());
    let (text, code) = match outcome {
        Outcome::Good(text) => (format!("{text}, after {took}"), ExitCode::SUCCESS),
        Outcome::Bad(text) => (format!("{text}, after {took}"), ExitCode::FAILURE),
    };
    eprintln!("\n==> {text}");
    paths::write(&folder.join("reason.txt"), format!("{text}\n"))?;
    tell_backtrace(folder, &built.programs.hypervisor)?;
    Ok(code)
}

/// Names the functions of a panic that the console log holds.
fn tell_backtrace(folder: &Path, hypervisor: &Path) -> Result<()> {
    let log = paths::read(&folder.join("console.log"))?;
    let text = symbolize::backtrace(&String::from_utf8_lossy(&log), hypervisor)?;
    if !text.is_empty() {
        eprintln!("==> The backtrace with names:\n{text}");
        paths::write(&folder.join("backtrace.txt"), text)?;
    }
    Ok(())
}

fn headless(
    emulator: Emulator,
    setup: &Setup,
    folder: &Path,
    options: &RunOptions,
    typing: &[(String, String)],
) -> Result<Outcome> {
    let limit = options
        .timeout
        .map_or(HEADLESS_TIMEOUT, Duration::from_secs);
    let deadline = Instant::now() + limit;
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut machine = Machine::start(emulator, setup, folder, Echo::On)?;
    for (text, after) in typing {
        match machine.console.wait_for(after, left()) {
            Wait::Found(_) => machine.send(text)?,
            _ => return Ok(not_seen(&mut machine, after, limit)),
        }
    }
    if let Some(text) = &options.until {
        return Ok(match machine.console.wait_for(text, left()) {
            Wait::Found(_) => Outcome::Good(format!("\"{text}\" appeared")),
            _ => not_seen(&mut machine, text, limit),
        });
    }
    Ok(match machine.wait_end(left())? {
        Some(End::PowerOff) => Outcome::Good(End::PowerOff.to_string()),
        Some(end) => Outcome::Bad(end.to_string()),
        None => Outcome::Bad(format!(
            "the board still ran when the time was up ({})",
            progress::seconds(limit)
        )),
    })
}

fn not_seen(machine: &mut Machine, text: &str, limit: Duration) -> Outcome {
    Outcome::Bad(match machine.wait_end(Duration::ZERO) {
        Ok(Some(end)) => format!("{end} and \"{text}\" had not appeared"),
        Ok(None) => format!(
            "\"{text}\" did not appear within {}",
            progress::seconds(limit)
        ),
        Err(error) => format!("\"{text}\" did not appear: {error}"),
    })
}

fn interactive(
    emulator: Emulator,
    setup: &Setup,
    folder: &Path,
    options: &RunOptions,
    typing: &[(String, String)],
) -> Result<Outcome> {
    if setup.debugger {
        eprintln!(
            "    Bochs's debugger has this terminal: \"c\" continues, \"q\" quits. The board's \
             console goes into {}",
            paths::shown(&folder.join("console.log"))
        );
    } else {
        eprintln!("    Press Ctrl-] to end; Ctrl-O h leads to the hypervisor's shell.\n");
    }
    let echo = if setup.debugger { Echo::Off } else { Echo::On };
    let mut machine = Machine::start(emulator, setup, folder, echo)?;
    let raw = if setup.debugger {
        None
    } else {
        Some(terminal::Raw::set()?)
    };
    let ended = match raw {
        Some(_) => Some(terminal::forward(machine.console.typist()?)?),
        None => None,
    };
    let deadline = options
        .timeout
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut typing = typing.iter();
    let mut next = typing.next();
    loop {
        if let Some((text, after)) = next {
            if let Wait::Found(_) = machine.console.wait_for(after, Duration::ZERO) {
                machine.send(text)?;
                next = typing.next();
            }
        } else if let Some(text) = &options.until
            && let Wait::Found(_) = machine.console.wait_for(text, Duration::ZERO)
        {
            return Ok(Outcome::Good(format!("\"{text}\" appeared")));
        }
        if let Some(end) = machine.wait_end(LOOK).context("the emulator hangs")? {
            return Ok(match end {
                End::PowerOff | End::Quit => Outcome::Good(end.to_string()),
                End::Fault(_) => Outcome::Bad(end.to_string()),
            });
        }
        if ended
            .as_ref()
            .is_some_and(|flag| flag.load(Ordering::Relaxed))
        {
            return Ok(Outcome::Good("ended by Ctrl-]".into()));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Outcome::Bad("the time was up".into()));
        }
    }
}

//! `cargo xtask run --twin`: two boards, the wires between them, and a client that watches how the exchange is served while
//! boards die, freeze and lose each other.

mod bystander;
mod command;
mod intruder;
mod pair;
mod status;

pub(crate) use command::{Command, HELP, Until};
pub(crate) use pair::{Image, Pair, SIDES, index};
pub(crate) use status::Role;

use crate::build::{self, Built};
use crate::cli::RunOptions;
use crate::client::Client;
use crate::client::ledger::{Load, Plan};
use crate::emulator::CardModel;
use crate::network;
use crate::paths;
use crate::symbolize;
use crate::wire::{Spells, read_capture};
use anyhow::{Context, Result, bail};
use command::{Step, read_line, read_script};
use mirror::Side;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the client's figures are shown.
const SHOWN: Duration = Duration::from_secs(1);
/// How long a script waits for what it says that it waits for.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long the exchange may take at the end to answer what was asked.
const END: Duration = Duration::from_secs(10);
/// A board that transmits for a guest again so shortly after it did last was never brought up to date meanwhile.
const QUARANTINE: Duration = Duration::from_secs(1);
/// The callers, their pause and how long they wait for an answer.
const CALLERS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(10);
const WAIT: Duration = Duration::from_millis(200);
/// The first caller's identity and subscriber; few people would choose them.
const IDENTITY: u32 = 0x7457_0000;
const SUBSCRIBER: u32 = 70_001;

/// Boots both boards and attends to them.
///
/// # Errors
///
/// Where they cannot be built or started, or the script is wrong.
pub(crate) fn run(options: &RunOptions) -> Result<ExitCode> {
    let script = match &options.script {
        Some(file) => Some(script(file)?),
        None => None,
    };
    let (emulator, why) = options.emulator.settle(!options.build.no_install)?;
    eprintln!("==> Emulator: {emulator}, because {why}");
    let built = build::pair(&options.build, emulator.needs())?;
    let claim = paths::claim("twin")?;
    let folder = &claim.folder;
    paths::fresh_folder(folder)?;
    let guests = built[0].board.guests.clone();
    let hypervisor = built[0].programs.hypervisor.clone();
    let images = built.map(
        |Built {
             iso,
             board,
             megabytes,
             ..
         }| Image {
            iso,
            board,
            megabytes,
        },
    );
    // Both emulators have this one.
    let model = options.network.card.first().copied();
    let model = model.unwrap_or(CardModel::E1000);
    let mut pair = Pair::new(emulator, model, images, folder, true)?;
    let capture = match &options.network.capture {
        Some(file) => file.clone(),
        None => folder.join("lan.pcapng"),
    };
    pair.lan.capture(&capture)?;
    pair.link.capture(&folder.join("link.pcapng"))?;
    let client = network::station(&pair.lan, &options.network)?;
    pair.client_is(client.end());
    eprintln!(
        "==> Boot both boards; logs in {}. \"help\" lists what can be done to them.\n",
        paths::shown(folder)
    );
    for side in SIDES {
        pair.start(side)?;
    }
    let load = watch(&client, options)?;
    let ended = match script {
        Some(steps) => play(&mut pair, &load, &steps),
        None => listen(&mut pair, &load, options.timeout),
    };
    let mut good = ended.is_ok();
    if let Err(error) = &ended {
        eprintln!("==> {error:#}");
    }
    good &= judge_ledger(load, guests.len() == 1)?;
    good &= judge_capture(&capture, pair.lan_ends(), &guests)?;
    for (side, folder) in pair.logs() {
        tell_backtrace(side, &folder, &hypervisor)?;
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn script(file: &Path) -> Result<Vec<Step>> {
    let text = String::from_utf8(paths::read(file)?);
    let text = text.with_context(|| format!("{} is no text", file.display()))?;
    read_script(&text).with_context(|| format!("{} is wrong", file.display()))
}

/// Lets the client ask.
fn watch(client: &Client, options: &RunOptions) -> Result<Load> {
    Load::start(
        client,
        Plan {
            exchange: options.exchange,
            callers: CALLERS,
            identity: IDENTITY,
            subscriber: SUBSCRIBER,
            pause: PAUSE,
            wait: WAIT,
        },
    )
}

/// Shows the client's figures each second while something else is done.
fn showing<T>(load: &Load, work: impl FnOnce() -> T) -> T {
    let (over, done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while done.recv_timeout(SHOWN) == Err(RecvTimeoutError::Timeout) {
                println!("client| {}", load.second(SHOWN));
            }
        });
        let result = work();
        drop(over);
        result
    })
}

/// Plays a script. Its first mistake ends it.
fn play(pair: &mut Pair, load: &Load, steps: &[Step]) -> Result<()> {
    showing(load, || {
        for step in steps {
            tell_ended(pair)?;
            println!("==> {}", step.line);
            if step.command == Command::Quit {
                break;
            }
            obey(pair, &step.command)?;
        }
        Ok(())
    })
}

/// Does what is typed, until the end of that.
fn listen(pair: &mut Pair, load: &Load, timeout: Option<u64>) -> Result<()> {
    let typed = typed()?;
    let deadline = timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    const LOOK: Duration = Duration::from_millis(100);
    showing(load, || {
        while deadline.is_none_or(|deadline| Instant::now() < deadline) {
            tell_ended(pair)?;
            let line = match typed.recv_timeout(LOOK) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if line.trim() == "help" {
                println!("{HELP}");
                continue;
            }
            match read_line(&line) {
                Ok(None) => {}
                Ok(Some(Command::Quit)) => break,
                Ok(Some(command)) => {
                    if let Err(error) = obey(pair, &command) {
                        println!("==> {error:#}");
                    }
                }
                Err(reason) => println!("==> {reason}"),
            }
        }
        Ok(())
    })
}

fn tell_ended(pair: &mut Pair) -> Result<()> {
    for (side, end) in pair.ended()? {
        println!("==> board {side}: {end}");
    }
    Ok(())
}

/// Lines from standard input.
fn typed() -> Result<Receiver<String>> {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::Builder::new().name("keyboard".into());
    thread
        .spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(receiver)
}

fn obey(pair: &mut Pair, command: &Command) -> Result<()> {
    if *command == Command::Status {
        for side in SIDES {
            match pair.status(side) {
                Ok(status) => println!("==> {status}"),
                Err(error) => println!("==> {error:#}"),
            }
        }
        return Ok(());
    }
    pair.obey(command, PATIENCE)
}

/// Lets the callers come to an end, and says what is to be said of the exchange. They are `alone` if no other guest of the board can ask
/// it, too. Returns whether all is good.
fn judge_ledger(mut load: Load, alone: bool) -> Result<bool> {
    load.halt(END)?;
    let inspected = if alone {
        load.inspect_all(END)
    } else {
        load.inspect(END)
    };
    if let Err(error) = &inspected {
        println!("==> At the end {error:#}: judged is what it answered before.");
    }
    match load.ledger().judge() {
        Ok(summary) => {
            println!("==> The exchange: {summary}. All its answers are explained.");
            Ok(inspected.is_ok())
        }
        Err(faults) => {
            println!("==> The exchange is not to be relied on:");
            for fault in faults.iter().take(FAULTS_SHOWN) {
                println!("    {fault}");
            }
            if faults.len() > FAULTS_SHOWN {
                println!("    and {} more", faults.len() - FAULTS_SHOWN);
            }
            Ok(false)
        }
    }
}

const FAULTS_SHOWN: usize = 10;

/// Says who transmitted for the guests. Returns whether that was never more than one board.
fn judge_capture(file: &Path, ends: [usize; 2], guests: &[config::Guest]) -> Result<bool> {
    let packets = read_capture(&paths::read(file)?);
    let packets = packets.with_context(|| format!("{} is no capture", file.display()))?;
    let mut good = true;
    for guest in guests {
        for nic in &guest.nics {
            let spells = Spells::of(&packets, ends, nic.mac.0);
            println!("==> For {} ({}) transmitted:", guest.name, nic.mac);
            print!("{spells}");
            let silence = spells.longest_silence().as_secs_f64() * 1e3;
            println!("    The longest silence was {silence:.1} ms.");
            if let Some(overlap) = spells.overlap(QUARANTINE) {
                println!("    {overlap}");
                good = false;
            }
        }
    }
    if packets.is_empty() {
        bail!("nothing was sent on the LAN");
    }
    Ok(good)
}

/// Names the functions of a panic that a board's log holds.
fn tell_backtrace(side: Side, folder: &Path, hypervisor: &Path) -> Result<()> {
    let log = fs::read(folder.join("console.log")).unwrap_or_default();
    let text = symbolize::backtrace(&String::from_utf8_lossy(&log), hypervisor)?;
    if !text.is_empty() {
        println!("==> Board {side} panicked; the backtrace with names:\n{text}");
    }
    Ok(())
}

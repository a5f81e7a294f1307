//! `cargo xtask bench`: what the hypervisor costs, measured in Bochs, where ticks are
//! instructions and two runs are identical.

mod figures;
mod kvm;
mod trace;

use crate::build::{self, Built};
use crate::cli::{BuildOptions, ExitsOptions, Peer};
use crate::compile::Programs;
use crate::elf::Image;
use crate::emulator::console::Echo;
use crate::emulator::{Emulator, Machine, Setup};
use crate::image::LoadedBoard;
use crate::paths;
use crate::progress;
use anyhow::{Context, Result, bail};
use figures::{Exit, Figures};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use trace::Section;

/// How long one board may run.
const LIMIT: Duration = Duration::from_secs(600);
/// Releases that the RTOS measures.
const RELEASES: u32 = 1000;

/// Measures the exits, and what else can be told in numbers.
///
/// # Errors
///
/// Where a board does not run through.
pub(crate) fn exits(options: &ExitsOptions) -> Result<ExitCode> {
    let may_install = !options.no_install;
    let claim = paths::claim("bench")?;
    let folder = &claim.folder;
    let build = BuildOptions {
        no_install: options.no_install,
        ..BuildOptions::default()
    };
    let built = build::build_apart(&build, Emulator::Bochs.needs(), &folder.join("programs"))?;
    let mut figures = progress::step("Measure the exits", || measure(&built, folder))?;
    progress::step("Trace one exit of each kind", || {
        trace_exits(&built, folder, &mut figures)
    })?;
    progress::step("Measure the RTOS's release latency", || {
        figures.jitter = jitter(&built, folder)?;
        Ok(())
    })?;
    if let Some(Peer::Kvm) = options.peer {
        let peer = progress::step("Measure KVM in the same emulator", || {
            kvm::measure(&folder.join("kvm"), may_install)
        })?;
        add_peer(&mut figures, peer);
    }
    let json = format!("{:#}\n", figures.json());
    let file = folder.join("exits.json");
    paths::write(&file, &json)?;
    if options.json {
        print!("{json}");
    } else {
        print!("\n{}", figures.table());
    }
    eprintln!("==> {}", paths::shown(&file));
    Ok(ExitCode::SUCCESS)
}

/// A board with one guest, alone on the last processor.
fn board(cpus: u32, image: &str, command_line: &str) -> String {
    format!(
        "[board]\nname = \"bench\"\ncpus = {cpus}\nwhen_all_off = \"power-off\"\n\n\
         [[guest]]\nname = \"bench\"\nimage = \"{image}\"\nmemory = \"16M\"\ncpu = {}\n\
         command_line = \"{command_line}\"\n",
        cpus - 1
    )
}

/// Starts such a board.
fn boot(text: &str, programs: &Programs, folder: &Path, traces: u32) -> Result<Machine> {
    let image = folder.with_extension("image");
    paths::make_folder(&image)?;
    let loaded = LoadedBoard::parse(text, "the bench's board", &paths::root(), programs)?;
    let iso = loaded.make_image(&image, programs, "")?;
    let mut setup = Setup::new(iso, loaded.board.cpus);
    setup.traces = traces;
    setup.magic_break = traces > 0;
    Machine::start(Emulator::Bochs, &setup, folder, Echo::Off)
}

/// Runs such a board to its power-off and returns what it said.
fn run(text: &str, programs: &Programs, folder: &Path) -> Result<String> {
    let mut machine = boot(text, programs, folder, 0)?;
    machine
        .wait_power_off(LIMIT)
        .with_context(|| format!("see {}", paths::shown(folder)))?;
    Ok(machine.console.text())
}

fn measure(built: &Built, folder: &Path) -> Result<Figures> {
    let text = board(2, "@probes", "bench-exits");
    let console = run(&text, &built.programs, &folder.join("measure"))?;
    let lines = figures::bench_lines(&console);
    if lines.is_empty() {
        bail!(
            "the guest said no \"bench NAME ticks=N\"; see {}",
            paths::shown(folder)
        );
    }
    for (name, ticks) in &lines {
        progress::note(&format!("{name}: {ticks} ticks"));
    }
    let bytes = paths::read(&built.programs.stripped)?;
    Ok(Figures {
        exits: lines
            .into_iter()
            .map(|(name, ticks)| Exit {
                name,
                ticks,
                work: None,
                kvm: None,
            })
            .collect(),
        image_file: bytes.len() as u64,
        image_memory: Image::parse(&bytes)?.load_size()?,
        hypervisor_kib: figures::number_between(&console, "hypervisor uses ", " KiB")?,
        boot_ticks: figures::number_between(&console, "boot: ", " ticks from entry")?,
        jitter: String::new(),
        kvm_only: Vec::new(),
    })
}

/// Runs the guest once more under the debugger, where magic breakpoints stand around one exit of
/// each kind, in the order of the measurement. On one processor: the trace follows only the first.
fn trace_exits(built: &Built, folder: &Path, figures: &mut Figures) -> Result<()> {
    let text = board(1, "@probes", "bench-exits trace");
    let folder = folder.join("trace");
    let count = u32::try_from(figures.exits.len())?;
    let mut machine = boot(&text, &built.programs, &folder, count)?;
    let output = machine.take_output().context("the trace has no output")?;
    let reader = thread::spawn(move || trace::sections(BufReader::new(output)));
    machine
        .wait_power_off(LIMIT)
        .with_context(|| format!("see {}", paths::shown(&folder)))?;
    let Ok(sections) = reader.join() else {
        bail!("the trace could not be read");
    };
    let sections: Vec<Section> = sections.context("the trace could not be read")?;
    if sections.len() != figures.exits.len() {
        bail!(
            "the guest measured {} kinds of exits, but marked {} with magic breakpoints",
            figures.exits.len(),
            sections.len()
        );
    }
    for (exit, section) in figures.exits.iter_mut().zip(sections) {
        exit.work = Some(section);
    }
    Ok(())
}

fn jitter(built: &Built, folder: &Path) -> Result<String> {
    let text = board(2, "@rtos", &format!("run=jitter_{RELEASES};halt"));
    let console = run(&text, &built.programs, &folder.join("jitter"))?;
    let lines: Vec<_> = console
        .lines()
        .filter_map(|line| line.trim().strip_prefix("jitter: "))
        .collect();
    if lines.is_empty() {
        bail!(
            "the RTOS said no \"jitter: ...\"; see {}",
            paths::shown(folder)
        );
    }
    Ok(lines.join("; "))
}

/// Puts the peer's ticks beside ours, and its own kinds of exits behind them.
fn add_peer(figures: &mut Figures, peer: Vec<(String, u64)>) {
    for (name, ticks) in peer {
        match figures.exits.iter_mut().find(|exit| exit.name == name) {
            Some(exit) => exit.kvm = Some(ticks),
            None => figures.kvm_only.push((name, ticks)),
        }
    }
}

/// Where the source of the peer's measuring program lies.
fn peer_source() -> PathBuf {
    paths::root().join("guests/linux/kvm-exits.c")
}

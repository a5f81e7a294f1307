//! `cargo xtask bench exits`: what an exit costs, and what else can be told in numbers.

use super::figures::{self, Exit, Figures};
use super::trace::{self, Section};
use super::{LIMIT, Workshop, kvm};
use crate::cli::{ExitsOptions, Peer};
use crate::elf::Image;
use crate::emulator::{Machine, Watch};
use crate::paths;
use crate::progress;
use anyhow::{Context, Result, bail};
use std::io::BufReader;
use std::process::ExitCode;
use std::thread;

/// Measures the exits, and what else can be told in numbers.
///
/// # Errors
///
/// Where a board does not run through.
pub(crate) fn exits(options: &ExitsOptions) -> Result<ExitCode> {
    let workshop = Workshop::open(&options.bench)?;
    let mut figures = machine_exits(&workshop, &PLAIN)?;
    let with_apics = machine_exits(&workshop, &APICS)?;
    figures.exits.extend(with_apics.exits);
    if let Some(Peer::Kvm) = options.peer {
        let peer = progress::step("Measure KVM in the same emulator", || {
            kvm::measure(&workshop.folder("kvm"), !options.bench.no_install)
        })?;
        add_peer(&mut figures, peer);
    }
    workshop.publish("exits", &figures.json(), &figures.table())?;
    Ok(ExitCode::SUCCESS)
}

/// The machine of a guest that is measured.
struct Kind {
    /// What it is called in what the tool says.
    title: &'static str,
    /// Begins the names of its folders.
    name: &'static str,
    /// The devices, as in a board file.
    devices: &'static str,
}

const PLAIN: Kind = Kind {
    title: "a plain guest",
    name: "plain",
    devices: r#"["com1", "rtc", "pci"]"#,
};

const APICS: Kind = Kind {
    title: "a guest with APICs",
    name: "apics",
    devices: r#"["com1", "rtc", "pci", "apic"]"#,
};

impl Kind {
    /// A board with the probes alone on the last processor.
    fn board(&self, cpus: u32, command_line: &str) -> String {
        format!(
            "[board]\nname = \"bench\"\ncpus = {cpus}\nwhen_all_off = \"power-off\"\n\n\
             [[guest]]\nname = \"bench\"\nimage = \"@probes\"\nmemory = \"16M\"\ncpu = {}\n\
             command_line = \"{command_line}\"\ndevices = {}\n",
            cpus - 1,
            self.devices
        )
    }
}

/// Measures and traces the exits of a guest on one kind of machine.
fn machine_exits(workshop: &Workshop, kind: &Kind) -> Result<Figures> {
    let mut figures = progress::step(&format!("Measure the exits of {}", kind.title), || {
        measure(workshop, kind)
    })?;
    progress::step(
        &format!("Trace one exit of each kind of {}", kind.title),
        || trace_exits(workshop, kind, &mut figures.exits),
    )?;
    Ok(figures)
}

fn wait_power_off(workshop: &Workshop, machine: &mut Machine, name: &str) -> Result<()> {
    machine
        .wait_power_off(LIMIT)
        .with_context(|| format!("see {}", paths::shown(&workshop.folder(name))))
}

fn measure(workshop: &Workshop, kind: &Kind) -> Result<Figures> {
    let name = format!("{}-measure", kind.name);
    let mut machine = workshop.start(&kind.board(2, "bench-exits"), &name, Watch::Nothing)?;
    wait_power_off(workshop, &mut machine, &name)?;
    let console = machine.console.text();
    let lines = figures::bench_lines(&console);
    if lines.is_empty() {
        bail!(
            "the guest said no \"bench NAME ticks=N\"; see {}",
            paths::shown(&workshop.folder(&name))
        );
    }
    for (name, ticks) in &lines {
        progress::note(&format!("{name}: {ticks} ticks"));
    }
    let bytes = paths::read(&workshop.programs.stripped)?;
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
        kvm_only: Vec::new(),
    })
}

/// Runs the guest once more under the debugger, where magic breakpoints stand around one exit of
/// each kind, in the order of the measurement. On one processor: the trace follows only the first.
fn trace_exits(workshop: &Workshop, kind: &Kind, exits: &mut [Exit]) -> Result<()> {
    let name = format!("{}-trace", kind.name);
    let watch = Watch::Traces(u32::try_from(exits.len())?);
    let mut machine = workshop.start(&kind.board(1, "bench-exits trace"), &name, watch)?;
    let output = machine.take_output().context("the trace has no output")?;
    let reader = thread::spawn(move || trace::sections(BufReader::new(output)));
    wait_power_off(workshop, &mut machine, &name)?;
    let Ok(sections) = reader.join() else {
        bail!("the trace could not be read");
    };
    let sections: Vec<Section> = sections.context("the trace could not be read")?;
    if sections.len() != exits.len() {
        bail!(
            "the guest measured {} kinds of exits, but marked {} with magic breakpoints",
            exits.len(),
            sections.len()
        );
    }
    for (exit, section) in exits.iter_mut().zip(sections) {
        exit.work = Some(section);
    }
    Ok(())
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

//! `cargo xtask bench`: what the hypervisor costs, measured in Bochs, where ticks are
//! instructions and two runs are identical, unless others than one board have a part in them.

mod boot;
mod exits;
mod figures;
mod flood;
mod kvm;
mod mirror;
pub(crate) mod native;
mod net;
mod peer;
mod rt;
mod statistics;
mod trace;

pub(crate) use boot::boot;
pub(crate) use exits::exits;
pub(crate) use mirror::mirror;
pub(crate) use net::net;
pub(crate) use rt::rt;

use crate::build;
use crate::cli::{BenchOptions, BuildOptions};
use crate::compile::Programs;
use crate::emulator::console::Echo;
use crate::emulator::{Emulator, Machine, Setup, Watch};
use crate::image::LoadedBoard;
use crate::paths::{self, Claim};
use anyhow::Result;
use serde_json::Value;
use statistics::Vcpu;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one board may run.
const LIMIT: Duration = Duration::from_secs(900);
/// The hypervisor's prompt.
const SHELL_PROMPT: &str = "understudy> ";

/// A measurement's place of work.
struct Workshop {
    claim: Claim,
    programs: Programs,
    json: bool,
}

impl Workshop {
    /// Builds what is measured, in a folder that no other measurement uses meanwhile.
    fn open(options: &BenchOptions) -> Result<Self> {
        Self::open_for(options, Emulator::Bochs)
    }

    /// The same for boards in another emulator than [`Self::start`]'s.
    fn open_for(options: &BenchOptions, emulator: Emulator) -> Result<Self> {
        let claim = paths::claim("bench")?;
        let build = BuildOptions {
            no_install: options.no_install,
            ..BuildOptions::default()
        };
        let folder = claim.folder.join("programs");
        let programs = build::programs(&build, emulator.needs(), &folder)?;
        Ok(Self {
            claim,
            programs,
            json: options.json,
        })
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.claim.folder.join(name)
    }

    /// Starts a board that is given as the text of a board file; `name` is its folder's.
    fn start(&self, board: &str, name: &str, watch: Watch) -> Result<Machine> {
        self.start_with(board, name, |setup| setup.watch = watch)
    }

    /// The same on a machine that is not the usual one.
    fn start_with(
        &self,
        board: &str,
        name: &str,
        change: impl FnOnce(&mut Setup),
    ) -> Result<Machine> {
        let image = self.folder(&format!("{name}.image"));
        paths::make_folder(&image)?;
        let root = paths::root();
        let loaded = LoadedBoard::parse(board, "the bench's board", None, &root, &self.programs)?;
        let iso = loaded.make_image(&image, &self.programs, "")?;
        let mut setup = Setup::new(iso, loaded.board.cpus, loaded.megabytes());
        change(&mut setup);
        Machine::start(Emulator::Bochs, &setup, &self.folder(name), Echo::Off)
    }

    /// See [`publish`].
    fn publish(&self, name: &str, figures: &Value, table: &str) -> Result<()> {
        publish(&self.claim.folder, name, self.json, figures, table)
    }
}

/// Shows figures in the form that was asked for, and keeps them in `NAME.json` of a folder.
fn publish(folder: &Path, name: &str, as_json: bool, figures: &Value, table: &str) -> Result<()> {
    let json = format!("{figures:#}\n");
    let file = folder.join(format!("{name}.json"));
    paths::write(&file, &json)?;
    if as_json {
        print!("{json}");
    } else {
        print!("\n{table}");
    }
    eprintln!("==> {}", paths::shown(&file));
    Ok(())
}

/// Has the shell say what a guest's exits were, from whichever console is shown now.
fn statistics_of(machine: &mut Machine, guest: &str) -> Result<Vec<Vcpu>> {
    machine.send("\u{f}h")?;
    machine.expect(SHELL_PROMPT, LIMIT)?;
    machine.send(&format!("stat {guest}\r"))?;
    machine.expect(&format!("{guest} vcpu 0: "), LIMIT)?;
    // The list ends where the shell answers again.
    machine.send("cpus\r")?;
    machine.expect("TSC ", LIMIT)?;
    Ok(statistics::read(&machine.console.text(), guest))
}

//! The one tool of users and developers: builds, runs, tests and measures Understudy.

#![forbid(unsafe_code)]

mod bench;
mod build;
mod cli;
mod client;
mod compile;
mod cpio;
mod elf;
mod emulator;
mod image;
mod install;
mod linux;
mod network;
mod packages;
mod paths;
mod progress;
mod run;
mod simd;
mod simulate;
mod suite;
mod symbolize;
mod terminal;
mod toolchain;
mod twin;
mod wire;
mod witness;

use anyhow::{Context, Result};
use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

/// The exit code that shells give a program ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = end_children_on_every_path().and_then(|()| dispatch(&cli));
    terminal::restore();
    emulator::process::kill_all();
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Build(options) => build::build(options, &[]).map(|_| ExitCode::SUCCESS),
        Command::Run(options) if options.twin => twin::run(options),
        Command::Run(options) => run::run(options),
        Command::Bench(cli::Bench::Exits(options)) => bench::exits(options),
        Command::Bench(cli::Bench::Boot(options)) => bench::boot(options),
        Command::Bench(cli::Bench::Rt(options)) => bench::rt(options),
        Command::Bench(cli::Bench::Net(options)) => bench::net(options),
        Command::Bench(cli::Bench::Mirror(options)) => bench::mirror(options),
        Command::Test(options) => suite::test(options),
        Command::Simulate(options) => Ok(simulate::simulate(options)),
        Command::Witness(options) => witness::run(options),
        Command::Symbolize { log } => {
            let last = paths::output().join("run/console.log");
            let log = log.as_ref().unwrap_or(&last);
            symbolize::print(log, &compile::Programs::paths().hypervisor)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Sees to it that emulators die and the terminal is itself again after Ctrl-C and after panics.
fn end_children_on_every_path() -> Result<()> {
    ctrlc::set_handler(|| {
        terminal::restore();
        emulator::process::kill_all();
        std::process::exit(INTERRUPTED);
    })
    .context("cannot handle Ctrl-C")?;
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        terminal::restore();
        emulator::process::kill_all();
        usual(panic);
    }));
    Ok(())
}

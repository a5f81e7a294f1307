//! `cargo xtask bench boot`: Linux's way from the kernel's entry to its first program, natively and as
//! a guest.
//!
//! Both sides have the same kernel, initial file system, command line, size of memory and number of
//! processors. The serial console is there on both, but `quiet` keeps it from being what is measured: a
//! real line at 115200 baud takes the native kernel some 4,300 ticks a character. The emulator's CPUID
//! claims another rate than its time-stamp counter has, which would make every delay of the native kernel
//! 70 times too long; so both are told the right one. The first program tells the time-stamp counter as
//! its first act. A guest's counter starts at zero just before its first instruction; natively it counts
//! from power-on, and Bochs's debugger tells the tick of the kernel's first instruction.

use super::statistics::Vcpu;
use super::{LIMIT, Workshop, native, statistics_of};
use crate::cli::BenchOptions;
use crate::emulator::console::Echo;
use crate::emulator::{Emulator, Machine, Watch, bochs};
use crate::linux::Linux;
use crate::paths;
use crate::progress;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;

/// Memory of the guest and of the native machine, in MiB.
const MEGABYTES: u32 = 256;
/// What the first program says in front of the time-stamp counter.
const MARK: &str = "bootmark: tsc ";
/// How much longer the guest may take than the native kernel.
const RATIO_GOAL: f64 = 1.10;
/// How much of the time in which the guest does not idle the hypervisor may take.
const ROOT_GOAL: f64 = 0.05;

/// The figures.
struct Figures {
    command_line: String,
    native: u64,
    guest: u64,
    vcpu: Vcpu,
}

/// Measures both.
///
/// # Errors
///
/// Where one of them does not get there.
pub(crate) fn boot(options: &BenchOptions) -> Result<ExitCode> {
    let workshop = Workshop::open(options)?;
    Linux::Cloud.prepare(!options.no_install)?;
    let khz = bochs::IPS / 1000;
    let command_line = format!("console=ttyS0 quiet tsc_early_khz={khz} rdinit=/bin/bootmark");
    let native = progress::step("Boot Linux natively", || natively(&workshop, &command_line))?;
    let (guest, vcpu) = progress::step("Boot Linux as a guest", || {
        as_guest(&workshop, &command_line)
    })?;
    let figures = Figures {
        command_line,
        native,
        guest,
        vcpu,
    };
    workshop.publish("boot", &figures.json(), &figures.table())?;
    Ok(ExitCode::SUCCESS)
}

/// Ticks from the kernel's first instruction to the first program.
fn natively(workshop: &Workshop, command_line: &str) -> Result<u64> {
    let folder = workshop.folder("native");
    let kernel = paths::read(&Linux::Cloud.kernel())?;
    let initrd = paths::read(&Linux::Cloud.initramfs())?;
    let mut setup = native::machine(&folder, &kernel, &initrd, command_line, MEGABYTES)?;
    setup.watch = native::watch_entry(&kernel)?;
    let logs = folder.join("run");
    let mut machine = Machine::start(Emulator::Bochs, &setup, &logs, Echo::Off)?;
    let reached = mark(&mut machine)?;
    let stops = machine.stops()?;
    let entered = stops
        .first()
        .context("the kernel was not entered where it would like to be")?;
    reached
        .checked_sub(*entered)
        .context("the first program ran before the kernel")
}

/// The same under the hypervisor, and what that did meanwhile.
fn as_guest(workshop: &Workshop, command_line: &str) -> Result<(u64, Vcpu)> {
    let board = format!(
        "[board]\nname = \"bench-boot\"\ncpus = 1\n\n[[guest]]\nname = \"linux\"\n\
         image = \"@linux\"\nmemory = \"{MEGABYTES}M\"\ncpu = 0\n\
         command_line = \"{command_line}\"\nmodules = [{{ image = \"@initramfs\" }}]\n"
    );
    let mut machine = workshop.start(&board, "guest", Watch::Nothing)?;
    let reached = mark(&mut machine)?;
    let vcpus = statistics_of(&mut machine, "linux")?;
    let vcpu = vcpus.into_iter().next();
    Ok((reached, vcpu.context("the shell told no statistics")?))
}

/// Waits for the first program, and returns the time-stamp counter that it read.
fn mark(machine: &mut Machine) -> Result<u64> {
    machine.expect(MARK, LIMIT)?;
    let tsc = machine.expect("\n", LIMIT)?;
    let tsc = tsc.trim();
    tsc.parse()
        .with_context(|| format!("\"{tsc}\" is no time stamp"))
}

impl Figures {
    fn ratio(&self) -> f64 {
        self.guest as f64 / self.native.max(1) as f64
    }

    fn json(&self) -> Value {
        json!({
            "unit": "ticks of the time-stamp counter in Bochs: instructions, and idle time at the same rate",
            "command_line": self.command_line,
            "memory_mib": MEGABYTES,
            "native_ticks": self.native,
            "guest_ticks": self.guest,
            "ratio": self.ratio(),
            "ratio_goal": RATIO_GOAL,
            "root_share": self.vcpu.root_share(),
            "root_share_goal": ROOT_GOAL,
            "vcpu": self.vcpu.json(),
        })
    }

    fn table(&self) -> String {
        let mut text = format!(
            "from the kernel's entry to /init, {MEGABYTES} MiB, \"{}\"\n\n\
             natively          {:>14} ticks\n\
             as a guest        {:>14} ticks\n\
             ratio             {:>14.3}  (goal: at most {RATIO_GOAL:.2})\n\
             hypervisor's part {:>14.2} % of the ticks not idle  (goal: at most {:.0} %)\n\n\
             {:<12}{:>10}{:>14}{:>10}{:>10}\n",
            self.command_line,
            self.native,
            self.guest,
            self.ratio(),
            self.vcpu.root_share() * 100.0,
            ROOT_GOAL * 100.0,
            "exit",
            "count",
            "ticks",
            "mean",
            "worst",
        );
        for exits in &self.vcpu.exits {
            let mean = exits.ticks / exits.count.max(1);
            let _ = writeln!(
                text,
                "{:<12}{:>10}{:>14}{mean:>10}{:>10}",
                exits.name, exits.count, exits.ticks, exits.worst
            );
        }
        let _ = writeln!(
            text,
            "\n{} interrupts, {} ticks in the guest, {} in the hypervisor, {} halted",
            self.vcpu.interrupts, self.vcpu.guest, self.vcpu.root, self.vcpu.halted
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_json_hold_the_ratio_and_the_exits() {
        let exits = super::super::statistics::Exits {
            name: "cpuid".into(),
            count: 3,
            ticks: 450,
            worst: 160,
        };
        let figures = Figures {
            command_line: "quiet".into(),
            native: 1000,
            guest: 1050,
            vcpu: Vcpu {
                guest: 975,
                root: 25,
                exits: vec![exits],
                ..Vcpu::default()
            },
        };
        let table = figures.table();
        assert!(table.contains("1.050  (goal: at most 1.10)"), "{table}");
        assert!(table.contains("2.50 % of"), "{table}");
        let row = table.lines().find(|line| line.starts_with("cpuid"));
        let columns: Vec<_> = row.unwrap().split_whitespace().collect();
        assert_eq!(columns, ["cpuid", "3", "450", "150", "160"]);
        assert_eq!(figures.json()["vcpu"]["exits"][0]["count"], 3);
    }
}

//! Programs from the distribution: finds out which are missing and installs them in one go.

mod backports;

use crate::{paths, progress};
use anyhow::{Context, Result, bail};
use backports::Backports;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Package lists older than this are fetched anew before anything is installed.
const LISTS_AGE: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// How apt-get is told to install packages.
const INSTALL: [&str; 2] = ["install", "--no-install-recommends"];

/// Something that must be on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// The Debian package that brings it.
    pub package: &'static str,
    /// How to see that it is there.
    pub sign: Sign,
}

/// How to see that something is there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sign {
    /// A program on the search path.
    Program(&'static str),
    /// A program on the search path that says, when asked, that its version's first number is this or a later one.
    Version(&'static str, u32),
    /// A file or folder.
    Path(&'static str),
}

impl Sign {
    /// The first number that the version must have at least, where that matters.
    const fn least_version(self) -> Option<u32> {
        match self {
            Self::Version(_, least) => Some(least),
            Self::Program(_) | Self::Path(_) => None,
        }
    }
}

impl Need {
    const fn program(package: &'static str, name: &'static str) -> Self {
        Self {
            package,
            sign: Sign::Program(name),
        }
    }

    const fn path(package: &'static str, path: &'static str) -> Self {
        Self {
            package,
            sign: Sign::Path(path),
        }
    }

    fn is_met(&self) -> bool {
        match self.sign {
            Sign::Program(name) => paths::program(name).is_some(),
            Sign::Version(name, least) => {
                paths::program(name).is_some() && version(name).is_some_and(|major| major >= least)
            }
            Sign::Path(path) => Path::new(path).exists(),
        }
    }
}

/// What makes a bootable CD image.
pub(crate) const IMAGE: &[Need] = &[
    Need::program("grub-common", "grub-mkrescue"),
    Need::path("grub-pc-bin", "/usr/lib/grub/i386-pc/multiboot2.mod"),
    Need::program("xorriso", "xorriso"),
    Need::program("mtools", "mformat"),
];
/// The linker for code without an operating system.
pub(crate) const LINKER: &[Need] = &[Need::program("lld", "ld.lld")];
/// A compiler with the sources of its core library.
pub(crate) const COMPILER: &[Need] = &[
    Need::path("rustc-web", "/usr/bin/rustc"),
    Need::path("cargo-web", "/usr/bin/cargo"),
    Need::path(
        "rust-web-src",
        "/usr/lib/rustlib/src/rust/library/Cargo.lock",
    ),
];
/// The Bochs emulator with a display that needs no window.
pub(crate) const BOCHS: &[Need] = &[
    Need::program("bochs", "bochs-bin"),
    Need::path(
        "bochs-term",
        "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so",
    ),
    Need::path("bochsbios", "/usr/share/bochs/BIOS-bochs-latest"),
    Need::path("vgabios", "/usr/share/bochs/VGABIOS-lgpl-latest"),
];
/// QEMU. Its package brings the firmware and the cards' ROMs along. The 82576 card (`igb`) came with version 8.
pub(crate) const QEMU: &[Need] = &[Need {
    package: "qemu-system-x86",
    sign: Sign::Version("qemu-system-x86_64", 8),
}];
/// A C compiler and what static programs are linked with.
pub(crate) const C_COMPILER: &[Need] = &[
    Need::program("gcc", "cc"),
    Need::path("libc6-dev", "/usr/lib/x86_64-linux-gnu/libc.a"),
];

/// What apt-get is to do.
#[derive(Debug, Default)]
struct Plan {
    /// Packages of the release.
    packages: Vec<&'static str>,
    /// Packages of its backports, and where those are.
    backported: Vec<&'static str>,
    backports: Option<Backports>,
}

/// Sees to it that all of `needs` are on this machine.
///
/// # Errors
///
/// Where something is missing and must not or cannot be installed; the text has the lines that
/// would install it.
pub(crate) fn ensure(needs: &[&[Need]], may_install: bool) -> Result<()> {
    let packages = missing(needs);
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if paths::program("apt-get").is_none() {
        bail!(
            "these Debian packages are missing, and this system has no apt-get to install them: {names}"
        );
    }
    if !may_install {
        let lines = Plan::make(needs)?.lines().join("\n    ");
        bail!("these packages are missing: {names}; install them with\n\n    {lines}\n");
    }
    progress::step(&format!("Install packages: {names}"), || {
        if lists_are_old() {
            apt(&["update"])?;
        }
        let plan = Plan::make(needs)?;
        let added = match &plan.backports {
            Some(backports) => backports.add_source()?,
            None => false,
        };
        if added {
            apt(&["update"])?;
        }
        if plan.install().is_err() {
            // Lists that name packages which the mirror has replaced since are the usual cause.
            apt(&["update"])?;
            plan.install().with_context(|| {
                let lines = plan.lines().join("\n    ");
                format!("cannot install what is missing; try\n    {lines}")
            })?;
        }
        let still = missing(needs);
        if !still.is_empty() {
            bail!(
                "installed, but something is still missing from: {}",
                still.join(" ")
            );
        }
        Ok(())
    })
}

impl Plan {
    /// Sorts what is missing by where it comes from.
    fn make(needs: &[&[Need]]) -> Result<Self> {
        let mut plan = Self::default();
        for need in unmet(needs) {
            if !need.candidate_is_too_old() {
                plan.packages.push(need.package);
                continue;
            }
            if plan.backports.is_none() {
                plan.backports = Some(Backports::find(need.package)?);
            }
            plan.backported.push(need.package);
        }
        plan.packages.dedup();
        plan.backported.dedup();
        Ok(plan)
    }

    /// The arguments of apt-get's calls.
    fn calls(&self) -> Vec<Vec<&str>> {
        let mut calls = Vec::new();
        if !self.packages.is_empty() {
            calls.push([&INSTALL, self.packages.as_slice()].concat());
        }
        if let Some(backports) = &self.backports {
            let suite = ["-t", &backports.suite];
            calls.push([&INSTALL, suite.as_slice(), &self.backported].concat());
        }
        calls
    }

    /// What a person would type.
    fn lines(&self) -> Vec<String> {
        let mut lines = self.backports.as_ref().map_or(Vec::new(), Backports::lines);
        let calls = self.calls();
        lines.extend(
            calls
                .iter()
                .map(|call| format!("sudo apt-get {}", call.join(" "))),
        );
        lines
    }

    fn install(&self) -> Result<()> {
        self.calls()
            .iter()
            .try_for_each(|call| apt(&[call.as_slice(), &["-y", "--no-remove"]].concat()))
    }
}

/// The packages of the needs that are not met.
pub(crate) fn missing(needs: &[&[Need]]) -> Vec<&'static str> {
    let mut packages: Vec<_> = unmet(needs).map(|need| need.package).collect();
    packages.dedup();
    packages
}

fn unmet<'a>(needs: &'a [&[Need]]) -> impl Iterator<Item = &'a Need> {
    needs
        .iter()
        .flat_map(|group| group.iter())
        .filter(|need| !need.is_met())
}

/// The first number of what a program tells as its version: `NAME version 10.0.2 (...)`.
fn version(program: &str) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    backports::leading_number(text.split_once("version ")?.1)
}

/// The start of a call of a program as root.
fn as_root(program: &str) -> Result<Command> {
    if nix::unistd::geteuid().is_root() {
        return Ok(Command::new(program));
    }
    if paths::program("sudo").is_none() {
        bail!("installing packages needs root: run this as root, or install sudo");
    }
    let mut command = Command::new("sudo");
    command.args(["DEBIAN_FRONTEND=noninteractive", program]);
    Ok(command)
}

/// Runs apt-get as root, without questions.
fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = as_root("apt-get")?;
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
        .args(["-q", "-o", "Dpkg::Use-Pty=0"])
        .args(arguments);
    command.stdin(std::process::Stdio::inherit());
    // What apt-get tells is progress, not the result of this tool.
    command.stdout(std::io::stderr());
    let status = command.status().context("cannot start apt-get")?;
    if !status.success() {
        bail!("apt-get {} failed", arguments.join(" "));
    }
    Ok(())
}

/// Whether the package lists are absent or too old to be relied on.
fn lists_are_old() -> bool {
    let Ok(entries) = fs::read_dir("/var/lib/apt/lists") else {
        return true;
    };
    let newest = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max();
    let age = newest.and_then(|time| SystemTime::now().duration_since(time).ok());
    age.is_none_or(|age| age > LISTS_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_named() {
        let there = [Need::path("base-files", "/etc")];
        let absent = [
            Need::path("nothing", "/nonexistent/file"),
            Need::program("no-program", "no-such-program-here"),
        ];
        assert_eq!(missing(&[&there]), Vec::<&str>::new());
        assert_eq!(missing(&[&there, &absent]), ["nothing", "no-program"]);
    }

    #[test]
    fn without_leave_the_line_is_told_and_nothing_is_installed() {
        let absent = [Need::path("some-package", "/nonexistent/file")];
        let error = ensure(&[&absent], false).unwrap_err().to_string();
        assert!(error.contains("apt-get install --no-install-recommends some-package"));
    }
}

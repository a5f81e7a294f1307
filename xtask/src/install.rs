//! Programs from the distribution: finds out which are missing and installs them in one go.

use crate::{paths, progress};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Package lists older than this are fetched anew before anything is installed.
const LISTS_AGE: Duration = Duration::from_secs(3 * 24 * 60 * 60);

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
    /// A file or folder.
    Path(&'static str),
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
/// QEMU for machines with nested VT-x.
pub(crate) const QEMU: &[Need] = &[Need::program("qemu-system-x86", "qemu-system-x86_64")];
/// A C compiler and what static programs are linked with.
pub(crate) const C_COMPILER: &[Need] = &[
    Need::program("gcc", "cc"),
    Need::path("libc6-dev", "/usr/lib/x86_64-linux-gnu/libc.a"),
];

/// Sees to it that all of `needs` are on this machine.
///
/// # Errors
///
/// Where something is missing and must not or cannot be installed; the text has the line that
/// would install it.
pub(crate) fn ensure(needs: &[&[Need]], may_install: bool) -> Result<()> {
    let packages = missing(needs);
    if packages.is_empty() {
        return Ok(());
    }
    let line = format!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    );
    if !may_install {
        bail!("these packages are missing; install them with\n\n    sudo {line}\n");
    }
    if paths::program("apt-get").is_none() {
        bail!(
            "these Debian packages are missing, and this system has no apt-get to install them: {}",
            packages.join(" ")
        );
    }
    progress::step(&format!("Install packages: {}", packages.join(" ")), || {
        if lists_are_old() {
            apt(&["update"])?;
        }
        let mut arguments = vec!["install", "-y", "--no-install-recommends", "--no-remove"];
        arguments.extend_from_slice(&packages);
        if apt(&arguments).is_err() {
            // Lists that name packages which the mirror has replaced since are the usual cause.
            apt(&["update"])?;
            apt(&arguments)
                .with_context(|| format!("cannot install what is missing; try\n    sudo {line}"))?;
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

/// The packages of the needs that are not met.
pub(crate) fn missing(needs: &[&[Need]]) -> Vec<&'static str> {
    let mut packages: Vec<_> = needs
        .iter()
        .flat_map(|group| group.iter())
        .filter(|need| !need.is_met())
        .map(|need| need.package)
        .collect();
    packages.dedup();
    packages
}

/// Runs apt-get as root, without questions.
fn apt(arguments: &[&str]) -> Result<()> {
    let root = nix::unistd::geteuid().is_root();
    let mut command = Command::new(if root { "apt-get" } else { "sudo" });
    if !root {
        if paths::program("sudo").is_none() {
            bail!("installing packages needs root: run this as root, or install sudo");
        }
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    }
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

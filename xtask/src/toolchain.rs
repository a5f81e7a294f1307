//! Which compiler builds the code that runs without an operating system.
//!
//! Three routes, the first that is open is taken:
//! 1. the active toolchain has the targets installed;
//! 2. rustup installs them (not tried where `RUSTUP_AUTO_INSTALL=0` forbids it);
//! 3. a compiler that has the sources of `core` at hand builds them along: the active toolchain
//!    with its `rust-src`, or the distribution's packages, which are installed where need be.

use crate::install::{self, Need};
use crate::paths;
use crate::progress;
use anyhow::{Context, Result, bail};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The hypervisor's target.
pub(crate) const BOARD_TARGET: &str = "x86_64-unknown-none";
/// The target of the 32-bit guests.
pub(crate) const GUEST_TARGET: &str = "i586-unknown-linux-gnu";
/// The oldest compiler that reads this workspace, as its minor version.
const MINOR_MIN: u32 = 90;

/// The compiler that was chosen, and how.
#[derive(Debug)]
pub(crate) struct Toolchain {
    cargo: PathBuf,
    rustc: Option<PathBuf>,
    build_std: bool,
    /// The linker to be named for a target; none leaves the target's own.
    board_linker: Option<PathBuf>,
    guest_linker: PathBuf,
    /// Sub-folder of the output for this route, so that routes do not undo each other's work.
    folder: &'static str,
    /// Which route this is and why, for the user.
    pub reason: String,
}

/// What the active toolchain says of itself.
#[derive(Debug)]
pub(crate) struct Active {
    sysroot: PathBuf,
    host: String,
}

/// A way to a compiler, before anything is installed for it.
#[derive(Debug)]
pub(crate) enum Route {
    /// The active toolchain has the targets.
    Plain(Active, &'static str),
    /// The active toolchain has the sources of core.
    Sources(Active),
    /// The distribution's packages.
    Packages,
}

impl Route {
    /// Finds the first route that is open; asks rustup for the targets where that is allowed.
    pub(crate) fn find() -> Self {
        let Some(active) = Active::find() else {
            return Self::Packages;
        };
        if active.has_targets() {
            Self::Plain(active, "the active toolchain has both targets")
        } else if rustup_adds_targets() && active.has_targets() {
            Self::Plain(active, "rustup added the targets")
        } else if active.has_sources() {
            Self::Sources(active)
        } else {
            Self::Packages
        }
    }

    /// What must be on this machine for it.
    pub(crate) fn needs(&self) -> Vec<&'static [Need]> {
        match self {
            Self::Plain(active, _) | Self::Sources(active) if active.linker().is_some() => vec![],
            Self::Plain(..) | Self::Sources(_) => vec![install::LINKER],
            Self::Packages => vec![install::COMPILER, install::LINKER],
        }
    }
}

impl Toolchain {
    /// Takes a route whose needs are met.
    ///
    /// # Errors
    ///
    /// Where the distribution's compiler is too old.
    pub(crate) fn new(route: &Route) -> Result<Self> {
        let why = match env::var("RUSTUP_AUTO_INSTALL") {
            Ok(value) if value == "0" => "RUSTUP_AUTO_INSTALL=0 forbids adding targets",
            _ => "rustup could not add the targets",
        };
        match route {
            Route::Plain(active, reason) => Ok(Self {
                cargo: "cargo".into(),
                rustc: None,
                build_std: false,
                board_linker: None,
                guest_linker: linker(Some(active))?,
                folder: "cargo",
                reason: (*reason).to_owned(),
            }),
            Route::Sources(active) => {
                let linker = linker(Some(active))?;
                Ok(Self {
                    cargo: "cargo".into(),
                    rustc: None,
                    build_std: true,
                    board_linker: Some(linker.clone()),
                    guest_linker: linker,
                    folder: "cargo-src",
                    reason: format!("{why}; the active toolchain builds core from its rust-src"),
                })
            }
            Route::Packages => Self::of_packages(why),
        }
    }

    fn of_packages(why: &str) -> Result<Self> {
        let rustc = Path::new("/usr/bin/rustc");
        let minor = minor_version(rustc)?;
        if minor < MINOR_MIN {
            bail!(
                "/usr/bin/rustc is version 1.{minor}, at least 1.{MINOR_MIN} is needed; install the \
                 packages rustc-web, cargo-web and rust-web-src in its place, or let rustup add the \
                 targets {BOARD_TARGET} and {GUEST_TARGET}"
            );
        }
        let linker = linker(None)?;
        Ok(Self {
            cargo: "/usr/bin/cargo".into(),
            rustc: Some(rustc.to_path_buf()),
            build_std: true,
            board_linker: Some(linker.clone()),
            guest_linker: linker,
            folder: "cargo-web",
            reason: format!(
                "{why}; the distribution's compiler (1.{minor}) builds core from rust-web-src"
            ),
        })
    }

    /// The target folder of this route.
    pub(crate) fn target_folder(&self) -> PathBuf {
        paths::output().join(self.folder)
    }

    /// The cargo call that builds one package for one target.
    pub(crate) fn build(&self, package: &str, target: &str, release: bool) -> Command {
        let mut command = Command::new(&self.cargo);
        forget_outer_cargo(&mut command);
        command.current_dir(paths::root());
        command.args(["build", "--package", package, "--target", target]);
        if release {
            command.arg("--release");
        }
        command.arg("--target-dir").arg(self.target_folder());
        if let Some(rustc) = &self.rustc {
            command.env("RUSTC", rustc);
            command.env_remove("RUSTUP_TOOLCHAIN");
        }
        if self.build_std {
            // Stable compilers build core only with this switch. The crates themselves deny
            // unstable features, so none can slip in under it.
            command.env("RUSTC_BOOTSTRAP", "1");
            command.arg("-Zbuild-std=core,alloc");
        }
        if let Some(linker) = &self.board_linker {
            command.env(linker_variable(BOARD_TARGET), linker);
        }
        command.env(linker_variable(GUEST_TARGET), &self.guest_linker);
        command
    }
}

impl Active {
    fn find() -> Option<Self> {
        let ask = |arguments: &[&str]| {
            let mut command = Command::new("rustc");
            command.current_dir(paths::root()).args(arguments);
            let output = command.output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            output.status.success().then(|| text.trim().to_owned())
        };
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?);
        let verbose = ask(&["-vV"])?;
        let host = verbose
            .lines()
            .find_map(|line| line.strip_prefix("host: "))?;
        Some(Self {
            sysroot,
            host: host.to_owned(),
        })
    }

    fn has_targets(&self) -> bool {
        [BOARD_TARGET, GUEST_TARGET].iter().all(|target| {
            let folder = self.sysroot.join("lib/rustlib").join(target).join("lib");
            folder.read_dir().is_ok_and(|entries| {
                entries
                    .flatten()
                    .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
            })
        })
    }

    fn has_sources(&self) -> bool {
        self.sysroot
            .join("lib/rustlib/src/rust/library/Cargo.lock")
            .is_file()
    }

    /// The linker that rustup ships beside the compiler.
    fn linker(&self) -> Option<PathBuf> {
        let file = self
            .sysroot
            .join("lib/rustlib")
            .join(&self.host)
            .join("bin/gcc-ld/ld.lld");
        file.is_file().then_some(file)
    }
}

fn linker(active: Option<&Active>) -> Result<PathBuf> {
    active
        .and_then(Active::linker)
        .or_else(|| paths::program("ld.lld"))
        .context("there is no ld.lld on the search path")
}

/// Asks rustup for the targets.
fn rustup_adds_targets() -> bool {
    if env::var("RUSTUP_AUTO_INSTALL").is_ok_and(|value| value == "0")
        || paths::program("rustup").is_none()
    {
        return false;
    }
    progress::note(&format!(
        "asking rustup for {BOARD_TARGET} and {GUEST_TARGET}"
    ));
    let mut command = Command::new("rustup");
    command.current_dir(paths::root());
    command.args(["target", "add", BOARD_TARGET, GUEST_TARGET]);
    command.stdout(std::io::stderr());
    command.status().is_ok_and(|status| status.success())
}

/// The `7` of `rustc 1.7.0`.
fn minor_version(rustc: &Path) -> Result<u32> {
    let output = Command::new(rustc).arg("--version").output();
    let output = output.with_context(|| format!("cannot start {}", rustc.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_minor(&text).with_context(|| format!("cannot read the version in \"{}\"", text.trim()))
}

fn parse_minor(text: &str) -> Option<u32> {
    let version = text.strip_prefix("rustc 1.")?;
    version.split('.').next()?.parse().ok()
}

/// The variable by which cargo is told a target's linker.
fn linker_variable(target: &str) -> String {
    let target = target.to_uppercase().replace('-', "_");
    format!("CARGO_TARGET_{target}_LINKER")
}

/// Takes out of a call's environment what the cargo that runs this tool has put there.
pub(crate) fn forget_outer_cargo(command: &mut Command) {
    const EXACT: &[&str] = &[
        "CARGO",
        "CARGO_BIN_NAME",
        "CARGO_BUILD_TARGET",
        "CARGO_CRATE_NAME",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_LINKS",
        "CARGO_MANIFEST_PATH",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_DIR",
        "LD_LIBRARY_PATH",
        "OUT_DIR",
        "RUSTC",
        "RUSTFLAGS",
    ];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if EXACT.contains(&text.as_ref()) || text.starts_with("CARGO_PKG_") {
            command.env_remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_minor("rustc 1.96.0 (abc 2026-01-01)\n"), Some(96));
        assert_eq!(parse_minor("rustc 2.0"), None);
        assert_eq!(parse_minor("clang"), None);
    }

    #[test]
    fn linkers_are_named_as_cargo_reads_them() {
        assert_eq!(
            linker_variable(GUEST_TARGET),
            "CARGO_TARGET_I586_UNKNOWN_LINUX_GNU_LINKER"
        );
    }
}

//! What is checked on the host: form, lints, and all tests that need no board.

use crate::paths;
use crate::toolchain::forget_outer_cargo;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// One call of cargo.
pub(super) struct Check {
    /// Its name, which filters match.
    pub name: &'static str,
    /// What it shows, for the list.
    pub about: &'static str,
    arguments: &'static [&'static str],
}

/// All of them.
pub(super) fn checks() -> Vec<Check> {
    vec![
        Check {
            name: "host-format",
            about: "all code is formatted by rustfmt",
            arguments: &["fmt", "--all", "--check"],
        },
        Check {
            name: "host-lints",
            about: "clippy finds nothing, in any target",
            arguments: &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        },
        Check {
            name: "host-tests",
            about: "unit, integration and property tests of all crates",
            arguments: &["test", "--workspace"],
        },
    ]
}

impl Check {
    /// Makes the call; what it says goes to standard error.
    ///
    /// # Errors
    ///
    /// Where it fails.
    pub(super) fn run(&self) -> Result<()> {
        let mut command = Command::new("cargo");
        forget_outer_cargo(&mut command);
        command.current_dir(paths::root());
        command.env("CARGO_TARGET_DIR", paths::target());
        command.args(self.arguments).stdout(std::io::stderr());
        let status = command.status().context("cannot start cargo")?;
        if !status.success() {
            bail!(
                "cargo {} failed; its messages are above",
                self.arguments.join(" ")
            );
        }
        Ok(())
    }
}

//! A peer to compare with: the distribution's Linux, natively in the same emulator, whose first program measures what it
//! hosts.
//!
//! The initial file system holds nothing but that program, device nodes and modules. The program says what it found on the
//! console, or a line `failed: REASON`, and powers the machine off.

use super::native;
use crate::cpio::Archive;
use crate::emulator::Setup;
use crate::install;
use crate::linux::{self, Modules};
use crate::packages;
use crate::paths;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a peer is made of.
pub(super) struct Peer {
    /// The meta package of its kernel.
    pub package: &'static str,
    /// The modules, without what they need; that is loaded before them.
    pub modules: &'static [&'static str],
    /// Nodes of character devices, with their numbers.
    pub devices: &'static [(&'static str, u32, u32)],
    /// The first program's C files, in guests/linux.
    pub sources: &'static [&'static str],
    /// The kernel's command line.
    pub command_line: &'static str,
    /// Memory of the machine in MiB.
    pub megabytes: u32,
}

impl Peer {
    /// Makes it in `folder`, as a machine with one processor.
    ///
    /// # Errors
    ///
    /// Where it cannot be fetched or built.
    pub(super) fn make(&self, folder: &Path, may_install: bool) -> Result<Setup> {
        install::ensure(&[install::C_COMPILER], may_install)?;
        paths::make_folder(folder)?;
        let package = packages::dependency(self.package, "linux-image-", "amd64")?;
        let tree = packages::unpacked(&package, "amd64", may_install)?;
        let version = package.trim_start_matches("linux-image-");
        let kernel = paths::read(&tree.join(format!("boot/vmlinuz-{version}")))?;
        let modules = Modules::find(&tree.join("lib/modules").join(version))?;
        let initrd = self.file_system(folder, &modules)?;
        native::machine(folder, &kernel, &initrd, self.command_line, self.megabytes)
    }

    fn file_system(&self, folder: &Path, modules: &Modules) -> Result<Vec<u8>> {
        let init = self.compile(folder)?;
        let names: Vec<_> = self.modules.iter().map(ToString::to_string).collect();
        let mut archive = Archive::default();
        for name in ["dev", "dev/net", "modules", "proc", "sys"] {
            archive.folder(name);
        }
        archive.device("dev/console", 5, 1);
        for (name, major, minor) in self.devices {
            archive.device(name, *major, *minor);
        }
        archive.file("init", &paths::read(&init)?)?;
        let modules = modules.with_dependencies(&names)?;
        linux::pack(&modules, "modules", &mut archive)?;
        Ok(archive.finish())
    }

    fn compile(&self, folder: &Path) -> Result<PathBuf> {
        let program = folder.join("init");
        let sources = paths::root().join("guests/linux");
        let status = Command::new("cc")
            .args(["-O2", "-static", "-o"])
            .arg(&program)
            .args(self.sources.iter().map(|file| sources.join(file)))
            .status()
            .context("cannot start the C compiler")?;
        if !status.success() {
            bail!("the measuring program does not compile; the compiler's messages are above");
        }
        Ok(program)
    }
}

/// Finds what the first program complains of, if it does.
///
/// # Errors
///
/// Where it does.
pub(super) fn check(console: &str) -> Result<()> {
    match console
        .lines()
        .find_map(|line| line.strip_prefix("failed: "))
    {
        Some(reason) => bail!("the peer could not be measured: {}", reason.trim()),
        None => Ok(()),
    }
}

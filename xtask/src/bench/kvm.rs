//! The peer: KVM, measured in the same emulator by a program that makes the same exits.
//!
//! The distribution's cloud kernel and an initial file system that holds only the measuring program and
//! KVM's modules. It powers off when it is done.

use super::{figures, native};
use crate::cpio::Archive;
use crate::emulator::console::Echo;
use crate::emulator::{Emulator, Machine};
use crate::install;
use crate::packages;
use crate::paths;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const META_PACKAGE: &str = "linux-image-cloud-amd64";
const MODULES: [&str; 3] = [
    "virt/lib/irqbypass.ko",
    "arch/x86/kvm/kvm.ko",
    "arch/x86/kvm/kvm-intel.ko",
];
/// Memory of the machine in MiB.
const MEGABYTES: u32 = 512;
/// How long the kernel and the measurement may take.
const LIMIT: Duration = Duration::from_secs(900);

/// Measures, and returns names and ticks as the probes' bench gives them.
///
/// KVM is measured without its mitigations of processor defects, which is at its fastest.
///
/// # Errors
///
/// Where the peer cannot be fetched, built or run.
pub(super) fn measure(folder: &Path, may_install: bool) -> Result<Vec<(String, u64)>> {
    install::ensure(&[install::C_COMPILER], may_install)?;
    paths::make_folder(folder)?;
    let package = packages::dependency(META_PACKAGE, "linux-image-", "amd64")?;
    let tree = packages::unpacked(&package, "amd64", may_install)?;
    let version = package.trim_start_matches("linux-image-");
    let kernel = paths::read(&tree.join(format!("boot/vmlinuz-{version}")))?;
    let modules = tree.join("lib/modules").join(version).join("kernel");
    let initrd = file_system(folder, &modules)?;
    let command_line = "console=ttyS0 quiet mitigations=off";
    let setup = native::machine(folder, &kernel, &initrd, command_line, MEGABYTES)?;
    let logs = folder.join("run");
    let mut machine = Machine::start(Emulator::Bochs, &setup, &logs, Echo::Off)?;
    machine
        .wait_power_off(LIMIT)
        .with_context(|| format!("see {}", paths::shown(&logs)))?;
    let console = machine.console.text();
    if let Some(line) = console.lines().find(|line| line.starts_with("failed: ")) {
        bail!(
            "KVM could not be measured: {line}; see {}",
            paths::shown(&logs)
        );
    }
    let lines = figures::bench_lines(&console);
    if lines.is_empty() {
        bail!("KVM said no figures; see {}", paths::shown(&logs));
    }
    Ok(lines)
}

/// The initial file system: the measuring program as /init, two device nodes, the modules.
fn file_system(folder: &Path, modules: &Path) -> Result<Vec<u8>> {
    let init = compile(folder)?;
    let mut archive = Archive::default();
    archive.folder("dev");
    archive.device("dev/console", 5, 1);
    archive.device("dev/kvm", 10, 232);
    archive.file("init", &paths::read(&init)?)?;
    for module in MODULES {
        let path = modules.join(module);
        let name = path.file_name().context("a module has no name")?;
        archive.file(&name.to_string_lossy(), &paths::read(&path)?)?;
    }
    Ok(archive.finish())
}

fn compile(folder: &Path) -> Result<PathBuf> {
    let program = folder.join("init");
    let status = Command::new("cc")
        .args(["-O2", "-static", "-o"])
        .arg(&program)
        .arg(paths::root().join("guests/linux/kvm-exits.c"))
        .status()
        .context("cannot start the C compiler")?;
    if !status.success() {
        bail!("the measuring program does not compile; the compiler's messages are above");
    }
    Ok(program)
}

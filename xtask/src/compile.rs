//! Builds the programs: the hypervisor and the guests of this project.

use crate::elf::Image;
use crate::linux::Linux;
use crate::paths;
use crate::progress;
use crate::simd;
use crate::toolchain::{BOARD_TARGET, GUEST_TARGET, Toolchain};
use anyhow::{Context, Result, bail};
use config::toml::BuiltImage;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs that a build leaves behind.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The hypervisor with its symbols.
    pub hypervisor: PathBuf,
    /// The hypervisor as it lies on the CD.
    pub stripped: PathBuf,
    rtos: PathBuf,
    probes: PathBuf,
    linux: PathBuf,
    initramfs: PathBuf,
    linux_generic: PathBuf,
    initramfs_generic: PathBuf,
    /// Whether packages may be fetched for what a board names.
    pub may_fetch: bool,
}

impl Programs {
    /// Where a build leaves its programs.
    pub(crate) fn paths() -> Self {
        let output = paths::output();
        Self {
            hypervisor: output.join("understudy.elf"),
            stripped: output.join("boot/understudy.elf"),
            rtos: output.join("rtos.elf"),
            probes: output.join("probes.elf"),
            linux: Linux::Cloud.kernel(),
            initramfs: Linux::Cloud.initramfs(),
            linux_generic: Linux::Generic.kernel(),
            initramfs_generic: Linux::Generic.initramfs(),
            may_fetch: true,
        }
    }

    /// Copies of the programs in a folder, which later builds leave as they are.
    ///
    /// # Errors
    ///
    /// Where they cannot be copied.
    pub(crate) fn copied_to(&self, folder: &Path) -> Result<Self> {
        paths::fresh_folder(folder)?;
        let copy = |file: &Path, name: &str| -> Result<PathBuf> {
            let to = folder.join(name);
            install(file, &to)?;
            Ok(to)
        };
        Ok(Self {
            hypervisor: copy(&self.hypervisor, "understudy.elf")?,
            stripped: copy(&self.stripped, "understudy-stripped.elf")?,
            rtos: copy(&self.rtos, "rtos.elf")?,
            probes: copy(&self.probes, "probes.elf")?,
            ..self.clone()
        })
    }

    /// The file of one of this project's guests.
    pub(crate) const fn guest(&self, image: BuiltImage) -> &PathBuf {
        match image {
            BuiltImage::Rtos => &self.rtos,
            BuiltImage::Probes => &self.probes,
            BuiltImage::Linux => &self.linux,
            BuiltImage::Initramfs => &self.initramfs,
            BuiltImage::LinuxGeneric => &self.linux_generic,
            BuiltImage::InitramfsGeneric => &self.initramfs_generic,
        }
    }
}

/// Builds everything, checks the hypervisor, and puts the programs in their places.
///
/// # Errors
///
/// Where a compilation fails or the hypervisor breaks a rule.
pub(crate) fn programs(toolchain: &Toolchain, release: bool) -> Result<Programs> {
    let programs = Programs::paths();
    paths::make_folder(&paths::output().join("boot"))?;
    progress::step("Compile the hypervisor", || {
        let built = cargo(toolchain, "understudy", BOARD_TARGET, release)?;
        install(&built, &programs.hypervisor)
    })?;
    progress::step("Check the hypervisor's code", || {
        check(&programs).with_context(|| paths::shown(&programs.hypervisor))
    })?;
    progress::step("Compile the guests", || {
        for image in BuiltImage::PROGRAMS {
            let built = cargo(toolchain, image.name(), GUEST_TARGET, release)?;
            let bytes = paths::read(&built)?;
            let stripped = Image::parse(&bytes)?.stripped()?;
            paths::write(programs.guest(image), stripped)?;
        }
        Ok(())
    })?;
    Ok(programs)
}

/// Builds one package and returns its program.
fn cargo(toolchain: &Toolchain, package: &str, target: &str, release: bool) -> Result<PathBuf> {
    let mut command: Command = toolchain.build(package, target, release);
    command.stdout(std::io::stderr());
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{package} does not compile for {target}; the compiler's messages are above");
    }
    let profile = if release { "release" } else { "debug" };
    let folder = toolchain.target_folder().join(target).join(profile);
    Ok(folder.join(package))
}

fn install(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Checks what the compiler made, and writes the file for the CD.
fn check(programs: &Programs) -> Result<()> {
    let bytes = paths::read(&programs.hypervisor)?;
    let image = Image::parse(&bytes)?;
    image.check_permissions()?;
    simd::check(&image)?;
    let stripped = image.stripped()?;
    progress::note(&format!(
        "{} KiB in the file, {} KiB in memory",
        stripped.len().div_ceil(1024),
        image.load_size()?.div_ceil(1024)
    ));
    paths::write(&programs.stripped, stripped)
}

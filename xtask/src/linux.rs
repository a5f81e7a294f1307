//! The Linux guest: a distribution's kernel with an initial file system of our own.
//!
//! guests/linux holds the recipe, the first program and programs of our own. What comes of them lies in
//! `linux/` and `linux-generic/` of the output folder and stays until one of them changes; remove those
//! folders and `packages/` to take newer packages.

use crate::cpio::Archive;
use crate::packages;
use crate::paths;
use crate::progress;
use crate::toolchain::forget_outer_cargo;
use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::endian::LittleEndian;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

const ARCHITECTURE: &str = "amd64";
/// Rust's name of what our programs run on.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The package of our programs, and the file that it makes.
const PROGRAMS: (&str, &str) = ("linux-programs", "lab");
/// To be changed with what this module makes of the same recipe.
const FORMAT: u32 = 3;

/// One preparation at a time, and only one of each in a run of this tool: those that are done.
static PREPARED: Mutex<Vec<Linux>> = Mutex::new(Vec::new());

/// Which of the distribution's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linux {
    /// The one for virtual machines, which knows few devices.
    Cloud,
    /// The one for real hardware.
    Generic,
}

/// guests/linux/recipe.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    kernels: Kernels,
    userland: Userland,
    programs: Programs,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kernels {
    cloud: Kernel,
    generic: Kernel,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kernel {
    /// The meta package.
    package: String,
    /// How the name of the package with the kernel starts.
    start: String,
    modules: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Userland {
    package: String,
    /// Its program, which is everything: shell and tools.
    program: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Programs {
    /// What our own programs are called by.
    names: Vec<String>,
}

impl Linux {
    fn folder(self) -> PathBuf {
        paths::output().join(match self {
            Self::Cloud => "linux",
            Self::Generic => "linux-generic",
        })
    }

    /// Where the kernel is once it is prepared.
    pub(crate) fn kernel(self) -> PathBuf {
        self.folder().join("vmlinuz")
    }

    /// Where the initial file system is once it is prepared.
    pub(crate) fn initramfs(self) -> PathBuf {
        self.folder().join("initramfs.cpio.gz")
    }

    /// Makes the kernel and the initial file system, unless they are there already.
    ///
    /// # Errors
    ///
    /// Where a package cannot be fetched or lacks what the recipe takes from it, or our programs do not
    /// compile.
    pub(crate) fn prepare(self, may_fetch: bool) -> Result<()> {
        let mut prepared = PREPARED.lock().unwrap_or_else(PoisonError::into_inner);
        if !prepared.contains(&self) {
            self.make_unless_there(may_fetch)?;
            prepared.push(self);
        }
        Ok(())
    }

    fn make_unless_there(self, may_fetch: bool) -> Result<()> {
        let sources = paths::root().join("guests/linux");
        let recipe_file = sources.join("recipe.toml");
        let text = fs::read_to_string(&recipe_file)
            .with_context(|| format!("cannot read {}", recipe_file.display()))?;
        let init = paths::read(&sources.join("init"))?;
        let programs = compile()?;
        let mut hasher = DefaultHasher::new();
        (FORMAT, &text, &init, &programs).hash(&mut hasher);
        let key = format!("{:016x}\n", hasher.finish());
        let key_file = self.folder().join("key");
        if self.kernel().is_file()
            && self.initramfs().is_file()
            && fs::read_to_string(&key_file).is_ok_and(|old| old == key)
        {
            return Ok(());
        }
        let recipe: Recipe = toml::from_str(&text)
            .with_context(|| format!("{} is wrong", paths::shown(&recipe_file)))?;
        progress::step("Make the Linux guest", || {
            paths::fresh_folder(&self.folder())?;
            self.make(&recipe, &init, &programs, may_fetch)?;
            paths::write(&key_file, &key)
        })
    }

    fn make(self, recipe: &Recipe, init: &[u8], programs: &[u8], may_fetch: bool) -> Result<()> {
        let Recipe {
            kernels,
            userland,
            programs: Programs { names },
        } = recipe;
        let kernel = match self {
            Self::Cloud => &kernels.cloud,
            Self::Generic => &kernels.generic,
        };
        let package = packages::dependency(&kernel.package, &kernel.start, ARCHITECTURE)?;
        let version = package.trim_start_matches(kernel.start.as_str());
        let tree = packages::unpacked(&package, ARCHITECTURE, may_fetch)?;
        paths::write(
            &self.kernel(),
            paths::read(&tree.join(format!("boot/vmlinuz-{version}")))?,
        )?;
        let modules = Modules::find(&tree.join("lib/modules").join(version))?;
        let modules = modules
            .with_dependencies(&kernel.modules)
            .with_context(|| format!("the package {package} is not as the recipe says"))?;
        let tree = packages::unpacked(&userland.package, ARCHITECTURE, may_fetch)?;
        let busybox = paths::read(&tree.join(&userland.program))?;
        let archive = gzip(&file_system(init, &busybox, (programs, names), &modules)?)?;
        progress::note(&format!(
            "Linux {version} with {} modules; initial file system of {} KiB",
            modules.len(),
            archive.len().div_ceil(1024)
        ));
        paths::write(&self.initramfs(), archive)
    }
}

/// Compiles our programs with the compiler of this tool, statically, and returns their one file.
fn compile() -> Result<Vec<u8>> {
    let (package, file) = PROGRAMS;
    let output = paths::output().join("cargo-linux");
    let mut command = Command::new("cargo");
    forget_outer_cargo(&mut command);
    command.current_dir(paths::root());
    command.args(["build", "--quiet", "--release", "--package", package]);
    command.args(["--target", TARGET, "--target-dir"]);
    command.arg(&output);
    command.env(
        "RUSTFLAGS",
        "-Ctarget-feature=+crt-static -Crelocation-model=static -Cstrip=symbols",
    );
    command.stdout(std::io::stderr());
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("{package} does not compile for {TARGET}; the compiler's messages are above");
    }
    paths::read(&output.join(TARGET).join("release").join(file))
}

/// The initial file system.
fn file_system(
    init: &[u8],
    busybox: &[u8],
    (programs, names): (&[u8], &[String]),
    modules: &[Module],
) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for name in [
        "bin",
        "dev",
        "etc",
        "lib",
        "lib/modules",
        "proc",
        "root",
        "sys",
        "tmp",
    ] {
        archive.folder(name);
    }
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", busybox)?;
    archive.link("bin/sh", "busybox");
    let (_, file) = PROGRAMS;
    archive.file(&format!("bin/{file}"), programs)?;
    for name in names {
        archive.link(&format!("bin/{name}"), file);
    }
    pack(modules, "lib/modules", &mut archive)?;
    archive.file("init", init)?;
    Ok(archive.finish())
}

/// Puts modules into a folder of an archive, where `order` names them in load order.
///
/// # Errors
///
/// Where one is too large.
pub(crate) fn pack(modules: &[Module], folder: &str, archive: &mut Archive) -> Result<()> {
    let mut order = String::new();
    for module in modules {
        archive.file(&format!("{folder}/{}.ko", module.name), &module.bytes)?;
        order += &format!("{}.ko\n", module.name);
    }
    archive.file(&format!("{folder}/order"), order.as_bytes())
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).context("cannot compress")?;
    encoder.finish().context("cannot compress")
}

/// A kernel module to be loaded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    name: String,
    bytes: Vec<u8>,
}

/// The modules of a kernel.
pub(crate) struct Modules {
    /// By name, with underscores as the kernel writes it.
    files: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// Finds all that lie in a folder and those below it.
    ///
    /// # Errors
    ///
    /// Where one of the folders cannot be read.
    pub(crate) fn find(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder)
                .with_context(|| format!("cannot read the folder {}", folder.display()))?;
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "ko")
                    && let Some(stem) = path.file_stem()
                {
                    files.insert(plain(&stem.to_string_lossy()), path);
                }
            }
        }
        Ok(Self { files })
    }

    /// The modules with these names and what they need, each behind what it needs.
    ///
    /// # Errors
    ///
    /// Where there is no such module, or it cannot be read.
    pub(crate) fn with_dependencies(&self, names: &[String]) -> Result<Vec<Module>> {
        let mut loaded = Vec::new();
        for name in names {
            self.add(&plain(name), &mut Vec::new(), &mut loaded)?;
        }
        Ok(loaded)
    }

    fn add(&self, name: &str, above: &mut Vec<String>, loaded: &mut Vec<Module>) -> Result<()> {
        if loaded.iter().any(|module| module.name == name) {
            return Ok(());
        }
        if above.iter().any(|other| other == name) {
            bail!("the module {name} needs itself");
        }
        let Some(file) = self.files.get(name) else {
            bail!("there is no module {name}");
        };
        let bytes = paths::read(file)?;
        let needs = dependencies(&bytes)
            .with_context(|| format!("{} is no kernel module", file.display()))?;
        above.push(name.to_owned());
        for needed in needs {
            self.add(&plain(&needed), above, loaded)?;
        }
        above.pop();
        loaded.push(Module {
            name: name.to_owned(),
            bytes,
        });
        Ok(())
    }
}

/// A module's name as the kernel writes it.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// The modules that a module names in its section .modinfo.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(module)?;
    let section = file
        .section_header_by_name(".modinfo")?
        .context("it has no section .modinfo")?;
    let (data, _) = file.section_data(&section)?;
    Ok(data
        .split(|byte| *byte == 0)
        .filter_map(|entry| str::from_utf8(entry).ok()?.strip_prefix("depends="))
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF64 file whose only content is a section .modinfo.
    fn module(depends: &str) -> Vec<u8> {
        const HEADER: usize = 64;
        let info = format!("license=GPL\0depends={depends}\0name=x\0");
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
        bytes.resize(HEADER, 0);
        bytes.extend(info.as_bytes());
        bytes.extend(names);
        let sections = bytes.len();
        bytes[16..20].copy_from_slice(&[1, 0, 62, 0]);
        bytes[40..48].copy_from_slice(&(sections as u64).to_le_bytes());
        bytes[52..64].copy_from_slice(&[64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
        bytes.resize(sections + 64, 0);
        for (name, start, size) in [
            (1u32, HEADER, info.len()),
            (10, HEADER + info.len(), names.len()),
        ] {
            let at = bytes.len();
            bytes.resize(at + 64, 0);
            bytes[at..at + 4].copy_from_slice(&name.to_le_bytes());
            bytes[at + 4] = 1;
            bytes[at + 24..at + 32].copy_from_slice(&(start as u64).to_le_bytes());
            bytes[at + 32..at + 40].copy_from_slice(&(size as u64).to_le_bytes());
        }
        bytes
    }

    fn modules(files: &[(&str, &str)]) -> (tempfile::TempDir, Modules) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        for (name, depends) in files {
            fs::write(folder.path().join("deep").join(name), module(depends)).unwrap();
        }
        let found = Modules::find(folder.path()).unwrap();
        (folder, found)
    }

    fn order(modules: &Modules, names: &[&str]) -> Result<Vec<String>> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let loaded = modules.with_dependencies(&names)?;
        Ok(loaded.into_iter().map(|module| module.name).collect())
    }

    #[test]
    fn modules_come_behind_what_they_need() {
        let (_folder, modules) = modules(&[
            ("virtio-rng.ko", "virtio"),
            ("virtio.ko", ""),
            ("virtio_ring.ko", ""),
            ("virtio_pci.ko", "virtio_ring,virtio"),
            ("unused.ko", ""),
        ]);
        assert_eq!(
            order(&modules, &["virtio_pci", "virtio_rng"]).unwrap(),
            ["virtio_ring", "virtio", "virtio_pci", "virtio_rng"]
        );
    }

    #[test]
    fn modules_that_cannot_be_loaded_are_named() {
        let (folder, modules) = modules(&[("a.ko", "b"), ("b.ko", "a"), ("c.ko", "gone")]);
        let error = |name: &str| format!("{:#}", order(&modules, &[name]).unwrap_err());
        assert_eq!(error("a"), "the module a needs itself");
        assert_eq!(error("c"), "there is no module gone");
        fs::write(folder.path().join("deep/c.ko"), b"text").unwrap();
        assert!(error("c").contains("c.ko is no kernel module"));
    }

    #[test]
    fn the_recipe_of_the_project_can_be_read() {
        let file = paths::root().join("guests/linux/recipe.toml");
        let recipe: Recipe = toml::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        for kernel in [&recipe.kernels.cloud, &recipe.kernels.generic] {
            assert!(kernel.package.starts_with(&kernel.start));
        }
        assert!(recipe.userland.program.is_relative());
    }
}

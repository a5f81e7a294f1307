//! Software of others, as packages of the distribution: fetched once, unpacked, never installed.

use crate::paths;
use crate::progress;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// One download at a time: they share package lists.
static FETCHING: Mutex<()> = Mutex::new(());

/// Fetches a package of an architecture and returns the folder it is unpacked in.
///
/// # Errors
///
/// Where it cannot be fetched.
pub(crate) fn unpacked(package: &str, architecture: &str, may_fetch: bool) -> Result<PathBuf> {
    let _alone = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let store = paths::output().join("packages");
    let tree = store.join(format!("{package}-{architecture}"));
    if tree.is_dir() {
        return Ok(tree);
    }
    if !may_fetch {
        bail!(
            "the package {package}:{architecture} is needed, and fetching is forbidden (--no-install)"
        );
    }
    let apt = Apt::new(&store, architecture)?;
    let download = store.join(format!("download-{package}"));
    paths::fresh_folder(&download)?;
    progress::note(&format!("fetching the package {package}:{architecture}"));
    if apt.download(package, &download).is_err() {
        // An update may fail for one source of several; the download then decides.
        let _ = apt.run(&["update"], &store);
        apt.download(package, &download)
            .with_context(|| format!("cannot fetch the package {package}:{architecture}"))?;
    }
    let file = fs::read_dir(&download)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get left no file of {package}"))?;
    let staging = store.join(format!("unpacking-{package}"));
    paths::fresh_folder(&staging)?;
    run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&staging))?;
    fs::rename(&staging, &tree).context("cannot move the unpacked package to its place")?;
    fs::remove_dir_all(&download)?;
    Ok(tree)
}

/// The package that a meta package stands for, by the start of its name.
///
/// # Errors
///
/// Where the meta package is not known or depends on no such package.
pub(crate) fn dependency(meta: &str, start: &str, architecture: &str) -> Result<String> {
    let _alone = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let store = paths::output().join("packages");
    let apt = Apt::new(&store, architecture)?;
    let ask = || -> Result<String> {
        let output = apt.command("apt-cache").args(["depends", meta]).output();
        let output = output.context("cannot start apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(start))
            .map(str::to_owned)
            .with_context(|| format!("the package lists know no {start}... behind {meta}"))
    };
    ask().or_else(|_| {
        let _ = apt.run(&["update"], &store);
        ask()
    })
}

/// Unpacks one gzip file.
///
/// # Errors
///
/// Where it cannot be read or written.
pub(crate) fn gunzip(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("gzip")
        .arg("-dc")
        .arg(from)
        .output()
        .context("cannot start gzip")?;
    if !output.status.success() {
        bail!("{} cannot be unpacked", from.display());
    }
    paths::write(to, output.stdout)
}

/// apt-get with lists and caches of its own, so that no other architecture need be enabled.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(store: &Path, architecture: &str) -> Result<Self> {
        let own = store.join(format!("apt-{architecture}"));
        paths::make_folder(&own.join("lists/partial"))?;
        paths::make_folder(&own.join("cache/archives/partial"))?;
        let options = [
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
            format!("Dir::State::Lists={}", own.join("lists").display()),
            format!("Dir::Cache={}", own.join("cache").display()),
            "Dir::State::status=/dev/null".into(),
            "APT::Sandbox::User=root".into(),
            "Debug::NoLocking=1".into(),
        ];
        Ok(Self {
            options: options.to_vec(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-q");
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command
    }

    fn run(&self, arguments: &[&str], folder: &Path) -> Result<()> {
        run(self.command("apt-get").args(arguments).current_dir(folder))
    }

    fn download(&self, package: &str, folder: &Path) -> Result<()> {
        self.run(&["download", package], folder)
    }
}

/// Runs a program that is silent unless it fails.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed: {}", said.trim());
    }
    Ok(())
}

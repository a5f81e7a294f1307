//! Where things lie: the checkout and the output folders.

use anyhow::{Context, Result, bail};
use std::env;
use std::fs::{self, File, Permissions, TryLockError};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The top of the checkout.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

/// Cargo's target folder of this checkout: `CARGO_TARGET_DIR` where that is set.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) if !folder.is_empty() => root().join(folder),
        _ => root().join("target"),
    }
}

/// The folder of everything that this tool makes.
pub(crate) fn output() -> PathBuf {
    target().join("understudy")
}

/// The board that is built where no other is named.
pub(crate) fn default_board() -> PathBuf {
    root().join("boot/boards/default.toml")
}

/// The pair of boards that is built where no other is named.
pub(crate) fn default_pair() -> PathBuf {
    root().join("boot/boards/twin.toml")
}

/// Makes a folder and its parents where they are missing.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))
}

/// Makes a folder anew, without what an earlier run left in it.
pub(crate) fn fresh_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot empty the folder {}", folder.display()))?;
    }
    make_folder(folder)
}

/// A folder of the output that no other call of this tool uses meanwhile.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// Locked until it is dropped, or the process ends in whichever way.
    _lock: File,
}

/// Claims the folder `name` of the output, or, where another call uses it, `name-2` and so on.
///
/// # Errors
///
/// Where the output folder cannot be written.
pub(crate) fn claim(name: &str) -> Result<Claim> {
    let output = output();
    make_folder(&output)?;
    for number in 1.. {
        let name = match number {
            1 => name.to_owned(),
            _ => format!("{name}-{number}"),
        };
        let lock = output.join(format!("{name}.lock"));
        let lock =
            File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
        match lock.try_lock() {
            Ok(()) => {
                return Ok(Claim {
                    folder: output.join(name),
                    _lock: lock,
                });
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(error).context("cannot lock the output folder");
            }
        }
    }
    bail!("every folder for {name} is in use")
}

/// Writes a file at once: nobody sees a part of it. An error names it.
pub(crate) fn write(file: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    let context = || format!("cannot write {}", file.display());
    let folder = file.parent().with_context(context)?;
    let mut new = NamedTempFile::new_in(folder).with_context(context)?;
    new.write_all(bytes.as_ref()).with_context(context)?;
    // As any file that is written; temporary ones are private at first.
    new.as_file()
        .set_permissions(Permissions::from_mode(0o644))
        .with_context(context)?;
    new.persist(file).with_context(context)?;
    Ok(())
}

/// Reads a file, with an error that names it.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// A path as a person wants to see it: relative to the current folder where it lies below.
pub(crate) fn shown(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(&here)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Finds a program on the search path.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

//! `cargo xtask build`: from sources and a board file to a bootable image.

use crate::cli::BuildOptions;
use crate::compile::{self, Programs};
use crate::image::LoadedBoard;
use crate::install::{self, Need};
use crate::paths;
use crate::progress;
use crate::toolchain::{Route, Toolchain};
use anyhow::{Context, Result};
use config::Board;
use mirror::Side;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What a build leaves behind.
pub(crate) struct Built {
    /// The programs.
    pub programs: Programs,
    /// The board that the image is for.
    pub board: Board,
    /// Memory that a machine for the board has, in MiB.
    pub megabytes: u32,
    /// The CD image.
    pub iso: PathBuf,
}

/// Builds the programs and the image of one board. Whatever is missing on this machine for that,
/// or of `more`, is installed first, in one go.
///
/// # Errors
///
/// Where a tool is missing, something does not compile, or the board file is wrong.
pub(crate) fn build(options: &BuildOptions, more: &[&[Need]]) -> Result<Built> {
    let _lock = lock()?;
    let programs = compile(options, more)?;
    let file = options.board.clone().unwrap_or_else(paths::default_board);
    image(options, &file, options.side, programs)
}

/// The same for both boards of a pair.
///
/// # Errors
///
/// As [`build`].
pub(crate) fn pair(options: &BuildOptions, more: &[&[Need]]) -> Result<[Built; 2]> {
    let _lock = lock()?;
    let programs = compile(options, more)?;
    let file = options.board.clone().unwrap_or_else(paths::default_pair);
    let of = |side| image(options, &file, Some(side), programs.clone());
    Ok([of(Side::A)?, of(Side::B)?])
}

/// Makes an image. Those of a pair's boards lie beside each other.
fn image(
    options: &BuildOptions,
    file: &Path,
    side: Option<Side>,
    programs: Programs,
) -> Result<Built> {
    let board = match side {
        Some(side) => format!("board {side} of {}", paths::shown(file)),
        None => format!("the board {}", paths::shown(file)),
    };
    progress::step(&format!("Make the image of {board}"), || {
        let loaded = LoadedBoard::read(file, side, &programs)?;
        let mut output = paths::output();
        if let Some(side) = side {
            output.push(format!("side-{side}"));
            paths::make_folder(&output)?;
        }
        paths::write(
            &output.join("board.bin"),
            config::blob::encode(&loaded.board),
        )?;
        let iso = loaded.make_image(&output, &programs, &options.append)?;
        progress::note(&paths::shown(&iso));
        let megabytes = loaded.megabytes();
        Ok(Built {
            programs,
            board: loaded.board,
            megabytes,
            iso,
        })
    })
}

/// Builds the programs alone, and copies them into a folder where later builds do not touch them.
///
/// # Errors
///
/// As [`build`], or where they cannot be copied.
pub(crate) fn programs(
    options: &BuildOptions,
    more: &[&[Need]],
    folder: &Path,
) -> Result<Programs> {
    let _lock = lock()?;
    compile(options, more)?.copied_to(folder)
}

fn compile(options: &BuildOptions, more: &[&[Need]]) -> Result<Programs> {
    let route = Route::find();
    let mut needs = vec![install::IMAGE];
    needs.extend(route.needs());
    needs.extend(more);
    install::ensure(&needs, !options.no_install)?;
    let toolchain = Toolchain::new(&route)?;
    progress::note(&format!("compiler: {}", toolchain.reason));
    let mut programs = compile::programs(&toolchain, !options.debug)?;
    programs.may_fetch = !options.no_install;
    Ok(programs)
}

/// Keeps other calls of this tool out of the output folder while this one builds.
fn lock() -> Result<File> {
    let output = paths::output();
    paths::make_folder(&output)?;
    let file = File::create(output.join("lock")).context("cannot make the build's lock file")?;
    if file.try_lock().is_err() {
        progress::note("waiting for another build to end");
        file.lock().context("cannot lock the output folder")?;
    }
    Ok(file)
}

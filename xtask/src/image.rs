//! The bootable CD image of one board: GRUB, the hypervisor, the board's description, its files.

use crate::compile::Programs;
use crate::linux::Linux;
use crate::paths;
use anyhow::{Context, Result, bail};
use config::Board;
use config::toml::{BuiltImage, ModuleSource, Origin, parse};
use mirror::Side;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Memory of an emulated machine is a multiple of this, and at least as much, in bytes.
const MEMORY_STEP: u64 = 128 << 20;
/// What the hypervisor and the firmware take of it, by far.
const MEMORY_OVERHEAD: u64 = 64 << 20;

/// A board that was read, with the bytes of its boot modules in order.
pub(crate) struct LoadedBoard {
    /// The description.
    pub board: Board,
    modules: Vec<Vec<u8>>,
}

impl LoadedBoard {
    /// Reads a board file, for this side if it is a pair's, and the files that it names.
    ///
    /// # Errors
    ///
    /// All errors of the file at once, each with its line.
    pub(crate) fn read(file: &Path, side: Option<Side>, programs: &Programs) -> Result<Self> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("cannot read the board file {}", file.display()))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        Self::parse(&text, &paths::shown(file), side, folder, programs)
    }

    /// Reads a board from a text; relative paths in it start at `folder`.
    ///
    /// # Errors
    ///
    /// As [`LoadedBoard::read`].
    pub(crate) fn parse(
        text: &str,
        name: &str,
        side: Option<Side>,
        folder: &Path,
        programs: &Programs,
    ) -> Result<Self> {
        let (mut board, sources) = parse(text, name, side)?;
        for (linux, kernel, initramfs) in [
            (Linux::Cloud, BuiltImage::Linux, BuiltImage::Initramfs),
            (
                Linux::Generic,
                BuiltImage::LinuxGeneric,
                BuiltImage::InitramfsGeneric,
            ),
        ] {
            let made = [kernel, initramfs].map(Origin::Built);
            if sources.iter().any(|source| made.contains(&source.origin)) {
                linux.prepare(programs.may_fetch)?;
            }
        }
        let mut modules: Vec<Vec<u8>> = Vec::new();
        let mut errors = Vec::new();
        for source in &sources {
            let path = source_path(source, folder, programs);
            match fs::read(&path) {
                Ok(bytes) if bytes.is_empty() => errors.push(format!(
                    "{name}:{}: the {} is empty: {}",
                    source.line,
                    source.purpose,
                    path.display()
                )),
                Ok(bytes) => modules.push(bytes),
                Err(error) => errors.push(format!(
                    "{name}:{}: cannot read the {}: {}: {error}",
                    source.line,
                    source.purpose,
                    path.display()
                )),
            }
        }
        if errors.is_empty() {
            errors.extend(oversized(&board, &sources, &modules, name));
        }
        if !errors.is_empty() {
            bail!("{}", errors.join("\n"));
        }
        if let Some(mirror) = &mut board.mirror {
            mirror.images = digest(&modules);
        }
        Ok(Self { board, modules })
    }

    /// Memory that an emulated machine for this board needs, in MiB: for the guests, their disks, the files
    /// that the boot loader brings, and the hypervisor.
    pub(crate) fn megabytes(&self) -> u32 {
        let guests = self.board.guests.iter().map(|guest| {
            let disks: u64 = guest.disks.iter().map(|disk| disk.size).sum();
            // A guest that is mirrored is there twice.
            let copies = if guest.mirror.is_some() { 2 } else { 1 };
            copies * (guest.memory + disks)
        });
        let files = self.modules.iter().map(|bytes| bytes.len() as u64);
        let bytes = guests.chain(files).sum::<u64>() + MEMORY_OVERHEAD;
        u32::try_from(bytes.next_multiple_of(MEMORY_STEP) >> 20).unwrap_or(u32::MAX)
    }

    /// Makes the CD image `understudy.iso` in `folder`, unless the one there has this content.
    ///
    /// # Errors
    ///
    /// Where a file cannot be written or grub-mkrescue fails.
    pub(crate) fn make_image(
        &self,
        folder: &Path,
        programs: &Programs,
        command_line: &str,
    ) -> Result<PathBuf> {
        let hypervisor = paths::read(&programs.stripped)?;
        let blob = config::blob::encode(&self.board);
        let menu = grub_menu(command_line, self.modules.len())?;
        let mut hasher = DefaultHasher::new();
        (&hypervisor, &blob, &menu, &self.modules).hash(&mut hasher);
        let key = format!("{:016x}\n", hasher.finish());
        let (iso, key_file) = (
            folder.join("understudy.iso"),
            folder.join("understudy.iso.key"),
        );
        if iso.is_file() && fs::read_to_string(&key_file).is_ok_and(|old| old == key) {
            return Ok(iso);
        }
        let tree = folder.join("iso");
        paths::fresh_folder(&tree.join("boot/grub"))?;
        let boot = tree.join("boot");
        paths::write(&boot.join("grub/grub.cfg"), menu)?;
        paths::write(&boot.join("understudy.elf"), hypervisor)?;
        paths::write(&boot.join("board.bin"), blob)?;
        for (number, bytes) in self.modules.iter().enumerate() {
            paths::write(&boot.join(format!("module-{number}.img")), bytes)?;
        }
        // A board that runs from an earlier image keeps that.
        let fresh = folder.join("understudy.iso.new");
        mkrescue(&tree, &fresh)?;
        fs::rename(&fresh, &iso).context("cannot put the image in its place")?;
        paths::write(&key_file, key)?;
        fs::remove_dir_all(&tree).context("cannot remove the image's working folder")?;
        Ok(iso)
    }
}

/// A digest of the files of a board: FNV-1a over their lengths and bytes.
fn digest(files: &[Vec<u8>]) -> u64 {
    files.iter().fold(0xCBF2_9CE4_8422_2325, |hash, file| {
        let length = (file.len() as u64).to_le_bytes();
        length.iter().chain(file).fold(hash, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
        })
    })
}

/// The images that do not fit their disks.
fn oversized(
    board: &Board,
    sources: &[ModuleSource],
    modules: &[Vec<u8>],
    name: &str,
) -> Vec<String> {
    let mut errors = Vec::new();
    for guest in &board.guests {
        for (number, disk) in guest.disks.iter().enumerate() {
            let Some(image) = disk.image.map(usize::from) else {
                continue;
            };
            if let (Some(source), Some(bytes)) = (sources.get(image), modules.get(image))
                && bytes.len() as u64 > disk.size
            {
                errors.push(format!(
                    "{name}:{}: disk {number} of guest \"{}\" has {} bytes, its image {}",
                    source.line,
                    guest.name,
                    disk.size,
                    bytes.len()
                ));
            }
        }
    }
    errors
}

fn source_path(source: &ModuleSource, folder: &Path, programs: &Programs) -> PathBuf {
    match &source.origin {
        Origin::File(path) => folder.join(path),
        Origin::Built(image) => programs.guest(*image).clone(),
    }
}

/// GRUB's commands that boot the board at once. Every file comes as it is: GRUB would decompress some, and
/// what is a compressed file to a guest must stay one.
fn grub_menu(command_line: &str, modules: usize) -> Result<String> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '\'' | '"' | '\\' | '$') || c == ' ';
    if let Some(bad) = command_line.chars().find(|c| !plain(*c)) {
        bail!("the hypervisor's command line holds {bad:?}, which GRUB would not pass on as it is");
    }
    let command_line = if command_line.is_empty() {
        String::new()
    } else {
        let words = command_line.split_whitespace();
        words.map(|word| format!(" '{word}'")).collect()
    };
    let mut menu = format!(
        "set timeout=0\n\
         multiboot2 /boot/understudy.elf{command_line}\n\
         module2 /boot/board.bin board\n"
    );
    for number in 0..modules {
        menu += &format!("module2 --nounzip /boot/module-{number}.img module:{number}\n");
    }
    Ok(menu + "boot\n")
}

/// Calls grub-mkrescue, which makes an image for BIOS, and for UEFI too where GRUB has that.
///
/// # Errors
///
/// Where it fails.
pub(crate) fn mkrescue(tree: &Path, iso: &Path) -> Result<()> {
    let mut command = Command::new("grub-mkrescue");
    command.args(["--locales=", "--fonts=", "--themes="]);
    command.arg("-o").arg(iso).arg(tree);
    let output = command.output().context("cannot start grub-mkrescue")?;
    if !output.status.success() {
        bail!(
            "grub-mkrescue failed:\n{}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_names_the_modules_in_order() {
        assert_eq!(
            grub_menu("log=debug  x", 2).unwrap(),
            "set timeout=0\n\
             multiboot2 /boot/understudy.elf 'log=debug' 'x'\n\
             module2 /boot/board.bin board\n\
             module2 --nounzip /boot/module-0.img module:0\n\
             module2 --nounzip /boot/module-1.img module:1\n\
             boot\n"
        );
        assert!(grub_menu("a'b", 0).is_err());
        assert!(grub_menu("a\nb", 0).is_err());
    }

    #[test]
    fn an_image_must_fit_its_disk() {
        let folder = tempfile::tempdir().unwrap();
        for (file, size) in [("kernel", 1), ("disk", 4097)] {
            fs::write(folder.path().join(file), vec![1; size]).unwrap();
        }
        let text = |size| {
            format!(
                "[board]\nname = \"b\"\ncpus = 1\n[[guest]]\nname = \"g\"\nmemory = \"2M\"\ncpu = 0\n\
                 image = \"kernel\"\ndisks = [{{ image = \"disk\", size = \"{size}\" }}]\n"
            )
        };
        let read = |size| {
            LoadedBoard::parse(
                &text(size),
                "b.toml",
                None,
                folder.path(),
                &Programs::paths(),
            )
        };
        let error = read("4K").err().expect("it is too large").to_string();
        assert_eq!(
            error,
            "b.toml:9: disk 0 of guest \"g\" has 4096 bytes, its image 4097"
        );
        assert!(read("8K").is_ok());
    }

    #[test]
    fn boards_of_the_project_are_right() {
        let folder = paths::root().join("boot/boards");
        let files: Vec<_> = fs::read_dir(folder).unwrap().flatten().collect();
        assert!(files.len() >= 3);
        for file in files {
            let text = fs::read_to_string(file.path()).unwrap();
            let name = file.file_name().to_string_lossy().into_owned();
            let stem = name.trim_end_matches(".toml");
            // A pair's file is that of two boards.
            let sides = match text.contains("[mirror]") {
                true => &[Some(Side::A), Some(Side::B)][..],
                false => &[None],
            };
            for side in sides {
                let (board, _) = parse(&text, &name, *side).unwrap();
                assert_eq!(board.name, stem, "the board is not called as its file");
            }
        }
    }

    #[test]
    fn machines_have_room_for_guests_and_files() {
        let text = "[board]\nname = \"b\"\ncpus = 1\n[[guest]]\nname = \"g\"\nmemory = \"256M\"\n\
                    cpu = 0\nimage = \"none.elf\"\ndisks = [{ size = \"32M\" }]\n";
        let (board, _) = parse(text, "b.toml", None).unwrap();
        let mut loaded = LoadedBoard {
            board,
            modules: Vec::new(),
        };
        assert_eq!(loaded.megabytes(), 384);
        loaded.modules = vec![vec![0; 20 << 20], vec![0; 15 << 20]];
        assert_eq!(loaded.megabytes(), 512);
    }

    #[test]
    fn missing_files_are_told_with_the_line_that_names_them() {
        let text = "[board]\nname = \"b\"\ncpus = 1\n[[guest]]\nname = \"g\"\nmemory = \"2M\"\n\
                    cpu = 0\nimage = \"none.elf\"\n";
        let folder = Path::new("/nonexistent");
        let result = LoadedBoard::parse(text, "b.toml", None, folder, &Programs::paths());
        let error = result.err().expect("the file is missing").to_string();
        assert!(
            error.starts_with(
                "b.toml:8: cannot read the image of guest \"g\": /nonexistent/none.elf"
            ),
            "{error}"
        );
    }
}

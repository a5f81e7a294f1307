//! What a test works with: boards made from a text, started, talked to, and put away.

use crate::compile::Programs;
use crate::emulator::console::{Echo, Wait};
use crate::emulator::{CardModel, Emulator, Machine, Setup, Virtualization};
use crate::image::{self, LoadedBoard};
use crate::paths;
use crate::symbolize;
use crate::twin::{Image, Pair, index};
use crate::wire::Wire;
use anyhow::{Context, Result, anyhow, bail};
use config::toml::BuiltImage;
use mirror::Side;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The bench of one test. All transcripts stay in `target/understudy/test/NAME`.
pub(crate) struct Lab {
    emulator: Emulator,
    programs: Programs,
    folder: PathBuf,
    deadline: Instant,
    boots: Cell<u32>,
    /// Whether packages may be fetched.
    pub may_install: bool,
}

impl Lab {
    /// The bench of a test, whose time starts now; `folder` is for its transcripts.
    pub(crate) fn new(
        emulator: Emulator,
        programs: &Programs,
        folder: &Path,
        deadline: Duration,
        may_install: bool,
    ) -> Self {
        Self {
            emulator,
            programs: programs.clone(),
            folder: folder.to_path_buf(),
            deadline: Instant::now() + deadline,
            boots: Cell::new(0),
            may_install,
        }
    }

    /// Whether the emulator is Bochs, which tells its own time.
    pub(crate) fn is_bochs(&self) -> bool {
        self.emulator == Emulator::Bochs
    }

    /// Whether the processor is QEMU's translator, which lacks what [`super::natively`] lists.
    pub(crate) fn is_tcg(&self) -> bool {
        self.emulator.is_tcg()
    }

    /// Whether boards of the usual processor model run on AMD-V.
    pub(crate) fn has_svm(&self) -> bool {
        self.emulator.virtualization() == Virtualization::AmdV
    }

    /// Boots a board that is given as the text of a board file.
    ///
    /// # Errors
    ///
    /// Where the text is wrong or the emulator does not start.
    pub(crate) fn boot(&self, board: &str) -> Result<Session> {
        self.boot_with(board, |_| {})
    }

    /// Boots a board on a changed machine.
    ///
    /// # Errors
    ///
    /// As [`Lab::boot`].
    pub(crate) fn boot_with(
        &self,
        board: &str,
        change: impl FnOnce(&mut Setup),
    ) -> Result<Session> {
        let image = self.folder(&format!("image-{}", self.boots.get() + 1))?;
        let root = paths::root();
        let loaded = LoadedBoard::parse(board, "the test's board", None, &root, &self.programs)
            .context("the test's board is wrong")?;
        let iso = loaded.make_image(&image, &self.programs, "")?;
        let mut setup = Setup::new(iso, loaded.board.cpus, loaded.megabytes());
        change(&mut setup);
        self.start(&setup)
    }

    /// Boots a multiboot program of ours on a machine with one processor and no hypervisor.
    ///
    /// # Errors
    ///
    /// Where its CD cannot be made or the emulator does not start.
    pub(crate) fn boot_natively(&self, program: BuiltImage, command_line: &str) -> Result<Session> {
        self.boot_natively_with(program, command_line, |_| {})
    }

    /// The same on a changed machine.
    ///
    /// # Errors
    ///
    /// As [`Lab::boot_natively`].
    pub(crate) fn boot_natively_with(
        &self,
        program: BuiltImage,
        command_line: &str,
        change: impl FnOnce(&mut Setup),
    ) -> Result<Session> {
        const MEGABYTES: u32 = 128;
        let number = self.boots.get() + 1;
        let cd = self.folder(&format!("image-{number}"))?;
        paths::fresh_folder(&cd.join("boot/grub"))?;
        let bytes = paths::read(self.programs.guest(program))?;
        paths::write(&cd.join("boot/program.elf"), bytes)?;
        let menu = format!("set timeout=0\nmultiboot /boot/program.elf {command_line}\nboot\n");
        paths::write(&cd.join("boot/grub/grub.cfg"), menu)?;
        let iso = self
            .folder(&format!("native-{number}"))?
            .join("program.iso");
        image::mkrescue(&cd, &iso)?;
        let mut setup = Setup::new(iso, 1, MEGABYTES);
        change(&mut setup);
        self.start(&setup)
    }

    /// Powers a board on that has its own CD.
    ///
    /// # Errors
    ///
    /// Where the emulator does not start.
    pub(crate) fn start(&self, setup: &Setup) -> Result<Session> {
        let number = self.boots.get() + 1;
        self.boots.set(number);
        let folder = self.folder(&format!("boot-{number}"))?;
        let machine = Machine::start(self.emulator, setup, &folder, Echo::Off)
            .with_context(|| format!("in {}", paths::shown(&folder)))?;
        Ok(Session {
            machine,
            deadline: self.deadline,
            folder,
            hypervisor: self.programs.hypervisor.clone(),
        })
    }

    /// Makes a pair of boards, which are off, each given as the text of a board file; and the addresses of its guests' cards.
    ///
    /// # Errors
    ///
    /// Where a text is wrong, or the wires cannot be laid.
    pub(crate) fn pair(&self, texts: &[String; 2]) -> Result<(Pair, Vec<[u8; 6]>)> {
        let image = |side: Side| {
            let folder = self.folder(&format!("image-{side}"))?;
            Image::make(&texts[index(side)], side, &self.programs, &folder)
        };
        let images = [image(Side::A)?, image(Side::B)?];
        let nics = images[0].board.guests.iter().flat_map(|guest| &guest.nics);
        let addresses = nics.map(|nic| nic.mac.0).collect();
        let model = CardModel::E1000;
        // What an earlier witness has granted is not this one's.
        let folder = self.folder.join("pair");
        paths::fresh_folder(&folder)?;
        let pair = Pair::new(self.emulator, model, images, &folder, false)?;
        Ok((pair, addresses))
    }

    /// Lays a wire, whose capture is among the transcripts: `NAME.pcapng`.
    ///
    /// # Errors
    ///
    /// Where it cannot be laid.
    pub(crate) fn wire(&self, name: &str) -> Result<Wire> {
        let wire = Wire::lay()?;
        wire.capture(&self.folder("wires")?.join(name).with_extension("pcapng"))?;
        Ok(wire)
    }

    /// A folder of the test's own.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        paths::make_folder(&folder)?;
        Ok(folder)
    }

    /// What is left of the test's time.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// A booted board. Every wait ends at the test's deadline at the latest.
pub(crate) struct Session {
    machine: Machine,
    deadline: Instant,
    folder: PathBuf,
    /// For the names of functions, should it panic.
    hypervisor: PathBuf,
}

impl Session {
    /// Waits for a text until the test's deadline; returns all that was said up to its end.
    ///
    /// # Errors
    ///
    /// Where it does not come.
    pub(crate) fn expect(&mut self, text: &str) -> Result<String> {
        let left = self.left();
        self.with_place(|machine| machine.expect(text, left))
    }

    /// As [`Session::expect`], but fails at once where `bad` is said first.
    ///
    /// # Errors
    ///
    /// Where the text does not come, or the bad one does.
    pub(crate) fn expect_unless(&mut self, text: &str, bad: &str) -> Result<String> {
        let end = Instant::now() + self.left();
        loop {
            let step = Duration::from_millis(200).min(self.left());
            if let Wait::Found(said) = self.machine.console.wait_for(text, step) {
                return Ok(said);
            }
            self.never_said(bad)?;
            let over = Instant::now() >= end || self.machine.console.wait_closed(Duration::ZERO);
            if over {
                return self.expect(text);
            }
        }
    }

    /// Waits for a text and returns the rest of its line.
    ///
    /// # Errors
    ///
    /// Where it does not come.
    pub(crate) fn expect_line(&mut self, text: &str) -> Result<String> {
        self.expect(text)?;
        let rest = self.expect("\n")?;
        Ok(rest.trim_end().to_owned())
    }

    /// Types.
    ///
    /// # Errors
    ///
    /// Where the board is gone.
    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        self.with_place(|machine| machine.send(text))
    }

    /// Waits until the board has powered itself off.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub(crate) fn wait_power_off(&mut self) -> Result<()> {
        let left = self.left();
        self.with_place(|machine| machine.wait_power_off(left))
    }

    /// Fails where the console has said `text` so far.
    ///
    /// # Errors
    ///
    /// Where it has.
    pub(crate) fn never_said(&self, text: &str) -> Result<()> {
        let said = self.machine.console.text();
        if let Some(line) = said.lines().find(|line| line.contains(text)) {
            bail!(
                "the console said \"{line}\"; see {}",
                paths::shown(&self.folder)
            );
        }
        Ok(())
    }

    /// The ticks at which Bochs's debugger stopped; see [`Machine::stops`].
    ///
    /// # Errors
    ///
    /// Where the emulator's output cannot be read.
    pub(crate) fn stops(&self) -> Result<Vec<u64>> {
        self.machine.stops()
    }

    /// All that the console has said.
    pub(crate) fn text(&self) -> String {
        self.machine.console.text()
    }

    /// The backtrace of a panic that the console shows, with names.
    ///
    /// # Errors
    ///
    /// Where the hypervisor's file cannot be read.
    pub(crate) fn backtrace(&self) -> Result<String> {
        symbolize::backtrace(&self.text(), &self.hypervisor)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Adds to an error where the transcript lies, and a panic's backtrace with names.
    fn with_place<T>(&mut self, work: impl FnOnce(&mut Machine) -> Result<T>) -> Result<T> {
        work(&mut self.machine).map_err(|error| {
            let folder = paths::shown(&self.folder);
            match self.backtrace() {
                Ok(trace) if !trace.is_empty() => {
                    anyhow!("{error:#}\nthe panic's backtrace:\n{trace}see {folder}")
                }
                _ => anyhow!("{error:#}\nsee {folder}"),
            }
        })
    }
}

//! The keys of a guest's table, and the files that it names.

use super::File;
use super::reader::{self, Table};
use super::source::{BuiltImage, ModuleSource, Origin};
use crate::board::{Clock, Device, Guest, GuestDisk, GuestModule, ImageFormat, OnCrash, Watchdog};
use crate::validate::{GuestKey, Place};
use ::toml::de::DeValue;
use std::path::PathBuf;

/// The priority of a guest whose table names none.
pub const PRIORITY_DEFAULT: u8 = 100;

/// The devices of a guest whose table names none.
pub const DEVICES_DEFAULT: [Device; 3] = [Device::Com1, Device::Rtc, Device::Pci];

pub(super) const GUEST_KEYS: &[&str] = &[
    "name",
    "image",
    "format",
    "memory",
    "cpu",
    "priority",
    "command_line",
    "modules",
    "devices",
    "clock",
    "disks",
    "nics",
    "autostart",
    "on_crash",
    "watchdog",
    "mirror",
    "epoch",
    "mirror_group",
];
const MODULE_KEYS: &[&str] = &["image", "command_line"];
const DISK_KEYS: &[&str] = &["image", "size", "read_only"];

impl File<'_, '_> {
    pub(super) fn guest(&mut self, board: &str, index: usize, table: &Table<'_>) -> Guest {
        let name = table.required_string("name", self.notes);
        let purpose = match &name {
            Some(name) => format!("image of guest \"{name}\""),
            None => format!("image of guest number {}", index + 1),
        };
        let image = self.image(table, &purpose);
        let formats = &[
            ("multiboot", ImageFormat::Multiboot),
            ("linux", ImageFormat::Linux),
        ];
        let format = table.choice("format", formats, self.notes);
        let memory = table.required_size("memory", self.notes);
        let cpus = table.required_integers("cpu", u32::MAX, self.notes);
        let priority = table.integer_or("priority", u8::MAX, PRIORITY_DEFAULT, self.notes);
        let devices = [
            ("com1", Device::Com1),
            ("rtc", Device::Rtc),
            ("pci", Device::Pci),
            ("virtio-console", Device::VirtioConsole),
            ("virtio-rng", Device::VirtioRng),
            ("apic", Device::Apic),
        ];
        let clocks = &[("tsc", Clock::Tsc), ("paravirtual", Clock::Paravirtual)];
        let on_crash = &[("stop", OnCrash::Stop), ("restart", OnCrash::Restart)];
        let watchdogs = [Watchdog::Restart, Watchdog::Failover].map(|it| (it.name(), it));
        let mut mark = |bad, key| self.mark(bad, Place::Guest(index, key));
        mark(name.is_none(), GuestKey::Name);
        mark(memory.is_none(), GuestKey::Memory);
        mark(cpus.is_none(), GuestKey::Cpus);
        mark(priority.is_none(), GuestKey::Priority);
        // A stand-in processor of its own keeps two guests from seeming to share one.
        let apart = u32::MAX - u32::try_from(index).unwrap_or(0);
        let cpus = cpus.unwrap_or_else(|| vec![apart]);
        Guest {
            format: format.unwrap_or_else(|| self.usual_format(image)),
            image,
            memory: memory.unwrap_or_default(),
            nics: self.nics(board, index, table, name.as_deref(), cpus.len()),
            cpus,
            priority: priority.unwrap_or_default(),
            command_line: table.string("command_line", self.notes).unwrap_or_default(),
            modules: self.modules(table, name.as_deref()),
            devices: table
                .choices("devices", &devices, self.notes)
                .unwrap_or_else(|| DEVICES_DEFAULT.to_vec()),
            disks: self.disks(index, table, name.as_deref()),
            autostart: table.boolean("autostart", self.notes).unwrap_or(true),
            clock: table
                .choice("clock", clocks, self.notes)
                .unwrap_or(Clock::Tsc),
            on_crash: table
                .choice("on_crash", on_crash, self.notes)
                .unwrap_or(OnCrash::Stop),
            watchdog: table.choice("watchdog", &watchdogs, self.notes),
            mirror: self.guest_mirror(index, table),
            name: name.unwrap_or_default(),
        }
    }

    fn modules(&mut self, guest: &Table<'_>, name: Option<&str>) -> Vec<GuestModule> {
        let mut modules = Vec::new();
        for (at, value) in guest.array("modules", self.notes).iter().enumerate() {
            let DeValue::Table(table) = value.get_ref() else {
                let advice = "a module is written { image = \"FILE\", command_line = \"TEXT\" }";
                self.notes.error(value.span().start, advice);
                continue;
            };
            let start = value.span().start;
            let table = Table::new(table, start, "a module", MODULE_KEYS, self.notes);
            let purpose = format!("module {at} of guest \"{}\"", name.unwrap_or("?"));
            modules.push(GuestModule {
                image: self.image(&table, &purpose),
                command_line: table.string("command_line", self.notes).unwrap_or_default(),
            });
        }
        modules
    }

    fn disks(&mut self, index: usize, guest: &Table<'_>, name: Option<&str>) -> Vec<GuestDisk> {
        let mut disks = Vec::new();
        for (at, value) in guest.array("disks", self.notes).iter().enumerate() {
            let DeValue::Table(table) = value.get_ref() else {
                let advice = "a disk is written { image = \"FILE\", size = \"64M\" }";
                self.notes.error(value.span().start, advice);
                continue;
            };
            let start = value.span().start;
            let table = Table::new(table, start, "a disk", DISK_KEYS, self.notes);
            let purpose = format!("image of disk {at} of guest \"{}\"", name.unwrap_or("?"));
            let size = table.required_size("size", self.notes);
            self.mark(size.is_none(), Place::Guest(index, GuestKey::Disk(at)));
            disks.push(GuestDisk {
                image: table.get("image").map(|_| self.image(&table, &purpose)),
                size: size.unwrap_or_default(),
                read_only: table.boolean("read_only", self.notes).unwrap_or(false),
            });
        }
        disks
    }

    /// The number of the boot module that the key `image` asks for.
    fn image(&mut self, table: &Table<'_>, purpose: &str) -> u16 {
        let Some(text) = table.required_string("image", self.notes) else {
            return 0;
        };
        let at = table.position("image");
        let origin = if let Some(name) = text.strip_prefix('@') {
            let known = BuiltImage::ALL.map(|image| (image.name(), image));
            match reader::choose(name, &known) {
                Ok(image) => Origin::Built(image),
                Err(advice) => {
                    let reason = format!("the build makes no guest \"@{name}\"; {advice}");
                    self.notes.error(at, reason);
                    return 0;
                }
            }
        } else if text.is_empty() || text.contains('\0') {
            self.notes.error(at, "image must name a file");
            return 0;
        } else {
            Origin::File(PathBuf::from(text))
        };
        let known = self
            .sources
            .iter()
            .position(|source| source.origin == origin);
        let number = known.unwrap_or(self.sources.len());
        if known.is_none() {
            self.sources.push(ModuleSource {
                origin,
                line: self.notes.line(at),
                purpose: purpose.to_owned(),
            });
        }
        u16::try_from(number).unwrap_or_else(|_| {
            self.notes
                .error(at, "the board names more than 65536 files");
            0
        })
    }

    /// The format of a guest whose table names none.
    fn usual_format(&self, image: u16) -> ImageFormat {
        let source = self.sources.get(usize::from(image));
        match source.map(|source| &source.origin) {
            Some(Origin::Built(BuiltImage::Linux | BuiltImage::LinuxGeneric)) => ImageFormat::Linux,
            _ => ImageFormat::Multiboot,
        }
    }
}

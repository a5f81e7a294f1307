//! Board files: the text form of a board, read strictly.
//!
//! ```toml
//! [board]
//! name = "blade"
//! cpus = 2
//! when_all_off = "power-off"      # or "stay", the default
//!
//! [[guest]]
//! name = "rtos"
//! image = "@rtos"                 # made by the build tool; or a path beside this file
//! format = "multiboot"            # the default; or "linux", the default for "@linux" and "@linux-generic"
//! memory = "16M"
//! cpu = 1                         # or one for each of several vCPUs: [0, 2]
//! priority = 100                  # the default; the higher number runs first
//! command_line = "selftest"       # default: empty
//! modules = [{ image = "data.bin", command_line = "data" }]
//! devices = ["com1", "rtc", "pci"] # the default; also "virtio-console", "virtio-rng"
//! disks = [{ image = "disk.img", size = "64M", read_only = true }] # default: none; a disk of zeroes needs no image
//! nics = [{ model = "virtio" }]   # default: none; or "rtl8029", or "ne2000" with port and irq. Each may have mac (derived
//!                                 # from the names, if absent), vlan, trunk, guard, urgent, receive_limit, transmit_limit,
//!                                 # mtu, and queues (virtio: as many as vCPUs)
//! clock = "tsc"                   # the default; or "paravirtual"
//! autostart = true                # the default
//! on_crash = "stop"               # the default; or "restart"
//! watchdog = "restart"            # default: none; or "failover", in a pair
//!
//! [[uplink]]                      # a card of the board's that guests reach the world by
//! name = "lan"
//! card = "00:03.0"                # or by its MAC address
//! vlan = 1                        # the default: the VLAN of frames without a tag
//! trunk = [10, 20]                # default: none; VLANs of frames with a tag
//! mtu = 1500                      # the default
//!
//! [management]                    # the hypervisor's own station
//! address = "192.0.2.2/24"
//! gateway = "192.0.2.1"           # default: none
//! vlan = 1                        # the default
//! mac = "02:00:00:00:00:01"       # default: derived from the board's name
//!
//! [mirror]                        # this board is one of a pair
//! card = "00:04.0"                # the dedicated link to the peer
//! mtu = 9000                      # of the link; 1500 is the default
//! key = "3f…"                     # the pair's secret, 32 hexadecimal digits
//! lan = "lan"                     # the uplink that is the second way to the peer; the first is the default
//! witness = "192.0.2.9:7400"      # or on_silence = "hold", "backup" or "assume-dead"
//! heartbeat = "10 ms"             # the default
//! dead_after = "100 ms"           # ten heartbeats are the default
//! ```
//!
//! In a pair, a guest may have `mirror = "cold"` or `"warm"` (default: `"off"`), and then `epoch = "20 ms"`. Guests with the
//! same `mirror_group = "NAME"` have their checkpoints in common. Both boards have one file. A text that differs between them is written
//! `address = { a = "192.0.2.2/24", b = "192.0.2.3/24" }`; which board is meant is said when the file is read.
//!
//! A key that is not known is an error, not a comment. All errors are reported at once, each with
//! its line. Whether the files exist is for the caller to see: [`ModuleSource`] keeps the line.

mod duration;
mod mirror;
mod network;
mod rate;
mod reader;
mod size;

use crate::board::{
    Board, Clock, Device, Guest, GuestDisk, GuestModule, ImageFormat, OnCrash, Watchdog, WhenAllOff,
};
use crate::validate::{BoardKey, GuestKey, ManagementKey, MirrorKey, Place, Problem, UplinkKey};
use ::mirror::Side;
use ::toml::de::{DeTable, DeValue};
use mirror::MIRROR_KEYS;
use network::{MANAGEMENT_KEYS, UPLINK_KEYS};
use reader::{Notes, Table};
use std::fmt;
use std::path::PathBuf;

pub use size::parse_size;

/// The priority of a guest whose table names none.
pub const PRIORITY_DEFAULT: u8 = 100;

/// The devices of a guest whose table names none.
pub const DEVICES_DEFAULT: [Device; 3] = [Device::Com1, Device::Rtc, Device::Pci];

const TOP_KEYS: &[&str] = &["board", "guest", "uplink", "management", "mirror"];
const BOARD_KEYS: &[&str] = &["name", "cpus", "when_all_off"];
const GUEST_KEYS: &[&str] = &[
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

/// A file that a board file names; its position in the list is its boot module's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSource {
    /// Where its bytes come from.
    pub origin: Origin,
    /// The line of the board file that names it first.
    pub line: usize,
    /// What it is to the board, for messages: `image of guest "rtos"`.
    pub purpose: String,
}

/// Where a boot module's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file; a relative path starts at the board file's folder.
    File(PathBuf),
    /// Something that the build tool makes.
    Built(BuiltImage),
}

/// The images that the build tool makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltImage {
    /// `@rtos`: the legacy real-time system.
    Rtos,
    /// `@probes`: the small guests that probe the hypervisor.
    Probes,
    /// `@linux`: the kernel of the distribution that the Linux guest is made of.
    Linux,
    /// `@initramfs`: the Linux guest's initial file system, a module for `@linux`.
    Initramfs,
    /// `@linux-generic`: the distribution's kernel for real hardware, which drives old cards, too.
    LinuxGeneric,
    /// `@initramfs-generic`: the same file system with that kernel's modules, a module for `@linux-generic`.
    InitramfsGeneric,
}

impl BuiltImage {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Rtos,
        Self::Probes,
        Self::Linux,
        Self::Initramfs,
        Self::LinuxGeneric,
        Self::InitramfsGeneric,
    ];
    /// Those that are programs of this project.
    pub const PROGRAMS: [Self; 2] = [Self::Rtos, Self::Probes];

    /// The name behind the `@`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rtos => "rtos",
            Self::Probes => "probes",
            Self::Linux => "linux",
            Self::Initramfs => "initramfs",
            Self::LinuxGeneric => "linux-generic",
            Self::InitramfsGeneric => "initramfs-generic",
        }
    }
}

/// One error in a board file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// Everything that is wrong with a board file, by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file's name, as given.
    pub file: String,
    /// The errors: at least one.
    pub errors: Vec<ConfigError>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:{}: {}", self.file, error.line, error.reason)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads a board file: that of a single board, or of a pair's board on this side.
///
/// # Errors
///
/// Every error that can be found at once, each with its line in `file_name`.
pub fn parse(
    text: &str,
    file_name: &str,
    side: Option<Side>,
) -> Result<(Board, Vec<ModuleSource>), ConfigErrors> {
    let mut notes = Notes::new(text, side);
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let at = error.span().map_or(0, |span| span.start);
        notes.error(at, error.message().replace('\n', ", "));
    }
    let mut result = None;
    // With broken syntax the recovered tree misses keys; complaining about those would mislead.
    if syntax.is_empty() {
        let mut file = File {
            notes: &mut notes,
            side,
            sources: Vec::new(),
            groups: Vec::new(),
            bad: Vec::new(),
        };
        let board = file.board(document.get_ref());
        result = Some((board, file.sources));
    }
    match (result, notes.into_errors()) {
        (Some(result), errors) if errors.is_empty() => Ok(result),
        (_, errors) => Err(ConfigErrors {
            file: file_name.to_owned(),
            errors,
        }),
    }
}

/// The tables of a file, for the places of problems.
struct Tables<'v> {
    board: Option<Table<'v>>,
    guests: Vec<Table<'v>>,
    uplinks: Vec<Table<'v>>,
    management: Option<Table<'v>>,
    mirror: Option<Table<'v>>,
}

/// What is gathered while a file is read.
struct File<'n, 't> {
    notes: &'n mut Notes<'t>,
    side: Option<Side>,
    sources: Vec<ModuleSource>,
    /// Names of groups of mirrored guests, each with its first guest.
    groups: Vec<(String, u8)>,
    /// Places that have an error already: no rule is checked on the stand-in values there.
    bad: Vec<Place>,
}

impl File<'_, '_> {
    fn board(&mut self, document: &DeTable<'_>) -> Board {
        let top = Table::new(document, 0, "the file", TOP_KEYS, self.notes);
        let board_table =
            top.required("board", self.notes)
                .and_then(|value| match value.get_ref() {
                    DeValue::Table(table) => Some(Table::new(
                        table,
                        value.span().start,
                        "[board]",
                        BOARD_KEYS,
                        self.notes,
                    )),
                    _ => {
                        self.notes
                            .error(value.span().start, "write [board] as a table of its own");
                        None
                    }
                });
        let (guest, uplink) = ("[[guest]]", "[[uplink]]");
        let guest_tables = self.tables(&top, "guest", guest, GUEST_KEYS);
        let uplink_tables = self.tables(&top, "uplink", uplink, UPLINK_KEYS);
        let management_table =
            self.single_table(&top, "management", "[management]", MANAGEMENT_KEYS);
        let mirror_table = self.single_table(&top, "mirror", "[mirror]", MIRROR_KEYS);
        let mut board = match &board_table {
            Some(table) => self.board_keys(table),
            None => self.absent_board(),
        };
        for (index, table) in guest_tables.iter().enumerate() {
            let guest = self.guest(&board.name, index, table);
            board.guests.push(guest);
        }
        for (index, table) in uplink_tables.iter().enumerate() {
            board.uplinks.push(self.uplink(index, table));
        }
        board.management = management_table
            .as_ref()
            .map(|table| self.management(&board.name, table));
        board.mirror = mirror_table.as_ref().map(|table| {
            let side = self.side_of(table);
            self.mirror(side, &board, table)
        });
        if self.side.is_some() && mirror_table.is_none() {
            let reason = "the file has no [mirror]; only the boards of a pair have sides";
            self.notes.error(0, reason);
        }
        let tables = Tables {
            board: board_table,
            guests: guest_tables,
            uplinks: uplink_tables,
            management: management_table,
            mirror: mirror_table,
        };
        for problem in board.problems() {
            self.rule(&problem, &tables);
        }
        board
    }

    /// A table that is there once at most.
    fn single_table<'v>(
        &mut self,
        top: &Table<'v>,
        key: &str,
        what: &'static str,
        known: &[&str],
    ) -> Option<Table<'v>> {
        let value = top.get(key)?;
        let start = value.span().start;
        match value.get_ref() {
            DeValue::Table(table) => Some(Table::new(table, start, what, known, self.notes)),
            _ => {
                let advice = format!("write {what} as a table of its own");
                self.notes.error(start, advice);
                None
            }
        }
    }

    /// Which board of a pair is meant.
    fn side_of(&mut self, mirror: &Table<'_>) -> Side {
        self.side.unwrap_or_else(|| {
            let reason = "this file is a pair's: say which board is meant by --side a or --side b";
            self.notes.error(mirror.start(), reason);
            Side::A
        })
    }

    /// The tables of an array of tables.
    fn tables<'v>(
        &mut self,
        top: &Table<'v>,
        key: &str,
        what: &'static str,
        known: &[&str],
    ) -> Vec<Table<'v>> {
        let mut tables = Vec::new();
        let Some(value) = top.get(key) else {
            return tables;
        };
        let DeValue::Array(elements) = value.get_ref() else {
            self.bad.push(Place::Board(BoardKey::Guests));
            let advice = format!("write each {key} under {what}, with two brackets");
            self.notes.error(value.span().start, advice);
            return tables;
        };
        for element in elements.iter() {
            let start = element.span().start;
            match element.get_ref() {
                DeValue::Table(table) => {
                    tables.push(Table::new(table, start, what, known, self.notes));
                }
                _ => {
                    let advice = format!("a {key} is a table: write {what}");
                    self.notes.error(start, advice);
                }
            }
        }
        tables
    }

    /// A stand-in for a board table that is missing, which is an error already.
    fn absent_board(&mut self) -> Board {
        self.bad.push(Place::Board(BoardKey::Name));
        self.bad.push(Place::Board(BoardKey::Cpus));
        Board {
            name: String::new(),
            cpus: Board::CPUS_MAX,
            when_all_off: WhenAllOff::Stay,
            guests: Vec::new(),
            uplinks: Vec::new(),
            management: None,
            mirror: None,
        }
    }

    fn board_keys(&mut self, table: &Table<'_>) -> Board {
        let name = table.required_string("name", self.notes);
        let cpus = table.required_integer("cpus", u32::MAX, self.notes);
        let choices = &[
            ("stay", WhenAllOff::Stay),
            ("power-off", WhenAllOff::PowerOff),
        ];
        let when_all_off = table.choice("when_all_off", choices, self.notes);
        self.mark(name.is_none(), Place::Board(BoardKey::Name));
        self.mark(cpus.is_none(), Place::Board(BoardKey::Cpus));
        Board {
            name: name.unwrap_or_default(),
            cpus: cpus.unwrap_or(Board::CPUS_MAX),
            when_all_off: when_all_off.unwrap_or(WhenAllOff::Stay),
            guests: Vec::new(),
            uplinks: Vec::new(),
            management: None,
            mirror: None,
        }
    }

    fn guest(&mut self, board: &str, index: usize, table: &Table<'_>) -> Guest {
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

    fn mark(&mut self, bad: bool, place: Place) {
        if bad {
            self.bad.push(place);
        }
    }

    /// Reports a broken rule at the key it is about, unless that key is wrong in itself.
    fn rule(&mut self, problem: &Problem, tables: &Tables<'_>) {
        if self.bad.contains(&problem.place) {
            return;
        }
        let (board, guests) = (tables.board.as_ref(), &tables.guests);
        let at = match problem.place {
            Place::Board(BoardKey::Name) => board.map(|table| table.position("name")),
            Place::Board(BoardKey::Cpus) => board.map(|table| table.position("cpus")),
            Place::Board(BoardKey::Guests) => guests.get(Board::GUESTS_MAX).map(Table::start),
            Place::Guest(index, key) => guests.get(index).map(|table| match key {
                GuestKey::Name => table.position("name"),
                GuestKey::Memory => table.position("memory"),
                GuestKey::Cpus => table.position("cpu"),
                GuestKey::Priority => table.position("priority"),
                GuestKey::CommandLine => table.position("command_line"),
                GuestKey::Modules => table.position("modules"),
                GuestKey::ModuleCommandLine(at) => table.element_position("modules", at),
                GuestKey::Devices => table.position("devices"),
                GuestKey::Disks => table.position("disks"),
                GuestKey::Disk(at) => table.element_position("disks", at),
                GuestKey::Nics => table.position("nics"),
                GuestKey::Nic(at) => table.element_position("nics", at),
                GuestKey::Watchdog => table.position("watchdog"),
                GuestKey::Mirror => table.position("mirror"),
                GuestKey::Epoch => table.position("epoch"),
                GuestKey::MirrorGroup => table.position("mirror_group"),
            }),
            Place::Uplink(index, key) => tables.uplinks.get(index).map(|table| match key {
                UplinkKey::Name => table.position("name"),
                UplinkKey::Card => table.position("card"),
                UplinkKey::Vlan if table.get("vlan").is_none() => table.position("trunk"),
                UplinkKey::Vlan => table.position("vlan"),
                UplinkKey::Mtu => table.position("mtu"),
            }),
            Place::Management(key) => tables.management.as_ref().map(|table| match key {
                ManagementKey::Mac => table.position("mac"),
                ManagementKey::Address => table.position("address"),
                ManagementKey::Gateway => table.position("gateway"),
                ManagementKey::Vlan => table.position("vlan"),
            }),
            Place::Mirror(key) => tables.mirror.as_ref().map(|table| match key {
                MirrorKey::Card => table.position("card"),
                MirrorKey::Mtu => table.position("mtu"),
                MirrorKey::Key => table.position("key"),
                MirrorKey::Lan => table.position("lan"),
                MirrorKey::Arbiter if table.get("witness").is_none() => {
                    table.position("on_silence")
                }
                MirrorKey::Arbiter => table.position("witness"),
                MirrorKey::Heartbeat => table.position("heartbeat"),
                MirrorKey::DeadAfter => table.position("dead_after"),
            }),
        };
        self.notes.error(at.unwrap_or(0), problem.reason.as_str());
    }
}

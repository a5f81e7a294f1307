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
mod guest;
mod mirror;
mod network;
mod rate;
mod reader;
mod size;
mod source;

use crate::board::{Board, WhenAllOff};
use crate::validate::{BoardKey, GuestKey, ManagementKey, MirrorKey, Place, Problem, UplinkKey};
use ::mirror::Side;
use ::toml::de::{DeTable, DeValue};
use guest::GUEST_KEYS;
use mirror::MIRROR_KEYS;
use network::{MANAGEMENT_KEYS, UPLINK_KEYS};
use reader::{Notes, Table};
use std::fmt;

pub use guest::{DEVICES_DEFAULT, PRIORITY_DEFAULT};
pub use size::parse_size;
pub use source::{BuiltImage, ModuleSource, Origin};

const TOP_KEYS: &[&str] = &["board", "guest", "uplink", "management", "mirror"];
const BOARD_KEYS: &[&str] = &["name", "cpus", "when_all_off"];

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

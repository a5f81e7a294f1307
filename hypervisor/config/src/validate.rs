//! The limits of a board, checked in one place for the text form and the binary form.
//!
//! [`Board::problems`] lists everything that is wrong, each with the [`Place`] it is at, so that
//! the reader of a board file can name the line. The hypervisor asks [`Board::validate`], because
//! a blob is as much outside input as a file is.

use crate::board::{Board, Device, Guest, ImageFormat, Watchdog};
use crate::mirror::MirrorMode;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// One key of the board table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardKey {
    /// [`Board::name`].
    Name,
    /// [`Board::cpus`].
    Cpus,
    /// [`Board::guests`] as a whole.
    Guests,
}

/// One key of a guest table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestKey {
    /// [`Guest::name`].
    Name,
    /// [`Guest::memory`].
    Memory,
    /// [`Guest::cpus`].
    Cpus,
    /// [`Guest::priority`].
    Priority,
    /// [`Guest::command_line`].
    CommandLine,
    /// [`Guest::modules`] as a whole.
    Modules,
    /// The command line of one of [`Guest::modules`], by index.
    ModuleCommandLine(usize),
    /// [`Guest::devices`].
    Devices,
    /// [`Guest::disks`] as a whole.
    Disks,
    /// One of [`Guest::disks`], by index.
    Disk(usize),
    /// [`Guest::nics`] as a whole.
    Nics,
    /// One of [`Guest::nics`], by index.
    Nic(usize),
    /// [`Guest::watchdog`].
    Watchdog,
    /// [`Guest::mirror`] as a whole.
    Mirror,
    /// Its epoch.
    Epoch,
    /// Its group.
    MirrorGroup,
}

/// One key of an uplink's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkKey {
    /// [`Uplink::name`](crate::Uplink::name).
    Name,
    /// [`Uplink::card`](crate::Uplink::card).
    Card,
    /// [`Uplink::vlans`](crate::Uplink::vlans).
    Vlan,
    /// [`Uplink::mtu`](crate::Uplink::mtu).
    Mtu,
}

/// One key of the management table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagementKey {
    /// [`Management::mac`](crate::Management::mac).
    Mac,
    /// [`Management::address`](crate::Management::address) and its prefix.
    Address,
    /// [`Management::gateway`](crate::Management::gateway).
    Gateway,
    /// [`Management::vlan`](crate::Management::vlan).
    Vlan,
}

/// One key of the mirror's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorKey {
    /// [`Mirror::card`](crate::Mirror::card).
    Card,
    /// [`Mirror::mtu`](crate::Mirror::mtu).
    Mtu,
    /// [`Mirror::key`](crate::Mirror::key).
    Key,
    /// [`Mirror::lan`](crate::Mirror::lan).
    Lan,
    /// [`Mirror::arbiter`](crate::Mirror::arbiter).
    Arbiter,
    /// [`Mirror::heartbeat`](crate::Mirror::heartbeat).
    Heartbeat,
    /// [`Mirror::dead_after`](crate::Mirror::dead_after).
    DeadAfter,
}

/// Where in a board a problem lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A key of the board itself.
    Board(BoardKey),
    /// A key of the guest with this index.
    Guest(usize, GuestKey),
    /// A key of the uplink with this index.
    Uplink(usize, UplinkKey),
    /// A key of the management table.
    Management(ManagementKey),
    /// A key of the mirror's table.
    Mirror(MirrorKey),
}

/// One rule that a board breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong and what would be right, as a sentence without its full stop.
    pub reason: String,
}

impl Problem {
    pub(crate) const fn new(place: Place, reason: String) -> Self {
        Self { place, reason }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl core::error::Error for Problem {}

impl Board {
    /// Checks every limit that the types document.
    ///
    /// # Errors
    ///
    /// The first problem, in the order of the file.
    pub fn validate(&self) -> Result<(), Problem> {
        match self.problems().into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }

    /// Everything that is wrong with this board, in the order of the file; empty when it is sound.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut board = |key, reason| {
            problems.push(Problem {
                place: Place::Board(key),
                reason,
            });
        };
        if let Some(reason) = name_problem("the board's name", &self.name) {
            board(BoardKey::Name, reason);
        }
        if self.cpus == 0 || self.cpus > Board::CPUS_MAX {
            board(
                BoardKey::Cpus,
                format!("cpus = {} is outside 1 to {}", self.cpus, Board::CPUS_MAX),
            );
        }
        if self.guests.is_empty() && self.management.is_none() {
            board(
                BoardKey::Guests,
                "a board needs at least one [[guest]], or [management]".into(),
            );
        }
        if self.guests.len() > Board::GUESTS_MAX {
            board(
                BoardKey::Guests,
                format!(
                    "{} guests are more than the {} that a board can carry",
                    self.guests.len(),
                    Board::GUESTS_MAX
                ),
            );
        }
        for (index, guest) in self.guests.iter().take(Board::GUESTS_MAX).enumerate() {
            self.guest_problems(index, guest, &mut problems);
        }
        self.network_problems(&mut problems);
        self.mirror_problems(&mut problems);
        problems
    }

    fn guest_problems(&self, index: usize, guest: &Guest, problems: &mut Vec<Problem>) {
        let earlier = &self.guests[..index];
        let mut add = |key, reason| {
            problems.push(Problem {
                place: Place::Guest(index, key),
                reason,
            });
        };
        if let Some(reason) = name_problem("a guest's name", &guest.name) {
            add(GuestKey::Name, reason);
        } else if earlier.iter().any(|other| other.name == guest.name) {
            add(
                GuestKey::Name,
                format!(
                    "there is already a guest named \"{}\"; names must differ",
                    guest.name
                ),
            );
        }
        if let Some(reason) = memory_problem(guest.memory) {
            add(GuestKey::Memory, reason);
        }
        if let Some(reason) = self.cpus_problem(guest) {
            add(GuestKey::Cpus, reason);
        }
        let shared = |other: &Guest| {
            let mut cpus = guest.cpus.iter().copied();
            cpus.find(|cpu| other.priority == guest.priority && other.cpus.contains(cpu))
        };
        let rival = |other| Some((other, shared(other)?));
        if let Some((other, cpu)) = earlier.iter().find_map(rival) {
            add(
                GuestKey::Priority,
                format!(
                    "guests \"{}\" and \"{}\" share processor {cpu} and priority {}; give one of them \
                     another priority (the higher number runs first)",
                    other.name, guest.name, guest.priority
                ),
            );
        }
        if let Some(reason) = command_line_problem(&guest.command_line) {
            add(GuestKey::CommandLine, reason);
        }
        if guest.modules.len() > Guest::MODULES_MAX {
            add(
                GuestKey::Modules,
                format!(
                    "{} modules are more than the {} that a guest can have",
                    guest.modules.len(),
                    Guest::MODULES_MAX
                ),
            );
        }
        for (at, module) in guest.modules.iter().take(Guest::MODULES_MAX).enumerate() {
            if let Some(reason) = command_line_problem(&module.command_line) {
                add(GuestKey::ModuleCommandLine(at), reason);
            } else if guest.format == ImageFormat::Linux && !module.command_line.is_empty() {
                let reason = "a Linux kernel's modules cannot have command lines";
                add(GuestKey::ModuleCommandLine(at), reason.into());
            }
        }
        let doubled = |(at, device)| guest.devices[..at].contains(device);
        if guest.devices.iter().enumerate().any(doubled) {
            add(GuestKey::Devices, "the same device is named twice".into());
        }
        let pci = guest.devices.contains(&Device::Pci);
        if !pci && guest.devices.iter().any(|device| device.needs_pci()) {
            let reason = "virtio devices are on the PCI bus: name \"pci\" too";
            add(GuestKey::Devices, reason.into());
        }
        if !pci && !guest.disks.is_empty() {
            let reason = "disks are on the PCI bus: the guest's devices must include \"pci\"";
            add(GuestKey::Disks, reason.into());
        }
        if guest.disks.len() > Guest::DISKS_MAX {
            add(
                GuestKey::Disks,
                format!(
                    "{} disks are more than the {} that a guest can have",
                    guest.disks.len(),
                    Guest::DISKS_MAX
                ),
            );
        }
        for (at, disk) in guest.disks.iter().take(Guest::DISKS_MAX).enumerate() {
            if let Some(reason) = disk_problem(disk.size) {
                add(GuestKey::Disk(at), reason);
            }
        }
        if let Some(reason) = watchdog_problem(guest) {
            add(GuestKey::Watchdog, reason.into());
        }
    }
}

impl Board {
    fn cpus_problem(&self, guest: &Guest) -> Option<String> {
        if let Some(cpu) = guest.cpus.iter().find(|cpu| **cpu >= self.cpus) {
            return Some(format!(
                "processor {cpu} is not on this board: with cpus = {} the processors are 0 to {}",
                self.cpus,
                self.cpus.saturating_sub(1)
            ));
        }
        let (count, most) = (guest.cpus.len(), Guest::VCPUS_MAX);
        if count == 0 || count > most {
            return Some(format!(
                "{count} vCPUs: name 1 to {most} processors that run them"
            ));
        }
        (count > 1 && guest.format == ImageFormat::Multiboot)
            .then(|| format!("{count} vCPUs: a multiboot kernel's PC has one processor; name one"))
    }
}

pub(crate) fn name_problem(what: &str, name: &str) -> Option<String> {
    if name.is_empty() || name.len() > Board::NAME_MAX {
        return Some(format!(
            "{what} has {} characters; it needs 1 to {}",
            name.chars().count(),
            Board::NAME_MAX
        ));
    }
    let bad = name
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'))?;
    Some(format!(
        "{what} holds {bad:?}; only the letters a to z, digits and '-' may stand in it"
    ))
}

fn memory_problem(memory: u64) -> Option<String> {
    if !(Guest::MEMORY_MIN..=Guest::MEMORY_MAX).contains(&memory) {
        return Some(format!(
            "memory of {memory} bytes is outside 2 MiB to 3 GiB; write it like \"16M\" or \"1 GiB\""
        ));
    }
    (!memory.is_multiple_of(Guest::MEMORY_UNIT))
        .then(|| format!("memory of {memory} bytes is not a multiple of 2 MiB"))
}

fn disk_problem(size: u64) -> Option<String> {
    if !(Guest::DISK_UNIT..=Guest::DISK_MAX).contains(&size) {
        return Some(format!(
            "a disk of {size} bytes is outside 4 KiB to 64 GiB; write it like \"16M\" or \"1 GiB\""
        ));
    }
    (!size.is_multiple_of(Guest::DISK_UNIT))
        .then(|| format!("a disk of {size} bytes is not a multiple of 4 KiB"))
}

fn watchdog_problem(guest: &Guest) -> Option<&'static str> {
    let policy = guest.watchdog?;
    if !guest.devices.contains(&Device::Pci) {
        return Some("the watchdog is on the PCI bus: the guest's devices must include \"pci\"");
    }
    let warm = guest
        .mirror
        .is_some_and(|mirror| mirror.mode == MirrorMode::Warm);
    (policy == Watchdog::Failover && !warm).then_some(
        "only a guest with mirror = \"warm\" has a peer that takes over; write \"restart\"",
    )
}

fn command_line_problem(text: &str) -> Option<String> {
    if text.len() > Guest::COMMAND_LINE_MAX {
        return Some(format!(
            "the command line has {} bytes; at most {} fit",
            text.len(),
            Guest::COMMAND_LINE_MAX
        ));
    }
    text.contains('\0')
        .then(|| "the command line holds a NUL character, which would end it".into())
}

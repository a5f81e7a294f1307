//! The typed, validated description of one board.

use crate::mirror::{GuestMirror, Mirror};
use crate::network::{GuestNic, Management, Uplink};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One blade and the guests on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// The board's name, for people: 1 to [`Board::NAME_MAX`] characters of `[a-z0-9-]`.
    pub name: String,
    /// Processors the board must have, 1 to [`Board::CPUS_MAX`]. More may be there; they idle.
    pub cpus: u32,
    /// What the board does once no guest runs any more.
    pub when_all_off: WhenAllOff,
    /// The guests, at most [`Board::GUESTS_MAX`], in the order of the file. Names are unique. There is at least one, or
    /// `management`.
    pub guests: Vec<Guest>,
    /// The cards that the virtual switch sends out of, at most [`Uplink::COUNT_MAX`], in the order of the file.
    pub uplinks: Vec<Uplink>,
    /// The hypervisor's own station on the network, if it has one.
    pub management: Option<Management>,
    /// Its part in a pair of boards, if it is one of such.
    pub mirror: Option<Mirror>,
}

impl Board {
    /// Longest name of a board or a guest, in characters.
    pub const NAME_MAX: usize = 15;
    /// Most processors that a board may name.
    pub const CPUS_MAX: u32 = 64;
    /// Most guests on one board.
    pub const GUESTS_MAX: usize = 8;
}

impl Device {
    /// Whether it is on the PCI bus.
    #[must_use]
    pub const fn needs_pci(self) -> bool {
        matches!(self, Self::VirtioConsole | Self::VirtioRng)
    }
}

impl Guest {
    /// Guest RAM comes in units of this many bytes.
    pub const MEMORY_UNIT: u64 = 2 << 20;
    /// Least RAM of a guest.
    pub const MEMORY_MIN: u64 = 2 << 20;
    /// Most RAM of a guest: what lies above belongs to devices on an old PC.
    pub const MEMORY_MAX: u64 = 3 << 30;
    /// Most vCPUs of a guest.
    pub const VCPUS_MAX: usize = 8;
    /// Longest command line of a kernel or module, in bytes.
    pub const COMMAND_LINE_MAX: usize = 2047;
    /// Most modules of a guest.
    pub const MODULES_MAX: usize = 16;
    /// Most disks of a guest.
    pub const DISKS_MAX: usize = 16;
    /// Disks come in units of this many bytes, the least size of one.
    pub const DISK_UNIT: u64 = 4096;
    /// The greatest size of a disk in bytes.
    pub const DISK_MAX: u64 = 64 << 30;
}

/// What the board does once every guest is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenAllOff {
    /// Stay up and wait for the operator (`"stay"`).
    Stay,
    /// Power the board off (`"power-off"`).
    PowerOff,
}

/// One guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// The guest's name: 1 to [`Board::NAME_MAX`] characters of `[a-z0-9-]`, unique on the board.
    pub name: String,
    /// How the image is to be loaded.
    pub format: ImageFormat,
    /// The boot module that holds the image.
    pub image: u16,
    /// Guest RAM in bytes: a multiple of [`Guest::MEMORY_UNIT`], from [`Guest::MEMORY_MIN`] to
    /// [`Guest::MEMORY_MAX`].
    pub memory: u64,
    /// The physical processor that runs each of the guest's vCPUs, below [`Board::cpus`]: 1 to
    /// [`Guest::VCPUS_MAX`] of them, and just one for a multiboot kernel. Several vCPUs may share one.
    pub cpus: Vec<u32>,
    /// Fixed scheduling priority on that processor, 0 (lowest) to 255. No two guests that share a
    /// processor have the same one; the vCPUs of one guest that share a processor take turns.
    pub priority: u8,
    /// The kernel's command line, without the image's name. No NUL, at most
    /// [`Guest::COMMAND_LINE_MAX`] bytes.
    pub command_line: String,
    /// Modules handed to the kernel, in order: at most [`Guest::MODULES_MAX`].
    pub modules: Vec<GuestModule>,
    /// Optional devices of the virtual PC, each at most once. Those by virtio need [`Device::Pci`].
    pub devices: Vec<Device>,
    /// Virtio disks, at most [`Guest::DISKS_MAX`]; they need [`Device::Pci`].
    pub disks: Vec<GuestDisk>,
    /// Network cards, at most [`GuestNic::COUNT_MAX`].
    pub nics: Vec<GuestNic>,
    /// Whether the guest starts with the board.
    pub autostart: bool,
    /// What the guest is to tell time by.
    pub clock: Clock,
    /// What happens when the guest crashes.
    pub on_crash: OnCrash,
    /// Its watchdog, and what happens when the guest does not feed it, if it has one. It needs [`Device::Pci`], and what
    /// asks something of the peer a guest that is mirrored [warm](crate::MirrorMode::Warm).
    pub watchdog: Option<Watchdog>,
    /// How it is mirrored, if it is.
    pub mirror: Option<GuestMirror>,
}

/// A file handed to a guest's kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestModule {
    /// The boot module that holds it.
    pub image: u16,
    /// Its command line, as the multiboot module string; the limits of the kernel's hold.
    pub command_line: String,
}

/// A disk in the board's memory. It keeps what the guest writes until the board goes off, whatever becomes of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestDisk {
    /// The boot module that holds what is on the disk at first; zeroes follow it, or are all there is.
    pub image: Option<u16>,
    /// Its size in bytes, at least the image's: a multiple of [`Guest::DISK_UNIT`], at most [`Guest::DISK_MAX`].
    pub size: u64,
    /// Whether the guest can only read it.
    pub read_only: bool,
}

/// The protocols by which kernels are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageFormat {
    /// Multiboot 0.6.96, ELF32 or address fields (`"multiboot"`).
    Multiboot,
    /// A Linux kernel (bzImage) by the 64-bit boot protocol (`"linux"`). Its modules have no command
    /// lines: together they are the initial RAM disk.
    Linux,
}

/// Devices that a virtual PC may lack. The 8259s and the 8254 are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// A 16550 at 0x3F8, IRQ 4: the guest's console (`"com1"`).
    Com1,
    /// The MC146818 clock and CMOS memory, IRQ 8 (`"rtc"`).
    Rtc,
    /// PCI configuration mechanism 1 with an i440FX host bridge (`"pci"`).
    Pci,
    /// A console by virtio, beside COM1 (`"virtio-console"`).
    VirtioConsole,
    /// A source of entropy by virtio (`"virtio-rng"`).
    VirtioRng,
    /// A local APIC per vCPU and an I/O APIC (`"apic"`). Guests of the format [`ImageFormat::Linux`]
    /// always have them; others only where the board file names them.
    Apic,
}

/// What a guest is to tell time by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clock {
    /// Its time-stamp counter (`"tsc"`), as far as the processor promises that it runs evenly.
    Tsc,
    /// A paravirtual clock, KVM's (`"paravirtual"`): for processors whose counter stops in deep idle states, and
    /// for guests that are to go on where it has another frequency.
    Paravirtual,
}

/// What happens when a guest crashes (triple fault, impossible access, unknown instruction).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnCrash {
    /// The guest stays stopped, its memory kept for a look (`"stop"`).
    Stop,
    /// The guest is loaded and started again, at a bounded rate (`"restart"`).
    Restart,
}

/// What happens when a guest does not feed its watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Watchdog {
    /// The guest is loaded and started again, at a bounded rate (`"restart"`).
    Restart,
    /// The peer takes the guest over (`"failover"`).
    Failover,
}

impl Watchdog {
    /// What the board file calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Failover => "failover",
        }
    }
}

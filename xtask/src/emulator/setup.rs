//! What a board is made of.

use crate::wire::{Plug, Wire};
use anyhow::Result;
use clap::ValueEnum;
use std::path::PathBuf;

/// How board time passes in Bochs, and in QEMU with TCG; KVM knows real time only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Counted in instructions, as fast as it goes; idle time is skipped. Two such runs are identical in Bochs.
    Fast,
    /// No faster than the clock on the wall.
    RealTime,
}

/// What Bochs's debugger does while the board runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Nothing.
    Nothing,
    /// Traces the instructions between two magic breakpoints (`xchg bx,bx`), so many times.
    Traces(u32),
    /// Tells the tick of so many magic breakpoints; see [`Machine::stops`](super::Machine::stops).
    Marks(u32),
    /// Tells the tick at which the instruction at this physical address is first come to.
    Address(u64),
}

/// The chipset around the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Chipset {
    /// Intel's 440FX of 1996: PCI. Bochs has this one alone.
    Pc,
    /// Intel's Q35 of 2007: PCI Express.
    Q35,
}

/// Network cards. Bochs has the first alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CardModel {
    /// Intel's 82540EM: PCI.
    #[value(name = "82540em")]
    E1000,
    /// Intel's 82574L: PCI Express.
    #[value(name = "82574l")]
    E1000e,
    /// Intel's 82576: PCI Express, several queues.
    #[value(name = "82576")]
    Igb,
    /// QEMU's own, for guests without a hypervisor under them.
    #[value(skip)]
    Virtio,
    /// Realtek's RTL8029AS, an NE2000 on PCI, for the same.
    #[value(skip)]
    Rtl8029,
    /// An NE2000 on the ISA bus, at port 0x300 and line 5, for the same.
    #[value(skip)]
    Ne2000,
}

/// A network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetworkCard {
    /// Its model.
    pub model: CardModel,
    /// Its MAC address.
    pub address: [u8; 6],
    /// The end of the wire that it is put on.
    pub plug: Plug,
}

/// What a board is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The CD image.
    pub iso: PathBuf,
    /// The emulator's name of the processor model; none for the one that has all that the hypervisor can use.
    pub cpu_model: Option<String>,
    /// A feature that QEMU's model has and the board lacks, by QEMU's name.
    pub lacks: Option<&'static str>,
    /// The chipset; none for the emulator's usual one.
    pub chipset: Option<Chipset>,
    /// Processors.
    pub cpus: u32,
    /// RAM in MiB.
    pub megabytes: u32,
    /// Network cards; Bochs has room for four.
    pub cards: Vec<NetworkCard>,
    /// How time passes.
    pub pace: Pace,
    /// Bochs's debugger gets this terminal.
    pub debugger: bool,
    /// What Bochs's debugger does, where the terminal is not its own.
    pub watch: Watch,
}

impl Setup {
    /// A board that runs as fast as it goes.
    pub(crate) fn new(iso: PathBuf, cpus: u32, megabytes: u32) -> Self {
        Self {
            iso,
            cpu_model: None,
            lacks: None,
            chipset: None,
            cpus,
            megabytes,
            cards: Vec::new(),
            pace: Pace::Fast,
            debugger: false,
            watch: Watch::Nothing,
        }
    }
}

impl NetworkCard {
    /// A card on a new end of a wire, with the MAC address 52:54:00:00:00 and the number.
    ///
    /// # Errors
    ///
    /// Where the wire can have no more ends.
    pub(crate) fn on(wire: &Wire, model: CardModel, number: u8) -> Result<Self> {
        Ok(Self {
            model,
            address: [0x52, 0x54, 0, 0, 0, number],
            plug: wire.plug()?,
        })
    }

    /// The MAC address as both emulators write it.
    pub(crate) fn address_text(&self) -> String {
        self.address.map(|byte| format!("{byte:02x}")).join(":")
    }
}

//! What the boot code hands over: the board as it was found.

use crate::memory::PhysicalMemory;
use alloc::string::String;
use alloc::vec::Vec;
use drivers::io_apic::{IoApic, Trigger};
use drivers::local_apic::LocalApic;
use drivers::nic::Found;
use drivers::power::SoftOff;

/// The board as the boot code found it.
pub struct Host {
    /// TSC ticks per second, measured.
    pub tsc_hz: u64,
    /// The TSC at the image's first instruction.
    pub entry_tsc: u64,
    /// Unix time by the board's clock at TSC [`Host::wall_clock_tsc`], if it has one.
    pub wall_clock: Option<u64>,
    /// See [`Host::wall_clock`].
    pub wall_clock_tsc: u64,
    /// Free memory.
    pub memory: PhysicalMemory,
    /// The files that the boot loader brought, by name.
    pub modules: Vec<BootModule>,
    /// APIC IDs of the processors that run, in the order of their numbers.
    pub cpus: Vec<u32>,
    /// The local APICs.
    pub local_apic: LocalApic,
    /// The I/O APICs and how ISA interrupts reach them.
    pub interrupts: Interrupts,
    /// How to power the board off, where ACPI says so.
    pub soft_off: Option<SoftOff>,
    /// The network cards. Those that nobody opens stay as the firmware left them.
    pub nics: Vec<Found>,
    /// Bytes of memory that image, heap, stacks and page tables take.
    pub image_bytes: u64,
}

/// A file that the boot loader brought.
pub struct BootModule {
    /// The name given in the boot loader's configuration.
    pub name: String,
    /// Its bytes; they stay where the boot loader put them.
    pub bytes: &'static [u8],
}

/// The board's interrupt routing.
pub struct Interrupts {
    /// The I/O APICs.
    pub io_apics: Vec<IoApic>,
    /// ISA interrupts that are not wired one to one (ACPI 6.5, section 5.2.12.5).
    pub overrides: Vec<IsaOverride>,
}

/// An ISA interrupt that arrives at another input than its number says.
#[derive(Clone, Copy, Debug)]
pub struct IsaOverride {
    /// The ISA interrupt.
    pub irq: u8,
    /// Its global interrupt number.
    pub global: u32,
    /// How it signals.
    pub trigger: Trigger,
}

impl Interrupts {
    /// Routes an ISA interrupt to a processor.
    pub fn route_isa(&mut self, irq: u8, destination: u32, vector: u8) {
        let (global, trigger) = self
            .overrides
            .iter()
            .find(|entry| entry.irq == irq)
            .map_or((u32::from(irq), Trigger::default()), |entry| {
                (entry.global, entry.trigger)
            });
        let Ok(destination) = u8::try_from(destination) else {
            log::warn!("ISA interrupt {irq} cannot reach the processor with APIC ID {destination}");
            return;
        };
        match self
            .io_apics
            .iter_mut()
            .find(|io_apic| io_apic.serves(global))
        {
            Some(io_apic) => io_apic.route(global, trigger, destination, vector),
            None => log::warn!("no I/O APIC serves interrupt {global}"),
        }
    }
}

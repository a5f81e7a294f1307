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
    io_apics: Vec<IoApic>,
    overrides: Vec<IsaOverride>,
    /// Inputs that are routed.
    isa: Vec<u32>,
    pins: Vec<u32>,
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

/// The first input that is no ISA interrupt's.
const FIRST_OTHER: u32 = 16;
/// Inputs of all I/O APICs together, at most.
const INPUTS_MAX: u32 = 256;

impl Interrupts {
    /// By these I/O APICs. `overrides` are ISA interrupts that are not wired one to one (ACPI 6.5, section 5.2.12.5).
    #[must_use]
    pub fn new(io_apics: Vec<IoApic>, overrides: Vec<IsaOverride>) -> Self {
        Self {
            io_apics,
            overrides,
            isa: Vec::new(),
            pins: Vec::new(),
        }
    }

    /// Routes an ISA interrupt to a processor.
    pub fn route_isa(&mut self, irq: u8, destination: u32, vector: u8) {
        let (global, trigger) = self
            .wiring(irq)
            .unwrap_or((u32::from(irq), Trigger::default()));
        let Ok(destination) = u8::try_from(destination) else {
            log::warn!("ISA interrupt {irq} cannot reach the processor with APIC ID {destination}");
            return;
        };
        match self.serving(global) {
            Some(io_apic) => {
                io_apic.route(global, trigger, destination, vector);
                self.isa.push(global);
            }
            None => log::warn!("no I/O APIC serves interrupt {global}"),
        }
    }

    /// Finds the input at which the interrupt pin of a PCI device arrives, and routes it to this processor for good. Only the
    /// firmware's bytecode knows that, so inputs are tried. Pins may share an input: all must have the same vector.
    ///
    /// `line` is the device's interrupt line, which is right where the pins are wired to ISA interrupts.
    ///
    /// `probe` has the device interrupt, tells whether that made `vector` pending ([`LocalApic::is_pending`]), which it was not
    /// before, and makes the device quiet again. Interrupts must be off meanwhile: another device may hold the input that is
    /// tried. `settle` lets in what is pending.
    pub fn find_pin(
        &mut self,
        line: Option<u8>,
        destination: u32,
        vector: u8,
        mut probe: impl FnMut() -> bool,
        mut settle: impl FnMut(),
    ) -> Option<u32> {
        let destination = u8::try_from(destination).ok()?;
        if !self.pins.is_empty() {
            let shared = probe();
            settle();
            if shared {
                return self.pins.last().copied();
            }
        }
        for (global, trigger) in self.candidates(line) {
            let Some(io_apic) = self.serving(global) else {
                continue;
            };
            io_apic.route(global, trigger, destination, vector);
            let found = probe();
            if !found {
                io_apic.mask(global);
            }
            settle();
            if found {
                self.pins.push(global);
                return Some(global);
            }
        }
        None
    }

    /// Keeps the interrupts at an input from every processor, for good.
    pub fn mask(&mut self, global: u32) {
        if let Some(io_apic) = self.serving(global) {
            io_apic.mask(global);
        }
    }

    /// Inputs where a pin may arrive, the likeliest first: those that are for nothing else.
    fn candidates(&self, line: Option<u8>) -> Vec<(u32, Trigger)> {
        const PIN: Trigger = Trigger {
            level: true,
            active_low: true,
        };
        let others = (FIRST_OTHER..INPUTS_MAX).map(|global| (global, PIN));
        let line = line.map(|line| self.wiring(line).unwrap_or((u32::from(line), PIN)));
        others
            .chain(line)
            .filter(|(global, _)| !self.isa.contains(global) && !self.pins.contains(global))
            .filter(|(global, _)| self.io_apics.iter().any(|io_apic| io_apic.serves(*global)))
            .collect()
    }

    /// Where an ISA interrupt arrives that is not wired one to one.
    fn wiring(&self, irq: u8) -> Option<(u32, Trigger)> {
        let entry = self.overrides.iter().find(|entry| entry.irq == irq)?;
        Some((entry.global, entry.trigger))
    }

    fn serving(&mut self, global: u32) -> Option<&mut IoApic> {
        self.io_apics
            .iter_mut()
            .find(|io_apic| io_apic.serves(global))
    }
}

#[cfg(test)]
mod tests {
    use super::{Interrupts, IsaOverride};
    use alloc::vec;
    use core::ptr::NonNull;
    use drivers::io_apic::{IoApic, Trigger};

    /// With an I/O APIC that has 24 inputs and forgets what is written. Interrupt 9 arrives at 20, as ISA devices signal.
    fn interrupts() -> Interrupts {
        let mut registers = vec![0; 8];
        registers[4] = 23 << 16;
        let registers = NonNull::from(registers.leak()).cast();
        // SAFETY: memory of the size of the registers, leaked just now.
        let io_apic = unsafe { IoApic::new(registers, 0) };
        let moved = IsaOverride {
            irq: 9,
            global: 20,
            trigger: Trigger::default(),
        };
        Interrupts::new(vec![io_apic], vec![moved])
    }

    /// Has `find_pin` try until the probe with this number, from 1 on.
    fn find(interrupts: &mut Interrupts, line: Option<u8>, arrives_at: usize) -> Option<u32> {
        let mut probes = 0;
        let mut settled = 0;
        let probe = || {
            probes += 1;
            probes == arrives_at
        };
        let found = interrupts.find_pin(line, 0, 0xE3, probe, || settled += 1);
        assert_eq!(settled, probes, "nothing stays pending");
        found
    }

    #[test]
    fn pins_are_looked_for_where_nothing_else_arrives_and_then_at_their_line() {
        let mut board = interrupts();
        assert_eq!(find(&mut board, Some(11), 1), Some(16));
        assert_eq!(find(&mut interrupts(), Some(11), 8), Some(23));
        assert_eq!(find(&mut interrupts(), Some(11), 9), Some(11));
        assert_eq!(find(&mut interrupts(), Some(11), 10), None);
        assert_eq!(find(&mut interrupts(), None, 9), None);
    }

    #[test]
    fn pins_that_share_an_input_leave_it_routed() {
        let mut board = interrupts();
        assert_eq!(find(&mut board, None, 3), Some(18));
        assert_eq!(find(&mut board, None, 1), Some(18));
        // The first probe is for the shared one; the input is then no candidate.
        assert_eq!(find(&mut board, None, 4), Some(19));
    }

    #[test]
    fn isa_interrupts_are_left_alone() {
        let mut board = interrupts();
        board.route_isa(4, 0, 0xE2);
        board.route_isa(9, 0, 0xE4);
        assert_eq!(find(&mut board, Some(4), 5), Some(21));
        let mut board = interrupts();
        board.route_isa(4, 0, 0xE2);
        assert_eq!(find(&mut board, Some(4), 9), None);
    }
}

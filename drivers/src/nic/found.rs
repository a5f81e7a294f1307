//! Cards that were found on the bus, and are nobody's yet.

use super::card::{Card, is_gone};
use super::registers::{Mmio, REGISTER_BYTES};
use super::{Model, Nic, OpenError, OpenOptions, identity};
use crate::dma::Dma;
use crate::pci::{Bar, Capability, Command, Function, PciAddress};
use alloc::boxed::Box;
use core::ops::Range;
use core::ptr::NonNull;

const INTEL: u16 = 0x8086;

impl Model {
    /// The card with these numbers of vendor and device: those with copper ports.
    fn with_numbers(vendor: u16, device: u16) -> Option<Self> {
        if vendor != INTEL {
            return None;
        }
        match device {
            0x100E | 0x1015 => Some(Self::I82540em),
            0x10D3 | 0x10F6 => Some(Self::I82574l),
            0x10C9 | 0x10E8 | 0x150A | 0x1526 => Some(Self::I82576),
            0x1533 | 0x157B => Some(Self::I210),
            0x1521 => Some(Self::I350),
            _ => None,
        }
    }
}

/// A function that is a known card, by its numbers.
pub struct Candidate {
    function: Function,
    model: Model,
    registers: Range<u64>,
    reset_ports: Option<u16>,
}

impl Candidate {
    /// `None` if the function is no known card, or the firmware gave it no addresses.
    #[must_use]
    pub fn recognise(function: &Function) -> Option<Self> {
        let model = Model::with_numbers(function.vendor(), function.device())?;
        let mut registers = None;
        let mut ports = None;
        for (index, bar) in function.bars() {
            match bar {
                Bar::Memory(range) if index == 0 => registers = Some(range),
                Bar::Io(range) => ports = u16::try_from(range.start).ok(),
                Bar::Memory(_) => {}
            }
        }
        let registers = registers.filter(|range| range.end - range.start >= REGISTER_BYTES);
        let Some(Range { start, .. }) = registers else {
            log::warn!(
                "{model} at {}: the firmware gave it no addresses",
                function.address()
            );
            return None;
        };
        Some(Self {
            function: function.clone(),
            model,
            registers: start..start + REGISTER_BYTES,
            // This one may not answer when it is reset by its registers in memory.
            reset_ports: ports.filter(|_| model == Model::I82540em),
        })
    }

    /// Which card it is.
    #[must_use]
    pub fn model(&self) -> Model {
        self.model
    }

    /// Where on the PCI bus it is.
    #[must_use]
    pub fn address(&self) -> PciAddress {
        self.function.address()
    }

    /// Physical addresses of its registers.
    #[must_use]
    pub fn registers(&self) -> Range<u64> {
        self.registers.clone()
    }

    /// Reads the card's own address. `tsc_hz` is how fast the TSC counts.
    ///
    /// # Safety
    ///
    /// [`Candidate::registers`] must be mapped at `registers`, uncached and for good, and the card be nobody else's.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if it does not tell.
    pub unsafe fn attach(self, registers: NonNull<u8>, tsc_hz: u64) -> Result<Found, OpenError> {
        // SAFETY: passed on to the caller; the ports are the card's own.
        let registers = unsafe { Mmio::new(registers, self.reset_ports, tsc_hz) };
        let command = self.function.command();
        self.function.set_command(command | Command::MEMORY);
        let mac = if is_gone(&registers) {
            Err(OpenError::NoAnswer)
        } else {
            identity::mac(&registers, self.model)
        };
        self.function.set_command(command);
        Ok(Found {
            mac: mac?,
            function: self.function,
            model: self.model,
            registers,
        })
    }
}

/// A card that can be opened. Until then it is left as the firmware left it.
pub struct Found {
    function: Function,
    model: Model,
    registers: Mmio,
    mac: [u8; 6],
}

impl Found {
    /// Which card it is.
    #[must_use]
    pub fn model(&self) -> Model {
        self.model
    }

    /// Where on the PCI bus it is.
    #[must_use]
    pub fn address(&self) -> PciAddress {
        self.function.address()
    }

    /// Its own address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Whether it can interrupt by messages. The 8254x lose some of theirs, and are not asked.
    #[must_use]
    pub fn has_messages(&self) -> bool {
        self.model.is_express() && self.function.has(Capability::Msi)
    }

    /// What the firmware says that its interrupt pin is routed to: of the 8259s, mostly; see
    /// [`Function::interrupt_line`].
    #[must_use]
    pub fn interrupt_line(&self) -> Option<u8> {
        self.function.interrupt_line()
    }

    /// Resets the card and lets it run. `memory` is [`super::dma_bytes`] long, best below 4 GiB.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the card does not access memory then.
    pub fn open(self, memory: Dma, options: OpenOptions) -> Result<Box<dyn Nic>, OpenError> {
        let Self {
            function,
            model,
            registers,
            ..
        } = self;
        if registers.has_ports() {
            function.set_command(function.command() | Command::IO);
        }
        Ok(Box::new(Card::open(
            registers, function, model, memory, options,
        )?))
    }
}

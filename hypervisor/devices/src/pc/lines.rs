//! Interrupt lines: from the devices to the 8259A pair and, where the board has one, to the I/O APIC.

use alloc::collections::VecDeque;

use crate::acpi::PCI_INPUT;
use crate::ioapic::{INPUTS, IoApic};
use crate::msi::Dispatch;
use crate::pic::{Masked, Pic};
use crate::power::SCI_IRQ;

use super::{IRQ_CLOCK, IRQ_TIMER};

/// The I/O APIC's input for an ISA interrupt: the timer comes in at 2, all others at their numbers.
const fn input(irq: u8) -> u8 {
    const TIMER_INPUT: u8 = 2;
    if irq == IRQ_TIMER { TIMER_INPUT } else { irq }
}

/// The interrupt controllers of the board.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    pub(super) pic: Pic,
    pub(super) io_apic: Option<IoApic>,
    /// The inputs of the I/O APIC that PCI devices assert, a bit for each.
    pci: u32,
    /// Messages on their way to the local APICs.
    messages: VecDeque<Dispatch>,
}

impl Lines {
    pub(super) fn new(pic: Pic, io_apic: Option<IoApic>) -> Self {
        // Between two looks at the queue, an access or an expiry moves few lines.
        let messages = VecDeque::with_capacity(if io_apic.is_some() {
            2 * usize::from(INPUTS)
        } else {
            0
        });
        Self {
            pic,
            io_apic,
            pci: 0,
            messages,
        }
    }

    /// Gives a line its level.
    pub(super) fn set(&mut self, irq: u8, level: bool) {
        self.pic.set_line(irq, level);
        if let Some(io_apic) = &mut self.io_apic
            && let Some(message) = io_apic.set_line(input(irq), level)
        {
            self.messages.push_back(message);
        }
    }

    /// Gives the inputs of PCI devices their levels: those of the bits that are set are asserted.
    #[inline]
    pub(super) fn set_pci(&mut self, asserted: u32) {
        if self.pci == asserted {
            return;
        }
        let changed = self.pci ^ asserted;
        self.pci = asserted;
        let Some(io_apic) = &mut self.io_apic else {
            return;
        };
        for input in (PCI_INPUT..INPUTS).filter(|input| changed & 1 << input != 0) {
            let message = io_apic.set_line(input, asserted & 1 << input != 0);
            self.messages.extend(message);
        }
    }

    /// The levels of a restored bus; whether the restored I/O APIC has the same.
    pub(super) fn restore_pci(&mut self, asserted: u32) -> bool {
        self.pci = asserted;
        self.io_apic.as_ref().is_none_or(|io_apic| {
            (PCI_INPUT..INPUTS).all(|input| io_apic.line(input) == (asserted & 1 << input != 0))
        })
    }

    /// A device sends a message. Without local APICs nobody hears it.
    pub(super) fn send(&mut self, message: Dispatch) {
        if self.io_apic.is_some() {
            self.messages.push_back(message);
        }
    }

    /// A hardware reset. The lines keep their levels.
    pub(super) fn reset(&mut self) {
        self.pic.reset();
        if let Some(io_apic) = &mut self.io_apic {
            io_apic.reset();
        }
        self.messages.clear();
    }

    /// The requests that neither controller would pass on.
    pub(super) fn masked(&self) -> Masked {
        let Some(io_apic) = &self.io_apic else {
            return self.pic.masked();
        };
        let mut masked = self.pic.masked();
        for (irq, mask) in [
            (IRQ_TIMER, Masked::TIMER),
            (IRQ_CLOCK, Masked::CLOCK),
            (SCI_IRQ, Masked::SYSTEM),
        ] {
            if !io_apic.masked(input(irq)) {
                masked.remove(mask);
            }
        }
        masked
    }

    /// The next message for the local APICs.
    pub(super) fn take_message(&mut self) -> Option<Dispatch> {
        self.messages.pop_front()
    }

    /// A read of the I/O APIC's page; all ones where there is none.
    pub(super) fn io_apic_read(&self, offset: u16) -> u32 {
        self.io_apic
            .as_ref()
            .map_or(u32::MAX, |io_apic| io_apic.mmio_read(offset))
    }

    /// A write to the I/O APIC's page.
    pub(super) fn io_apic_write(&mut self, offset: u16, value: u32) {
        if let Some(io_apic) = &mut self.io_apic {
            io_apic.mmio_write(offset, value, |message| self.messages.push_back(message));
        }
    }

    /// A local APIC ended a level-triggered interrupt.
    pub(super) fn end_of_interrupt(&mut self, vector: u8) {
        if let Some(io_apic) = &mut self.io_apic {
            io_apic.end_of_interrupt(vector, |message| self.messages.push_back(message));
        }
    }
}

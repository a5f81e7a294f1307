//! Interrupt lines: from the devices to the 8259A pair and, where the board has one, to the I/O APIC.
//!
//! A line of the 8259A pair is asserted while its own device asserts it or the router passes on a PCI pin to it. In the
//! I/O APIC they have inputs of their own.

use alloc::collections::VecDeque;

use crate::acpi::PCI_INPUT;
use crate::ioapic::{INPUTS, IoApic};
use crate::msi::Dispatch;
use crate::pci::router::{Asserted, LEVELS};
use crate::pic::{Masked, Pic, Which};
use crate::power::SCI_IRQ;

use super::{IRQ_CLOCK, IRQ_TIMER};

/// The I/O APIC's input for an ISA interrupt: the timer comes in at 2, all others at their numbers.
const fn input(irq: u8) -> u8 {
    const TIMER_INPUT: u8 = 2;
    if irq == IRQ_TIMER { TIMER_INPUT } else { irq }
}

/// Lines, of which one is none: there the second 8259A is.
const IRQS: u8 = 16;
const CASCADE: u8 = 2;

/// The interrupt request lines.
fn irqs() -> impl Iterator<Item = u8> {
    (0..IRQS).filter(|irq| *irq != CASCADE)
}

/// A line's bit; a line that does not exist has none.
const fn line(irq: u8) -> u16 {
    if irq < IRQS { 1 << irq } else { 0 }
}

/// The interrupt controllers of the board.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    pub(super) pic: Pic,
    pub(super) io_apic: Option<IoApic>,
    /// The lines that their own devices assert, a bit for each.
    own: u16,
    /// What PCI devices assert.
    pci: Asserted,
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
            own: 0,
            pci: Asserted::default(),
            messages,
        }
    }

    /// Gives a line its level, as its own device drives it.
    pub(super) fn set(&mut self, irq: u8, level: bool) {
        let bit = line(irq);
        if level {
            self.own |= bit;
        } else {
            self.own &= !bit;
        }
        self.pic
            .set_line(irq, (self.own | self.pci.lines) & bit != 0);
        if let Some(io_apic) = &mut self.io_apic
            && let Some(message) = io_apic.set_line(input(irq), level)
        {
            self.messages.push_back(message);
        }
    }

    /// The timer's line falls, if it is high, and rises.
    pub(super) fn strike_timer(&mut self) {
        self.own |= line(IRQ_TIMER);
        self.pic.strike_timer();
        if let Some(io_apic) = &mut self.io_apic {
            io_apic.set_line(input(IRQ_TIMER), false);
            let message = io_apic.set_line(input(IRQ_TIMER), true);
            self.messages.extend(message);
        }
    }

    /// Takes over what PCI devices assert.
    #[inline]
    pub(super) fn set_pci(&mut self, asserted: Asserted) {
        if self.pci != asserted {
            self.change_pci(asserted);
        }
    }

    #[inline(never)]
    fn change_pci(&mut self, asserted: Asserted) {
        let inputs = self.pci.inputs ^ asserted.inputs;
        let lines = self.pci.lines ^ asserted.lines;
        self.pci = asserted;
        for irq in irqs().filter(|irq| lines & line(*irq) != 0) {
            let level = (self.own | asserted.lines) & line(irq) != 0;
            self.pic.set_line(irq, level);
        }
        let Some(io_apic) = &mut self.io_apic else {
            return;
        };
        for input in (PCI_INPUT..INPUTS).filter(|input| inputs & 1 << input != 0) {
            let message = io_apic.set_line(input, asserted.inputs & 1 << input != 0);
            self.messages.extend(message);
        }
    }

    /// The levels of restored devices, of which the timer's is not told; whether the restored controllers have the same.
    pub(super) fn restore_levels(&mut self, own: impl Iterator<Item = u8>, pci: Asserted) -> bool {
        let timer = (self.pic.line(IRQ_TIMER)).then_some(IRQ_TIMER);
        self.own = own.chain(timer).fold(0, |own, irq| own | line(irq));
        self.pci = pci;
        let levels =
            irqs().all(|irq| self.pic.line(irq) == ((self.own | pci.lines) & line(irq) != 0));
        let inputs = self.io_apic.as_ref().is_none_or(|io_apic| {
            irqs().all(|irq| io_apic.line(input(irq)) == (self.own & line(irq) != 0))
                && (PCI_INPUT..INPUTS)
                    .all(|input| io_apic.line(input) == (pci.inputs & 1 << input != 0))
        });
        levels && inputs
    }

    /// What firmware does about PCI devices: the lines that they are routed to are level-sensitive.
    pub(super) fn share_pci_lines(&mut self) {
        let [master, slave] = LEVELS.to_le_bytes();
        self.pic.set_sense(Which::Master, master);
        self.pic.set_sense(Which::Slave, slave);
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

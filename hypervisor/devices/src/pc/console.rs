//! What is typed: for one of the consoles.
//!
//! It is for COM1 where its driver waits for bytes by interrupt, as any does that has opened the line to read; else
//! for the virtio console, if a driver drives that; else for COM1, whose driver may poll. Neither the last one that
//! was written to nor the mere presence of a driver would do: kernels write messages to all consoles that they have,
//! and drive a console before anyone reads from it.

use super::{Effects, IRQ_COM1, Pc};
use crate::pci::Pci;
use crate::time::Ticks;
use crate::uart::Uart;
use crate::virtio;

impl Pc {
    /// Whether what is typed is for the virtio console.
    fn virtio_listens(&self) -> bool {
        let console = self.pci.as_ref().and_then(Pci::console);
        !self.uart.as_ref().is_some_and(Uart::listens)
            && console.is_some_and(virtio::Function::live)
    }

    /// How many typed bytes the guest can take now.
    #[must_use]
    pub fn console_room(&self) -> usize {
        if self.virtio_listens() {
            let console = self.pci.as_ref().and_then(Pci::console);
            return console.map_or(0, virtio::Function::room);
        }
        self.uart.as_ref().map_or(0, Uart::room)
    }

    /// Gives the guest typed bytes; returns how many it took.
    pub fn console_input(&mut self, bytes: &[u8], now: Ticks, effects: &mut impl Effects) -> usize {
        if self.virtio_listens()
            && let Some(console) = self.pci.as_mut().and_then(Pci::console_mut)
        {
            let taken = console.receive(bytes, effects);
            self.settle_bus(now);
            return taken;
        }
        let Some(uart) = &mut self.uart else { return 0 };
        let taken = uart.receive(bytes);
        self.lines.set(IRQ_COM1, uart.line());
        taken
    }
}

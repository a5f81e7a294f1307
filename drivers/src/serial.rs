//! The board's serial line: COM1, driven without ever waiting for it.

use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::{IER, LSR};
use uart_16550::{BaudRate, Config, Uart16550};

/// I/O base of COM1.
const COM1: u16 = 0x3f8;
/// ISA interrupt of COM1.
pub const COM1_IRQ: u8 = 4;

/// COM1 at 115200 baud, 8N1, with FIFOs.
pub struct Serial {
    uart: Uart16550<PioBackend>,
}

impl Serial {
    /// Sets the port up. `None` when no UART answers: the board then runs without a console.
    ///
    /// # Safety
    ///
    /// The caller must be the only user of ports 0x3F8 to 0x3FF.
    #[must_use]
    pub unsafe fn com1() -> Option<Self> {
        // SAFETY: passed on to the caller.
        let mut uart = unsafe { Uart16550::new_port(COM1) }.ok()?;
        let config = Config {
            baud_rate: BaudRate::Baud115200,
            ..Config::DEFAULT
        };
        uart.init(config).ok()?;
        Some(Self { uart })
    }

    /// Sends as much of `bytes` as the transmitter takes now; returns how many.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        self.uart.send_bytes(bytes)
    }

    /// A received byte, if there is one.
    pub fn receive(&mut self) -> Option<u8> {
        self.uart.try_receive_byte().ok()
    }

    /// Raises an interrupt when a byte comes in.
    pub fn interrupt_on_receive(&mut self) {
        self.uart.enable_interrupts(IER::DATA_READY);
    }

    /// Raises an interrupt when the transmitter is empty, or no longer.
    pub fn interrupt_on_transmit(&mut self, on: bool) {
        if on {
            self.uart.enable_interrupts(IER::THR_EMPTY);
        } else {
            self.uart.disable_interrupts(IER::THR_EMPTY);
        }
    }

    /// Takes the interrupt request back, and makes it again if there is a cause: a new edge, where interrupts come by those.
    pub fn renew_interrupts(&mut self) {
        let wanted = self.uart.ier();
        self.uart.disable_interrupts(wanted);
        self.uart.enable_interrupts(wanted);
    }

    /// Whether everything sent has left the transmitter.
    pub fn is_idle(&mut self) -> bool {
        self.uart.lsr().contains(LSR::TRANSMITTER_EMPTY)
    }

    /// Takes notice of the most urgent interrupt cause (reading "transmitter empty" clears it);
    /// returns whether there was one.
    pub fn acknowledge(&mut self) -> bool {
        self.uart.isr().interrupt_type().is_some()
    }
}

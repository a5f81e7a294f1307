//! The serial port: a PC16550D with a terminal attached.
//!
//! Source: National Semiconductor PC16550D data sheet. OUT2 gates the interrupt line, as on a PC.
//!
//! A character takes no time: what is transmitted is gone at once, and received characters wait no longer than until
//! the receiver is looked at, so a character timeout is pending whenever the FIFO holds less than its trigger level.

mod fifo;
mod registers;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::pc::StateError;
use fifo::{Fifo, SIZE};
use registers::{
    Enable, FIFOS_ON, FifoControl, Interrupt, LineControl, LineStatus, ModemControl, ModemStatus,
    Register,
};

/// The saved state of the serial port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UartStateV1 {
    /// Interrupt enable register.
    pub enable: u8,
    /// FIFO control register: enable and trigger level.
    pub fifo_control: u8,
    /// Line control register.
    pub line_control: u8,
    /// Modem control register.
    pub modem_control: u8,
    /// Modem status register.
    pub modem_status: u8,
    /// Scratch register.
    pub scratch: u8,
    /// Baud rate divisor.
    pub divisor: u16,
    /// Whether a character was lost.
    pub overrun: bool,
    /// Whether the transmitter-empty interrupt is pending.
    pub empty_pending: bool,
    /// Received characters, oldest first; at most 16.
    pub received: alloc::vec::Vec<u8>,
}

/// A 16550.
#[derive(Clone, Debug)]
pub struct Uart {
    enable: Enable,
    fifo_control: FifoControl,
    line_control: LineControl,
    modem_control: ModemControl,
    modem_status: ModemStatus,
    scratch: u8,
    divisor: u16,
    overrun: bool,
    empty_pending: bool,
    received: Fifo,
}

impl Uart {
    /// The port as a boot loader leaves it: 115200 baud, 8N1, FIFOs and interrupts off, DTR and RTS set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            enable: Enable::empty(),
            fifo_control: FifoControl::empty(),
            line_control: LineControl::WORD_LENGTH,
            modem_control: ModemControl::DTR | ModemControl::RTS,
            modem_status: ModemStatus::TERMINAL,
            scratch: 0,
            divisor: 1,
            overrun: false,
            empty_pending: false,
            received: Fifo::new(),
        }
    }

    fn looped(&self) -> bool {
        self.modem_control.contains(ModemControl::LOOP)
    }

    fn fifos(&self) -> bool {
        self.fifo_control.contains(FifoControl::ENABLE)
    }

    /// How many characters the receiver holds: 16, or 1 without FIFOs.
    fn capacity(&self) -> usize {
        if self.fifos() { SIZE } else { 1 }
    }

    /// How many characters make a received-data interrupt.
    fn trigger(&self) -> usize {
        let low = self.fifo_control.contains(FifoControl::TRIGGER_LOW);
        let high = self.fifo_control.contains(FifoControl::TRIGGER_HIGH);
        match (self.fifos(), high, low) {
            (false, _, _) | (_, false, false) => 1,
            (_, false, true) => 4,
            (_, true, false) => 8,
            (_, true, true) => 14,
        }
    }

    /// The pending interrupt of highest priority.
    fn interrupt(&self) -> Option<Interrupt> {
        if self.enable.is_empty() {
            return None;
        }
        if self.enable.contains(Enable::LINE) && self.overrun {
            return Some(Interrupt::LineStatus);
        }
        if self.enable.contains(Enable::RECEIVED) && self.received.len() > 0 {
            return Some(if self.received.len() >= self.trigger() {
                Interrupt::ReceivedData
            } else {
                Interrupt::CharacterTimeout
            });
        }
        if self.enable.contains(Enable::EMPTY) && self.empty_pending {
            return Some(Interrupt::TransmitterEmpty);
        }
        if self.enable.contains(Enable::MODEM) && self.modem_status.intersects(ModemStatus::DELTAS)
        {
            return Some(Interrupt::ModemStatus);
        }
        None
    }

    /// The interrupt request line, which OUT2 gates. In loopback the OUT2 pin is inactive.
    #[must_use]
    pub fn line(&self) -> bool {
        self.modem_control.contains(ModemControl::OUT2)
            && !self.looped()
            && self.interrupt().is_some()
    }

    /// Whether the driver waits for received characters by interrupt.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.enable.contains(Enable::RECEIVED)
    }

    /// How many received characters there is room for; none while the input is disconnected by loopback.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.looped() {
            0
        } else {
            self.capacity().saturating_sub(self.received.len())
        }
    }

    /// Receives characters, as many as there is room for; returns how many.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let count = self.room().min(bytes.len());
        for byte in bytes.iter().take(count) {
            self.received.push(*byte);
        }
        count
    }

    /// A read at `offset` (0 to 7) from the base port.
    pub fn read(&mut self, offset: u8) -> u8 {
        let latch = self.line_control.contains(LineControl::DIVISOR_LATCH);
        match Register::decode(offset) {
            Register::Data if latch => self.divisor as u8,
            Register::Data => self.received.pop(),
            Register::Enable if latch => (self.divisor >> 8) as u8,
            Register::Enable => self.enable.bits(),
            Register::IdentificationOrFifo => {
                let interrupt = self.interrupt();
                if interrupt == Some(Interrupt::TransmitterEmpty) {
                    self.empty_pending = false;
                }
                Interrupt::identification(interrupt) | if self.fifos() { FIFOS_ON } else { 0 }
            }
            Register::LineControl => self.line_control.bits(),
            Register::ModemControl => self.modem_control.bits(),
            Register::LineStatus => {
                let mut status = LineStatus::EMPTY | LineStatus::IDLE;
                status.set(LineStatus::READY, self.received.len() > 0);
                status.set(LineStatus::OVERRUN, self.overrun);
                self.overrun = false;
                status.bits()
            }
            Register::ModemStatus => {
                let status = self.modem_status;
                self.modem_status.remove(ModemStatus::DELTAS);
                status.bits()
            }
            Register::Scratch => self.scratch,
        }
    }

    /// A write at `offset` (0 to 7) from the base port; returns a character that leaves the port.
    pub fn write(&mut self, offset: u8, value: u8) -> Option<u8> {
        let latch = self.line_control.contains(LineControl::DIVISOR_LATCH);
        match Register::decode(offset) {
            Register::Data if latch => self.divisor = self.divisor & 0xFF00 | u16::from(value),
            Register::Data => {
                // The holding register fills and is empty again before anyone can look.
                self.empty_pending = true;
                if !self.looped() {
                    return Some(value);
                }
                self.loop_back(value);
            }
            Register::Enable if latch => {
                self.divisor = self.divisor & 0x00FF | u16::from(value) << 8;
            }
            Register::Enable => {
                let enable = Enable::from_bits_truncate(value);
                // Enabling the interrupt while the register is empty, which it is, raises it.
                if enable.contains(Enable::EMPTY) && !self.enable.contains(Enable::EMPTY) {
                    self.empty_pending = true;
                }
                self.enable = enable;
            }
            Register::IdentificationOrFifo => self.write_fifo_control(value),
            Register::LineControl => self.line_control = LineControl::from_bits_retain(value),
            Register::ModemControl => {
                self.modem_control = ModemControl::from_bits_truncate(value);
                self.update_modem_status();
            }
            Register::LineStatus | Register::ModemStatus => {}
            Register::Scratch => self.scratch = value,
        }
        None
    }

    /// Whether the port transmits to the outside when [`write`](Self::write) is given this offset, so that the
    /// interrupt line falls and rises again around the transmission.
    #[must_use]
    pub fn transmits(&self, offset: u8) -> bool {
        Register::decode(offset) == Register::Data
            && !self.line_control.contains(LineControl::DIVISOR_LATCH)
            && self.interrupt() == Some(Interrupt::TransmitterEmpty)
    }

    fn loop_back(&mut self, value: u8) {
        if self.received.len() < self.capacity() {
            self.received.push(value);
            return;
        }
        self.overrun = true;
        // The character register is overwritten; a full FIFO keeps what it has.
        if !self.fifos() {
            self.received.clear();
            self.received.push(value);
        }
    }

    fn write_fifo_control(&mut self, value: u8) {
        let control = FifoControl::from_bits_truncate(value);
        let toggled = control.contains(FifoControl::ENABLE) != self.fifos();
        if !control.contains(FifoControl::ENABLE) {
            // "Must be a 1 when other FCR bits are written to or they will not be programmed."
            self.fifo_control = FifoControl::empty();
        } else {
            self.fifo_control = control
                & (FifoControl::ENABLE | FifoControl::TRIGGER_LOW | FifoControl::TRIGGER_HIGH);
        }
        let cleared = self.fifos() && control.contains(FifoControl::CLEAR_RECEIVER);
        if toggled || cleared {
            self.received.clear();
        }
    }

    fn update_modem_status(&mut self) {
        let mut inputs = ModemStatus::TERMINAL;
        if self.looped() {
            inputs.set(
                ModemStatus::CTS,
                self.modem_control.contains(ModemControl::RTS),
            );
            inputs.set(
                ModemStatus::DSR,
                self.modem_control.contains(ModemControl::DTR),
            );
            inputs.set(
                ModemStatus::RI,
                self.modem_control.contains(ModemControl::OUT1),
            );
            inputs.set(
                ModemStatus::DCD,
                self.modem_control.contains(ModemControl::OUT2),
            );
        }
        let before = self.modem_status - ModemStatus::DELTAS;
        let changed = before ^ inputs;
        let mut deltas = self.modem_status & ModemStatus::DELTAS;
        if changed.contains(ModemStatus::CTS) {
            deltas |= ModemStatus::DELTA_CTS;
        }
        if changed.contains(ModemStatus::DSR) {
            deltas |= ModemStatus::DELTA_DSR;
        }
        if changed.contains(ModemStatus::RI) && before.contains(ModemStatus::RI) {
            deltas |= ModemStatus::TRAILING_RI;
        }
        if changed.contains(ModemStatus::DCD) {
            deltas |= ModemStatus::DELTA_DCD;
        }
        self.modem_status = inputs | deltas;
    }

    /// The port's state.
    #[must_use]
    pub fn save(&self) -> UartStateV1 {
        UartStateV1 {
            enable: self.enable.bits(),
            fifo_control: self.fifo_control.bits(),
            line_control: self.line_control.bits(),
            modem_control: self.modem_control.bits(),
            modem_status: self.modem_status.bits(),
            scratch: self.scratch,
            divisor: self.divisor,
            overrun: self.overrun,
            empty_pending: self.empty_pending,
            received: self.received.iter().collect(),
        }
    }

    /// The port in a saved state.
    ///
    /// # Errors
    ///
    /// [`StateError::Invalid`] for a state that the port cannot be in.
    pub fn restore(state: &UartStateV1) -> Result<Self, StateError> {
        let invalid = StateError::Invalid("16550: register");
        let mut uart = Self {
            enable: Enable::from_bits(state.enable).ok_or(invalid)?,
            fifo_control: FifoControl::from_bits(state.fifo_control).ok_or(invalid)?,
            line_control: LineControl::from_bits_retain(state.line_control),
            modem_control: ModemControl::from_bits(state.modem_control).ok_or(invalid)?,
            modem_status: ModemStatus::from_bits_retain(state.modem_status),
            scratch: state.scratch,
            divisor: state.divisor,
            overrun: state.overrun,
            empty_pending: state.empty_pending,
            received: Fifo::new(),
        };
        if state.received.len() > uart.capacity() {
            return Err(StateError::Invalid("16550: received characters"));
        }
        for byte in &state.received {
            uart.received.push(*byte);
        }
        let status = uart.modem_status;
        uart.update_modem_status();
        if uart.modem_status != status {
            return Err(StateError::Invalid("16550: modem status"));
        }
        Ok(uart)
    }
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

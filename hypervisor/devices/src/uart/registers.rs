//! The registers of the 16550.

use bitflags::bitflags;

bitflags! {
    /// Interrupt enable register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Enable: u8 {
        /// Received data available, and character timeout.
        const RECEIVED = 1 << 0;
        /// Transmitter holding register empty.
        const EMPTY = 1 << 1;
        /// Receiver line status.
        const LINE = 1 << 2;
        /// Modem status.
        const MODEM = 1 << 3;
    }

    /// FIFO control register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct FifoControl: u8 {
        /// FIFOs on.
        const ENABLE = 1 << 0;
        /// Clear the receiver FIFO; reads 0.
        const CLEAR_RECEIVER = 1 << 1;
        /// Clear the transmitter FIFO, which is always empty.
        const CLEAR_TRANSMITTER = 1 << 2;
        /// DMA mode; a PC has no use for it.
        const DMA = 1 << 3;
        /// Trigger level of the receiver FIFO.
        const TRIGGER_LOW = 1 << 6;
        /// Trigger level of the receiver FIFO.
        const TRIGGER_HIGH = 1 << 7;
    }

    /// Line control register. Only the divisor latch bit has an effect here.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct LineControl: u8 {
        /// Word length, 5 bits and these.
        const WORD_LENGTH = 0b11;
        /// Ports 0 and 1 reach the divisor.
        const DIVISOR_LATCH = 1 << 7;
    }

    /// Modem control register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct ModemControl: u8 {
        /// Data terminal ready.
        const DTR = 1 << 0;
        /// Request to send.
        const RTS = 1 << 1;
        /// Not connected.
        const OUT1 = 1 << 2;
        /// Gate of the interrupt line.
        const OUT2 = 1 << 3;
        /// Loopback: outputs are fed back to the inputs, and the pins are inactive.
        const LOOP = 1 << 4;
    }

    /// Line status register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct LineStatus: u8 {
        /// Data ready.
        const READY = 1 << 0;
        /// Overrun.
        const OVERRUN = 1 << 1;
        /// Transmitter holding register empty.
        const EMPTY = 1 << 5;
        /// Transmitter empty.
        const IDLE = 1 << 6;
    }

    /// Modem status register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct ModemStatus: u8 {
        /// CTS changed.
        const DELTA_CTS = 1 << 0;
        /// DSR changed.
        const DELTA_DSR = 1 << 1;
        /// RI fell.
        const TRAILING_RI = 1 << 2;
        /// DCD changed.
        const DELTA_DCD = 1 << 3;
        /// Clear to send.
        const CTS = 1 << 4;
        /// Data set ready.
        const DSR = 1 << 5;
        /// Ring.
        const RI = 1 << 6;
        /// Carrier.
        const DCD = 1 << 7;

        /// The bits that tell of a change; a read clears them.
        const DELTAS = 0x0F;
        /// What the terminal at the other end drives.
        const TERMINAL = Self::CTS.bits() | Self::DSR.bits() | Self::DCD.bits();
    }
}

/// The interrupts, as the identification register names them, in falling priority.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    LineStatus,
    ReceivedData,
    CharacterTimeout,
    TransmitterEmpty,
    ModemStatus,
}

impl Interrupt {
    pub(super) const fn identification(this: Option<Self>) -> u8 {
        match this {
            Some(Self::LineStatus) => 0x06,
            Some(Self::ReceivedData) => 0x04,
            Some(Self::CharacterTimeout) => 0x0C,
            Some(Self::TransmitterEmpty) => 0x02,
            Some(Self::ModemStatus) => 0x00,
            None => 0x01,
        }
    }
}

/// Bits 7 and 6 of the identification register while FIFOs are on.
pub(super) const FIFOS_ON: u8 = 0xC0;

/// A register, by its offset from the base port.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Data,
    Enable,
    IdentificationOrFifo,
    LineControl,
    ModemControl,
    LineStatus,
    ModemStatus,
    Scratch,
}

impl Register {
    pub(super) const fn decode(offset: u8) -> Self {
        match offset & 7 {
            0 => Self::Data,
            1 => Self::Enable,
            2 => Self::IdentificationOrFifo,
            3 => Self::LineControl,
            4 => Self::ModemControl,
            5 => Self::LineStatus,
            6 => Self::ModemStatus,
            _ => Self::Scratch,
        }
    }
}

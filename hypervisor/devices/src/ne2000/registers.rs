//! The registers of the DP8390 and of Realtek's successors.
//!
//! Sources: National Semiconductor DP8390D data sheet, "Internal Registers"; Realtek RTL8029AS data sheet, chapter 5.

use bitflags::bitflags;

bitflags! {
    /// The command register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Command: u8 {
        /// The controller goes off line.
        const STOP = 1 << 0;
        /// The controller goes on line.
        const START = 1 << 1;
        /// A frame is to be sent; reads 1 until that is done.
        const TRANSMIT = 1 << 2;
        /// Remote DMA reads; with `WRITE`, it removes a frame from the ring.
        const READ = 1 << 3;
        /// Remote DMA writes.
        const WRITE = 1 << 4;
        /// Remote DMA ends.
        const ABORT = 1 << 5;
        /// The page of registers.
        const PAGE = 0b11 << 6;
    }

    /// The interrupt status register, and with it the mask register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Interrupts: u8 {
        /// A frame was received.
        const RECEIVED = 1 << 0;
        /// A frame was sent.
        const TRANSMITTED = 1 << 1;
        /// A frame was received with errors.
        const RECEIVE_ERROR = 1 << 2;
        /// A frame was not sent.
        const TRANSMIT_ERROR = 1 << 3;
        /// The ring had no room for a frame.
        const OVERWRITE = 1 << 4;
        /// A tally counter is half full.
        const COUNTER = 1 << 5;
        /// Remote DMA is complete.
        const REMOTE_DONE = 1 << 6;
        /// The controller is off line, or its ring overflowed. This one interrupts nobody and cannot be acknowledged.
        const RESET = 1 << 7;
    }

    /// The receive configuration register. Its two high bits read 1.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct ReceiveConfig: u8 {
        /// Frames with errors are kept.
        const ERRORS = 1 << 0;
        /// Frames that are too short are kept.
        const RUNTS = 1 << 1;
        /// Frames for all are kept.
        const BROADCAST = 1 << 2;
        /// Frames for the groups of the filter are kept.
        const MULTICAST = 1 << 3;
        /// Frames for any single station are kept.
        const PROMISCUOUS = 1 << 4;
        /// Frames are counted and not kept.
        const MONITOR = 1 << 5;
    }

    /// The transmit configuration register. Its three high bits read 1.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct TransmitConfig: u8 {
        /// The driver brings the frame check sequence.
        const NO_CHECK = 1 << 0;
        /// What is sent comes back inside the controller (1), at the encoder (2) or from the wire (3).
        const LOOPBACK = 0b11 << 1;
        /// Certain group addresses switch the transmitter off and on; storage.
        const AUTO_DISABLE = 1 << 3;
        /// Another back-off; storage.
        const OFFSET = 1 << 4;
    }

    /// The data configuration register. Its high bit reads 1.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct DataConfig: u8 {
        /// Remote DMA moves words.
        const WORD = 1 << 0;
        /// Another order of bytes, for other processors; storage.
        const SWAPPED = 1 << 1;
        /// Addresses of 32 bits; storage.
        const LONG = 1 << 2;
        /// No loopback; storage, since the transmit configuration says it, too.
        const NORMAL = 1 << 3;
        /// Frames are removed from the ring by themselves; storage.
        const AUTO_REMOTE = 1 << 4;
        /// Threshold of the FIFO; storage.
        const THRESHOLD = 0b11 << 5;
    }

    /// The transmit status register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct TransmitStatus: u8 {
        /// Sent without error.
        const SENT = 1 << 0;
        /// This one reads 1 after any transmission.
        const ALWAYS = 1 << 1;
        /// The carrier was lost.
        const NO_CARRIER = 1 << 4;
        /// The transceiver's heartbeat failed.
        const NO_HEARTBEAT = 1 << 6;
    }

    /// The receive status register, and the first byte of what is stored before a frame.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct ReceiveStatus: u8 {
        /// Received without error.
        const INTACT = 1 << 0;
        /// The check sequence is wrong.
        const CHECK = 1 << 1;
        /// There was no buffer, or the monitor mode is on.
        const MISSED = 1 << 4;
        /// The frame was for a group or for all.
        const GROUP = 1 << 5;
        /// The monitor mode is on.
        const DISABLED = 1 << 6;
    }

    /// The EEPROM command register of Realtek's.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct EepromCommand: u8 {
        /// The mode; with all bits set, configuration registers can be written to.
        const MODE = 0b11 << 6;
        /// Pins of the EEPROM, which is not there; storage.
        const PINS = 0b1110;
    }

    /// Configuration register 2 of Realtek's; all of it is storage.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Config2: u8 {
        /// The medium; 0 is the one that is there.
        const MEDIUM = 0b11 << 6;
        /// Flow control in full duplex.
        const FLOW_CONTROL = 1 << 5;
    }

    /// Configuration register 3 of Realtek's; all of it is storage.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Config3: u8 {
        /// Full duplex.
        const FULL_DUPLEX = 1 << 6;
        /// What lamps show.
        const LAMPS = 0b11 << 4;
        /// Sleep mode.
        const SLEEP = 1 << 2;
        /// Power-down mode.
        const POWER_DOWN = 1 << 1;
    }
}

/// What remote DMA does.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// Nothing.
    Off,
    /// Gives memory to the data port.
    Read,
    /// Takes memory from the data port.
    Write,
    /// Gives the oldest frame of the ring to the data port, and the buffer free ("send packet").
    Send,
}

impl Command {
    /// On line: frames come and go.
    pub(super) const fn online(self) -> bool {
        self.contains(Self::START) && !self.contains(Self::STOP)
    }

    /// What remote DMA is to do.
    pub(super) const fn remote(self) -> Remote {
        if self.contains(Self::ABORT) {
            return Remote::Off;
        }
        match (self.contains(Self::READ), self.contains(Self::WRITE)) {
            (false, false) => Remote::Off,
            (true, false) => Remote::Read,
            (false, true) => Remote::Write,
            (true, true) => Remote::Send,
        }
    }

    /// The page of registers, 0 to 3.
    pub(super) const fn page(self) -> u8 {
        self.bits() >> 6
    }
}

/// A register that can be read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Readable {
    Command,
    /// Where the next frame is stored, by byte.
    LocalAddress(u8),
    Boundary,
    TransmitStatus,
    Collisions,
    Fifo,
    Interrupts,
    /// Where remote DMA is, by byte.
    RemoteAddress(u8),
    /// Realtek's signature, by byte.
    Signature(u8),
    ReceiveStatus,
    /// Counters of frames with a wrong alignment, with a wrong check sequence, and without a buffer.
    Tally(u8),
    Station(u8),
    Current,
    Group(u8),
    PageStart,
    PageStop,
    RemoteNext,
    TransmitPage,
    ReceiveConfig,
    TransmitConfig,
    DataConfig,
    Mask,
    EepromCommand,
    Config0,
    Config2,
    Config3,
    /// Realtek's model number, by byte.
    Model(u8),
}

impl Readable {
    /// The register at `offset`, 0 to 15, of a page, 0 to 3.
    pub(super) const fn decode(page: u8, offset: u8) -> Option<Self> {
        Some(match (page, offset) {
            (_, 0x0) => Self::Command,
            (0, 0x1 | 0x2) => Self::LocalAddress(offset - 0x1),
            (0, 0x3) => Self::Boundary,
            (0, 0x4) => Self::TransmitStatus,
            (0, 0x5) => Self::Collisions,
            (0, 0x6) => Self::Fifo,
            (0, 0x7) => Self::Interrupts,
            (0, 0x8 | 0x9) => Self::RemoteAddress(offset - 0x8),
            (0, 0xA | 0xB) => Self::Signature(offset - 0xA),
            (0, 0xC) => Self::ReceiveStatus,
            (0, 0xD..=0xF) => Self::Tally(offset - 0xD),
            (1, 0x1..=0x6) => Self::Station(offset - 0x1),
            (1, 0x7) => Self::Current,
            (1, 0x8..=0xF) => Self::Group(offset - 0x8),
            (2, 0x1) => Self::PageStart,
            (2, 0x2) => Self::PageStop,
            (2, 0x3) => Self::RemoteNext,
            (2, 0x4) => Self::TransmitPage,
            (2, 0x5) => Self::Current,
            // The counter behind the local address, high byte first.
            (2, 0x6 | 0x7) => Self::LocalAddress(0x7 - offset),
            (2, 0xC) => Self::ReceiveConfig,
            (2, 0xD) => Self::TransmitConfig,
            (2, 0xE) => Self::DataConfig,
            (2, 0xF) => Self::Mask,
            (3, 0x1) => Self::EepromCommand,
            (3, 0x3) => Self::Config0,
            (3, 0x5) => Self::Config2,
            (3, 0x6) => Self::Config3,
            (3, 0xE | 0xF) => Self::Model(offset - 0xE),
            _ => return None,
        })
    }
}

/// A register that can be written to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Writable {
    Command,
    PageStart,
    PageStop,
    Boundary,
    TransmitPage,
    /// Bytes of the frame to be sent, by byte.
    TransmitCount(u8),
    Interrupts,
    RemoteAddress(u8),
    RemoteCount(u8),
    ReceiveConfig,
    TransmitConfig,
    DataConfig,
    Mask,
    Station(u8),
    Current,
    Group(u8),
    EepromCommand,
    Config2,
    Config3,
}

impl Writable {
    /// The register at `offset`, 0 to 15, of a page, 0 to 3. Those of page 2 are for tests of the chip.
    pub(super) const fn decode(page: u8, offset: u8) -> Option<Self> {
        Some(match (page, offset) {
            (_, 0x0) => Self::Command,
            (0, 0x1) => Self::PageStart,
            (0, 0x2) => Self::PageStop,
            (0, 0x3) => Self::Boundary,
            (0, 0x4) => Self::TransmitPage,
            (0, 0x5 | 0x6) => Self::TransmitCount(offset - 0x5),
            (0, 0x7) => Self::Interrupts,
            (0, 0x8 | 0x9) => Self::RemoteAddress(offset - 0x8),
            (0, 0xA | 0xB) => Self::RemoteCount(offset - 0xA),
            (0, 0xC) => Self::ReceiveConfig,
            (0, 0xD) => Self::TransmitConfig,
            (0, 0xE) => Self::DataConfig,
            (0, 0xF) => Self::Mask,
            (1, 0x1..=0x6) => Self::Station(offset - 0x1),
            (1, 0x7) => Self::Current,
            (1, 0x8..=0xF) => Self::Group(offset - 0x8),
            (3, 0x1) => Self::EepromCommand,
            (3, 0x5) => Self::Config2,
            (3, 0x6) => Self::Config3,
            _ => return None,
        })
    }
}

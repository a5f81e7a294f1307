//! The cards' registers. Sections are those of the *PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's
//! Manual* (8254x, chapter 13), the *82574 Datasheet* (chapter 10) and the *82576 Datasheet* (chapter 8); where nothing else is
//! said they have it alike.

use crate::tsc;
use bitflags::{Flags, bitflags};
use core::ptr::NonNull;

/// A register, by its byte offset in the first memory range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Register(pub(super) u32);

impl Register {
    /// The n-th of a row of registers that begins with this one.
    pub(super) const fn nth(self, n: u32) -> Self {
        Self(self.0 + 4 * n)
    }
}

/// Bytes of registers that are used: all known cards have at least as many.
pub(super) const REGISTER_BYTES: u64 = 0x2_0000;

pub(super) const EEPROM_READ: Register = Register(0x0014);
pub(super) const MDI_CONTROL: Register = Register(0x0020);
/// Causes of interrupts, cleared by being read.
pub(super) const CAUSES: Register = Register(0x00C0);
pub(super) const CAUSE_SET: Register = Register(0x00C8);
pub(super) const MASK_SET: Register = Register(0x00D0);
pub(super) const MASK_CLEAR: Register = Register(0x00D8);
/// Interrupt throttling in units of 256 ns (8254x, 82574).
pub(super) const THROTTLING: Register = Register(0x00C4);
pub(super) const TRANSMIT_GAP: Register = Register(0x0410);
pub(super) const RECEIVE_DELAY: Register = Register(0x2820);
pub(super) const RECEIVE_ABSOLUTE_DELAY: Register = Register(0x282C);
pub(super) const TRANSMIT_DELAY: Register = Register(0x3820);
/// Kilobytes of the card's memory that are for receiving, in the low half.
pub(super) const PACKET_BUFFER: Register = Register(0x1000);
pub(super) const TRANSMIT_ARBITRATION: Register = Register(0x3840);
/// Longest frame with its check sequence (82576).
pub(super) const LONG_PACKET_MAX: Register = Register(0x5004);
pub(super) const MULTICAST_TABLE: Register = Register(0x5200);
/// Low and high halves of the receive addresses, in turn.
pub(super) const RECEIVE_ADDRESSES: Register = Register(0x5400);
/// PCI Express control (82574).
pub(super) const PCIE_CONTROL: Register = Register(0x5B00);
pub(super) const PCIE_CONTROL_2: Register = Register(0x5B64);
/// Which resources software (low half) and firmware (high half) hold (82576, section 8.16).
pub(super) const OWNERS: Register = Register(0x5B5C);
/// To which interrupt vectors queue 0 goes (82576, section 8.8.13).
pub(super) const INTERRUPT_VECTORS: Register = Register(0x1700);
/// Interrupt throttling in microseconds, from bit 2 on (82576, section 8.8.12).
pub(super) const VECTOR_THROTTLING: Register = Register(0x1680);
/// Buffer sizes and descriptor format of the receive queue (82576, section 8.10.2).
pub(super) const SPLIT_RECEIVE: Register = Register(0x280C);

/// Counters, each cleared by being read (8254x section 13.7).
pub(super) mod counter {
    use super::Register;

    pub(in crate::nic) const CRC_ERRORS: Register = Register(0x4000);
    pub(in crate::nic) const ALIGNMENT_ERRORS: Register = Register(0x4004);
    pub(in crate::nic) const RECEIVE_ERRORS: Register = Register(0x400C);
    pub(in crate::nic) const MISSED: Register = Register(0x4010);
    pub(in crate::nic) const COLLISIONS: Register = Register(0x4028);
    pub(in crate::nic) const LENGTH_ERRORS: Register = Register(0x4040);
    pub(in crate::nic) const GOOD_RECEIVED: Register = Register(0x4074);
    pub(in crate::nic) const GOOD_TRANSMITTED: Register = Register(0x4080);
    /// 64 bits: the low half first.
    pub(in crate::nic) const BYTES_RECEIVED: Register = Register(0x4088);
    pub(in crate::nic) const BYTES_TRANSMITTED: Register = Register(0x4090);
    pub(in crate::nic) const NO_BUFFER: Register = Register(0x40A0);
    pub(in crate::nic) const UNDERSIZED: Register = Register(0x40A4);
    pub(in crate::nic) const FRAGMENTS: Register = Register(0x40A8);
    pub(in crate::nic) const OVERSIZED: Register = Register(0x40AC);
    pub(in crate::nic) const JABBER: Register = Register(0x40B0);
}

/// The first receive queue's registers. The 82576 has them elsewhere too, as those of the first transmit queue and of
/// interrupts.
pub(super) const fn receive_queue(part: Queue) -> Register {
    Register(0x2800 + part as u32)
}

/// The first transmit queue's registers.
pub(super) const fn transmit_queue(part: Queue) -> Register {
    Register(0x3800 + part as u32)
}

/// Registers of a queue, from the start of its registers on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Queue {
    BaseLow = 0x00,
    BaseHigh = 0x04,
    /// In bytes.
    Length = 0x08,
    Head = 0x10,
    Tail = 0x18,
    Control = 0x28,
}

/// A register whose bits have names.
pub(super) trait Named: Flags<Bits = u32> {
    const AT: Register;
}

macro_rules! registers {
    ($($(#[doc = $doc:literal])* $name:ident at $offset:literal {
        $($(#[doc = $bit_doc:literal])* $bit:ident = $value:expr;)*
    })*) => {$(
        bitflags! {
            $(#[doc = $doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub(super) struct $name: u32 {
                $($(#[doc = $bit_doc])* const $bit = $value;)*
                const _ = !0;
            }
        }

        impl Named for $name {
            const AT: Register = Register($offset);
        }
    )*};
}

registers! {
    /// Device control.
    Control at 0x0000 {
        /// Full duplex, where that is forced.
        FULL_DUPLEX = 1 << 0;
        /// No more accesses to memory are begun (82574, 82576).
        MASTER_DISABLE = 1 << 2;
        /// The MAC takes its speed from the PHY.
        AUTO_SPEED = 1 << 5;
        /// The MAC may use the link.
        SET_LINK_UP = 1 << 6;
        INVERT_LOSS_OF_SIGNAL = 1 << 7;
        FORCE_SPEED = 1 << 11;
        FORCE_DUPLEX = 1 << 12;
        RESET = 1 << 26;
        /// Pause frames are obeyed.
        RECEIVE_PAUSE = 1 << 27;
        /// Pause frames are sent.
        TRANSMIT_PAUSE = 1 << 28;
        /// To be written as 0 on the 82574.
        RESERVED_29 = 1 << 29;
        /// VLAN tags are taken out of frames.
        STRIP_TAGS = 1 << 30;
        PHY_RESET = 1 << 31;
    }

    /// Device status.
    Status at 0x0008 {
        FULL_DUPLEX = 1 << 0;
        LINK_UP = 1 << 1;
        /// The number of the port.
        PORT = 0b11 << 2;
        /// A pause frame keeps it from sending.
        TRANSMIT_PAUSED = 1 << 4;
        SPEED_100 = 1 << 6;
        SPEED_1000 = 1 << 7;
        /// Accesses to memory are allowed or still under way (82574, 82576).
        MASTER_ENABLED = 1 << 19;
    }

    /// EEPROM control.
    EepromControl at 0x0010 {
        /// The card has read its configuration (82574, 82576).
        AUTO_READ_DONE = 1 << 9;
    }

    /// Extended device control.
    ExtendedControl at 0x0018 {
        /// To be written as 1 on the 82574, and the one above as 0.
        RESERVED_22 = 1 << 22;
        RESERVED_23 = 1 << 23;
        /// Tells firmware that a driver is there (82574, 82576).
        DRIVER_LOADED = 1 << 28;
    }

    /// Receive control.
    ReceiveControl at 0x0100 {
        ENABLE = 1 << 1;
        PROMISCUOUS = 1 << 3;
        ALL_MULTICAST = 1 << 4;
        /// Frames longer than 1522 bytes, check sequence included.
        LONG_FRAMES = 1 << 5;
        BROADCAST = 1 << 15;
        /// With `SIZE_TIMES_16`: buffers of 16 KiB; 0 without it: 2 KiB (not 82576).
        SIZE_1024 = 0b01 << 16;
        SIZE_TIMES_16 = 1 << 25;
        /// Check sequences are taken off.
        STRIP_CRC = 1 << 26;
    }

    /// Transmit control.
    TransmitControl at 0x0400 {
        ENABLE = 1 << 1;
        PAD_SHORT = 1 << 3;
        /// 16 attempts, after collisions.
        ATTEMPTS_16 = 15 << 4;
        ATTEMPTS = 0xFF << 4;
        /// In byte times, for full duplex.
        COLLISION_DISTANCE_64 = 64 << 12;
        COLLISION_DISTANCE = 0x3FF << 12;
        RETRY_LATE_COLLISIONS = 1 << 24;
    }

    /// Who may use the 82574's PHY and EEPROM (section 10.2.2.10).
    ExtendedConfiguration at 0x0F00 {
        SOFTWARE_OWNS = 1 << 5;
    }

    /// Checksums of received frames.
    ReceiveChecksum at 0x5000 {
        IP = 1 << 8;
        TCP_UDP = 1 << 9;
    }

    /// Semaphore between software and firmware (82576, section 8.16).
    Semaphore at 0x5B50 {
        /// Set by being read: who reads 0 has it.
        SOFTWARE = 1 << 0;
        /// Stays when written only if firmware does not have it.
        FIRMWARE = 1 << 1;
    }
}

bitflags! {
    /// Causes of interrupts: of the registers that read, set and mask them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct InterruptCauses: u32 {
        const TRANSMITTED = 1 << 0;
        const LINK_CHANGED = 1 << 2;
        /// Few descriptors are left.
        const FEW_BUFFERS = 1 << 4;
        /// A frame was lost because the card's memory is full.
        const OVERRUN = 1 << 6;
        const RECEIVED = 1 << 7;
        const _ = !0;
        const ANY_RECEIVE = Self::FEW_BUFFERS.bits() | Self::OVERRUN.bits() | Self::RECEIVED.bits();
    }
}

bitflags! {
    /// Control of a queue's descriptors; thresholds are in descriptors.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct QueueControl: u32 {
        /// Fetched ahead when fewer than 31 are left on the card.
        const PREFETCH_31 = 31;
        const PREFETCH_8 = 8;
        /// As long as there is one.
        const HOST_1 = 1 << 8;
        const HOST_8 = 8 << 8;
        /// Written back one by one.
        const WRITE_BACK_1 = 1 << 16;
        /// To be written as 1 (82574).
        const COUNT = 1 << 22;
        /// Thresholds are in descriptors, not in cache lines (8254x, 82574).
        const IN_DESCRIPTORS = 1 << 24;
        /// The queue runs (82576).
        const ENABLE = 1 << 25;
        const _ = !0;
    }
}

bitflags! {
    /// The high half of a receive address.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct AddressHigh: u32 {
        const ADDRESS = 0xFFFF;
        const VALID = 1 << 31;
    }
}

/// A card's registers. Reads and writes are done in the order of the program.
pub(super) trait Registers: Send + Sync {
    fn read(&self, register: Register) -> u32;

    fn write(&self, register: Register, value: u32);

    /// Lets time pass.
    fn wait(&self, microseconds: u32);

    /// Writes the control register of a card that must be reset by a path of its own, where there is one.
    fn write_control_for_reset(&self, value: u32) {
        self.write(Control::AT, value);
    }

    fn get<T: Named>(&self) -> T {
        T::from_bits_retain(self.read(T::AT))
    }

    fn set<T: Named>(&self, value: T) {
        self.write(T::AT, value.bits());
    }

    /// Waits until `done`, for so many steps of so many microseconds. Returns whether it came about.
    fn wait_until(&self, steps: u32, microseconds: u32, mut done: impl FnMut() -> bool) -> bool {
        (0..steps).any(|step| {
            if step != 0 {
                self.wait(microseconds);
            }
            done()
        })
    }
}

/// A card's registers in memory, with those that reset it.
#[derive(Debug)]
pub(super) struct Mmio {
    registers: NonNull<u8>,
    /// Ports for indirect access, where they are to be used for a reset.
    reset_ports: Option<u16>,
    ticks_per_microsecond: u64,
}

// SAFETY: device registers, which any processor may access; what must not be done at the same time is behind locks.
unsafe impl Send for Mmio {}
// SAFETY: as above.
unsafe impl Sync for Mmio {}

impl Mmio {
    /// # Safety
    ///
    /// `registers` must map [`REGISTER_BYTES`] of a known card uncached for good, with no other user, and `reset_ports` must be
    /// its I/O range.
    pub(super) unsafe fn new(
        registers: NonNull<u8>,
        reset_ports: Option<u16>,
        tsc_hz: u64,
    ) -> Self {
        Self {
            registers,
            reset_ports,
            ticks_per_microsecond: tsc_hz.div_ceil(1_000_000),
        }
    }

    /// Whether a reset takes I/O ports.
    pub(super) fn has_ports(&self) -> bool {
        self.reset_ports.is_some()
    }

    fn at(&self, register: Register) -> *mut u32 {
        debug_assert!(u64::from(register.0) < REGISTER_BYTES && register.0.is_multiple_of(4));
        // SAFETY: registers in this file are within the range that `new` was given.
        unsafe { self.registers.add(register.0 as usize).cast().as_ptr() }
    }
}

impl Registers for Mmio {
    fn read(&self, register: Register) -> u32 {
        // SAFETY: mapped by the contract of `new`.
        unsafe { self.at(register).read_volatile() }
    }

    fn write(&self, register: Register, value: u32) {
        // SAFETY: mapped by the contract of `new`; what the card does to memory then is limited to what it was given.
        unsafe { self.at(register).write_volatile(value) };
    }

    fn wait(&self, microseconds: u32) {
        let start = tsc::read();
        let ticks = u64::from(microseconds) * self.ticks_per_microsecond;
        while tsc::read().wrapping_sub(start) < ticks {
            core::hint::spin_loop();
        }
    }

    fn write_control_for_reset(&self, value: u32) {
        // Section 13.2.2: the register's offset goes to the first double word, the value to the second.
        if let Some(ports) = self.reset_ports {
            // SAFETY: the card's own ports, by the contract of `new`.
            unsafe {
                crate::port::write_u32(ports, Control::AT.0);
                crate::port::write_u32(ports + 4, value);
            }
        } else {
            self.write(Control::AT, value);
        }
    }
}

//! The watchdog's registers.

use bitflags::bitflags;

/// The configuration register, 0x60 of the configuration space.
pub(super) const CONFIGURATION: u8 = 0x60;
/// The lock register, 0x68 of the configuration space.
pub(super) const LOCK: u8 = 0x68;

/// The registers in memory.
pub(super) const PRELOAD_1: u16 = 0x0;
pub(super) const PRELOAD_2: u16 = 0x4;
pub(super) const INTERRUPT_STATUS: u16 = 0x8;
pub(super) const RELOAD: u16 = 0xC;
/// How many bytes they are.
pub(super) const LENGTH: u16 = 0x10;

/// The bits of a preload register.
pub(super) const PRELOAD: u32 = 0xF_FFFF;

/// What is written to the reload register to unlock it, or a preload register, for one write.
pub(super) const KEYS: [u32; 2] = [0x80, 0x86];

bitflags! {
    /// The configuration register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Configuration: u32 {
        /// WDT_INT_TYPE: what the end of the first stage brings. 0 is an interrupt, 2 a system management interrupt,
        /// which this board does not have, 3 nothing.
        const INTERRUPT_TYPE = 0b11;
        /// WDT_PRE_SEL: a preload is of 2^5 cycles of the PCI clock rather than of 2^15.
        const FINE = 1 << 2;
        /// WDT_OUTPUT: the end of the second stage is not to be seen outside.
        const OUTPUT_OFF = 1 << 5;
    }

    /// The lock register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Lock: u32 {
        /// WDT_LOCK: this register does not change until a reset.
        const LOCKED = 1 << 0;
        /// WDT_ENABLE: the counter runs.
        const ENABLED = 1 << 1;
        /// WDT_TOUT_CNF: free-running mode, which has no first stage.
        const FREE_RUNNING = 1 << 2;
    }

    /// The general interrupt status register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct InterruptStatus: u32 {
        /// WDT_INT_ACT: the first stage has ended. A write of 1 clears it.
        const FIRST_STAGE = 1 << 0;
    }

    /// The reload register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Reload: u32 {
        /// WDT_RELOAD: start over with the first stage; write only.
        const RELOAD = 1 << 8;
        /// WDT_TIMEOUT: the second stage has ended once. A write of 1 clears it, a reset does not.
        const TIMEOUT = 1 << 9;
    }
}

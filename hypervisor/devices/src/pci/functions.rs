//! The chipset's functions, as tables of registers.
//!
//! Only what an operating system looks for is there: no register is writable unless it is mere storage.

use super::router;
use crate::power;

/// A doubleword register of a configuration header.
#[derive(Copy, Clone, Debug)]
pub(super) struct Register {
    /// A multiple of 4.
    pub(super) offset: u8,
    /// The value as firmware leaves it.
    pub(super) initial: u32,
    /// The bits that a write sets.
    pub(super) writable: u32,
}

/// A function's registers. Those that are not listed read 0.
pub(super) type Definition = [Register];

const fn fixed(offset: u8, initial: u32) -> Register {
    Register {
        offset,
        initial,
        writable: 0,
    }
}

/// Vendor and device.
const fn identity(device: u16) -> Register {
    const INTEL: u32 = 0x8086;
    fixed(0x00, (device as u32) << 16 | INTEL)
}

/// Class code (base, sub, interface) and revision.
const fn class(class: u32, revision: u8) -> Register {
    fixed(0x08, class << 8 | revision as u32)
}

/// Command and status. All these functions decode at medium speed and take back-to-back transactions.
const fn command(command: u16) -> Register {
    const STATUS: u32 = 0x0280;
    fixed(0x04, STATUS << 16 | command as u32)
}

/// Command: memory space and bus mastering. I/O space.
const MEMORY: u16 = 1 << 1;
const MASTER: u16 = 1 << 2;
const IO: u16 = 1 << 0;

/// Header type register: more functions follow in this device.
const MULTIFUNCTION: u32 = 0x80 << 16;

/// 00:00.0, 82441FX host bridge, revision 2.
pub(super) const HOST_BRIDGE: &Definition = &[
    identity(0x1237),
    command(MEMORY | MASTER),
    class(0x06_0000, 2),
    // PAM0 to PAM6 (0x59 to 0x5F): 0xC0000 to 0xFFFFF is RAM.
    fixed(0x58, 0x3333_3000),
    fixed(0x5C, 0x3333_3333),
    // SMRAM (0x72): closed.
    fixed(0x70, 0x0002_0000),
];

/// 00:01.0, PIIX4 ISA bridge, revision 2.
pub(super) const ISA_BRIDGE: &Definition = &[
    identity(0x7110),
    command(IO | MEMORY | MASTER),
    class(0x06_0100, 2),
    fixed(0x0C, MULTIFUNCTION),
    // IORT (0x4C): I/O recovery times; reset value.
    fixed(0x4C, 0x0000_004D),
    // PIRQRC (0x60 to 0x63): interrupt routing.
    Register {
        offset: router::REGISTER,
        initial: router::INITIAL,
        writable: router::WRITABLE,
    },
];

/// 00:01.3, PIIX4 power management, revision 3. Its I/O base does not move.
pub(super) const POWER_MANAGEMENT: &Definition = &[
    identity(0x7113),
    command(IO),
    class(0x06_8000, 3),
    // Interrupt pin A; the system control interrupt.
    fixed(0x3C, 0x0000_0100 | power::SCI_IRQ as u32),
    // PMBA (0x40), an I/O base; PMREGMISC (0x80): decoding is on.
    fixed(0x40, power::BASE as u32 | 1),
    fixed(0x80, 0x0000_0001),
];

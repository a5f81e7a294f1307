//! The interrupt router of the ISA bridge: from the pins of PCI devices to the interrupt request lines of the 8259A pair.
//!
//! Source: Intel 82371AB (PIIX4) data sheet, "PIRQRC[A:D] - PIRQx route control registers" and 8.6.
//!
//! The pins of all devices meet in four wires, PIRQA to PIRQD. In the I/O APIC each has an input of its own, whatever the
//! router does; the router gives it to a line of the 8259A pair, where it is asserted high and by its level.

use crate::acpi::{CHIPSET, PCI_INPUT, PINS, pci_wire};
use crate::power;

/// The register with the routes of all four wires, a byte for each.
pub(super) const REGISTER: u8 = 0x60;
/// What can be programmed of it.
pub(super) const WRITABLE: u32 = 0x8F8F_8F8F;
/// The route of a wire that leads nowhere, and the field of a line.
const DISABLED: u8 = 0x80;
const LINE: u8 = 0x0F;
/// The lines that a wire can be routed to.
const LINES: u16 = 0b1101_1110_1111_1000;
/// The routes that firmware chooses.
const FIRMWARE: [u8; PINS as usize] = [10, 11, 10, 11];
/// The register as firmware leaves it.
pub(super) const INITIAL: u32 = u32::from_le_bytes(FIRMWARE);
/// The lines that firmware makes level-sensitive.
pub(crate) const LEVELS: u16 = 1 << 10 | 1 << 11;

/// What PCI devices assert.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asserted {
    /// Inputs of the I/O APIC, a bit for each.
    pub(crate) inputs: u32,
    /// Interrupt request lines, a bit for each.
    pub(crate) lines: u16,
}

impl Asserted {
    /// What comes of these inputs with the routes of the register.
    pub(super) fn routed(inputs: u32, routes: u32) -> Self {
        let mut lines = 0;
        for (input, route) in (PCI_INPUT..).zip(routes.to_le_bytes()) {
            let line = 1 << (route & LINE);
            if inputs & 1 << input != 0 && route & DISABLED == 0 {
                lines |= line & LINES;
            }
        }
        Self { inputs, lines }
    }
}

/// The interrupt request line to which the firmware routes a device's pin (0 is A). That of the chipset is fixed.
pub(crate) fn firmware_line(device: u8, pin: u8) -> u8 {
    if device == CHIPSET {
        return power::SCI_IRQ;
    }
    let wire = usize::from(pci_wire(device, pin));
    FIRMWARE.get(wire).copied().unwrap_or_default()
}

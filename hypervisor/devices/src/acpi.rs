//! The ACPI tables by which a guest finds its processors, interrupts, power management and devices.
//!
//! Source: ACPI specification 6.4, chapters 5 (tables), 6 (devices and resources) and 19 (AML).
//!
//! The tables describe what this crate models and nothing else: power management by fixed hardware in ACPI mode from the
//! start (no SMI command port), a power button there, no second sleep state than soft-off, no high precision event
//! timer, no memory-mapped PCI configuration.
//!
//! # Interrupts
//!
//! One I/O APIC with 24 inputs from 0 on. Interrupt request lines have the inputs of their numbers, but for the timer's
//! (IRQ 0), which has input 2, as on every PC. The system control interrupt is active high and level-triggered.
//! PCI pins are wired to the inputs 16 to 19, which share nothing with the old lines: pin A of device 0 to 16, and on
//! by one for each further pin and each further device ([`pci_input`]). A guest that says by \_PIC that it uses the 8259A
//! pair, or does not say that it uses the I/O APIC, is told the lines to which firmware routed them. The one exception is
//! the chipset, device 1: its pin A is the system control interrupt.

mod dsdt;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;

use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};

use crate::power;

/// Where each processor finds its local APIC.
pub const LOCAL_APIC: u32 = 0xFEE0_0000;
/// Where the I/O APIC is.
pub const IO_APIC: u32 = 0xFEC0_0000;
/// The I/O APIC's input for the timer's interrupt request line.
pub const TIMER_INPUT: u8 = 2;
/// The first of the four inputs of PCI pins.
pub const PCI_INPUT: u8 = 16;
/// The memory for devices on the PCI bus, first and last byte.
pub const PCI_MEMORY: (u32, u32) = (0xC000_0000, 0xFEBF_FFFF);

/// Where tables may lie: a guest that is not told looks for the first of them here.
pub const AREA: core::ops::Range<u64> = 0xE_0000..0x10_0000;
/// The alignment of the tables' address, for the firmware control structure's sake.
pub const ALIGNMENT: u64 = 64;

/// Most processors: the local APIC numbers of 8 bits, without the one that means all.
pub const CPUS_MAX: u32 = 255;

const OEM: [u8; 6] = *b"UNDSTY";
const OEM_TABLE: [u8; 8] = *b"UNDRSTDY";
const OEM_REVISION: u32 = 1;

/// Offsets of the registers in the power management block.
const CONTROL: u16 = 4;
const TIMER: u16 = 8;
/// The reset control register, and the value for a hard reset.
const RESET_PORT: u16 = 0xCF9;
const RESET_VALUE: u8 = 6;
/// Where the clock's memory keeps the century.
const CENTURY: u8 = 0x32;

/// What the tables are to describe.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct AcpiConfig {
    /// Processors, 1 to [`CPUS_MAX`]. Their local APICs are numbered from 0.
    pub cpus: u32,
    /// The I/O APIC's number.
    pub io_apic_id: u8,
    /// Whether there is a 16550 at 0x3F8, IRQ 4.
    pub com1: bool,
    /// Whether there is a MC146818A at 0x70, IRQ 8.
    pub rtc: bool,
    /// Whether there is PCI configuration mechanism 1 at 0xCF8.
    pub pci: bool,
}

/// Tables, ready to be copied into guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// What belongs at the address that they were built for.
    pub bytes: Vec<u8>,
    /// The guest-physical address of the root pointer.
    pub rsdp: u64,
}

/// Why there are no tables.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// No processors, or more than [`CPUS_MAX`].
    Processors(u32),
    /// The address is outside [`AREA`] or not a multiple of [`ALIGNMENT`].
    Address(u64),
    /// The tables end outside [`AREA`].
    TooLarge {
        /// Their size in bytes.
        size: usize,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Processors(count) => {
                write!(f, "ACPI tables cannot describe {count} processors")
            }
            Self::Address(address) => write!(f, "ACPI tables cannot lie at {address:#x}"),
            Self::TooLarge { size } => {
                write!(f, "ACPI tables of {size} bytes do not fit below 1 MiB")
            }
        }
    }
}

impl core::error::Error for BuildError {}

/// The I/O APIC's input that a device's interrupt pin (0 is A) is wired to.
///
/// That of the chipset, device 1, is the system control interrupt whatever the pin.
#[must_use]
pub const fn pci_input(device: u8, pin: u8) -> u8 {
    if device == CHIPSET {
        power::SCI_IRQ
    } else {
        PCI_INPUT + pci_wire(device, pin)
    }
}

/// The wire, 0 to 3, in which a device's interrupt pin (0 is A) meets those of others.
#[must_use]
pub const fn pci_wire(device: u8, pin: u8) -> u8 {
    (device % PINS + pin % PINS) % PINS
}

/// The PCI device that is the chipset.
pub const CHIPSET: u8 = 1;
/// Interrupt pins of a PCI device.
pub const PINS: u8 = 4;

/// Builds the tables for the guest-physical address `base`.
///
/// # Errors
///
/// [`BuildError`].
pub fn build(config: &AcpiConfig, base: u64) -> Result<Tables, BuildError> {
    if !(1..=CPUS_MAX).contains(&config.cpus) {
        return Err(BuildError::Processors(config.cpus));
    }
    if !AREA.contains(&base) || !base.is_multiple_of(ALIGNMENT) {
        return Err(BuildError::Address(base));
    }
    // The root pointer comes first, and is written last, when it is known where the others are.
    let mut area = Area {
        base: base as u32,
        bytes: alloc::vec![0; Rsdp::len()],
    };
    let facs = area.add(&FACS::new(), ALIGNMENT);
    let dsdt = area.add(&dsdt::table(config), TABLE_ALIGNMENT);
    let fadt = area.add(&fixed(config, facs, dsdt), TABLE_ALIGNMENT);
    let madt = area.add(&interrupts(config), TABLE_ALIGNMENT);
    let mut root = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    root.add_entry(u64::from(fadt));
    root.add_entry(u64::from(madt));
    let root = area.add(&root, TABLE_ALIGNMENT);
    let mut pointer = Vec::new();
    Rsdp::new(OEM, u64::from(root)).to_aml_bytes(&mut pointer);
    let mut bytes = area.bytes;
    for (to, from) in bytes.iter_mut().zip(pointer) {
        *to = from;
    }
    if bytes.len() as u64 > AREA.end - base {
        return Err(BuildError::TooLarge { size: bytes.len() });
    }
    Ok(Tables { bytes, rsdp: base })
}

const TABLE_ALIGNMENT: u64 = 16;

/// Tables one behind the other.
struct Area {
    base: u32,
    bytes: Vec<u8>,
}

impl Area {
    /// Adds a table; returns its guest-physical address.
    fn add(&mut self, table: &dyn Aml, alignment: u64) -> u32 {
        let at = self.bytes.len().next_multiple_of(alignment as usize);
        self.bytes.resize(at, 0);
        table.to_aml_bytes(&mut self.bytes);
        self.base + at as u32
    }
}

/// A table without content.
fn table(signature: [u8; 4], revision: u8) -> Sdt {
    const HEADER: u32 = 36;
    Sdt::new(signature, HEADER, revision, OEM, OEM_TABLE, OEM_REVISION)
}

fn port(address: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, u64::from(address))
}

/// The fixed ACPI description table (5.2.9).
fn fixed(config: &AcpiConfig, facs: u32, dsdt: u32) -> FADT {
    /// Boot architecture flags (5.2.9.3).
    const LEGACY_DEVICES: u16 = 1 << 0;
    const NO_VGA: u16 = 1 << 2;
    const NO_RTC: u16 = 1 << 5;
    /// Latencies that say that there are no C2 and C3.
    const NO_C2: u16 = 0x0FFF;

    let mut table = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .firmware_ctrl_32(facs)
        .dsdt_64(u64::from(dsdt))
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    table.dsdt = dsdt.into();
    table.sci_int = u16::from(power::SCI_IRQ).into();

    table.pm1a_evt_blk = u32::from(power::BASE).into();
    table.pm1_evt_len = 4;
    table.x_pm1a_evt_blk = port(power::BASE, 32, AccessSize::WordAccess);
    table.pm1a_cnt_blk = u32::from(power::BASE + CONTROL).into();
    table.pm1_cnt_len = 2;
    table.x_pm1a_cnt_blk = port(power::BASE + CONTROL, 16, AccessSize::WordAccess);
    table.pm_tmr_blk = u32::from(power::BASE + TIMER).into();
    table.pm_tmr_len = 4;
    table.x_pm_tmr_blk = port(power::BASE + TIMER, 32, AccessSize::DwordAccess);

    table.p_lvl2_lat = NO_C2.into();
    table.p_lvl3_lat = NO_C2.into();
    table.century = if config.rtc { CENTURY } else { 0 };
    // The keyboard controller is there, but no keyboard: a guest need not look.
    let clock = if config.rtc { 0 } else { NO_RTC };
    table.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA | clock).into();
    table.reset_reg = port(RESET_PORT, 8, AccessSize::ByteAccess);
    table.reset_value = RESET_VALUE;
    table.finalize()
}

/// The multiple APIC description table (5.2.12).
fn interrupts(config: &AcpiConfig) -> Sdt {
    const REVISION: u8 = 5;
    /// There are two 8259 too, which must be masked (table 5.20).
    const PC_COMPATIBLE: u32 = 1 << 0;
    /// Structure types and lengths (tables 5.26 and 5.28).
    const SOURCE_OVERRIDE: [u8; 2] = [2, 10];
    const LOCAL_NMI: [u8; 2] = [4, 6];
    /// Interrupt flags (table 5.27).
    const ACTIVE_HIGH: u16 = 0b01;
    const EDGE: u16 = 0b01 << 2;
    const LEVEL: u16 = 0b11 << 2;
    const ALL_PROCESSORS: u8 = 0xFF;

    let mut body = Vec::new();
    body.dword(LOCAL_APIC);
    body.dword(PC_COMPATIBLE);
    for cpu in 0..config.cpus as u8 {
        ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled).to_aml_bytes(&mut body);
    }
    IoApic::new(config.io_apic_id, IO_APIC, 0).to_aml_bytes(&mut body);
    let overrides = [
        (0, TIMER_INPUT, ACTIVE_HIGH | EDGE),
        (power::SCI_IRQ, power::SCI_IRQ, ACTIVE_HIGH | LEVEL),
    ];
    for (irq, input, flags) in overrides {
        const ISA_BUS: u8 = 0;
        body.vec(&SOURCE_OVERRIDE);
        body.vec(&[ISA_BUS, irq]);
        body.dword(u32::from(input));
        body.word(flags);
    }
    body.vec(&LOCAL_NMI);
    body.byte(ALL_PROCESSORS);
    body.word(ACTIVE_HIGH | EDGE);
    body.byte(1); // LINT1

    let mut table = table(*b"APIC", REVISION);
    table.append_slice(&body);
    table
}

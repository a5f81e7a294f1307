//! The differentiated system description table: the devices that no bus tells of, in AML.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, EISAName, IO, If, Interrupt, Method, Name,
    Package, PackageBuilder, Path, ResourceTemplate, Return, Scope, Store, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::{AcpiConfig, CHIPSET, PCI_MEMORY, PINS, pci_input};
use crate::pci::router::firmware_line;
use crate::power;

/// Integers have 64 bits from this revision on.
const REVISION: u8 = 2;

/// The last device number of a PCI bus.
const DEVICE_MAX: u8 = 31;

/// Ports of the PCI configuration mechanism.
const CONFIGURATION: (u16, u16) = (0xCF8, 0xCFF);

pub(super) fn table(config: &AcpiConfig) -> Sdt {
    let mut aml = Vec::new();
    soft_off().to_aml_bytes(&mut aml);
    interrupt_model(&mut aml);
    let mut devices = Vec::new();
    for cpu in 0..config.cpus {
        processor(cpu, &mut devices);
    }
    if config.pci {
        pci(&mut devices);
    }
    if config.com1 {
        isa("COM1", "PNP0501", (0x3F8, 8), 4, &mut devices);
    }
    if config.rtc {
        isa("RTC_", "PNP0B00", (0x70, 2), 8, &mut devices);
    }
    aml.extend(Scope::raw(Path::new("_SB_"), devices));

    let mut table = super::table(*b"DSDT", REVISION);
    table.append_slice(&aml);
    table
}

/// \_S5: the values for SLP_TYP in both control blocks, of which there is but one.
fn soft_off() -> Name {
    let kind = power::SOFT_OFF;
    let values = Package::new(vec![&kind, &kind, &ZERO, &ZERO]);
    Name::new(Path::new("_S5_"), &values)
}

/// Which interrupt controllers the guest uses, from \_PIC (5.8.1): 0 for the 8259A pair, 1 for the I/O APIC.
const MODEL: &str = "PICM";

/// \_PIC keeps what it is told.
fn interrupt_model(into: &mut Vec<u8>) {
    name(MODEL, &ZERO).to_aml_bytes(into);
    let (model, told) = (Path::new(MODEL), Arg(0));
    let keep = Store::new(&model, &told);
    Method::new(Path::new("_PIC"), 1, false, vec![&keep]).to_aml_bytes(into);
}

fn name(name: &str, value: &dyn Aml) -> Name {
    Name::new(Path::new(name), value)
}

/// The current resources.
fn resources(descriptors: Vec<&dyn Aml>) -> Name {
    name("_CRS", &ResourceTemplate::new(descriptors))
}

fn processor(number: u32, into: &mut Vec<u8>) {
    let identity = name("_HID", &"ACPI0007");
    let unique = name("_UID", &number);
    let path = Path::new(&format!("C{number:03X}"));
    Device::new(path, vec![&identity, &unique]).to_aml_bytes(into);
}

/// The host bridge with the windows that it passes on, and where interrupt pins lead.
fn pci(into: &mut Vec<u8>) {
    let (first, last) = CONFIGURATION;
    let (memory_first, memory_last) = PCI_MEMORY;
    let resources = resources(vec![
        // There is one bus.
        &AddressSpace::new_bus_number(0u16, 0),
        &IO::new(first, first, 1, (last - first + 1) as u8),
        &AddressSpace::new_io(0, first - 1, None),
        &AddressSpace::new_io(last + 1, u16::MAX, None),
        &AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            memory_first,
            memory_last,
            None,
        ),
    ]);
    const INPUTS: &str = "PRTA";
    const LINES: &str = "PRTP";
    let (model, inputs, lines) = (Path::new(MODEL), Path::new(INPUTS), Path::new(LINES));
    let answer = Return::new(&inputs);
    let apic = If::new(&model, vec![&answer]);
    let otherwise = Return::new(&lines);
    let routes = Method::new(Path::new("_PRT"), 0, false, vec![&apic, &otherwise]);
    Device::new(
        Path::new("PCI0"),
        vec![
            &name("_HID", &EISAName::new("PNP0A03")),
            &name("_UID", &ZERO),
            &name("_BBN", &ZERO),
            &resources,
            &name(INPUTS, &routing(pci_input)),
            &name(LINES, &routing(firmware_line)),
            &routes,
        ],
    )
    .to_aml_bytes(into);
}

/// A routing table (6.2.13): a device with any function, a pin, no link device, where the pin leads.
fn routing(leads: impl Fn(u8, u8) -> u8) -> PackageBuilder {
    const ANY_FUNCTION: u32 = 0xFFFF;
    let mut table = PackageBuilder::new();
    for device in 1..=DEVICE_MAX {
        for pin in 0..PINS {
            if device == CHIPSET && pin != 0 {
                continue;
            }
            let address = u32::from(device) << 16 | ANY_FUNCTION;
            let interrupt = leads(device, pin);
            table.add_element(&Package::new(vec![&address, &pin, &ZERO, &interrupt]));
        }
    }
    table
}

/// An old device with ports and an interrupt request line.
fn isa(path: &str, identity: &str, ports: (u16, u8), irq: u32, into: &mut Vec<u8>) {
    let (first, count) = ports;
    let ports = IO::new(first, first, 1, count);
    let line = Interrupt::new(true, true, false, false, irq);
    let resources = resources(vec![&ports, &line]);
    Device::new(
        Path::new(path),
        vec![
            &name("_HID", &EISAName::new(identity)),
            &name("_UID", &ZERO),
            &resources,
        ],
    )
    .to_aml_bytes(into);
}

use alloc::vec::Vec;

use super::*;

const BASE: u64 = 0xE_0000;

const CONFIG: AcpiConfig = AcpiConfig {
    cpus: 2,
    io_apic_id: 2,
    com1: true,
    rtc: true,
    pci: true,
};

fn tables() -> Tables {
    build(&CONFIG, BASE).expect("a good configuration")
}

impl Tables {
    fn at(&self, address: u64, size: usize) -> &[u8] {
        let start = (address - self.rsdp) as usize;
        &self.bytes[start..start + size]
    }

    fn number(&self, address: u64, size: usize) -> u64 {
        let bytes = self.at(address, size).iter().rev();
        bytes.fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// A table whose signature, length and checksum are right.
    fn table(&self, address: u64, signature: &[u8; 4]) -> &[u8] {
        assert_eq!(self.at(address, 4), signature);
        let table = self.at(address, self.number(address + 4, 4) as usize);
        assert_eq!(sum(table), 0, "{signature:?}");
        table
    }

    fn xsdt(&self) -> u64 {
        self.number(self.rsdp + 24, 8)
    }

    fn fadt(&self) -> u64 {
        self.number(self.xsdt() + 36, 8)
    }

    fn dsdt(&self) -> &[u8] {
        self.table(self.number(self.fadt() + 140, 8), b"DSDT")
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[test]
fn every_table_is_reached_from_the_root_pointer() {
    let tables = tables();
    assert_eq!(tables.rsdp, BASE);
    assert_eq!(tables.at(BASE, 8), b"RSD PTR ");
    assert_eq!(tables.number(BASE + 15, 1), 2, "revision");
    assert_eq!(tables.number(BASE + 20, 4), 36, "length");
    assert_eq!(sum(tables.at(BASE, 20)), 0);
    assert_eq!(sum(tables.at(BASE, 36)), 0);

    let root = tables.table(tables.xsdt(), b"XSDT");
    assert_eq!(root.len(), 36 + 2 * 8);
    let fadt = tables.fadt();
    assert_eq!(tables.table(fadt, b"FACP").len(), 276);
    let madt = tables.number(tables.xsdt() + 44, 8);
    tables.table(madt, b"APIC");

    let facs = tables.number(fadt + 36, 4);
    assert_eq!(facs % ALIGNMENT, 0);
    assert_eq!(tables.at(facs, 4), b"FACS");
    assert_eq!(tables.number(facs + 4, 4), 64);
    assert_eq!(tables.number(fadt + 40, 4), tables.number(fadt + 140, 8));
    assert!(tables.dsdt().len() > 100);
}

#[test]
fn the_fixed_hardware_is_the_model_s() {
    let tables = tables();
    let field = |offset: u64, size: usize| tables.number(tables.fadt() + offset, size);
    assert_eq!((field(8, 1), field(131, 1)), (6, 5), "version");
    assert_eq!(field(46, 2), 9, "SCI");
    assert_eq!(field(48, 4), 0, "SMI command port");
    assert_eq!(field(56, 4), 0x600);
    assert_eq!(field(64, 4), 0x604);
    assert_eq!(field(76, 4), 0x608);
    assert_eq!((field(88, 1), field(89, 1), field(91, 1)), (4, 2, 4));
    assert_eq!(field(108, 1), 0x32, "century");
    // Legacy devices, no keyboard controller to look for, no display.
    assert_eq!(field(109, 2), 0b101);
    // WBINVD, C1, no sleep button, clock wakes not by fixed hardware, reset register, headless; a power button, and a
    // timer of 24 bits.
    assert_eq!(field(112, 4), 0b1_0100_0110_0101);
    // The reset register: an 8-bit port, accessed by bytes.
    assert_eq!(
        (field(116, 4), field(120, 8), field(128, 1)),
        (0x0100_0801, 0xCF9, 6)
    );
    assert_eq!((field(148, 4), field(152, 8)), (0x0200_2001, 0x600));
    assert_eq!((field(172, 4), field(176, 8)), (0x0200_1001, 0x604));
    assert_eq!((field(208, 4), field(212, 8)), (0x0300_2001, 0x608));

    let bare = AcpiConfig {
        rtc: false,
        ..CONFIG
    };
    let tables = build(&bare, BASE).expect("a good configuration");
    let field = |offset: u64, size: usize| tables.number(tables.fadt() + offset, size);
    assert_eq!((field(108, 1), field(109, 2)), (0, 0b10_0101));
}

#[test]
fn the_interrupt_controllers_are_told() {
    let tables = tables();
    let madt = tables.number(tables.xsdt() + 44, 8);
    let table = tables.table(madt, b"APIC");
    assert_eq!(table[36..44], [0, 0, 0xE0, 0xFE, 1, 0, 0, 0]);
    let mut rest = &table[44..];
    let mut structures = Vec::new();
    while let [_, length, ..] = rest {
        let (structure, behind) = rest.split_at(usize::from(*length));
        structures.push(structure);
        rest = behind;
    }
    let expected: [&[u8]; 6] = [
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[0, 8, 1, 1, 1, 0, 0, 0],
        &[1, 12, 2, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0x05, 0],
        &[2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0],
        &[4, 6, 0xFF, 0x05, 0, 1],
    ];
    assert_eq!(structures, expected);
}

#[test]
fn pins_lead_to_four_inputs_in_turn() {
    assert_eq!(pci_input(0, 0), 16);
    assert_eq!(pci_input(2, 0), 18);
    assert_eq!(pci_input(2, 1), 19);
    assert_eq!(pci_input(3, 0), 19);
    assert_eq!(pci_input(3, 3), 18);
    assert_eq!(pci_input(31, 3), 18);
    assert_eq!(pci_input(1, 0), 9, "the chipset's is the SCI");
    for (device, pin) in
        (2..=u8::MAX).flat_map(|device| (0..=u8::MAX).map(move |pin| (device, pin)))
    {
        assert!((16..20).contains(&pci_input(device, pin)));
    }
    let tables = tables();
    // Package of 4: 0x0002FFFF, pin 1, 0, 19; and 0x0001FFFF, pin 0, 0, 9.
    assert!(contains(
        tables.dsdt(),
        &[4, 0x0C, 0xFF, 0xFF, 2, 0, 1, 0, 0x0A, 19]
    ));
    assert!(contains(
        tables.dsdt(),
        &[4, 0x0C, 0xFF, 0xFF, 1, 0, 0, 0, 0x0A, 9]
    ));
}

#[test]
fn without_the_io_apic_pins_lead_to_the_lines_of_the_firmware() {
    let tables = tables();
    // Name (PICM, 0); Method (_PIC, 1) { PICM = Arg0 }
    assert!(contains(
        tables.dsdt(),
        b"\x08PICM\0\x14\x0C_PIC\x01\x70\x68PICM"
    ));
    // Method (_PRT) { If (PICM) { Return (PRTA) } Return (PRTP) }
    assert!(contains(
        tables.dsdt(),
        b"_PRT\0\xA0\x0APICM\xA4PRTA\xA4PRTP"
    ));
    for (device, pin, line) in [(1, 0, 9), (2, 0, 10), (2, 1, 11), (3, 0, 11), (31, 3, 10)] {
        let entry = [4, 0x0C, 0xFF, 0xFF, device, 0, pin, 0, 0x0A, line];
        let entry: Vec<u8> = match pin {
            // 0 and 1 are opcodes of their own.
            0 | 1 => entry.to_vec(),
            _ => [&entry[..6], &[0x0A, pin], &entry[7..]].concat(),
        };
        assert!(contains(tables.dsdt(), &entry), "{device} {pin}");
    }
}

#[test]
fn soft_off_is_the_model_s_sleep_type() {
    // Name (_S5_, Package (4) { 5, 5, 0, 0 })
    let expected = [
        8, b'_', b'S', b'5', b'_', 0x12, 8, 4, 0x0A, 5, 0x0A, 5, 0, 0,
    ];
    assert!(contains(tables().dsdt(), &expected));
}

#[test]
fn only_what_is_there_is_told() {
    let has = |config: &AcpiConfig, name: &[u8; 4]| {
        let tables = build(config, BASE).expect("a good configuration");
        contains(tables.dsdt(), name)
    };
    let nothing = AcpiConfig {
        cpus: 1,
        com1: false,
        rtc: false,
        pci: false,
        ..CONFIG
    };
    for name in [b"C000", b"C001", b"COM1", b"RTC_", b"PCI0"] {
        assert!(has(&CONFIG, name));
        assert_eq!(has(&nothing, name), name == b"C000");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let with = |cpus, base| build(&AcpiConfig { cpus, ..CONFIG }, base).map(drop);
    assert_eq!(with(0, BASE), Err(BuildError::Processors(0)));
    assert_eq!(with(256, BASE), Err(BuildError::Processors(256)));
    assert_eq!(with(255, BASE), Ok(()));
    for base in [0, BASE - 64, BASE + 16, 0x10_0000, u64::MAX] {
        assert_eq!(with(1, base), Err(BuildError::Address(base)));
    }
    assert!(matches!(
        with(1, 0xF_FFC0),
        Err(BuildError::TooLarge { .. })
    ));
}

/// Writes each table to a file of its own for `iasl -d`, where `UNDERSTUDY_ACPI` names a folder.
#[test]
fn tables_can_be_written_for_a_disassembler() {
    let Some(folder) = std::env::var_os("UNDERSTUDY_ACPI") else {
        return;
    };
    let folder = std::path::Path::new(&folder);
    let tables = tables();
    let madt = tables.number(tables.xsdt() + 44, 8);
    for (file, table) in [
        ("dsdt.dat", tables.dsdt()),
        ("facp.dat", tables.table(tables.fadt(), b"FACP")),
        ("apic.dat", tables.table(madt, b"APIC")),
        ("xsdt.dat", tables.table(tables.xsdt(), b"XSDT")),
    ] {
        std::fs::write(folder.join(file), table).expect("the folder can be written");
    }
}

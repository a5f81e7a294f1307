//! Tests of the loader against images made here, good and bad.

use super::header::field;
use super::*;
use crate::memory::fake;
use core::cell::RefCell;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::path::PathBuf;

const MEMORY: usize = 8 << 20;
const CODE: usize = 0x1000;
const SETUP: usize = 5 * 512;
const KERNEL_START: u64 = 0x20_0000;

/// A kernel of 4 KiB that prefers to run at 2 MiB and wants 1 MiB there.
struct Image(Vec<u8>);

impl Image {
    fn new() -> Self {
        let mut image = Self(vec![0; SETUP + CODE]);
        image.0[SETUP..].fill(0x90);
        image
            .set(field::SETUP_SECTS, &[4])
            .set(field::SYSSIZE, &(CODE as u32 / 16).to_le_bytes())
            .set(field::BOOT_FLAG, &[0x55, 0xaa])
            .set(field::JUMP, &[0xeb, 0x6a])
            .set(field::HEADER, b"HdrS")
            .set(field::VERSION, &0x020f_u16.to_le_bytes())
            .set(field::LOADFLAGS, &[1])
            .set(field::SETUP_MOVE_SIZE, &0x8000_u16.to_le_bytes())
            .set(field::SETUP_DATA, &[0xdd; 8])
            .set(field::INITRD_ADDR_MAX, &0x7fff_ffff_u32.to_le_bytes())
            .set(field::KERNEL_ALIGNMENT, &0x10_0000_u32.to_le_bytes())
            .set(field::RELOCATABLE_KERNEL, &[1])
            .set(field::XLOADFLAGS, &[1, 0])
            .set(field::CMDLINE_SIZE, &2047_u32.to_le_bytes())
            .set(field::PREF_ADDRESS, &KERNEL_START.to_le_bytes())
            .set(field::INIT_SIZE, &0x10_0000_u32.to_le_bytes());
        image
    }

    fn set(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn load(&self) -> Result<u64, LoadError> {
        load(&self.0, "", &[], None, &scrubbed()).map(rip)
    }
}

/// What a change of one field leads to.
fn with(at: usize, bytes: &[u8]) -> Result<u64, LoadError> {
    Image::new().set(at, bytes).load()
}

fn scrubbed() -> GuestMemory {
    let memory = fake::memory(MEMORY);
    memory.scrub(0..u64::MAX);
    memory
}

/// Loads and copies all at once.
fn load(
    image: &[u8],
    command_line: &str,
    modules: &[Module<'_, '_>],
    rsdp: Option<u64>,
    memory: &GuestMemory,
) -> Result<StartState, LoadError> {
    let loaded = super::load(image, command_line, modules, rsdp, memory)?;
    Ok(loaded.finish(memory).unwrap())
}

fn rip(entry: StartState) -> u64 {
    match entry {
        StartState::Long64 { rip, .. } => rip,
        _ => panic!("a Linux kernel starts in 64-bit mode"),
    }
}

fn bytes<const N: usize>(memory: &GuestMemory, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    memory.read(at, &mut bytes).unwrap();
    bytes
}

fn parameter<const N: usize>(memory: &GuestMemory, at: usize) -> [u8; N] {
    bytes(memory, BOOT_PARAMS + at as u64)
}

fn module(bytes: &[u8]) -> Module<'_, '_> {
    Module {
        bytes,
        command_line: "",
    }
}

#[test]
fn the_kernel_goes_where_it_prefers_to_be() {
    let memory = scrubbed();
    let entry = load(&Image::new().0, "", &[], None, &memory).unwrap();
    assert_eq!(
        entry,
        StartState::Long64 {
            rip: KERNEL_START + 0x200,
            rsi: BOOT_PARAMS,
            cr3: PML4,
            gdt_base: GDT,
            gdt_limit: 31,
            code: CODE_64,
            data: DATA_64,
        }
    );
    assert_eq!(bytes(&memory, KERNEL_START), [0x90; CODE]);
    assert_eq!(bytes(&memory, KERNEL_START - 1), [0]);
    assert_eq!(bytes(&memory, KERNEL_START + CODE as u64), [0]);
}

#[test]
fn the_boot_parameters_are_what_the_protocol_says() {
    let memory = scrubbed();
    let modules = [module(&[1; 5]), module(&[2; 0x1000])];
    let text = "console=ttyS0 quiet";
    load(&Image::new().0, text, &modules, Some(0xe_0000), &memory).unwrap();
    let word = |at| u32::from_le_bytes(parameter(&memory, at));

    // From the image.
    assert_eq!(parameter(&memory, field::HEADER), *b"HdrS");
    assert_eq!(parameter(&memory, field::VERSION), [0x0f, 0x02]);
    assert_eq!(word(field::INIT_SIZE), 0x10_0000);
    // The header ends at 0x26c; in front of it and behind it is nothing of the image.
    assert_eq!(parameter(&memory, 0x26c), [0; 0x2d0 - 0x26c]);
    assert_eq!(parameter(&memory, 0x1ef), [0; 2]);
    // From the loader.
    assert_eq!(parameter(&memory, field::TYPE_OF_LOADER), [0xff]);
    assert_eq!(parameter(&memory, field::LOADFLAGS), [1]);
    assert_eq!(parameter(&memory, field::VID_MODE), [0xff; 2]);
    assert_eq!(parameter(&memory, field::SETUP_MOVE_SIZE), [0; 2]);
    assert_eq!(parameter(&memory, field::SETUP_DATA), [0; 8]);
    assert_eq!(u64::from(word(field::CODE32_START)), KERNEL_START);
    assert_eq!(
        parameter(&memory, ACPI_RSDP_ADDR),
        0xe_0000_u64.to_le_bytes()
    );

    let line = u64::from(word(field::CMD_LINE_PTR));
    assert_eq!(bytes(&memory, line), *b"console=ttyS0 quiet\0");

    let ramdisk = u64::from(word(field::RAMDISK_IMAGE));
    assert_eq!(ramdisk, MEMORY as u64 - 0x2000);
    assert_eq!(word(field::RAMDISK_SIZE), 8 + 0x1000);
    assert_eq!(bytes(&memory, ramdisk), [1, 1, 1, 1, 1, 0, 0, 0, 2]);
    assert_eq!(bytes(&memory, ramdisk + 8 + 0xfff), [2, 0]);

    assert_eq!(parameter(&memory, E820_ENTRIES), [3]);
    let entry = |index: usize| -> (u64, u64, u32) {
        let at = E820_TABLE + 20 * index;
        let start = u64::from_le_bytes(parameter(&memory, at));
        let size = u64::from_le_bytes(parameter(&memory, at + 8));
        (start, start + size, word(at + 16))
    };
    assert_eq!(entry(0), (0, 0x9_fc00, AVAILABLE));
    assert_eq!(entry(1), (0x9_fc00, 0x10_0000, RESERVED));
    assert_eq!(entry(2), (0x10_0000, MEMORY as u64, AVAILABLE));
}

#[test]
fn tables_and_descriptors_are_flat() {
    let memory = scrubbed();
    load(&Image::new().0, "", &[], None, &memory).unwrap();
    let translate = |address: u64| {
        let mut table = PML4;
        for shift in [39, 30, 21] {
            let entry = memory
                .read_u64(table + (address >> shift & 511) * 8)
                .unwrap();
            assert_eq!(entry & 3, 3, "{address:#x} is mapped writable");
            table = entry & !0xfff;
            if entry & 0x80 != 0 {
                return table | address & 0x1f_ffff;
            }
        }
        panic!("{address:#x} is mapped by no large page");
    };
    for address in [
        0,
        0x20_0123,
        0x4000_0000,
        0xbfff_ffff,
        0xfee0_0030,
        0xffff_ffff,
    ] {
        assert_eq!(translate(address), address);
    }
    assert_eq!(memory.read_u64(PML4 + 8), Ok(0));
    assert_eq!(memory.read_u64(POINTERS + 8 * DIRECTORY_COUNT), Ok(0));
    assert_eq!(
        memory.read_u64(GDT + u64::from(CODE_64)),
        Ok(0x00af_9b00_0000_ffff)
    );
    assert_eq!(
        memory.read_u64(GDT + u64::from(DATA_64)),
        Ok(0x00cf_9300_0000_ffff)
    );
}

#[test]
fn a_movable_kernel_goes_low_where_it_cannot_go_where_it_prefers() {
    let low = Ok(0x10_0200);
    assert_eq!(with(field::PREF_ADDRESS, &(1_u64 << 30).to_le_bytes()), low);
    assert_eq!(with(field::PREF_ADDRESS, &u64::MAX.to_le_bytes()), low);
    assert_eq!(with(field::PREF_ADDRESS, &0x8_0000_u64.to_le_bytes()), low);
    assert_eq!(with(field::PREF_ADDRESS, &0x12_3456_u64.to_le_bytes()), low);
    let aligned = with(field::KERNEL_ALIGNMENT, &0x40_0000_u32.to_le_bytes());
    assert_eq!(aligned, Ok(0x40_0200));
    let all = (MEMORY as u32 - 0x10_0000).to_le_bytes();
    assert_eq!(with(field::INIT_SIZE, &all), low);
    let more = (MEMORY as u32 - 0xf_0000).to_le_bytes();
    assert_eq!(
        with(field::INIT_SIZE, &more),
        Err(LoadError::DoesNotFit {
            start: 0x10_0000,
            end: MEMORY as u64 + 0x1_0000
        })
    );
    assert!(with(field::INIT_SIZE, &[0xff; 4]).is_err());
}

#[test]
fn a_kernel_that_cannot_be_moved_is_loaded_at_1_mib_and_has_room_where_it_runs() {
    let fixed = |preferred: u64| {
        Image::new()
            .set(field::RELOCATABLE_KERNEL, &[0])
            .set(field::KERNEL_ALIGNMENT, &[3, 0, 0, 0])
            .set(field::PREF_ADDRESS, &preferred.to_le_bytes())
            .load()
    };
    assert_eq!(fixed(0x10_0000), Ok(0x10_0200));
    assert_eq!(fixed(0x70_0000), Ok(0x10_0200));
    assert!(matches!(
        fixed(0x70_0001),
        Err(LoadError::DoesNotFit { .. })
    ));
    assert!(matches!(fixed(u64::MAX), Err(LoadError::DoesNotFit { .. })));
}

#[test]
fn what_is_no_kernel_is_refused_by_name() {
    let refused = |image: &[u8]| load(image, "", &[], None, &scrubbed()).unwrap_err();
    assert_eq!(refused(b""), LoadError::NotABzImage);
    assert_eq!(refused(&[0; 0x4000]), LoadError::NotABzImage);
    assert_eq!(refused(&Image::new().0[..0x204]), LoadError::NotABzImage);
    assert_eq!(refused(&Image::new().0[..0x210]), LoadError::Truncated);
    assert_eq!(refused(&Image::new().0[..SETUP - 1]), LoadError::Truncated);

    let error = |at, bytes: &[u8]| with(at, bytes).unwrap_err();
    assert_eq!(error(field::BOOT_FLAG, &[0, 0]), LoadError::NotABzImage);
    assert_eq!(error(field::HEADER, b"hdrs"), LoadError::NotABzImage);
    let old = error(field::VERSION, &0x020b_u16.to_le_bytes());
    assert_eq!(old, LoadError::OldProtocol(0x020b));
    assert!(old.to_string().contains("2.11"));
    assert_eq!(
        error(field::JUMP + 1, &[0x65]),
        LoadError::BadHeaderLength(0x267)
    );
    assert_eq!(
        error(field::JUMP + 1, &[0x8f]),
        LoadError::BadHeaderLength(0x291)
    );
    assert!(with(field::JUMP + 1, &[0x66]).is_ok());
    assert!(with(field::JUMP + 1, &[0x8e]).is_ok());
    assert_eq!(error(field::LOADFLAGS, &[0xfe]), LoadError::NotLoadedHigh);
    assert_eq!(error(field::XLOADFLAGS, &[0xfe]), LoadError::No64BitEntry);
    for alignment in [0, 3, 0x8000_0000] {
        let refused = error(field::KERNEL_ALIGNMENT, &u32::to_le_bytes(alignment));
        assert_eq!(refused, LoadError::BadAlignment(alignment));
    }
}

#[test]
fn the_header_says_where_the_kernel_starts_and_ends() {
    assert!(with(field::SETUP_SECTS, &[0]).is_ok(), "0 means 4");
    assert_eq!(with(field::SETUP_SECTS, &[5]), Err(LoadError::Truncated));
    assert_eq!(with(field::SETUP_SECTS, &[255]), Err(LoadError::Truncated));
    let size = |paragraphs: u32| with(field::SYSSIZE, &paragraphs.to_le_bytes());
    assert_eq!(size(0), Err(LoadError::NoCode));
    assert_eq!(size(32), Err(LoadError::NoCode));
    assert!(size(33).is_ok());
    assert_eq!(size(257), Err(LoadError::Truncated));
    assert_eq!(size(u32::MAX), Err(LoadError::Truncated));
    let mut ragged = Image::new();
    ragged.0.truncate(SETUP + CODE - 15);
    assert!(ragged.load().is_ok(), "the last paragraph may be short");
    ragged.0.pop();
    assert_eq!(ragged.load(), Err(LoadError::Truncated));
}

#[test]
fn command_lines_and_modules_must_fit() {
    let image = Image::new();
    let try_load = |text: &str, modules: &[Module<'_, '_>]| {
        load(&image.0, text, modules, None, &scrubbed()).map(rip)
    };
    assert!(try_load(&"x".repeat(2047), &[]).is_ok());
    assert_eq!(
        try_load(&"x".repeat(2048), &[]),
        Err(LoadError::CommandLineTooLong { limit: 2047 })
    );
    let mut endless = Image::new();
    endless.set(field::CMDLINE_SIZE, &[0xff; 4]);
    let limit = LOW_END - COMMAND_LINE - 1;
    let long = "x".repeat(limit as usize + 1);
    assert_eq!(
        load(&endless.0, &long, &[], None, &scrubbed()),
        Err(LoadError::CommandLineTooLong { limit })
    );

    let rest = vec![0; MEMORY - 0x30_0000];
    assert!(try_load("", &[module(&rest)]).is_ok());
    let more = vec![0; MEMORY - 0x30_0000 + 1];
    assert_eq!(
        try_load("", &[module(&more)]),
        Err(LoadError::ModulesDoNotFit)
    );
    let named = Module {
        bytes: &[1],
        command_line: "name",
    };
    assert_eq!(try_load("", &[named]), Err(LoadError::ModuleCommandLine));
    let mut low = Image::new();
    low.set(field::INITRD_ADDR_MAX, &0x3f_ffff_u32.to_le_bytes());
    let memory = scrubbed();
    load(&low.0, "", &[module(&[1])], None, &memory).unwrap();
    let start = u32::from_le_bytes(parameter(&memory, field::RAMDISK_IMAGE));
    assert_eq!(start, 0x3f_f000);
    low.set(field::INITRD_ADDR_MAX, &[0; 4]);
    assert_eq!(
        load(&low.0, "", &[module(&[1])], None, &memory),
        Err(LoadError::ModulesDoNotFit)
    );
    let small = fake::memory(1 << 20);
    assert_eq!(
        load(&image.0, "", &[], None, &small),
        Err(LoadError::TooLittleMemory)
    );
}

#[test]
fn damaged_images_are_loaded_or_refused_and_nothing_else() {
    let memory = RefCell::new(fake::memory(0x40_0000));
    let damage = (
        prop::collection::vec((0x1f0..0x270_usize, any::<u8>()), 0..6),
        prop::option::of(0..=SETUP + CODE),
        0..0x1000_usize,
    );
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 4000,
        ..ProptestConfig::default()
    });
    runner
        .run(&damage, |(changes, length, module_size)| {
            let mut image = Image::new();
            for (at, value) in changes {
                image.0[at] = value;
            }
            image.0.truncate(length.unwrap_or(SETUP + CODE));
            let ramdisk = vec![7; module_size];
            let memory = memory.borrow();
            let loaded = load(&image.0, "x", &[module(&ramdisk)], None, &memory);
            if let Ok(entry) = loaded {
                let start = u64::from(u32::from_le_bytes(parameter(&memory, field::RAMDISK_IMAGE)));
                let size = u64::from(u32::from_le_bytes(parameter(&memory, field::RAMDISK_SIZE)));
                prop_assert!((MIB..memory.size()).contains(&rip(entry)));
                prop_assert_eq!(size, module_size as u64);
                prop_assert!(size == 0 || start > rip(entry) && start + size <= memory.size());
            }
            Ok(())
        })
        .unwrap();
}

/// Kernels of a distribution, where `UNDERSTUDY_KERNELS` names their files.
#[test]
fn kernels_that_others_built_are_loaded() {
    let Some(files) = std::env::var_os("UNDERSTUDY_KERNELS") else {
        return;
    };
    let memory = fake::memory(128 << 20);
    for file in std::env::split_paths(&files) {
        let image = std::fs::read::<PathBuf>(file.clone()).unwrap();
        memory.scrub(0..u64::MAX);
        let entry = load(&image, "console=ttyS0", &[], None, &memory);
        let rip = rip(entry.unwrap_or_else(|error| panic!("{}: {error}", file.display())));
        assert_ne!(memory.read_u64(rip), Ok(0), "{}", file.display());
    }
}

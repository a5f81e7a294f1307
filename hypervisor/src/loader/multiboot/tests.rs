//! Tests of the loader against images made here, good and bad.

use super::*;
use crate::memory::fake;
use core::cell::RefCell;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const MEMORY: usize = 8 << 20;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn header(flags: u32) -> Vec<u8> {
    words(&[
        HEADER_MAGIC,
        flags,
        0u32.wrapping_sub(HEADER_MAGIC).wrapping_sub(flags),
    ])
}

/// A program header: type, file offset, virtual and physical address, sizes.
struct Program {
    kind: u32,
    offset: u32,
    virt: u32,
    phys: u32,
    in_file: u32,
    in_memory: u32,
}

/// An ELF32 executable with these program headers, padded to 0x2000, multiboot header at 0x1000.
fn elf(entry: u32, programs: &[Program]) -> Vec<u8> {
    let mut image = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    image.extend_from_slice(&[2, 0, 3, 0]);
    image.extend(words(&[1, entry, 52, 0, 0]));
    for half in [52u16, 32, programs.len() as u16, 40, 0, 0] {
        image.extend_from_slice(&half.to_le_bytes());
    }
    for p in programs {
        image.extend(words(&[
            p.kind,
            p.offset,
            p.virt,
            p.phys,
            p.in_file,
            p.in_memory,
            7,
            4096,
        ]));
    }
    image.resize(0x1000, 0);
    image.extend(header(PAGE_ALIGN | MEMORY_INFO));
    image.extend(b"kernel code");
    image.resize(0x2000, 0xcc);
    image
}

fn load_segment(phys: u32, in_file: u32, in_memory: u32) -> Program {
    Program {
        kind: PT_LOAD,
        offset: 0x1000,
        virt: 0xc000_0000 + phys,
        phys,
        in_file,
        in_memory,
    }
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
    memory: &GuestMemory,
) -> Result<StartState, LoadError> {
    let loaded = super::load(image, command_line, modules, memory)?;
    Ok(loaded.finish(memory).unwrap())
}

fn try_load(image: &[u8]) -> Result<StartState, LoadError> {
    load(image, "", &[], &scrubbed())
}

fn eip(entry: StartState) -> u32 {
    match entry {
        StartState::Protected32 { eip, .. } => eip,
        _ => panic!("a multiboot kernel starts in protected mode"),
    }
}

fn text(memory: &GuestMemory, at: u32) -> String {
    let mut bytes = Vec::new();
    let mut at = u64::from(at);
    loop {
        let mut byte = [0];
        memory.read(at, &mut byte).unwrap();
        if byte[0] == 0 {
            return String::from_utf8(bytes).unwrap();
        }
        bytes.push(byte[0]);
        at += 1;
    }
}

#[test]
fn an_elf_goes_to_its_physical_addresses_and_its_entry_is_translated() {
    let image = elf(0xc010_0010, &[load_segment(0x10_0000, 0x100, 0x3000)]);
    let memory = scrubbed();
    let entry = load(&image, "console=com0", &[], &memory).unwrap();
    assert_eq!(
        entry,
        StartState::Protected32 {
            eip: 0x10_0010,
            eax: BOOT_MAGIC,
            ebx: INFO as u32
        }
    );
    assert_eq!(memory.read_u32(0x10_0000), Ok(HEADER_MAGIC));
    assert_eq!(memory.read_u32(0x10_0100), Ok(0));
}

#[test]
fn the_boot_information_is_what_the_specification_says() {
    let image = elf(0xc010_0000, &[load_segment(0x10_0000, 0x100, 0x1800)]);
    let memory = scrubbed();
    let modules = [
        Module {
            bytes: &[1, 2, 3],
            command_line: "first",
        },
        Module {
            bytes: &[4; 5000],
            command_line: "second one",
        },
    ];
    load(&image, "a b=c", &modules, &memory).unwrap();
    let field = |offset: u64| memory.read_u32(INFO + offset).unwrap();
    assert_eq!(field(0), 0b10_0100_1101);
    assert_eq!(field(4), 639);
    assert_eq!(field(8), (MEMORY as u32 - (1 << 20)) / 1024);
    assert_eq!(text(&memory, field(16)), "a b=c");
    assert_eq!(field(20), 2);
    let list = u64::from(field(24));
    let module = |index: u64, word: u64| memory.read_u32(list + 16 * index + 4 * word).unwrap();
    assert_eq!((module(0, 0), module(0, 1)), (0x10_2000, 0x10_2003));
    assert_eq!((module(1, 0), module(1, 1)), (0x10_3000, 0x10_3000 + 5000));
    assert_eq!(text(&memory, module(0, 2)), "first");
    assert_eq!(text(&memory, module(1, 2)), "second one");
    assert_eq!(memory.read_u32(0x10_3000), Ok(0x0404_0404));
    assert_eq!(text(&memory, field(64)), "Understudy");

    let (length, map) = (u64::from(field(44)), u64::from(field(48)));
    let mut available = Vec::new();
    for at in (map..map + length).step_by(24) {
        assert_eq!(memory.read_u32(at), Ok(20));
        let (start, size) = (
            memory.read_u64(at + 4).unwrap(),
            memory.read_u64(at + 12).unwrap(),
        );
        if memory.read_u32(at + 20) == Ok(1) {
            available.push((start, start + size));
        }
    }
    assert_eq!(available, [(0, 0x9_fc00), (1 << 20, MEMORY as u64)]);
}

#[test]
fn address_fields_place_a_flat_image() {
    let mut image = vec![0; 0x20];
    image.extend(header(ADDRESS_FIELDS));
    // Header at 0x200020, so the file's start is at 0x200000; BSS up to 0x201000.
    image.extend(words(&[0x20_0020, 0x20_0000, 0, 0x20_1000, 0x20_0040]));
    image.extend(b"code");
    let memory = scrubbed();
    let entry = load(&image, "", &[], &memory).unwrap();
    assert_eq!(eip(entry), 0x20_0040);
    assert_eq!(memory.read_u32(0x20_0020), Ok(HEADER_MAGIC));
    assert_eq!(memory.read_u32(0x20_0040), Ok(u32::from_le_bytes(*b"code")));
}

#[test]
fn bad_address_fields_are_refused() {
    let flat = |fields: [u32; 5]| {
        let mut image = header(ADDRESS_FIELDS);
        image.extend(words(&fields));
        image.resize(0x100, 0);
        try_load(&image)
    };
    let at = 0x20_0000;
    assert!(flat([at, at, 0, 0, at]).is_ok());
    assert_eq!(
        flat([at, at + 4, 0, 0, at]),
        Err(LoadError::BadAddressFields)
    );
    assert_eq!(
        flat([at + 4, at, 0, 0, at]),
        Err(LoadError::BadAddressFields)
    );
    assert_eq!(
        flat([at, at, at - 4, 0, at]),
        Err(LoadError::BadAddressFields)
    );
    assert_eq!(
        flat([at, at, at + 0x1000, 0, at]),
        Err(LoadError::SegmentOutsideImage)
    );
    assert_eq!(
        flat([at, at, 0, at + 4, at]),
        Err(LoadError::BadAddressFields)
    );
    assert_eq!(
        flat([at, at, 0, 0, at - 1]),
        Err(LoadError::EntryOutsideSegments(at - 1))
    );
    let far = 0x8000_0000;
    assert!(matches!(
        flat([far, far, 0, 0, far]),
        Err(LoadError::DoesNotFit { .. })
    ));
}

#[test]
fn what_is_no_kernel_is_refused_by_name() {
    assert_eq!(try_load(b""), Err(LoadError::NoHeader));
    assert_eq!(try_load(&[0; 0x4000]), Err(LoadError::NoHeader));
    let mut late = vec![0; HEADER_SEARCH];
    late.extend(header(0));
    assert_eq!(try_load(&late), Err(LoadError::NoHeader));
    assert_eq!(
        try_load(&header(1 << 3)),
        Err(LoadError::UnknownFlags(1 << 3))
    );
    assert_eq!(try_load(&header(0)), Err(LoadError::BadElf));

    let good = [load_segment(0x10_0000, 0x100, 0x100)];
    let mut other_machine = elf(0xc010_0000, &good);
    other_machine[18] = 62;
    assert_eq!(try_load(&other_machine), Err(LoadError::NotI386Executable));
    let mut relocatable = elf(0xc010_0000, &good);
    relocatable[16] = 1;
    assert_eq!(try_load(&relocatable), Err(LoadError::NotI386Executable));
    assert_eq!(try_load(&elf(0, &[])), Err(LoadError::NoSegments));
    assert_eq!(
        try_load(&elf(0x1234, &good)),
        Err(LoadError::EntryOutsideSegments(0x1234))
    );
    let truncated = elf(
        0xc010_0000,
        &[load_segment(0x10_0000, 0x10_0000, 0x10_0000)],
    );
    assert_eq!(try_load(&truncated), Err(LoadError::SegmentOutsideImage));
    let shrinking = elf(0xc010_0000, &[load_segment(0x10_0000, 0x100, 0x10)]);
    assert_eq!(try_load(&shrinking), Err(LoadError::BadElf));
}

#[test]
fn segments_must_fit_beside_the_boot_information() {
    let at = |phys: u32, size: u32| {
        try_load(&elf(0xc000_0000 + phys, &[load_segment(phys, 0x10, size)]))
    };
    assert!(at(0x1000, 0x1000).is_ok());
    assert!(matches!(
        at(0x8_f000, 0x2000),
        Err(LoadError::OverlapsBootInformation { .. })
    ));
    assert!(matches!(
        at(0xf_f000, 0x2000),
        Err(LoadError::DoesNotFit { .. })
    ));
    assert!(matches!(
        at(0x70_0000, 0x20_0000),
        Err(LoadError::DoesNotFit { .. })
    ));
    assert!(matches!(
        at(0x3fff_f000, u32::MAX),
        Err(LoadError::DoesNotFit { .. })
    ));
}

#[test]
fn modules_and_texts_that_are_too_large_are_refused() {
    let image = elf(0xc010_0000, &[load_segment(0x10_0000, 0x100, 0x100)]);
    let large = vec![0; MEMORY];
    let modules = [Module {
        bytes: &large,
        command_line: "",
    }];
    assert_eq!(
        load(&image, "", &modules, &scrubbed()),
        Err(LoadError::ModulesDoNotFit)
    );
    let long = "x".repeat(0x1_0000);
    assert_eq!(
        load(&image, &long, &[], &scrubbed()),
        Err(LoadError::BootInformationTooLarge)
    );
    let small = fake::memory(1 << 20);
    assert_eq!(
        load(&image, "", &[], &small),
        Err(LoadError::TooLittleMemory)
    );
}

#[test]
fn damaged_images_are_loaded_or_refused_and_nothing_else() {
    let good = elf(
        0xc010_0010,
        &[
            load_segment(0x10_0000, 0x100, 0x3000),
            load_segment(0x20_0000, 0x10, 0x1000),
        ],
    );
    let memory = RefCell::new(fake::memory(0x40_0000));
    let damage = (
        prop::collection::vec((0..0x1100_usize, any::<u8>()), 0..12),
        0..=0x2000_usize,
    );
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 2000,
        ..ProptestConfig::default()
    });
    runner
        .run(&damage, |(changes, length)| {
            let mut image = good.clone();
            for (at, value) in changes {
                image[at] = value;
            }
            image.truncate(length);
            let memory = memory.borrow();
            if let Ok(entry) = load(&image, "x", &[], &memory) {
                prop_assert!(u64::from(eip(entry)) < memory.size());
            }
            Ok(())
        })
        .unwrap();
}

use super::*;
use crate::memory::fake::Heap;
use proptest::prelude::*;

fn map_all(
    tables: &mut NestedTables,
    guest: u64,
    host: u64,
    length: u64,
) -> Result<(), TablesError> {
    let mut heap = Heap { left: 4096 };
    // SAFETY: no processor uses these tables.
    unsafe { tables.map(guest, host, length, Permissions::ALL, &mut heap) }
}

fn format(encoding: Encoding, largest: u64) -> Format {
    Format {
        encoding,
        pages_2m: largest >= PAGE_2M,
        pages_1g: largest >= PAGE_1G,
        accessed_dirty: true,
        write_log: true,
        large_executable: true,
    }
}

fn empty(largest: u64) -> NestedTables {
    let format = format(Encoding::Extended, largest);
    NestedTables::new(format, &mut Heap { left: 1 }).unwrap()
}

#[test]
fn aligned_ranges_use_large_pages() {
    let mut tables = empty(PAGE_1G);
    map_all(&mut tables, 0, PAGE_1G, 2 * PAGE_1G).unwrap();
    assert_eq!(tables.table_bytes(), 2 * PAGE_4K);
    let mut tables = empty(PAGE_2M);
    map_all(&mut tables, 0, PAGE_1G, PAGE_1G).unwrap();
    assert_eq!(tables.table_bytes(), 3 * PAGE_4K);
    assert_eq!(
        tables.translate(PAGE_1G - 1),
        Some((2 * PAGE_1G - 1, Permissions::ALL))
    );
    assert_eq!(tables.translate(PAGE_1G), None);
}

#[test]
fn bad_ranges_are_refused() {
    let mut tables = empty(PAGE_1G);
    assert_eq!(
        map_all(&mut tables, 1, 0, PAGE_4K),
        Err(TablesError::Unaligned)
    );
    assert_eq!(map_all(&mut tables, 0, 0, 0), Err(TablesError::Unaligned));
    assert_eq!(
        map_all(&mut tables, 1 << 48, 0, PAGE_4K),
        Err(TablesError::OutOfRange)
    );
    assert_eq!(
        map_all(&mut tables, 0, !0xfff, PAGE_2M),
        Err(TablesError::OutOfRange)
    );
    map_all(&mut tables, PAGE_2M, 0, PAGE_4K).unwrap();
    assert_eq!(
        map_all(&mut tables, 0, 0, PAGE_1G),
        Err(TablesError::Overlap)
    );
    assert_eq!(tables.translate(0), None);
}

#[test]
fn code_in_large_pages_is_split_at_its_first_execution() {
    code_is_split(Encoding::Extended);
    code_is_split(Encoding::Nested);
}

fn code_is_split(encoding: Encoding) {
    let format = Format {
        large_executable: false,
        ..format(encoding, PAGE_1G)
    };
    let mut tables = NestedTables::new(format, &mut Heap { left: 1 }).unwrap();
    map_all(&mut tables, 0, 4 * PAGE_1G, 2 * PAGE_1G).unwrap();
    let before = tables.table_bytes();
    let data = Permissions::READ | Permissions::WRITE;
    let at = PAGE_1G + 3 * PAGE_2M + 0x5123;
    assert_eq!(tables.translate(at), Some((at + 4 * PAGE_1G, data)));
    let mut heap = Heap { left: 8 };
    assert_eq!(tables.make_executable(at, &mut heap), Ok(true));
    assert_eq!(tables.table_bytes(), before + 2 * PAGE_4K);
    assert_eq!(
        tables.translate(at),
        Some((at + 4 * PAGE_1G, Permissions::ALL))
    );
    // The neighbourhood in the same 2 MiB follows, the rest does not, and every address stays.
    for (address, permissions) in [
        (at - 0x5123, Permissions::ALL),
        (PAGE_1G + 4 * PAGE_2M - 1, Permissions::ALL),
        (PAGE_1G + 4 * PAGE_2M, data),
        (PAGE_1G + 3 * PAGE_2M - 1, data),
        (0, data),
        (2 * PAGE_1G - 1, data),
    ] {
        assert_eq!(
            tables.translate(address),
            Some((address + 4 * PAGE_1G, permissions))
        );
    }
    assert_eq!(tables.make_executable(at, &mut heap), Ok(true));
    assert_eq!(tables.make_executable(2 * PAGE_1G, &mut heap), Ok(false));
    assert_eq!(tables.make_executable(1 << 48, &mut heap), Ok(false));
    heap.left = 0;
    assert_eq!(
        tables.make_executable(0, &mut heap),
        Err(TablesError::OutOfMemory)
    );
}

#[test]
fn exhausted_memory_is_reported() {
    let mut tables = empty(PAGE_4K);
    let mut heap = Heap { left: 2 };
    // SAFETY: no processor uses these tables.
    let result = unsafe { tables.map(0, 0, PAGE_4K, Permissions::ALL, &mut heap) };
    assert_eq!(result, Err(TablesError::OutOfMemory));
}

#[test]
fn leaf_bits_are_the_manuals() {
    let mut tables = empty(PAGE_1G);
    let mut heap = Heap { left: 16 };
    // SAFETY: no processor uses these tables.
    unsafe { tables.map(0, 0, PAGE_2M, Permissions::READ, &mut heap) }.unwrap();
    let (entry, size) = tables.walk(0).unwrap();
    assert_eq!((entry, size), (0b1011_0001, PAGE_2M));
    assert_eq!(tables.pointer() & 0xfff, 0b101_1110);
    let format = format(Encoding::Nested, PAGE_1G);
    let mut npt = NestedTables::new(format, &mut heap).unwrap();
    assert_eq!(npt.pointer() & 0xfff, 0);
    let code = Permissions::READ | Permissions::EXECUTE;
    for (at, permissions, entry) in [
        (0, Permissions::READ, 0x8000_0000_0000_0085),
        (PAGE_2M, Permissions::ALL, 0x20_0087),
        (2 * PAGE_2M, code, 0x40_0085),
    ] {
        // SAFETY: no processor uses these tables.
        unsafe { npt.map(at, at, PAGE_2M, permissions, &mut heap) }.unwrap();
        assert_eq!(npt.walk(at), Some((entry, PAGE_2M)));
        assert_eq!(npt.translate(at), Some((at, permissions)));
    }
}

proptest! {
    #[test]
    fn translation_is_linear_inside_and_absent_outside(
        guest_page in 0u64..(1 << 21), offset_pages in 0u64..1024, pages in 1u64..2000, largest in 0u32..3,
        amd: bool
    ) {
        let encoding = if amd { Encoding::Nested } else { Encoding::Extended };
        let format = format(encoding, page_size(largest));
        let mut tables = NestedTables::new(format, &mut Heap { left: 1 }).unwrap();
        let (guest, length) = (guest_page * PAGE_4K, pages * PAGE_4K);
        let host = guest + offset_pages * PAGE_2M;
        map_all(&mut tables, guest, host, length).unwrap();
        for at in [guest, guest + length / 2, guest + length - 1] {
            prop_assert_eq!(tables.translate(at), Some((at - guest + host, Permissions::ALL)));
        }
        prop_assert_eq!(tables.translate(guest + length), None);
        if let Some(before) = guest.checked_sub(1) {
            prop_assert_eq!(tables.translate(before), None);
        }
        prop_assert_eq!(map_all(&mut tables, guest, host, PAGE_4K), Err(TablesError::Overlap));
    }
}

//! A global descriptor table with room for a probe's own segments.

use core::{arch::asm, cell::UnsafeCell};

/// Selector of the flat code segment.
pub(crate) const CODE: u16 = 0x08;
/// Selector of the flat data segment.
pub(crate) const DATA: u16 = 0x10;
/// The first selector that is free.
pub(crate) const FREE: u16 = 0x18;
/// The selector behind the last.
pub(crate) const END: u16 = 8 * ENTRIES as u16;

const ENTRIES: usize = 32;
const FLAT_CODE: u64 = 0x00cf_9a00_0000_ffff;
const FLAT_DATA: u64 = 0x00cf_9200_0000_ffff;

#[repr(align(8))]
struct Table(UnsafeCell<[u64; ENTRIES]>);

// SAFETY: there is one processor, and interrupt handlers leave the table alone.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([0; ENTRIES]));

fn entry(selector: u16) -> *mut u64 {
    let index = usize::from(selector / 8) % ENTRIES;
    // SAFETY: the index is within the table.
    unsafe { TABLE.0.get().cast::<u64>().add(index) }
}

/// Where an entry lies.
pub(crate) fn place(selector: u16) -> u32 {
    entry(selector) as u32
}

/// Loads the table; the flat segments are where they were.
pub(crate) fn load() {
    set(CODE, FLAT_CODE);
    set(DATA, FLAT_DATA);
    let base = (TABLE.0.get() as u32).to_le_bytes();
    let [low, high] = (END - 1).to_le_bytes();
    let pointer = [low, high, base[0], base[1], base[2], base[3]];
    // SAFETY: the table is static, and describes the segments in use as the one before did.
    unsafe { asm!("lgdt [{}]", in(reg) pointer.as_ptr(), options(nostack, preserves_flags)) }
}

/// Sets an entry. It means nothing until a selector to it is loaded.
pub(crate) fn set(selector: u16, raw: u64) {
    // SAFETY: within the table (see `entry`), which nobody else reads meanwhile.
    unsafe { entry(selector).write_volatile(raw) }
}

/// Reads an entry; the processor may have marked it.
pub(crate) fn get(selector: u16) -> u64 {
    // SAFETY: as in `set`.
    unsafe { entry(selector).read_volatile() }
}

/// The byte of an entry with its type and privilege level.
pub(crate) fn kind(selector: u16) -> u8 {
    (get(selector) >> 40) as u8
}

/// A descriptor: base, limit as it is stored, and access rights with the flags in bits 12 to 15.
pub(crate) const fn descriptor(base: u32, limit: u32, access: u16) -> u64 {
    let (base, limit, access) = (base as u64, limit as u64, access as u64);
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (access & 0xf0ff) << 40
        | (limit & 0xf_0000) << 32
        | (base >> 24) << 56
}

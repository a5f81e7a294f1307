//! Page tables for probes, in memory that nothing else uses.

use core::arch::asm;

use crate::code::{Fault, Registers, run};

/// Where tables and test pages lie: above the image, in the RAM of every probe.
const POOL: u32 = 0x0040_0000;
const PAGE: u32 = 0x1000;
const LARGE_PAGE: u32 = 0x0040_0000;

pub(crate) const PRESENT: u32 = 1;
pub(crate) const WRITABLE: u32 = 1 << 1;
const LARGE: u32 = 1 << 7;

const PSE: u32 = 1 << 4;
const PG_WP: u32 = 1 << 31 | 1 << 16;

/// The address of a page of the pool.
pub(crate) const fn page(number: u32) -> u32 {
    POOL + number * PAGE
}

/// Reads a word of unused memory.
pub(crate) fn peek(address: u32) -> u32 {
    // SAFETY: the callers name memory that is no object of this program.
    unsafe { (address as *const u32).read_volatile() }
}

/// Writes a word of unused memory.
pub(crate) fn poke(address: u32, value: u32) {
    // SAFETY: as in `peek`.
    unsafe { (address as *mut u32).write_volatile(value) }
}

/// Fills a page directory that maps all addresses to themselves, by large pages.
pub(crate) fn fill_directory(directory: u32) {
    for index in 0..1024 {
        let entry = (index * LARGE_PAGE) | LARGE | WRITABLE | PRESENT;
        poke(directory + 4 * index, entry);
    }
}

/// Puts a page table into a directory, in place of the large page at `base`. It maps the same.
pub(crate) fn split(directory: u32, table: u32, base: u32) {
    for index in 0..1024 {
        poke(
            table + 4 * index,
            (base + index * PAGE) | WRITABLE | PRESENT,
        );
    }
    poke(
        directory + base / LARGE_PAGE * 4,
        table | WRITABLE | PRESENT,
    );
}

/// Where the entry of an address lies in a page table.
pub(crate) const fn entry(table: u32, address: u32) -> u32 {
    table + (address / PAGE % 1024) * 4
}

/// CR3.
pub(crate) fn root() -> u32 {
    let value;
    // SAFETY: a read without side effects in ring 0.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Loads CR3, which also drops what the processor remembers.
pub(crate) fn set_root(directory: u32) {
    // SAFETY: the callers' tables map this program to itself.
    unsafe { asm!("mov cr3, {}", in(reg) directory, options(nostack, preserves_flags)) }
}

/// Switches paging on, with large pages and write protection.
pub(crate) fn on(directory: u32) {
    set_root(directory);
    // SAFETY: as in `set_root`.
    unsafe {
        asm!(
            "mov {value}, cr4",
            "or {value}, {large}",
            "mov cr4, {value}",
            "mov {value}, cr0",
            "or {value}, {paging}",
            "mov cr0, {value}",
            value = out(reg) _,
            large = const PSE,
            paging = const PG_WP.cast_signed(),
            options(nostack),
        );
    }
}

/// Switches paging off.
pub(crate) fn off() {
    // SAFETY: this program runs where it is mapped to.
    unsafe {
        asm!(
            "mov {value}, cr0",
            "and {value}, {paging}",
            "mov cr0, {value}",
            value = out(reg) _,
            paging = const (!PG_WP).cast_signed(),
            options(nostack),
        );
    }
}

/// Reads a word by an instruction that may fault.
pub(crate) fn read(address: u32) -> Result<u32, Fault> {
    let registers = Registers {
        ecx: address,
        ..Registers::default()
    };
    // SAFETY: MOV EAX, [ECX] changes nothing but EAX.
    unsafe { run(&[0x8b, 0x01], registers) }.map(|registers| registers.eax)
}

/// Writes a word by an instruction that may fault.
pub(crate) fn write(address: u32, value: u32) -> Result<(), Fault> {
    let registers = Registers {
        eax: value,
        ecx: address,
        ..Registers::default()
    };
    // SAFETY: MOV [ECX], EAX writes to memory that is no object of this program.
    unsafe { run(&[0x89, 0x01], registers) }.map(|_| ())
}

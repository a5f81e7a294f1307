//! Writes to known pages of physical memory, in each of the ways that there are, for an operator who tracks them.

use core::arch::asm;

use pc::{handover::Boot, print, println, serial};

use crate::{
    paging::{self, page, peek, poke},
    probe::Verdict,
};

const PAGE: u32 = 0x1000;
/// Pages of the tables, from the start of the pool, as all numbers here are.
const DIRECTORY: u32 = 0x500;
const TABLE: u32 = 0x501;
/// The start of what the table maps.
const MAPPED: u32 = 0x400;
/// A port that keeps a byte: the interrupt controller's mask.
const PORT: u16 = 0x21;

/// A way to write, and the pages that it writes, first and last.
type Way = (&'static str, fn(), &'static [(u32, u32)]);

const WAYS: &[Way] = &[
    (
        "stores",
        stores,
        &[
            (0, 0x3f),
            (0x101, 0x101),
            (0x104, 0x104),
            (0x107, 0x107),
            (0x1ff, 0x200),
            (0x600, 0x7ff),
            (0xbff, 0xbff),
        ],
    ),
    // The processor marks the entries that it uses.
    ("tables", tables, &[(0x406, 0x406), (DIRECTORY, TABLE)]),
    // What a string instruction reads from a port, the hypervisor writes.
    ("input", input, &[(0x800, 0x801)]),
    ("nothing", || {}, &[]),
    ("stores", stores_again, &[(0, 0), (0x600, 0x7ff)]),
];

/// Goes one way with each byte that comes from the serial line, and says which pages that wrote.
pub(crate) fn writes(_: &Boot) -> Verdict {
    paging::fill_directory(page(DIRECTORY));
    paging::split(page(DIRECTORY), page(TABLE), page(MAPPED));
    println!("probe writes: ready");
    for (name, go, pages) in WAYS {
        while serial::receive().is_none() {
            core::hint::spin_loop();
        }
        go();
        print!("probe writes: {name}:");
        for (first, last) in *pages {
            print!(" {:#x}-{:#x}", page(*first) / PAGE, page(*last) / PAGE);
        }
        println!(" written");
    }
    while serial::receive().is_none() {
        core::hint::spin_loop();
    }
    Ok(())
}

/// Writes a word somewhere in each of these pages.
fn write_all(pages: impl Iterator<Item = u32>) {
    for number in pages {
        poke(page(number) + number % 1024 * 4, number);
    }
}

fn stores() {
    write_all((0..0x40).chain([0x101, 0x104, 0x107]).chain(0x600..0x800));
    // Half of the word is in the next page, which another table maps.
    // SAFETY: no object of this program lies there.
    unsafe { ((page(0x200) - 2) as *mut u32).write_unaligned(1) }
    poke(page(0xc00) - 4, 1);
}

fn tables() {
    paging::on(page(DIRECTORY));
    peek(page(MAPPED + 5));
    poke(page(MAPPED + 6), 1);
    paging::off();
}

fn input() {
    let at = page(0x801) - 8;
    // SAFETY: 16 bytes that are no object of this program; the port keeps what it has.
    unsafe {
        asm!("rep insb", in("dx") PORT, inout("edi") at => _, inout("ecx") 16 => _, options(nostack));
    }
}

fn stores_again() {
    write_all((0..1).chain(0x600..0x800));
}

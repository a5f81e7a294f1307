//! Page tables in odd places.

use core::arch::asm;

use pc::{
    handover::Boot,
    port::{inb, outb},
    println,
};

use crate::{
    code::{self, Fault, PROTECTION, Registers, expect, survives},
    paging::{self, PRESENT, WRITABLE, page, peek, poke},
    probe::{Failure, Verdict, ensure},
};

const PORT: u16 = 0x21;
const LARGE: u32 = 1 << 7;
const MARKS: u32 = 0x60;
/// Where second views are: above all RAM of a probe.
const VIEW: u32 = 0x8000_0000;

/// The last page of RAM.
fn last_page(boot: &Boot) -> Result<u32, Failure> {
    let end = boot
        .memory_map()
        .filter(|range| range.is_ram())
        .map(|range| range.end())
        .max()
        .unwrap_or(0);
    let end = u32::try_from(end).unwrap_or(0) & !0xfff;
    end.checked_sub(0x1000).ok_or(Failure {
        what: "ram ends at",
        found: end,
    })
}

/// Writes a byte of a port to memory by INSB; the hypervisor walks the tables for that.
fn insb(address: u32) -> Result<Registers, Fault> {
    let registers = Registers {
        edx: PORT.into(),
        edi: address,
        ..Registers::default()
    };
    // SAFETY: the callers name memory that nothing uses.
    unsafe { code::run(&[0x6c], registers) }
}

fn page_fault(error: u32) -> Fault {
    Fault {
        vector: 14,
        error,
        at: 0,
    }
}

/// All of them.
pub(crate) fn odd(boot: &Boot) -> Verdict {
    let mask = inb(PORT);
    outb(PORT, 0x77);
    let verdict = at_the_end(boot)
        .and_then(|()| itself())
        .and_then(|()| string_to_reserved())
        .and_then(|()| extended());
    paging::off();
    outb(PORT, mask);
    verdict
}

/// A directory that is the last page of RAM.
fn at_the_end(boot: &Boot) -> Verdict {
    let directory = last_page(boot)?;
    println!("probe page-tables: a directory at {directory:#x}");
    let target = page(120);
    paging::fill_directory(directory);
    let entry = directory + (VIEW >> 22) * 4;
    poke(entry, target & !0x3f_ffff | LARGE | WRITABLE | PRESENT);
    poke(target, 0x1111_1111);
    paging::on(directory);
    let view = VIEW + (target & 0x3f_ffff);
    let seen = paging::read(view);
    let by_string = insb(view + 1);
    paging::off();
    survives(by_string)?;
    ensure(seen == Ok(0x1111_1111), "the view says", seen.unwrap_or(0))?;
    let word = peek(target);
    ensure(word == 0x1111_7711, "after insb", word)?;
    ensure(peek(entry) & MARKS == MARKS, "the entry is", peek(entry))
}

/// A directory that is its own last table.
fn itself() -> Verdict {
    const SELF: u32 = 0xffc0_0000;
    println!("probe page-tables: a directory that maps itself");
    let directory = page(0);
    let (table, one, other) = (page(1), page(130), page(131));
    paging::fill_directory(directory);
    paging::split(directory, table, one & !0x3f_ffff);
    poke(directory + 4 * 1023, directory | WRITABLE | PRESENT);
    poke(one, 1);
    poke(other, 2);
    paging::on(directory);
    // The entry of `one`, as the last 4 MiB show it, is made to point to the other page.
    let slot = SELF + (one >> 12) * 4;
    let before = paging::read(slot);
    let written = paging::write(slot, other | WRITABLE | PRESENT);
    paging::set_root(directory);
    let seen = paging::read(one);
    // The hypervisor walks the same way: the low byte of that entry goes to a port, and comes back.
    let registers = Registers {
        edx: PORT.into(),
        esi: slot,
        ..Registers::default()
    };
    // SAFETY: OUTSB to the mask port.
    let out = unsafe { code::run(&[0x6e], registers) };
    let byte = inb(PORT);
    let by_string = insb(one + 4);
    paging::off();
    outb(PORT, 0x77);
    let low = before.unwrap_or(0) & !MARKS;
    ensure(low == one | WRITABLE | PRESENT, "the entry was", low)?;
    ensure(written.is_ok(), "the entry cannot be written", slot)?;
    ensure(seen == Ok(2), "the page says", seen.unwrap_or(0))?;
    survives(out)?;
    ensure(byte & !0x60 == 0x03, "its low byte is", byte.into())?;
    survives(by_string)?;
    ensure(
        peek(other + 4) & 0xff == u32::from(byte),
        "insb wrote",
        peek(other + 4),
    )
}

/// Where a large page is whose entry has a bit that must be zero, while `work` is done.
fn with_reserved_bit<T>(work: impl FnOnce(u32) -> T) -> T {
    let directory = page(0);
    paging::fill_directory(directory);
    let entry = directory + (VIEW >> 22) * 4;
    poke(entry, 1 << 21 | LARGE | WRITABLE | PRESENT);
    paging::on(directory);
    let result = work(VIEW);
    paging::off();
    result
}

/// String input to such a page, for which the hypervisor walks the tables.
fn string_to_reserved() -> Verdict {
    println!("probe page-tables: a reserved bit in a large page's entry");
    expect(with_reserved_bit(insb), page_fault(0xb))
}

/// Accesses by way of entries whose reserved bits are set.
pub(crate) fn reserved(_: &Boot) -> Verdict {
    expect_read(with_reserved_bit(paging::read), page_fault(0x9))?;
    let read = with_extended_paging(|tables| {
        tables.bar();
        paging::read(tables.view())
    })?;
    expect_read(read, page_fault(0x9))
}

/// The read must fault.
fn expect_read(read: Result<u32, Fault>, expected: Fault) -> Verdict {
    expect(
        read.map(|eax| Registers {
            eax,
            ..Registers::default()
        }),
        expected,
    )
}

const PAE: u32 = 1 << 5;

/// Tables with entries of 64 bits, which map all addresses to themselves but the first 2 MiB of the view.
struct Extended {
    pointers: u32,
    /// The entry of the view.
    entry: u32,
    /// What is seen there.
    target: u32,
}

impl Extended {
    fn new() -> Self {
        let (pointers, directories, target) = (page(4), page(8), page(140));
        for number in 0..4 {
            let directory = directories + number * 0x1000;
            poke(pointers + 8 * number, directory | PRESENT);
            poke(pointers + 8 * number + 4, 0);
            for index in 0..512 {
                let entry = directory + index * 8;
                let address = number << 30 | index << 21;
                poke(entry, address | LARGE | WRITABLE | PRESENT);
                poke(entry + 4, 0);
            }
        }
        let entry = directories + 2 * 0x1000;
        poke(entry, target & !0x1f_ffff | LARGE | WRITABLE | PRESENT);
        Self {
            pointers,
            entry,
            target,
        }
    }

    /// Where the target is seen.
    fn view(&self) -> u32 {
        VIEW + (self.target & 0x1f_ffff)
    }

    /// Sets no-execute in the view's entry, which is reserved while EFER.NXE is clear.
    fn bar(&self) {
        poke(self.entry + 4, 1 << 31);
        paging::set_root(self.pointers);
    }

    /// Loads the tables and switches paging on.
    fn on(&self) -> Result<Registers, Fault> {
        // MOV CR3, ECX; MOV CR4, EDX; MOV CR0, EAX.
        let code = [0x0f, 0x22, 0xd9, 0x0f, 0x22, 0xe2, 0x0f, 0x22, 0xc0];
        let registers = Registers {
            eax: pc::cpu::cr0() | 1 << 31,
            ecx: self.pointers,
            edx: pc::cpu::cr4() | PAE,
            ..Registers::default()
        };
        // SAFETY: the tables map this program to itself.
        unsafe { code::run(&code, registers) }
    }

    fn off() {
        paging::off();
        // SAFETY: CR4 as it was.
        unsafe {
            asm!("mov {0}, cr4", "and {0}, {1}", "mov cr4, {0}", out(reg) _, const (!PAE).cast_signed(),
                 options(nostack));
        }
    }
}

/// Does work with such tables in use.
fn with_extended_paging<T>(work: impl FnOnce(&Extended) -> T) -> Result<T, Failure> {
    let tables = Extended::new();
    survives(tables.on())?;
    let result = work(&tables);
    Extended::off();
    Ok(result)
}

/// Extended addresses.
fn extended() -> Verdict {
    println!("probe page-tables: extended addresses");
    let (target, seen, by_string, barred) = with_extended_paging(|tables| {
        poke(tables.target, 0x5555_5555);
        let seen = paging::read(tables.view());
        let by_string = insb(tables.view());
        tables.bar();
        (tables.target, seen, by_string, insb(tables.view()))
    })?;
    ensure(seen == Ok(0x5555_5555), "the view says", seen.unwrap_or(0))?;
    survives(by_string)?;
    ensure(peek(target) == 0x5555_5577, "after insb", peek(target))?;
    expect(barred, page_fault(0xb))
}

/// A reserved bit in a page-directory pointer.
pub(crate) fn pointers(_: &Boot) -> Verdict {
    let tables = Extended::new();
    poke(tables.pointers, peek(tables.pointers) | WRITABLE);
    let result = tables.on();
    let cr0 = pc::cpu::cr0();
    Extended::off();
    expect(
        result,
        Fault {
            at: 6,
            ..PROTECTION
        },
    )?;
    ensure(cr0 >> 31 == 0, "cr0", cr0)
}

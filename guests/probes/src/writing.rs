//! Code that changes itself.

use pc::{cpu, handover::Boot, println};

use crate::{
    code::{self, Fault, Registers, expect, survives},
    paging::{self, PRESENT, WRITABLE, page, poke},
    probe::{Verdict, ensure},
};

const VIEW: u32 = 0x8000_0000;

/// Runs code at an address.
fn at(address: u32, bytes: &[u8], registers: Registers) -> Result<Registers, Fault> {
    for (offset, byte) in (0..).zip(bytes) {
        // SAFETY: memory of the pool.
        unsafe { ((address + offset) as *mut u8).write_volatile(*byte) }
    }
    // SAFETY: the callers' code changes general registers and itself, and ends with a return.
    unsafe { code::run_at(address, bytes.len() as u32 - 1, registers) }
}

/// All ways.
pub(crate) fn code_changes(_: &Boot) -> Verdict {
    println!("probe self-modifying: the instruction ahead");
    let place = page(150);
    let [a, b, c, d] = (place + 8).to_le_bytes();
    // MOV BYTE [place + 8], 2; MOV AL, 1.
    let ahead = [0xc6, 0x05, a, b, c, d, 2, 0xb0, 1, 0xc3];
    let al = survives(at(place, &ahead, Registers::default()))?.eax & 0xff;
    ensure(al == 2, "al", al)?;

    println!("probe self-modifying: from nothing to an instruction that exits");
    let [a, b, c, d] = (place + 9).to_le_bytes();
    // MOV WORD [place + 9], CPUID; two NOPs.
    let exits = [0x66, 0xc7, 0x05, a, b, c, d, 0x0f, 0xa2, 0x90, 0x90, 0xc3];
    let eax = survives(at(place, &exits, Registers::default()))?.eax;
    ensure(eax == cpu::cpuid(0, 0)[0], "eax", eax)?;

    println!("probe self-modifying: a loop that turns an input into an output and back");
    // MOV ECX, 1000; L: IN AL, 0x21 or OUT 0x21, AL; XOR BYTE [L], 2; LOOP L.
    let [a, b, c, d] = (place + 5).to_le_bytes();
    let turns = [
        0xb9, 0xe8, 3, 0, 0, 0xe4, 0x21, 0x80, 0x35, a, b, c, d, 2, 0xe2, 0xf5, 0xc3,
    ];
    let ecx = survives(at(place, &turns, Registers::default()))?.ecx;
    ensure(ecx == 0, "ecx", ecx)?;

    let (directory, table) = (page(0), page(1));
    paging::fill_directory(directory);
    paging::split(directory, table, place & !0x3f_ffff);
    poke(
        directory + (VIEW >> 22) * 4,
        place & !0x3f_ffff | 1 << 7 | WRITABLE | PRESENT,
    );
    paging::on(directory);
    let verdict = mapped(place, directory, table);
    paging::off();
    verdict
}

fn mapped(place: u32, directory: u32, table: u32) -> Verdict {
    println!("probe self-modifying: through another address");
    // MOV BYTE [VIEW + place + 10], 3; CPUID; MOV AL, 1. Only an instruction that serializes makes such a change seen
    // for sure (SDM volume 3, section 9.1.3; APM volume 2, section 7.6.1).
    let [a, b, c, d] = (VIEW + (place & 0x3f_ffff) + 10).to_le_bytes();
    let alias = [0xc6, 0x05, a, b, c, d, 3, 0x0f, 0xa2, 0xb0, 1, 0xc3];
    let al = survives(at(place, &alias, Registers::default()))?.eax & 0xff;
    ensure(al == 3, "al", al)?;

    // Instructions that exit, across a page end whose second page is not there yet.
    for (what, bytes, eax) in [
        ("in", &[0xe4_u8, 0x21, 0xc3][..], None),
        ("cpuid", &[0x0f, 0xa2, 0xc3], Some(cpu::cpuid(0, 0)[0])),
        ("rdmsr", &[0x0f, 0x32, 0xc3], Some(0)),
    ] {
        println!("probe self-modifying: {what} across a page end");
        let border = place + 0x1000;
        let registers = Registers {
            ecx: if what == "rdmsr" { 0x8b } else { 0 },
            ..Registers::default()
        };
        let entry = paging::entry(table, border);
        poke(entry, border | WRITABLE | PRESENT);
        paging::set_root(directory);
        for (offset, byte) in (0..).zip(bytes) {
            // SAFETY: memory of the pool.
            unsafe { ((border - 1 + offset) as *mut u8).write_volatile(*byte) }
        }
        poke(entry, 0);
        paging::set_root(directory);
        let length = bytes.len() as u32 - 1;
        // SAFETY: as in `at`.
        let absent = unsafe { code::run_at(border - 1, length, registers) };
        let cr2 = cpu::cr2();
        poke(entry, border | WRITABLE | PRESENT);
        paging::set_root(directory);
        expect(
            absent,
            Fault {
                vector: 14,
                error: 0,
                at: 0,
            },
        )?;
        ensure(cr2 == border, "page fault for", cr2)?;
        // SAFETY: as above.
        let found = survives(unsafe { code::run_at(border - 1, length, registers) })?;
        ensure(eax.is_none_or(|eax| eax == found.eax), "eax", found.eax)?;
    }
    Ok(())
}

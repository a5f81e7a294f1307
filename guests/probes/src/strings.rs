//! String I/O: across page ends, up and down, restarted, and at the limits of segments.

use core::arch::asm;

use pc::{
    cpu,
    handover::Boot,
    port::{inb, outb},
    println,
};

use crate::{
    code::{self, Fault, Registers, expect, survives},
    paging::{self, PRESENT, WRITABLE, page, peek, poke},
    probe::{Verdict, ensure},
    tables::{self, DATA, FREE, descriptor},
};

/// The interrupt controller's mask: a port that keeps a byte.
const PORT: u16 = 0x21;
const SEGMENT: u16 = FREE + 0x80;

const REP_INSB: [u8; 2] = [0xf3, 0x6c];
const REP_OUTSB: [u8; 2] = [0xf3, 0x6e];

fn registers(count: u32, at: u32) -> Registers {
    Registers {
        ecx: count,
        edx: PORT.into(),
        esi: at,
        edi: at,
        ..Registers::default()
    }
}

fn fault(vector: u32, error: u32, at: u32) -> Fault {
    Fault { vector, error, at }
}

fn byte(at: u32) -> u8 {
    (peek(at & !3) >> (8 * (at & 3))) as u8
}

fn set_byte(at: u32, value: u8) {
    let shift = 8 * (at & 3);
    poke(
        at & !3,
        peek(at & !3) & !(0xff << shift) | u32::from(value) << shift,
    );
}

/// Runs string I/O that must fault at a page, then lets the page in and goes on from where it stopped.
struct Edge {
    directory: u32,
    table: u32,
    /// The page that comes and goes.
    page: u32,
}

impl Edge {
    fn set(&self, flags: u32) {
        poke(paging::entry(self.table, self.page), self.page | flags);
        paging::set_root(self.directory);
    }

    fn stops(
        &self,
        what: &'static str,
        code: &[u8],
        start: Registers,
        error: u32,
        left: u32,
        address: u32,
    ) -> Result<Registers, crate::probe::Failure> {
        println!("probe string-io: {what}");
        let mut registers = start;
        // SAFETY: the code transfers between the mask port and pages of the pool.
        let result = unsafe { code::run_on(code, &mut registers) };
        let cr2 = cpu::cr2();
        expect(
            result.map(|()| registers),
            fault(14, error, code.len() as u32 - 2),
        )?;
        ensure(cr2 == address, "page fault for", cr2)?;
        ensure(registers.ecx == left, "elements left", registers.ecx)?;
        Ok(registers)
    }
}

/// Elements up to the end of a page, with the next one absent.
pub(crate) fn pages(_: &Boot) -> Verdict {
    let (directory, table) = (page(0), page(1));
    paging::fill_directory(directory);
    paging::split(directory, table, page(0) & !0x3f_ffff);
    let edge = Edge {
        directory,
        table,
        page: page(101),
    };
    let border = edge.page;
    let mask = inb(PORT);
    paging::on(directory);
    let verdict = edges(&edge, border);
    paging::off();
    outb(PORT, mask);
    verdict
}

fn edges(edge: &Edge, border: u32) -> Verdict {
    let both = PRESENT | WRITABLE;
    let clear = || {
        for at in (border - 16..border + 16).step_by(4) {
            poke(at, 0);
        }
    };
    edge.set(both);
    clear();
    outb(PORT, 0x5a);

    edge.set(0);
    let left = edge.stops(
        "rep insb up",
        &REP_INSB,
        registers(8, border - 4),
        2,
        4,
        border,
    )?;
    ensure(left.edi == border, "edi", left.edi)?;
    edge.set(both);
    // SAFETY: as in `stops`.
    let done = survives(unsafe { code::run(&REP_INSB, left) })?;
    ensure(done.ecx == 0, "elements left", done.ecx)?;
    for at in border - 6..border + 6 {
        let expected = if (border - 4..border + 4).contains(&at) {
            0x5a
        } else {
            0
        };
        ensure(
            byte(at) == expected,
            "a byte near the border",
            byte(at).into(),
        )?;
    }

    clear();
    // The page below the border is the absent one for the way down: STD; REP INSB.
    let below = Edge {
        page: border - 0x1000,
        ..*edge
    };
    below.set(0);
    let down = [0xfd, 0xf3, 0x6c];
    let left = below.stops(
        "rep insb down",
        &down,
        registers(8, border + 3),
        2,
        4,
        border - 1,
    )?;
    ensure(left.edi == border - 1, "edi", left.edi)?;
    below.set(both);
    // SAFETY: as in `stops`; CLD comes by itself.
    survives(unsafe { code::run(&down, left) })?;
    for at in border - 4..border + 4 {
        ensure(byte(at) == 0x5a, "a byte near the border", byte(at).into())?;
    }

    // An element that straddles the border is read or written as a whole or not at all.
    clear();
    edge.set(0);
    edge.stops(
        "insw across",
        &[0x66, 0x6d],
        registers(1, border - 1),
        2,
        1,
        border,
    )?;
    ensure(
        byte(border - 1) == 0,
        "half a word came",
        byte(border - 1).into(),
    )?;
    edge.set(PRESENT);
    edge.stops(
        "insw into a protected page",
        &[0x66, 0x6d],
        registers(1, border - 1),
        3,
        1,
        border,
    )?;
    ensure(
        byte(border - 1) == 0,
        "half a word came",
        byte(border - 1).into(),
    )?;

    edge.set(both);
    for (at, value) in (border - 4..).zip(0x11..0x19) {
        set_byte(at, value);
    }
    edge.set(0);
    let left = edge.stops(
        "rep outsb up",
        &REP_OUTSB,
        registers(8, border - 4),
        0,
        4,
        border,
    )?;
    ensure(left.esi == border, "esi", left.esi)?;
    ensure(inb(PORT) == 0x14, "the port has", inb(PORT).into())?;
    edge.set(both);
    // SAFETY: as in `stops`.
    survives(unsafe { code::run(&REP_OUTSB, left) })?;
    ensure(inb(PORT) == 0x18, "the port has", inb(PORT).into())?;

    println!("probe string-io: no elements");
    edge.set(0);
    // SAFETY: as in `stops`.
    survives(unsafe { code::run(&REP_INSB, registers(0, border)) })?;
    edge.set(both);
    // The hypervisor's own accesses mark the page as a processor's would.
    outb(PORT, 0xa5);
    // SAFETY: as in `stops`.
    survives(unsafe { code::run(&[0x6c], registers(1, border)) })?;
    let entry = peek(paging::entry(edge.table, border));
    ensure(entry & 0x60 == 0x60, "the page's entry is", entry)
}

/// Segments: limits, rights, overrides and short addresses.
pub(crate) fn segments(_: &Boot) -> Verdict {
    const AT: u32 = 0x8000;
    let mask = inb(PORT);
    outb(PORT, 0x3c);
    // MOV ES, AX; INSB. MOV DS, AX; OUTSB. MOV FS, AX; OUTSB from FS. MOV SS, AX; OUTSB from SS.
    let insb = [0x8e, 0xc0, 0x6c];
    let outsb = [0x8e, 0xd8, 0x6e];
    let outsb_fs = [0x8e, 0xe0, 0x64, 0x6e];
    let outsb_ss = [0x8e, 0xd0, 0x36, 0x6e];
    let protection = fault(13, 0, 2);
    let stack = fault(12, 0, 2);
    // To 4 MiB, which has the stack in it; 4 KiB; read-only; expanding down from 4 KiB; readable code.
    let (large, small, constant) = ((0x3ff, 0xc093), (0xfff, 0x4093), (0xfff, 0x4091));
    let (down, code) = ((0xfff, 0x4097), (0xfff, 0x409b));
    let rows: [(&str, &[u8], (u32, u16), u32, Option<Fault>); 12] = [
        ("insb at the limit", &insb, small, 0xfff, None),
        (
            "insb beyond the limit",
            &insb,
            small,
            0x1000,
            Some(protection),
        ),
        (
            "insb to a constant",
            &insb,
            constant,
            0x100,
            Some(protection),
        ),
        ("insb to code", &insb, code, 0x100, Some(protection)),
        ("insb below", &insb, down, 0xfff, Some(protection)),
        ("insb above", &insb, down, 0x1000, None),
        ("outsb at the limit", &outsb, small, 0xfff, None),
        (
            "outsb beyond the limit",
            &outsb_fs,
            small,
            0x1000,
            Some(protection),
        ),
        ("outsb from code", &outsb_fs, code, 0xfff, None),
        ("outsb from fs", &outsb_fs, constant, 0xfff, None),
        (
            "outsb at the stack's limit",
            &outsb_ss,
            large,
            0x3f_ffff,
            None,
        ),
        (
            "outsb beyond the stack's limit",
            &outsb_ss,
            large,
            0x40_0000,
            Some(stack),
        ),
    ];
    for (what, bytes, (limit, access), at, expected) in rows {
        println!("probe string-io: {what}");
        let base = if access & 0x8000 == 0 { AT } else { 0 };
        tables::set(SEGMENT, descriptor(base, limit, access));
        let start = Registers {
            eax: SEGMENT.into(),
            ..registers(1, at)
        };
        // SAFETY: the segments hold conventional memory or what the flat one does; all are restored. No row
        // that faults changes DS, which the handlers need.
        let result = unsafe { flat_again(bytes, start) };
        match expected {
            None => survives(result).map(drop)?,
            Some(fault) => expect(result, fault)?,
        }
    }
    println!("probe string-io: null segment");
    // SAFETY: as above.
    let null = unsafe {
        flat_again(
            &insb,
            Registers {
                eax: 0,
                ..registers(1, AT)
            },
        )
    };
    expect(null, protection)?;

    println!("probe string-io: 16-bit addresses");
    const BASE: u32 = 0x1_0000;
    tables::set(SEGMENT, descriptor(BASE, 0xffff, 0x4093));
    poke(BASE, 0);
    poke(BASE + 0xfffc, 0);
    outb(PORT, 0x3c);
    // REP INSB by CX and DI: they wrap, and their upper halves stay.
    let start = Registers {
        eax: SEGMENT.into(),
        ecx: 0x7777_0002,
        edi: 0x1234_ffff,
        ..registers(0, 0)
    };
    // SAFETY: writes to conventional memory that nothing uses.
    let end = survives(unsafe { flat_again(&[0x8e, 0xc0, 0x67, 0xf3, 0x6c], start) })?;
    outb(PORT, mask);
    ensure(end.ecx == 0x7777_0000, "ecx", end.ecx)?;
    ensure(end.edi == 0x1234_0001, "edi", end.edi)?;
    ensure(
        byte(BASE + 0xffff) == 0x3c,
        "the last byte",
        byte(BASE + 0xffff).into(),
    )?;
    ensure(byte(BASE) == 0x3c, "the first byte", byte(BASE).into())
}

/// Runs code that loads a segment register, and makes all of them flat again.
///
/// # Safety
/// As for [`code::run`].
unsafe fn flat_again(code: &[u8], registers: Registers) -> Result<Registers, Fault> {
    let mut whole = [0; 16];
    let length = code.len();
    whole[..length].copy_from_slice(code);
    // MOV AX, DATA; MOV DS, AX.
    let [low, high] = DATA.to_le_bytes();
    whole[length..length + 6].copy_from_slice(&[0x66, 0xb8, low, high, 0x8e, 0xd8]);
    // SAFETY: passed on to the caller.
    let result = unsafe { code::run(&whole[..length + 6], registers) };
    // SAFETY: the flat data segment is what this program runs with.
    unsafe {
        asm!("mov ds, {0:x}", "mov es, {0:x}", "mov fs, {0:x}", "mov ss, {0:x}", in(reg) DATA,
             options(nostack, preserves_flags));
    }
    result
}

//! Instructions that exit, whose ends a hypervisor may have to find by itself: with prefixes that mean nothing, as long as
//! instructions get, and at the end of the address space.

use pc::{
    cpu,
    handover::Boot,
    port::{inb, outb},
    println,
};

use crate::{
    code::{self, Registers, survives},
    paging::{self, PRESENT, WRITABLE, page, peek, poke},
    probe::{Verdict, ensure},
};

const BIOS_SIGN_ID: u32 = 0x8b;
const MARK: u32 = 0x1357_9bdf;

/// What an instruction must leave in EAX.
enum Leaves {
    /// The first word of CPUID's first leaf.
    Cpuid,
    /// The interrupt controller's mask.
    Mask,
    /// The microcode revision that guests are shown.
    Revision,
    Cr4,
    /// What was there.
    Nothing,
}

const ROWS: &[(&str, &[u8], Leaves)] = &[
    ("66 cpuid", &[0x66, 0x0f, 0xa2], Leaves::Cpuid),
    ("f2 cpuid", &[0xf2, 0x0f, 0xa2], Leaves::Cpuid),
    ("f3 cpuid", &[0xf3, 0x0f, 0xa2], Leaves::Cpuid),
    ("cs 67 cpuid", &[0x2e, 0x67, 0x0f, 0xa2], Leaves::Cpuid),
    (
        "cpuid of fifteen bytes",
        &[
            0x66, 0x65, 0x67, 0x26, 0x66, 0x36, 0x66, 0x3e, 0x66, 0x64, 0x66, 0xf2, 0x66, 0x0f,
            0xa2,
        ],
        Leaves::Cpuid,
    ),
    ("66 rdmsr", &[0x66, 0x0f, 0x32], Leaves::Revision),
    ("gs f2 rdmsr", &[0x65, 0xf2, 0x0f, 0x32], Leaves::Revision),
    ("f3 in", &[0xf3, 0xe4, 0x21], Leaves::Mask),
    ("67 ss in", &[0x67, 0x36, 0xec], Leaves::Mask),
    ("f2 out", &[0xf2, 0xee], Leaves::Nothing),
    ("66 wbinvd", &[0x66, 0x0f, 0x09], Leaves::Nothing),
    ("f3 f3 pause", &[0xf3, 0xf3, 0x90], Leaves::Nothing),
    ("66 mov eax, cr4", &[0x66, 0x0f, 0x20, 0xe0], Leaves::Cr4),
    // A ModRM byte for an operand in memory names the register all the same.
    ("mov eax, cr4 by [eax]", &[0x0f, 0x20, 0x20], Leaves::Cr4),
];

/// Runs an instruction at an address, where a mark is set behind it.
fn marks(eax: u32, result: Result<Registers, code::Fault>, leaves: &Leaves) -> Verdict {
    let found = survives(result)?;
    ensure(found.edi == MARK, "what comes behind it left", found.edi)?;
    let expected = match leaves {
        Leaves::Cpuid => cpu::cpuid(0, 0)[0],
        Leaves::Mask => inb(0x21).into(),
        Leaves::Revision => 0,
        Leaves::Cr4 => cpu::cr4(),
        Leaves::Nothing => eax,
    };
    ensure(found.eax == expected, "eax", found.eax)
}

/// With prefixes.
pub(crate) fn prefixes(_: &Boot) -> Verdict {
    let mask = inb(0x21);
    for (name, bytes, leaves) in ROWS {
        println!("probe prefixes: {name}");
        let registers = Registers {
            eax: match leaves {
                Leaves::Nothing => mask.into(),
                _ => 0,
            },
            ecx: BIOS_SIGN_ID * u32::from(matches!(leaves, Leaves::Revision)),
            edx: 0x21,
            ..Registers::default()
        };
        let mut whole = [0; 20];
        let end = bytes.len();
        whole[..end].copy_from_slice(bytes);
        // MOV EDI, MARK.
        whole[end] = 0xbf;
        whole[end + 1..end + 5].copy_from_slice(&MARK.to_le_bytes());
        // SAFETY: reads registers, and writes what is there already.
        let result = unsafe { code::run(&whole[..end + 5], registers) };
        marks(registers.eax, result, leaves)?;
    }
    outb(0x21, mask);
    Ok(())
}

/// As the last instruction of the address space, with the next one at its begin.
pub(crate) fn wrap(_: &Boot) -> Verdict {
    const LAST_PAGE: u32 = 0xffff_f000;
    let (directory, table, last) = (page(0), page(1), page(150));
    paging::fill_directory(directory);
    paging::split(directory, table, LAST_PAGE & !0x3f_ffff);
    poke(paging::entry(table, LAST_PAGE), last | WRITABLE | PRESENT);
    let before = [peek(0), peek(4)];
    // MOV EDI, MARK; RET.
    let [a, b, c, d] = MARK.to_le_bytes();
    poke(0, u32::from_le_bytes([0xbf, a, b, c]));
    poke(4, u32::from_le_bytes([d, 0xc3, 0, 0]));
    for (name, bytes, leaves) in [
        ("cpuid", [0x90, 0x0f, 0xa2], Leaves::Cpuid),
        ("rdmsr", [0x90, 0x0f, 0x32], Leaves::Revision),
        ("mov eax, cr4", [0x0f, 0x20, 0xe0], Leaves::Cr4),
    ] {
        println!("probe wrap: {name}");
        let [first, second, third] = bytes;
        poke(
            last + 0xffc,
            u32::from_le_bytes([0x90, first, second, third]),
        );
        let registers = Registers {
            ecx: BIOS_SIGN_ID * u32::from(matches!(leaves, Leaves::Revision)),
            ..Registers::default()
        };
        paging::on(directory);
        // SAFETY: reads registers, goes on at address 0 and returns from there.
        let result = unsafe { code::run_at(LAST_PAGE + 0xffc, 3, registers) };
        let cr4 = cpu::cr4();
        let eax = result.map_or(0, |found| found.eax);
        paging::off();
        match leaves {
            // The page size extension is on meanwhile.
            Leaves::Cr4 => ensure(eax == cr4, "eax", eax)?,
            _ => marks(0, result, &leaves)?,
        }
    }
    poke(0, before[0]);
    poke(4, before[1]);
    Ok(())
}

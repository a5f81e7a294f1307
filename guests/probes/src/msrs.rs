//! Every model-specific register of the ranges that processors use, and some beside.

use pc::{cpu, handover::Boot, println};

use crate::{
    code::{self, Fault, PROTECTION, Registers, expect, survives},
    probe::{Verdict, ensure},
};

const TSC: u32 = 0x10;
const SYSENTER_EIP: u32 = 0x176;
const PAT: u32 = 0x277;
const EFER: u32 = 0xc000_0080;
const LSTAR: u32 = 0xc000_0082;
const TSC_AUX: u32 = 0xc000_0103;

/// What a guest without APICs has.
const THERE: [u32; 18] = [
    TSC,
    0x17,
    0x8b,
    0x174,
    0x175,
    SYSENTER_EIP,
    0x1a0,
    PAT,
    0xda0,
    EFER,
    0xc000_0081,
    LSTAR,
    0xc000_0083,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
    TSC_AUX,
];

fn read(msr: u32) -> Result<Registers, Fault> {
    let registers = Registers {
        ecx: msr,
        ..Registers::default()
    };
    // SAFETY: RDMSR changes EAX and EDX only.
    unsafe { code::run(&[0x0f, 0x32], registers) }
}

fn write(msr: u32, value: u64) -> Result<Registers, Fault> {
    let registers = Registers {
        eax: value as u32,
        ecx: msr,
        edx: (value >> 32) as u32,
        ..Registers::default()
    };
    // SAFETY: the callers write what must be refused, or what this program does not depend on.
    unsafe { code::run(&[0x0f, 0x30], registers) }
}

/// A memory type of PAT that is none.
pub(crate) fn memory_types(_: &Boot) -> Verdict {
    expect(write(PAT, 2), PROTECTION)
}

/// Entry points at addresses that are not canonical.
pub(crate) fn canonical(_: &Boot) -> Verdict {
    for msr in [SYSENTER_EIP, LSTAR] {
        expect(write(msr, 1 << 63), PROTECTION)?;
    }
    Ok(())
}

/// Reads and writes them all.
pub(crate) fn all(_: &Boot) -> Verdict {
    let ranges = [
        0..0x2000,
        0x4000_0000..0x4000_0200,
        0x4b56_4d00..0x4b56_4d10,
        0xc000_0000..0xc000_2000,
        0xc001_0000..0xc001_0400,
        0xffff_ff00..u32::MAX,
    ];
    let mut seed = 1_u32;
    let anywhere = core::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed
    });
    let (mut there, mut absent) = (0_u32, 0_u32);
    for msr in ranges.into_iter().flatten().chain(anywhere.take(1000)) {
        if THERE.contains(&msr) {
            if let Err(fault) = read(msr) {
                println!("probe msrs: {msr:#x} cannot be read: {fault:x?}");
                return expect(Err(fault), PROTECTION);
            }
            there += 1;
            continue;
        }
        let results = [read(msr), write(msr, 0), write(msr, u64::MAX)];
        for result in results {
            if result != Err(PROTECTION) {
                println!("probe msrs: {msr:#x}");
                return expect(result, PROTECTION);
            }
        }
        absent += 1;
    }
    println!("probe msrs: {there} there, {absent} not");
    for (what, msr, value) in [
        ("a reserved bit of efer", EFER, 1 << 2),
        ("virtualization in efer", EFER, 1 << 12),
        ("supervisor state", 0xda0, 1 << 8),
    ] {
        println!("probe msrs: {what} must be refused");
        expect(write(msr, value), PROTECTION)?;
    }
    for (msr, value) in [
        (PAT, 0x0007_0106_0007_0106),
        (PAT, 0x0007_0406_0007_0406),
        (SYSENTER_EIP, 0x1234_5678),
        (LSTAR, 0xffff_8000_1234_5678),
        (LSTAR, 0),
    ] {
        survives(write(msr, value))?;
        let Registers { eax, edx, .. } = survives(read(msr))?;
        ensure(
            u64::from(edx) << 32 | u64::from(eax) == value,
            "reads back",
            eax,
        )?;
    }
    let before = cpu::tsc();
    survives(write(TSC, 1 << 40))?;
    let ahead = (cpu::tsc() >> 40) as u32;
    survives(write(TSC, before))?;
    ensure(ahead == 1, "the time stamp's upper bits", ahead)
}

//! Instructions that a guest must not be able to use.

use pc::{cpu, handover::Boot, println};

use crate::{
    code::{self, Fault, PROTECTION, Registers, UNDEFINED, expect, survives},
    probe::{Verdict, ensure},
};

/// No processor has this register.
const ABSENT_MSR: u32 = 0x4fff_fff0;
/// Where operands in memory lie: conventional memory that nothing uses.
const OPERAND: u32 = 0x8000;

/// UD2 raises the exception it is made for.
pub(crate) fn undefined(_: &Boot) -> Verdict {
    // SAFETY: UD2 does nothing but raise an exception.
    expect(
        unsafe { code::run(&[0x0f, 0x0b], Registers::default()) },
        UNDEFINED,
    )
}

/// Registers that are not there cannot be read or written.
pub(crate) fn absent_msr(_: &Boot) -> Verdict {
    let registers = Registers {
        ecx: ABSENT_MSR,
        ..Registers::default()
    };
    for (name, code) in [("rdmsr", [0x0f, 0x32]), ("wrmsr", [0x0f, 0x30])] {
        println!("probe absent-msr: {name} {ABSENT_MSR:#x}");
        // SAFETY: no such register is there; if one is, nothing here depends on it.
        expect(unsafe { code::run(&code, registers) }, PROTECTION)?;
    }
    Ok(())
}

const VMX: &[(&str, &[u8])] = &[
    ("vmcall", &[0x0f, 0x01, 0xc1]),
    ("vmlaunch", &[0x0f, 0x01, 0xc2]),
    ("vmresume", &[0x0f, 0x01, 0xc3]),
    ("vmxoff", &[0x0f, 0x01, 0xc4]),
    ("vmfunc", &[0x0f, 0x01, 0xd4]),
    ("vmread", &[0x0f, 0x78, 0xc1]),
    ("vmwrite", &[0x0f, 0x79, 0xc1]),
    ("invept", &[0x66, 0x0f, 0x38, 0x80, 0x08]),
    ("invvpid", &[0x66, 0x0f, 0x38, 0x81, 0x08]),
];

const SVM: &[(&str, &[u8])] = &[
    ("vmrun", &[0x0f, 0x01, 0xd8]),
    ("vmmcall", &[0x0f, 0x01, 0xd9]),
    ("vmload", &[0x0f, 0x01, 0xda]),
    ("vmsave", &[0x0f, 0x01, 0xdb]),
    ("stgi", &[0x0f, 0x01, 0xdc]),
    ("clgi", &[0x0f, 0x01, 0xdd]),
    ("skinit", &[0x0f, 0x01, 0xde]),
    ("invlpga", &[0x0f, 0x01, 0xdf]),
    // No part of the extension, but a guest is not shown it.
    ("rdpru", &[0x0f, 0x01, 0xfd]),
];

/// An instruction of virtualization, with an operand in memory at EAX, is none.
fn absent(code: &[u8]) -> Verdict {
    let registers = Registers {
        eax: OPERAND,
        ..Registers::default()
    };
    // SAFETY: without virtualization, these raise an exception; the memory that EAX points to is unused.
    expect(unsafe { code::run(code, registers) }, UNDEFINED)
}

/// Neither are VMXON, VMCLEAR, VMPTRLD and VMPTRST.
pub(crate) fn vmx_pointers(_: &Boot) -> Verdict {
    for code in [
        &[0xf3, 0x0f, 0xc7, 0x30][..],
        &[0x66, 0x0f, 0xc7, 0x30],
        &[0x0f, 0xc7, 0x30],
        &[0x0f, 0xc7, 0x38],
    ] {
        absent(code)?;
    }
    Ok(())
}

/// A guest is shown no virtualization, and has none.
pub(crate) fn vmx(_: &Boot) -> Verdict {
    for (name, code) in VMX {
        println!("probe vmx-instructions: {name}");
        absent(code)?;
    }
    let [_, _, features, _] = cpu::cpuid(1, 0);
    ensure(features & 1 << 5 == 0, "cpuid shows vmx, ecx", features)
}

/// The same for the other extension. Its registers and the bit in EFER are among those that `msrs` finds absent.
pub(crate) fn svm(_: &Boot) -> Verdict {
    for (name, code) in SVM {
        println!("probe svm-instructions: {name}");
        absent(code)?;
    }
    let [_, _, features, _] = cpu::cpuid(0x8000_0001, 0);
    ensure(features & 1 << 2 == 0, "cpuid shows svm, ecx", features)?;
    let [revision, asids, _, more] = cpu::cpuid(0x8000_000a, 0);
    let shown = revision | asids | more;
    ensure(shown == 0, "cpuid tells of svm", shown)
}

/// Instructions of features that a guest is not shown, or whose operands are wrong.
pub(crate) fn refused(_: &Boot) -> Verdict {
    // MOV EAX, CR4; OR EAX, OSXSAVE; MOV CR4, EAX; MOV EAX, ESI; XSETBV.
    const XSETBV: [u8; 16] = [
        0x0f, 0x20, 0xe0, 0x0d, 0, 0, 4, 0, 0x0f, 0x22, 0xe0, 0x89, 0xf0, 0x0f, 0x01, 0xd1,
    ];
    let at = |fault: Fault, at| Fault { at, ..fault };
    // ECX, and XCR0 in ESI: without x87, AVX without SSE, a part of AVX-512, a bit that nothing has.
    let rows: [(&str, &[u8], u32, u32, Fault); 9] = [
        ("monitor", &[0x0f, 0x01, 0xc8], 0, 0, UNDEFINED),
        ("mwait", &[0x0f, 0x01, 0xc9], 0, 0, UNDEFINED),
        ("getsec", &[0x0f, 0x37], 0, 0, UNDEFINED),
        ("xsetbv while it is off", &XSETBV[13..], 0, 1, UNDEFINED),
        ("xcr0 without x87", &XSETBV, 0, 2, at(PROTECTION, 13)),
        ("xcr0 with avx alone", &XSETBV, 0, 5, at(PROTECTION, 13)),
        (
            "xcr0 with a part of avx-512",
            &XSETBV,
            0,
            0x27,
            at(PROTECTION, 13),
        ),
        (
            "xcr0 with bit 31",
            &XSETBV,
            0,
            0x8000_0001,
            at(PROTECTION, 13),
        ),
        ("xcr1", &XSETBV, 1, 1, at(PROTECTION, 13)),
    ];
    for (name, code, ecx, esi, expected) in rows {
        println!("probe refused: {name}");
        let registers = Registers {
            ecx,
            esi,
            ..Registers::default()
        };
        // SAFETY: each raises an exception; CR4 is made as it was.
        expect(unsafe { code::run(code, registers) }, expected)?;
        // SAFETY: clears CR4.OSXSAVE only.
        unsafe {
            core::arch::asm!("mov {0}, cr4", "and {0}, -0x40001", "mov cr4, {0}", out(reg) _,
                options(nostack));
        }
    }
    // WBINVD; INVD; PAUSE: nothing to see.
    for code in [[0x0f, 0x09], [0x0f, 0x08], [0xf3, 0x90]] {
        // SAFETY: a hypervisor throws no cache away.
        survives(unsafe { code::run(&code, Registers::default()) })?;
    }
    Ok(())
}

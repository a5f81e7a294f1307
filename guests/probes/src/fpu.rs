//! The x87 state, across many exits.

use core::arch::asm;

use pc::{cpu, handover::Boot, println};

use crate::probe::{Verdict, ensure};

const ROUNDS: u32 = 10_000;
/// Round up, 53 bits, all exceptions masked: nobody's default.
const CONTROL_WORD: u16 = 0x0a7f;

/// Loads all eight registers, reads a port again and again, and looks at the registers.
pub(crate) fn state(_: &Boot) -> Verdict {
    const VALUES: [i32; 8] = [1, -2, 0x1234_5678, -0x7654_3210, i32::MAX, i32::MIN, 0, 77];
    let mut found = [0_i32; 8];
    let mut control = CONTROL_WORD;
    println!("probe fpu: {ROUNDS} port reads with the x87 registers loaded");
    cpu::allow_fpu();
    // SAFETY: reads `VALUES` and writes `found` and `control`, all within their bounds. The FPU's state belongs
    // to nobody else: this program computes with integers only.
    unsafe {
        asm!(
            "fninit",
            "fldcw word ptr [{control}]",
            "fild dword ptr [{from}]",
            "fild dword ptr [{from} + 4]",
            "fild dword ptr [{from} + 8]",
            "fild dword ptr [{from} + 12]",
            "fild dword ptr [{from} + 16]",
            "fild dword ptr [{from} + 20]",
            "fild dword ptr [{from} + 24]",
            "fild dword ptr [{from} + 28]",
            "2:",
            "in al, 0x21",
            "dec ecx",
            "jnz 2b",
            "fistp dword ptr [{to} + 28]",
            "fistp dword ptr [{to} + 24]",
            "fistp dword ptr [{to} + 20]",
            "fistp dword ptr [{to} + 16]",
            "fistp dword ptr [{to} + 12]",
            "fistp dword ptr [{to} + 8]",
            "fistp dword ptr [{to} + 4]",
            "fistp dword ptr [{to}]",
            "fnstcw word ptr [{control}]",
            from = in(reg) VALUES.as_ptr(),
            to = in(reg) found.as_mut_ptr(),
            control = in(reg) &raw mut control,
            inout("ecx") ROUNDS => _,
            out("eax") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            options(nostack),
        );
    }
    ensure(
        control == CONTROL_WORD,
        "the control word has become",
        control.into(),
    )?;
    for (found, value) in found.into_iter().zip(VALUES) {
        ensure(
            found == value,
            "a register has become",
            found.cast_unsigned(),
        )?;
    }
    Ok(())
}

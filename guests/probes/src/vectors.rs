//! The vector registers: fresh at the start, and nobody else's afterwards.

use core::{arch::asm, cell::UnsafeCell};

use pc::{cpu, handover::Boot, println};

use crate::{
    probe::{Verdict, ensure},
    time,
};

const ROUNDS: u32 = 1000;
const REGISTERS: usize = 8;
/// Words of a 512-bit register.
const WORDS: usize = 16;

const OSXSAVE: u32 = 1 << 18;
const OSFXSR: u32 = 1 << 9;
/// x87, SSE, AVX and AVX-512.
const COMPONENTS: u32 = 0xe7;
const AVX512: u32 = 0xe0;

#[repr(C, align(64))]
struct Image(UnsafeCell<[[u32; WORDS]; REGISTERS]>);

// SAFETY: there is one processor, and `vectors` alone uses it.
unsafe impl Sync for Image {}

static IMAGE: Image = Image(UnsafeCell::new([[0; WORDS]; REGISTERS]));

/// Runs an instruction for each of the registers 0 to 7 and its place.
macro_rules! each {
    ($wide:expr, $long:literal, $short:literal, $order:ident) => {
        // SAFETY: the registers belong to nobody else: this program computes with integers only. The image
        // is as large as all eight.
        unsafe {
            let image = IMAGE.0.get();
            if $wide {
                each!(@ $order image, $long, "zmm");
            } else {
                each!(@ $order image, $short, "ymm");
            }
        }
    };
    (@ load $image:ident, $name:literal, $register:literal) => {
        asm!(
            concat!($name, " ", $register, "0, [{0}]"),
            concat!($name, " ", $register, "1, [{0} + 64]"),
            concat!($name, " ", $register, "2, [{0} + 128]"),
            concat!($name, " ", $register, "3, [{0} + 192]"),
            concat!($name, " ", $register, "4, [{0} + 256]"),
            concat!($name, " ", $register, "5, [{0} + 320]"),
            concat!($name, " ", $register, "6, [{0} + 384]"),
            concat!($name, " ", $register, "7, [{0} + 448]"),
            in(reg) $image, options(nostack, preserves_flags)
        )
    };
    (@ store $image:ident, $name:literal, $register:literal) => {
        asm!(
            concat!($name, " [{0}], ", $register, "0"),
            concat!($name, " [{0} + 64], ", $register, "1"),
            concat!($name, " [{0} + 128], ", $register, "2"),
            concat!($name, " [{0} + 192], ", $register, "3"),
            concat!($name, " [{0} + 256], ", $register, "4"),
            concat!($name, " [{0} + 320], ", $register, "5"),
            concat!($name, " [{0} + 384], ", $register, "6"),
            concat!($name, " [{0} + 448], ", $register, "7"),
            in(reg) $image, options(nostack, preserves_flags)
        )
    };
}

/// A word of a register of a round.
const fn pattern(seed: u32, register: usize, word: usize) -> u32 {
    seed ^ (register as u32 * 0x1111_1111) ^ (word as u32).wrapping_mul(0x9e37_79b9)
}

/// Enables the registers, and says how many words of each there are.
fn enable() -> usize {
    let [offered, ..] = cpu::cpuid(0xd, 0);
    let components = offered & COMPONENTS;
    cpu::allow_fpu();
    // SAFETY: enables instructions; the components are those that the processor offers.
    unsafe {
        asm!("mov {0}, cr4", "or {0}, {1}", "mov cr4, {0}", out(reg) _, const OSXSAVE | OSFXSR,
             options(nostack));
        asm!("xsetbv", in("ecx") 0, in("eax") components, in("edx") 0, options(nostack));
    }
    if components & AVX512 == AVX512 { 16 } else { 8 }
}

fn check(words: usize, expected: impl Fn(usize, usize) -> u32) -> Verdict {
    // SAFETY: the only user (see `Image`).
    let image = unsafe { IMAGE.0.get().read_volatile() };
    for (register, row) in image.iter().enumerate() {
        for (word, &found) in row.iter().enumerate().take(words) {
            let right = found == expected(register, word);
            ensure(right, "a vector register holds", found)?;
        }
    }
    Ok(())
}

/// Fills the registers again and again, and lets others run in between.
pub(crate) fn vectors(boot: &Boot) -> Verdict {
    let halts = boot.command_line().option("seed") == Some("halts");
    let words = enable();
    let wide = words == WORDS;
    each!(wide, "vmovdqu32", "vmovups", store);
    check(words, |_, _| 0)?;
    println!("probe vectors: {words} words fresh");
    time::start(1193);
    for round in 0..ROUNDS {
        let seed = if halts { round } else { !round };
        let mut image = [[0; WORDS]; REGISTERS];
        for (register, row) in image.iter_mut().enumerate() {
            for (word, slot) in row.iter_mut().enumerate() {
                *slot = pattern(seed, register, word);
            }
        }
        // SAFETY: the only user (see `Image`).
        unsafe { IMAGE.0.get().write_volatile(image) };
        each!(wide, "vmovdqu32", "vmovups", load);
        if halts {
            cpu::wait_for_interrupt();
        } else {
            let start = cpu::tsc();
            while cpu::tsc() - start < 150_000 {}
        }
        each!(wide, "vmovdqu32", "vmovups", store);
        check(words, |register, word| pattern(seed, register, word))?;
    }
    time::stop();
    println!("probe vectors: {ROUNDS} rounds");
    Ok(())
}

//! What an exit costs, in time-stamp ticks from inside the guest.

use core::arch::asm;

use pc::{cpu, println, serial};

/// Rounds of a measured loop.
const ROUNDS: u32 = 1000;

/// Runs an instruction in a loop, and in each round clears EAX. The counter is EDI: CPUID takes the others.
macro_rules! measured {
    ($rounds:expr, $instruction:literal, $ecx:expr, $edx:expr) => {
        // SAFETY: the instruction changes only EAX, EBX, ECX and EDX, and the loop EDI.
        unsafe {
            asm!(
                "2:",
                "xor eax, eax",
                $instruction,
                "dec edi",
                "jnz 2b",
                inout("edi") $rounds => _,
                inout("ecx") $ecx => _,
                inout("edx") $edx => _,
                out("eax") _,
                out("ebx") _,
                options(nostack),
            )
        }
    };
}

/// Runs an instruction once, between two magic breakpoints.
macro_rules! traced {
    ($instruction:literal, $ecx:expr, $edx:expr) => {
        // SAFETY: as for `measured`; the breakpoints exchange a register with itself.
        unsafe {
            asm!(
                "xor eax, eax",
                "xchg bx, bx",
                $instruction,
                "xchg bx, bx",
                inout("ecx") $ecx => _,
                inout("edx") $edx => _,
                out("eax") _,
                out("ebx") _,
                out("edi") _,
                options(nostack),
            )
        }
    };
}

/// Each row: name, instruction, ECX, EDX.
macro_rules! rows {
    ($use:ident) => {
        $use!("cpuid", "cpuid", 0_u32, 0_u32);
        $use!("pic_read", "in al, 0x21", 0_u32, 0_u32);
        $use!("unclaimed_port", "in al, dx", 0_u32, 0x2f0_u32);
        $use!("pit_read", "in al, 0x40", 0_u32, 0_u32);
        $use!("msr_read", "rdmsr", 0x8b_u32, 0_u32);
    };
}

fn ticks(run: impl Fn(u32)) -> u64 {
    run(ROUNDS); // Warm-up.
    let start = cpu::tsc();
    run(ROUNDS);
    cpu::tsc() - start
}

/// Measures every row, or lets an emulator trace one round of each.
pub(crate) fn exits(trace: bool) {
    serial::drain();
    if trace {
        macro_rules! one {
            ($name:literal, $instruction:literal, $ecx:expr, $edx:expr) => {
                measured!(1_u32, $instruction, $ecx, $edx);
                traced!($instruction, $ecx, $edx);
            };
        }
        rows!(one);
    } else {
        let floor = ticks(|rounds| measured!(rounds, "", 0_u32, 0_u32));
        macro_rules! row {
            ($name:literal, $instruction:literal, $ecx:expr, $edx:expr) => {
                let total = ticks(|rounds| measured!(rounds, $instruction, $ecx, $edx));
                println!(
                    "bench {} ticks={}",
                    $name,
                    total.saturating_sub(floor) / u64::from(ROUNDS)
                );
                serial::drain();
            };
        }
        rows!(row);
    }
    println!("bench done");
}

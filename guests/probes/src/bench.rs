//! What an exit costs, in time-stamp ticks from inside the guest.

use core::arch::{asm, global_asm};

use pc::{cpu, idt, println, serial};

use crate::tables;

/// Rounds of a measured loop.
const ROUNDS: u32 = 1000;

/// Runs an instruction in a loop, and in each round sets EAX. The counter is EDI: CPUID takes the others.
macro_rules! measured {
    ($rounds:expr, $instruction:literal, $eax:expr, $ecx:expr, $edx:expr) => {
        // SAFETY: the instruction changes only EAX, EBX, ECX and EDX, and the loop EDI.
        unsafe {
            asm!(
                "2:",
                "mov eax, {eax}",
                $instruction,
                "dec edi",
                "jnz 2b",
                eax = const $eax,
                inout("edi") $rounds => _,
                inout("ecx") $ecx => _,
                inout("edx") $edx => _,
                out("eax") _,
                out("ebx") _,
            )
        }
    };
}

/// Runs an instruction once, between two magic breakpoints.
macro_rules! traced {
    ($instruction:literal, $eax:expr, $ecx:expr, $edx:expr) => {
        // SAFETY: as for `measured`; the breakpoints exchange a register with itself.
        unsafe {
            asm!(
                "mov eax, {eax}",
                "xchg bx, bx",
                $instruction,
                "xchg bx, bx",
                eax = const $eax,
                inout("ecx") $ecx => _,
                inout("edx") $edx => _,
                out("eax") _,
                out("ebx") _,
                out("edi") _,
            )
        }
    };
}

/// Rows for a guest without APICs: name, instruction, EAX, ECX, EDX.
macro_rules! rows {
    ($use:ident) => {
        $use!("cpuid", "cpuid", 0_u32, 0_u32, 0_u32);
        $use!("pic_read", "in al, 0x21", 0_u32, 0_u32, 0_u32);
        $use!("unclaimed_port", "in al, dx", 0_u32, 0_u32, 0x2f0_u32);
        $use!("pit_read", "in al, 0x40", 0_u32, 0_u32, 0_u32);
        $use!("msr_read", "rdmsr", 0_u32, 0x8b_u32, 0_u32);
    };
}

/// Rows for a guest with APICs, once the local one is in x2APIC mode. The IPI to oneself is from the instruction that
/// lets interrupts in to the one that does not any more, with a handler that only ends the interrupt.
macro_rules! apic_rows {
    ($use:ident) => {
        $use!("mmio_read", "mov eax, [edx]", 0_u32, 0_u32, IO_APIC_DATA);
        $use!("x2apic_eoi", "wrmsr", 0_u32, X2APIC_EOI, 0_u32);
        $use!("x2apic_icr", "wrmsr", IPI, X2APIC_COMMAND, NOBODY);
        $use!("self_ipi", "sti\nwrmsr\ncli", IPI, X2APIC_COMMAND, 0_u32);
    };
}

/// The I/O APIC's register that its index names.
const IO_APIC_DATA: u32 = 0xfec0_0010;
const APIC_BASE: u32 = 0x1b;
const TSC_DEADLINE: u32 = 0x6e0;
/// The local APIC's end of interrupt.
pub(crate) const X2APIC_EOI: u32 = 0x80b;
const X2APIC_SPURIOUS: u32 = 0x80f;
const X2APIC_COMMAND: u32 = 0x830;
const X2APIC_TIMER: u32 = 0x832;
const X2APIC_LINT0: u32 = 0x835;

/// Vector of an IPI, which as a command is a fixed interrupt to the physical APIC ID in EDX. The guest's own is 0.
const IPI: u32 = 0x40;
/// An APIC ID that the guest does not have.
const NOBODY: u32 = 0x2a;
/// Vector of the local APIC's timer.
const TIMER: u32 = 0x50;

// They interrupt only what knows that they change EAX, ECX and EDX. An IPI comes with EDX 0, the own APIC ID.
global_asm!(
    r#"
    .section .text.bench, "ax"
    .globl bench_ipi, bench_timer
bench_ipi:
    xor eax, eax
    mov ecx, {end}
    wrmsr
    mov ecx, {command}
    iretd
bench_timer:
    rdtsc
    iretd
    "#,
    end = const X2APIC_EOI,
    command = const X2APIC_COMMAND,
);

unsafe extern "C" {
    static bench_ipi: u8;
    static bench_timer: u8;
}

fn write_msr(msr: u32, value: u64) {
    // SAFETY: the callers write what changes interrupts only, which are off or have their handlers.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack, preserves_flags));
    }
}

/// Has a handler in machine language, which must keep all registers, take a vector.
pub(crate) fn set_gate(vector: u32, handler: *const u8) {
    const INTERRUPT_GATE: u64 = 0x8e << 40;
    let address = u64::from(handler as u32);
    let gate =
        address & 0xffff | u64::from(tables::CODE) << 16 | INTERRUPT_GATE | (address >> 16) << 48;
    // SAFETY: the handler changes registers only, and interrupts only code that expects that.
    unsafe { idt::replace_gate(vector as u8, gate) };
}

/// Puts the local APIC in x2APIC mode, with the timer in TSC-deadline mode and without the 8259A's interrupts.
pub(crate) fn start_apic() {
    const BOOTSTRAP_X2APIC_ENABLED: u64 = 1 << 8 | 1 << 10 | 1 << 11;
    const ENABLED: u64 = 1 << 8;
    const SPURIOUS_VECTOR: u64 = 0xff;
    const MASKED: u64 = 1 << 16;
    const DEADLINE_MODE: u64 = 2 << 17;
    write_msr(APIC_BASE, 0xfee0_0000 | BOOTSTRAP_X2APIC_ENABLED);
    write_msr(X2APIC_SPURIOUS, ENABLED | SPURIOUS_VECTOR);
    write_msr(X2APIC_LINT0, MASKED);
    write_msr(X2APIC_TIMER, DEADLINE_MODE | u64::from(TIMER));
    set_gate(IPI, &raw const bench_ipi);
    set_gate(TIMER, &raw const bench_timer);
}

/// Halts between two marks until the local APIC's timer interrupts, and tells how long after the deadline that was.
macro_rules! halted {
    ($mark:literal) => {{
        /// Far enough for the processor to be halted when the timer is due.
        const AHEAD: u64 = 20_000;
        let deadline = cpu::tsc() + AHEAD;
        write_msr(TSC_DEADLINE, deadline);
        let (low, high): (u32, u32);
        // SAFETY: the timer's handler leaves the time stamp in EDX and EAX, and nothing else interrupts.
        unsafe { asm!($mark, "sti", "hlt", "cli", $mark, out("eax") low, out("edx") high) };
        write_msr(X2APIC_EOI, 0);
        (u64::from(high) << 32 | u64::from(low)).saturating_sub(deadline)
    }};
}

/// Mean ticks from the timer's deadline to the first instruction of its handler, which ends a halt.
fn wake_up(halts: u64) -> u64 {
    (0..halts).map(|_| halted!("")).sum::<u64>() / halts
}

fn ticks(run: impl Fn(u32)) -> u64 {
    run(ROUNDS); // Warm-up.
    let start = cpu::tsc();
    run(ROUNDS);
    cpu::tsc() - start
}

fn tell(name: &str, ticks: u64) {
    println!("bench {name} ticks={ticks}");
    serial::drain();
}

fn has_apic() -> bool {
    const APIC: u32 = 1 << 9;
    cpu::cpuid(1, 0)[3] & APIC != 0
}

/// Measures every row, or lets an emulator trace one round of each: with APICs, only the rows for such a guest.
pub(crate) fn exits(trace: bool) {
    serial::drain();
    let apic = has_apic();
    if apic {
        start_apic();
    }
    if trace {
        macro_rules! one {
            ($name:literal, $instruction:literal, $eax:expr, $ecx:expr, $edx:expr) => {
                measured!(1_u32, $instruction, $eax, $ecx, $edx);
                traced!($instruction, $eax, $ecx, $edx);
            };
        }
        if apic {
            apic_rows!(one);
            wake_up(1); // Warm-up.
            let _late = halted!("xchg bx, bx");
        } else {
            rows!(one);
        }
    } else {
        let floor = ticks(|rounds| measured!(rounds, "", 0_u32, 0_u32, 0_u32));
        macro_rules! row {
            ($name:literal, $instruction:literal, $eax:expr, $ecx:expr, $edx:expr) => {
                let total = ticks(|rounds| measured!(rounds, $instruction, $eax, $ecx, $edx));
                tell($name, total.saturating_sub(floor) / u64::from(ROUNDS));
            };
        }
        if apic {
            apic_rows!(row);
            tell("hlt_timer", wake_up(100));
        } else {
            rows!(row);
        }
    }
    println!("bench done");
}

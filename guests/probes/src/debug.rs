//! Exceptions by instructions, single steps over instructions that a hypervisor executes, and debug
//! registers.

use core::{
    arch::asm,
    sync::atomic::{AtomicU32, Ordering},
};

use pc::{handover::Boot, println};

use crate::{
    code::{self, Fault, Registers, SOFTWARE, expect, survives},
    paging::poke,
    probe::{Failure, Verdict, ensure},
    tables::{self, DATA, END, FREE, descriptor},
};

/// Conventional memory that nothing uses.
const OPERAND: u32 = 0x8000;
const BAD: u16 = FREE + 0x80;

/// Instructions that raise exceptions, and what each leaves to its handler.
pub(crate) fn exceptions(_: &Boot) -> Verdict {
    let fault = |vector, error: u16, at| Fault {
        vector,
        error: error.into(),
        at,
    };
    // The bounds of BOUND.
    poke(OPERAND, 0);
    poke(OPERAND + 4, 0);
    tables::set(BAD, descriptor(0, 0xffff, 0x4012));
    let software = SOFTWARE.into();
    let rows: [(&str, &[u8], u16, Fault); 17] = [
        ("int3", &[0xcc], 0, fault(3, 0, 1)),
        ("int 3", &[0xcd, 3], 0, fault(3, 0, 2)),
        ("int 2", &[0xcd, 2], 0, fault(2, 0, 2)),
        ("int1", &[0xf1], 0, fault(1, 0, 1)),
        ("int 0x80", &[0xcd, SOFTWARE], 0, fault(software, 0, 2)),
        // MOV AL, 127; ADD AL, 1.
        ("into", &[0xb0, 0x7f, 0x04, 1, 0xce], 0, fault(4, 0, 5)),
        ("div by zero", &[0xf7, 0xf1], 0, fault(0, 0, 0)),
        ("bound", &[0x40, 0x62, 0x02], 0, fault(5, 0, 1)),
        ("ud2", &[0x0f, 0x0b], 0, fault(6, 0, 0)),
        ("lock nop", &[0xf0, 0x90], 0, fault(6, 0, 0)),
        // MOV EAX, CR0; OR AL, 8; MOV CR0, EAX; FLDZ.
        (
            "floating point after a task switch",
            &[0x0f, 0x20, 0xc0, 0x0c, 8, 0x0f, 0x22, 0xc0, 0xd9, 0xee],
            0,
            fault(7, 0, 8),
        ),
        (
            "mov es, beyond the table",
            &[0x8e, 0xc1],
            END,
            fault(13, END, 0),
        ),
        ("mov es, absent", &[0x8e, 0xc1], BAD, fault(11, BAD, 0)),
        ("mov ss, absent", &[0x8e, 0xd1], BAD, fault(12, BAD, 0)),
        ("mov ss, null", &[0x8e, 0xd1], 0, fault(13, 0, 0)),
        ("in of sixteen bytes", &[0x66; 16], 0, fault(13, 0, 0)),
        ("rdpmc", &[0x0f, 0x33], 0x5555, fault(13, 0, 0)),
    ];
    for (name, bytes, selector, expected) in rows {
        println!("probe exceptions: {name}");
        let registers = Registers {
            ecx: selector.into(),
            edx: OPERAND,
            ..Registers::default()
        };
        // SAFETY: each row raises an exception before it does harm; the flag that one sets is cleared below.
        expect(unsafe { code::run(bytes, registers) }, expected)?;
        // SAFETY: CR0.TS clear, as at the start.
        unsafe { asm!("clts", options(nostack, preserves_flags)) }
    }
    Ok(())
}

/// A word that lies half beyond a segment's limit.
pub(crate) fn segment_limit(_: &Boot) -> Verdict {
    tables::set(BAD, descriptor(0, 0xfff, 0x4092));
    // MOV FS, CX; MOV EAX, FS:[0xffd].
    let code = [0x8e, 0xe1, 0x64, 0xa1, 0xfd, 0x0f, 0, 0];
    let registers = Registers {
        ecx: BAD.into(),
        ..Registers::default()
    };
    // SAFETY: reads memory that is there.
    let result = unsafe { code::run(&code, registers) };
    // SAFETY: flat, as at the start.
    unsafe { asm!("mov fs, {:x}", in(reg) DATA, options(nostack, preserves_flags)) }
    expect(
        result,
        Fault {
            vector: 13,
            error: 0,
            at: 2,
        },
    )
}

const MOST: usize = 24;
static STEPS: [AtomicU32; MOST] = [const { AtomicU32::new(0) }; MOST];
static COUNT: AtomicU32 = AtomicU32::new(0);

const DR6_STEP: u32 = 1 << 14;
const DR6_DETECT: u32 = 1 << 13;
const DR6_FIRST: u32 = 1;
const DR6_RESET: u32 = 0xffff_0ff0;
const DR7_RESET: u32 = 0x400;
const DR7_DETECT: u32 = 1 << 13;
const DR7_FIRST: u32 = 1;

fn dr6() -> u32 {
    let value;
    // SAFETY: DR6 only reports.
    unsafe { asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

fn set_debug(dr0: u32, dr7: u32) {
    // SAFETY: the breakpoints of the callers are in their own code, whose exceptions are caught.
    unsafe {
        asm!("mov dr6, {}", "mov dr0, {}", "mov dr7, {}", in(reg) DR6_RESET, in(reg) dr0, in(reg) dr7,
             options(nomem, nostack, preserves_flags));
    }
}

/// PUSHFD; OR [ESP], TF; POPFD.
const TRACE: [u8; 9] = [0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d];
/// PUSHFD; AND [ESP], !TF; POPFD.
const UNTRACE: [u8; 9] = [0x9c, 0x81, 0x24, 0x24, 0xff, 0xfe, 0xff, 0xff, 0x9d];

/// Traces the instructions between; `stops` are the places behind each that must be seen.
fn traced(what: &'static str, instructions: &[u8], stops: &[u32], registers: Registers) -> Verdict {
    println!("probe single-step: {what}");
    let mut code = [0_u8; 63];
    let (begin, end) = (TRACE.len(), TRACE.len() + instructions.len());
    code[..begin].copy_from_slice(&TRACE);
    code[begin..end].copy_from_slice(instructions);
    code[end..end + UNTRACE.len()].copy_from_slice(&UNTRACE);
    COUNT.store(0, Ordering::Relaxed);
    set_debug(0, DR7_RESET);
    // SAFETY: the callers' instructions change general registers only.
    let result = unsafe {
        code::run_handling(
            1,
            |frame| {
                let count = COUNT.fetch_add(1, Ordering::Relaxed);
                if let Some(slot) = STEPS.get(count as usize) {
                    slot.store(frame.eip - code::place(), Ordering::Relaxed);
                }
            },
            &code[..end + UNTRACE.len()],
            registers,
        )
    };
    survives(result)?;
    ensure(dr6() & DR6_STEP != 0, "dr6", dr6())?;
    // The last three are those that end the trace.
    let (start, last) = (begin as u32, end as u32);
    let expected = stops
        .iter()
        .map(|stop| start + stop)
        .chain([last + 1, last + 8, last + 9]);
    let mut count = 0;
    for stop in expected {
        let seen = STEPS[count].load(Ordering::Relaxed);
        if seen != stop {
            println!("probe single-step: stop {count} should be at {stop:#x}");
            return Err(Failure {
                what: "stopped at",
                found: seen,
            });
        }
        count += 1;
    }
    let stops = COUNT.load(Ordering::Relaxed);
    ensure(stops == count as u32, "stops", stops)
}

/// Single steps.
pub(crate) fn single_step(_: &Boot) -> Verdict {
    let registers = Registers {
        ecx: 0x8b,
        edx: 0x80,
        esi: OPERAND,
        ..Registers::default()
    };
    traced("nop; nop", &[0x90, 0x90], &[1, 2], registers)?;
    traced(
        "rdmsr; in; out; rdtsc; cpuid",
        &[0x0f, 0x32, 0xe4, 0x21, 0xe6, 0x80, 0x0f, 0x31, 0x0f, 0xa2],
        &[2, 4, 6, 8, 10],
        registers,
    )?;
    // MOV EAX, SS; MOV SS, EAX; CPUID: no trap behind the second.
    traced(
        "mov ss; cpuid",
        &[0x8c, 0xd0, 0x8e, 0xd0, 0x0f, 0xa2],
        &[2, 6],
        registers,
    )?;
    // MOV ECX, 3: a trap behind each element.
    traced(
        "rep outsb",
        &[0xb9, 3, 0, 0, 0, 0xf3, 0x6e],
        &[5, 5, 5, 7],
        registers,
    )?;
    // MOV EAX, CR0; OR EAX, CD; MOV CR0, EAX; AND EAX, !(CD | NW); MOV CR0, EAX.
    traced(
        "mov cr0",
        &[
            0x0f, 0x20, 0xc0, 0x0d, 0, 0, 0, 0x40, 0x0f, 0x22, 0xc0, 0x25, 0xff, 0xff, 0xff, 0x9f,
            0x0f, 0x22, 0xc0,
        ],
        &[3, 8, 11, 16, 19],
        registers,
    )
}

/// DR7's bits that nobody can set: bit 10 reads as one, 12, 14 and 15 as zero.
pub(crate) fn reserved_bits(_: &Boot) -> Verdict {
    set_debug(0, 0xd000);
    let dr7: u32;
    // SAFETY: a read without side effects.
    unsafe { asm!("mov {}, dr7", out(reg) dr7, options(nomem, nostack, preserves_flags)) }
    set_debug(0, DR7_RESET);
    ensure(dr7 == DR7_RESET, "dr7 became", dr7)
}

/// Breakpoints, protected and aliased registers.
pub(crate) fn debug_registers(_: &Boot) -> Verdict {
    let debug = |at| Fault {
        vector: 1,
        error: 0,
        at,
    };
    // SAFETY: each raises an exception, or changes EAX to EDX and debug registers only.
    let run = |code: &[u8], eax| unsafe {
        code::run(
            code,
            Registers {
                eax,
                ..Registers::default()
            },
        )
    };
    println!("probe debug: general detect");
    set_debug(0, DR7_RESET);
    // MOV DR7, EAX; MOV EAX, DR0.
    let detect = [0x0f, 0x23, 0xf8, 0x0f, 0x21, 0xc0];
    expect(run(&detect, DR7_RESET | DR7_DETECT), debug(3))?;
    ensure(dr6() & DR6_DETECT != 0, "dr6", dr6())?;

    for (what, code) in [
        ("cpuid", [0x90, 0x0f, 0xa2]),
        ("in", [0x90, 0xe4, 0x21]),
        ("hlt", [0x90, 0xf4, 0x90]),
    ] {
        println!("probe debug: breakpoint at {what}");
        set_debug(code::place() + 1, DR7_RESET | DR7_FIRST);
        let result = run(&code, 0);
        let found = dr6();
        set_debug(0, DR7_RESET);
        expect(result, debug(1))?;
        ensure(found & 0xf == DR6_FIRST, "dr6", found)?;
    }

    println!("probe debug: dr0 across an exit");
    // MOV DR0, EAX; CPUID; MOV EAX, DR0.
    let across = [0x0f, 0x23, 0xc0, 0x0f, 0xa2, 0x0f, 0x21, 0xc0];
    let kept = survives(run(&across, 0x1234_5678))?.eax;
    ensure(kept == 0x1234_5678, "dr0 became", kept)?;

    println!("probe debug: dr4");
    // MOV EAX, DR4, without and with CR4.DE.
    let alias = survives(run(&[0x0f, 0x21, 0xe0], 0))?.eax;
    ensure(alias == dr6(), "dr4 is", alias)?;
    let extensions = [
        0x0f, 0x20, 0xe0, 0x83, 0xc8, 8, 0x0f, 0x22, 0xe0, 0x0f, 0x21, 0xe0,
    ];
    let result = run(&extensions, 0);
    // SAFETY: CR4 as it was.
    unsafe {
        asm!("mov {0}, cr4", "and {0}, -9", "mov cr4, {0}", out(reg) _, options(nomem, nostack));
    }
    expect(
        result,
        Fault {
            vector: 6,
            error: 0,
            at: 9,
        },
    )
}

//! The local APIC and the I/O APIC of a guest that has them: every claimed form of an access to memory, with
//! the same instruction on RAM as its model, and non-maskable interrupts.

use core::sync::atomic::{AtomicU32, Ordering};

use pc::{handover::Boot, idt, println};

use crate::{
    code::{self, Registers, survives},
    paging::{page, peek, poke},
    probe::{Verdict, ensure},
    tables, tasks,
};

const LOCAL: u32 = 0xfee0_0000;
/// A register that keeps all 32 bits: the timer's initial count. Its interrupt is masked.
const COUNT: u32 = LOCAL + 0x380;
const COMMAND: u32 = LOCAL + 0x300;
const COMMAND_HIGH: u32 = LOCAL + 0x310;
const IO_INDEX: u32 = 0xfec0_0000;
const IO_DATA: u32 = 0xfec0_0010;

/// Asserted, to a physical destination, as an NMI.
const SEND_NMI: u32 = 0x4400;

const CF: u32 = 1;
const PF: u32 = 1 << 2;
const AF: u32 = 1 << 4;
const ZF: u32 = 1 << 6;
const SF: u32 = 1 << 7;
const OF: u32 = 1 << 11;
const STATUS: u32 = CF | PF | AF | ZF | SF | OF;
/// Undefined behind a bit test.
const BITS: u32 = PF | AF | SF | OF;

/// The memory operand of a form.
#[derive(Clone, Copy)]
enum Operand {
    /// By ModRM, with this value in its register field.
    Modrm(u8),
    /// At an address in the instruction.
    Offset,
}
use Operand::{Modrm, Offset};

/// Bytes before ModRM, the operand, bytes of an immediate, undefined flags.
type Form<'a> = (&'a [u8], Operand, &'a [u8], u32);

/// EBX, BX, BL.
const B: Operand = Modrm(3);
/// BH.
const BH: Operand = Modrm(7);

const FORMS: &[Form<'static>] = &[
    // MOV.
    (&[0x8a], B, &[], 0),
    (&[0x8a], BH, &[], 0),
    (&[0x8b], B, &[], 0),
    (&[0x66, 0x8b], B, &[], 0),
    (&[0x88], B, &[], 0),
    (&[0x88], BH, &[], 0),
    (&[0x89], B, &[], 0),
    (&[0x66, 0x89], B, &[], 0),
    (&[0xa0], Offset, &[], 0),
    (&[0xa1], Offset, &[], 0),
    (&[0x66, 0xa1], Offset, &[], 0),
    (&[0xa2], Offset, &[], 0),
    (&[0xa3], Offset, &[], 0),
    (&[0x66, 0xa3], Offset, &[], 0),
    (&[0xc6], Modrm(0), &[0x9a], 0),
    (&[0xc7], Modrm(0), &[0x78, 0x56, 0x34, 0x92], 0),
    (&[0x66, 0xc7], Modrm(0), &[0x34, 0x92], 0),
    // MOVZX, MOVSX, MOVNTI.
    (&[0x0f, 0xb6], B, &[], 0),
    (&[0x0f, 0xb7], B, &[], 0),
    (&[0x66, 0x0f, 0xb6], B, &[], 0),
    (&[0x0f, 0xbe], B, &[], 0),
    (&[0x0f, 0xbf], B, &[], 0),
    (&[0x66, 0x0f, 0xbe], B, &[], 0),
    (&[0x0f, 0xc3], B, &[], 0),
    // XCHG, CMPXCHG, XADD, with and without LOCK.
    (&[0x86], B, &[], 0),
    (&[0x87], B, &[], 0),
    (&[0x66, 0x87], B, &[], 0),
    (&[0xf0, 0x87], B, &[], 0),
    (&[0x0f, 0xb0], B, &[], 0),
    (&[0x0f, 0xb1], B, &[], 0),
    (&[0x66, 0x0f, 0xb1], B, &[], 0),
    (&[0xf0, 0x0f, 0xb1], B, &[], 0),
    (&[0x0f, 0xc0], B, &[], 0),
    (&[0x0f, 0xc1], B, &[], 0),
    (&[0xf0, 0x0f, 0xc1], B, &[], 0),
    // TEST, NOT, NEG, INC, DEC.
    (&[0x84], B, &[], AF),
    (&[0x85], B, &[], AF),
    (&[0xf6], Modrm(0), &[0x81], AF),
    (&[0xf7], Modrm(0), &[0x01, 0, 0, 0x80], AF),
    (&[0xf6], Modrm(2), &[], 0),
    (&[0xf7], Modrm(2), &[], 0),
    (&[0xf6], Modrm(3), &[], 0),
    (&[0xf7], Modrm(3), &[], 0),
    (&[0xf0, 0xf7], Modrm(3), &[], 0),
    (&[0xfe], Modrm(0), &[], 0),
    (&[0xff], Modrm(0), &[], 0),
    (&[0xfe], Modrm(1), &[], 0),
    (&[0xff], Modrm(1), &[], 0),
    (&[0x66, 0xff], Modrm(1), &[], 0),
    (&[0xf0, 0xff], Modrm(0), &[], 0),
    // BT, BTS, BTR, BTC: the index in a register and in the instruction.
    (&[0x0f, 0xba], Modrm(4), &[31], BITS),
    (&[0x0f, 0xba], Modrm(5), &[7], BITS),
    (&[0x0f, 0xba], Modrm(6), &[37], BITS),
    (&[0x0f, 0xba], Modrm(7), &[31], BITS),
    (&[0x66, 0x0f, 0xba], Modrm(4), &[15], BITS),
    (&[0xf0, 0x0f, 0xba], Modrm(5), &[30], BITS),
];

/// BT, BTS, BTR and BTC by a register that holds an index within the operand.
const INDEXED: &[Form<'static>] = &[
    (&[0x0f, 0xa3], B, &[], BITS),
    (&[0x0f, 0xab], B, &[], BITS),
    (&[0x0f, 0xb3], B, &[], BITS),
    (&[0x0f, 0xbb], B, &[], BITS),
    (&[0x66, 0x0f, 0xa3], B, &[], BITS),
];

/// MOVBE, where the processor has it.
const SWAPPED: &[Form<'static>] = &[
    (&[0x0f, 0x38, 0xf0], B, &[], 0),
    (&[0x0f, 0x38, 0xf1], B, &[], 0),
    (&[0x66, 0x0f, 0x38, 0xf0], B, &[], 0),
];

/// The forms of ADD, OR, ADC, SBB, AND, SUB, XOR and CMP between memory and a register: whether they have a
/// prefix for 16 bits, and the low bits of the opcode. The operation's number comes above.
const ARITHMETIC: [(bool, u8); 6] = [
    (false, 0),
    (false, 1),
    (false, 2),
    (false, 3),
    (true, 1),
    (true, 3),
];

const VALUES: [u32; 6] = [0, 1, 0x7fff_ffff, 0x8000_0000, 0x1234_5678, 0xffff_ffff];

/// What an instruction left.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Outcome {
    registers: Registers,
    memory: u32,
}

/// Bytes of a form at an address. The addressing differs by `style`; ESI is 16 and ECX the address.
fn encode(form: &Form<'_>, address: u32, style: u32, carry: bool) -> ([u8; 32], usize) {
    let (opcode, operand, immediate, _) = *form;
    let mut bytes = [0; 32];
    let mut length = 0;
    let mut put = |part: &[u8]| {
        bytes[length..length + part.len()].copy_from_slice(part);
        length += part.len();
    };
    // STC or CLC.
    put(&[if carry { 0xf9 } else { 0xf8 }]);
    put(opcode);
    match operand {
        Offset => put(&address.to_le_bytes()),
        Modrm(register) => {
            let register = register << 3;
            match style % 4 {
                // [ECX], [ECX + 0], [ECX + ESI * 4 - 64], [address].
                0 => put(&[register | 1]),
                1 => put(&[0x40 | register | 1, 0]),
                2 => {
                    put(&[0x80 | register | 4, 0xb1]);
                    put(&(-64_i32).to_le_bytes());
                }
                _ => {
                    put(&[register | 5]);
                    put(&address.to_le_bytes());
                }
            }
        }
    }
    put(immediate);
    // PUSHFD; POP EDI.
    put(&[0x9c, 0x5f]);
    (bytes, length)
}

fn outcome(
    form: &Form<'_>,
    address: u32,
    style: u32,
    carry: bool,
    start: Registers,
    value: u32,
) -> Result<Outcome, crate::probe::Failure> {
    let (bytes, length) = encode(form, address, style, carry);
    poke(address, value);
    let start = Registers {
        ecx: address,
        esi: 16,
        ..start
    };
    // SAFETY: the instruction accesses a register of the local APIC or a word of the pool.
    let mut registers = survives(unsafe { code::run(&bytes[..length], start) })?;
    registers.ecx = registers.ecx.wrapping_sub(address);
    registers.edi &= STATUS & !form.3;
    Ok(Outcome {
        registers,
        memory: peek(address),
    })
}

/// Whether the form writes less than the register: the APIC takes whole registers only.
fn writes_a_part(form: &Form<'_>) -> bool {
    match *form.0 {
        [0x66, ..] | [.., 0x0f, 0xb0 | 0xc0] => true,
        [.., 0x0f, _] | [.., 0x0f, 0x38, _] => false,
        [.., 0x80 | 0x86 | 0x88 | 0xa2 | 0xc6 | 0xf6 | 0xfe] => true,
        [.., opcode] => opcode < 0x40 && opcode & 7 == 0,
        [] => false,
    }
}

fn compare(form: &Form<'_>, style: u32, ebx: u32) -> Verdict {
    let ram = page(160);
    for (number, value) in (0..).zip(VALUES) {
        for (carry, eax) in [(false, value), (true, 0xfedc_ba98)] {
            let start = Registers {
                eax,
                ebx,
                edx: 0xd,
                ..Registers::default()
            };
            let style = style + number;
            let model = outcome(form, ram, style, carry, start, value)?;
            let found = outcome(form, COUNT, style, carry, start, value)?;
            let expected = Outcome {
                memory: if writes_a_part(form) {
                    value
                } else {
                    model.memory
                },
                ..model
            };
            if found != expected {
                println!(
                    "probe mmio: {:02x?} style {} on {value:#x}: {:x?} and {:#x}, should be {:x?} and {:#x}",
                    form.0,
                    style % 4,
                    found.registers,
                    found.memory,
                    expected.registers,
                    expected.memory
                );
            }
            ensure(found == expected, "differs, style", style % 4)?;
        }
    }
    Ok(())
}

/// Every form.
pub(crate) fn forms(_: &Boot) -> Verdict {
    const MOVBE: u32 = 1 << 22;
    let mut count = 0;
    let swapped = if pc::cpu::cpuid(1, 0)[2] & MOVBE != 0 {
        SWAPPED
    } else {
        &[]
    };
    for form in FORMS.iter().chain(swapped) {
        compare(form, count, 0x89ab_cdef)?;
        count += 1;
    }
    for form in INDEXED {
        compare(form, count, 13)?;
        count += 1;
    }
    for operation in 0..8_u8 {
        let undefined = if matches!(operation, 1 | 4 | 6) {
            AF
        } else {
            0
        };
        for (short, low) in ARITHMETIC {
            let opcode = [0x66, operation << 3 | low];
            let opcode = &opcode[usize::from(!short)..];
            compare(&(opcode, B, &[], undefined), count, 0x89ab_cdef)?;
            count += 1;
        }
        for (opcode, immediate) in [
            (&[0x80][..], &[0x85][..]),
            (&[0x81], &[0x01, 0x80, 0xff, 0x7f]),
            (&[0x83], &[0xfe]),
            (&[0xf0, 0x83], &[0x01]),
            (&[0x66, 0x83], &[0x7f]),
        ] {
            // CMP cannot be locked.
            if operation == 7 && opcode[0] == 0xf0 {
                continue;
            }
            compare(&(opcode, Modrm(operation), immediate, undefined), count, 0)?;
            count += 1;
        }
    }
    println!("probe mmio: {count} forms");
    redirection()
}

/// The I/O APIC: a redirection entry that is written, changed and read in different ways.
fn redirection() -> Verdict {
    const LAST_LOW: u32 = 0x10 + 2 * 23;
    const MASKED: u32 = 1 << 16;
    poke(IO_INDEX, LAST_LOW + 1);
    let registers = Registers {
        eax: 0x5500_0000,
        ebx: 0x0300_0000,
        ecx: IO_DATA,
        ..Registers::default()
    };
    // XCHG [ECX], EAX; OR [ECX], EBX; MOVZX EDX, BYTE [ECX + 3].
    let code = [0x87, 0x01, 0x09, 0x19, 0x0f, 0xb6, 0x51, 0x03];
    // SAFETY: changes the destination of an input that is masked.
    let end = survives(unsafe { code::run(&code, registers) })?;
    ensure(end.eax == 0, "the destination was", end.eax)?;
    ensure(end.edx == 0x57, "the destination is", end.edx)?;
    poke(IO_INDEX, LAST_LOW);
    ensure(peek(IO_DATA) & MASKED != 0, "the entry is", peek(IO_DATA))?;
    let index = peek(IO_INDEX);
    ensure(index & 0xff == LAST_LOW, "the index is", index)
}

static NMIS: AtomicU32 = AtomicU32::new(0);
static NESTED: AtomicU32 = AtomicU32::new(0);

fn send_nmi() {
    poke(COMMAND_HIGH, peek(LOCAL + 0x20) & 0xff00_0000);
    poke(COMMAND, SEND_NMI);
}

/// The second comes soon, though nothing that exits is executed and interrupts are off.
fn both_came() -> Verdict {
    const TICKS: u64 = 1_000_000;
    let start = pc::cpu::tsc();
    while pc::cpu::tsc() - start < TICKS {}
    let count = NMIS.load(Ordering::Relaxed);
    ensure(count == 2, "non-maskable interrupts", count)
}

/// A return from the first that faults, because of its code segment, until the fault's handler mends that. Whether the
/// second comes behind the fault or behind the return that succeeds, processors differ.
fn faulting_return() -> Verdict {
    static FAULTS: AtomicU32 = AtomicU32::new(0);
    println!("probe nmi: a return that faults");
    NMIS.store(0, Ordering::Relaxed);
    idt::set_handler(2, |frame| {
        if NMIS.fetch_add(1, Ordering::Relaxed) == 0 {
            send_nmi();
            frame.cs = tables::END.into();
        }
    });
    idt::set_handler(13, |frame| {
        FAULTS.fetch_add(1, Ordering::Relaxed);
        // EIP, CS and EFLAGS of the return that faulted lie above what this fault pushed.
        let behind = (&raw mut *frame).wrapping_add(1).cast::<u32>();
        // SAFETY: the return was to the same privilege level, on this stack.
        unsafe { behind.add(1).write_volatile(tables::CODE.into()) }
    });
    send_nmi();
    both_came()?;
    let faults = FAULTS.load(Ordering::Relaxed);
    ensure(faults == 1, "faults", faults)
}

/// Non-maskable interrupts, by the local APIC, with interrupts off.
pub(crate) fn nmi(_: &Boot) -> Verdict {
    idt::set_handler(2, |_| {
        let number = NMIS.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            // Held back until this handler has returned.
            send_nmi();
            let _ = pc::cpu::cpuid(0, 0);
            NESTED.store(NMIS.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        }
    });
    println!("probe nmi: one, and one in its handler");
    send_nmi();
    both_came()?;
    let nested = NESTED.load(Ordering::Relaxed);
    ensure(nested == 0, "one came in the handler of another", nested)?;
    faulting_return()?;
    // Each ends by the IRET of its task, which lets in the next.
    for _ in 0..2 {
        tasks::interrupted_by(2, COMMAND, SEND_NMI)?;
    }
    Ok(())
}

//! Real mode and back, and 16-bit protected code.

use core::arch::global_asm;

use pc::{
    cpu,
    handover::Boot,
    port::{inb, outb},
    println,
};

use crate::{
    code::{self, Registers, survives},
    paging::{peek, poke},
    probe::{Verdict, ensure},
    tables::{self, CODE, DATA, FREE, descriptor},
};

/// Where the real-mode code is copied to.
const PLACE: u32 = 0x8000;
const CODE_16: u16 = FREE + 0x80;
const DATA_16: u16 = FREE + 0x88;
/// Where it leaves what it found.
const FOUND: u32 = 0x7f00;

// Called in 32-bit protected mode without paging, at `PLACE`; comes back there. In between it is in real
// mode: CPUID, ports, string I/O, an MSR, a software interrupt, an undefined instruction whose handler
// skips it, and a halt that the clock ends.
global_asm!(
    r#"
    .section .text.real, "ax"
    .globl real_start, real_end
real_start:
    pushad
    mov [{found} - 4], esp
    sidt [{found} - 12]
    .byte 0xea
    .long real_16 - real_start
    .word {code_16}
    .code16
real_16:
    mov ax, {data_16}
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    .byte 0xea
    .word real_mode - real_start
    .word {place} >> 4
real_mode:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    lidt [{found} - 20]
    mov eax, 0
    cpuid
    mov [{found}], eax
    in al, 0x21
    mov [{found} + 4], al
    mov ecx, 0x8b
    rdmsr
    mov [{found} + 8], eax
    mov di, {found} + 12
    mov cx, 4
    mov dx, 0x21
    rep insb
    mov byte ptr [{found} + 16], 0
    int 0x60
    .byte 0x0f, 0x0b
    mov byte ptr [{found} + 18], 0x5a
    sti
    hlt
    cli
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long {place} + real_back - real_start
    .word {code}
    .globl real_software, real_undefined, real_clock
real_software:
    mov byte ptr [{found} + 16], 0x60
    iret
real_undefined:
    push bp
    mov bp, sp
    add word ptr [bp + 2], 2
    pop bp
    mov byte ptr [{found} + 17], 6
    iret
real_clock:
    push ax
    mov al, 0x20
    out 0x20, al
    inc byte ptr [{found} + 19]
    pop ax
    iret
    .code32
real_back:
    mov ax, {data}
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov esp, [{found} - 4]
    lidt [{found} - 12]
    popad
    ret
real_end:
    "#,
    found = const FOUND,
    place = const PLACE,
    code_16 = const CODE_16,
    data_16 = const DATA_16,
    code = const CODE,
    data = const DATA,
);

unsafe extern "C" {
    static real_start: u8;
    static real_end: u8;
    static real_software: u8;
    static real_undefined: u8;
    static real_clock: u8;
}

/// Real mode.
pub(crate) fn real(_: &Boot) -> Verdict {
    const CLOCK: u32 = 0x70;
    let start = &raw const real_start as u32;
    let length = &raw const real_end as u32 - start;
    for offset in 0..length {
        // SAFETY: from the code to conventional memory that nothing uses.
        unsafe {
            let byte = ((start + offset) as *const u8).read();
            ((PLACE + offset) as *mut u8).write_volatile(byte);
        }
    }
    for (vector, handler) in [
        (0x60, &raw const real_software as u32),
        (6, &raw const real_undefined as u32),
        (CLOCK, &raw const real_clock as u32),
    ] {
        poke(4 * vector, (PLACE >> 4) << 16 | (handler - start));
    }
    for at in (FOUND..FOUND + 32).step_by(4) {
        poke(at, 0);
    }
    // The descriptor table's register of real mode: limit 0x3ff, base 0.
    poke(FOUND - 20, 0x3ff);
    poke(FOUND - 16, 0);
    tables::set(CODE_16, descriptor(PLACE, 0xffff, 0x9a));
    tables::set(DATA_16, descriptor(0, 0xffff, 0x92));
    crate::time::start_at(CLOCK as u8, 11_932, 0xfe);
    cpu::disable_interrupts();
    println!("probe real-mode: going there");
    let mask = inb(0x21);
    // SAFETY: the code comes back in the mode it was called in, with all registers but flags restored.
    let result = unsafe { code::run_at(PLACE, length, Registers::default()) };
    crate::time::stop();
    survives(result)?;
    println!("probe real-mode: back");
    let byte = |at: u32| peek(FOUND + (at & !3)) >> (8 * (at & 3)) & 0xff;
    let leaf = peek(FOUND);
    ensure(leaf == cpu::cpuid(0, 0)[0], "cpuid said", leaf)?;
    ensure(byte(4) == mask.into(), "the port said", byte(4))?;
    ensure(peek(FOUND + 8) == 0, "the msr said", peek(FOUND + 8))?;
    for at in 12..16 {
        ensure(byte(at) == mask.into(), "insb brought", byte(at))?;
    }
    ensure(byte(16) == 0x60, "int 0x60 left", byte(16))?;
    ensure(byte(17) == 6, "the undefined instruction left", byte(17))?;
    ensure(byte(18) == 0x5a, "what comes behind it left", byte(18))?;
    ensure(byte(19) >= 1, "clock interrupts", byte(19))
}

/// 16-bit protected code, at a base of its own.
pub(crate) fn protected_16(_: &Boot) -> Verdict {
    const TARGET: u32 = 0x7000;
    // XOR EAX, EAX; CPUID; PUSH EAX; IN AL, 0x21; MOV CX, 3; MOV DI, 0x7000; MOV DX, 0x21; REP INSB; POP EAX; RETF.
    const WORK: [u8; 27] = [
        0x66, 0x31, 0xc0, 0x0f, 0xa2, 0x66, 0x50, 0xe4, 0x21, 0xb9, 3, 0, 0xbf, 0x00, 0x70, 0xba,
        0x21, 0, 0xf3, 0x6c, 0x66, 0x58, 0x66, 0xcb, 0, 0, 0,
    ];
    for (offset, byte) in (0..).zip(WORK) {
        // SAFETY: conventional memory that nothing uses.
        unsafe { ((PLACE + offset) as *mut u8).write_volatile(byte) }
    }
    tables::set(CODE_16, descriptor(PLACE, 0xffff, 0x9a));
    poke(TARGET, 0);
    let mask = inb(0x21);
    outb(0x21, 0x69);
    let [low, high] = CODE_16.to_le_bytes();
    let registers = Registers {
        edi: 0x1234_0000,
        ..Registers::default()
    };
    // SAFETY: the far call runs the code above, which keeps the stack.
    let result = unsafe { code::run(&[0x9a, 0, 0, 0, 0, low, high], registers) };
    outb(0x21, mask);
    let end = survives(result)?;
    let leaf = cpu::cpuid(0, 0);
    ensure(end.eax == leaf[0], "cpuid said", end.eax)?;
    ensure(end.ebx == leaf[1], "cpuid said in ebx", end.ebx)?;
    ensure(end.ecx == leaf[2] & 0xffff_0000, "ecx", end.ecx)?;
    ensure(end.edi == 0x1234_7003, "edi", end.edi)?;
    ensure(peek(TARGET) == 0x0069_6969, "insb brought", peek(TARGET))
}

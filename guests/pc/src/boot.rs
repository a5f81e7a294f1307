//! From the boot loader to Rust: multiboot1 header, descriptor table, stack, cleared BSS.

use core::arch::global_asm;

use crate::{
    handover::Boot,
    multiboot::{HEADER_FLAGS, HEADER_MAGIC},
};

const STACK_SIZE: usize = 64 * 1024;

/// Selector of the flat code segment.
pub(crate) const CODE: u16 = 0x08;
/// Selector of the flat data segment.
const DATA: u16 = 0x10;

global_asm!(
    r#"
    .section .multiboot, "a"
    .balign 4
    .long {magic}, {flags}, -({magic} + {flags})

    .section .text.start, "ax"
    .global _start
_start:
    cli
    cld
    mov ebp, eax                    // the loader's magic
    mov esi, ebx                    // the loader's information
    lgdt [gdt_pointer]
    mov esp, offset boot_stack_end
    push {code}
    mov eax, offset flat_code
    push eax
    retf
flat_code:
    mov eax, {data}
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov edi, offset __bss_start
    mov ecx, offset __bss_end
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd
    sub esp, 8
    push esi
    push ebp
    xor ebp, ebp
    call {entry}
    ud2

    .section .data.gdt, "aw"
    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff
    .quad 0x00cf92000000ffff
gdt_pointer:
    .word 23
    .long gdt

    .section .bss.stack, "aw", @nobits
    .balign 16
    .space {stack}
boot_stack_end:
    "#,
    magic = const HEADER_MAGIC,
    flags = const HEADER_FLAGS,
    code = const CODE,
    data = const DATA,
    stack = const STACK_SIZE,
    entry = sym entry,
);

unsafe extern "Rust" {
    /// The guest's main function; [`entry!`](crate::entry) defines it.
    fn pc_main(boot: Boot) -> !;
}

extern "C" fn entry(magic: u32, info: u32) -> ! {
    crate::serial::init();
    // SAFETY: `_start` hands over what the loader left in EAX and EBX; if the magic holds, the protocol
    // says that EBX points to the information, and nothing has been written outside the image since.
    let boot = unsafe { Boot::from_loader(magic, info) };
    // SAFETY: `entry!` is the only definition of this symbol and gives it this type.
    unsafe { pc_main(boot) }
}

/// Names the guest's main function, a `fn(Boot) -> !`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // SAFETY: no other item of this program has the name, and the caller in `pc` declares this type.
        #[unsafe(no_mangle)]
        fn pc_main(boot: $crate::handover::Boot) -> ! {
            let main: fn($crate::handover::Boot) -> ! = $main;
            main(boot)
        }
    };
}

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
}

/// The first address of the image, and the one after its last, BSS included.
#[must_use]
pub fn image() -> (u32, u32) {
    (
        &raw const __image_start as u32,
        &raw const __image_end as u32,
    )
}

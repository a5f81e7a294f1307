# From the boot loader to Rust, and from a start-up IPI to Rust.

    .set PRESENT_WRITABLE, 0x3
    .set LARGE, 0x80
    .set CR0_ON, 0x80010003        # PG, WP, MP, PE
    .set CR0_OFF, 0x9ffffff3       # not CD, NW, EM, TS
    .set CR4_PAE, 0x20
    .set EFER, 0xc0000080
    .set EFER_LME_NXE, 0x900

# The multiboot2 header (Multiboot2 Specification 2.0, section 3.1).
    .section .multiboot2, "a"
    .balign 8
multiboot2_header:
    .long 0xe85250d6
    .long 0
    .long multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + 0 + (multiboot2_header_end - multiboot2_header))
    # Modules on page boundaries.
    .short 6, 0
    .long 8
    # End.
    .short 0, 0
    .long 8
multiboot2_header_end:

# 32-bit protected mode, flat segments, paging off: EAX holds the boot loader's magic, EBX the
# physical address of its information.
    .section .text32, "ax"
    .code32
    .global boot_entry
boot_entry:
    cli
    cld
    mov edi, eax
    mov esi, ebx
    rdtsc
    mov dword ptr [phys_entry_tsc], eax
    mov dword ptr [phys_entry_tsc + 4], edx
    mov esp, offset phys_boot_stack_top

    # Page directories for the first 4 GiB in 2 MiB pages.
    mov ecx, 2048
    mov ebx, offset phys_boot_pds
    mov eax, PRESENT_WRITABLE | LARGE
1:  mov dword ptr [ebx], eax
    mov dword ptr [ebx + 4], 0
    add eax, 0x200000
    add ebx, 8
    dec ecx
    jnz 1b
    mov ecx, 4
    mov ebx, offset phys_boot_pdpt_low
    mov eax, offset phys_boot_pds
    or eax, PRESENT_WRITABLE
2:  mov dword ptr [ebx], eax
    add eax, 0x1000
    add ebx, 8
    dec ecx
    jnz 2b
    # They appear at 0, at the direct map, and the first of them where the image is linked.
    mov eax, offset phys_boot_pdpt_low
    or eax, PRESENT_WRITABLE
    mov dword ptr [phys_boot_pml4], eax
    mov dword ptr [phys_boot_pml4 + 256 * 8], eax
    mov eax, offset phys_boot_pds
    or eax, PRESENT_WRITABLE
    mov dword ptr [phys_boot_pdpt_high + 510 * 8], eax
    mov eax, offset phys_boot_pdpt_high
    or eax, PRESENT_WRITABLE
    mov dword ptr [phys_boot_pml4 + 511 * 8], eax

    mov eax, cr4
    or eax, CR4_PAE
    mov cr4, eax
    mov eax, offset phys_boot_pml4
    mov cr3, eax
    mov ecx, EFER
    rdmsr
    or eax, EFER_LME_NXE
    wrmsr
    mov eax, cr0
    and eax, CR0_OFF
    or eax, CR0_ON
    mov cr0, eax
    lgdt [phys_boot_gdt_pointer]
    push 8
    mov eax, offset phys_boot_long_mode
    push eax
    retf

    .section .text.boot_long_mode, "ax"
    .code64
    .global boot_long_mode
boot_long_mode:
    movabs rax, offset boot_upper_half
    jmp rax
boot_upper_half:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov eax, 0x10
    mov ss, eax
    movabs rsp, offset boot_stack_top
    xor ebp, ebp
    mov edi, edi
    mov esi, esi
    call boot_main
4:  hlt
    jmp 4b

# Leaves the boot stack for good: RDI is the new stack's top, RSI the function to go on with.
    .global continue_on_stack
continue_on_stack:
    mov rsp, rdi
    xor ebp, ebp
    call rsi
5:  hlt
    jmp 5b

# The other processors start here, in real mode, in a copy of this code at TRAMPOLINE.
    .section .rodata.trampoline, "a"
    .set TRAMPOLINE, 0x8000
    .set TRAMPOLINE_CR3, TRAMPOLINE + (trampoline_cr3 - trampoline_start)
    .set TRAMPOLINE_GDT_POINTER, TRAMPOLINE + (trampoline_gdt_pointer - trampoline_start)
    .code16
    .global trampoline_start
trampoline_start:
    cli
    cld
    xor eax, eax
    mov ds, ax
    mov eax, dword ptr [TRAMPOLINE_CR3]
    mov cr3, eax
    mov eax, cr4
    or eax, CR4_PAE
    mov cr4, eax
    mov ecx, EFER
    rdmsr
    or eax, EFER_LME_NXE
    wrmsr
    mov eax, cr0
    and eax, CR0_OFF
    or eax, CR0_ON
    mov cr0, eax
    lgdt [TRAMPOLINE_GDT_POINTER]
    # A far jump with a 32-bit offset.
    .byte 0x66, 0xea
    .long TRAMPOLINE + (trampoline_long_mode - trampoline_start)
    .short 8
    .code64
trampoline_long_mode:
    movabs rax, offset ap_entry
    jmp rax
    .balign 8
trampoline_cr3:
    .long phys_boot_pml4
    .balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
trampoline_gdt_pointer:
    .short trampoline_gdt_pointer - trampoline_gdt - 1
    .long TRAMPOLINE + (trampoline_gdt - trampoline_start)
    .global trampoline_end
trampoline_end:

    .section .text.ap_entry, "ax"
    .code64
ap_entry:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov eax, 0x10
    mov ss, eax
    mov rax, qword ptr [ap_cr3]
    mov cr3, rax
    mov rsp, qword ptr [ap_stack_top]
    xor ebp, ebp
    call ap_main
6:  hlt
    jmp 6b

    .section .rodata.boot_gdt, "a"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .global boot_gdt_pointer
boot_gdt_pointer:
    .short boot_gdt_pointer - boot_gdt - 1
    .quad boot_gdt - 0xffffffff80000000

    .section .bss.boot_tables, "aw", @nobits
    .balign 4096
    .global boot_pml4, boot_pdpt_low, boot_pdpt_high, boot_pds, boot_stack_top
boot_pml4: .skip 4096
boot_pdpt_low: .skip 4096
boot_pdpt_high: .skip 4096
boot_pds: .skip 4 * 4096
    .skip 32768
boot_stack_top:

    .section .data.entry_tsc, "aw"
    .balign 8
    .global entry_tsc
entry_tsc: .quad 0
    .global ap_cr3
ap_cr3: .quad 0
    .global ap_stack_top
ap_stack_top: .quad 0

//! The memory functions that the compiler calls.
//!
//! The target's prebuilt library leaves them to a C library, which is not here. They are written in assembly,
//! so that no optimiser turns a loop in `memcpy` into a call of `memcpy`.

use core::arch::naked_asm;

/// Copies `n` bytes between ranges that do not overlap.
///
/// # Safety
/// As for the function of this name in C.
// SAFETY: the one definition of the name, with its ABI: arguments on the stack, result in EAX, and EDI, ESI
// kept. The direction flag is clear by the ABI.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    naked_asm!(
        "push edi",
        "push esi",
        "mov edi, [esp + 12]",
        "mov esi, [esp + 16]",
        "mov edx, [esp + 20]",
        "mov eax, edi",
        "mov ecx, edx",
        "shr ecx, 2",
        "rep movsd",
        "mov ecx, edx",
        "and ecx, 3",
        "rep movsb",
        "pop esi",
        "pop edi",
        "ret",
    )
}

/// Copies `n` bytes between ranges that may overlap.
///
/// # Safety
/// As for the function of this name in C.
// SAFETY: as for `memcpy`; the direction flag is set only around the downward copy.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    naked_asm!(
        "mov eax, [esp + 4]",
        "mov ecx, eax",
        "sub ecx, [esp + 8]",
        "cmp ecx, [esp + 12]", // to - from, unsigned: below n only if `to` lies inside the source
        "jae {memcpy}",
        "push edi",
        "push esi",
        "mov ecx, [esp + 20]",
        "lea edi, [eax + ecx - 1]",
        "mov esi, [esp + 16]",
        "lea esi, [esi + ecx - 1]",
        "std",
        "rep movsb",
        "cld",
        "pop esi",
        "pop edi",
        "ret",
        memcpy = sym memcpy,
    )
}

/// Fills `n` bytes.
///
/// # Safety
/// As for the function of this name in C.
// SAFETY: as for `memcpy`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    naked_asm!(
        "push edi",
        "mov edi, [esp + 8]",
        "movzx eax, byte ptr [esp + 12]",
        "imul eax, eax, 0x01010101",
        "mov edx, [esp + 16]",
        "mov ecx, edx",
        "shr ecx, 2",
        "rep stosd",
        "mov ecx, edx",
        "and ecx, 3",
        "rep stosb",
        "mov eax, [esp + 8]",
        "pop edi",
        "ret",
    )
}

/// Compares `n` bytes: negative, zero or positive.
///
/// # Safety
/// As for the function of this name in C.
// SAFETY: as for `memcpy`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    naked_asm!(
        "push edi",
        "push esi",
        "mov esi, [esp + 12]",
        "mov edi, [esp + 16]",
        "mov ecx, [esp + 20]",
        "xor eax, eax",
        "xor edx, edx", // also sets ZF, for n = 0
        "repe cmpsb",
        "je 2f",
        "movzx eax, byte ptr [esi - 1]",
        "movzx edx, byte ptr [edi - 1]",
        "sub eax, edx",
        "2:",
        "pop esi",
        "pop edi",
        "ret",
    )
}

/// Compares `n` bytes: zero if they are equal.
///
/// # Safety
/// As for the function of this name in C.
// SAFETY: as for `memcpy`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
}

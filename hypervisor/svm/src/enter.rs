//! The way into a guest and back: the only assembly on the exit path.

use core::arch::naked_asm;
use vcpu::Gprs;

/// Runs the guest of a VMCB until its next exit. RAX and RSP of the guest are in the VMCB, its other registers in
/// `gprs`.
///
/// The host's interrupts must reach the processor while the guest runs, which RFLAGS.IF decides at VMRUN, and none may
/// be taken around it: GIF is clear there, and set again once the host's state is back (APM volume 2, sections
/// 15.5.1, 15.17 and 15.21.1). A pending NMI of the host's is taken at STGI.
///
/// # Safety
///
/// EFER.SVME must be set and VM_HSAVE_PA point to a page of this processor's own. `guest` is the physical address of a
/// VMCB that confines the guest, `host` that of one in which VMSAVE has left this processor's own state. Interrupts must
/// be off; they are off afterwards. The guest's resident state must be loaded.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn enter(gprs: *mut Gprs, guest: u64, host: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdx",
        "push rdi",
        "mov rax, rsi",
        "mov rcx, [rdi + 8]",
        "mov rdx, [rdi + 16]",
        "mov rbx, [rdi + 24]",
        "mov rbp, [rdi + 32]",
        "mov rsi, [rdi + 40]",
        "mov r8, [rdi + 56]",
        "mov r9, [rdi + 64]",
        "mov r10, [rdi + 72]",
        "mov r11, [rdi + 80]",
        "mov r12, [rdi + 88]",
        "mov r13, [rdi + 96]",
        "mov r14, [rdi + 104]",
        "mov r15, [rdi + 112]",
        "mov rdi, [rdi + 48]",
        "clgi",
        "sti",
        "vmload rax",
        "vmrun rax",
        "vmsave rax",
        "cli",
        // The guest's registers are all in place but RAX and RSP, which the exit stored and replaced.
        "xchg rdi, [rsp]",
        "mov [rdi + 8], rcx",
        "mov [rdi + 16], rdx",
        "mov [rdi + 24], rbx",
        "mov [rdi + 32], rbp",
        "mov [rdi + 40], rsi",
        "mov [rdi + 56], r8",
        "mov [rdi + 64], r9",
        "mov [rdi + 72], r10",
        "mov [rdi + 80], r11",
        "mov [rdi + 88], r12",
        "mov [rdi + 96], r13",
        "mov [rdi + 104], r14",
        "mov [rdi + 112], r15",
        "pop rcx",
        "mov [rdi + 48], rcx",
        "pop rax",
        "vmload rax",
        "stgi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

const _: () = {
    assert!(core::mem::offset_of!(Gprs, rcx) == 8);
    assert!(core::mem::offset_of!(Gprs, rdi) == 48);
    assert!(core::mem::offset_of!(Gprs, r15) == 112);
};

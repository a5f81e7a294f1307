//! The way into a guest and back: the only assembly on the exit path.

use core::arch::naked_asm;
use vcpu::Gprs;

/// The registers of a vCPU and, right behind them, the host's stack pointer.
///
/// VM exits come with RSP pointing just behind `gprs` (the VMCS host RSP), so that the guest's
/// registers are pushed straight into place; entries pop them from there.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct EnterContext {
    pub(crate) gprs: Gprs,
    host_rsp: u64,
}

const _: () = assert!(core::mem::offset_of!(EnterContext, host_rsp) == 120);

impl EnterContext {
    /// The stack pointer that VM exits must load.
    pub(crate) fn exit_rsp(&self) -> u64 {
        (&raw const self.host_rsp) as u64
    }
}

/// Where VM exits must land.
pub(crate) fn exit_rip() -> u64 {
    vm_exit as *const () as u64
}

/// Runs the guest of the current VMCS until its next exit. Returns 0 after an exit, 1 when the
/// entry instruction itself failed.
///
/// # Safety
///
/// A VMCS whose host state is complete, with [`EnterContext::exit_rsp`] of this very `context` and
/// [`exit_rip`], must be current; `launched` must be 1 if it is launched and 0 if it is clear. The
/// guest's resident state must be loaded, interrupts must be off.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn enter(context: *mut EnterContext, launched: u32) -> u32 {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi + 120], rsp",
        "mov rsp, rdi",
        // POP leaves the flags alone, so the decision can be made before the registers are gone.
        "test esi, esi",
        "pop rax",
        "pop rcx",
        "pop rdx",
        "pop rbx",
        "pop rbp",
        "pop rsi",
        "pop rdi",
        "pop r8",
        "pop r9",
        "pop r10",
        "pop r11",
        "pop r12",
        "pop r13",
        "pop r14",
        "pop r15",
        "jz 2f",
        "vmresume",
        "jmp 3f",
        "2: vmlaunch",
        // The entry failed: RSP still points at the saved host RSP.
        "3: mov rsp, [rsp]",
        "mov eax, 1",
        "jmp {back}",
        back = sym back_to_host,
    )
}

/// VM exits land here, with the guest's general-purpose registers still in place.
///
/// # Safety
///
/// Reached by VM exit only.
#[unsafe(naked)]
unsafe extern "sysv64" fn vm_exit() {
    naked_asm!(
        "push r15",
        "push r14",
        "push r13",
        "push r12",
        "push r11",
        "push r10",
        "push r9",
        "push r8",
        "push rdi",
        "push rsi",
        "push rbp",
        "push rbx",
        "push rdx",
        "push rcx",
        "push rax",
        "mov rsp, [rsp + 120]",
        "xor eax, eax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// The end of a failed [`enter`]: restores the host's registers and returns EAX.
///
/// # Safety
///
/// Reached by jump from [`enter`] only.
#[unsafe(naked)]
unsafe extern "sysv64" fn back_to_host() {
    naked_asm!(
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp", "ret"
    )
}

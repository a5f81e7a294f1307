//! Descriptor tables of each processor, and what happens on interrupts and exceptions in the
//! hypervisor itself.

use super::panic;
use super::stacks::{Purpose, Stacks};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::global_asm;
use spin::{Mutex, Once};
use vcpu::HostState;
use x86_64::VirtAddr;
use x86_64::instructions::tables::{load_tss, sgdt};
use x86_64::registers::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

// Each stub pushes a dummy where the processor pushes no error code, then its vector.
global_asm!(
    ".section .text.traps, \"ax\"",
    ".balign 16",
    ".global trap_stubs",
    "trap_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    ".if vector != 8 && vector != 10 && vector != 11 && vector != 12 && vector != 13 && vector != 14 \
        && vector != 17 && vector != 21 && vector != 29 && vector != 30",
    "push 0",
    ".endif",
    "push vector",
    "jmp trap_common",
    ".set vector, vector + 1",
    ".endr",
    "trap_common:",
    "push rax",
    "push rbx",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rbp",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "cld",
    "mov rdi, rsp",
    // 22 words lie on the stack, which the processor aligned before it pushed the first five.
    "call {handler}",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rbp",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rbx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    handler = sym trap,
);

unsafe extern "C" {
    static trap_stubs: u8;
}

const STUB_SIZE: u64 = 16;
const NMI: u64 = 2;
const MACHINE_CHECK: u64 = 18;
const FIRST_INTERRUPT: u64 = 32;

/// What the stubs and the processor push.
#[derive(Debug)]
#[repr(C)]
pub(super) struct TrapFrame {
    pub(super) r15: u64,
    pub(super) r14: u64,
    pub(super) r13: u64,
    pub(super) r12: u64,
    pub(super) r11: u64,
    pub(super) r10: u64,
    pub(super) r9: u64,
    pub(super) r8: u64,
    pub(super) rbp: u64,
    pub(super) rdi: u64,
    pub(super) rsi: u64,
    pub(super) rdx: u64,
    pub(super) rcx: u64,
    pub(super) rbx: u64,
    pub(super) rax: u64,
    pub(super) vector: u64,
    pub(super) error_code: u64,
    pub(super) rip: u64,
    pub(super) cs: u64,
    pub(super) rflags: u64,
    pub(super) rsp: u64,
    pub(super) ss: u64,
}

const _: () = assert!(core::mem::size_of::<TrapFrame>() == 22 * 8);

extern "sysv64" fn trap(frame: &TrapFrame) {
    match frame.vector {
        NMI if panic::in_progress() => panic::stop_here(),
        NMI => hypervisor::host_nmi(),
        vector @ FIRST_INTERRUPT..=255 => hypervisor::host_interrupt(vector as u8),
        MACHINE_CHECK => panic::exception("machine check", frame),
        _ => panic::exception("exception", frame),
    }
}

static IDT: Once<InterruptDescriptorTable> = Once::new();

/// The host state of each processor that has been set up.
static HOST_STATES: Mutex<Vec<HostState>> = Mutex::new(Vec::new());

/// Gives this processor its descriptor tables; they live for good.
pub(super) fn set_up(number: usize, stacks: Stacks) -> HostState {
    let mut tss = Box::new(TaskStateSegment::new());
    for (slot, purpose) in [Purpose::Nmi, Purpose::DoubleFault, Purpose::MachineCheck]
        .into_iter()
        .enumerate()
    {
        tss.interrupt_stack_table[slot] = VirtAddr::new(stacks.top(purpose));
    }
    let tss: &'static TaskStateSegment = Box::leak(tss);
    let mut gdt = Box::new(GlobalDescriptorTable::new());
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    let task = gdt.append(Descriptor::tss_segment(tss));
    let gdt: &'static GlobalDescriptorTable = Box::leak(gdt);
    gdt.load();
    // SAFETY: the selectors are those of the descriptors just loaded.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        load_tss(task);
    }
    let idt = IDT.call_once(build_idt);
    idt.load();
    let host = HostState {
        gdt_base: sgdt().base.as_u64(),
        idt_base: core::ptr::from_ref(idt) as u64,
        tss_base: core::ptr::from_ref(tss) as u64,
        tss_selector: task.0,
    };
    let mut states = HOST_STATES.lock();
    let length = states.len().max(number + 1);
    states.resize(length, host);
    states[number] = host;
    host
}

/// The host state of a processor that was set up.
pub(super) fn host_state(number: usize) -> HostState {
    HOST_STATES.lock()[number]
}

fn build_idt() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    let stub = |vector: u64| VirtAddr::new(&raw const trap_stubs as u64 + vector * STUB_SIZE);
    // SAFETY: each stub saves and restores every register and ends with IRET, and pops the error code
    // of exactly those exceptions that push one; the stack indices are filled in each TSS.
    unsafe {
        idt.divide_error.set_handler_addr(stub(0));
        idt.debug.set_handler_addr(stub(1));
        idt.non_maskable_interrupt
            .set_handler_addr(stub(2))
            .set_stack_index(0);
        idt.breakpoint.set_handler_addr(stub(3));
        idt.overflow.set_handler_addr(stub(4));
        idt.bound_range_exceeded.set_handler_addr(stub(5));
        idt.invalid_opcode.set_handler_addr(stub(6));
        idt.device_not_available.set_handler_addr(stub(7));
        idt.double_fault
            .set_handler_addr(stub(8))
            .set_stack_index(1);
        idt.invalid_tss.set_handler_addr(stub(10));
        idt.segment_not_present.set_handler_addr(stub(11));
        idt.stack_segment_fault.set_handler_addr(stub(12));
        idt.general_protection_fault.set_handler_addr(stub(13));
        idt.page_fault.set_handler_addr(stub(14));
        idt.x87_floating_point.set_handler_addr(stub(16));
        idt.alignment_check.set_handler_addr(stub(17));
        idt.machine_check
            .set_handler_addr(stub(18))
            .set_stack_index(2);
        idt.simd_floating_point.set_handler_addr(stub(19));
        idt.virtualization.set_handler_addr(stub(20));
        idt.cp_protection_exception.set_handler_addr(stub(21));
        for vector in FIRST_INTERRUPT..=255 {
            idt[vector as u8].set_handler_addr(stub(vector));
        }
    }
    idt
}

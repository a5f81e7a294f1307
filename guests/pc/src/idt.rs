//! The interrupt descriptor table: 256 stubs that meet in one safe dispatcher.

use core::{
    arch::{asm, global_asm},
    cell::UnsafeCell,
    fmt,
    sync::atomic::{AtomicPtr, Ordering},
};

use crate::{boot::CODE, cpu, println, serial};

/// What a stub leaves on the stack: registers by PUSHAD, then vector and error code, then the processor's part.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct TrapFrame {
    /// EDI of the interrupted code, as the others.
    pub edi: u32,
    /// ESI.
    pub esi: u32,
    /// EBP.
    pub ebp: u32,
    /// ESP as PUSHAD saw it: 20 below that of the interrupted code.
    pub esp: u32,
    /// EBX.
    pub ebx: u32,
    /// EDX.
    pub edx: u32,
    /// ECX.
    pub ecx: u32,
    /// EAX.
    pub eax: u32,
    /// What happened.
    pub vector: u32,
    /// Zero where the processor pushes none.
    pub error: u32,
    /// Where execution goes on.
    pub eip: u32,
    /// The code segment.
    pub cs: u32,
    /// The flags.
    pub eflags: u32,
}

impl fmt::Display for TrapFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "vector {} error {:#x} eip {:08x} cs {:04x} eflags {:08x} \
             eax {:08x} ebx {:08x} ecx {:08x} edx {:08x} esi {:08x} edi {:08x} ebp {:08x} esp {:08x}",
            self.vector,
            self.error,
            self.eip,
            self.cs,
            self.eflags,
            self.eax,
            self.ebx,
            self.ecx,
            self.edx,
            self.esi,
            self.edi,
            self.ebp,
            self.esp.wrapping_add(20)
        )
    }
}

/// Handles one vector. It runs with interrupts off and may change the frame.
pub type Handler = fn(&mut TrapFrame);

const VECTORS: usize = 256;
const STUB_SIZE: u32 = 16;

/// Null means: unexpected.
static HANDLERS: [AtomicPtr<()>; VECTORS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; VECTORS];

struct Table(UnsafeCell<[u64; VECTORS]>);

// SAFETY: there is one processor, and the table is written only by `load`, with interrupts off.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([0; VECTORS]));

// Exceptions 8, 10 to 14, 17, 21, 29 and 30 push an error code; the other stubs push a zero in its place.
global_asm!(
    r#"
    .section .text.idt, "ax"
    .balign 16
idt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector != 8) & ((vector < 10) | (vector > 14)) & (vector != 17) & (vector != 21) & (vector != 29) & (vector != 30)
    push 0
    .endif
    push vector
    jmp idt_common
    .set vector, vector + 1
    .endr

idt_common:
    pushad
    cld
    mov ebx, esp
    and esp, -16
    sub esp, 12
    push ebx
    call {dispatch}
    mov esp, ebx
    popad
    add esp, 8
    iretd
    "#,
    dispatch = sym dispatch,
);

unsafe extern "C" {
    static idt_stubs: u8;
}

/// Loads a table whose 256 gates lead to the handlers. Interrupts stay off.
pub fn load() {
    cpu::disable_interrupts();
    let stubs = &raw const idt_stubs as u32;
    let mut gates = [0_u64; VECTORS];
    for (vector, gate) in (0_u32..).zip(&mut gates) {
        let address = u64::from(stubs + vector * STUB_SIZE);
        *gate = address & 0xffff | u64::from(CODE) << 16 | 0x8e00 << 32 | (address >> 16) << 48;
    }
    // SAFETY: the only writer, with interrupts off (see `Table`).
    unsafe { TABLE.0.get().write(gates) };
    let base = (TABLE.0.get() as u32).to_le_bytes();
    let limit = u16::try_from(size_of::<[u64; VECTORS]>() - 1)
        .unwrap_or(u16::MAX)
        .to_le_bytes();
    let pointer = [limit[0], limit[1], base[0], base[1], base[2], base[3]];
    // SAFETY: the table is static and complete, and its gates lead to stubs that keep all registers.
    unsafe { asm!("lidt [{}]", in(reg) pointer.as_ptr(), options(nostack, preserves_flags)) }
}

/// Replaces a vector's gate, and returns the one before.
///
/// # Safety
/// The gate must be one that keeps this program whole when it is taken.
pub unsafe fn replace_gate(vector: u8, gate: u64) -> u64 {
    let slot = TABLE.0.get().cast::<u64>();
    // SAFETY: within the table; there is one processor, and no handler changes the table.
    unsafe { slot.add(usize::from(vector)).replace(gate) }
}

/// Names the handler of a vector.
pub fn set_handler(vector: u8, handler: Handler) {
    HANDLERS[usize::from(vector)].store(handler as *mut (), Ordering::Relaxed);
}

/// Makes a vector unexpected again.
pub fn clear_handler(vector: u8) {
    HANDLERS[usize::from(vector)].store(core::ptr::null_mut(), Ordering::Relaxed);
}

extern "C" fn dispatch(frame: &mut TrapFrame) {
    let handler = HANDLERS
        .get(frame.vector as usize)
        .map(|slot| slot.load(Ordering::Relaxed));
    match handler {
        Some(handler) if !handler.is_null() => {
            // SAFETY: only `set_handler` stores non-null pointers, and each is a `Handler`.
            let handler: Handler = unsafe { core::mem::transmute(handler) };
            handler(frame);
        }
        _ => {
            println!("\nfault: {frame}");
            serial::drain();
            cpu::halt_forever()
        }
    }
}

//! Runs a few bytes of machine code, and catches the exception that they raise.

use core::{
    arch::global_asm,
    cell::UnsafeCell,
    sync::atomic::{AtomicU32, Ordering},
};

use pc::{
    idt::{self, Handler, TrapFrame},
    power, println,
};

use crate::probe::{Failure, Verdict};

const LONGEST: usize = 63;
const RETURN: u8 = 0xc3;
const EXCEPTIONS: u8 = 32;
/// The vector of INT n that is caught too.
pub(crate) const SOFTWARE: u8 = 0x80;
/// No exception has come.
const NONE: u32 = u32::MAX;

/// The registers that the code finds, and leaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Registers {
    pub(crate) eax: u32,
    pub(crate) ecx: u32,
    pub(crate) edx: u32,
    pub(crate) ebx: u32,
    pub(crate) esi: u32,
    pub(crate) edi: u32,
}

/// An exception.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    pub(crate) vector: u32,
    pub(crate) error: u32,
    /// Where, counted from the first byte of the code.
    pub(crate) at: u32,
}

/// An undefined instruction, as the first of the code.
pub(crate) const UNDEFINED: Fault = Fault {
    vector: 6,
    error: 0,
    at: 0,
};
/// A general protection fault with error code 0, by the first instruction of the code.
pub(crate) const PROTECTION: Fault = Fault {
    vector: 13,
    error: 0,
    at: 0,
};

struct Buffer(UnsafeCell<[u8; LONGEST + 1]>);

// SAFETY: there is one processor, and only `run` uses it, with interrupts off.
unsafe impl Sync for Buffer {}

static BUFFER: Buffer = Buffer(UnsafeCell::new([RETURN; LONGEST + 1]));
/// Where the code lies, and ends.
static START: AtomicU32 = AtomicU32::new(0);
static END: AtomicU32 = AtomicU32::new(0);
static VECTOR: AtomicU32 = AtomicU32::new(NONE);
static ERROR: AtomicU32 = AtomicU32::new(0);
static AT: AtomicU32 = AtomicU32::new(0);

// Calls code with all general registers but EBP and ESP set from memory, and stores them there afterwards.
global_asm!(
    r#"
    .section .text.code, "ax"
    .globl code_enter, code_return
code_enter:
    pushad
    mov ebp, [esp + 36]
    push dword ptr [esp + 40]
    mov eax, [ebp]
    mov ecx, [ebp + 4]
    mov edx, [ebp + 8]
    mov ebx, [ebp + 12]
    mov esi, [ebp + 16]
    mov edi, [ebp + 20]
    call dword ptr [esp]
    cld
    mov [ebp], eax
    mov [ebp + 4], ecx
    mov [ebp + 8], edx
    mov [ebp + 12], ebx
    mov [ebp + 16], esi
    mov [ebp + 20], edi
    add esp, 4
    popad
code_return:
    ret
    "#
);

unsafe extern "C" {
    fn code_enter(registers: *mut Registers, start: u32);
    static code_return: u8;
}

fn catch(frame: &mut TrapFrame) {
    let start = START.load(Ordering::Relaxed);
    let end = END.load(Ordering::Relaxed);
    if !(start..=end).contains(&frame.eip) || VECTOR.load(Ordering::Relaxed) != NONE {
        println!("probe: FAILED unexpected exception, {frame}");
        power::off();
    }
    VECTOR.store(frame.vector, Ordering::Relaxed);
    ERROR.store(frame.error, Ordering::Relaxed);
    AT.store(frame.eip - start, Ordering::Relaxed);
    frame.eip = &raw const code_return as u32;
}

/// Ends well if the code raised exactly this exception.
pub(crate) fn expect(result: Result<Registers, Fault>, expected: Fault) -> Verdict {
    match result {
        Err(fault) if fault == expected => Ok(()),
        Err(Fault { vector, .. }) if vector != expected.vector => Err(Failure {
            what: "another exception",
            found: vector,
        }),
        Err(Fault { error, .. }) if error != expected.error => Err(Failure {
            what: "another error code",
            found: error,
        }),
        Err(Fault { at, .. }) => Err(Failure {
            what: "at another instruction",
            found: at,
        }),
        Ok(Registers { eax, .. }) => Err(Failure {
            what: "no exception, eax",
            found: eax,
        }),
    }
}

/// Ends well if the code raised none; returns its registers.
pub(crate) fn survives(result: Result<Registers, Fault>) -> Result<Registers, Failure> {
    result.map_err(|fault| {
        println!("probe: {fault:x?}");
        Failure {
            what: "exception",
            found: fault.vector,
        }
    })
}

/// Where in memory the code lies that [`run`] is given.
pub(crate) fn place() -> u32 {
    BUFFER.0.get() as u32
}

fn catch_all() {
    for vector in (0..EXCEPTIONS).chain([SOFTWARE]) {
        idt::set_handler(vector, catch);
    }
}

fn write(code: &[u8]) -> u32 {
    let mut bytes = [RETURN; LONGEST + 1];
    let length = code.len().min(LONGEST);
    bytes[..length].copy_from_slice(&code[..length]);
    // SAFETY: nothing else uses the buffer (see `Buffer`).
    unsafe { BUFFER.0.get().write_volatile(bytes) };
    length as u32
}

/// Runs the code, which must leave the stack and EBP as they are. After an exception, the rest of it is left
/// out.
///
/// # Safety
/// The code must do nothing that breaks this program.
pub(crate) unsafe fn run(code: &[u8], mut registers: Registers) -> Result<Registers, Fault> {
    // SAFETY: passed on to the caller.
    unsafe { run_on(code, &mut registers) }.map(|()| registers)
}

/// As [`run`], and tells the registers after an exception too.
///
/// # Safety
/// As for [`run`].
pub(crate) unsafe fn run_on(code: &[u8], registers: &mut Registers) -> Result<(), Fault> {
    catch_all();
    let length = write(code);
    // SAFETY: passed on to the caller; what was written ends with a return.
    unsafe { enter(place(), length, registers) }
}

/// As [`run`], with a handler of one vector's own. It may go on where it likes.
///
/// # Safety
/// As for [`run`].
pub(crate) unsafe fn run_handling(
    vector: u8,
    handler: Handler,
    code: &[u8],
    mut registers: Registers,
) -> Result<Registers, Fault> {
    catch_all();
    idt::set_handler(vector, handler);
    let length = write(code);
    // SAFETY: as in `run_on`.
    unsafe { enter(place(), length, &mut registers) }.map(|()| registers)
}

/// As [`run`], of code that lies somewhere else and ends with a return.
///
/// # Safety
/// As for [`run`].
pub(crate) unsafe fn run_at(
    start: u32,
    length: u32,
    mut registers: Registers,
) -> Result<Registers, Fault> {
    catch_all();
    // SAFETY: passed on to the caller.
    unsafe { enter(start, length, &mut registers) }.map(|()| registers)
}

unsafe fn enter(start: u32, length: u32, registers: &mut Registers) -> Result<(), Fault> {
    START.store(start, Ordering::Relaxed);
    END.store(start + length, Ordering::Relaxed);
    VECTOR.store(NONE, Ordering::Relaxed);
    // SAFETY: the caller vouches for the code, which ends with a return; the call serialises what was written
    // with what is fetched, on one processor.
    unsafe { code_enter(registers, start) };
    match VECTOR.load(Ordering::Relaxed) {
        NONE => Ok(()),
        vector => {
            let (error, at) = (ERROR.load(Ordering::Relaxed), AT.load(Ordering::Relaxed));
            Err(Fault { vector, error, at })
        }
    }
}

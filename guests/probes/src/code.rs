//! Runs a few bytes of machine code, and catches the exception that they raise.

use core::{
    arch::asm,
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
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registers {
    pub(crate) eax: u32,
    pub(crate) ecx: u32,
    pub(crate) edx: u32,
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
/// Where the code returns.
static END: AtomicU32 = AtomicU32::new(0);
static VECTOR: AtomicU32 = AtomicU32::new(NONE);
static ERROR: AtomicU32 = AtomicU32::new(0);
static AT: AtomicU32 = AtomicU32::new(0);

fn catch(frame: &mut TrapFrame) {
    let start = BUFFER.0.get() as u32;
    let end = END.load(Ordering::Relaxed);
    if !(start..=end).contains(&frame.eip) || VECTOR.load(Ordering::Relaxed) != NONE {
        println!("probe: FAILED unexpected exception, {frame}");
        power::off();
    }
    VECTOR.store(frame.vector, Ordering::Relaxed);
    ERROR.store(frame.error, Ordering::Relaxed);
    AT.store(frame.eip - start, Ordering::Relaxed);
    frame.eip = end;
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

/// Runs the code, which must leave the stack and the other registers as they are. After an exception, the rest
/// of it is left out.
///
/// # Safety
/// The code must do nothing that breaks this program.
pub(crate) unsafe fn run(code: &[u8], registers: Registers) -> Result<Registers, Fault> {
    for vector in (0..EXCEPTIONS).chain([SOFTWARE]) {
        idt::set_handler(vector, catch);
    }
    // SAFETY: passed on to the caller.
    unsafe { run_with(code, registers) }
}

/// As [`run`], with a handler of one vector's own. It may go on where it likes.
///
/// # Safety
/// As for [`run`].
pub(crate) unsafe fn run_handling(
    vector: u8,
    handler: Handler,
    code: &[u8],
    registers: Registers,
) -> Result<Registers, Fault> {
    for vector in (0..EXCEPTIONS).chain([SOFTWARE]) {
        idt::set_handler(vector, catch);
    }
    idt::set_handler(vector, handler);
    // SAFETY: passed on to the caller.
    unsafe { run_with(code, registers) }
}

unsafe fn run_with(code: &[u8], registers: Registers) -> Result<Registers, Fault> {
    let mut bytes = [RETURN; LONGEST + 1];
    let length = code.len().min(LONGEST);
    bytes[..length].copy_from_slice(&code[..length]);
    // SAFETY: nothing else uses the buffer (see `Buffer`).
    unsafe { BUFFER.0.get().write_volatile(bytes) };
    let start = BUFFER.0.get() as u32;
    END.store(start + length as u32, Ordering::Relaxed);
    VECTOR.store(NONE, Ordering::Relaxed);
    let Registers {
        mut eax,
        mut ecx,
        mut edx,
    } = registers;
    // SAFETY: the caller vouches for the code, which ends with a return; the call serialises what was written
    // with what is fetched, on one processor. Memory and flags count as changed.
    unsafe {
        asm!("call {}", in(reg) start, inout("eax") eax, inout("ecx") ecx, inout("edx") edx);
    }
    match VECTOR.load(Ordering::Relaxed) {
        NONE => Ok(Registers { eax, ecx, edx }),
        vector => {
            let (error, at) = (ERROR.load(Ordering::Relaxed), AT.load(Ordering::Relaxed));
            Err(Fault { vector, error, at })
        }
    }
}

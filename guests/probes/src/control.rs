//! Writes to the control registers: what must work, and what must not.

use core::cell::UnsafeCell;

use pc::{cpu, handover::Boot, println};

use crate::{
    code::{self, Fault, PROTECTION, Registers},
    paging,
    probe::{Failure, Verdict, ensure},
};

const PE: u32 = 1 << 0;
const MP: u32 = 1 << 1;
const TS: u32 = 1 << 3;
const NE: u32 = 1 << 5;
const WP: u32 = 1 << 16;
const AM: u32 = 1 << 18;
const NW: u32 = 1 << 29;
const CD: u32 = 1 << 30;
const PG: u32 = 1 << 31;

const TSD: u32 = 1 << 2;
const DE: u32 = 1 << 3;
const PSE: u32 = 1 << 4;
const PAE: u32 = 1 << 5;
const VMXE: u32 = 1 << 13;
const RESERVED: u32 = 1 << 30;

const SET_CR0: [u8; 3] = [0x0f, 0x22, 0xc0];
const SET_CR3: [u8; 3] = [0x0f, 0x22, 0xd8];
const SET_CR4: [u8; 3] = [0x0f, 0x22, 0xe0];
const CLTS: [u8; 2] = [0x0f, 0x06];
const LMSW: [u8; 3] = [0x0f, 0x01, 0xf0];

#[repr(align(4096))]
struct Directory(UnsafeCell<[u32; 1024]>);

// SAFETY: there is one processor, and `translation` alone uses it.
unsafe impl Sync for Directory {}

static DIRECTORY: Directory = Directory(UnsafeCell::new([0; 1024]));

fn execute(code: &[u8], eax: u32) -> Result<(), Fault> {
    // SAFETY: the callers write values that leave protected mode with flat memory, or that must be refused.
    unsafe {
        code::run(
            code,
            Registers {
                eax,
                ..Registers::default()
            },
        )
    }
    .map(|_| ())
}

/// The write is refused, and changes nothing.
fn refused(what: &'static str, code: &[u8], value: u32, read: fn() -> u32) -> Verdict {
    println!("probe cr: {what} {value:#x} must be refused");
    let before = read();
    match execute(code, value) {
        Err(fault) if fault == PROTECTION => {}
        Err(fault) => {
            return Err(Failure {
                what: "another exception",
                found: fault.vector,
            });
        }
        Ok(()) => {
            let found = read();
            // Whatever that has made of the processor, the next probe wants it as it was.
            let _ = execute(code, before);
            return Err(Failure {
                what: "taken",
                found,
            });
        }
    }
    ensure(read() == before, "refused, but changed", read())
}

/// The write is taken, and read back.
fn taken(what: &'static str, code: &[u8], value: u32, read: fn() -> u32) -> Verdict {
    println!("probe cr: {what} {value:#x} must be taken");
    match execute(code, value) {
        Err(fault) => Err(Failure {
            what: "exception",
            found: fault.vector,
        }),
        Ok(()) => ensure(read() == value, "read back", read()),
    }
}

/// Both registers.
pub(crate) fn registers(_: &Boot) -> Verdict {
    let cr4 = cpu::cr4();
    for value in [cr4 | VMXE, cr4 | RESERVED] {
        refused("cr4", &SET_CR4, value, cpu::cr4)?;
    }
    for value in [cr4 | PSE, cr4 | PAE, cr4 | DE | TSD, cr4] {
        taken("cr4", &SET_CR4, value, cpu::cr4)?;
    }
    let cr0 = cpu::cr0() & !(CD | NW | TS);
    for value in [
        cr0 | NE,
        cr0 & !NE,
        cr0 | WP | AM,
        cr0 & !(WP | AM),
        cr0 | CD,
        cr0 | CD | NW,
        cr0 | MP,
    ] {
        taken("cr0", &SET_CR0, value, cpu::cr0)?;
    }
    taken("cr0", &SET_CR0, cr0 | TS, cpu::cr0)?;
    taken("clts, cr0", &CLTS, cr0, cpu::cr0)?;
    // LMSW sets the low four bits, and cannot leave protected mode.
    let set = |value: u32| {
        execute(&LMSW, value).map_err(|fault| Failure {
            what: "lmsw",
            found: fault.vector,
        })
    };
    set(cr0 & 0xf & !PE | TS)?;
    ensure(cpu::cr0() == cr0 | TS, "lmsw, cr0", cpu::cr0())?;
    taken("clts, cr0", &CLTS, cr0, cpu::cr0)?;
    translation(cr0, cr4)
}

/// Paging without protected mode.
pub(crate) fn paging_alone(_: &Boot) -> Verdict {
    // A processor that takes it goes on, to say so.
    let directory = paging::page(0);
    paging::fill_directory(directory);
    paging::on(directory);
    paging::off();
    let value = cpu::cr0() & !PE | PG;
    refused("cr0", &SET_CR0, value, cpu::cr0)
}

/// Write-through off while the cache is on.
pub(crate) fn cache_mode(_: &Boot) -> Verdict {
    let value = (cpu::cr0() | NW) & !CD;
    refused("cr0", &SET_CR0, value, cpu::cr0)
}

/// Paging goes on and off again, and translates meanwhile.
fn translation(cr0: u32, cr4: u32) -> Verdict {
    const PAGE: u32 = 4 << 20;
    const PRESENT_WRITABLE_LARGE: u32 = 0x83;
    /// Linear address of a second view of the first pages: far above all RAM of a probe.
    const VIEW: u32 = 0x8000_0000;
    let mut entries = [0; 1024];
    for (index, entry) in (0_u32..).zip(&mut entries) {
        let page = index * PAGE;
        let page = page.checked_sub(VIEW).unwrap_or(page);
        *entry = page | PRESENT_WRITABLE_LARGE;
    }
    // SAFETY: the only user, and paging is off.
    unsafe { DIRECTORY.0.get().write(entries) };
    let failed = |fault: Fault| Failure {
        what: "exception",
        found: fault.vector,
    };
    execute(&SET_CR4, cr4 | PSE).map_err(failed)?;
    execute(&SET_CR3, DIRECTORY.0.get() as u32).map_err(failed)?;
    taken("cr0", &SET_CR0, cr0 | PG | WP, cpu::cr0)?;
    let first = (DIRECTORY.0.get() as u32 + VIEW) as *const u32;
    // SAFETY: the directory, seen through the second view that it itself describes.
    let seen = unsafe { first.read_volatile() };
    // The processor may have marked the entry as accessed.
    ensure(
        seen & 0xffff_ff9f == PRESENT_WRITABLE_LARGE,
        "the second view says",
        seen,
    )?;
    taken("cr0", &SET_CR0, cr0, cpu::cr0)?;
    taken("cr4", &SET_CR4, cr4, cpu::cr4)
}

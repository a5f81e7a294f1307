//! Port input and output.
//!
//! On the machines these guests run on, a port access cannot break the program's memory: no device here does
//! DMA unless it is told an address. The functions are safe for that reason; what a wrong access does to the
//! machine is the guest's affair.

use core::arch::asm;

/// Reads a byte from a port.
#[inline]
#[must_use]
pub fn inb(port: u16) -> u8 {
    let value: u8;
    // SAFETY: touches no memory and no flags, and the module's note holds.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Writes a byte to a port.
#[inline]
pub fn outb(port: u16, value: u8) {
    // SAFETY: as in `inb`. Not `nomem`: memory must be written before a device is told of it.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags));
    }
}

/// Reads a word from a port.
#[inline]
#[must_use]
pub fn inw(port: u16) -> u16 {
    let value: u16;
    // SAFETY: as in `inb`.
    unsafe {
        asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Writes a word to a port.
#[inline]
pub fn outw(port: u16, value: u16) {
    // SAFETY: as in `outb`.
    unsafe {
        asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags));
    }
}

/// Reads a double word from a port.
#[inline]
#[must_use]
pub fn inl(port: u16) -> u32 {
    let value: u32;
    // SAFETY: as in `inb`.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Writes a double word to a port.
#[inline]
pub fn outl(port: u16, value: u32) {
    // SAFETY: as in `outb`.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags));
    }
}

/// Reads words from a port into memory, low byte first. Interrupts may come between any two of them. An odd last byte is left
/// as it is.
#[inline]
pub fn insw(port: u16, bytes: &mut [u8]) {
    // SAFETY: writes twice as many bytes as there are pairs in the slice, from its start on; the direction flag is clear,
    // as Rust demands between assembly blocks.
    unsafe {
        asm!("rep insw", in("dx") port, inout("edi") bytes.as_mut_ptr() => _,
             inout("ecx") bytes.len() / 2 => _, options(nostack, preserves_flags));
    }
}

/// Writes words from memory to a port, low byte first. Interrupts may come between any two of them. An odd last byte is left
/// out.
#[inline]
pub fn outsw(port: u16, bytes: &[u8]) {
    // SAFETY: reads twice as many bytes as there are pairs in the slice, from its start on; the direction flag is clear, as
    // in `insw`. ESI cannot be named as an operand, so it is exchanged.
    unsafe {
        asm!("xchg esi, {0}", "rep outsw", "xchg esi, {0}", inout(reg) bytes.as_ptr() => _, in("dx") port,
             inout("ecx") bytes.len() / 2 => _, options(nostack, readonly, preserves_flags));
    }
}

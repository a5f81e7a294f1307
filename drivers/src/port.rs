//! I/O ports.

use core::arch::asm;

/// Reads a byte from a port.
///
/// # Safety
///
/// Reading the port must not have a side effect that breaks its owner.
#[must_use]
pub unsafe fn read_u8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: the caller vouches for the port; the instruction touches no memory.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Writes a byte to a port.
///
/// # Safety
///
/// The write must be one that the port's owner allows.
pub unsafe fn write_u8(port: u16, value: u8) {
    // SAFETY: the caller vouches for the port and the value.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Writes a word to a port.
///
/// # Safety
///
/// As [`write_u8`].
pub unsafe fn write_u16(port: u16, value: u16) {
    // SAFETY: the caller vouches for the port and the value.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
}

/// Reads a double word from a port.
///
/// # Safety
///
/// As [`read_u8`].
#[must_use]
pub unsafe fn read_u32(port: u16) -> u32 {
    let value: u32;
    // SAFETY: the caller vouches for the port; the instruction touches no memory.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Writes a double word to a port.
///
/// # Safety
///
/// As [`write_u8`].
pub unsafe fn write_u32(port: u16, value: u32) {
    // SAFETY: the caller vouches for the port and the value.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags))
    };
}

//! The VMCS region and the instructions that work on it (Intel SDM volume 3, chapter 31).

use crate::fields::{Field16, Field32, Field64, FieldNatural};
use core::arch::asm;
use vcpu::{Frame, ShellError};

/// A VMX instruction failed (Intel SDM volume 3, section 31.2) on this field or at this physical address.
pub(crate) const fn failed(name: &'static str, operand: u64) -> ShellError {
    ShellError::Instruction { name, operand }
}

/// Runs one VMX instruction with the operands given and evaluates to whether it failed: CF is
/// VMfailInvalid, ZF is VMfailValid.
macro_rules! vmx_instruction {
    ($template:literal, $($operands:tt)*) => {{
        let failed: u8;
        asm!($template, "setbe {failed}", failed = out(reg_byte) failed, $($operands)*, options(nostack));
        failed != 0
    }};
}
pub(crate) use vmx_instruction;

/// Out of line, so that the exit path prepares nothing for it.
#[cold]
#[inline(never)]
fn read_failed(encoding: u32) -> ShellError {
    failed("VMREAD", u64::from(encoding))
}

/// As [`read_failed`].
#[cold]
#[inline(never)]
fn write_failed(encoding: u32) -> ShellError {
    failed("VMWRITE", u64::from(encoding))
}

#[inline(always)]
fn read(encoding: u32) -> Result<u64, ShellError> {
    let value: u64;
    // SAFETY: the callers hold a current VMCS, so the processor is in VMX operation; VMREAD changes
    // nothing but its destination and the flags.
    let failed = unsafe {
        vmx_instruction!("vmread {value}, {field}", value = out(reg) value, field = in(reg) u64::from(encoding))
    };
    if failed {
        Err(read_failed(encoding))
    } else {
        Ok(value)
    }
}

/// # Safety
///
/// A VMCS must be current, and the value must keep the host-state area and the physical addresses
/// in it true: VM exits and guest accesses act on them.
#[inline(always)]
unsafe fn write(encoding: u32, value: u64) -> Result<(), ShellError> {
    // SAFETY: the caller vouches for the effect of the field's new value.
    unsafe {
        asm!(
            "vmwrite {field}, {value}",
            "jbe {failed}",
            field = in(reg) u64::from(encoding),
            value = in(reg) value,
            failed = label { return Err(write_failed(encoding)) },
            options(nostack),
        );
    }
    Ok(())
}

/// The current VMCS of this processor. Zero-sized: a token that fields may be touched.
///
/// Made only by [`Region::load`]'s users in this crate, right where the VMCS is known to be current.
#[derive(Debug)]
pub(crate) struct Current(());

impl Current {
    /// # Safety
    ///
    /// A VMCS must be current on this processor for as long as the token lives.
    #[inline(always)]
    pub(crate) const unsafe fn assume() -> Self {
        Self(())
    }

    #[inline(always)]
    pub(crate) fn read16(&self, field: Field16) -> Result<u16, ShellError> {
        read(field as u32).map(|value| value as u16)
    }

    #[inline(always)]
    pub(crate) fn read32(&self, field: Field32) -> Result<u32, ShellError> {
        read(field as u32).map(|value| value as u32)
    }

    #[inline(always)]
    pub(crate) fn read64(&self, field: Field64) -> Result<u64, ShellError> {
        read(field as u32)
    }

    #[inline(always)]
    pub(crate) fn read_natural(&self, field: FieldNatural) -> Result<u64, ShellError> {
        read(field as u32)
    }

    /// # Safety
    ///
    /// As [`write`].
    #[inline(always)]
    pub(crate) unsafe fn write16(&self, field: Field16, value: u16) -> Result<(), ShellError> {
        // SAFETY: passed on to the caller.
        unsafe { write(field as u32, u64::from(value)) }
    }

    /// # Safety
    ///
    /// As [`write`].
    #[inline(always)]
    pub(crate) unsafe fn write32(&self, field: Field32, value: u32) -> Result<(), ShellError> {
        // SAFETY: passed on to the caller.
        unsafe { write(field as u32, u64::from(value)) }
    }

    /// # Safety
    ///
    /// As [`write`].
    #[inline(always)]
    pub(crate) unsafe fn write64(&self, field: Field64, value: u64) -> Result<(), ShellError> {
        // SAFETY: passed on to the caller.
        unsafe { write(field as u32, value) }
    }

    /// # Safety
    ///
    /// As [`write`].
    #[inline(always)]
    pub(crate) unsafe fn write_natural(
        &self,
        field: FieldNatural,
        value: u64,
    ) -> Result<(), ShellError> {
        // SAFETY: passed on to the caller.
        unsafe { write(field as u32, value) }
    }
}

/// The memory of one VMCS.
#[derive(Debug)]
pub(crate) struct Region {
    frame: Frame,
}

impl Region {
    /// Makes a VMCS region of `frame` for a processor with this VMCS revision.
    pub(crate) fn new(mut frame: Frame, revision: u32) -> Self {
        frame.bytes_mut()[..4].copy_from_slice(&revision.to_le_bytes());
        Self { frame }
    }

    pub(crate) fn physical(&self) -> u64 {
        self.frame.physical()
    }

    /// VMCLEAR: brings the region to memory and marks it clear (not launched).
    ///
    /// # Safety
    ///
    /// The processor must be in VMX operation, and the VMCS not active on another one.
    pub(crate) unsafe fn clear(&self) -> Result<(), ShellError> {
        let address = self.physical();
        // SAFETY: by contract in VMX operation; the operand is the address of a region that we own.
        let refused =
            unsafe { vmx_instruction!("vmclear [{pointer}]", pointer = in(reg) &address) };
        if refused {
            Err(failed("VMCLEAR", address))
        } else {
            Ok(())
        }
    }

    /// VMPTRLD: makes this VMCS current.
    ///
    /// # Safety
    ///
    /// As [`Region::clear`].
    pub(crate) unsafe fn load(&self) -> Result<(), ShellError> {
        let address = self.physical();
        // SAFETY: as in `clear`.
        let refused =
            unsafe { vmx_instruction!("vmptrld [{pointer}]", pointer = in(reg) &address) };
        if refused {
            Err(failed("VMPTRLD", address))
        } else {
            Ok(())
        }
    }
}

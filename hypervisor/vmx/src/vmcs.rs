//! The VMCS region and the instructions that work on it (Intel SDM volume 3, chapter 31).

use crate::fields::{Field16, Field32, Field64, FieldNatural};
use crate::memory::Frame;
use core::arch::asm;
use core::fmt;

/// A VMX instruction that failed (Intel SDM volume 3, section 31.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmcsError {
    /// VMREAD of the field with this encoding failed.
    Read(u32),
    /// VMWRITE of the field with this encoding failed.
    Write(u32),
    /// VMPTRLD of the VMCS at this physical address failed.
    Load(u64),
    /// VMCLEAR of the VMCS at this physical address failed.
    Clear(u64),
    /// INVEPT or INVVPID failed.
    Invalidate,
    /// Another vCPU's state is in the processor: it must be parked first.
    Occupied,
}

impl fmt::Display for VmcsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(field) => write!(f, "VMREAD of field {field:#06x} failed"),
            Self::Write(field) => write!(f, "VMWRITE of field {field:#06x} failed"),
            Self::Load(address) => write!(f, "VMPTRLD of {address:#x} failed"),
            Self::Clear(address) => write!(f, "VMCLEAR of {address:#x} failed"),
            Self::Invalidate => write!(f, "INVEPT or INVVPID failed"),
            Self::Occupied => write!(f, "another vCPU's state is in the processor"),
        }
    }
}

impl core::error::Error for VmcsError {}

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
fn read_failed(encoding: u32) -> VmcsError {
    VmcsError::Read(encoding)
}

/// As [`read_failed`].
#[cold]
#[inline(never)]
fn write_failed(encoding: u32) -> VmcsError {
    VmcsError::Write(encoding)
}

#[inline(always)]
fn read(encoding: u32) -> Result<u64, VmcsError> {
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
unsafe fn write(encoding: u32, value: u64) -> Result<(), VmcsError> {
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
    pub(crate) fn read16(&self, field: Field16) -> Result<u16, VmcsError> {
        read(field as u32).map(|value| value as u16)
    }

    #[inline(always)]
    pub(crate) fn read32(&self, field: Field32) -> Result<u32, VmcsError> {
        read(field as u32).map(|value| value as u32)
    }

    #[inline(always)]
    pub(crate) fn read64(&self, field: Field64) -> Result<u64, VmcsError> {
        read(field as u32)
    }

    #[inline(always)]
    pub(crate) fn read_natural(&self, field: FieldNatural) -> Result<u64, VmcsError> {
        read(field as u32)
    }

    /// # Safety
    ///
    /// As [`write`].
    #[inline(always)]
    pub(crate) unsafe fn write16(&self, field: Field16, value: u16) -> Result<(), VmcsError> {
        // SAFETY: passed on to the caller.
        unsafe { write(field as u32, u64::from(value)) }
    }

    /// # Safety
    ///
    /// As [`write`].
    #[inline(always)]
    pub(crate) unsafe fn write32(&self, field: Field32, value: u32) -> Result<(), VmcsError> {
        // SAFETY: passed on to the caller.
        unsafe { write(field as u32, u64::from(value)) }
    }

    /// # Safety
    ///
    /// As [`write`].
    #[inline(always)]
    pub(crate) unsafe fn write64(&self, field: Field64, value: u64) -> Result<(), VmcsError> {
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
    ) -> Result<(), VmcsError> {
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
    pub(crate) unsafe fn clear(&self) -> Result<(), VmcsError> {
        let address = self.physical();
        // SAFETY: by contract in VMX operation; the operand is the address of a region that we own.
        let failed = unsafe { vmx_instruction!("vmclear [{pointer}]", pointer = in(reg) &address) };
        if failed {
            Err(VmcsError::Clear(address))
        } else {
            Ok(())
        }
    }

    /// VMPTRLD: makes this VMCS current.
    ///
    /// # Safety
    ///
    /// As [`Region::clear`].
    pub(crate) unsafe fn load(&self) -> Result<(), VmcsError> {
        let address = self.physical();
        // SAFETY: as in `clear`.
        let failed = unsafe { vmx_instruction!("vmptrld [{pointer}]", pointer = in(reg) &address) };
        if failed {
            Err(VmcsError::Load(address))
        } else {
            Ok(())
        }
    }
}

//! Control registers, IA32_EFER and XCR0: what the guest may set, and what follows from it.
//!
//! Each write checks what the processor would (Intel SDM volume 3, sections 2.5, 4.4.1 and 27.3.1):
//! what it let through would otherwise fail the next entry.

use super::Active;
use crate::controls::EntryControls;
use crate::fields::{Field32, Field64, FieldNatural};
use crate::residency::{set_xcr0, xcr0};
use crate::setup::{self, CR0_HOST, CR4_ALWAYS, CR4_GUEST};
use crate::vmcs::VmcsError;
use crate::xsave::xcr0_is_valid;
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};

/// The guest's paging configuration, for walks of its page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// CR0 as the guest sees it.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4 as the guest sees it.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// Width of physical addresses in bits (MAXPHYADDR).
    pub physical_bits: u32,
}

impl Active<'_> {
    /// How the guest translates linear addresses now.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn paging(&self) -> Result<Paging, VmcsError> {
        let shown = |value: u64, shadow: u64, mask: u64| (value & !mask) | (shadow & mask);
        let cr0 = self.vmcs.read_natural(FieldNatural::GuestCr0)?;
        let cr4 = self.vmcs.read_natural(FieldNatural::GuestCr4)?;
        Ok(Paging {
            cr0: shown(
                cr0,
                self.vmcs.read_natural(FieldNatural::Cr0Shadow)?,
                CR0_HOST,
            ),
            cr3: self.vmcs.read_natural(FieldNatural::GuestCr3)?,
            cr4: shown(
                cr4,
                self.vmcs.read_natural(FieldNatural::Cr4Shadow)?,
                !CR4_GUEST,
            ),
            efer: self.vmcs.read64(Field64::GuestEfer)?,
            physical_bits: self.cpu.capabilities().physical_bits,
        })
    }

    /// MOV to CR0 with this value. `pdptes` reads the four page-directory-pointer entries at a
    /// guest-physical address, for 32-bit PAE paging.
    ///
    /// Returns `false` when the processor would raise #GP(0); nothing has changed then.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn write_cr0(
        &mut self,
        raw: u64,
        pdptes: impl FnOnce(u64) -> Option<[u64; 4]>,
    ) -> Result<bool, VmcsError> {
        const KNOWN: u64 = Cr0Flags::all().bits();
        let now = self.paging()?;
        let flags = Cr0Flags::from_bits_truncate(raw);
        let paging = flags.contains(Cr0Flags::PAGING);
        let value = raw & KNOWN | Cr0Flags::EXTENSION_TYPE.bits();
        const CS_LONG: u32 = 1 << 13;
        const TSS_16_BUSY: u32 = 3;
        let cs_long = self.is_64_bit()?;
        if raw >> 32 != 0
            || (!paging && (cs_long || now.cr4 & Cr4Flags::PCID.bits() != 0))
            || (paging && !flags.contains(Cr0Flags::PROTECTED_MODE_ENABLE))
            || (flags.contains(Cr0Flags::NOT_WRITE_THROUGH)
                && !flags.contains(Cr0Flags::CACHE_DISABLE))
        {
            return Ok(false);
        }
        let was_paging = now.cr0 & Cr0Flags::PAGING.bits() != 0;
        let mut efer = now.efer;
        if paging && !was_paging && efer & EferFlags::LONG_MODE_ENABLE.bits() != 0 {
            if now.cr4 & Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits() == 0
                || self.vmcs.read32(Field32::GuestCsAccess)? & CS_LONG != 0
                || self.vmcs.read32(Field32::GuestTrAccess)? & 0xf == TSS_16_BUSY
            {
                return Ok(false);
            }
            efer |= EferFlags::LONG_MODE_ACTIVE.bits();
        } else if !paging {
            efer &= !EferFlags::LONG_MODE_ACTIVE.bits();
        }
        let next = Paging {
            cr0: value,
            efer,
            ..now
        };
        if !self.load_pdptes(&now, &next, pdptes)? {
            return Ok(false);
        }
        self.write_efer_field(efer)?;
        let real = (value & !CR0_HOST) | Cr0Flags::NUMERIC_ERROR.bits();
        // SAFETY: guest state only; NE is set as VMX demands, CD and NW are ignored by entry.
        unsafe {
            self.vmcs.write_natural(FieldNatural::GuestCr0, real)?;
            self.vmcs.write_natural(FieldNatural::Cr0Shadow, value)?;
        }
        self.flush()?;
        Ok(true)
    }

    /// Loads CR3 as a task switch does; otherwise as [`Active::write_cr0`].
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn switch_cr3(
        &mut self,
        value: u32,
        pdptes: impl FnOnce(u64) -> Option<[u64; 4]>,
    ) -> Result<bool, VmcsError> {
        let now = self.paging()?;
        let next = Paging {
            cr3: u64::from(value),
            ..now
        };
        if !self.load_pdptes(&now, &next, pdptes)? {
            return Ok(false);
        }
        // SAFETY: guest state only.
        unsafe { self.vmcs.write_natural(FieldNatural::GuestCr3, next.cr3)? };
        self.flush()?;
        Ok(true)
    }

    /// MOV to CR4 with this value; otherwise as [`Active::write_cr0`].
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn write_cr4(
        &mut self,
        value: u64,
        pdptes: impl FnOnce(u64) -> Option<[u64; 4]>,
    ) -> Result<bool, VmcsError> {
        let now = self.paging()?;
        let long = now.efer & EferFlags::LONG_MODE_ACTIVE.bits() != 0;
        let pae = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits();
        let pcid = Cr4Flags::PCID.bits();
        let pcid_rises = value & !now.cr4 & pcid != 0;
        if value & !setup::guest_cr4(self.cpu.capabilities()) != 0
            || (long && value & pae == 0)
            || (pcid_rises && (!long || now.cr3 & 0xfff != 0))
        {
            return Ok(false);
        }
        let next = Paging { cr4: value, ..now };
        if !self.load_pdptes(&now, &next, pdptes)? {
            return Ok(false);
        }
        // SAFETY: guest state only, with the bits that must stay set.
        unsafe {
            self.vmcs
                .write_natural(FieldNatural::GuestCr4, value | CR4_ALWAYS)?;
            self.vmcs.write_natural(FieldNatural::Cr4Shadow, value)?;
        }
        self.flush()?;
        Ok(true)
    }

    /// WRMSR to IA32_EFER with this value; `false` for #GP(0).
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn write_efer(&mut self, value: u64) -> Result<bool, VmcsError> {
        const GUEST: u64 = EferFlags::SYSTEM_CALL_EXTENSIONS.bits()
            | EferFlags::LONG_MODE_ENABLE.bits()
            | EferFlags::NO_EXECUTE_ENABLE.bits();
        let now = self.paging()?;
        let active = EferFlags::LONG_MODE_ACTIVE.bits();
        let paging = now.cr0 & Cr0Flags::PAGING.bits() != 0;
        let toggles_lme = (value ^ now.efer) & EferFlags::LONG_MODE_ENABLE.bits() != 0;
        if value & !(GUEST | active) != 0 || (paging && toggles_lme) {
            return Ok(false);
        }
        self.write_efer_field((value & GUEST) | (now.efer & active))?;
        self.flush()?;
        Ok(true)
    }

    /// XSETBV of XCR0 with this value; `false` for #GP(0) (Intel SDM volume 1, section 13.3).
    pub fn write_xcr0(&mut self, value: u64) -> bool {
        let valid = xcr0_is_valid(value, self.cpu.xcr0);
        if valid {
            // SAFETY: a subset of what the processor accepts, with its rules obeyed.
            unsafe { set_xcr0(value) };
        }
        valid
    }

    /// Writes IA32_EFER and the entry control that must agree with its LMA bit.
    fn write_efer_field(&mut self, efer: u64) -> Result<(), VmcsError> {
        let entry = self.vmcs.read32(Field32::EntryControls)?;
        let mut entry = EntryControls::from_bits_retain(entry);
        entry.set(
            EntryControls::IA32E_GUEST,
            efer & EferFlags::LONG_MODE_ACTIVE.bits() != 0,
        );
        // SAFETY: guest state only.
        unsafe {
            self.vmcs.write64(Field64::GuestEfer, efer)?;
            self.vmcs.write32(Field32::EntryControls, entry.bits())
        }
    }

    /// Loads the page-directory-pointer entries where a change of paging demands it (section 4.4.1
    /// of volume 3); `false` for #GP(0).
    fn load_pdptes(
        &mut self,
        now: &Paging,
        next: &Paging,
        pdptes: impl FnOnce(u64) -> Option<[u64; 4]>,
    ) -> Result<bool, VmcsError> {
        let pae = |paging: &Paging| {
            paging.cr0 & Cr0Flags::PAGING.bits() != 0
                && paging.cr4 & Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits() != 0
                && paging.efer & EferFlags::LONG_MODE_ACTIVE.bits() == 0
        };
        if !pae(next) || (pae(now) && now == next) {
            return Ok(true);
        }
        const PRESENT: u64 = 1;
        const RESERVED_LOW: u64 = 0x1e6;
        let reserved = RESERVED_LOW | !((1 << self.cpu.capabilities().physical_bits) - 1);
        let Some(entries) = pdptes(next.cr3 & 0xffff_ffe0) else {
            return Ok(false);
        };
        if entries
            .iter()
            .any(|entry| entry & PRESENT != 0 && entry & reserved != 0)
        {
            return Ok(false);
        }
        for (field, entry) in Field64::GUEST_PDPTES.into_iter().zip(entries) {
            // SAFETY: guest state only.
            unsafe { self.vmcs.write64(field, entry)? };
        }
        Ok(true)
    }

    /// Drops the guest's cached translations, linear and guest-physical.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Invalidate`].
    pub fn flush(&self) -> Result<(), VmcsError> {
        let ept_pointer = self.vmcs.read64(Field64::EptPointer)?;
        let vpid = self.cpu.capabilities().invvpid.then_some(self.vcpu.vpid());
        setup::invalidate(ept_pointer, vpid)
    }

    /// XCR0 as the guest set it.
    #[must_use]
    pub fn xcr0(&self) -> u64 {
        xcr0()
    }
}

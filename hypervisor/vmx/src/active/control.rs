//! Control registers, IA32_EFER and XCR0.

use super::VmxActive;
use crate::controls::EntryControls;
use crate::fields::{Field32, Field64, FieldNatural};
use crate::residency::{set_xcr0, xcr0};
use crate::setup::{self, CR0_HOST, CR4_ALWAYS, CR4_GUEST};
use vcpu::{CodeAndTask, ControlRegisters, Paging, ShellError, xcr0_is_valid};
use x86_64::registers::control::{Cr0Flags, EferFlags};

impl ControlRegisters for VmxActive<'_> {
    fn paging(&self) -> Result<Paging, ShellError> {
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
            physical_bits: self.cpu.capabilities().widths.physical,
        })
    }

    fn write_control_register(
        &mut self,
        register: u8,
        value: u64,
    ) -> Result<Option<bool>, ShellError> {
        Ok(match register {
            0 => Some(self.write_cr0(value)?),
            4 => Some(self.write_cr4(value)?),
            _ => None,
        })
    }

    fn write_efer(&mut self, value: u64) -> Result<bool, ShellError> {
        let Some(next) = self.paging()?.with_efer(value) else {
            return Ok(false);
        };
        self.write_efer_field(next.efer)?;
        self.flush()?;
        Ok(true)
    }

    fn write_xcr0(&mut self, value: u64) -> bool {
        let valid = xcr0_is_valid(value, self.cpu.xcr0);
        if valid {
            // SAFETY: a subset of what the processor accepts, with its rules obeyed.
            unsafe { set_xcr0(value) };
        }
        valid
    }

    fn flush(&mut self) -> Result<(), ShellError> {
        let ept_pointer = self.vmcs.read64(Field64::EptPointer)?;
        let vpid = self.cpu.capabilities().invvpid.then_some(self.vcpu.vpid());
        setup::invalidate(ept_pointer, vpid)
    }

    fn xcr0(&self) -> u64 {
        xcr0()
    }
}

impl VmxActive<'_> {
    fn write_cr0(&mut self, value: u64) -> Result<bool, ShellError> {
        const CS_LONG: u32 = 1 << 13;
        const TSS_16_BUSY: u32 = 3;
        let now = self.paging()?;
        let code = CodeAndTask {
            long_code: self.vmcs.read32(Field32::GuestCsAccess)? & CS_LONG != 0,
            task_16: self.vmcs.read32(Field32::GuestTrAccess)? & 0xf == TSS_16_BUSY,
        };
        let Some(next) = now.with_cr0(value, code) else {
            return Ok(false);
        };
        if !self.load_pdptes(&now, &next)? {
            return Ok(false);
        }
        self.write_efer_field(next.efer)?;
        let real = (next.cr0 & !CR0_HOST) | Cr0Flags::NUMERIC_ERROR.bits();
        // SAFETY: guest state only; NE is set as VMX demands, CD and NW are ignored by entry.
        unsafe {
            self.vmcs.write_natural(FieldNatural::GuestCr0, real)?;
            self.vmcs.write_natural(FieldNatural::Cr0Shadow, next.cr0)?;
        }
        self.flush()?;
        Ok(true)
    }

    fn write_cr4(&mut self, value: u64) -> Result<bool, ShellError> {
        let now = self.paging()?;
        let Some(next) = now.with_cr4(value, setup::guest_cr4(self.cpu.capabilities())) else {
            return Ok(false);
        };
        if !self.load_pdptes(&now, &next)? {
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

    /// Writes IA32_EFER and the entry control that must agree with its LMA bit.
    fn write_efer_field(&mut self, efer: u64) -> Result<(), ShellError> {
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

    /// Loads the page-directory-pointer entries where a change of paging demands it; `false` for #GP(0).
    pub(super) fn load_pdptes(&mut self, now: &Paging, next: &Paging) -> Result<bool, ShellError> {
        if !next.loads_pdptes(now) {
            return Ok(true);
        }
        let entries = self.memory.page_directory_pointers(next.pdptes_at());
        let Some(entries) = entries.filter(|entries| next.takes_pdptes(entries)) else {
            return Ok(false);
        };
        for (field, entry) in Field64::GUEST_PDPTES.into_iter().zip(entries) {
            // SAFETY: guest state only.
            unsafe { self.vmcs.write64(field, entry)? };
        }
        Ok(true)
    }
}

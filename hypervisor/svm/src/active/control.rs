//! Control registers, EFER and XCR0.

use super::SvmActive;
use crate::setup::{self, CR4_ALWAYS};
use vcpu::{ControlRegisters, Paging, ShellError, xcr0_is_valid};
use x86_64::registers::control::EferFlags;
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

impl SvmActive<'_> {
    pub(super) fn paging_now(&self) -> Paging {
        let vmcb = self.vmcb();
        Paging {
            cr0: vmcb.cr0,
            cr3: vmcb.cr3,
            cr4: self.vcpu.cr4,
            efer: setup::efer(vmcb),
            physical_bits: self.cpu.capabilities().widths.physical,
        }
    }

    fn write_cr4(&mut self, value: u64) -> bool {
        let now = self.paging_now();
        let Some(next) = now.with_cr4(value, self.cpu.capabilities().guest_cr4) else {
            return false;
        };
        if next.loads_pdptes(&now) {
            let entries = self.memory.page_directory_pointers(next.pdptes_at());
            if !entries.is_some_and(|entries| next.takes_pdptes(&entries)) {
                return false;
            }
        }
        self.vcpu.cr4 = value;
        self.vmcb_mut().cr4 = value | CR4_ALWAYS;
        self.vcpu.flush = true;
        true
    }
}

impl ControlRegisters for SvmActive<'_> {
    fn paging(&self) -> Result<Paging, ShellError> {
        Ok(self.paging_now())
    }

    fn xcr0(&self) -> u64 {
        XCr0::read_raw()
    }

    /// Only writes of CR4 exit, beside those of CR8.
    fn write_control_register(
        &mut self,
        register: u8,
        value: u64,
    ) -> Result<Option<bool>, ShellError> {
        Ok((register == 4).then(|| self.write_cr4(value)))
    }

    fn write_efer(&mut self, value: u64) -> Result<bool, ShellError> {
        let Some(next) = self.paging_now().with_efer(value) else {
            return Ok(false);
        };
        let enabled = EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE.bits();
        self.vmcb_mut().efer = next.efer | enabled;
        self.vcpu.flush = true;
        Ok(true)
    }

    fn write_xcr0(&mut self, value: u64) -> bool {
        let valid = xcr0_is_valid(value, self.cpu.xcr0);
        if valid {
            // SAFETY: a subset of what the processor accepts, with its rules obeyed; the hypervisor keeps no state in the
            // components.
            unsafe { XCr0::write(XCr0Flags::from_bits_retain(value)) };
        }
        valid
    }

    fn flush(&mut self) -> Result<(), ShellError> {
        self.vcpu.flush = true;
        Ok(())
    }
}

//! The log of the pages that the guest writes.

use super::VmxActive;
use crate::fields::{Field16, Field32, Field64};
use crate::write_log::EMPTY;
use vcpu::{ShellError, WriteLog};

impl WriteLog for VmxActive<'_> {
    fn log_writes(&mut self, on: bool) -> Result<(), ShellError> {
        let Some(log) = self.vcpu.log.as_mut().filter(|log| log.on != on) else {
            return Ok(());
        };
        log.on = on;
        let address = log.address();
        let controls = self.vcpu.secondary(self.cpu);
        // SAFETY: the log is there only where the processor has the control and sets dirty bits, which the pointer to the
        // page tables asks for; its page is the vCPU's own, and lives as long as it.
        unsafe {
            if on {
                self.vmcs.write64(Field64::LogAddress, address)?;
                self.vmcs.write16(Field16::LogIndex, EMPTY)?;
            }
            self.vmcs
                .write32(Field32::SecondaryControls, controls.bits())
        }
    }

    #[inline(always)]
    fn take_log(&mut self, take: &mut dyn FnMut(u64)) -> Result<(), ShellError> {
        let Some(log) = self.vcpu.log.as_ref().filter(|log| log.on) else {
            return Ok(());
        };
        let index = self.vmcs.read16(Field16::LogIndex)?;
        if index != EMPTY {
            log.pages(index).for_each(take);
            // SAFETY: from here the processor logs into the same page.
            unsafe { self.vmcs.write16(Field16::LogIndex, EMPTY)? };
        }
        Ok(())
    }
}

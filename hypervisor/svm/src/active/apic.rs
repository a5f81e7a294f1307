//! The local APIC stays with the layers above: nothing is ever lent.

use super::SvmActive;
use vcpu::{ApicLending, ApicState, ShellError};

impl ApicLending for SvmActive<'_> {
    #[inline(always)]
    fn can_lend_apic(&self) -> bool {
        false
    }

    fn lend_apic(
        &mut self,
        _task_priority: u8,
        _in_service: [u64; 4],
        _eoi_exits: [u64; 4],
    ) -> Result<(), ShellError> {
        Ok(())
    }

    fn request_interrupt(&mut self, _vector: u8, _eoi_exit: bool) -> Result<bool, ShellError> {
        Ok(false)
    }

    fn take_apic(&mut self) -> Result<ApicState, ShellError> {
        Ok(ApicState::default())
    }

    fn keep_apic(&mut self) -> Result<(), ShellError> {
        Ok(())
    }
}

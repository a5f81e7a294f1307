//! AMD-V keeps no log of the pages that the guest writes.

use super::SvmActive;
use vcpu::{ShellError, WriteLog};

impl WriteLog for SvmActive<'_> {
    fn log_writes(&mut self, _on: bool) -> Result<(), ShellError> {
        Ok(())
    }

    #[inline(always)]
    fn take_log(&mut self, _take: &mut dyn FnMut(u64)) -> Result<(), ShellError> {
        Ok(())
    }
}

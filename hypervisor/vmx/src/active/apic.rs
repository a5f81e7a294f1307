//! A guest's local APIC in the processor's hands (Intel SDM volume 3, chapter 30).
//!
//! Only in x2APIC mode: then the guest reaches its priorities and vectors in service without an exit, and ends
//! interrupts. All other registers keep exiting.

use super::VmxActive;
use crate::controls::{PrimaryControls, SecondaryControls};
use crate::fields::{Field16, Field32, Field64};
use vcpu::{ApicLending, ApicState, ShellError};

/// CR8 is the task priority: its accesses are the processor's business or exit.
const CR8_EXITING: PrimaryControls =
    PrimaryControls::CR8_LOAD_EXITING.union(PrimaryControls::CR8_STORE_EXITING);

impl ApicLending for VmxActive<'_> {
    #[inline(always)]
    fn can_lend_apic(&self) -> bool {
        self.vcpu.apic.is_some()
    }

    fn lend_apic(
        &mut self,
        task_priority: u8,
        in_service: [u64; 4],
        eoi_exits: [u64; 4],
    ) -> Result<(), ShellError> {
        if !self.vcpu.apic.as_ref().is_some_and(|apic| apic.on) {
            self.virtualize_apic(true)?;
        }
        let Some(apic) = &mut self.vcpu.apic else {
            return Ok(());
        };
        let Some(status) = apic.load(task_priority, in_service) else {
            // Nothing is in service, and what will be says for itself whether to end it exits.
            return Ok(());
        };
        // SAFETY: guest state that only says which vectors to deliver to the guest.
        unsafe { self.vmcs.write16(Field16::GuestInterruptStatus, status)? };
        if apic.eoi_exits != eoi_exits {
            for (field, bits) in Field64::EOI_EXITS.into_iter().zip(eoi_exits) {
                // SAFETY: it only adds exits.
                unsafe { self.vmcs.write64(field, bits)? };
            }
            apic.eoi_exits = eoi_exits;
        }
        Ok(())
    }

    // The processor could keep requests that the guest cannot take yet, too. Then it would look at them again by itself
    // when the guest ends an interrupt or enables them. One emulator (Bochs 2.7) delivers such a request to a guest with
    // interrupts disabled when an interrupt of the host's comes, so none is left waiting.
    fn request_interrupt(&mut self, vector: u8, eoi_exit: bool) -> Result<bool, ShellError> {
        let Some(apic) = &mut self.vcpu.apic else {
            return Ok(false);
        };
        let status = self.vmcs.read16(Field16::GuestInterruptStatus)?;
        let Some(status) = apic.request(vector, status) else {
            return Ok(false);
        };
        // SAFETY: guest state that only says which vectors to deliver to the guest.
        unsafe { self.vmcs.write16(Field16::GuestInterruptStatus, status)? };
        let (word, bit) = (usize::from(vector >> 6), 1 << (vector & 63));
        let exits = &mut apic.eoi_exits[word];
        if (*exits & bit != 0) != eoi_exit {
            *exits ^= bit;
            // SAFETY: it only adds exits.
            unsafe { self.vmcs.write64(Field64::EOI_EXITS[word], *exits)? };
        }
        Ok(true)
    }

    fn take_apic(&mut self) -> Result<ApicState, ShellError> {
        let Some(apic) = &mut self.vcpu.apic else {
            return Ok(ApicState::default());
        };
        let status = self.vmcs.read16(Field16::GuestInterruptStatus)?;
        Ok(apic.state(status))
    }

    fn keep_apic(&mut self) -> Result<(), ShellError> {
        self.virtualize_apic(false)
    }
}

impl VmxActive<'_> {
    /// Switches the controls. Without them, an access that the MSR bitmap lets through would reach the host's own
    /// local APIC: it lets through nothing but while they are on.
    #[cold]
    fn virtualize_apic(&mut self, on: bool) -> Result<(), ShellError> {
        let vcpu = &mut *self.vcpu;
        let mut secondary = vcpu.secondary(self.cpu);
        let Some(apic) = vcpu.apic.as_mut().filter(|apic| apic.on != on) else {
            return Ok(());
        };
        if !on {
            vcpu.msrs.intercept_apic(true);
        }
        let mut primary = vcpu.primary;
        primary.set(PrimaryControls::TPR_SHADOW, on);
        primary.set(CR8_EXITING, !on);
        secondary.set(SecondaryControls::APIC_VIRTUALIZATION, on);
        // SAFETY: the page is there only where the processor allows these controls (`Vcpu::provide_apic`); it is the
        // vCPU's own, and lives as long as it.
        unsafe {
            self.vmcs
                .write32(Field32::PrimaryControls, primary.bits())?;
            self.vmcs
                .write32(Field32::SecondaryControls, secondary.bits())?;
            if on {
                self.vmcs
                    .write64(Field64::VirtualApicAddress, apic.address())?;
                self.vmcs.write16(Field16::GuestInterruptStatus, 0)?;
                for field in Field64::EOI_EXITS {
                    self.vmcs.write64(field, 0)?;
                }
            }
        }
        vcpu.primary = primary;
        apic.eoi_exits = [0; 4];
        apic.on = on;
        if on {
            vcpu.msrs.intercept_apic(false);
        }
        Ok(())
    }
}

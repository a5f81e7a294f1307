//! The local APIC in the processor's hands, where the processor can keep it: from the start of a vCPU's run to its end,
//! so that whoever looks at the vCPU between runs finds everything in [`super::Local`]. Only of a vCPU that crashed is
//! it not taken back. Requests wait in [`super::Local`] until the guest takes interrupts; where it has more than one to
//! take, the processor is not asked to keep anything until they are served.

use super::Platform;
use devices::lapic::Lent;
use vcpu::{ApicLending, ApicState, ShellError};

impl Platform<'_> {
    /// Whether the processor keeps the local APIC's interrupts now.
    #[inline(always)]
    pub(in super::super) fn apic_is_lent(&self) -> bool {
        self.local.apic_is_lent()
    }

    /// Lets the processor keep the local APIC's interrupts if it can, and the local APIC is in a state for that;
    /// otherwise makes sure that it does not.
    ///
    /// # Errors
    ///
    /// [`ShellError`]; the interrupts may be lost then, as the vCPU is.
    #[inline(always)]
    pub(in super::super) fn lend_apic(
        &mut self,
        active: &mut impl ApicLending,
    ) -> Result<(), ShellError> {
        if !active.can_lend_apic() || self.local.apic_is_lent() {
            return Ok(());
        }
        self.lend_to(active)
    }

    #[inline(never)]
    fn lend_to(&mut self, active: &mut impl ApicLending) -> Result<(), ShellError> {
        match self.local.lend_apic() {
            Some((lent, levels)) => active.lend_apic(lent.task_priority, lent.in_service, levels),
            None => active.keep_apic(),
        }
    }

    /// Takes the local APIC's interrupts back, if the processor keeps them. Returns how many requests it has not
    /// delivered.
    ///
    /// # Errors
    ///
    /// [`ShellError`]; the interrupts are lost then, as the vCPU is.
    #[inline(always)]
    pub(in super::super) fn take_apic(
        &mut self,
        active: &mut impl ApicLending,
    ) -> Result<u64, ShellError> {
        if !self.local.apic_is_lent() {
            return Ok(0);
        }
        self.take_from(active)
    }

    #[inline(never)]
    fn take_from(&mut self, active: &mut impl ApicLending) -> Result<u64, ShellError> {
        let state = active.take_apic();
        let ApicState {
            task_priority,
            requests,
            in_service,
        } = state.unwrap_or_default();
        let lent = Lent {
            task_priority,
            in_service,
        };
        self.local.take_apic(&lent, requests);
        state.map(|_| count(requests))
    }

    /// Makes the processor, which keeps the rest, deliver what is requested at the next entry; returns the vector. `None`
    /// where that is more than one, or of a priority too low.
    ///
    /// # Errors
    ///
    /// [`ShellError`].
    #[inline(always)]
    pub(in super::super) fn request_interrupt(
        &mut self,
        active: &mut impl ApicLending,
    ) -> Result<Option<u8>, ShellError> {
        let Some(request) = self.local.sole_request() else {
            return Ok(None);
        };
        let pic = self.pic_pending() && self.local.extint_enabled();
        if pic || !active.request_interrupt(request.vector, request.level)? {
            return Ok(None);
        }
        self.local.take_request(request);
        Ok(Some(request.vector))
    }

    /// The guest ended an interrupt that stood for a level, without the local APIC seeing it.
    pub(in super::super) fn interrupt_ended(&mut self, vector: u8) {
        let effect = self.local.interrupt_ended(vector);
        self.apply(effect);
    }
}

/// The number of vectors in a set, which is empty most of the time.
fn count(vectors: [u64; 4]) -> u64 {
    let words = vectors.into_iter().filter(|word| *word != 0);
    words.map(|word| u64::from(word.count_ones())).sum()
}

//! What is next to a vCPU alone: its local APIC, and what waits for it beside interrupts.

use alloc::boxed::Box;
use devices::lapic::{Address, Delivery, Effect, Fault, Lent, LocalApic, LocalApicConfig, Request};
use devices::msi::Message;
use devices::{LocalApicStateV1, StateError, Ticks};
use serde::{Deserialize, Serialize};

/// IA32_TSC_DEADLINE.
const TSC_DEADLINE: u32 = 0x6e0;

/// The interrupt state of a vCPU.
#[derive(Debug)]
pub(super) struct Local {
    apic: Option<Box<LocalApic>>,
    /// The processor keeps the local APIC's interrupts: during a run only.
    lent: bool,
    /// What RDTSC adds to guest time: not zero once the guest wrote its TSC.
    tsc_adjust: u64,
    /// Where the paravirtual clock is, as its MSR has it.
    system_time: u64,
    /// Only the local APIC can bring these.
    nmi: bool,
    init: bool,
    start_up: Option<u8>,
    /// When, in the board's TSC, the network is looked at.
    pub(super) look_at: u64,
}

/// The saved interrupt state of a vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LocalStateV1 {
    apic: Option<LocalApicStateV1>,
    tsc_adjust: u64,
    system_time: u64,
    nmi: bool,
    init: bool,
    start_up: Option<u8>,
}

impl Local {
    /// The interrupt state to keep.
    pub(super) fn save(&self) -> LocalStateV1 {
        LocalStateV1 {
            apic: self.apic.as_ref().map(|apic| apic.save()),
            tsc_adjust: self.tsc_adjust,
            system_time: self.system_time,
            nmi: self.nmi,
            init: self.init,
            start_up: self.start_up,
        }
    }

    /// A kept interrupt state.
    ///
    /// # Errors
    ///
    /// [`StateError`] for a state that a vCPU with such a local APIC cannot be in.
    pub(super) fn restore(
        apic: Option<LocalApicConfig>,
        state: &LocalStateV1,
    ) -> Result<Self, StateError> {
        let apic = match (apic, &state.apic) {
            (Some(config), Some(saved)) => Some(Box::new(LocalApic::restore(config, saved)?)),
            (None, None) => None,
            _ => return Err(StateError::Devices),
        };
        let beyond = state.nmi || state.init || state.start_up.is_some();
        if apic.is_none() && beyond {
            return Err(StateError::Invalid("signals without a local APIC"));
        }
        Ok(Self {
            lent: false,
            apic,
            tsc_adjust: state.tsc_adjust,
            system_time: state.system_time,
            nmi: state.nmi,
            init: state.init,
            start_up: state.start_up,
            look_at: u64::MAX,
        })
    }

    /// The state after a reset, with a local APIC where the machine has such.
    pub(super) fn new(apic: Option<LocalApicConfig>) -> Self {
        let apic = apic.map(|config| {
            let mut apic = Box::new(LocalApic::new(config));
            if config.bootstrap {
                apic.set_virtual_wire();
            }
            apic
        });
        Self {
            apic,
            lent: false,
            tsc_adjust: 0,
            system_time: 0,
            nmi: false,
            init: false,
            start_up: None,
            look_at: u64::MAX,
        }
    }

    /// Which messages are for this vCPU.
    pub(super) fn address(&self) -> Address {
        self.apic
            .as_ref()
            .map_or(Address::from_bits(0), |apic| apic.address())
    }

    /// Where the local APIC's registers are mapped.
    pub(super) fn page(&self) -> Option<u64> {
        self.apic.as_ref()?.page()
    }

    /// A message arrives.
    #[inline]
    pub(super) fn accept(&mut self, message: Message) {
        let Some(apic) = &mut self.apic else { return };
        match apic.accept(message) {
            Delivery::Nmi => self.nmi = true,
            Delivery::Init => {
                self.init = true;
                self.start_up = None;
            }
            Delivery::StartUp(page) => {
                self.start_up.get_or_insert(page);
            }
            Delivery::Dropped
            | Delivery::Requested
            | Delivery::Coalesced
            | Delivery::Smi
            | Delivery::ExtInt => {}
        }
    }

    /// Whether an INIT or a start-up IPI waits.
    #[inline(always)]
    pub(super) fn signalled(&self) -> bool {
        self.init || self.start_up.is_some()
    }

    /// Whether an INIT came; it is done with the asking, and the local APIC has taken it.
    pub(super) fn take_init(&mut self) -> bool {
        let init = core::mem::take(&mut self.init);
        if init {
            self.nmi = false;
            if let Some(apic) = &mut self.apic {
                apic.init();
            }
        }
        init
    }

    /// Whether an INIT waits.
    pub(super) fn init_pending(&self) -> bool {
        self.init
    }

    /// The page of a start-up that came.
    pub(super) fn take_start_up(&mut self) -> Option<u8> {
        self.start_up.take()
    }

    /// Whether an NMI waits.
    pub(super) fn nmi_pending(&self) -> bool {
        self.nmi
    }

    /// The vCPU takes the NMI.
    pub(super) fn acknowledge_nmi(&mut self) {
        self.nmi = false;
    }

    /// Whether an interrupt asks for the vCPU; `pic` says whether the 8259A pair does.
    #[inline(always)]
    pub(super) fn interrupt_pending(&self, pic: bool) -> bool {
        match &self.apic {
            None => pic,
            Some(apic) => apic.interrupt_pending().is_some() || (pic && apic.extint_enabled()),
        }
    }

    /// Whether what the 8259A pair asks for gets to the vCPU.
    #[inline(always)]
    pub(super) fn extint_enabled(&self) -> bool {
        self.apic.as_ref().is_none_or(|apic| apic.extint_enabled())
    }

    /// The vCPU takes an interrupt of the local APIC's; `None` where there is no local APIC.
    pub(super) fn acknowledge(&mut self) -> Option<u8> {
        Some(self.apic.as_mut()?.acknowledge())
    }

    /// Whether the processor keeps the local APIC's interrupts.
    #[inline(always)]
    pub(super) fn apic_is_lent(&self) -> bool {
        self.lent
    }

    /// Hands out the local APIC's interrupts and the vectors whose end must be told, for the processor to keep; `None`
    /// if there is none in a state for that.
    pub(super) fn lend_apic(&mut self) -> Option<(Lent, [u64; 4])> {
        let apic = self.apic.as_mut().filter(|apic| apic.can_be_lent())?;
        self.lent = true;
        Some((apic.lend(), apic.levels()))
    }

    /// Takes the local APIC's interrupts back, with the requests that the processor has kept.
    pub(super) fn take_apic(&mut self, lent: &Lent, requests: [u64; 4]) {
        self.lent = false;
        if let Some(apic) = &mut self.apic {
            apic.give_back(lent, requests);
        }
    }

    /// The request of the lent local APIC's, if it is the only one.
    #[inline]
    pub(super) fn sole_request(&self) -> Option<Request> {
        self.apic.as_ref()?.sole_request()
    }

    /// The processor keeps that request now.
    #[inline]
    pub(super) fn take_request(&mut self, request: Request) {
        if let Some(apic) = &mut self.apic {
            apic.take_request(request);
        }
    }

    /// What follows when the guest ended an interrupt of the lent local APIC's.
    pub(super) fn interrupt_ended(&self, vector: u8) -> Option<Effect> {
        self.apic.as_ref()?.ended(vector)
    }

    /// Guest time at which the local APIC's timer is due.
    #[inline(always)]
    pub(super) fn next_deadline(&self) -> Option<Ticks> {
        self.apic.as_ref()?.next_deadline()
    }

    /// Brings the local APIC's timer up to `now`.
    #[inline(always)]
    pub(super) fn expire(&mut self, now: Ticks) {
        if let Some(apic) = &mut self.apic {
            apic.expire(now);
        }
    }

    /// A read of one of the local APIC's MSRs.
    pub(super) fn read_msr(&mut self, msr: u32, now: Ticks) -> Result<u64, Fault> {
        let value = self.apic.as_mut().ok_or(Fault)?.read_msr(msr, now)?;
        // The local APIC compares with guest time, the guest with its TSC. Zero means disarmed in both.
        let adjust = msr == TSC_DEADLINE && value != 0;
        Ok(if adjust {
            value.wrapping_add(self.tsc_adjust)
        } else {
            value
        })
    }

    /// A write of one of the local APIC's MSRs.
    pub(super) fn write_msr(
        &mut self,
        msr: u32,
        value: u64,
        now: Ticks,
    ) -> Result<Option<Effect>, Fault> {
        let value = if msr == TSC_DEADLINE && value != 0 && self.tsc_adjust != 0 {
            // What lies before guest time zero is over, as is 1.
            value.checked_sub(self.tsc_adjust).map_or(1, |at| at.max(1))
        } else {
            value
        };
        self.apic.as_mut().ok_or(Fault)?.write_msr(msr, value, now)
    }

    /// What RDTSC adds to guest time.
    pub(super) fn tsc_adjust(&self) -> u64 {
        self.tsc_adjust
    }

    /// The guest sets its TSC. What its deadline is compared with moves with it.
    pub(super) fn set_tsc(&mut self, value: u64, now: Ticks) {
        let deadline = self.read_msr(TSC_DEADLINE, now).unwrap_or(0);
        self.tsc_adjust = value.wrapping_sub(now.0);
        if deadline != 0 {
            let _ = self.write_msr(TSC_DEADLINE, deadline, now);
        }
    }

    /// The paravirtual clock's MSR.
    pub(super) fn system_time(&self) -> u64 {
        self.system_time
    }

    /// Sets the paravirtual clock's MSR.
    pub(super) fn set_system_time(&mut self, value: u64) {
        self.system_time = value;
    }

    /// A 32-bit read at `offset` in the local APIC's page.
    pub(super) fn mmio_read(&mut self, offset: u16, now: Ticks) -> u32 {
        self.apic
            .as_mut()
            .map_or(u32::MAX, |apic| apic.mmio_read(offset, now))
    }

    /// A 32-bit write at `offset` in the local APIC's page.
    pub(super) fn mmio_write(&mut self, offset: u16, value: u32, now: Ticks) -> Option<Effect> {
        self.apic.as_mut()?.mmio_write(offset, value, now)
    }

    /// CR8, the task priority.
    pub(super) fn cr8(&self) -> u64 {
        self.apic.as_ref().map_or(0, |apic| u64::from(apic.cr8()))
    }

    /// A write of CR8. A machine without a local APIC has no use for it.
    pub(super) fn set_cr8(&mut self, value: u8) {
        if let Some(apic) = &mut self.apic {
            apic.set_cr8(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::msi::DeliveryMode;

    const SPURIOUS: u32 = 0x80f;
    const EOI: u32 = 0x80b;
    const TIMER: u32 = 0x832;
    const BASE: u32 = 0x1b;

    impl Local {
        /// Puts the local APIC into x2APIC mode and enables it.
        pub(in super::super) fn enable_for_test(&mut self) {
            let base = self.read_msr(BASE, Ticks(0)).expect("a base");
            for (msr, value) in [(BASE, base | 3 << 10), (SPURIOUS, 0x1ff)] {
                self.write_msr(msr, value, Ticks(0)).expect("a write");
            }
        }

        pub(in super::super) fn end_of_interrupt_for_test(&mut self) {
            self.write_msr(EOI, 0, Ticks(0)).expect("an end");
        }
    }

    fn local() -> Local {
        let mut local = Local::new(Some(LocalApicConfig {
            id: 0,
            bootstrap: true,
            physical_bits: 39,
            x2apic: true,
            tsc_deadline: true,
        }));
        local.enable_for_test();
        local
    }

    #[test]
    fn a_deadline_is_in_the_guests_own_tsc() {
        const DEADLINE_MODE: u64 = 2 << 17;
        let mut local = local();
        let _ = local.write_msr(TIMER, DEADLINE_MODE | 0x40, Ticks(0));
        local.set_tsc(1_000_000, Ticks(100));
        let _ = local.write_msr(TSC_DEADLINE, 1_000_500, Ticks(100));
        assert_eq!(local.next_deadline(), Some(Ticks(600)));
        assert_eq!(local.read_msr(TSC_DEADLINE, Ticks(200)), Ok(1_000_500));
        // Setting the TSC back puts the deadline off.
        local.set_tsc(1_000_000, Ticks(200));
        assert_eq!(local.next_deadline(), Some(Ticks(700)));
        // One that is over fires at once.
        let _ = local.write_msr(TSC_DEADLINE, 5, Ticks(300));
        assert!(local.interrupt_pending(false));
        assert_eq!(local.read_msr(TSC_DEADLINE, Ticks(300)), Ok(0));
    }

    #[test]
    fn a_saved_state_is_restored() {
        let mut local = local();
        let config = local.apic.as_ref().map(|_| LocalApicConfig {
            id: 0,
            bootstrap: true,
            physical_bits: 39,
            x2apic: true,
            tsc_deadline: true,
        });
        local.set_tsc(12345, Ticks(7));
        local.accept(Message::fixed(0x77));
        local.accept(Message {
            mode: DeliveryMode::StartUp,
            vector: 9,
            level: false,
        });
        let state = local.save();
        let mut back = Local::restore(config, &state).expect("its own state");
        assert_eq!(back.save(), state);
        assert_eq!(back.acknowledge(), Some(0x77));
        assert_eq!(back.take_start_up(), Some(9));
        assert_eq!(back.tsc_adjust(), 12338);
        assert!(Local::restore(None, &state).is_err());
        let signals = LocalStateV1 {
            apic: None,
            ..state
        };
        assert!(Local::restore(None, &signals).is_err());
    }

    #[test]
    fn the_pics_line_counts_where_lint0_lets_it_in() {
        let mut local = local();
        assert!(local.interrupt_pending(true) && !local.interrupt_pending(false));
        let _ = local.write_msr(0x835, 1 << 16, Ticks(0));
        assert!(!local.interrupt_pending(true));
        local.accept(Message::fixed(0x50));
        assert!(local.interrupt_pending(false));
        assert!(Local::new(None).interrupt_pending(true));
    }
}

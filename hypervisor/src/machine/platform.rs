//! What surrounds a guest's processor: the PC and, for guests that have one, the local APIC.

use crate::guest::GuestHandle;
use alloc::boxed::Box;
use devices::lapic::{Delivery, Effect, Fault, LocalApic, LocalApicConfig};
use devices::msi::Dispatch;
use devices::{Pc, PcConfig, Ticks};

/// The I/O APIC's page.
const IO_APIC_PAGE: u64 = 0xfec0_0000;
const PAGE_MASK: u64 = !0xfff;

/// A device that is mapped into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapped {
    LocalApic,
    IoApic,
}

/// The devices of one machine, and the guest's clock.
pub(super) struct Platform {
    pub(super) pc: Pc,
    apic: Option<Box<LocalApic>>,
    /// The board's TSC at guest time zero: guest time = TSC - base.
    base: u64,
    /// A non-maskable interrupt, which only the local APIC can bring, waits for the processor.
    nmi: bool,
}

impl Platform {
    /// Devices after a reset, at the guest's time zero, which is now: the board's TSC is `base`.
    pub(super) fn new(pc: PcConfig, apic: Option<LocalApicConfig>, base: u64) -> Self {
        let apic = apic.map(|config| {
            let mut apic = Box::new(LocalApic::new(config));
            apic.set_virtual_wire();
            apic
        });
        Self {
            pc: Pc::new(pc, Ticks(0)),
            apic,
            base,
            nmi: false,
        }
    }

    /// The board's TSC at guest time zero.
    #[inline(always)]
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Guest time of a TSC value of the board.
    #[inline(always)]
    pub(super) fn time(&self, tsc: u64) -> Ticks {
        Ticks(tsc.saturating_sub(self.base))
    }

    /// The board's TSC at which the next timer is due.
    #[inline(always)]
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let pc = self.pc.next_deadline();
        let next = match &self.apic {
            None => pc,
            Some(apic) => match (pc, apic.next_deadline()) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
        };
        next.map(|at| at.0.saturating_add(self.base))
    }

    /// Brings every timer up to the board's TSC.
    pub(super) fn expire(&mut self, tsc: u64) {
        let now = self.time(tsc);
        self.pc.expire(now);
        if let Some(apic) = &mut self.apic {
            apic.expire(now);
        }
        self.settle();
    }

    /// Whether an interrupt or an NMI asks for the processor.
    #[inline(always)]
    pub(super) fn event_pending(&self) -> bool {
        match &self.apic {
            None => self.pc.interrupt_pending(),
            Some(_) => self.nmi || self.interrupt_pending(),
        }
    }

    /// Whether an NMI asks for the processor.
    pub(super) fn nmi_pending(&self) -> bool {
        self.nmi
    }

    /// The processor takes the NMI.
    pub(super) fn acknowledge_nmi(&mut self) {
        self.nmi = false;
    }

    /// Whether an interrupt asks for the processor.
    #[inline(always)]
    pub(super) fn interrupt_pending(&self) -> bool {
        match &self.apic {
            None => self.pc.interrupt_pending(),
            Some(apic) => {
                apic.interrupt_pending().is_some()
                    || (self.pc.interrupt_pending() && apic.extint_enabled())
            }
        }
    }

    /// The processor takes the interrupt: its vector.
    pub(super) fn acknowledge(&mut self) -> u8 {
        match &mut self.apic {
            Some(apic) if !(self.pc.interrupt_pending() && apic.extint_enabled()) => {
                apic.acknowledge()
            }
            _ => self.pc.acknowledge(),
        }
    }

    /// Takes the I/O APIC's messages to the local APIC: to be called after whatever can move a line.
    #[inline(always)]
    pub(super) fn settle(&mut self) {
        if self.apic.is_some() {
            self.deliver_messages();
        }
    }

    fn deliver_messages(&mut self) {
        while let Some(dispatch) = self.pc.take_message() {
            self.deliver(dispatch, false);
        }
    }

    fn deliver(&mut self, dispatch: Dispatch, own: bool) {
        let Some(apic) = &mut self.apic else { return };
        if !apic.address().matches(dispatch.destination, own) {
            return;
        }
        // There is one processor and it is running: INIT and start-up mean nothing to it.
        if apic.accept(dispatch.message) == Delivery::Nmi {
            self.nmi = true;
        }
    }

    fn apply(&mut self, effect: Option<Effect>) {
        match effect {
            None | Some(Effect::Address) => {}
            Some(Effect::Ipi(dispatch)) => self.deliver(dispatch, true),
            Some(Effect::EndOfInterrupt(vector)) => {
                self.pc.end_of_interrupt(vector);
                self.deliver_messages();
            }
        }
    }

    /// A read of one of the local APIC's MSRs; `None` where the machine has no local APIC.
    pub(super) fn read_msr(&mut self, msr: u32, tsc: u64) -> Option<Result<u64, Fault>> {
        let now = self.time(tsc);
        Some(self.apic.as_mut()?.read_msr(msr, now))
    }

    /// A write of one of the local APIC's MSRs; `None` where the machine has no local APIC.
    pub(super) fn write_msr(
        &mut self,
        msr: u32,
        value: u64,
        tsc: u64,
    ) -> Option<Result<(), Fault>> {
        let now = self.time(tsc);
        let written = self.apic.as_mut()?.write_msr(msr, value, now);
        Some(written.map(|effect| self.apply(effect)))
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

    /// The device that is mapped at a guest-physical address.
    pub(super) fn mapped(&self, physical: u64) -> Option<Mapped> {
        let apic = self.apic.as_ref()?;
        match physical & PAGE_MASK {
            IO_APIC_PAGE => Some(Mapped::IoApic),
            page if apic.page() == Some(page) => Some(Mapped::LocalApic),
            _ => None,
        }
    }

    /// A read of `size` bytes from a mapped device. Its registers are 32 bits wide; a smaller access sees
    /// a part of one, a larger one sees nothing behind it.
    pub(super) fn mapped_read(&mut self, device: Mapped, physical: u64, tsc: u64) -> u64 {
        let offset = (physical & !PAGE_MASK) as u16;
        let now = self.time(tsc);
        let word = offset & !3;
        let value = match (device, &mut self.apic) {
            (Mapped::LocalApic, Some(apic)) => apic.mmio_read(word, now),
            _ => self.pc.io_apic_read(word),
        };
        u64::from(value >> (8 * (offset & 3)))
    }

    /// A write to a mapped device. Only whole registers can be written.
    pub(super) fn mapped_write(
        &mut self,
        device: Mapped,
        physical: u64,
        size: u32,
        value: u64,
        tsc: u64,
    ) {
        let offset = (physical & !PAGE_MASK) as u16;
        if size < 4 || !offset.is_multiple_of(4) {
            return;
        }
        let now = self.time(tsc);
        match (device, &mut self.apic) {
            (Mapped::LocalApic, Some(apic)) => {
                let effect = apic.mmio_write(offset, value as u32, now);
                self.apply(effect);
            }
            _ => {
                self.pc.io_apic_write(offset, value as u32);
                self.settle();
            }
        }
    }

    /// Moves typed bytes into COM1 as far as it has room.
    pub(super) fn feed_console(&mut self, guest: &GuestHandle) {
        if !guest.input_waits() {
            return;
        }
        let mut bytes = [0; 16];
        let room = self.pc.console_room().min(bytes.len());
        let count = guest.take_input(&mut bytes[..room]);
        self.pc.console_input(&bytes[..count]);
        self.settle();
    }
}

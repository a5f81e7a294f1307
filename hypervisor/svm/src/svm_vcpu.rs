//! A virtual processor: its VMCB, its registers, and making it the one that runs.

use crate::active::SvmActive;
use crate::cpu::SvmCpu;
use crate::setup;
use crate::vmcb::{Intercepts, InterruptControl, VmcbFrame};
use vcpu::{
    Event, EventKind, FrameSource, Gprs, GuestView, NestedTables, Resident, RestoreError,
    ShellError, StartState, Vcpu, VcpuError, VcpuStateV1, blocking,
};

/// A virtual processor. It runs on the processor it was made on.
pub struct SvmVcpu {
    pub(crate) vmcb: VmcbFrame,
    /// RAX is in the VMCB while the guest runs.
    pub(crate) gprs: Gprs,
    pub(crate) resident: Resident,
    /// CR4 as the guest sees it.
    pub(crate) cr4: u64,
    /// NMIs are blocked until the guest's next IRET, which exits while they are.
    pub(crate) nmi_blocked: bool,
    /// The interrupt that is to be delivered next, as a virtual interrupt: it may take more than one entry until the
    /// processor gets to it.
    pub(crate) interrupt: Option<u8>,
    /// An exit is wanted as soon as the guest can take an interrupt.
    pub(crate) window: bool,
    /// An exit is wanted as soon as the guest can take an NMI, which waits for the end of an instruction.
    pub(crate) nmi_wanted: bool,
    /// The next entry drops the cached translations.
    pub(crate) flush: bool,
    asid: u32,
    /// Other vCPUs have the same ASID.
    shares_asid: bool,
    _not_send: core::marker::PhantomData<*mut ()>,
}

/// The ASID for a tag, of those below `asids`, and whether others may have it too: the last one is for all whose tags
/// are beyond.
fn asid(tag: u16, asids: u32) -> (u32, bool) {
    let last = asids - 1;
    let tag = u32::from(tag);
    (tag.min(last), tag >= last)
}

impl Vcpu for SvmVcpu {
    type Shell = SvmCpu;
    type Active<'a> = SvmActive<'a>;

    unsafe fn new(
        cpu: &mut SvmCpu,
        tables: &NestedTables,
        tag: u16,
        tsc_offset: u64,
        start: &StartState,
        frames: &mut impl FrameSource,
    ) -> Result<Self, VcpuError> {
        let caps = *cpu.capabilities();
        let frame = frames.frame().ok_or(VcpuError::OutOfMemory)?;
        let (asid, shares_asid) = asid(tag, caps.asids);
        let mut vcpu = Self {
            vmcb: VmcbFrame::new(frame),
            gprs: Gprs::default(),
            resident: Resident::new(&cpu.area, caps.rdtscp),
            cr4: 0,
            nmi_blocked: false,
            interrupt: None,
            window: false,
            nmi_wanted: false,
            flush: true,
            asid,
            shares_asid,
            _not_send: core::marker::PhantomData,
        };
        // SAFETY: passed on to the caller.
        unsafe { vcpu.reset(cpu, tables, tsc_offset, start)? };
        Ok(vcpu)
    }

    /// No processor is made to keep a local APIC: that would be AVIC, which wants interrupt remapping to pay.
    fn provide_apic(
        &mut self,
        _cpu: &SvmCpu,
        _frames: &mut impl FrameSource,
    ) -> Result<(), VcpuError> {
        Ok(())
    }

    unsafe fn reset(
        &mut self,
        cpu: &mut SvmCpu,
        tables: &NestedTables,
        tsc_offset: u64,
        start: &StartState,
    ) -> Result<(), VcpuError> {
        self.set(cpu, tables, tsc_offset, &VcpuStateV1::at_start(start));
        Ok(())
    }

    unsafe fn restore(
        &mut self,
        cpu: &mut SvmCpu,
        tables: &NestedTables,
        tsc_offset: u64,
        state: &VcpuStateV1,
    ) -> Result<(), RestoreError> {
        state.check(&cpu.limits())?;
        self.set(cpu, tables, tsc_offset, state);
        Ok(())
    }

    fn activate<'a>(
        &'a mut self,
        cpu: &'a mut SvmCpu,
        memory: &'a dyn GuestView,
    ) -> Result<SvmActive<'a>, ShellError> {
        let address = self.vmcb.physical();
        match cpu.resident {
            Some(other) if other != address => return Err(ShellError::Occupied),
            Some(_) => {}
            None => {
                // SAFETY: in the host's context on this processor, whose XCR0 is given.
                unsafe { self.resident.load(cpu.xcr0, cpu.capabilities().barriers) };
                cpu.resident = Some(address);
                self.flush |= self.shares_asid;
            }
        }
        Ok(SvmActive::new(self, cpu, memory))
    }

    fn park(&mut self, cpu: &mut SvmCpu) {
        if cpu.resident == Some(self.vmcb.physical()) {
            // SAFETY: the state in the processor is this vCPU's.
            unsafe { self.resident.store(cpu.xcr0) };
            cpu.resident = None;
        }
    }
}

impl SvmVcpu {
    /// Writes the whole VMCB and the resident state anew; the state must be one that this processor can take.
    fn set(
        &mut self,
        cpu: &mut SvmCpu,
        tables: &NestedTables,
        tsc_offset: u64,
        state: &VcpuStateV1,
    ) {
        if cpu.resident == Some(self.vmcb.physical()) {
            cpu.resident = None;
        }
        self.gprs = state.gprs;
        self.resident.set(state);
        self.cr4 = state.cr4;
        self.interrupt = None;
        self.window = false;
        self.nmi_wanted = false;
        self.flush = true;
        let tables = setup::Tables {
            nested_cr3: tables.pointer(),
            asid: self.asid,
            tsc_offset,
            io_map: cpu.io.address(),
            msr_map: cpu.msrs.address(),
        };
        let vmcb = self.vmcb.get_mut();
        setup::write_controls(vmcb, cpu.capabilities(), &tables);
        setup::write_guest_state(vmcb, state);
        if let Some(queued) = state.event {
            self.queue(queued.event);
        }
        // An NMI that is yet to be delivered blocks the next from then on.
        let queued = state
            .event
            .is_some_and(|queued| queued.event.kind == EventKind::Nmi);
        self.block_nmis(queued || state.interruptibility & blocking::NMI != 0);
    }

    /// Makes the next entry deliver an event. One that an instruction raised is left out: the guest is still at that
    /// instruction, and executes it again.
    pub(crate) fn queue(&mut self, event: Event) {
        if event.kind == EventKind::ExternalInterrupt {
            self.interrupt = Some(event.vector);
            self.window = false;
        } else if !event.is_software() {
            setup::write_event(self.vmcb.get_mut(), event);
        }
    }

    /// The event that the next entry delivers.
    pub(crate) fn queued(&self) -> Option<Event> {
        setup::event(self.vmcb.get()).or(self.interrupt.map(Event::interrupt))
    }

    /// Writes what the next entry is to do about virtual interrupts: deliver the one that there is, or exit as soon as one
    /// could be delivered.
    ///
    /// Interrupts are not injected as events (EVENTINJ), which would do as well: QEMU 10's emulation delivers such a one a
    /// second time when something of its own interrupts it right after VMRUN, whatever the guest's IF says by then.
    #[inline(always)]
    pub(crate) fn write_virtual_interrupt(&mut self) {
        const PENDING: InterruptControl =
            InterruptControl::V_IRQ.union(InterruptControl::V_IGN_TPR);
        let pending = self.interrupt.is_some() || self.window;
        let vmcb = self.vmcb.get_mut();
        vmcb.interrupt_control.set(PENDING, pending);
        vmcb.interrupt_vector = u32::from(self.interrupt.unwrap_or(0));
        let exits = self.window && self.interrupt.is_none();
        vmcb.intercepts.set(Intercepts::VINTR, exits);
    }

    /// Notes, after an exit, whether the interrupt was delivered.
    #[inline(always)]
    pub(crate) fn read_virtual_interrupt(&mut self) {
        let control = self.vmcb.get().interrupt_control;
        if !control.contains(InterruptControl::V_IRQ) {
            self.interrupt = None;
        }
    }

    /// Blocks NMIs until the guest's next IRET, or lets them in again.
    pub(crate) fn block_nmis(&mut self, blocked: bool) {
        self.nmi_blocked = blocked;
        let intercepts = &mut self.vmcb.get_mut().intercepts;
        intercepts.set(Intercepts::IRET, blocked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vcpu::AreaLayout;
    use vcpu::fake::Heap;

    fn vcpu() -> SvmVcpu {
        let area = AreaLayout::probe(0b11);
        SvmVcpu {
            vmcb: VmcbFrame::new(Heap { left: 1 }.frame().unwrap()),
            gprs: Gprs::default(),
            resident: Resident::new(&area, false),
            cr4: 0,
            nmi_blocked: false,
            interrupt: None,
            window: false,
            nmi_wanted: false,
            flush: false,
            asid: 1,
            shares_asid: false,
            _not_send: core::marker::PhantomData,
        }
    }

    fn pending(vcpu: &SvmVcpu) -> (bool, bool, u32) {
        let vmcb = vcpu.vmcb.get();
        (
            vmcb.interrupt_control.contains(InterruptControl::V_IRQ),
            vmcb.intercepts.contains(Intercepts::VINTR),
            vmcb.interrupt_vector,
        )
    }

    #[test]
    fn an_interrupt_stays_queued_until_the_processor_has_taken_it() {
        let mut vcpu = vcpu();
        vcpu.window = true;
        vcpu.write_virtual_interrupt();
        assert_eq!(pending(&vcpu), (true, true, 0));
        vcpu.queue(Event::interrupt(0x31));
        assert!(!vcpu.window);
        vcpu.write_virtual_interrupt();
        assert_eq!(pending(&vcpu), (true, false, 0x31));
        // An exit before it was taken.
        vcpu.read_virtual_interrupt();
        assert_eq!(vcpu.queued(), Some(Event::interrupt(0x31)));
        // Behind it, the next one is waited for, and not by an exit: that would take its place.
        vcpu.window = true;
        vcpu.write_virtual_interrupt();
        assert_eq!(pending(&vcpu), (true, false, 0x31));
        let control = &mut vcpu.vmcb.get_mut().interrupt_control;
        control.remove(InterruptControl::V_IRQ);
        vcpu.read_virtual_interrupt();
        assert_eq!(vcpu.queued(), None);
        vcpu.write_virtual_interrupt();
        assert_eq!(pending(&vcpu), (true, true, 0));
        vcpu.window = false;
        vcpu.write_virtual_interrupt();
        assert_eq!(pending(&vcpu), (false, false, 0));
    }

    #[test]
    fn events_that_instructions_raise_are_raised_again_by_them() {
        let mut vcpu = vcpu();
        vcpu.queue(Event {
            kind: EventKind::SoftwareInterrupt,
            vector: 0x80,
            error_code: None,
        });
        assert_eq!(vcpu.queued(), None);
        vcpu.queue(Event::GENERAL_PROTECTION);
        assert_eq!(vcpu.queued(), Some(Event::GENERAL_PROTECTION));
        assert_eq!(vcpu.vmcb.get().event, 0x8000_0b0d);
    }

    #[test]
    fn iret_exits_while_nmis_are_blocked() {
        let mut vcpu = vcpu();
        vcpu.block_nmis(true);
        assert!(vcpu.vmcb.get().intercepts.contains(Intercepts::IRET));
        vcpu.block_nmis(false);
        assert!(!vcpu.vmcb.get().intercepts.contains(Intercepts::IRET));
    }

    #[test]
    fn tags_beyond_the_asids_share_the_last_one() {
        assert_eq!(asid(1, 16), (1, false));
        assert_eq!(asid(14, 16), (14, false));
        assert_eq!(asid(15, 16), (15, true));
        assert_eq!(asid(400, 16), (15, true));
        assert_eq!(asid(1, 2), (1, true));
    }
}

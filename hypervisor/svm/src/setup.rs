//! Writing a VMCB from scratch (APM volume 2, sections 15.5 and 15.9; appendix B).

use crate::caps::Capabilities;
use crate::segments;
use crate::vmcb::{
    BroadcastIntercepts, CrIntercepts, INTERRUPT_SHADOW, Intercepts, InterruptControl,
    MoreIntercepts, NESTED_PAGING, Vmcb, VmcbSegment,
};
use vcpu::{
    Event, EventKind, Registers, SegmentRegister, TableRegister, VcpuStateV1, blocking, exception,
    rflags,
};
use x86_64::registers::control::{Cr4Flags, EferFlags};

/// TSC ticks between two executions of PAUSE that are still of one loop.
pub(crate) const PAUSE_THRESHOLD: u16 = 128;

/// CR4 bits that stay set in the processor, whatever the guest sees: a machine check in a guest without MCE would shut
/// the board down.
pub(crate) const CR4_ALWAYS: u64 = Cr4Flags::MACHINE_CHECK_EXCEPTION.bits();

/// Addresses and numbers that a VMCB needs of others.
pub(crate) struct Tables {
    pub(crate) nested_cr3: u64,
    pub(crate) asid: u32,
    pub(crate) tsc_offset: u64,
    pub(crate) io_map: u64,
    pub(crate) msr_map: u64,
}

/// What exits, and where the tables are.
///
/// Guests own CR0 and CR3 alone: the processor switches them whole. CR8 is the task priority of a local APIC that the
/// layers above keep. Task switches are done by the processor.
pub(crate) fn write_controls(vmcb: &mut Vmcb, caps: &Capabilities, tables: &Tables) {
    let registers = CrIntercepts::CR4 | CrIntercepts::CR8;
    vmcb.cr_reads = registers;
    vmcb.cr_writes = registers;
    vmcb.dr_reads = 0;
    vmcb.dr_writes = 0;
    vmcb.exceptions = exception::EXITING;
    vmcb.intercepts = Intercepts::INTR
        | Intercepts::NMI
        | Intercepts::INIT
        | Intercepts::RDPMC
        | Intercepts::CPUID
        | Intercepts::INVD
        | Intercepts::HLT
        | Intercepts::INVLPGA
        | Intercepts::IOIO
        | Intercepts::MSR
        | Intercepts::SHUTDOWN;
    vmcb.more_intercepts = MoreIntercepts::VMRUN
        | MoreIntercepts::VMMCALL
        | MoreIntercepts::VMLOAD
        | MoreIntercepts::VMSAVE
        | MoreIntercepts::STGI
        | MoreIntercepts::CLGI
        | MoreIntercepts::SKINIT
        | MoreIntercepts::WBINVD
        | MoreIntercepts::MONITOR
        | MoreIntercepts::MWAIT
        | MoreIntercepts::MWAIT_ARMED
        | MoreIntercepts::XSETBV
        | MoreIntercepts::RDPRU;
    vmcb.broadcast_intercepts = if caps.broadcasts {
        BroadcastIntercepts::INVLPGB | BroadcastIntercepts::TLBSYNC
    } else {
        BroadcastIntercepts::empty()
    };
    vmcb.io_map = tables.io_map;
    vmcb.msr_map = tables.msr_map;
    vmcb.tsc_offset = tables.tsc_offset;
    vmcb.asid = tables.asid;
    vmcb.interrupt_control = InterruptControl::V_INTR_MASKING;
    vmcb.interrupt_vector = 0;
    vmcb.nested_control = NESTED_PAGING;
    vmcb.nested_cr3 = tables.nested_cr3;
    vmcb.clean = 0;
}

/// The guest's state, but for its part in [`vcpu::Resident`], the general-purpose registers but RAX and RSP, and a queued
/// event, which are kept elsewhere.
pub(crate) fn write_guest_state(vmcb: &mut Vmcb, state: &VcpuStateV1) {
    for register in SegmentRegister::ALL {
        *vmcb.segment_mut(register) = state.segment(register).into();
    }
    vmcb.cpl = ((state.segment(SegmentRegister::Ss).access >> 5) & 3) as u8;
    vmcb.gdtr = table(state.gdtr);
    vmcb.idtr = table(state.idtr);
    vmcb.efer = state.efer | EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE.bits();
    vmcb.cr0 = state.cr0;
    vmcb.cr2 = state.cr2;
    vmcb.cr3 = state.cr3;
    vmcb.cr4 = state.cr4 | CR4_ALWAYS;
    vmcb.dr6 = state.dr6;
    vmcb.dr7 = state.dr7;
    vmcb.rflags = state.rflags;
    vmcb.rip = state.rip;
    vmcb.rsp = state.rsp;
    vmcb.rax = state.gprs.rax;
    vmcb.star = state.star;
    vmcb.lstar = state.lstar;
    vmcb.cstar = state.cstar;
    vmcb.fmask = state.fmask;
    vmcb.kernel_gs_base = state.kernel_gs_base;
    vmcb.sysenter_cs = u64::from(state.sysenter_cs);
    vmcb.sysenter_esp = state.sysenter_esp;
    vmcb.sysenter_eip = state.sysenter_eip;
    vmcb.pat = state.pat;
    let shadow = state.interruptibility & (blocking::STI | blocking::MOV_SS) != 0;
    vmcb.interrupt_shadow = if shadow { INTERRUPT_SHADOW } else { 0 };
    vmcb.event = 0;
    if state.event.is_none() && state.pending_debug != 0 {
        // The VMCB has no pending debug exceptions: this one is delivered at once.
        vmcb.dr6 |= state.pending_debug & (DR6_SINGLE_STEP | DR6_BREAKPOINTS);
        write_event(vmcb, Event::DEBUG);
    }
}

/// DR6: a single step trapped.
pub(crate) const DR6_SINGLE_STEP: u64 = 1 << 14;
const DR6_BREAKPOINTS: u64 = 0b1111;

/// Makes the next entry inject an event.
pub(crate) fn write_event(vmcb: &mut Vmcb, event: Event) {
    let code = event.error_code.unwrap_or(0);
    vmcb.event = u64::from(code) << 32 | u64::from(event.info());
}

/// The event that the next entry injects.
pub(crate) fn event(vmcb: &Vmcb) -> Option<Event> {
    Event::from_info(vmcb.event as u32, (vmcb.event >> 32) as u32)
}

/// The event in whose delivery the exit came, and whether an instruction raised it, at which the guest still is.
pub(crate) fn interrupted_event(vmcb: &Vmcb) -> Option<(Event, bool)> {
    const BREAKPOINT: u8 = 3;
    const OVERFLOW: u8 = 4;
    const FIRST_INTERRUPT: u8 = 32;
    let info = vmcb.exit_event;
    let mut event = Event::from_info(info as u32, (info >> 32) as u32)?;
    let exception = event.kind == EventKind::HardwareException;
    if exception && event.vector >= FIRST_INTERRUPT {
        // QEMU 10's emulation calls a virtual interrupt so, which VMRUN would refuse.
        event = Event::interrupt(event.vector);
    }
    let by_instruction =
        event.is_software() || (exception && matches!(event.vector, BREAKPOINT | OVERFLOW));
    Some((event, by_instruction))
}

/// The part of a state that is in the VMCB.
pub(crate) fn read_guest_state(vmcb: &Vmcb, cr4: u64, state: &mut VcpuStateV1) {
    state.segments = SegmentRegister::ALL.map(|register| segments::seen(vmcb, register));
    state.gdtr = table_register(&vmcb.gdtr);
    state.idtr = table_register(&vmcb.idtr);
    state.efer = efer(vmcb);
    state.cr0 = vmcb.cr0;
    state.cr2 = vmcb.cr2;
    state.cr3 = vmcb.cr3;
    state.cr4 = cr4;
    state.dr6 = vmcb.dr6;
    state.dr7 = vmcb.dr7;
    state.rflags = vmcb.rflags;
    state.rip = vmcb.rip;
    state.rsp = vmcb.rsp;
    state.star = vmcb.star;
    state.lstar = vmcb.lstar;
    state.cstar = vmcb.cstar;
    state.fmask = vmcb.fmask;
    state.kernel_gs_base = vmcb.kernel_gs_base;
    state.sysenter_cs = vmcb.sysenter_cs as u32;
    state.sysenter_esp = vmcb.sysenter_esp;
    state.sysenter_eip = vmcb.sysenter_eip;
    state.pat = vmcb.pat;
    let shadow = vmcb.interrupt_shadow & INTERRUPT_SHADOW != 0;
    // Which of the two it was is not told, and makes no difference while it lasts. STI sets IF. Where single steps trap,
    // the shadow is left out: saved states want the trap to be pending in one, and it is not yet.
    state.interruptibility = if !shadow || vmcb.rflags & rflags::TF != 0 {
        0
    } else if vmcb.rflags & rflags::IF != 0 {
        blocking::STI
    } else {
        blocking::MOV_SS
    };
    state.pending_debug = 0;
}

/// The registers, for the log.
pub(crate) fn registers(vmcb: &Vmcb, gprs: vcpu::Gprs, cr4: u64) -> Registers {
    Registers {
        gprs,
        rsp: vmcb.rsp,
        rip: vmcb.rip,
        rflags: vmcb.rflags,
        cr0: vmcb.cr0,
        cr3: vmcb.cr3,
        cr4,
        efer: efer(vmcb),
        dr7: vmcb.dr7,
        segments: SegmentRegister::ALL.map(|register| segments::seen(vmcb, register)),
        gdtr: table_register(&vmcb.gdtr),
        idtr: table_register(&vmcb.idtr),
    }
}

/// EFER as the guest sees it: AMD-V must stay enabled in the processor.
pub(crate) fn efer(vmcb: &Vmcb) -> u64 {
    vmcb.efer & !EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE.bits()
}

fn table(register: TableRegister) -> VmcbSegment {
    VmcbSegment {
        limit: register.limit,
        base: register.base,
        ..VmcbSegment::default()
    }
}

fn table_register(table: &VmcbSegment) -> TableRegister {
    TableRegister {
        base: table.base,
        limit: table.limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmcb::VmcbFrame;
    use vcpu::fake::Heap;
    use vcpu::{FrameSource, StartState};

    fn frame() -> VmcbFrame {
        VmcbFrame::new(Heap { left: 1 }.frame().unwrap())
    }

    #[test]
    fn interrupted_events_are_told_from_those_that_instructions_raise() {
        let mut frame = frame();
        let vmcb = frame.get_mut();
        assert_eq!(interrupted_event(vmcb), None);
        // A page fault with its code, an interrupt, one under another name, INT 0x80, INT3.
        for (info, event, by_instruction) in [
            (0x2_8000_0b0e, Event::exception(14, 2), false),
            (0x8000_0020, Event::interrupt(0x20), false),
            (0x8000_03ec, Event::interrupt(0xec), false),
        ] {
            vmcb.exit_event = info;
            assert_eq!(interrupted_event(vmcb), Some((event, by_instruction)));
        }
        for info in [0x8000_0480, 0x8000_0303] {
            vmcb.exit_event = info;
            assert!(interrupted_event(vmcb).unwrap().1, "{info:#x}");
        }
    }

    #[test]
    fn a_state_comes_back_and_a_pending_trap_is_injected() {
        let mut frame = frame();
        let vmcb = frame.get_mut();
        let mut state = VcpuStateV1::at_start(&StartState::Long64 {
            rip: 0x10_0000,
            rsi: 0,
            cr3: 0x1000,
            gdt_base: 0x500,
            gdt_limit: 31,
            code: 0x10,
            data: 0x18,
        });
        state.rflags |= rflags::IF;
        state.interruptibility = blocking::STI;
        write_guest_state(vmcb, &state);
        assert_ne!(
            vmcb.efer & EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE.bits(),
            0
        );
        assert_ne!(vmcb.cr4 & CR4_ALWAYS, 0);
        let mut back = VcpuStateV1 {
            rip: 0,
            ..state.clone()
        };
        read_guest_state(vmcb, state.cr4, &mut back);
        assert_eq!(back, state);

        state.pending_debug = DR6_SINGLE_STEP;
        write_guest_state(vmcb, &state);
        assert_eq!(event(vmcb), Some(Event::DEBUG));
        assert_ne!(vmcb.dr6 & DR6_SINGLE_STEP, 0);
        // A shadow with single steps on is not saved: no trap is pending yet.
        vmcb.rflags |= rflags::TF;
        read_guest_state(vmcb, state.cr4, &mut back);
        assert_eq!((back.interruptibility, back.pending_debug), (0, 0));
    }
}

//! A guest's hardware task switch: between the vCPU and [`crate::task`].

use super::crash::Crash;
use crate::memory::GuestMemory;
use crate::task::{self, Fault, Registers, Segments, Stop, Switch, Table, View, flag};
use vcpu::{Event, EventKind, Segment, SegmentRegister, SwitchSource, TaskSwitch, TaskSwitching};

/// In the order of the TSS.
const SEGMENTS: [SegmentRegister; 6] = [
    SegmentRegister::Es,
    SegmentRegister::Cs,
    SegmentRegister::Ss,
    SegmentRegister::Ds,
    SegmentRegister::Fs,
    SegmentRegister::Gs,
];

/// Where SS is among them.
const SS: usize = 2;
/// Its encoding.
const ESP: u8 = 4;

const CR0_PG: u64 = 1 << 31;

/// Switches to the task that the exit named, or raises the exception that the processor would.
pub(super) fn perform(
    active: &mut dyn TaskSwitching,
    memory: &GuestMemory,
    exit: TaskSwitch,
) -> Result<(), Crash> {
    let event = active.event_in_delivery()?;
    let switch = Switch {
        selector: exit.selector,
        source: exit.source,
        external: event.is_some_and(|event| {
            !matches!(
                event.kind,
                EventKind::SoftwareInterrupt | EventKind::SoftwareException
            )
        }),
    };
    let (base, limit) = active.global_descriptor_table()?;
    let table = Table {
        base: base as u32,
        limit,
    };
    let old = registers(active, exit.source, event)?;
    let old_task = active.segment(SegmentRegister::Tr)?;
    let mut view = View {
        paging: active.paging()?,
        memory,
    };
    let incoming = match task::leave(&view, table, &old, &old_task, &switch) {
        Ok(incoming) => incoming,
        Err(stop) => return raise(active, stop, event),
    };

    active.mark_task_switched()?;
    if exit.source == SwitchSource::Return {
        active.block_nmis(false)?;
    } else if event.is_some_and(|event| event.kind == EventKind::Nmi) {
        active.block_nmis(true)?;
    }
    let mut result = Ok(());
    if let Some(cr3) = incoming.registers.cr3
        && view.paging.cr0 & CR0_PG != 0
    {
        if !active.switch_cr3(cr3)? {
            result = Err(Stop::Fault(Fault::PROTECTION));
        }
        view.paging = active.paging()?;
    }
    let (segments, loaded) = task::enter(&view, table, &incoming, &switch);
    load(active, &incoming.registers, incoming.task, &segments)?;
    let code = event.and_then(|event| event.error_code);
    let pushed = result.and(loaded).and_then(|()| match code {
        Some(code) => task::push(&view, &incoming, &segments.data[SS], code, &switch).map(Some),
        None => Ok(None),
    });
    match pushed {
        Err(stop) => return raise(active, stop, event),
        Ok(None) => {}
        Ok(Some(esp)) => active.set_gpr(ESP, u64::from(esp))?,
    }
    if incoming.registers.trap {
        active.inject_task_trap()?;
    }
    Ok(())
}

/// The old task as it is to be saved.
fn registers(
    active: &dyn TaskSwitching,
    source: SwitchSource,
    event: Option<Event>,
) -> Result<Registers, Crash> {
    let by_instruction = source != SwitchSource::Event;
    let mut registers = Registers {
        eip: active.rip()? as u32,
        eflags: active.rflags()? as u32,
        ..Registers::default()
    };
    if by_instruction {
        registers.eflags &= !flag::RESUME;
    }
    if by_instruction || event.is_some_and(|event| event.is_software()) {
        registers.eip = registers.eip.wrapping_add(active.instruction_length()?);
    }
    for (encoding, register) in (0..).zip(&mut registers.gprs) {
        *register = active.gpr(encoding)? as u32;
    }
    for (register, selector) in SEGMENTS.into_iter().zip(&mut registers.selectors) {
        *selector = active.segment(register)?.selector;
    }
    Ok(registers)
}

/// Puts the new task into the vCPU.
fn load(
    active: &mut dyn TaskSwitching,
    registers: &Registers,
    task: Segment,
    segments: &Segments,
) -> Result<(), Crash> {
    active.jump(u64::from(registers.eip))?;
    active.set_rflags(u64::from(registers.eflags))?;
    for (encoding, value) in (0..).zip(registers.gprs) {
        active.set_gpr(encoding, u64::from(value))?;
    }
    for (register, segment) in SEGMENTS.into_iter().zip(segments.data) {
        active.set_segment(register, segment)?;
    }
    active.set_segment(SegmentRegister::Ldtr, segments.local_table)?;
    Ok(active.set_segment(SegmentRegister::Tr, task)?)
}

/// Raises what ended the switch in the guest, together with the event in whose delivery it came.
fn raise(active: &mut dyn TaskSwitching, stop: Stop, event: Option<Event>) -> Result<(), Crash> {
    let fault = match stop {
        Stop::Fault(fault) => fault,
        Stop::Outside(address) => return Err(Crash::TaskSwitchOutside(address)),
    };
    let first = event.filter(|event| event.kind == EventKind::HardwareException);
    let Some(fault) = fault.during(first.map(|event| event.vector)) else {
        return Err(Crash::TripleFault);
    };
    match fault.linear {
        Some(linear) => active.inject_page_fault(u64::from(linear), fault.code)?,
        None => active.inject(Event::exception(fault.vector, fault.code))?,
    }
    Ok(())
}

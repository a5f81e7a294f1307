//! Decoding VM exits: only the VMCS fields that the reason at hand needs are read (Intel SDM volume 3, section 28.2).

use crate::fields::{Field32, Field64, FieldNatural};
use crate::vmcs::Current;
use vcpu::{
    AccessKind, ControlRegisterAccess, Event, EventKind, Exit, IoAccess, MemoryFault, RareExit,
    RareReason, ShellError, SwitchSource, TaskSwitch, Vector, exception,
};

/// Basic exit reasons (Intel SDM volume 3, appendix C).
mod reason {
    pub(super) const EXCEPTION_OR_NMI: u32 = 0;
    pub(super) const EXTERNAL_INTERRUPT: u32 = 1;
    pub(super) const TRIPLE_FAULT: u32 = 2;
    pub(super) const INIT: u32 = 3;
    pub(super) const STARTUP_IPI: u32 = 4;
    pub(super) const INTERRUPT_WINDOW: u32 = 7;
    pub(super) const NMI_WINDOW: u32 = 8;
    pub(super) const TASK_SWITCH: u32 = 9;
    pub(super) const CPUID: u32 = 10;
    pub(super) const GETSEC: u32 = 11;
    pub(super) const HLT: u32 = 12;
    pub(super) const INVD: u32 = 13;
    pub(super) const RDPMC: u32 = 15;
    pub(super) const VMCALL: u32 = 18;
    pub(super) const VMX_FIRST: u32 = 19;
    pub(super) const VMX_LAST: u32 = 27;
    pub(super) const CR_ACCESS: u32 = 28;
    pub(super) const IO: u32 = 30;
    pub(super) const RDMSR: u32 = 31;
    pub(super) const WRMSR: u32 = 32;
    pub(super) const MWAIT: u32 = 36;
    pub(super) const MONITOR: u32 = 39;
    pub(super) const PAUSE: u32 = 40;
    pub(super) const VIRTUALIZED_EOI: u32 = 45;
    pub(super) const EPT_VIOLATION: u32 = 48;
    pub(super) const EPT_MISCONFIGURATION: u32 = 49;
    pub(super) const INVEPT: u32 = 50;
    pub(super) const PREEMPTION_TIMER: u32 = 52;
    pub(super) const INVVPID: u32 = 53;
    pub(super) const WBINVD: u32 = 54;
    pub(super) const XSETBV: u32 = 55;
    pub(super) const VMFUNC: u32 = 59;
    pub(super) const LOG_FULL: u32 = 62;
}

/// Bit 31 of the exit reason: the entry failed on its guest state.
const ENTRY_FAILED: u32 = 1 << 31;
/// The basic reason is in the low half.
const BASIC_REASON: u32 = 0xffff;

/// Decodes the exit whose reason was just read. A reason with any flag set is a rare one.
#[inline(always)]
pub(crate) fn decode(vmcs: &Current, reason: u32) -> Result<Exit, ShellError> {
    Ok(match reason {
        reason::IO => {
            // The layout of table 28-5 is the packed one.
            Exit::Io(IoAccess::from_qualification(
                vmcs.read_natural(FieldNatural::ExitQualification)? as u32,
            ))
        }
        reason::CPUID => Exit::Cpuid,
        reason::PREEMPTION_TIMER => Exit::Deadline,
        reason::EXTERNAL_INTERRUPT => Exit::HostInterrupt,
        reason::RDMSR => Exit::ReadMsr,
        reason::WRMSR => Exit::WriteMsr,
        reason::HLT => Exit::Halt,
        reason::INTERRUPT_WINDOW => Exit::InterruptWindow,
        other => Exit::Rare(RareReason::new(other)),
    })
}

/// The reason of an entry that failed on its guest state, if that is what it was.
pub(crate) const fn entry_failure(reason: RareReason) -> Option<u32> {
    if reason.code() & ENTRY_FAILED != 0 {
        Some(reason.code() & BASIC_REASON)
    } else {
        None
    }
}

/// A rare exit: what it is, or what the shell sees to by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rare {
    Exit(RareExit),
    HostNmi,
    /// An exception of the guest's.
    Exception(Event),
}

/// Decodes a rare exit, right after it.
pub(crate) fn decode_rare(vmcs: &Current, reason: RareReason) -> Result<Rare, ShellError> {
    let qualification = || vmcs.read_natural(FieldNatural::ExitQualification);
    Ok(Rare::Exit(match reason.code() & BASIC_REASON {
        reason::EXCEPTION_OR_NMI => {
            let info = vmcs.read32(Field32::ExitInterruptionInfo)?;
            let code = vmcs.read32(Field32::ExitInterruptionErrorCode)?;
            match Event::from_info(info, code) {
                Some(event) if event.kind == EventKind::Nmi => return Ok(Rare::HostNmi),
                Some(event) if event.vector != exception::MACHINE_CHECK => {
                    return Ok(Rare::Exception(event));
                }
                _ => RareExit::MachineCheck,
            }
        }
        reason::TRIPLE_FAULT => RareExit::TripleFault,
        reason::INIT => RareExit::Init,
        reason::STARTUP_IPI => RareExit::StartUp(Vector::new(qualification()? as u32)),
        reason::NMI_WINDOW => RareExit::NmiWindow,
        reason::TASK_SWITCH => RareExit::TaskSwitch(task_switch(qualification()?)),
        reason::INVD | reason::WBINVD => RareExit::CacheFlush,
        reason::RDPMC => RareExit::ReadPerformanceCounter,
        reason::VMCALL => RareExit::Hypercall,
        reason::GETSEC
        | reason::VMX_FIRST..=reason::VMX_LAST
        | reason::INVEPT
        | reason::INVVPID
        | reason::VMFUNC => RareExit::VirtualizationInstruction,
        reason::CR_ACCESS => RareExit::ControlRegister(control_register_access(qualification()?)),
        reason::MWAIT | reason::MONITOR => RareExit::MonitorWait,
        reason::PAUSE => RareExit::Pause,
        reason::EPT_VIOLATION => {
            let physical = vmcs.read64(Field64::GuestPhysicalAddress)?;
            let linear = vmcs.read_natural(FieldNatural::GuestLinearAddress)?;
            RareExit::Memory(memory_fault(qualification()?, physical, linear))
        }
        reason::EPT_MISCONFIGURATION => {
            RareExit::Misconfiguration(vmcs.read64(Field64::GuestPhysicalAddress)?)
        }
        reason::XSETBV => RareExit::SetXcr,
        reason::LOG_FULL => RareExit::LogFull,
        reason::VIRTUALIZED_EOI => RareExit::EndOfInterrupt(Vector::new(qualification()? as u32)),
        other => RareExit::Unexpected(other),
    }))
}

/// Table 28-2.
const fn task_switch(qualification: u64) -> TaskSwitch {
    TaskSwitch {
        selector: qualification as u16,
        source: match (qualification >> 30) & 3 {
            0 => SwitchSource::Call,
            1 => SwitchSource::Return,
            2 => SwitchSource::Jump,
            _ => SwitchSource::Event,
        },
    }
}

/// Table 28-3.
const fn control_register_access(qualification: u64) -> ControlRegisterAccess {
    let register = (qualification & 0xf) as u8;
    let gpr = ((qualification >> 8) & 0xf) as u8;
    match (qualification >> 4) & 3 {
        0 => ControlRegisterAccess::Write { register, gpr },
        1 => ControlRegisterAccess::Read { register, gpr },
        2 => ControlRegisterAccess::ClearTaskSwitched,
        _ => ControlRegisterAccess::LoadMachineStatus((qualification >> 16) as u16),
    }
}

/// Table 28-7.
fn memory_fault(qualification: u64, physical: u64, linear: u64) -> MemoryFault {
    const WRITE: u64 = 1 << 1;
    const FETCH: u64 = 1 << 2;
    const LINEAR_VALID: u64 = 1 << 7;
    let kind = if qualification & FETCH != 0 {
        AccessKind::Fetch
    } else if qualification & WRITE != 0 {
        AccessKind::Write
    } else {
        AccessKind::Read
    };
    MemoryFault {
        physical,
        linear: (qualification & LINEAR_VALID != 0).then_some(linear),
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_register_accesses_decode() {
        assert_eq!(
            control_register_access(0x304),
            ControlRegisterAccess::Write {
                register: 4,
                gpr: 3
            }
        );
        assert_eq!(
            control_register_access(0x20),
            ControlRegisterAccess::ClearTaskSwitched
        );
        assert_eq!(
            control_register_access(0x0001_0030),
            ControlRegisterAccess::LoadMachineStatus(1)
        );
    }

    #[test]
    fn task_switches_decode() {
        let expected = [
            SwitchSource::Call,
            SwitchSource::Return,
            SwitchSource::Jump,
            SwitchSource::Event,
        ];
        for (kind, source) in (0_u64..).zip(expected) {
            let selector = 0x28;
            let found = task_switch(kind << 30 | u64::from(selector));
            assert_eq!(found, TaskSwitch { selector, source });
        }
    }

    #[test]
    fn memory_faults_decode() {
        let fault = memory_fault(0x182, 0x1000, 0x2000);
        assert_eq!(fault.kind, AccessKind::Write);
        assert_eq!(fault.linear, Some(0x2000));
        assert_eq!(
            memory_fault(0x4, 0, 1),
            MemoryFault {
                physical: 0,
                linear: None,
                kind: AccessKind::Fetch
            }
        );
    }
}

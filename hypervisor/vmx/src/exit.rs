//! VM exits: what the guest did that the hypervisor must see.
//!
//! [`Exit`] is neutral: it speaks of instructions, ports and addresses, not of VT-x. Decoding reads
//! only the VMCS fields that the reason at hand needs (Intel SDM volume 3, section 28.2).

use crate::fields::{Field32, Field64, FieldNatural};
use crate::vmcs::{Current, VmcsError};

/// Width of a port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Dword,
}

impl Width {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }
}

/// Direction of a port access, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// IN, INS.
    In,
    /// OUT, OUTS.
    Out,
}

/// A port access, packed into one register: the exit path's most frequent passenger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoAccess(u32);

impl IoAccess {
    const IN: u32 = 1 << 3;
    const STRING: u32 = 1 << 4;
    const REPEAT: u32 = 1 << 5;

    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Bytes at once.
    #[must_use]
    pub const fn width(self) -> Width {
        match self.0 & 7 {
            0 => Width::Byte,
            1 => Width::Word,
            _ => Width::Dword,
        }
    }

    /// In or out.
    #[must_use]
    pub const fn direction(self) -> Direction {
        if self.0 & Self::IN != 0 {
            Direction::In
        } else {
            Direction::Out
        }
    }

    /// INS or OUTS: the data are in memory, at the guest's ES:rDI or segment:rSI.
    #[must_use]
    pub const fn is_string(self) -> bool {
        self.0 & Self::STRING != 0
    }

    /// A REP prefix, with the count in rCX.
    #[must_use]
    pub const fn is_repeated(self) -> bool {
        self.0 & Self::REPEAT != 0
    }
}

/// What the guest did with memory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// A data read.
    Read,
    /// A data write, or a read-modify-write.
    Write,
    /// An instruction fetch.
    Fetch,
}

/// An access to guest-physical memory that is not mapped or not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFault {
    /// The guest-physical address.
    pub physical: u64,
    /// The guest-linear address, where there is one.
    pub linear: Option<u64>,
    /// What was tried.
    pub kind: AccessKind,
}

/// An access to a control register that the guest does not own alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRegisterAccess {
    /// MOV to CR`register` from the general-purpose register with encoding `gpr` (4 is RSP).
    Write {
        /// 0, 4 or 8 (3 is the guest's own).
        register: u8,
        /// Encoding of the source.
        gpr: u8,
    },
    /// MOV from CR`register` to a general-purpose register.
    Read {
        /// 3 or 8.
        register: u8,
        /// Encoding of the destination.
        gpr: u8,
    },
    /// CLTS.
    ClearTaskSwitched,
    /// LMSW with this operand.
    LoadMachineStatus(u16),
}

/// A hardware task switch that the guest began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSwitch {
    /// Selector of the new task's TSS.
    pub selector: u16,
    /// What began it.
    pub source: SwitchSource,
}

/// What begins a hardware task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchSource {
    /// CALL, directly or through a task gate.
    Call,
    /// IRET in a nested task.
    Return,
    /// JMP, directly or through a task gate.
    Jump,
    /// An interrupt or exception whose IDT entry is a task gate; also INT n, INT1, INT3 and INTO.
    Event,
}

/// A vector, as an exit carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector(u32);

impl Vector {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        (self.0 & VECTOR_MASK) as u8
    }
}

/// Why the guest stopped running: the frequent reasons, decoded in place.
///
/// Every payload is one 32-bit word, so that an exit is a pair of registers and never goes through
/// memory on its way to the match that handles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// CPUID.
    Cpuid,
    /// A port access.
    Io(IoAccess),
    /// RDMSR; the register is in ECX.
    ReadMsr,
    /// WRMSR; the register is in ECX, the value in EDX:EAX.
    WriteMsr,
    /// HLT.
    Halt,
    /// The deadline given to the entry has come.
    Deadline,
    /// A host interrupt with this vector came; it is acknowledged and to be handled.
    HostInterrupt(Vector),
    /// The guest can take an interrupt now.
    InterruptWindow,
    /// Something rarer, which [`crate::Active::rare_exit`] decodes.
    Rare(RareReason),
}

/// The code of a rare exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RareReason(u32);

impl RareReason {
    /// The reason of an entry that failed on its guest state, if that is what it was.
    pub(crate) const fn entry_failure(self) -> Option<u32> {
        if self.0 & ENTRY_FAILED != 0 {
            Some(self.0 & BASIC_REASON)
        } else {
            None
        }
    }
}

/// Why the guest stopped running: the rarer reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RareExit {
    /// A host NMI came.
    HostNmi,
    /// The guest can take an NMI now.
    NmiWindow,
    /// Memory that is not there.
    Memory(MemoryFault),
    /// A control-register access.
    ControlRegister(ControlRegisterAccess),
    /// XSETBV; the register is in ECX, the value in EDX:EAX.
    SetXcr,
    /// WBINVD or INVD.
    CacheFlush,
    /// RDPMC.
    ReadPerformanceCounter,
    /// MONITOR or MWAIT.
    MonitorWait,
    /// PAUSE.
    Pause,
    /// A hypercall (VMCALL).
    Hypercall,
    /// Another instruction of the virtualization extension, which the guest does not have.
    VirtualizationInstruction,
    /// A hardware task switch. The processor has checked the new TSS's descriptor and, where a gate led
    /// to it, the gate; it has changed nothing.
    TaskSwitch(TaskSwitch),
    /// An exception that was asked for, with its vector.
    Exception(Vector),
    /// A fault while delivering a double fault: the processor shut down.
    TripleFault,
    /// INIT.
    Init,
    /// A start-up IPI with this vector.
    StartUp(Vector),
    /// The guest ended an interrupt with this vector that [`crate::Active::lend_apic`] asked for; the instruction is
    /// done.
    EndOfInterrupt(Vector),
    /// The paging structures of the hypervisor itself are malformed at this guest-physical address.
    Misconfiguration(u64),
    /// A reason that should not occur with the controls in use.
    Unexpected(u32),
}

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
}

/// Bit 31 of the exit reason: the entry failed on its guest state.
const ENTRY_FAILED: u32 = 1 << 31;
/// The basic reason is in the low half.
const BASIC_REASON: u32 = 0xffff;

const VECTOR_MASK: u32 = 0xff;

/// Decodes the exit whose reason was just read. A reason with any flag set is a rare one.
#[inline(always)]
pub(crate) fn decode(vmcs: &Current, reason: u32) -> Result<Exit, VmcsError> {
    Ok(match reason {
        reason::IO => {
            // The layout of table 28-5 is the packed one.
            Exit::Io(IoAccess(
                vmcs.read_natural(FieldNatural::ExitQualification)? as u32,
            ))
        }
        reason::CPUID => Exit::Cpuid,
        reason::PREEMPTION_TIMER => Exit::Deadline,
        reason::EXTERNAL_INTERRUPT => {
            Exit::HostInterrupt(Vector(vmcs.read32(Field32::ExitInterruptionInfo)?))
        }
        reason::RDMSR => Exit::ReadMsr,
        reason::WRMSR => Exit::WriteMsr,
        reason::HLT => Exit::Halt,
        reason::INTERRUPT_WINDOW => Exit::InterruptWindow,
        other => Exit::Rare(RareReason(other)),
    })
}

/// Decodes a rare exit, right after it.
pub(crate) fn decode_rare(vmcs: &Current, reason: RareReason) -> Result<RareExit, VmcsError> {
    let qualification = || vmcs.read_natural(FieldNatural::ExitQualification);
    Ok(match reason.0 & BASIC_REASON {
        reason::EXCEPTION_OR_NMI => {
            const KIND_NMI: u32 = 2;
            let info = vmcs.read32(Field32::ExitInterruptionInfo)?;
            if (info >> 8) & 7 == KIND_NMI {
                RareExit::HostNmi
            } else {
                RareExit::Exception(Vector(info))
            }
        }
        reason::TRIPLE_FAULT => RareExit::TripleFault,
        reason::INIT => RareExit::Init,
        reason::STARTUP_IPI => RareExit::StartUp(Vector(qualification()? as u32)),
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
        reason::VIRTUALIZED_EOI => RareExit::EndOfInterrupt(Vector(qualification()? as u32)),
        other => RareExit::Unexpected(other),
    })
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
    fn port_accesses_decode() {
        let access = IoAccess(0x0021_0008);
        assert_eq!((access.port(), access.width()), (0x21, Width::Byte));
        assert_eq!(access.direction(), Direction::In);
        assert!(!access.is_string() && !access.is_repeated());
        let access = IoAccess(0x0cf8_0033);
        assert_eq!((access.port(), access.width()), (0xcf8, Width::Dword));
        assert!(access.is_string() && access.is_repeated());
        assert_eq!(access.direction(), Direction::Out);
        assert_eq!(core::mem::size_of::<Exit>(), 8);
    }

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

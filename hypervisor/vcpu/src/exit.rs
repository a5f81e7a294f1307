//! VM exits: what the guest did that the hypervisor must see.
//!
//! [`Exit`] is neutral: it speaks of instructions, ports and addresses, not of the extension that runs the guest.

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

    /// An access in the layout of VT-x's exit qualification (Intel SDM volume 3, table 28-5).
    #[must_use]
    #[inline(always)]
    pub const fn from_qualification(qualification: u32) -> Self {
        Self(qualification)
    }

    /// An access by its parts.
    #[must_use]
    pub const fn new(
        port: u16,
        width: Width,
        direction: Direction,
        string: bool,
        repeated: bool,
    ) -> Self {
        let mut packed = (port as u32) << 16 | (width.bytes() - 1);
        if matches!(direction, Direction::In) {
            packed |= Self::IN;
        }
        if string {
            packed |= Self::STRING;
        }
        if repeated {
            packed |= Self::REPEAT;
        }
        Self(packed)
    }

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
        /// 4 or 8.
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
    /// A vector in the low byte of what an exit tells.
    #[must_use]
    pub const fn new(information: u32) -> Self {
        Self(information)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0 as u8
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
    /// An interrupt of the host is pending: it is to be let in.
    HostInterrupt,
    /// The guest can take an interrupt now.
    InterruptWindow,
    /// Something rarer, which [`crate::Active::rare_exit`] decodes.
    Rare(RareReason),
}

/// The code of a rare exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RareReason(u32);

impl RareReason {
    /// The shell's own code of a reason.
    #[must_use]
    pub const fn new(code: u32) -> Self {
        Self(code)
    }

    /// That code.
    #[must_use]
    pub const fn code(self) -> u32 {
        self.0
    }
}

/// Why the guest stopped running: the rarer reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RareExit {
    /// Nothing is left to do: the shell has done it, or the guest tries again.
    Handled,
    /// The guest can take an NMI now.
    NmiWindow,
    /// Memory that is not there.
    Memory(MemoryFault),
    /// The log of written pages is full ([`crate::WriteLog::take_log`]); the guest tries again.
    LogFull,
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
    /// A machine check of the host's.
    MachineCheck,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_accesses_are_packed_like_the_exit_qualification() {
        let access = IoAccess::from_qualification(0x0021_0008);
        assert_eq!((access.port(), access.width()), (0x21, Width::Byte));
        assert_eq!(access.direction(), Direction::In);
        assert!(!access.is_string() && !access.is_repeated());
        assert_eq!(
            access,
            IoAccess::new(0x21, Width::Byte, Direction::In, false, false)
        );
        let access = IoAccess::from_qualification(0x0cf8_0033);
        assert_eq!((access.port(), access.width()), (0xcf8, Width::Dword));
        assert!(access.is_string() && access.is_repeated());
        assert_eq!(access.direction(), Direction::Out);
        assert_eq!(
            access,
            IoAccess::new(0xcf8, Width::Dword, Direction::Out, true, true)
        );
        assert_eq!(core::mem::size_of::<Exit>(), 8);
    }
}

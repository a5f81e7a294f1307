//! Decoding #VMEXIT (APM volume 2, appendix C).

use crate::vmcb::Vmcb;
use vcpu::{
    AccessKind, Direction, Event, Exit, IoAccess, MemoryFault, RareExit, RareReason, Width,
    exception,
};

/// Exit codes.
mod code {
    pub(super) const READ_CR_LAST: u32 = 0x0f;
    pub(super) const WRITE_CR_FIRST: u32 = 0x10;
    pub(super) const WRITE_CR_LAST: u32 = 0x1f;
    pub(super) const EXCEPTION_FIRST: u32 = 0x40;
    pub(super) const INTR: u32 = 0x60;
    pub(super) const NMI: u32 = 0x61;
    pub(super) const INIT: u32 = 0x63;
    pub(super) const VINTR: u32 = 0x64;
    pub(super) const RDPMC: u32 = 0x6f;
    pub(super) const CPUID: u32 = 0x72;
    pub(super) const IRET: u32 = 0x74;
    pub(super) const INVD: u32 = 0x76;
    pub(super) const PAUSE: u32 = 0x77;
    pub(super) const HLT: u32 = 0x78;
    pub(super) const INVLPGA: u32 = 0x7a;
    pub(super) const IOIO: u32 = 0x7b;
    pub(super) const MSR: u32 = 0x7c;
    pub(super) const SHUTDOWN: u32 = 0x7f;
    pub(super) const VMRUN: u32 = 0x80;
    pub(super) const VMMCALL: u32 = 0x81;
    pub(super) const VMLOAD: u32 = 0x82;
    pub(super) const SKINIT: u32 = 0x86;
    pub(super) const WBINVD: u32 = 0x89;
    pub(super) const MONITOR: u32 = 0x8a;
    pub(super) const MWAIT_ARMED: u32 = 0x8c;
    pub(super) const XSETBV: u32 = 0x8d;
    pub(super) const RDPRU: u32 = 0x8e;
    pub(super) const INVLPGB: u32 = 0xa0;
    pub(super) const INVLPGB_ILLEGAL: u32 = 0xa1;
    pub(super) const TLBSYNC: u32 = 0xa4;
    pub(super) const NESTED_PAGE_FAULT: u32 = 0x400;
    /// VMRUN refused the guest state or the controls.
    pub(super) const INVALID: u32 = u32::MAX;
}

/// Decodes the exit that has just come. Codes fit into 32 bits, but for VMEXIT_INVALID, which is -1.
#[inline(always)]
pub(crate) fn decode(vmcb: &Vmcb) -> Exit {
    match vmcb.exit_code as u32 {
        code::IOIO => Exit::Io(io_access(vmcb.exit_info_1)),
        code::CPUID => Exit::Cpuid,
        code::INTR => Exit::HostInterrupt,
        code::MSR if vmcb.exit_info_1 & 1 == 0 => Exit::ReadMsr,
        code::MSR => Exit::WriteMsr,
        code::HLT => Exit::Halt,
        code::VINTR => Exit::InterruptWindow,
        other => Exit::Rare(RareReason::new(other)),
    }
}

/// Whether the exit is a port access, which tells where its instruction ends.
pub(crate) fn is_port_access(vmcb: &Vmcb) -> bool {
    vmcb.exit_code as u32 == code::IOIO
}

/// Whether the port access that exited is IN or INS.
pub(crate) fn reads_port(vmcb: &Vmcb) -> bool {
    vmcb.exit_info_1 & INFO_IN != 0
}

const DEBUG: u32 = code::EXCEPTION_FIRST + exception::DEBUG as u32;
const ALIGNMENT_CHECK: u32 = code::EXCEPTION_FIRST + exception::ALIGNMENT_CHECK as u32;
const MACHINE_CHECK: u32 = code::EXCEPTION_FIRST + exception::MACHINE_CHECK as u32;

/// A rare exit: what it is, or what must be read from the instruction for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rare {
    Exit(RareExit),
    /// An exception of the guest's. DR6 and DR7 are as its delivery leaves them.
    Exception(Event),
    /// An access to a control register.
    ControlRegister,
    /// IRET is about to be executed, which ends the blocking of NMIs.
    EndOfNmi,
    /// The entry was refused.
    Refused,
}

/// Decodes a rare exit, right after it.
pub(crate) fn decode_rare(vmcb: &Vmcb, reason: RareReason) -> Rare {
    Rare::Exit(match reason.code() {
        0..=code::READ_CR_LAST | code::WRITE_CR_FIRST..=code::WRITE_CR_LAST => {
            return Rare::ControlRegister;
        }
        MACHINE_CHECK => RareExit::MachineCheck,
        DEBUG => return Rare::Exception(Event::DEBUG),
        ALIGNMENT_CHECK => return Rare::Exception(Event::ALIGNMENT_CHECK),
        // STGI has let the host take it.
        code::NMI => RareExit::Handled,
        code::INIT => RareExit::Init,
        code::IRET => return Rare::EndOfNmi,
        code::RDPMC => RareExit::ReadPerformanceCounter,
        code::INVD | code::WBINVD => RareExit::CacheFlush,
        code::PAUSE => RareExit::Pause,
        code::SHUTDOWN => RareExit::TripleFault,
        code::VMMCALL => RareExit::Hypercall,
        // The last ones are no part of the extension, but as absent as that.
        code::VMRUN
        | code::VMLOAD..=code::SKINIT
        | code::INVLPGA
        | code::RDPRU
        | code::INVLPGB
        | code::INVLPGB_ILLEGAL
        | code::TLBSYNC => RareExit::VirtualizationInstruction,
        code::MONITOR..=code::MWAIT_ARMED => RareExit::MonitorWait,
        code::XSETBV => RareExit::SetXcr,
        code::NESTED_PAGE_FAULT => RareExit::Memory(memory_fault(vmcb)),
        code::INVALID => return Rare::Refused,
        other => RareExit::Unexpected(other),
    })
}

/// EXITINFO1 of port accesses: it reads.
const INFO_IN: u64 = 1 << 0;

/// EXITINFO1 of port accesses (section 15.10.2).
const fn io_access(info: u64) -> IoAccess {
    const STRING: u64 = 1 << 2;
    const REPEAT: u64 = 1 << 3;
    const BYTE: u64 = 1 << 4;
    const WORD: u64 = 1 << 5;
    let width = match info & (BYTE | WORD) {
        BYTE => Width::Byte,
        WORD => Width::Word,
        _ => Width::Dword,
    };
    let direction = if info & INFO_IN != 0 {
        Direction::In
    } else {
        Direction::Out
    };
    let port = (info >> 16) as u16;
    IoAccess::new(
        port,
        width,
        direction,
        info & STRING != 0,
        info & REPEAT != 0,
    )
}

/// EXITINFO1 and 2 of nested page faults (section 15.25.6).
fn memory_fault(vmcb: &Vmcb) -> MemoryFault {
    const WRITE: u64 = 1 << 1;
    const FETCH: u64 = 1 << 4;
    let info = vmcb.exit_info_1;
    let kind = if info & FETCH != 0 {
        AccessKind::Fetch
    } else if info & WRITE != 0 {
        AccessKind::Write
    } else {
        AccessKind::Read
    };
    MemoryFault {
        physical: vmcb.exit_info_2,
        linear: None,
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_accesses_decode() {
        // in al, 0x21; rep outsd to 0xcf8; out dx, ax
        let read = IoAccess::new(0x21, Width::Byte, Direction::In, false, false);
        assert_eq!(io_access(0x21_0011), read);
        let string = IoAccess::new(0xcf8, Width::Dword, Direction::Out, true, true);
        assert_eq!(io_access(0xcf8_004c), string);
        let write = IoAccess::new(0x1ce, Width::Word, Direction::Out, false, false);
        assert_eq!(io_access(0x1ce_0020), write);
    }
}

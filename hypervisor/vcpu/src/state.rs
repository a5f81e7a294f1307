//! Guest state as the layers above see it.

use core::arch::x86_64::__cpuid;
use serde::{Deserialize, Serialize};

/// The general-purpose registers of a vCPU while it is outside its guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the manual's")]
pub struct Gprs {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

const _: () = assert!(core::mem::size_of::<Gprs>() == 15 * 8);

impl Gprs {
    /// The value of the register with this encoding; `None` for RSP (4) and beyond R15.
    #[must_use]
    pub fn by_encoding(&self, encoding: u8) -> Option<u64> {
        Some(match encoding {
            0 => self.rax,
            1 => self.rcx,
            2 => self.rdx,
            3 => self.rbx,
            5 => self.rbp,
            6 => self.rsi,
            7 => self.rdi,
            8 => self.r8,
            9 => self.r9,
            10 => self.r10,
            11 => self.r11,
            12 => self.r12,
            13 => self.r13,
            14 => self.r14,
            15 => self.r15,
            _ => return None,
        })
    }

    /// The register with this encoding; `None` for RSP (4) and beyond R15.
    pub fn by_encoding_mut(&mut self, encoding: u8) -> Option<&mut u64> {
        Some(match encoding {
            0 => &mut self.rax,
            1 => &mut self.rcx,
            2 => &mut self.rdx,
            3 => &mut self.rbx,
            5 => &mut self.rbp,
            6 => &mut self.rsi,
            7 => &mut self.rdi,
            8 => &mut self.r8,
            9 => &mut self.r9,
            10 => &mut self.r10,
            11 => &mut self.r11,
            12 => &mut self.r12,
            13 => &mut self.r13,
            14 => &mut self.r14,
            15 => &mut self.r15,
            _ => return None,
        })
    }
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The visible selector.
    pub selector: u16,
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Access rights in the VMCS format (Intel SDM volume 3, table 25-2).
    pub access: u32,
}

impl Segment {
    /// A flat 4 GiB 32-bit code segment, readable, accessed.
    #[must_use]
    pub const fn flat_code_32(selector: u16) -> Self {
        Self {
            selector,
            base: 0,
            limit: !0,
            access: 0xc09b,
        }
    }

    /// A 64-bit code segment, readable, accessed.
    #[must_use]
    pub const fn flat_code_64(selector: u16) -> Self {
        Self {
            selector,
            base: 0,
            limit: !0,
            access: 0xa09b,
        }
    }

    /// A flat 4 GiB 32-bit data segment, writable, accessed.
    #[must_use]
    pub const fn flat_data_32(selector: u16) -> Self {
        Self {
            selector,
            base: 0,
            limit: !0,
            access: 0xc093,
        }
    }

    /// LDTR after a reset (Intel SDM volume 3, table 10-1).
    #[must_use]
    pub const fn reset_ldt() -> Self {
        Self {
            selector: 0,
            base: 0,
            limit: 0xffff,
            access: 0x82,
        }
    }

    /// A data segment of real mode; as CS it runs code there (Intel SDM volume 3, table 10-1).
    #[must_use]
    pub const fn real_mode(selector: u16) -> Self {
        Self {
            selector,
            base: (selector as u64) << 4,
            limit: 0xffff,
            access: 0x93,
        }
    }

    /// A busy 32-bit TSS, as the task register must hold one.
    #[must_use]
    pub const fn busy_tss_32() -> Self {
        Self {
            selector: 0,
            base: 0,
            limit: 0xffff,
            access: 0x8b,
        }
    }
}

/// Bits of the flags register (Intel SDM volume 1, section 3.4.3).
pub mod rflags {
    /// Single steps trap.
    pub const TF: u64 = 1 << 8;
    /// Interrupts are taken.
    pub const IF: u64 = 1 << 9;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
    /// Always one.
    pub const RESERVED_ONE: u64 = 1 << 1;
    /// Those that can be set.
    pub const DEFINED: u64 = 0x3f_7fd7;

    /// This value with reserved bits as the processor demands them.
    #[must_use]
    pub const fn legal(value: u64) -> u64 {
        value & DEFINED | RESERVED_ONE
    }
}

/// Vectors of the exceptions that exit (Intel SDM volume 3, table 6-1). A guest could make the delivery of #DB or #AC raise
/// the same exception without end, inside the processor, where no interrupt reaches it (CVE-2015-8104, CVE-2015-5307).
pub mod exception {
    /// #DB, debug.
    pub const DEBUG: u8 = 1;
    /// #AC, alignment check.
    pub const ALIGNMENT_CHECK: u8 = 17;
    /// #MC, machine check.
    pub const MACHINE_CHECK: u8 = 18;
    /// All of them, as a bitmap of vectors.
    pub const EXITING: u32 = 1 << DEBUG | 1 << ALIGNMENT_CHECK | 1 << MACHINE_CHECK;
}

/// Where VM exits land: the descriptor tables of this processor's host context.
#[derive(Clone, Copy, Debug)]
pub struct HostState {
    /// Linear address of the GDT.
    pub gdt_base: u64,
    /// Linear address of the IDT.
    pub idt_base: u64,
    /// Linear address of the TSS.
    pub tss_base: u64,
    /// Selector of the TSS.
    pub tss_selector: u16,
}

/// How a vCPU starts: interrupts off; registers that are not named hold what a reset leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartState {
    /// In real mode, at offset 0 of this page below 1 MiB: after INIT and a start-up IPI with this
    /// vector (Intel SDM volume 3, table 10-1 and section 9.4.3).
    ///
    /// A processor keeps its x87, SSE and AVX registers and most MSRs across INIT; here they are
    /// reset too, so that nothing of an earlier start is left.
    RealMode {
        /// The vector: physical address of the code, in pages of 4 KiB.
        page: u8,
    },
    /// In 32-bit protected mode with flat segments, paging off.
    Protected32 {
        /// Instruction pointer.
        eip: u32,
        /// EAX.
        eax: u32,
        /// EBX.
        ebx: u32,
    },
    /// In 64-bit mode with flat segments.
    Long64 {
        /// Instruction pointer.
        rip: u64,
        /// RSI.
        rsi: u64,
        /// CR3: four-level page tables.
        cr3: u64,
        /// Address of the descriptor table.
        gdt_base: u64,
        /// Its limit.
        gdt_limit: u16,
        /// Selector of its 64-bit code segment.
        code: u16,
        /// Selector of its data segment.
        data: u16,
    },
}

impl StartState {
    pub(crate) fn gprs(&self) -> Gprs {
        match *self {
            // EDX has the processor's signature, as CPUID leaf 1 shows it in EAX.
            Self::RealMode { .. } => Gprs {
                rdx: u64::from(__cpuid(1).eax),
                ..Gprs::default()
            },
            Self::Protected32 { eax, ebx, .. } => Gprs {
                rax: u64::from(eax),
                rbx: u64::from(ebx),
                ..Gprs::default()
            },
            Self::Long64 { rsi, .. } => Gprs {
                rsi,
                ..Gprs::default()
            },
        }
    }
}

/// The segment registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the manual's")]
pub enum SegmentRegister {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
    Ldtr,
    Tr,
}

impl SegmentRegister {
    /// All of them, in the order of the VMCS and of saved states.
    pub const ALL: [Self; 8] = [
        Self::Es,
        Self::Cs,
        Self::Ss,
        Self::Ds,
        Self::Fs,
        Self::Gs,
        Self::Ldtr,
        Self::Tr,
    ];
}

/// Kinds of events that VM entry delivers (Intel SDM volume 3, table 25-18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u32)]
pub enum EventKind {
    /// An interrupt from the guest's interrupt controller.
    ExternalInterrupt = 0,
    /// A non-maskable interrupt.
    Nmi = 2,
    /// A fault or trap.
    HardwareException = 3,
    /// INT n.
    SoftwareInterrupt = 4,
    /// INT1.
    PrivilegedSoftwareException = 5,
    /// INT3 or INTO.
    SoftwareException = 6,
}

/// An event for VM entry to deliver through the guest's IDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What kind of event.
    pub kind: EventKind,
    /// The vector.
    pub vector: u8,
    /// The error code, for the exceptions that push one.
    pub error_code: Option<u32>,
}

impl Event {
    /// #UD, undefined instruction.
    pub const INVALID_OPCODE: Self = Self {
        kind: EventKind::HardwareException,
        vector: 6,
        error_code: None,
    };

    /// #SS(0), stack fault.
    pub const STACK_FAULT: Self = Self::exception(12, 0);

    /// #GP(0), general protection.
    pub const GENERAL_PROTECTION: Self = Self {
        kind: EventKind::HardwareException,
        vector: 13,
        error_code: Some(0),
    };

    /// #DB, debug.
    pub const DEBUG: Self = Self {
        kind: EventKind::HardwareException,
        vector: 1,
        error_code: None,
    };

    /// #AC(0), alignment check.
    pub const ALIGNMENT_CHECK: Self = Self::exception(exception::ALIGNMENT_CHECK, 0);

    /// An exception that pushes this error code.
    #[must_use]
    pub const fn exception(vector: u8, error_code: u32) -> Self {
        Self {
            kind: EventKind::HardwareException,
            vector,
            error_code: Some(error_code),
        }
    }

    /// An interrupt with this vector.
    #[must_use]
    pub const fn interrupt(vector: u8) -> Self {
        Self {
            kind: EventKind::ExternalInterrupt,
            vector,
            error_code: None,
        }
    }

    /// The event as a VM-entry interruption-information field. EVENTINJ in the VMCB has the same layout in its low
    /// half, and knows of the kinds the first two, hardware exceptions and INT n (AMD APM volume 2, section 15.20).
    #[must_use]
    pub const fn info(self) -> u32 {
        let error = if self.error_code.is_some() {
            info::ERROR_CODE
        } else {
            0
        };
        info::VALID | error | ((self.kind as u32) << 8) | self.vector as u32
    }

    /// The event in an interruption-information field, whose error code is `code`; `None` if there is
    /// none.
    #[must_use]
    pub const fn from_info(info: u32, code: u32) -> Option<Self> {
        if info & info::VALID == 0 {
            return None;
        }
        let kind = match (info >> 8) & 7 {
            0 => EventKind::ExternalInterrupt,
            2 => EventKind::Nmi,
            3 => EventKind::HardwareException,
            4 => EventKind::SoftwareInterrupt,
            5 => EventKind::PrivilegedSoftwareException,
            6 => EventKind::SoftwareException,
            _ => return None,
        };
        let error_code = if info & info::ERROR_CODE != 0 {
            Some(code)
        } else {
            None
        };
        Some(Self {
            kind,
            vector: info as u8,
            error_code,
        })
    }

    /// Whether an instruction raised it, behind which the guest goes on.
    #[must_use]
    pub const fn is_software(self) -> bool {
        matches!(
            self.kind,
            EventKind::SoftwareInterrupt
                | EventKind::SoftwareException
                | EventKind::PrivilegedSoftwareException
        )
    }
}

/// Fields of interruption information, alike for entry, exit and vectoring (Intel SDM volume 3, tables
/// 25-18, 25-19 and 25-20).
mod info {
    pub(super) const ERROR_CODE: u32 = 1 << 11;
    pub(super) const VALID: u32 = 1 << 31;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn events_come_back_from_their_field(info: u32, code: u32) {
            match Event::from_info(info, code) {
                // Bit 12 is undefined in vectoring information, and not for an entry.
                Some(event) => prop_assert_eq!(event.info(), info & 0x8000_0fff),
                None => prop_assert!(info >> 31 == 0 || matches!(info >> 8 & 7, 1 | 7)),
            }
        }
    }
}

//! A vCPU's whole state as plain data: to start from, to keep, to carry elsewhere.
//!
//! What is not here belongs to the machine (time, the local APIC, whether the vCPU halted) or cannot
//! vary: a vCPU is always in the active state when it is outside its guest, since HLT, shutdown and
//! INIT exit, and IA32_DEBUGCTL is not offered to guests.

mod check;

use crate::state::{Event, Gprs, Segment, SegmentRegister, StartState};
use crate::xsave::{AreaLayout, ExtendedStateV1};
pub(crate) use check::is_canonical;
use serde::{Deserialize, Serialize};
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};

/// Interruptibility state (Intel SDM volume 3, table 25-3).
pub mod blocking {
    /// By STI.
    pub const STI: u32 = 1 << 0;
    /// By MOV SS or POP SS.
    pub const MOV_SS: u32 = 1 << 1;
    /// Of NMIs.
    pub const NMI: u32 = 1 << 3;
}

/// IA32_PAT after reset (Intel SDM volume 3, table 12-12).
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
const DR6_RESET: u64 = 0xffff_0ff0;
const DR7_RESET: u64 = 0x400;
const RFLAGS_RESET: u64 = 1 << 1;

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRegister {
    /// Linear address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
}

/// An event that the next entry delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedEvent {
    /// The event.
    pub event: Event,
    /// The length in bytes of the instruction that raised a software interrupt or exception, else 0.
    pub instruction_length: u8,
}

/// The saved state of a vCPU. The names are the manual's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the manual's")]
pub struct VcpuStateV1 {
    pub gprs: Gprs,
    pub rsp: u64,
    pub rip: u64,
    pub rflags: u64,
    /// As the guest sees it, which determines what the processor runs with.
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    /// As the guest sees it, which determines what the processor runs with.
    pub cr4: u64,
    pub efer: u64,
    /// In the order of [`SegmentRegister::ALL`].
    pub segments: [Segment; 8],
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
    /// DR0 to DR3.
    pub breakpoints: [u64; 4],
    pub dr6: u64,
    pub dr7: u64,
    pub sysenter_cs: u32,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub tsc_aux: u64,
    pub pat: u64,
    /// The page-directory-pointer entries of 32-bit PAE paging; zero in every other mode.
    pub pdptes: [u64; 4],
    /// Interruptibility state (table 25-3).
    pub interruptibility: u32,
    /// Pending debug exceptions (table 25-4).
    pub pending_debug: u64,
    pub event: Option<QueuedEvent>,
    pub xcr0: u64,
    pub extended: ExtendedStateV1,
}

/// What the processor that is to take a saved state offers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// CR4 bits that guests may see set.
    pub cr4: u64,
    /// Width of a physical address in bits.
    pub physical_bits: u32,
    /// Width of a linear address in bits.
    pub linear_bits: u32,
    /// XCR0 bits.
    pub xcr0: u64,
    /// IA32_TSC_AUX is there.
    pub tsc_aux: bool,
    /// How the processor lays out XSAVE areas.
    pub area: AreaLayout,
}

impl VcpuStateV1 {
    /// The state in which a vCPU starts (Intel SDM volume 3, table 10-1, and what the start says).
    #[must_use]
    pub fn at_start(start: &StartState) -> Self {
        let mut new = Self::at_reset();
        new.gprs = start.gprs();
        match *start {
            StartState::RealMode { page } => {
                *new.segment_mut(SegmentRegister::Cs) = Segment::real_mode(u16::from(page) << 8);
            }
            StartState::Protected32 { eip, .. } => {
                new.rip = u64::from(eip);
                new.cr0 = (Cr0Flags::PROTECTED_MODE_ENABLE | Cr0Flags::EXTENSION_TYPE).bits();
                new.set_flat(Segment::flat_code_32(0x8), Segment::flat_data_32(0x10));
            }
            StartState::Long64 {
                rip,
                cr3,
                gdt_base,
                gdt_limit,
                code,
                data,
                ..
            } => {
                new.rip = rip;
                new.cr0 =
                    (Cr0Flags::PROTECTED_MODE_ENABLE | Cr0Flags::EXTENSION_TYPE | Cr0Flags::PAGING)
                        .bits();
                new.cr3 = cr3;
                new.cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits();
                new.efer = (EferFlags::LONG_MODE_ENABLE | EferFlags::LONG_MODE_ACTIVE).bits();
                new.gdtr = TableRegister {
                    base: gdt_base,
                    limit: u32::from(gdt_limit),
                };
                new.set_flat(Segment::flat_code_64(code), Segment::flat_data_32(data));
            }
        }
        new
    }

    /// The state after a reset, but for the code segment and the instruction pointer.
    #[must_use]
    pub fn at_reset() -> Self {
        let cr0 = Cr0Flags::CACHE_DISABLE | Cr0Flags::NOT_WRITE_THROUGH | Cr0Flags::EXTENSION_TYPE;
        let data = Segment::real_mode(0);
        let table = TableRegister {
            base: 0,
            limit: 0xffff,
        };
        Self {
            gprs: Gprs::default(),
            rsp: 0,
            rip: 0,
            rflags: RFLAGS_RESET,
            cr0: cr0.bits(),
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            segments: [
                data,
                data,
                data,
                data,
                data,
                data,
                Segment::reset_ldt(),
                Segment::busy_tss_32(),
            ],
            gdtr: table,
            idtr: table,
            breakpoints: [0; 4],
            dr6: DR6_RESET,
            dr7: DR7_RESET,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            tsc_aux: 0,
            pat: PAT_RESET,
            pdptes: [0; 4],
            interruptibility: 0,
            pending_debug: 0,
            event: None,
            xcr0: 1,
            extended: ExtendedStateV1::initial(),
        }
    }

    fn set_flat(&mut self, code: Segment, data: Segment) {
        use SegmentRegister as Register;
        for register in [
            Register::Es,
            Register::Ss,
            Register::Ds,
            Register::Fs,
            Register::Gs,
        ] {
            *self.segment_mut(register) = data;
        }
        *self.segment_mut(Register::Cs) = code;
    }

    fn segment_mut(&mut self, register: SegmentRegister) -> &mut Segment {
        &mut self.segments[register as usize]
    }

    /// A segment register.
    #[must_use]
    pub fn segment(&self, register: SegmentRegister) -> Segment {
        self.segments[register as usize]
    }

    /// Whether the guest is in IA-32e mode.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.efer & EferFlags::LONG_MODE_ACTIVE.bits() != 0
    }

    /// Whether the page-directory-pointer entries are in use: paging with PAE, outside IA-32e mode.
    #[must_use]
    pub fn uses_pdptes(&self) -> bool {
        self.cr0 & Cr0Flags::PAGING.bits() != 0
            && self.cr4 & Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits() != 0
            && !self.is_long()
    }
}

#[cfg(test)]
mod tests;

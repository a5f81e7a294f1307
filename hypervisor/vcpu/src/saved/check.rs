//! What a saved state must obey: the processor's checks at VM entry (Intel SDM volume 3, section 27.3.1),
//! and those of the instructions by which the state is put back outside the VMCS.

use super::{Limits, QueuedEvent, VcpuStateV1, blocking};
use crate::error::RestoreError;
use crate::state::{EventKind, Segment, SegmentRegister, rflags};
use crate::xsave::xcr0_is_valid;
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};

/// Access rights of a segment (table 25-2).
mod access {
    pub(super) const TYPE: u32 = 0xf;
    pub(super) const ACCESSED: u32 = 1 << 0;
    pub(super) const READABLE: u32 = 1 << 1;
    pub(super) const CODE: u32 = 1 << 3;
    pub(super) const CODE_OR_DATA: u32 = 1 << 4;
    pub(super) const PRESENT: u32 = 1 << 7;
    pub(super) const LONG: u32 = 1 << 13;
    pub(super) const BIG: u32 = 1 << 14;
    pub(super) const GRANULAR: u32 = 1 << 15;
    pub(super) const UNUSABLE: u32 = 1 << 16;
    /// Bits 8 to 11 and 17 to 31.
    pub(super) const RESERVED: u32 = 0xfffe_0f00;
    /// A data segment that is read, written and accessed: what CS is in real mode.
    pub(super) const DATA: u32 = 3;
}

impl Segment {
    const fn kind(self) -> u32 {
        self.access & access::TYPE
    }

    const fn privilege(self) -> u32 {
        (self.access >> 5) & 3
    }

    const fn has(self, bits: u32) -> bool {
        self.access & bits == bits
    }

    const fn usable(self) -> bool {
        !self.has(access::UNUSABLE)
    }
}

fn ensure(holds: bool, what: &'static str) -> Result<(), RestoreError> {
    if holds {
        Ok(())
    } else {
        Err(RestoreError::Invalid(what))
    }
}

/// Whether the bits of an address above its highest one of `bits` equal that one.
pub(crate) const fn is_canonical(address: u64, bits: u32) -> bool {
    let unused = 64 - bits;
    ((address << unused) as i64 >> unused) as u64 == address
}

impl VcpuStateV1 {
    /// Refuses a state that the processor would not enter, or that would fault when it is put back.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] says what is wrong, or what the processor lacks.
    pub fn check(&self, limits: &Limits) -> Result<(), RestoreError> {
        self.check_control_registers(limits)?;
        self.check_debug_registers()?;
        self.check_msrs(limits)?;
        for register in SegmentRegister::ALL {
            self.check_segment(register, limits)
                .map_err(|what| RestoreError::Segment(register, what))?;
        }
        self.check_tables(limits)?;
        self.check_instruction_pointer_and_flags(limits)?;
        self.check_interruptibility()?;
        if let Some(queued) = &self.event {
            self.check_event(queued)?;
        }
        self.extended.check(&limits.area, limits.linear_bits)
    }

    fn is_protected(&self) -> bool {
        self.cr0 & Cr0Flags::PROTECTED_MODE_ENABLE.bits() != 0
    }

    fn check_control_registers(&self, limits: &Limits) -> Result<(), RestoreError> {
        const EFER_GUEST: u64 = EferFlags::SYSTEM_CALL_EXTENSIONS.bits()
            | EferFlags::LONG_MODE_ENABLE.bits()
            | EferFlags::LONG_MODE_ACTIVE.bits()
            | EferFlags::NO_EXECUTE_ENABLE.bits();
        let cr0 = Cr0Flags::from_bits_retain(self.cr0);
        ensure(
            Cr0Flags::all().contains(cr0) && cr0.contains(Cr0Flags::EXTENSION_TYPE),
            "reserved bits of CR0",
        )?;
        let paging = cr0.contains(Cr0Flags::PAGING);
        ensure(
            !paging || self.is_protected(),
            "CR0: paging outside protected mode",
        )?;
        ensure(
            !cr0.contains(Cr0Flags::NOT_WRITE_THROUGH) || cr0.contains(Cr0Flags::CACHE_DISABLE),
            "CR0: NW without CD",
        )?;
        if self.cr4 & !limits.cr4 != 0 {
            return Err(RestoreError::Unsupported("bits of CR4"));
        }
        let long = self.is_long();
        let cr4 = Cr4Flags::from_bits_retain(self.cr4);
        ensure(
            !cr4.contains(Cr4Flags::PCID) || long,
            "CR4: PCIDE outside IA-32e mode",
        )?;
        ensure(self.efer & !EFER_GUEST == 0, "reserved bits of IA32_EFER")?;
        let enabled = self.efer & EferFlags::LONG_MODE_ENABLE.bits() != 0;
        ensure(long == (enabled && paging), "IA32_EFER.LMA")?;
        ensure(
            !long || cr4.contains(Cr4Flags::PHYSICAL_ADDRESS_EXTENSION),
            "IA-32e mode without CR4.PAE",
        )?;
        ensure(self.cr3 >> limits.physical_bits == 0, "CR3")?;
        self.check_pdptes(limits)
    }

    fn check_pdptes(&self, limits: &Limits) -> Result<(), RestoreError> {
        const PRESENT: u64 = 1;
        const RESERVED_LOW: u64 = 0x1e6;
        let reserved = RESERVED_LOW | !((1 << limits.physical_bits) - 1);
        let valid = |entry: &u64| {
            if self.uses_pdptes() {
                entry & PRESENT == 0 || entry & reserved == 0
            } else {
                *entry == 0
            }
        };
        ensure(
            self.pdptes.iter().all(valid),
            "page-directory-pointer entries",
        )
    }

    fn check_debug_registers(&self) -> Result<(), RestoreError> {
        // Figure 18-1. Bits that some processors define (RTM, bus locks) are free.
        const DR6_FIXED: u64 = 0xfffe_17f0;
        const DR6_ONES: u64 = 0xfffe_07f0;
        const DR7_FIXED: u64 = 0xd400;
        const DR7_ONES: u64 = 0x400;
        ensure(
            self.dr6 >> 32 == 0 && self.dr6 & DR6_FIXED == DR6_ONES,
            "DR6",
        )?;
        ensure(
            self.dr7 >> 32 == 0 && self.dr7 & DR7_FIXED == DR7_ONES,
            "DR7",
        )
    }

    fn check_msrs(&self, limits: &Limits) -> Result<(), RestoreError> {
        for (address, name) in [
            (self.sysenter_esp, "IA32_SYSENTER_ESP"),
            (self.sysenter_eip, "IA32_SYSENTER_EIP"),
            (self.lstar, "IA32_LSTAR"),
            (self.cstar, "IA32_CSTAR"),
            (self.kernel_gs_base, "IA32_KERNEL_GS_BASE"),
        ] {
            ensure(is_canonical(address, limits.linear_bits), name)?;
        }
        ensure(self.fmask >> 32 == 0, "IA32_FMASK")?;
        ensure(self.tsc_aux >> 32 == 0, "IA32_TSC_AUX")?;
        if self.tsc_aux != 0 && !limits.tsc_aux {
            return Err(RestoreError::Unsupported("IA32_TSC_AUX"));
        }
        let memory_type = |byte: &u8| matches!(byte, 0 | 1 | 4..=7);
        ensure(self.pat.to_le_bytes().iter().all(memory_type), "IA32_PAT")?;
        if self.xcr0 & !limits.xcr0 != 0 {
            return Err(RestoreError::Unsupported("bits of XCR0"));
        }
        ensure(xcr0_is_valid(self.xcr0, limits.xcr0), "XCR0")
    }

    fn check_segment(
        &self,
        register: SegmentRegister,
        limits: &Limits,
    ) -> Result<(), &'static str> {
        use SegmentRegister as Register;
        let segment = self.segment(register);
        let always = matches!(register, Register::Cs | Register::Tr);
        if always && !segment.usable() {
            return Err("absence");
        }
        let canonical = match register {
            Register::Tr | Register::Fs | Register::Gs => true,
            Register::Ldtr => segment.usable(),
            _ => false,
        };
        if canonical && !is_canonical(segment.base, limits.linear_bits) {
            return Err("base");
        }
        if self.rflags & rflags::VM != 0 && !matches!(register, Register::Ldtr | Register::Tr) {
            return check_virtual_8086(segment);
        }
        // SS has the current privilege level even when it is unusable.
        if !segment.usable() && register != Register::Ss {
            return Ok(());
        }
        if !self.privilege_fits(register, segment) {
            return Err("privilege level");
        }
        if !segment.usable() {
            return Ok(());
        }
        if !canonical && segment.base >> 32 != 0 {
            return Err("base");
        }
        if matches!(register, Register::Ldtr | Register::Tr) && segment.selector & 4 != 0 {
            return Err("selector");
        }
        if segment.access & access::RESERVED != 0 || !segment.has(access::PRESENT) {
            return Err("access rights");
        }
        if !limit_fits(segment) {
            return Err("limit");
        }
        let system = matches!(register, Register::Ldtr | Register::Tr);
        if segment.has(access::CODE_OR_DATA) == system || !self.type_fits(register, segment) {
            return Err("type");
        }
        let both = access::LONG | access::BIG;
        if register == Register::Cs && self.is_long() && segment.has(both) {
            return Err("size");
        }
        Ok(())
    }

    /// Whether a usable segment's type is one for this register.
    fn type_fits(&self, register: SegmentRegister, segment: Segment) -> bool {
        use SegmentRegister as Register;
        const TSS_16_BUSY: u32 = 3;
        const TSS_BUSY: u32 = 11;
        const LDT: u32 = 2;
        match (register, segment.kind()) {
            (Register::Cs, kind) => matches!(kind, access::DATA | 9 | 11 | 13 | 15),
            (Register::Ss, kind) => matches!(kind, 3 | 7),
            (Register::Ldtr, kind) => kind == LDT,
            (Register::Tr, TSS_BUSY) => true,
            (Register::Tr, kind) => kind == TSS_16_BUSY && !self.is_long(),
            _ => {
                segment.has(access::ACCESSED)
                    && (!segment.has(access::CODE) || segment.has(access::READABLE))
            }
        }
    }

    /// Whether a segment's privilege level is possible, for an unrestricted guest.
    fn privilege_fits(&self, register: SegmentRegister, segment: Segment) -> bool {
        use SegmentRegister as Register;
        let level = segment.privilege();
        match (register, segment.kind()) {
            (Register::Cs, access::DATA) => level == 0,
            (Register::Cs, 9 | 11) => level == self.segment(Register::Ss).privilege(),
            (Register::Cs, _) => level <= self.segment(Register::Ss).privilege(),
            (Register::Ss, _) => {
                let code = self.segment(Register::Cs).kind();
                level == 0 || (self.is_protected() && code != access::DATA)
            }
            _ => true,
        }
    }

    fn check_tables(&self, limits: &Limits) -> Result<(), RestoreError> {
        for (table, name) in [(self.gdtr, "GDTR"), (self.idtr, "IDTR")] {
            let fits = is_canonical(table.base, limits.linear_bits) && table.limit <= 0xffff;
            ensure(fits, name)?;
        }
        Ok(())
    }

    fn check_instruction_pointer_and_flags(&self, limits: &Limits) -> Result<(), RestoreError> {
        let is_64_bit = self.is_long() && self.segment(SegmentRegister::Cs).has(access::LONG);
        let upper = if is_64_bit {
            // All alike, though not necessarily like the highest bit of the address.
            let upper = (self.rip as i64 >> limits.linear_bits) as u64;
            upper == 0 || upper == u64::MAX
        } else {
            self.rip >> 32 == 0
        };
        ensure(upper, "RIP")?;
        ensure(
            self.rflags & !rflags::DEFINED == 0 && self.rflags & rflags::RESERVED_ONE != 0,
            "RFLAGS",
        )?;
        ensure(
            self.rflags & rflags::VM == 0 || (self.is_protected() && !self.is_long()),
            "RFLAGS.VM",
        )
    }

    fn check_interruptibility(&self) -> Result<(), RestoreError> {
        const DEFINED: u32 = blocking::STI | blocking::MOV_SS | blocking::NMI;
        const SINGLE_STEP: u64 = 1 << 14;
        /// B0 to B3, and that one of them was enabled.
        const BREAKPOINTS: u64 = 0xf | 1 << 12;
        let state = self.interruptibility;
        let both = blocking::STI | blocking::MOV_SS;
        ensure(
            state & !DEFINED == 0
                && state & both != both
                && (state & blocking::STI == 0 || self.rflags & rflags::IF != 0),
            "interruptibility",
        )?;
        let stepping = self.rflags & rflags::TF != 0;
        let step_pending = self.pending_debug & SINGLE_STEP != 0;
        ensure(
            self.pending_debug & !(BREAKPOINTS | SINGLE_STEP) == 0
                && (state & both == 0 || step_pending == stepping),
            "pending debug exceptions",
        )
    }

    /// Section 27.2.1.3, and what sections 27.3.1.4 and 27.3.1.5 add.
    fn check_event(&self, queued: &QueuedEvent) -> Result<(), RestoreError> {
        const NMI: u8 = 2;
        const LAST_EXCEPTION: u8 = 31;
        let event = &queued.event;
        let shadow = self.interruptibility & (blocking::STI | blocking::MOV_SS);
        let (possible, length) = match event.kind {
            EventKind::ExternalInterrupt => (self.rflags & rflags::IF != 0 && shadow == 0, 0..=0),
            EventKind::Nmi => {
                let blocked = shadow != 0 || self.interruptibility & blocking::NMI != 0;
                (event.vector == NMI && !blocked, 0..=0)
            }
            EventKind::HardwareException => {
                (event.vector <= LAST_EXCEPTION && event.vector != NMI, 0..=0)
            }
            EventKind::SoftwareInterrupt
            | EventKind::SoftwareException
            | EventKind::PrivilegedSoftwareException => (true, 1..=15),
        };
        ensure(possible, "queued event")?;
        ensure(
            length.contains(&queued.instruction_length),
            "instruction length of the queued event",
        )?;
        let pushes_code = event.kind == EventKind::HardwareException
            && matches!(event.vector, 8 | 10..=14 | 17)
            && self.is_protected();
        ensure(
            event.error_code.is_some() == pushes_code
                && event.error_code.is_none_or(|code| code <= 0x7fff),
            "error code of the queued event",
        )
    }
}

fn check_virtual_8086(segment: Segment) -> Result<(), &'static str> {
    const ACCESS: u32 = 0xf3;
    if segment.base != u64::from(segment.selector) << 4 {
        Err("base")
    } else if segment.limit != 0xffff {
        Err("limit")
    } else if segment.access != ACCESS {
        Err("access rights")
    } else {
        Ok(())
    }
}

/// The granularity bit must be able to tell the limit.
fn limit_fits(segment: Segment) -> bool {
    let granular = segment.has(access::GRANULAR);
    (segment.limit & 0xfff == 0xfff || !granular) && (segment.limit >> 20 == 0 || granular)
}

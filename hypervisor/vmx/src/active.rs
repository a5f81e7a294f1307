//! The vCPU that this processor runs now.

use crate::controls::{EntryControls, PrimaryControls};
use crate::cpu::VmxCpu;
use crate::dump::VmcsDump;
use crate::enter::enter;
use crate::exit::{self, Exit, RareExit, RareReason};
use crate::fields::{Field32, Field64, FieldNatural};
use crate::residency::{set_cr2, set_xcr0, xcr0};
use crate::setup::{self, CR0_HOST, CR4_ALWAYS, CR4_GUEST};
use crate::state::{Event, EventKind, Gprs, Segment, SegmentRegister};
use crate::vcpu::{EntryFailure, Refusal, Vcpu};
use crate::vmcs::{Current, VmcsError};
use alloc::boxed::Box;
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};

/// Guest interruptibility state (Intel SDM volume 3, table 25-3).
mod blocking {
    pub(super) const STI: u32 = 1 << 0;
    pub(super) const MOV_SS: u32 = 1 << 1;
    pub(super) const NMI: u32 = 1 << 3;
}

const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;

/// The guest's paging configuration, for walks of its page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// CR0 as the guest sees it.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4 as the guest sees it.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
}

/// Access to the vCPU whose VMCS is current and whose state is in this processor.
pub struct Active<'a> {
    vcpu: &'a mut Vcpu,
    cpu: &'a mut VmxCpu,
    vmcs: Current,
    timer_shift: u8,
    timer_round: u32,
}

impl<'a> Active<'a> {
    pub(crate) fn new(vcpu: &'a mut Vcpu, cpu: &'a mut VmxCpu, vmcs: Current) -> Self {
        let timer_shift = cpu.capabilities().preemption_timer_shift;
        Self {
            vcpu,
            cpu,
            vmcs,
            timer_shift,
            timer_round: u32::from(timer_shift != 0),
        }
    }

    /// Runs the guest until it exits, at the latest some `ticks` TSC ticks from now, rounded up to
    /// the timer's granularity.
    ///
    /// # Errors
    ///
    /// [`EntryFailure`]; the guest did not run. A refused guest state shows as a rare exit first.
    #[inline(always)]
    pub fn run(&mut self, ticks: u32) -> Result<Exit, EntryFailure> {
        // Where nothing is shifted there is nothing to round, so the sum does not overflow.
        let timer = (ticks >> self.timer_shift).wrapping_add(self.timer_round);
        // SAFETY: the timer only makes the guest exit.
        unsafe { self.vmcs.write32(Field32::PreemptionTimer, timer)? };
        // SAFETY: the VMCS is current, its host state was written for this processor and this
        // context, the resident state is loaded (`activate`); `launched` is kept below.
        let failed = unsafe { enter(&raw mut *self.vcpu.context, self.vcpu.launched) };
        if failed != 0 {
            return Err(self.instruction_failure());
        }
        self.vcpu.launched = 1;
        Ok(exit::decode(
            &self.vmcs,
            self.vmcs.read32(Field32::ExitReason)?,
        )?)
    }

    #[cold]
    fn instruction_failure(&mut self) -> EntryFailure {
        match self.vmcs.read32(Field32::InstructionError) {
            Ok(error) => self.refused(Refusal::Instruction(error)),
            Err(error) => EntryFailure::Vmcs(error),
        }
    }

    #[cold]
    fn refused(&mut self, what: Refusal) -> EntryFailure {
        EntryFailure::Refused(Box::new((what, self.dump())))
    }

    /// Every readable VMCS field and the general-purpose registers.
    #[must_use]
    pub fn dump(&self) -> VmcsDump {
        VmcsDump::take(&self.vmcs, self.vcpu.context.gprs)
    }

    /// The guest's general-purpose registers.
    #[must_use]
    #[inline(always)]
    pub fn gprs(&self) -> &Gprs {
        &self.vcpu.context.gprs
    }

    /// The guest's general-purpose registers.
    #[inline(always)]
    pub fn gprs_mut(&mut self) -> &mut Gprs {
        &mut self.vcpu.context.gprs
    }

    /// The value of the general-purpose register with this encoding, RSP included.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn gpr(&self, encoding: u8) -> Result<u64, VmcsError> {
        match self.gprs().by_encoding(encoding) {
            Some(value) => Ok(value),
            None => self.vmcs.read_natural(FieldNatural::GuestRsp),
        }
    }

    /// Sets the general-purpose register with this encoding, RSP included.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    pub fn set_gpr(&mut self, encoding: u8, value: u64) -> Result<(), VmcsError> {
        match self.gprs_mut().by_encoding_mut(encoding) {
            Some(register) => {
                *register = value;
                Ok(())
            }
            // SAFETY: guest state only.
            None => unsafe { self.vmcs.write_natural(FieldNatural::GuestRsp, value) },
        }
    }

    /// The instruction pointer.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn rip(&self) -> Result<u64, VmcsError> {
        self.vmcs.read_natural(FieldNatural::GuestRip)
    }

    /// Sets the flags register; reserved bits stay as the processor demands.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    pub fn set_rflags(&mut self, value: u64) -> Result<(), VmcsError> {
        const RESERVED_ONE: u64 = 1 << 1;
        const DEFINED: u64 = 0x3f_7fd7;
        // SAFETY: guest state only.
        unsafe {
            self.vmcs
                .write_natural(FieldNatural::GuestRflags, value & DEFINED | RESERVED_ONE)
        }
    }

    /// The flags register.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn rflags(&self) -> Result<u64, VmcsError> {
        self.vmcs.read_natural(FieldNatural::GuestRflags)
    }

    /// Moves the guest behind the instruction that exited, and ends its interrupt shadow.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    #[inline(always)]
    pub fn skip_instruction(&mut self) -> Result<(), VmcsError> {
        let length = self.vmcs.read32(Field32::ExitInstructionLength)?;
        self.skip(length)
    }

    /// As [`Active::skip_instruction`], for exits that do not tell the instruction's length in bytes.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    #[inline(always)]
    pub fn skip(&mut self, length: u32) -> Result<(), VmcsError> {
        let rip = self.vmcs.read_natural(FieldNatural::GuestRip)?;
        let next = rip.wrapping_add(u64::from(length));
        // SAFETY: guest state only.
        unsafe { self.vmcs.write_natural(FieldNatural::GuestRip, next)? };
        if rip >> 32 != next >> 32 {
            self.wrap_rip(next)?;
        }
        self.end_interrupt_shadow()?;
        if self.vmcs.read_natural(FieldNatural::GuestRflags)? & RFLAGS_TF != 0 {
            self.trap_single_step()?;
        }
        Ok(())
    }

    /// Ends the interrupt shadow of STI or MOV SS: an instruction has completed.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    #[inline(always)]
    pub fn end_interrupt_shadow(&mut self) -> Result<(), VmcsError> {
        let shadow = self.vmcs.read32(Field32::GuestInterruptibility)?;
        if shadow & (blocking::STI | blocking::MOV_SS) != 0 {
            let open = shadow & !(blocking::STI | blocking::MOV_SS);
            // SAFETY: guest state only.
            unsafe { self.vmcs.write32(Field32::GuestInterruptibility, open)? };
        }
        Ok(())
    }

    /// The trap of a single-stepped instruction that was emulated (section 25.4.2, table 25-4).
    #[cold]
    fn trap_single_step(&mut self) -> Result<(), VmcsError> {
        const SINGLE_STEP: u64 = 1 << 14;
        let pending = self.vmcs.read_natural(FieldNatural::GuestPendingDebug)? | SINGLE_STEP;
        // SAFETY: guest state only.
        unsafe {
            self.vmcs
                .write_natural(FieldNatural::GuestPendingDebug, pending)
        }
    }

    /// Outside 64-bit mode the instruction pointer wraps at 4 GiB, and entry refuses one that does not.
    #[cold]
    fn wrap_rip(&mut self, next: u64) -> Result<(), VmcsError> {
        if self.is_64_bit()? {
            return Ok(());
        }
        // SAFETY: guest state only.
        unsafe {
            self.vmcs
                .write_natural(FieldNatural::GuestRip, next & 0xffff_ffff)
        }
    }

    /// Whether an interrupt can be injected now.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    #[inline(always)]
    pub fn can_take_interrupt(&self) -> Result<bool, VmcsError> {
        if self.vmcs.read_natural(FieldNatural::GuestRflags)? & RFLAGS_IF == 0 {
            return Ok(false);
        }
        let shadow = self.vmcs.read32(Field32::GuestInterruptibility)?;
        if shadow & (blocking::STI | blocking::MOV_SS) != 0 {
            return Ok(false);
        }
        Ok(self.vmcs.read32(Field32::EntryInterruptionInfo)? >> 31 == 0)
    }

    /// Whether the guest has interrupts enabled, shadows aside.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn interrupts_enabled(&self) -> Result<bool, VmcsError> {
        Ok(self.vmcs.read_natural(FieldNatural::GuestRflags)? & RFLAGS_IF != 0)
    }

    /// Delivers `event` at the next entry. One event at a time: a second one replaces the first.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    pub fn inject(&mut self, mut event: Event) -> Result<(), VmcsError> {
        if self.vmcs.read_natural(FieldNatural::GuestCr0)? & Cr0Flags::PROTECTED_MODE_ENABLE.bits()
            == 0
        {
            // In real mode no exception pushes an error code, and entry refuses one.
            event.error_code = None;
        }
        // SAFETY: entry delivers the event into the guest only, and checks it.
        unsafe {
            if let Some(code) = event.error_code {
                self.vmcs.write32(Field32::EntryExceptionErrorCode, code)?;
            }
            if matches!(
                event.kind,
                EventKind::SoftwareInterrupt
                    | EventKind::SoftwareException
                    | EventKind::PrivilegedSoftwareException
            ) {
                let length = self.vmcs.read32(Field32::ExitInstructionLength)?;
                self.vmcs.write32(Field32::EntryInstructionLength, length)?;
            }
            self.vmcs
                .write32(Field32::EntryInterruptionInfo, event.info())
        }
    }

    /// Delivers an NMI at the next entry if the guest can take one; else asks for an exit when it can
    /// and returns `false`.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn inject_nmi(&mut self) -> Result<bool, VmcsError> {
        let blocked = self.vmcs.read32(Field32::GuestInterruptibility)?
            & (blocking::STI | blocking::MOV_SS | blocking::NMI)
            != 0
            || self.vmcs.read32(Field32::EntryInterruptionInfo)? >> 31 != 0;
        let mut primary = self.vcpu.primary;
        primary.set(PrimaryControls::NMI_WINDOW, blocked);
        if primary != self.vcpu.primary {
            // SAFETY: a control that comes with virtual NMIs; it only adds exits.
            unsafe {
                self.vmcs
                    .write32(Field32::PrimaryControls, primary.bits())?
            };
            self.vcpu.primary = primary;
        }
        if !blocked {
            self.inject(Event {
                kind: EventKind::Nmi,
                vector: 2,
                error_code: None,
            })?;
        }
        Ok(!blocked)
    }

    /// Whether the exit came while an event was being delivered to the guest.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn is_delivering_event(&self) -> Result<bool, VmcsError> {
        Ok(self.vmcs.read32(Field32::IdtVectoringInfo)? >> 31 != 0)
    }

    /// Raises #PF for a linear address.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    pub fn inject_page_fault(&mut self, linear: u64, code: u32) -> Result<(), VmcsError> {
        set_cr2(linear);
        self.inject(Event {
            kind: EventKind::HardwareException,
            vector: 14,
            error_code: Some(code),
        })
    }

    /// XCR0 as the guest set it.
    #[must_use]
    pub fn xcr0(&self) -> u64 {
        xcr0()
    }

    /// Asks for an exit as soon as the guest can take an interrupt, or no longer.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    #[inline(always)]
    pub fn want_interrupt_window(&mut self, wanted: bool) -> Result<(), VmcsError> {
        if self
            .vcpu
            .primary
            .contains(PrimaryControls::INTERRUPT_WINDOW)
            == wanted
        {
            return Ok(());
        }
        let mut primary = self.vcpu.primary;
        primary.set(PrimaryControls::INTERRUPT_WINDOW, wanted);
        // SAFETY: a control that the processor always allows; it only adds exits.
        unsafe {
            self.vmcs
                .write32(Field32::PrimaryControls, primary.bits())?
        };
        self.vcpu.primary = primary;
        Ok(())
    }

    /// Sets what is added to the TSC that the guest reads.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Write`].
    pub fn set_tsc_offset(&mut self, offset: u64) -> Result<(), VmcsError> {
        // SAFETY: changes what the guest reads, nothing else.
        unsafe { self.vmcs.write64(Field64::TscOffset, offset) }
    }

    /// A segment register.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn segment(&self, register: SegmentRegister) -> Result<Segment, VmcsError> {
        let (selector, base, limit, access) = register.fields();
        Ok(Segment {
            selector: self.vmcs.read16(selector)?,
            base: self.vmcs.read_natural(base)?,
            limit: self.vmcs.read32(limit)?,
            access: self.vmcs.read32(access)?,
        })
    }

    /// The linear address that an INS or OUTS named (valid right after such an exit).
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn string_address(&self) -> Result<u64, VmcsError> {
        self.vmcs.read_natural(FieldNatural::GuestLinearAddress)
    }

    /// The address size in bits of an INS or OUTS (valid right after such an exit).
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn string_address_bits(&self) -> Result<u32, VmcsError> {
        let info = self.vmcs.read32(Field32::ExitInstructionInfo)?;
        Ok(16 << ((info >> 7) & 3).min(2))
    }

    /// The segment of an OUTS (valid right after such an exit).
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn string_segment(&self) -> Result<SegmentRegister, VmcsError> {
        // Table 28-8; the encodings go in the order of the registers.
        let info = self.vmcs.read32(Field32::ExitInstructionInfo)?;
        Ok(SegmentRegister::ALL[((info >> 15) & 7).min(5) as usize])
    }

    /// Whether the guest runs 64-bit code.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn is_64_bit(&self) -> Result<bool, VmcsError> {
        const CS_LONG: u32 = 1 << 13;
        let active =
            self.vmcs.read64(Field64::GuestEfer)? & EferFlags::LONG_MODE_ACTIVE.bits() != 0;
        Ok(active && self.vmcs.read32(Field32::GuestCsAccess)? & CS_LONG != 0)
    }

    /// The width in bits of the guest's code: 16, 32 or 64.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn code_bits(&self) -> Result<u32, VmcsError> {
        const CS_BIG: u32 = 1 << 14;
        if self.is_64_bit()? {
            return Ok(64);
        }
        let big = self.vmcs.read32(Field32::GuestCsAccess)? & CS_BIG != 0;
        Ok(if big { 32 } else { 16 })
    }

    /// The current privilege level.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn privilege_level(&self) -> Result<u8, VmcsError> {
        // SS.DPL is the CPL (section 25.4.1).
        Ok(((self.vmcs.read32(Field32::GuestSsAccess)? >> 5) & 3) as u8)
    }

    /// Decodes a rare exit, right after it.
    ///
    /// # Errors
    ///
    /// [`EntryFailure`] when it was no exit: the processor refused the guest state.
    pub fn rare_exit(&mut self, reason: RareReason) -> Result<RareExit, EntryFailure> {
        if let Some(reason) = reason.entry_failure() {
            return Err(self.refused(Refusal::GuestState(reason)));
        }
        Ok(exit::decode_rare(&self.vmcs, reason)?)
    }

    /// How the guest translates linear addresses now.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Read`].
    pub fn paging(&self) -> Result<Paging, VmcsError> {
        let shown = |value: u64, shadow: u64, mask: u64| (value & !mask) | (shadow & mask);
        let cr0 = self.vmcs.read_natural(FieldNatural::GuestCr0)?;
        let cr4 = self.vmcs.read_natural(FieldNatural::GuestCr4)?;
        Ok(Paging {
            cr0: shown(
                cr0,
                self.vmcs.read_natural(FieldNatural::Cr0Shadow)?,
                CR0_HOST,
            ),
            cr3: self.vmcs.read_natural(FieldNatural::GuestCr3)?,
            cr4: shown(
                cr4,
                self.vmcs.read_natural(FieldNatural::Cr4Shadow)?,
                !CR4_GUEST,
            ),
            efer: self.vmcs.read64(Field64::GuestEfer)?,
        })
    }

    /// MOV to CR0 with this value. `pdptes` reads the four page-directory-pointer entries at a
    /// guest-physical address, for 32-bit PAE paging.
    ///
    /// Returns `false` when the processor would raise #GP(0); nothing has changed then.
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn write_cr0(
        &mut self,
        raw: u64,
        pdptes: impl FnOnce(u64) -> Option<[u64; 4]>,
    ) -> Result<bool, VmcsError> {
        const KNOWN: u64 = Cr0Flags::all().bits();
        let now = self.paging()?;
        let flags = Cr0Flags::from_bits_truncate(raw);
        let paging = flags.contains(Cr0Flags::PAGING);
        let value = raw & KNOWN | Cr0Flags::EXTENSION_TYPE.bits();
        const CS_LONG: u32 = 1 << 13;
        const TSS_16_BUSY: u32 = 3;
        let cs_long = self.is_64_bit()?;
        if raw >> 32 != 0
            || (!paging && (cs_long || now.cr4 & Cr4Flags::PCID.bits() != 0))
            || (paging && !flags.contains(Cr0Flags::PROTECTED_MODE_ENABLE))
            || (flags.contains(Cr0Flags::NOT_WRITE_THROUGH)
                && !flags.contains(Cr0Flags::CACHE_DISABLE))
        {
            return Ok(false);
        }
        let was_paging = now.cr0 & Cr0Flags::PAGING.bits() != 0;
        let mut efer = now.efer;
        if paging && !was_paging && efer & EferFlags::LONG_MODE_ENABLE.bits() != 0 {
            if now.cr4 & Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits() == 0
                || self.vmcs.read32(Field32::GuestCsAccess)? & CS_LONG != 0
                || self.vmcs.read32(Field32::GuestTrAccess)? & 0xf == TSS_16_BUSY
            {
                return Ok(false);
            }
            efer |= EferFlags::LONG_MODE_ACTIVE.bits();
        } else if !paging {
            efer &= !EferFlags::LONG_MODE_ACTIVE.bits();
        }
        let next = Paging {
            cr0: value,
            efer,
            ..now
        };
        if !self.load_pdptes(&now, &next, pdptes)? {
            return Ok(false);
        }
        self.write_efer_field(efer)?;
        let real = (value & !CR0_HOST) | Cr0Flags::NUMERIC_ERROR.bits();
        // SAFETY: guest state only; NE is set as VMX demands, CD and NW are ignored by entry.
        unsafe {
            self.vmcs.write_natural(FieldNatural::GuestCr0, real)?;
            self.vmcs.write_natural(FieldNatural::Cr0Shadow, value)?;
        }
        self.flush()?;
        Ok(true)
    }

    /// MOV to CR4 with this value; otherwise as [`Active::write_cr0`].
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn write_cr4(
        &mut self,
        value: u64,
        pdptes: impl FnOnce(u64) -> Option<[u64; 4]>,
    ) -> Result<bool, VmcsError> {
        let now = self.paging()?;
        let mce = Cr4Flags::MACHINE_CHECK_EXCEPTION.bits();
        let supported = self.cpu.capabilities().cr4_fixed1;
        let long = now.efer & EferFlags::LONG_MODE_ACTIVE.bits() != 0;
        let pae = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits();
        let pcid = Cr4Flags::PCID.bits();
        let pcid_rises = value & !now.cr4 & pcid != 0;
        if value & !(CR4_GUEST | mce) != 0
            || value & !supported != 0
            || (long && value & pae == 0)
            || (pcid_rises && (!long || now.cr3 & 0xfff != 0))
        {
            return Ok(false);
        }
        let next = Paging { cr4: value, ..now };
        if !self.load_pdptes(&now, &next, pdptes)? {
            return Ok(false);
        }
        // SAFETY: guest state only, with the bits that must stay set.
        unsafe {
            self.vmcs
                .write_natural(FieldNatural::GuestCr4, value | CR4_ALWAYS)?;
            self.vmcs.write_natural(FieldNatural::Cr4Shadow, value)?;
        }
        self.flush()?;
        Ok(true)
    }

    /// WRMSR to IA32_EFER with this value; `false` for #GP(0).
    ///
    /// # Errors
    ///
    /// [`VmcsError`].
    pub fn write_efer(&mut self, value: u64) -> Result<bool, VmcsError> {
        const GUEST: u64 = EferFlags::SYSTEM_CALL_EXTENSIONS.bits()
            | EferFlags::LONG_MODE_ENABLE.bits()
            | EferFlags::NO_EXECUTE_ENABLE.bits();
        let now = self.paging()?;
        let active = EferFlags::LONG_MODE_ACTIVE.bits();
        let paging = now.cr0 & Cr0Flags::PAGING.bits() != 0;
        let toggles_lme = (value ^ now.efer) & EferFlags::LONG_MODE_ENABLE.bits() != 0;
        if value & !(GUEST | active) != 0 || (paging && toggles_lme) {
            return Ok(false);
        }
        self.write_efer_field((value & GUEST) | (now.efer & active))?;
        self.flush()?;
        Ok(true)
    }

    /// XSETBV of XCR0 with this value; `false` for #GP(0) (Intel SDM volume 1, section 13.3).
    pub fn write_xcr0(&mut self, value: u64) -> bool {
        const X87: u64 = 1 << 0;
        const SSE: u64 = 1 << 1;
        const AVX: u64 = 1 << 2;
        const MPX: u64 = 0b11 << 3;
        const AVX512: u64 = 0b111 << 5;
        let all_or_none = |mask: u64| value & mask == 0 || value & mask == mask;
        let valid = value & !self.cpu.xcr0 == 0
            && value & X87 != 0
            && (value & AVX == 0 || value & SSE != 0)
            && all_or_none(MPX)
            && all_or_none(AVX512)
            && (value & AVX512 == 0 || value & AVX != 0);
        if valid {
            // SAFETY: a subset of what the processor accepts, with its rules obeyed.
            unsafe { set_xcr0(value) };
        }
        valid
    }

    /// Writes IA32_EFER and the entry control that must agree with its LMA bit.
    fn write_efer_field(&mut self, efer: u64) -> Result<(), VmcsError> {
        let entry = self.vmcs.read32(Field32::EntryControls)?;
        let mut entry = EntryControls::from_bits_retain(entry);
        entry.set(
            EntryControls::IA32E_GUEST,
            efer & EferFlags::LONG_MODE_ACTIVE.bits() != 0,
        );
        // SAFETY: guest state only.
        unsafe {
            self.vmcs.write64(Field64::GuestEfer, efer)?;
            self.vmcs.write32(Field32::EntryControls, entry.bits())
        }
    }

    /// Loads the page-directory-pointer entries where a change of paging demands it (section 4.4.1
    /// of volume 3); `false` for #GP(0).
    fn load_pdptes(
        &mut self,
        now: &Paging,
        next: &Paging,
        pdptes: impl FnOnce(u64) -> Option<[u64; 4]>,
    ) -> Result<bool, VmcsError> {
        let pae = |paging: &Paging| {
            paging.cr0 & Cr0Flags::PAGING.bits() != 0
                && paging.cr4 & Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits() != 0
                && paging.efer & EferFlags::LONG_MODE_ACTIVE.bits() == 0
        };
        if !pae(next) || (pae(now) && now == next) {
            return Ok(true);
        }
        const PRESENT: u64 = 1;
        const RESERVED_LOW: u64 = 0x1e6;
        let reserved = RESERVED_LOW | !((1 << self.cpu.capabilities().physical_bits) - 1);
        let Some(entries) = pdptes(next.cr3 & 0xffff_ffe0) else {
            return Ok(false);
        };
        if entries
            .iter()
            .any(|entry| entry & PRESENT != 0 && entry & reserved != 0)
        {
            return Ok(false);
        }
        let fields = [
            Field64::GuestPdpte0,
            Field64::GuestPdpte1,
            Field64::GuestPdpte2,
            Field64::GuestPdpte3,
        ];
        for (field, entry) in fields.into_iter().zip(entries) {
            // SAFETY: guest state only.
            unsafe { self.vmcs.write64(field, entry)? };
        }
        Ok(true)
    }

    /// Drops the guest's cached translations, linear and guest-physical.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Invalidate`].
    pub fn flush(&self) -> Result<(), VmcsError> {
        let ept_pointer = self.vmcs.read64(Field64::EptPointer)?;
        let vpid = self.cpu.capabilities().invvpid.then_some(self.vcpu.vpid());
        setup::invalidate(ept_pointer, vpid)
    }
}

//! A virtual processor: its VMCS, its registers, and running it.

use crate::active::Active;
use crate::bitmaps::{IoBitmaps, MsrBitmap};
use crate::controls::{PrimaryControls, SecondaryControls};
use crate::cpu::VmxCpu;
use crate::dump::VmcsDump;
use crate::enter::EnterContext;
use crate::ept::Ept;
use crate::memory::FrameSource;
use crate::msr::Msr;
use crate::residency::Resident;
use crate::saved::{RestoreError, VcpuStateV1};
use crate::setup;
use crate::state::StartState;
use crate::virtual_apic::VirtualApic;
use crate::vmcs::{Current, Region, VmcsError};
use alloc::boxed::Box;
use core::fmt;

/// Why a vCPU could not be made or set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuError {
    /// No memory for the VMCS or the bitmaps.
    OutOfMemory,
    /// A VMX instruction failed.
    Vmcs(VmcsError),
}

impl fmt::Display for VcpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => write!(f, "no memory for a virtual processor"),
            Self::Vmcs(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for VcpuError {}

impl From<VmcsError> for VcpuError {
    fn from(error: VmcsError) -> Self {
        Self::Vmcs(error)
    }
}

/// Why an entry did not lead to an exit.
#[derive(Debug)]
pub enum EntryFailure {
    /// The processor refused the entry: why, and the VMCS.
    Refused(Box<(Refusal, VmcsDump)>),
    /// A field could not be read or written.
    Vmcs(VmcsError),
}

/// What the processor refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// VMLAUNCH or VMRESUME failed on the controls or the host state; the VM-instruction error.
    Instruction(u32),
    /// The guest state; the exit reason.
    GuestState(u32),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instruction(error) => crate::dump::instruction_error(*error),
            Self::GuestState(reason) => crate::dump::entry_failure(*reason),
        })
    }
}

impl EntryFailure {
    /// Whether the hardware failed, not the guest.
    #[must_use]
    pub fn is_machine_check(&self) -> bool {
        const MACHINE_CHECK_DURING_ENTRY: u32 = 41;
        matches!(self, Self::Refused(what) if what.0 == Refusal::GuestState(MACHINE_CHECK_DURING_ENTRY))
    }
}

impl From<VmcsError> for EntryFailure {
    fn from(error: VmcsError) -> Self {
        Self::Vmcs(error)
    }
}

impl fmt::Display for EntryFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(what) => write!(f, "VM entry refused: {}\n{}", what.0, what.1),
            Self::Vmcs(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for EntryFailure {}

/// MSRs that live in the VMCS guest state or in the resident state, so that the guest may use them
/// without an exit.
const OWN_MSRS: [Msr; 11] = [
    Msr::SysenterCs,
    Msr::SysenterEsp,
    Msr::SysenterEip,
    Msr::Pat,
    Msr::Star,
    Msr::Lstar,
    Msr::Cstar,
    Msr::Fmask,
    Msr::FsBase,
    Msr::GsBase,
    Msr::KernelGsBase,
];

/// A virtual processor. It runs on the processor it was made on.
pub struct Vcpu {
    region: Region,
    pub(crate) context: Box<EnterContext>,
    pub(crate) resident: Resident,
    io: IoBitmaps,
    pub(crate) msrs: MsrBitmap,
    /// For guests with local APICs, where the processor can keep them.
    pub(crate) apic: Option<VirtualApic>,
    vpid: u16,
    /// 1 once the VMCS is launched, as [`crate::enter::enter`] takes it.
    pub(crate) launched: u32,
    pub(crate) primary: PrimaryControls,
    _not_send: core::marker::PhantomData<*mut ()>,
}

impl Vcpu {
    /// A virtual processor that is about to start as `start` says. `vpid` must be unique on this
    /// processor and not zero. `tsc_offset` is added to what RDTSC reads.
    ///
    /// # Errors
    ///
    /// [`VcpuError`]; frames that were taken are not given back.
    ///
    /// # Safety
    ///
    /// `ept` must live, unmoved tables included, as long as the vCPU does.
    pub unsafe fn new(
        cpu: &mut VmxCpu,
        ept: &Ept,
        vpid: u16,
        tsc_offset: u64,
        start: &StartState,
        frames: &mut impl FrameSource,
    ) -> Result<Self, VcpuError> {
        let frame = frames.frame().ok_or(VcpuError::OutOfMemory)?;
        let caps = *cpu.capabilities();
        let mut vcpu = Self {
            region: Region::new(frame, caps.revision),
            context: Box::default(),
            resident: Resident::new(
                &cpu.area,
                caps.secondary.contains(SecondaryControls::RDTSCP),
            ),
            io: IoBitmaps::all_exit(frames).ok_or(VcpuError::OutOfMemory)?,
            msrs: MsrBitmap::all_exit(frames).ok_or(VcpuError::OutOfMemory)?,
            apic: None,
            vpid,
            launched: 0,
            primary: caps.primary,
            _not_send: core::marker::PhantomData,
        };
        for msr in OWN_MSRS {
            vcpu.msrs.pass_through(msr as u32);
        }
        if caps.secondary.contains(SecondaryControls::RDTSCP) {
            vcpu.msrs.pass_through(Msr::TscAux as u32);
        }
        // SAFETY: passed on to the caller.
        unsafe { vcpu.reset(cpu, ept, tsc_offset, start)? };
        Ok(vcpu)
    }

    /// Makes [`crate::Active::lend_apic`] work where the processor has APIC virtualization. A vCPU whose guest has no
    /// local APIC needs none of it.
    ///
    /// # Errors
    ///
    /// [`VcpuError::OutOfMemory`].
    pub fn provide_apic(
        &mut self,
        cpu: &VmxCpu,
        frames: &mut impl FrameSource,
    ) -> Result<(), VcpuError> {
        if cpu.capabilities().apic && self.apic.is_none() {
            let frame = frames.frame().ok_or(VcpuError::OutOfMemory)?;
            self.apic = Some(VirtualApic::new(frame));
        }
        Ok(())
    }

    /// Puts the vCPU into the state of [`Vcpu::new`] again. It need not be the active one, nor does it
    /// become that.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Vmcs`] when the VMCS cannot be written.
    ///
    /// # Safety
    ///
    /// As [`Vcpu::new`].
    pub unsafe fn reset(
        &mut self,
        cpu: &mut VmxCpu,
        ept: &Ept,
        tsc_offset: u64,
        start: &StartState,
    ) -> Result<(), VcpuError> {
        // SAFETY: passed on to the caller.
        unsafe { self.set(cpu, ept, tsc_offset, &VcpuStateV1::at_start(start))? };
        Ok(())
    }

    /// Puts the vCPU into a saved state, which may come from anywhere: it is checked. It need not be the
    /// active one, nor does it become that. `tsc_offset` is as in [`Vcpu::new`].
    ///
    /// # Errors
    ///
    /// [`RestoreError`] says what is wrong with the state, or what this processor lacks for it.
    ///
    /// # Safety
    ///
    /// As [`Vcpu::new`].
    pub unsafe fn restore(
        &mut self,
        cpu: &mut VmxCpu,
        ept: &Ept,
        tsc_offset: u64,
        state: &VcpuStateV1,
    ) -> Result<(), RestoreError> {
        state.check(&cpu.limits())?;
        // SAFETY: passed on to the caller.
        unsafe { self.set(cpu, ept, tsc_offset, state)? };
        Ok(())
    }

    /// Writes the whole VMCS and the resident state anew.
    ///
    /// # Safety
    ///
    /// As [`Vcpu::new`]; the state must be one that this processor can take.
    unsafe fn set(
        &mut self,
        cpu: &mut VmxCpu,
        ept: &Ept,
        tsc_offset: u64,
        state: &VcpuStateV1,
    ) -> Result<(), VmcsError> {
        if cpu.resident == Some(self.region.physical()) {
            cpu.resident = None;
        }
        self.context.gprs = state.gprs;
        self.resident.set(state);
        self.primary = cpu.capabilities().primary;
        if let Some(apic) = &mut self.apic {
            // The controls are written anew, without those for it.
            self.msrs.intercept_apic(true);
            apic.on = false;
        }
        self.launched = 0;
        cpu.current = None;
        // SAFETY: a `VmxCpu` exists, so this processor is in VMX operation; a vCPU never leaves the
        // processor it was made on, so its VMCS is active nowhere else.
        unsafe {
            self.region.clear()?;
            self.region.load()?;
        }
        cpu.current = Some(self.region.physical());
        // SAFETY: loaded just now.
        let vmcs = unsafe { Current::assume() };
        // SAFETY: the bitmaps and the context are owned by this vCPU and stay where they are; the
        // page tables outlive it by the contract of `new`.
        unsafe {
            setup::write_controls(
                &vmcs,
                cpu.capabilities(),
                &setup::Tables {
                    ept_pointer: ept.pointer(),
                    vpid: self.vpid,
                    tsc_offset,
                    io: self.io.addresses(),
                    msrs: self.msrs.address(),
                },
            )?;
            setup::write_host_state(&vmcs, &cpu.host_fields(), self.context.exit_rsp())?;
            setup::write_guest_state(&vmcs, cpu.capabilities(), state)?;
        }
        setup::invalidate(
            ept.pointer(),
            cpu.capabilities().invvpid.then_some(self.vpid),
        )
    }

    /// Makes this vCPU the one that the processor runs, and gives access to it.
    ///
    /// # Errors
    ///
    /// [`VmcsError::Occupied`] while another vCPU is in the processor (see [`Vcpu::park`]), or
    /// [`VmcsError::Load`].
    pub fn activate<'a>(&'a mut self, cpu: &'a mut VmxCpu) -> Result<Active<'a>, VmcsError> {
        let address = self.region.physical();
        if cpu.current != Some(address) {
            // SAFETY: in VMX operation, and the VMCS is this processor's own (see `reset`).
            unsafe { self.region.load()? };
            cpu.current = Some(address);
        }
        match cpu.resident {
            Some(other) if other != address => return Err(VmcsError::Occupied),
            Some(_) => {}
            None => {
                // SAFETY: in VMX root operation on this processor, whose XCR0 is given.
                unsafe { self.resident.load(cpu.xcr0, cpu.capabilities().barriers) };
                cpu.resident = Some(address);
            }
        }
        // SAFETY: current since just now, and it stays so while `Active` borrows the `VmxCpu`,
        // without which no other VMCS can be made current.
        let vmcs = unsafe { Current::assume() };
        Ok(Active::new(self, cpu, vmcs))
    }

    pub(crate) fn vpid(&self) -> u16 {
        self.vpid
    }

    /// Takes this vCPU's state out of the processor, so that another one can be activated.
    pub fn park(&mut self, cpu: &mut VmxCpu) {
        if cpu.resident == Some(self.region.physical()) {
            // SAFETY: the state in the processor is this vCPU's.
            unsafe { self.resident.store(cpu.xcr0) };
            cpu.resident = None;
        }
    }
}

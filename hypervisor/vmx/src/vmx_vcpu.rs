//! A virtual processor: its VMCS, its registers, and running it.

use crate::active::VmxActive;
use crate::bitmaps::{IoBitmaps, MsrBitmap};
use crate::controls::{PrimaryControls, SecondaryControls};
use crate::cpu::VmxCpu;
use crate::enter::EnterContext;
use crate::residency::Resident;
use crate::setup;
use crate::virtual_apic::VirtualApic;
use crate::vmcs::{Current, Region};
use crate::write_log::WriteLog;
use alloc::boxed::Box;
use core::fmt;
use vcpu::msr::{self, Msr};
use vcpu::{
    FrameSource, GuestView, NestedTables, RestoreError, ShellError, StartState, Vcpu, VcpuError,
    VcpuStateV1,
};

/// What the processor refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// VMLAUNCH or VMRESUME failed on the controls or the host state; the VM-instruction error.
    Instruction(u32),
    /// The guest state; the exit reason.
    GuestState(u32),
}

impl Refusal {
    /// Whether the hardware failed, not the guest.
    pub(crate) fn is_machine_check(self) -> bool {
        const MACHINE_CHECK_DURING_ENTRY: u32 = 41;
        self == Self::GuestState(MACHINE_CHECK_DURING_ENTRY)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instruction(error) => crate::dump::instruction_error(*error),
            Self::GuestState(reason) => crate::dump::entry_failure(*reason),
        })
    }
}

/// A virtual processor. It runs on the processor it was made on.
pub struct VmxVcpu {
    region: Region,
    pub(crate) context: Box<EnterContext>,
    pub(crate) resident: Resident,
    io: IoBitmaps,
    pub(crate) msrs: MsrBitmap,
    /// For guests with local APICs, where the processor can keep them.
    pub(crate) apic: Option<VirtualApic>,
    /// Where the processor logs the pages that the guest writes, if it can.
    pub(crate) log: Option<WriteLog>,
    vpid: u16,
    /// 1 once the VMCS is launched, as [`crate::enter::enter`] takes it.
    pub(crate) launched: u32,
    pub(crate) primary: PrimaryControls,
    _not_send: core::marker::PhantomData<*mut ()>,
}

impl Vcpu for VmxVcpu {
    type Shell = VmxCpu;
    type Active<'a> = VmxActive<'a>;

    unsafe fn new(
        cpu: &mut VmxCpu,
        tables: &NestedTables,
        tag: u16,
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
            log: None,
            vpid: tag,
            launched: 0,
            primary: caps.primary,
            _not_send: core::marker::PhantomData,
        };
        if caps.tables.write_log {
            let frame = frames.frame().ok_or(VcpuError::OutOfMemory)?;
            vcpu.log = Some(WriteLog::new(frame));
        }
        for msr in msr::GUEST_OWNED {
            vcpu.msrs.pass_through(msr as u32);
        }
        if caps.secondary.contains(SecondaryControls::RDTSCP) {
            vcpu.msrs.pass_through(Msr::TscAux as u32);
        }
        // SAFETY: passed on to the caller.
        unsafe { vcpu.reset(cpu, tables, tsc_offset, start)? };
        Ok(vcpu)
    }

    fn provide_apic(
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

    unsafe fn reset(
        &mut self,
        cpu: &mut VmxCpu,
        tables: &NestedTables,
        tsc_offset: u64,
        start: &StartState,
    ) -> Result<(), VcpuError> {
        // SAFETY: passed on to the caller.
        unsafe { self.set(cpu, tables, tsc_offset, &VcpuStateV1::at_start(start))? };
        Ok(())
    }

    unsafe fn restore(
        &mut self,
        cpu: &mut VmxCpu,
        tables: &NestedTables,
        tsc_offset: u64,
        state: &VcpuStateV1,
    ) -> Result<(), RestoreError> {
        state.check(&cpu.limits())?;
        // SAFETY: passed on to the caller.
        unsafe { self.set(cpu, tables, tsc_offset, state)? };
        Ok(())
    }

    fn activate<'a>(
        &'a mut self,
        cpu: &'a mut VmxCpu,
        memory: &'a dyn GuestView,
    ) -> Result<VmxActive<'a>, ShellError> {
        let address = self.region.physical();
        if cpu.current != Some(address) {
            // SAFETY: in VMX operation, and the VMCS is this processor's own (see `reset`).
            unsafe { self.region.load()? };
            cpu.current = Some(address);
        }
        match cpu.resident {
            Some(other) if other != address => return Err(ShellError::Occupied),
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
        Ok(VmxActive::new(self, cpu, memory, vmcs))
    }

    fn park(&mut self, cpu: &mut VmxCpu) {
        if cpu.resident == Some(self.region.physical()) {
            // SAFETY: the state in the processor is this vCPU's.
            unsafe { self.resident.store(cpu.xcr0) };
            cpu.resident = None;
        }
    }
}

impl VmxVcpu {
    /// Writes the whole VMCS and the resident state anew.
    ///
    /// # Safety
    ///
    /// As [`Vcpu::new`]; the state must be one that this processor can take.
    unsafe fn set(
        &mut self,
        cpu: &mut VmxCpu,
        tables: &NestedTables,
        tsc_offset: u64,
        state: &VcpuStateV1,
    ) -> Result<(), ShellError> {
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
        if let Some(log) = &mut self.log {
            log.on = false;
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
                    ept_pointer: tables.pointer(),
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
            tables.pointer(),
            cpu.capabilities().invvpid.then_some(self.vpid),
        )
    }

    /// The secondary controls as they are to be now.
    pub(crate) fn secondary(&self, cpu: &VmxCpu) -> SecondaryControls {
        let mut controls = cpu.capabilities().secondary;
        let apic = self.apic.as_ref().is_some_and(|apic| apic.on);
        controls.set(SecondaryControls::APIC_VIRTUALIZATION, apic);
        let log = self.log.as_ref().is_some_and(|log| log.on);
        controls.set(SecondaryControls::PML, log);
        controls
    }

    pub(crate) fn vpid(&self) -> u16 {
        self.vpid
    }
}

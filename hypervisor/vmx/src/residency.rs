//! The processor state that VMX does not switch: some MSRs, DR6 and CR2, beside what neither extension
//! switches ([`vcpu::Resident`]).
//!
//! The hypervisor itself uses none of it, so it stays in the processor across exits and is moved
//! only when another vCPU takes the processor: the common exit pays nothing for it.

use core::arch::asm;
use vcpu::msr::{self, Msr};
use vcpu::{AreaLayout, Barriers, VcpuStateV1};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

/// What a vCPU leaves in the processor between exits.
#[derive(Debug)]
pub(crate) struct Resident {
    star: u64,
    lstar: u64,
    cstar: u64,
    fmask: u64,
    kernel_gs_base: u64,
    dr6: u64,
    cr2: u64,
    common: vcpu::Resident,
}

impl Resident {
    /// The state after a reset.
    pub(crate) fn new(area: &AreaLayout, has_tsc_aux: bool) -> Self {
        let mut new = Self {
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            dr6: 0,
            cr2: 0,
            common: vcpu::Resident::new(area, has_tsc_aux),
        };
        new.set(&VcpuStateV1::at_reset());
        new
    }

    /// Takes its part of a state that this processor can take.
    pub(crate) fn set(&mut self, state: &VcpuStateV1) {
        self.star = state.star;
        self.lstar = state.lstar;
        self.cstar = state.cstar;
        self.fmask = state.fmask;
        self.kernel_gs_base = state.kernel_gs_base;
        self.dr6 = state.dr6;
        self.cr2 = state.cr2;
        self.common.set(state);
    }

    /// Puts its part, which [`Resident::store`] found, into a state.
    pub(crate) fn fill(&self, state: &mut VcpuStateV1) {
        state.star = self.star;
        state.lstar = self.lstar;
        state.cstar = self.cstar;
        state.fmask = self.fmask;
        state.kernel_gs_base = self.kernel_gs_base;
        state.dr6 = self.dr6;
        state.cr2 = self.cr2;
        self.common.fill(state);
    }

    /// Puts this state into the processor.
    ///
    /// # Safety
    ///
    /// In VMX root operation; otherwise as [`vcpu::Resident::load`].
    pub(crate) unsafe fn load(&self, all_xcr0: u64, barriers: Barriers) {
        // SAFETY: the MSRs exist on every 64-bit processor, hold what a guest put there through the
        // processor's own checks, and mean nothing to the hypervisor, which uses neither SYSCALL nor
        // SWAPGS, nor these registers.
        unsafe {
            self.common.load(all_xcr0, barriers);
            msr::write(Msr::Star, self.star);
            msr::write(Msr::Lstar, self.lstar);
            msr::write(Msr::Cstar, self.cstar);
            msr::write(Msr::Fmask, self.fmask);
            msr::write(Msr::KernelGsBase, self.kernel_gs_base);
        }
        set_dr6(self.dr6);
        set_cr2(self.cr2);
    }

    /// Takes this state out of the processor.
    ///
    /// # Safety
    ///
    /// As [`Resident::load`], right after the vCPU ran.
    pub(crate) unsafe fn store(&mut self, all_xcr0: u64) {
        // SAFETY: passed on to the caller.
        unsafe { self.common.store(all_xcr0) };
        self.read();
    }

    /// As [`Resident::store`], for a vCPU that runs on.
    ///
    /// # Safety
    ///
    /// As [`Resident::store`].
    pub(crate) unsafe fn copy(&mut self, all_xcr0: u64) {
        // SAFETY: passed on to the caller.
        unsafe { self.common.copy(all_xcr0) };
        self.read();
    }

    fn read(&mut self) {
        // SAFETY: the MSRs exist on every 64-bit processor; reading them has no side effect.
        unsafe {
            self.star = msr::read(Msr::Star);
            self.lstar = msr::read(Msr::Lstar);
            self.cstar = msr::read(Msr::Cstar);
            self.fmask = msr::read(Msr::Fmask);
            self.kernel_gs_base = msr::read(Msr::KernelGsBase);
        }
        self.dr6 = dr6();
        self.cr2 = cr2();
    }
}

/// Sets XCR0 for the resident vCPU (its XSETBV).
///
/// # Safety
///
/// `value` must be one that XSETBV accepts on this processor.
pub(crate) unsafe fn set_xcr0(value: u64) {
    // SAFETY: passed on to the caller; the hypervisor keeps no state in the components.
    unsafe { XCr0::write(XCr0Flags::from_bits_retain(value)) }
}

/// XCR0 of the resident vCPU.
pub(crate) fn xcr0() -> u64 {
    XCr0::read_raw()
}

/// DR6 of the resident vCPU.
pub(crate) fn dr6() -> u64 {
    let value;
    // SAFETY: a read without side effects at privilege level 0.
    unsafe { asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets DR6 of the resident vCPU. The upper half of `value` must be zero.
pub(crate) fn set_dr6(value: u64) {
    // SAFETY: DR6 only reports; the hypervisor uses no debug registers.
    unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// Sets CR2 of the resident vCPU.
pub(crate) fn set_cr2(address: u64) {
    // SAFETY: CR2 only reports; the hypervisor's own page faults end in a panic that sets it anew.
    unsafe { asm!("mov cr2, {}", in(reg) address, options(nomem, nostack, preserves_flags)) };
}

/// CR2 of the resident vCPU.
fn cr2() -> u64 {
    let value;
    // SAFETY: a read without side effects at privilege level 0.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

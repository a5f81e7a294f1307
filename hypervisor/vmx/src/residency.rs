//! The processor state that VMX does not switch: some MSRs, the debug and x87/SSE/AVX registers.
//!
//! The hypervisor itself uses none of it, so it stays in the processor across exits and is moved
//! only when another vCPU takes the processor: the common exit pays nothing for it.

use crate::caps::Barriers;
use crate::msr::{self, Msr};
use crate::saved::VcpuStateV1;
use crate::xsave::{Area, AreaLayout};
use core::arch::asm;
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

/// What a vCPU leaves in the processor between exits.
#[derive(Debug)]
pub(crate) struct Resident {
    star: u64,
    lstar: u64,
    cstar: u64,
    fmask: u64,
    kernel_gs_base: u64,
    tsc_aux: u64,
    debug: [u64; 5],
    cr2: u64,
    pub(crate) xcr0: u64,
    extended: Area,
    has_tsc_aux: bool,
}

impl Resident {
    /// The state after a reset.
    pub(crate) fn new(area: &AreaLayout, has_tsc_aux: bool) -> Self {
        let state = VcpuStateV1::at_reset();
        let mut new = Self {
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            tsc_aux: 0,
            debug: [0; 5],
            cr2: 0,
            xcr0: 0,
            extended: Area::new(area),
            has_tsc_aux,
        };
        new.set(&state);
        new
    }

    /// Takes its part of a state that this processor can take.
    pub(crate) fn set(&mut self, state: &VcpuStateV1) {
        let [dr0, dr1, dr2, dr3] = state.breakpoints;
        self.star = state.star;
        self.lstar = state.lstar;
        self.cstar = state.cstar;
        self.fmask = state.fmask;
        self.kernel_gs_base = state.kernel_gs_base;
        self.tsc_aux = state.tsc_aux;
        self.debug = [dr0, dr1, dr2, dr3, state.dr6];
        self.cr2 = state.cr2;
        self.xcr0 = state.xcr0;
        self.extended.set(&state.extended);
    }

    /// A state whose part in the processor is what [`Resident::store`] found, the rest as after a reset.
    pub(crate) fn state(&self) -> VcpuStateV1 {
        let [dr0, dr1, dr2, dr3, dr6] = self.debug;
        VcpuStateV1 {
            star: self.star,
            lstar: self.lstar,
            cstar: self.cstar,
            fmask: self.fmask,
            kernel_gs_base: self.kernel_gs_base,
            tsc_aux: self.tsc_aux,
            breakpoints: [dr0, dr1, dr2, dr3],
            dr6,
            cr2: self.cr2,
            xcr0: self.xcr0,
            extended: self.extended.state(),
            ..VcpuStateV1::at_reset()
        }
    }

    /// Puts this state into the processor.
    ///
    /// # Safety
    ///
    /// In VMX root operation, at privilege level 0, on the processor that is about to run the vCPU;
    /// `all_xcr0` must be a value that the processor accepts and the areas were sized for.
    pub(crate) unsafe fn load(&self, all_xcr0: u64, barriers: Barriers) {
        forget_the_last(barriers);
        // SAFETY: the MSRs exist on every 64-bit processor (TSC_AUX as probed), hold what a guest
        // put there through the processor's own checks, and mean nothing to the hypervisor, which
        // uses neither SYSCALL nor SWAPGS, nor debug, nor FPU registers.
        unsafe {
            msr::write(Msr::Star, self.star);
            msr::write(Msr::Lstar, self.lstar);
            msr::write(Msr::Cstar, self.cstar);
            msr::write(Msr::Fmask, self.fmask);
            msr::write(Msr::KernelGsBase, self.kernel_gs_base);
            if self.has_tsc_aux {
                msr::write(Msr::TscAux, self.tsc_aux);
            }
            XCr0::write(XCr0Flags::from_bits_retain(all_xcr0));
            self.extended.restore();
            XCr0::write(XCr0Flags::from_bits_retain(self.xcr0));
            let [dr0, dr1, dr2, dr3, dr6] = self.debug;
            asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", "mov dr6, {}", "mov cr2, {}",
                in(reg) dr0, in(reg) dr1, in(reg) dr2, in(reg) dr3, in(reg) dr6, in(reg) self.cr2,
                options(nostack, preserves_flags));
        }
    }

    /// Takes this state out of the processor.
    ///
    /// # Safety
    ///
    /// As [`Resident::load`], right after the vCPU ran.
    pub(crate) unsafe fn store(&mut self, all_xcr0: u64) {
        // SAFETY: as in `load`; reading these registers has no side effect.
        unsafe {
            self.star = msr::read(Msr::Star);
            self.lstar = msr::read(Msr::Lstar);
            self.cstar = msr::read(Msr::Cstar);
            self.fmask = msr::read(Msr::Fmask);
            self.kernel_gs_base = msr::read(Msr::KernelGsBase);
            if self.has_tsc_aux {
                self.tsc_aux = msr::read(Msr::TscAux);
            }
            self.xcr0 = XCr0::read_raw();
            XCr0::write(XCr0Flags::from_bits_retain(all_xcr0));
            self.extended.save();
            let (dr0, dr1, dr2, dr3, dr6): (u64, u64, u64, u64, u64);
            asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", "mov {}, dr6", "mov {}, cr2",
                out(reg) dr0, out(reg) dr1, out(reg) dr2, out(reg) dr3, out(reg) dr6, out(reg) self.cr2,
                options(nomem, nostack, preserves_flags));
            self.debug = [dr0, dr1, dr2, dr3, dr6];
        }
    }
}

/// Removes what the vCPU before left in predictors, cache and buffers: the next may be another
/// guest's, which could read it (Spectre variant 2, L1TF, MDS).
fn forget_the_last(barriers: Barriers) {
    const COMMAND: u64 = 1;
    // SAFETY: the commands exist where CPUID says so, and change nothing that code can see but time.
    // VERW with the null selector only clears ZF.
    unsafe {
        if barriers.branch_predictors {
            msr::write(Msr::PredCmd, COMMAND);
        }
        if barriers.l1_data {
            msr::write(Msr::FlushCmd, COMMAND);
        }
        if barriers.buffers {
            let selector = 0u16;
            asm!("verw word ptr [{}]", in(reg) &raw const selector, options(nostack));
        }
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

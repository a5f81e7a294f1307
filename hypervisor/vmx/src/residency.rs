//! The processor state that VMX does not switch: some MSRs, the debug and x87/SSE/AVX registers.
//!
//! The hypervisor itself uses none of it, so it stays in the processor across exits and is moved
//! only when another vCPU takes the processor: the common exit pays nothing for it.

use crate::caps::Barriers;
use crate::msr::{self, Msr};
use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use core::arch::asm;
use core::ptr::NonNull;
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

/// Alignment of an XSAVE area (Intel SDM volume 1, section 13.4).
const XSAVE_ALIGN: usize = 64;
/// Legacy region and header: the least an XSAVE area can be.
const XSAVE_MIN: usize = 576;

/// An XSAVE area in standard format.
#[derive(Debug)]
pub(crate) struct Extended {
    area: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the area is plain memory owned by this value.
unsafe impl Send for Extended {}

impl Extended {
    fn zeroed(size: usize) -> Self {
        let size = size.max(XSAVE_MIN).next_multiple_of(XSAVE_ALIGN);
        let Ok(layout) = Layout::from_size_align(size, XSAVE_ALIGN) else {
            unreachable!("the processor reports an XSAVE area of {size} bytes")
        };
        // SAFETY: the layout's size is not zero.
        let Some(area) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        Self { area, layout }
    }

    /// The initial configuration: with an all-zero XSTATE_BV, XRSTOR puts each component into its
    /// initial state; MXCSR is taken from the area and must hold its reset value.
    pub(crate) fn capture_initial(size: usize) -> Self {
        const MXCSR_OFFSET: usize = 24;
        const MXCSR_RESET: u32 = 0x1f80;
        let new = Self::zeroed(size);
        // SAFETY: the area is at least 576 bytes and ours.
        unsafe { new.area.add(MXCSR_OFFSET).cast::<u32>().write(MXCSR_RESET) };
        new
    }

    /// A copy with the same layout.
    pub(crate) fn duplicate(&self) -> Self {
        let new = Self::zeroed(self.layout.size());
        // SAFETY: both areas have the layout's size and do not overlap.
        unsafe {
            new.area
                .copy_from_nonoverlapping(self.area, self.layout.size())
        };
        new
    }

    /// XSAVE of every component enabled in XCR0.
    ///
    /// # Safety
    ///
    /// CR4.OSXSAVE must be set, and the area be as large as the components in XCR0 need.
    unsafe fn save(&mut self) {
        // SAFETY: by contract the area is large enough; it is 64-byte aligned.
        unsafe {
            asm!("xsave64 [{area}]", area = in(reg) self.area.as_ptr(), in("eax") !0u32, in("edx") !0u32,
                options(nostack, preserves_flags));
        }
    }

    /// XRSTOR of every component enabled in XCR0.
    ///
    /// # Safety
    ///
    /// As [`Extended::save`]; the hypervisor's code must not use the registers that change.
    unsafe fn restore(&self) {
        // SAFETY: the area holds what `save` or `capture_initial` put there, so its header is valid.
        unsafe {
            asm!("xrstor64 [{area}]", area = in(reg) self.area.as_ptr(), in("eax") !0u32, in("edx") !0u32,
                options(nostack, preserves_flags));
        }
    }
}

impl Drop for Extended {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout and not freed before.
        unsafe { dealloc(self.area.as_ptr(), self.layout) }
    }
}

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
    extended: Extended,
    has_tsc_aux: bool,
}

impl Resident {
    /// The state after a processor reset (Intel SDM volume 3, table 10-1).
    pub(crate) fn at_reset(fresh: &Extended, has_tsc_aux: bool) -> Self {
        const DR6_RESET: u64 = 0xffff_0ff0;
        Self {
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            tsc_aux: 0,
            debug: [0, 0, 0, 0, DR6_RESET],
            cr2: 0,
            xcr0: 1,
            extended: fresh.duplicate(),
            has_tsc_aux,
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

/// Sets CR2 of the resident vCPU.
pub(crate) fn set_cr2(address: u64) {
    // SAFETY: CR2 only reports; the hypervisor's own page faults end in a panic that sets it anew.
    unsafe { asm!("mov cr2, {}", in(reg) address, options(nomem, nostack, preserves_flags)) };
}

//! The processor state that neither extension switches: XCR0, the user state behind it, the breakpoints and
//! IA32_TSC_AUX.
//!
//! The hypervisor itself uses none of it, so it stays in the processor across exits and is moved
//! only when another vCPU takes the processor: the common exit pays nothing for it.

use crate::msr::{self, Msr};
use crate::saved::VcpuStateV1;
use crate::xsave::{Area, AreaLayout};
use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

/// What a vCPU leaves in the processor between exits, whichever extension runs it.
#[derive(Debug)]
pub struct Resident {
    tsc_aux: u64,
    breakpoints: [u64; 4],
    xcr0: u64,
    extended: Area,
    has_tsc_aux: bool,
}

impl Resident {
    /// The state after a reset.
    #[must_use]
    pub fn new(area: &AreaLayout, has_tsc_aux: bool) -> Self {
        let mut new = Self {
            tsc_aux: 0,
            breakpoints: [0; 4],
            xcr0: 0,
            extended: Area::new(area),
            has_tsc_aux,
        };
        new.set(&VcpuStateV1::at_reset());
        new
    }

    /// Takes its part of a state that this processor can take.
    pub fn set(&mut self, state: &VcpuStateV1) {
        self.tsc_aux = state.tsc_aux;
        self.breakpoints = state.breakpoints;
        self.xcr0 = state.xcr0;
        self.extended.set(&state.extended);
    }

    /// Puts its part, which [`Resident::store`] found, into a state.
    pub fn fill(&self, state: &mut VcpuStateV1) {
        state.tsc_aux = self.tsc_aux;
        state.breakpoints = self.breakpoints;
        state.xcr0 = self.xcr0;
        state.extended = self.extended.state();
    }

    /// Puts this state into the processor, after removing the traces of the vCPU before.
    ///
    /// # Safety
    ///
    /// In the host's context, at privilege level 0, on the processor that is about to run the vCPU;
    /// `all_xcr0` must be a value that the processor accepts and the areas were sized for.
    pub unsafe fn load(&self, all_xcr0: u64, barriers: Barriers) {
        barriers.raise();
        // SAFETY: IA32_TSC_AUX exists as probed; all this holds what a guest put there through the processor's own
        // checks, and means nothing to the hypervisor, which uses neither debug nor FPU registers.
        unsafe {
            if self.has_tsc_aux {
                msr::write(Msr::TscAux, self.tsc_aux);
            }
            XCr0::write(XCr0Flags::from_bits_retain(all_xcr0));
            self.extended.restore();
            XCr0::write(XCr0Flags::from_bits_retain(self.xcr0));
            let [dr0, dr1, dr2, dr3] = self.breakpoints;
            asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
                in(reg) dr0, in(reg) dr1, in(reg) dr2, in(reg) dr3,
                options(nostack, preserves_flags));
        }
    }

    /// Takes this state out of the processor.
    ///
    /// # Safety
    ///
    /// As [`Resident::load`], right after the vCPU ran.
    pub unsafe fn store(&mut self, all_xcr0: u64) {
        // SAFETY: as in `load`; reading these registers has no side effect.
        unsafe {
            if self.has_tsc_aux {
                self.tsc_aux = msr::read(Msr::TscAux);
            }
            self.xcr0 = XCr0::read_raw();
            XCr0::write(XCr0Flags::from_bits_retain(all_xcr0));
            self.extended.save();
            let (dr0, dr1, dr2, dr3): (u64, u64, u64, u64);
            asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
                out(reg) dr0, out(reg) dr1, out(reg) dr2, out(reg) dr3,
                options(nomem, nostack, preserves_flags));
            self.breakpoints = [dr0, dr1, dr2, dr3];
        }
    }

    /// As [`Resident::store`], for a vCPU that runs on: its XCR0 stays in force.
    ///
    /// # Safety
    ///
    /// As [`Resident::store`].
    pub unsafe fn copy(&mut self, all_xcr0: u64) {
        // SAFETY: passed on to the caller; the value put back is the vCPU's own.
        unsafe {
            self.store(all_xcr0);
            XCr0::write(XCr0Flags::from_bits_retain(self.xcr0));
        }
    }
}

/// What keeps one guest's traces in the processor from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barriers {
    /// IA32_PRED_CMD: indirect branch predictors can be flushed.
    branch_predictors: bool,
    /// IA32_FLUSH_CMD: the first-level data cache can be flushed.
    l1_data: bool,
    /// VERW overwrites the processor's buffers.
    buffers: bool,
}

impl Barriers {
    /// What this processor has (CPUID leaf 7, EDX; on AMD's, leaves 0x8000_0008, EBX, and 0x8000_0021, EAX).
    #[must_use]
    pub fn probe() -> Self {
        let features = if __cpuid(0).eax < 7 {
            0
        } else {
            __cpuid_count(7, 0).edx
        };
        let last = __cpuid(0x8000_0000).eax;
        let amd = |leaf| (last >= leaf).then(|| __cpuid(leaf));
        let prediction = amd(0x8000_0008).map_or(0, |found| found.ebx);
        let more = amd(0x8000_0021).map_or(0, |found| found.eax);
        Self {
            branch_predictors: features & (1 << 26) != 0 || prediction & (1 << 12) != 0,
            l1_data: features & (1 << 28) != 0,
            buffers: features & (1 << 10) != 0 || more & (1 << 5) != 0,
        }
    }

    /// Removes what the vCPU before left in predictors, cache and buffers: the next may be another
    /// guest's, which could read it (Spectre variant 2, L1TF, MDS, TSA).
    fn raise(self) {
        const COMMAND: u64 = 1;
        // SAFETY: the commands exist where CPUID says so, and change nothing that code can see but time.
        // VERW with the null selector only clears ZF.
        unsafe {
            if self.branch_predictors {
                msr::write(Msr::PredCmd, COMMAND);
            }
            if self.l1_data {
                msr::write(Msr::FlushCmd, COMMAND);
            }
            if self.buffers {
                let selector = 0u16;
                asm!("verw word ptr [{}]", in(reg) &raw const selector, options(nostack));
            }
        }
    }
}

/// Widths of addresses in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressWidths {
    /// Of a physical address, 32 to 52.
    pub physical: u32,
    /// Of a linear address.
    pub linear: u32,
}

impl AddressWidths {
    /// Those of this processor (CPUID leaf 0x8000_0008).
    #[must_use]
    pub fn probe() -> Self {
        const LEAF: u32 = 0x8000_0008;
        if __cpuid(0x8000_0000).eax < LEAF {
            return Self {
                physical: 36,
                linear: 48,
            };
        }
        let widths = __cpuid(LEAF).eax;
        Self {
            physical: widths & 0xff,
            linear: (widths >> 8) & 0xff,
        }
    }
}

//! AMD-V of one processor (APM volume 2, section 15.4).

use crate::bitmaps::PermissionMap;
use crate::caps::{Capabilities, Unsupported};
use crate::svm_vcpu::SvmVcpu;
use crate::vmcb::VmcbFrame;
use alloc::string::String;
use core::arch::asm;
use core::fmt;
use vcpu::msr::{self, Msr};
use vcpu::{
    AreaLayout, DeadlineTimer, Facts, Frame, FrameSource, HostState, Limits, Shell, supported_xcr0,
};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, EferFlags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

/// Why AMD-V could not be enabled on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The processor lacks something.
    Unsupported(Unsupported),
    /// No memory for the host's state and the permission maps.
    OutOfMemory,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(what) => what.fmt(f),
            Self::OutOfMemory => {
                write!(
                    f,
                    "no memory for the host's state area and the permission maps"
                )
            }
        }
    }
}

impl core::error::Error for StartError {}

impl From<Unsupported> for StartError {
    fn from(what: Unsupported) -> Self {
        Self::Unsupported(what)
    }
}

/// EFER.AIBRSE (APM volume 2, section 3.1.7).
const EFER_AUTOMATIC_IBRS: u64 = 1 << 21;

/// A processor with AMD-V enabled. Neither `Send` nor `Sync`: it is this processor's own.
pub struct SvmCpu {
    caps: Capabilities,
    /// The vCPU whose user state is in the processor, by the physical address of its VMCB.
    pub(crate) resident: Option<u64>,
    /// Every XCR0 bit that the processor has.
    pub(crate) xcr0: u64,
    /// How an XSAVE area of these bits is laid out.
    pub(crate) area: AreaLayout,
    pub(crate) timer: &'static dyn DeadlineTimer,
    /// What VMLOAD takes back after an exit.
    pub(crate) host: VmcbFrame,
    pub(crate) io: PermissionMap,
    pub(crate) msrs: PermissionMap,
    _save_area: Frame,
    _not_send: core::marker::PhantomData<*mut ()>,
}

impl Shell for SvmCpu {
    type Vcpu = SvmVcpu;
    type StartError = StartError;
    const NAME: &'static str = "AMD-V";

    fn is_reported() -> bool {
        Capabilities::has_svm()
    }

    unsafe fn start(
        // VMSAVE finds it in the processor.
        _host: HostState,
        timer: &'static dyn DeadlineTimer,
        frames: &mut impl FrameSource,
    ) -> Result<Self, StartError> {
        let caps = Capabilities::probe()?;
        let save_area = frames.frame().ok_or(StartError::OutOfMemory)?;
        let host = VmcbFrame::new(frames.frame().ok_or(StartError::OutOfMemory)?);
        let io = PermissionMap::io(frames).ok_or(StartError::OutOfMemory)?;
        let mut passed = msr::GUEST_OWNED.map(|msr| msr as u32).to_vec();
        if caps.rdtscp {
            passed.push(Msr::TscAux as u32);
        }
        let msrs = PermissionMap::msrs(&passed, frames).ok_or(StartError::OutOfMemory)?;

        let cr0 = Cr0::read_raw() & !(Cr0Flags::CACHE_DISABLE | Cr0Flags::NOT_WRITE_THROUGH).bits();
        let cr4 = Cr4::read_raw()
            | (Cr4Flags::MACHINE_CHECK_EXCEPTION
                | Cr4Flags::OSXSAVE
                | Cr4Flags::OSFXSR
                | Cr4Flags::OSXMMEXCPT_ENABLE)
                .bits();
        let xcr0 = supported_xcr0();
        // SAFETY: caching on and the XSAVE enables change no mapping and no privilege; probing showed that SVM is there
        // and not disabled, and the save area is a page that nothing else uses; every XCR0 bit is reported by CPUID
        // leaf 0xD. VMSAVE stores state into a page of ours.
        unsafe {
            Cr0::write_raw(cr0);
            Cr4::write_raw(cr4);
            let mut efer = msr::read(Msr::Efer) | EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE.bits();
            if caps.automatic_ibrs {
                efer |= EFER_AUTOMATIC_IBRS;
            }
            msr::write(Msr::Efer, efer);
            msr::write(Msr::VmHsavePa, save_area.physical());
            asm!("vmsave rax", in("rax") host.physical(), options(nostack, preserves_flags));
            XCr0::write(XCr0Flags::from_bits_retain(xcr0));
        }
        Ok(Self {
            caps,
            resident: None,
            xcr0,
            area: AreaLayout::probe(xcr0),
            timer,
            host,
            io,
            msrs,
            _save_area: save_area,
            _not_send: core::marker::PhantomData,
        })
    }

    fn facts(&self) -> Facts {
        Facts {
            tables: self.caps.tables,
            physical_bits: self.caps.widths.physical as u8,
            xcr0: self.xcr0,
            rdtscp: self.caps.rdtscp,
            invpcid: self.caps.invpcid,
        }
    }

    fn extras(&self) -> String {
        self.caps.extras()
    }

    /// The patch level (APM volume 2, appendix A, MSR 0x8b).
    fn microcode_revision(&self) -> u32 {
        // SAFETY: the register exists on every processor with AMD-V.
        unsafe { msr::read(Msr::BiosSignId) as u32 }
    }
}

impl SvmCpu {
    /// What this processor's AMD-V can do.
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.caps
    }

    /// What a saved state of a vCPU may use.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            cr4: self.caps.guest_cr4,
            physical_bits: self.caps.widths.physical,
            linear_bits: self.caps.widths.linear,
            xcr0: self.xcr0,
            tsc_aux: self.caps.rdtscp,
            area: self.area,
        }
    }
}

//! VMX operation of one processor (Intel SDM volume 3, sections 24.7 and 24.8).

use crate::caps::{Capabilities, Unsupported};
use crate::controls::SecondaryControls;
use crate::setup::guest_cr4;
use crate::vmcs::vmx_instruction;
use crate::vmx_vcpu::VmxVcpu;
use alloc::string::String;
use core::arch::asm;
use core::fmt;
use vcpu::msr::{self, Msr};
use vcpu::{
    AreaLayout, DeadlineTimer, Facts, Frame, FrameSource, HostState, Limits, Shell, supported_xcr0,
};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr4, Cr4Flags};
use x86_64::registers::segmentation::{CS, SS, Segment};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

/// Why a processor could not enter VMX operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The processor lacks something.
    Unsupported(Unsupported),
    /// No memory for the VMXON region.
    OutOfMemory,
    /// VMXON failed although the processor should have accepted it.
    VmxonFailed,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(what) => what.fmt(f),
            Self::OutOfMemory => write!(f, "no memory for the VMXON region"),
            Self::VmxonFailed => write!(f, "VMXON failed"),
        }
    }
}

impl core::error::Error for StartError {}

impl From<Unsupported> for StartError {
    fn from(what: Unsupported) -> Self {
        Self::Unsupported(what)
    }
}

/// A processor in VMX operation. Neither `Send` nor `Sync`: it is this processor's own.
pub struct VmxCpu {
    caps: Capabilities,
    host: HostState,
    /// The VMCS that is current here, by physical address.
    pub(crate) current: Option<u64>,
    /// The vCPU whose MSRs and FPU state are in the processor, by VMCS address.
    pub(crate) resident: Option<u64>,
    /// Every XCR0 bit that the processor has.
    pub(crate) xcr0: u64,
    /// How an XSAVE area of these bits is laid out.
    pub(crate) area: AreaLayout,
    _region: Frame,
    _not_send: core::marker::PhantomData<*mut ()>,
}

impl Shell for VmxCpu {
    type Vcpu = VmxVcpu;
    type StartError = StartError;
    const NAME: &'static str = "VT-x";

    fn is_reported() -> bool {
        Capabilities::has_vmx()
    }

    unsafe fn start(
        host: HostState,
        // The preemption timer ends runs in time.
        _timer: &'static dyn DeadlineTimer,
        frames: &mut impl FrameSource,
    ) -> Result<Self, StartError> {
        let caps = Capabilities::probe()?;
        let mut region = frames.frame().ok_or(StartError::OutOfMemory)?;
        region.bytes_mut()[..4].copy_from_slice(&caps.revision.to_le_bytes());

        let cr0 = Cr0::read_raw() | caps.cr0_fixed0;
        let cr0 =
            cr0 & caps.cr0_fixed1 & !(Cr0Flags::CACHE_DISABLE | Cr0Flags::NOT_WRITE_THROUGH).bits();
        let cr4 = Cr4::read_raw()
            | caps.cr4_fixed0
            | (Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS
                | Cr4Flags::MACHINE_CHECK_EXCEPTION
                | Cr4Flags::OSXSAVE
                | Cr4Flags::OSFXSR
                | Cr4Flags::OSXMMEXCPT_ENABLE)
                .bits();
        // SAFETY: the fixed bits are what VMX operation demands; caching on and the XSAVE enables
        // change no mapping and no privilege.
        unsafe {
            Cr0::write_raw(cr0);
            Cr4::write_raw(cr4);
        }
        let address = region.physical();
        // SAFETY: VT-x is there and enabled, CR0 and CR4 obey the fixed bits, and the operand is
        // the address of a region with the right revision that nothing else uses.
        let failed = unsafe { vmx_instruction!("vmxon [{pointer}]", pointer = in(reg) &address) };
        if failed {
            return Err(StartError::VmxonFailed);
        }
        let xcr0 = supported_xcr0();
        // SAFETY: CR4.OSXSAVE is set and every bit is reported by CPUID leaf 0xD.
        unsafe { XCr0::write(XCr0Flags::from_bits_retain(xcr0)) };
        Ok(Self {
            caps,
            host,
            current: None,
            resident: None,
            xcr0,
            area: AreaLayout::probe(xcr0),
            _region: region,
            _not_send: core::marker::PhantomData,
        })
    }

    fn facts(&self) -> Facts {
        Facts {
            tables: self.caps.tables,
            physical_bits: self.caps.widths.physical as u8,
            xcr0: self.xcr0,
            rdtscp: self.caps.secondary.contains(SecondaryControls::RDTSCP),
            invpcid: self.caps.secondary.contains(SecondaryControls::INVPCID),
        }
    }

    fn extras(&self) -> String {
        self.caps.extras()
    }

    /// Intel SDM volume 3, section 10.11.7.1.
    fn microcode_revision(&self) -> u32 {
        // SAFETY: the register exists on every processor with VT-x; writing zero before CPUID makes
        // CPUID fill it in.
        unsafe {
            msr::write(Msr::BiosSignId, 0);
            let _ = core::arch::x86_64::__cpuid(1);
            (msr::read(Msr::BiosSignId) >> 32) as u32
        }
    }
}

impl VmxCpu {
    /// What this processor's VT-x can do.
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.caps
    }

    /// Lets the host's NMI handler see an NMI that came as an exit. The handler's IRET also ends
    /// the blocking of further NMIs.
    pub(crate) fn deliver_host_nmi() {
        // SAFETY: the NMI vector's handler is part of the host context given to `start`.
        unsafe { asm!("int 2") };
    }

    /// What a saved state of a vCPU may use.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            cr4: guest_cr4(&self.caps),
            physical_bits: self.caps.widths.physical,
            linear_bits: self.caps.widths.linear,
            xcr0: self.xcr0,
            tsc_aux: self.caps.secondary.contains(SecondaryControls::RDTSCP),
            area: self.area,
        }
    }

    pub(crate) fn host_fields(&self) -> HostFields {
        // SAFETY: EFER and the FS and GS bases exist on every 64-bit processor, PAT on every one
        // with VT-x.
        let [pat, efer, fs_base, gs_base] =
            [Msr::Pat, Msr::Efer, Msr::FsBase, Msr::GsBase].map(|msr| unsafe { msr::read(msr) });
        HostFields {
            cr0: Cr0::read_raw(),
            cr3: Cr3::read().0.start_address().as_u64(),
            cr4: Cr4::read_raw(),
            cs: CS::get_reg().0,
            ss: SS::get_reg().0,
            fs_base,
            gs_base,
            tables: self.host,
            pat,
            efer,
        }
    }
}

/// The host-state area, as it is written into each VMCS.
pub(crate) struct HostFields {
    pub(crate) cr0: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) cs: u16,
    pub(crate) ss: u16,
    pub(crate) fs_base: u64,
    pub(crate) gs_base: u64,
    pub(crate) tables: HostState,
    pub(crate) pat: u64,
    pub(crate) efer: u64,
}

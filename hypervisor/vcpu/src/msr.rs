//! Model-specific registers (Intel SDM volume 4, table 2-2; AMD APM volume 2, appendix A).

use core::arch::asm;

/// The registers that the hypervisor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Msr {
    /// VT-x lock and enable bits.
    FeatureControl = 0x3a,
    /// Prediction command: flushes indirect branch predictors.
    PredCmd = 0x49,
    /// Microcode revision.
    BiosSignId = 0x8b,
    /// Immunities against known attacks.
    ArchCapabilities = 0x10a,
    /// Flush command: flushes the first-level data cache.
    FlushCmd = 0x10b,
    /// SYSENTER code segment.
    SysenterCs = 0x174,
    /// SYSENTER stack pointer.
    SysenterEsp = 0x175,
    /// SYSENTER entry point.
    SysenterEip = 0x176,
    /// Page attribute table.
    Pat = 0x277,
    /// VMCS revision, size and memory type.
    VmxBasic = 0x480,
    /// Pin-based controls.
    VmxPinbasedCtls = 0x481,
    /// Primary processor-based controls.
    VmxProcbasedCtls = 0x482,
    /// VM-exit controls.
    VmxExitCtls = 0x483,
    /// VM-entry controls.
    VmxEntryCtls = 0x484,
    /// Timer rate, activity states and other facts.
    VmxMisc = 0x485,
    /// CR0 bits that must be one.
    VmxCr0Fixed0 = 0x486,
    /// CR0 bits that may be one.
    VmxCr0Fixed1 = 0x487,
    /// CR4 bits that must be one.
    VmxCr4Fixed0 = 0x488,
    /// CR4 bits that may be one.
    VmxCr4Fixed1 = 0x489,
    /// Secondary processor-based controls.
    VmxProcbasedCtls2 = 0x48b,
    /// EPT and VPID capabilities.
    VmxEptVpidCap = 0x48c,
    /// Pin-based controls, with the defaults that may be cleared.
    VmxTruePinbasedCtls = 0x48d,
    /// Primary controls, with the defaults that may be cleared.
    VmxTrueProcbasedCtls = 0x48e,
    /// VM-exit controls, with the defaults that may be cleared.
    VmxTrueExitCtls = 0x48f,
    /// VM-entry controls, with the defaults that may be cleared.
    VmxTrueEntryCtls = 0x490,
    /// Extended features: SYSCALL, long mode, no-execute.
    Efer = 0xc000_0080,
    /// SYSCALL segment selectors.
    Star = 0xc000_0081,
    /// SYSCALL entry point, 64-bit.
    Lstar = 0xc000_0082,
    /// SYSCALL entry point, compatibility mode.
    Cstar = 0xc000_0083,
    /// SYSCALL flag mask.
    Fmask = 0xc000_0084,
    /// FS base.
    FsBase = 0xc000_0100,
    /// GS base.
    GsBase = 0xc000_0101,
    /// The GS base that SWAPGS swaps in.
    KernelGsBase = 0xc000_0102,
    /// What RDTSCP and RDPID return.
    TscAux = 0xc000_0103,
    /// Whether AMD-V can be enabled.
    VmCr = 0xc001_0114,
    /// Where VMRUN keeps the host's state.
    VmHsavePa = 0xc001_0117,
}

/// Registers that either extension switches with the guest, or whose values mean nothing to the host and stay in the
/// processor: guests may use them without an exit.
pub const GUEST_OWNED: [Msr; 11] = [
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

/// Reads a model-specific register.
///
/// # Safety
///
/// The processor must have the register: elsewhere RDMSR raises #GP.
#[must_use]
pub unsafe fn read(register: Msr) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller vouches that the register exists; reading one has no other effect.
    unsafe {
        asm!("rdmsr", in("ecx") register as u32, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    (u64::from(high) << 32) | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
///
/// The register must exist and accept `value`, and the change must not break an assumption of
/// running code (mapped memory, interrupt delivery, the current GS base).
pub unsafe fn write(register: Msr, value: u64) {
    let low = value as u32;
    let high = (value >> 32) as u32;
    // SAFETY: the caller vouches for the register, the value and its consequences.
    unsafe {
        asm!("wrmsr", in("ecx") register as u32, in("eax") low, in("edx") high,
            options(nostack, preserves_flags));
    }
}

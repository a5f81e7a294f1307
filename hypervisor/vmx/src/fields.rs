//! VMCS field encodings (Intel SDM volume 3, appendix B), one enum per width, so that a width
//! error does not compile.

use vcpu::SegmentRegister;

macro_rules! fields {
    ($(#[$doc:meta])* $name:ident { $($field:ident = $encoding:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        #[allow(missing_docs, reason = "the names are the manual's")]
        pub(crate) enum $name {
            $($field = $encoding,)*
        }

        impl $name {
            /// Every field of this width, for dumps.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$field,)*];
        }
    };
}

fields! {
    /// 16-bit fields.
    Field16 {
        Vpid = 0x0000,
        GuestEsSelector = 0x0800,
        GuestCsSelector = 0x0802,
        GuestSsSelector = 0x0804,
        GuestDsSelector = 0x0806,
        GuestFsSelector = 0x0808,
        GuestGsSelector = 0x080a,
        GuestLdtrSelector = 0x080c,
        GuestTrSelector = 0x080e,
        GuestInterruptStatus = 0x0810,
        LogIndex = 0x0812,
        HostEsSelector = 0x0c00,
        HostCsSelector = 0x0c02,
        HostSsSelector = 0x0c04,
        HostDsSelector = 0x0c06,
        HostFsSelector = 0x0c08,
        HostGsSelector = 0x0c0a,
        HostTrSelector = 0x0c0c,
    }
}

fields! {
    /// 64-bit fields.
    Field64 {
        IoBitmapA = 0x2000,
        IoBitmapB = 0x2002,
        MsrBitmap = 0x2004,
        LogAddress = 0x200e,
        TscOffset = 0x2010,
        VirtualApicAddress = 0x2012,
        EptPointer = 0x201a,
        EoiExit0 = 0x201c,
        EoiExit1 = 0x201e,
        EoiExit2 = 0x2020,
        EoiExit3 = 0x2022,
        GuestPhysicalAddress = 0x2400,
        VmcsLinkPointer = 0x2800,
        GuestDebugCtl = 0x2802,
        GuestPat = 0x2804,
        GuestEfer = 0x2806,
        GuestPdpte0 = 0x280a,
        GuestPdpte1 = 0x280c,
        GuestPdpte2 = 0x280e,
        GuestPdpte3 = 0x2810,
        HostPat = 0x2c00,
        HostEfer = 0x2c02,
    }
}

impl Field64 {
    /// The EOI-exit bitmap, the lowest vectors first.
    pub(crate) const EOI_EXITS: [Self; 4] = [
        Self::EoiExit0,
        Self::EoiExit1,
        Self::EoiExit2,
        Self::EoiExit3,
    ];

    /// The page-directory-pointer entries of 32-bit PAE paging.
    pub(crate) const GUEST_PDPTES: [Self; 4] = [
        Self::GuestPdpte0,
        Self::GuestPdpte1,
        Self::GuestPdpte2,
        Self::GuestPdpte3,
    ];
}

fields! {
    /// 32-bit fields.
    Field32 {
        PinControls = 0x4000,
        PrimaryControls = 0x4002,
        ExceptionBitmap = 0x4004,
        PageFaultErrorCodeMask = 0x4006,
        PageFaultErrorCodeMatch = 0x4008,
        Cr3TargetCount = 0x400a,
        ExitControls = 0x400c,
        ExitMsrStoreCount = 0x400e,
        ExitMsrLoadCount = 0x4010,
        EntryControls = 0x4012,
        EntryMsrLoadCount = 0x4014,
        EntryInterruptionInfo = 0x4016,
        EntryExceptionErrorCode = 0x4018,
        EntryInstructionLength = 0x401a,
        SecondaryControls = 0x401e,
        PauseLoopGap = 0x4020,
        PauseLoopWindow = 0x4022,
        InstructionError = 0x4400,
        ExitReason = 0x4402,
        ExitInterruptionInfo = 0x4404,
        ExitInterruptionErrorCode = 0x4406,
        IdtVectoringInfo = 0x4408,
        IdtVectoringErrorCode = 0x440a,
        ExitInstructionLength = 0x440c,
        ExitInstructionInfo = 0x440e,
        GuestEsLimit = 0x4800,
        GuestCsLimit = 0x4802,
        GuestSsLimit = 0x4804,
        GuestDsLimit = 0x4806,
        GuestFsLimit = 0x4808,
        GuestGsLimit = 0x480a,
        GuestLdtrLimit = 0x480c,
        GuestTrLimit = 0x480e,
        GuestGdtrLimit = 0x4810,
        GuestIdtrLimit = 0x4812,
        GuestEsAccess = 0x4814,
        GuestCsAccess = 0x4816,
        GuestSsAccess = 0x4818,
        GuestDsAccess = 0x481a,
        GuestFsAccess = 0x481c,
        GuestGsAccess = 0x481e,
        GuestLdtrAccess = 0x4820,
        GuestTrAccess = 0x4822,
        GuestInterruptibility = 0x4824,
        GuestActivity = 0x4826,
        GuestSysenterCs = 0x482a,
        PreemptionTimer = 0x482e,
        HostSysenterCs = 0x4c00,
    }
}

fields! {
    /// Natural-width fields.
    FieldNatural {
        Cr0Mask = 0x6000,
        Cr4Mask = 0x6002,
        Cr0Shadow = 0x6004,
        Cr4Shadow = 0x6006,
        ExitQualification = 0x6400,
        GuestLinearAddress = 0x640a,
        GuestCr0 = 0x6800,
        GuestCr3 = 0x6802,
        GuestCr4 = 0x6804,
        GuestEsBase = 0x6806,
        GuestCsBase = 0x6808,
        GuestSsBase = 0x680a,
        GuestDsBase = 0x680c,
        GuestFsBase = 0x680e,
        GuestGsBase = 0x6810,
        GuestLdtrBase = 0x6812,
        GuestTrBase = 0x6814,
        GuestGdtrBase = 0x6816,
        GuestIdtrBase = 0x6818,
        GuestDr7 = 0x681a,
        GuestRsp = 0x681c,
        GuestRip = 0x681e,
        GuestRflags = 0x6820,
        GuestPendingDebug = 0x6822,
        GuestSysenterEsp = 0x6824,
        GuestSysenterEip = 0x6826,
        HostCr0 = 0x6c00,
        HostCr3 = 0x6c02,
        HostCr4 = 0x6c04,
        HostFsBase = 0x6c06,
        HostGsBase = 0x6c08,
        HostTrBase = 0x6c0a,
        HostGdtrBase = 0x6c0c,
        HostIdtrBase = 0x6c0e,
        HostSysenterEsp = 0x6c10,
        HostSysenterEip = 0x6c12,
        HostRsp = 0x6c14,
        HostRip = 0x6c16,
    }
}

/// Selector, base, limit and access rights of a segment register.
pub(crate) const fn of_segment(
    register: SegmentRegister,
) -> (Field16, FieldNatural, Field32, Field32) {
    match register {
        SegmentRegister::Es => (
            Field16::GuestEsSelector,
            FieldNatural::GuestEsBase,
            Field32::GuestEsLimit,
            Field32::GuestEsAccess,
        ),
        SegmentRegister::Cs => (
            Field16::GuestCsSelector,
            FieldNatural::GuestCsBase,
            Field32::GuestCsLimit,
            Field32::GuestCsAccess,
        ),
        SegmentRegister::Ss => (
            Field16::GuestSsSelector,
            FieldNatural::GuestSsBase,
            Field32::GuestSsLimit,
            Field32::GuestSsAccess,
        ),
        SegmentRegister::Ds => (
            Field16::GuestDsSelector,
            FieldNatural::GuestDsBase,
            Field32::GuestDsLimit,
            Field32::GuestDsAccess,
        ),
        SegmentRegister::Fs => (
            Field16::GuestFsSelector,
            FieldNatural::GuestFsBase,
            Field32::GuestFsLimit,
            Field32::GuestFsAccess,
        ),
        SegmentRegister::Gs => (
            Field16::GuestGsSelector,
            FieldNatural::GuestGsBase,
            Field32::GuestGsLimit,
            Field32::GuestGsAccess,
        ),
        SegmentRegister::Ldtr => (
            Field16::GuestLdtrSelector,
            FieldNatural::GuestLdtrBase,
            Field32::GuestLdtrLimit,
            Field32::GuestLdtrAccess,
        ),
        SegmentRegister::Tr => (
            Field16::GuestTrSelector,
            FieldNatural::GuestTrBase,
            Field32::GuestTrLimit,
            Field32::GuestTrAccess,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits 14:13 of an encoding give the field's width (section 25.11.2): 0 = 16-bit, 1 = 64-bit,
    /// 2 = 32-bit, 3 = natural.
    #[test]
    fn encodings_match_their_width() {
        assert!(Field16::ALL.iter().all(|f| (*f as u32 >> 13) & 3 == 0));
        assert!(Field64::ALL.iter().all(|f| (*f as u32 >> 13) & 3 == 1));
        assert!(Field32::ALL.iter().all(|f| (*f as u32 >> 13) & 3 == 2));
        assert!(FieldNatural::ALL.iter().all(|f| (*f as u32 >> 13) & 3 == 3));
        // Bit 0 selects the high half of a 64-bit field; no whole field has it.
        assert!(Field64::ALL.iter().all(|f| *f as u32 & 1 == 0));
    }
}

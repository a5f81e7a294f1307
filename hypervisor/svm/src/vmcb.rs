//! The virtual machine control block (APM volume 2, appendix B).

use bitflags::bitflags;
use core::fmt;
use core::mem::{offset_of, size_of};
use core::ptr::NonNull;
use vcpu::{FRAME_SIZE, Frame};

bitflags! {
    /// Which accesses to CR0 to CR15 exit, by their numbers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub(crate) struct CrIntercepts: u16 {
        const CR4 = 1 << 4;
        const CR8 = 1 << 8;
        const _ = !0;
    }

    /// What exits: the word at offset 0xc.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub(crate) struct Intercepts: u32 {
        /// Physical interrupts.
        const INTR = 1 << 0;
        const NMI = 1 << 1;
        const INIT = 1 << 3;
        /// The guest can take a virtual interrupt.
        const VINTR = 1 << 4;
        const RDPMC = 1 << 15;
        const CPUID = 1 << 18;
        const IRET = 1 << 20;
        const INVD = 1 << 22;
        const PAUSE = 1 << 23;
        const HLT = 1 << 24;
        const INVLPGA = 1 << 26;
        /// Port accesses that the I/O permission map names.
        const IOIO = 1 << 27;
        /// MSR accesses that the MSR permission map names.
        const MSR = 1 << 28;
        /// A fault while delivering a double fault.
        const SHUTDOWN = 1 << 31;
        const _ = !0;
    }

    /// What exits: the word at offset 0x10.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub(crate) struct MoreIntercepts: u32 {
        /// VMRUN refuses to work without.
        const VMRUN = 1 << 0;
        const VMMCALL = 1 << 1;
        const VMLOAD = 1 << 2;
        const VMSAVE = 1 << 3;
        const STGI = 1 << 4;
        const CLGI = 1 << 5;
        const SKINIT = 1 << 6;
        const WBINVD = 1 << 9;
        const MONITOR = 1 << 10;
        const MWAIT = 1 << 11;
        const MWAIT_ARMED = 1 << 12;
        const XSETBV = 1 << 13;
        const RDPRU = 1 << 14;
        const _ = !0;
    }

    /// What exits: the word at offset 0x14.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub(crate) struct BroadcastIntercepts: u32 {
        /// The guest would make other processors drop translations.
        const INVLPGB = 1 << 0;
        const TLBSYNC = 1 << 4;
        const _ = !0;
    }

    /// Virtual interrupts: the low half of the word at offset 0x60.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(transparent)]
    pub(crate) struct InterruptControl: u32 {
        /// A virtual interrupt is pending.
        const V_IRQ = 1 << 8;
        /// Its priority does not count.
        const V_IGN_TPR = 1 << 20;
        /// RFLAGS.IF and CR8 of the guest are not the host's.
        const V_INTR_MASKING = 1 << 24;
        const _ = !0;
    }
}

/// The guest is in the shadow of STI or MOV SS.
pub(crate) const INTERRUPT_SHADOW: u64 = 1 << 0;
/// Nested paging is on.
pub(crate) const NESTED_PAGING: u64 = 1 << 0;

/// What VMRUN drops of the cached translations (table 15-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TlbControl {
    Nothing = 0,
    Everything = 1,
    /// Those of the guest's ASID, where the processor can.
    ThisAsid = 3,
}

/// A segment register or, with base and limit alone, a descriptor-table register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct VmcbSegment {
    pub(crate) selector: u16,
    pub(crate) attributes: u16,
    pub(crate) limit: u32,
    pub(crate) base: u64,
}

/// The control block. Reserved ranges are zero.
#[repr(C)]
pub(crate) struct Vmcb {
    pub(crate) cr_reads: CrIntercepts,
    pub(crate) cr_writes: CrIntercepts,
    pub(crate) dr_reads: u16,
    pub(crate) dr_writes: u16,
    pub(crate) exceptions: u32,
    pub(crate) intercepts: Intercepts,
    pub(crate) more_intercepts: MoreIntercepts,
    pub(crate) broadcast_intercepts: BroadcastIntercepts,
    _reserved_18: [u8; 0x24],
    pub(crate) pause_filter_threshold: u16,
    pub(crate) pause_filter_count: u16,
    pub(crate) io_map: u64,
    pub(crate) msr_map: u64,
    pub(crate) tsc_offset: u64,
    pub(crate) asid: u32,
    /// A [`TlbControl`].
    pub(crate) tlb_control: u8,
    _reserved_5d: [u8; 3],
    pub(crate) interrupt_control: InterruptControl,
    pub(crate) interrupt_vector: u32,
    pub(crate) interrupt_shadow: u64,
    pub(crate) exit_code: u64,
    pub(crate) exit_info_1: u64,
    pub(crate) exit_info_2: u64,
    /// The event in whose delivery the exit came: its kind, and its error code in the upper half.
    pub(crate) exit_event: u64,
    pub(crate) nested_control: u64,
    _reserved_98: [u8; 0x10],
    /// The event that the next entry delivers.
    pub(crate) event: u64,
    pub(crate) nested_cr3: u64,
    _reserved_b8: [u8; 8],
    /// What the processor may keep from the last entry: nothing, ever.
    pub(crate) clean: u32,
    _reserved_c4: [u8; 4],
    /// Where the instruction that exited ends, with NRIP save.
    pub(crate) next_rip: u64,
    _reserved_d0: [u8; 0x330],
    pub(crate) es: VmcbSegment,
    pub(crate) cs: VmcbSegment,
    pub(crate) ss: VmcbSegment,
    pub(crate) ds: VmcbSegment,
    pub(crate) fs: VmcbSegment,
    pub(crate) gs: VmcbSegment,
    pub(crate) gdtr: VmcbSegment,
    pub(crate) ldtr: VmcbSegment,
    pub(crate) idtr: VmcbSegment,
    pub(crate) tr: VmcbSegment,
    _reserved_4a0: [u8; 0x2b],
    pub(crate) cpl: u8,
    _reserved_4cc: [u8; 4],
    pub(crate) efer: u64,
    _reserved_4d8: [u8; 0x70],
    pub(crate) cr4: u64,
    pub(crate) cr3: u64,
    pub(crate) cr0: u64,
    pub(crate) dr7: u64,
    pub(crate) dr6: u64,
    pub(crate) rflags: u64,
    pub(crate) rip: u64,
    _reserved_580: [u8; 0x58],
    pub(crate) rsp: u64,
    _reserved_5e0: [u8; 0x18],
    pub(crate) rax: u64,
    pub(crate) star: u64,
    pub(crate) lstar: u64,
    pub(crate) cstar: u64,
    pub(crate) fmask: u64,
    pub(crate) kernel_gs_base: u64,
    pub(crate) sysenter_cs: u64,
    pub(crate) sysenter_esp: u64,
    pub(crate) sysenter_eip: u64,
    pub(crate) cr2: u64,
    _reserved_648: [u8; 0x20],
    pub(crate) pat: u64,
    _reserved_670: [u8; 0x990],
}

const _: () = {
    assert!(size_of::<Vmcb>() == FRAME_SIZE);
    assert!(size_of::<VmcbSegment>() == 16);
    assert!(offset_of!(Vmcb, broadcast_intercepts) == 0x14);
    assert!(offset_of!(Vmcb, pause_filter_threshold) == 0x3c);
    assert!(offset_of!(Vmcb, io_map) == 0x40);
    assert!(offset_of!(Vmcb, asid) == 0x58);
    assert!(offset_of!(Vmcb, interrupt_control) == 0x60);
    assert!(offset_of!(Vmcb, exit_code) == 0x70);
    assert!(offset_of!(Vmcb, exit_event) == 0x88);
    assert!(offset_of!(Vmcb, nested_control) == 0x90);
    assert!(offset_of!(Vmcb, event) == 0xa8);
    assert!(offset_of!(Vmcb, nested_cr3) == 0xb0);
    assert!(offset_of!(Vmcb, clean) == 0xc0);
    assert!(offset_of!(Vmcb, next_rip) == 0xc8);
    assert!(offset_of!(Vmcb, es) == 0x400);
    assert!(offset_of!(Vmcb, tr) == 0x490);
    assert!(offset_of!(Vmcb, cpl) == 0x4cb);
    assert!(offset_of!(Vmcb, efer) == 0x4d0);
    assert!(offset_of!(Vmcb, cr4) == 0x548);
    assert!(offset_of!(Vmcb, rip) == 0x578);
    assert!(offset_of!(Vmcb, rsp) == 0x5d8);
    assert!(offset_of!(Vmcb, rax) == 0x5f8);
    assert!(offset_of!(Vmcb, star) == 0x600);
    assert!(offset_of!(Vmcb, cr2) == 0x640);
    assert!(offset_of!(Vmcb, pat) == 0x668);
};

/// The controls, for the report of a refused entry.
impl fmt::Display for Vmcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  cr reads {:?}  cr writes {:?}  exceptions {:08x}",
            self.cr_reads, self.cr_writes, self.exceptions
        )?;
        writeln!(f, "  {:?}  {:?}", self.intercepts, self.more_intercepts)?;
        writeln!(
            f,
            "  asid {}  tlb {}  {:?}  vector {:x}  shadow {:x}",
            self.asid,
            self.tlb_control,
            self.interrupt_control,
            self.interrupt_vector,
            self.interrupt_shadow
        )?;
        writeln!(
            f,
            "  event {:x}  exit event {:x}  exit info {:x} {:x}",
            self.event, self.exit_event, self.exit_info_1, self.exit_info_2
        )?;
        write!(
            f,
            "  nested {:x} cr3 {:x}  io {:x}  msrs {:x}  efer {:x}  cr4 {:x}  dr6 {:x}  cpl {}",
            self.nested_control,
            self.nested_cr3,
            self.io_map,
            self.msr_map,
            self.efer,
            self.cr4,
            self.dr6,
            self.cpl
        )
    }
}

/// A control block in a frame of its own.
#[derive(Debug)]
pub(crate) struct VmcbFrame {
    frame: Frame,
}

impl VmcbFrame {
    /// All zero: an entry would be refused.
    pub(crate) fn new(frame: Frame) -> Self {
        Self { frame }
    }

    pub(crate) fn physical(&self) -> u64 {
        self.frame.physical()
    }

    pub(crate) fn get(&self) -> &Vmcb {
        // SAFETY: the frame is as large and aligned as a control block, and every byte pattern is one: all fields are
        // numbers, and the flags know every bit. The processor changes it only inside `enter`, whose callers
        // hold the vCPU mutably.
        unsafe { NonNull::from(self.frame.bytes()).cast::<Vmcb>().as_ref() }
    }

    pub(crate) fn get_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as in `get`, and borrowed mutably.
        unsafe {
            NonNull::from(self.frame.bytes_mut())
                .cast::<Vmcb>()
                .as_mut()
        }
    }
}

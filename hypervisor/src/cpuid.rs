//! What CPUID tells a guest: one table, made once per guest.
//!
//! The virtual PC has no virtualization extension, performance counters, thermal or power
//! management. Everything else that the processor has and that the shell switches is passed on.

use core::arch::x86_64::{__cpuid_count, CpuidResult};
use core::hash::{Hash, Hasher};

/// "UnderstudyVM" in EBX, ECX, EDX of leaf 0x4000_0000.
const SIGNATURE: [u32; 3] = [
    u32::from_le_bytes(*b"Unde"),
    u32::from_le_bytes(*b"rstu"),
    u32::from_le_bytes(*b"dyVM"),
];
const HYPERVISOR_BASE: u32 = 0x4000_0000;
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
const EXTENDED_BASE: u32 = 0x8000_0000;

/// Last basic leaf shown.
const BASIC_MAX: u32 = 0x16;
/// Basic leaves that depend on the sub-leaf or on the vCPU and its state: 1, 7, 0xB and 0xD.
const SUB_LEAF_OR_LIVE: u32 = (1 << 1) | (1 << 7) | (1 << LEAF_TOPOLOGY) | (1 << 0xd);
/// The extended topology.
const LEAF_TOPOLOGY: u32 = 0xb;
/// Last extended leaf shown.
const EXTENDED_MAX: u32 = 0x8000_0008;
/// Sub-leaves of leaf 0xD that describe user state components.
const XSAVE_LEAVES: usize = 10;

/// Leaf 1, ECX: DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, CNXT-ID, SDBG, xTPR, PDCM, DCA,
/// x2APIC, TSC-deadline and OSXSAVE (which follows CR4) are not there.
const LEAF1_ECX_HIDDEN: u32 = (1 << 2)
    | (1 << 3)
    | (1 << 4)
    | (1 << 5)
    | (1 << 6)
    | (1 << 7)
    | (1 << 8)
    | (1 << 10)
    | (1 << 11)
    | (1 << 14)
    | (1 << 15)
    | (1 << 18)
    | (1 << 21)
    | (1 << 24)
    | LEAF1_ECX_OSXSAVE;
/// Leaf 1 of guests with a local APIC: x2APIC and TSC-deadline mode in ECX, APIC in EDX.
const LEAF1_ECX_APIC: u32 = (1 << 21) | (1 << 24);
const LEAF1_EDX_APIC: u32 = 1 << 9;
/// Leaf 1, EDX: EBX has the number of logical processors.
const LEAF1_EDX_HTT: u32 = 1 << 28;
const LEAF1_ECX_OSXSAVE: u32 = 1 << 27;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: MCE, APIC, MTRR, MCA, PSN, DS, ACPI, HTT, TM and PBE are not there.
const LEAF1_EDX_HIDDEN: u32 = (1 << 7)
    | (1 << 9)
    | (1 << 12)
    | (1 << 14)
    | (1 << 18)
    | (1 << 21)
    | (1 << 22)
    | (1 << 28)
    | (1 << 29)
    | (1 << 31);
/// Leaf 7, EBX: what is shown. SGX, HLE, RTM, PQM, PQE, Processor Trace and INVPCID (shown only
/// where it works) are not.
const LEAF7_EBX_SHOWN: u32 = (1 << 0)
    | (1 << 3)
    | (1 << 5)
    | (1 << 6)
    | (1 << 7)
    | (1 << 8)
    | (1 << 9)
    | (1 << 13)
    | (1 << 16)
    | (1 << 17)
    | (1 << 18)
    | (1 << 19)
    | (1 << 20)
    | (1 << 21)
    | (1 << 23)
    | (1 << 24)
    | (1 << 28)
    | (1 << 29)
    | (1 << 30)
    | (1 << 31);
const LEAF7_EBX_INVPCID: u32 = 1 << 10;
/// Leaf 7, ECX: AVX-512 VBMI, UMIP, PKU, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ, RDPID.
const LEAF7_ECX_SHOWN: u32 =
    (1 << 1) | (1 << 2) | (1 << 3) | (0b1111 << 8) | (1 << 12) | (1 << 14) | LEAF7_ECX_RDPID;
const LEAF7_ECX_RDPID: u32 = 1 << 22;
/// Leaf 0xD, sub-leaf 1: XSAVEOPT, and XGETBV with ECX = 1. XSAVES is not offered, and XSAVEC neither:
/// XSAVEOPT serves a guest as well, and Bochs 2.7 stores the compacted form over its own header.
const LEAF_D1_EAX_SHOWN: u32 = 0b101;
/// Leaf 0x8000_0001, ECX: LAHF, LZCNT, SSE4A, misaligned SSE, PREFETCHW, XOP, FMA4, TBM. AMD-V, its APIC extension, IBS,
/// SKINIT, topology, performance counters and MWAITX are not there.
const EXTENDED_ECX_SHOWN: u32 = (1 << 0) | (0b1111 << 5) | (1 << 11) | (1 << 16) | (1 << 21);
/// Leaf 0x8000_0001, EDX: SYSCALL, NX, MMX extensions, 1 GiB pages, RDTSCP, long mode, 3DNow. AMD's processors repeat most
/// of leaf 1 in it, of which what is hidden there is hidden here. Fast FXSAVE is not there: EFER does not have its bit.
const EXTENDED_EDX_SHOWN: u32 =
    (1 << 11) | (1 << 20) | (1 << 22) | (1 << 26) | EXTENDED_EDX_RDTSCP | (0b111 << 29);
const EXTENDED_EDX_LIKE_LEAF1: u32 = 0x0183_f3ff;
const EXTENDED_EDX_RDTSCP: u32 = 1 << 27;
/// Leaf 0x8000_0007: the TSC is invariant, if the processor's is: guest time is that plus a constant.
const INVARIANT_TSC: u32 = 1 << 8;

/// What the processor lets a guest use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) tsc_hz: u64,
    pub(crate) xcr0: u64,
    pub(crate) rdtscp: bool,
    pub(crate) invpcid: bool,
    /// The guest has local APICs, with x2APIC and TSC-deadline modes.
    pub(crate) apic: bool,
    /// Processors of the guest.
    pub(crate) vcpus: u32,
    /// The guest has KVM's clock, and is not to rely on its TSC.
    pub(crate) paravirtual_clock: bool,
}

/// Guest state that some leaves show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) osxsave: bool,
    pub(crate) xcr0: u64,
    /// Which of the guest's processors asks.
    pub(crate) apic_id: u32,
}

/// The TSC runs at this multiple of the crystal that CPUID shows, the clock of the local APIC's timer.
const CRYSTAL_DIVIDER: u32 = devices::lapic::TICKS_PER_CYCLE as u32;

/// A second signature: it tells Linux that x2APIC mode is sound without interrupt remapping, which a
/// processor's own leaves cannot say. Of this interface's features there is the clock, for guests that need it.
const KVM_BASE: u32 = 0x4000_0100;
const KVM_SIGNATURE: [u32; 3] = [
    u32::from_le_bytes(*b"KVMK"),
    u32::from_le_bytes(*b"VMKV"),
    u32::from_le_bytes(*b"M\0\0\0"),
];

const KVM_FEATURES: u32 = KVM_BASE + 1;
/// KVM_FEATURE_CLOCKSOURCE2 and KVM_FEATURE_CLOCKSOURCE_STABLE_BIT.
const KVM_CLOCK: u32 = (1 << 3) | (1 << 24);

/// Legacy region and header of an XSAVE area.
const XSAVE_LEGACY: u32 = 576;

type Registers = [u32; 4];

/// The table of one guest.
pub(crate) struct Cpuid {
    basic: [Registers; BASIC_MAX as usize + 1],
    extended: [Registers; (EXTENDED_MAX - EXTENDED_BASE) as usize + 1],
    xsave: [Registers; XSAVE_LEAVES],
    hypervisor: Registers,
    timing: Registers,
    /// Processors, where there are local APICs.
    vcpus: u32,
    kvm_features: u32,
}

fn host(leaf: u32, sub_leaf: u32) -> Registers {
    let CpuidResult { eax, ebx, ecx, edx } = __cpuid_count(leaf, sub_leaf);
    [eax, ebx, ecx, edx]
}

impl Cpuid {
    /// Adds to a digest what a guest may rely on for as long as it runs, whichever board it is on: all but how fast the board's
    /// counter is.
    pub(crate) fn hash_lasting(&self, digest: &mut impl Hasher) {
        const TIMING: [usize; 2] = [0x15, 0x16];
        for (leaf, registers) in self.basic.iter().enumerate() {
            if !TIMING.contains(&leaf) {
                registers.hash(digest);
            }
        }
        (self.extended, self.xsave, self.vcpus, self.kvm_features).hash(digest);
    }

    pub(crate) fn new(offer: &Offer) -> Self {
        let max = host(0, 0)[0];
        let mut basic = [[0; 4]; BASIC_MAX as usize + 1];
        for leaf in [0, 1, 2, 7, 0xd, 0x15, 0x16] {
            if leaf <= max {
                basic[leaf as usize] = host(leaf, 0);
            }
        }
        basic[0][0] = BASIC_MAX;
        let one = &mut basic[1];
        // The initial APIC ID is the vCPU's; the CLFLUSH line size stays.
        one[1] &= 0x0000_ff00;
        one[2] = one[2] & !LEAF1_ECX_HIDDEN | LEAF1_ECX_HYPERVISOR;
        one[3] &= !LEAF1_EDX_HIDDEN;
        if offer.apic {
            one[2] |= LEAF1_ECX_APIC;
            one[3] |= LEAF1_EDX_APIC;
        }
        if offer.vcpus > 1 {
            one[1] |= offer.vcpus.next_power_of_two() << 16;
            one[3] |= LEAF1_EDX_HTT;
        }
        let seven = &mut basic[7];
        let invpcid = if offer.invpcid { LEAF7_EBX_INVPCID } else { 0 };
        let rdpid = if offer.rdtscp { 0 } else { LEAF7_ECX_RDPID };
        *seven = [
            0,
            seven[1] & (LEAF7_EBX_SHOWN | invpcid),
            seven[2] & LEAF7_ECX_SHOWN & !rdpid,
            0,
        ];
        let xsave = Self::xsave_leaves(offer, max);
        basic[0xd] = xsave[0];
        // The crystal also clocks the local APIC's timer.
        let hz = u32::try_from(offer.tsc_hz).unwrap_or(0);
        basic[0x15] = if hz == 0 {
            [0; 4]
        } else {
            [1, CRYSTAL_DIVIDER, hz / CRYSTAL_DIVIDER, 0]
        };
        let mhz = (offer.tsc_hz / 1_000_000) as u32;
        basic[0x16] = [mhz, mhz, 100, 0];

        let mut extended = [[0; 4]; (EXTENDED_MAX - EXTENDED_BASE) as usize + 1];
        let extended_max = host(EXTENDED_BASE, 0)[0];
        for (index, registers) in extended.iter_mut().enumerate() {
            let leaf = EXTENDED_BASE + index as u32;
            if leaf <= extended_max {
                *registers = host(leaf, 0);
            }
        }
        extended[0] = [EXTENDED_MAX, 0, 0, 0];
        extended[1][2] &= EXTENDED_ECX_SHOWN;
        extended[1][3] &= EXTENDED_EDX_SHOWN | (EXTENDED_EDX_LIKE_LEAF1 & !LEAF1_EDX_HIDDEN);
        if !offer.rdtscp {
            extended[1][3] &= !EXTENDED_EDX_RDTSCP;
        }
        let invariant = if offer.paravirtual_clock {
            0
        } else {
            INVARIANT_TSC
        };
        extended[7] = [0, 0, 0, extended[7][3] & invariant];
        extended[8] = [extended[8][0], 0, 0, 0];
        let khz = (offer.tsc_hz / 1000) as u32;
        Self {
            basic,
            extended,
            xsave,
            hypervisor: [HYPERVISOR_TIMING, SIGNATURE[0], SIGNATURE[1], SIGNATURE[2]],
            timing: [khz, 0, 0, 0],
            vcpus: if offer.apic { offer.vcpus } else { 0 },
            kvm_features: if offer.paravirtual_clock {
                KVM_CLOCK
            } else {
                0
            },
        }
    }

    fn xsave_leaves(offer: &Offer, max: u32) -> [Registers; XSAVE_LEAVES] {
        let mut leaves = [[0; 4]; XSAVE_LEAVES];
        if max < 0xd {
            return leaves;
        }
        let mut size = XSAVE_LEGACY;
        for (component, leaf) in leaves.iter_mut().enumerate().skip(2) {
            if offer.xcr0 & (1 << component) != 0 {
                let [length, offset, ..] = host(0xd, component as u32);
                *leaf = [length, offset, 0, 0];
                size = size.max(offset + length);
            }
        }
        leaves[0] = [offer.xcr0 as u32, XSAVE_LEGACY, size, 0];
        leaves[1] = [host(0xd, 1)[0] & LEAF_D1_EAX_SHOWN, 0, 0, 0];
        leaves
    }

    /// What CPUID returns for a leaf and sub-leaf. A leaf beyond the last one returns zeros.
    #[inline(always)]
    pub(crate) fn get(&self, leaf: u32, sub_leaf: u32, live: impl FnOnce() -> Live) -> Registers {
        if leaf <= BASIC_MAX {
            if SUB_LEAF_OR_LIVE & (1 << leaf) == 0 {
                return self.basic[leaf as usize];
            }
            if leaf == 7 {
                return if sub_leaf == 0 { self.basic[7] } else { [0; 4] };
            }
            return self.live(leaf, sub_leaf, live());
        }
        match leaf {
            EXTENDED_BASE..=EXTENDED_MAX => self.extended[(leaf - EXTENDED_BASE) as usize],
            HYPERVISOR_BASE => self.hypervisor,
            HYPERVISOR_TIMING => self.timing,
            KVM_BASE => [
                KVM_FEATURES,
                KVM_SIGNATURE[0],
                KVM_SIGNATURE[1],
                KVM_SIGNATURE[2],
            ],
            KVM_FEATURES => [self.kvm_features, 0, 0, 0],
            _ => [0; 4],
        }
    }

    fn live(&self, leaf: u32, sub_leaf: u32, live: Live) -> Registers {
        if leaf == 1 {
            let mut registers = self.basic[1];
            if live.osxsave {
                registers[2] |= LEAF1_ECX_OSXSAVE;
            }
            registers[1] |= live.apic_id << 24;
            return registers;
        }
        if leaf == LEAF_TOPOLOGY {
            return self.topology(sub_leaf, live.apic_id);
        }
        let Some(registers) = self.xsave.get(sub_leaf as usize) else {
            return [0; 4];
        };
        let mut registers = *registers;
        if sub_leaf == 0 {
            // The size of an area for what is enabled now.
            registers[1] = self.xsave_size(live.xcr0);
        }
        registers
    }

    /// Leaf 0xB: each processor is a core of one thread, all of them in one package.
    fn topology(&self, level: u32, apic_id: u32) -> Registers {
        const THREAD: u32 = 1 << 8;
        const CORE: u32 = 2 << 8;
        match level {
            _ if self.vcpus == 0 => [0; 4],
            0 => [0, 1, THREAD, apic_id],
            1 => {
                let bits = self.vcpus.next_power_of_two().ilog2();
                [bits, self.vcpus, CORE | level, apic_id]
            }
            _ => [0, 0, level & 0xff, apic_id],
        }
    }

    fn xsave_size(&self, xcr0: u64) -> u32 {
        let components = self.xsave.iter().enumerate().skip(2);
        components
            .filter(|(component, _)| xcr0 & (1 << component) != 0)
            .map(|(_, [length, offset, ..])| offset + length)
            .fold(XSAVE_LEGACY, u32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer = Offer {
        tsc_hz: 50_000_000,
        xcr0: 7,
        rdtscp: true,
        invpcid: false,
        apic: false,
        vcpus: 1,
        paravirtual_clock: false,
    };

    fn get(leaf: u32, sub_leaf: u32, osxsave: bool) -> Registers {
        Cpuid::new(&OFFER).get(leaf, sub_leaf, || Live {
            osxsave,
            xcr0: 3,
            apic_id: 0,
        })
    }

    #[test]
    fn processors_are_told_apart() {
        let cpuid = Cpuid::new(&Offer {
            apic: true,
            vcpus: 3,
            ..OFFER
        });
        let get = |leaf, sub_leaf| {
            cpuid.get(leaf, sub_leaf, || Live {
                osxsave: false,
                xcr0: 1,
                apic_id: 2,
            })
        };
        let [_, ebx, _, edx] = get(1, 0);
        assert_eq!((ebx >> 24, ebx >> 16 & 0xff), (2, 4));
        assert_ne!(edx & LEAF1_EDX_HTT, 0);
        assert_eq!(get(0xb, 0), [0, 1, 0x100, 2]);
        assert_eq!(get(0xb, 1), [2, 3, 0x201, 2]);
        assert_eq!(get(0xb, 2), [0, 0, 2, 2]);
    }

    #[test]
    fn virtualization_and_the_apic_are_hidden() {
        let [_, _, ecx, edx] = get(1, 0, false);
        assert_eq!(ecx & (1 << 5 | 1 << 6 | 1 << 21 | 1 << 27), 0);
        assert_ne!(ecx & (1 << 31), 0);
        assert_eq!(edx & (1 << 9), 0);
        assert_ne!(get(1, 0, true)[2] & (1 << 27), 0);
        let [_, _, ecx, edx] = get(0x8000_0001, 0, false);
        // SVM and the APIC's extension; FFXSR and the APIC.
        assert_eq!(ecx & (1 << 2 | 1 << 3), 0);
        assert_eq!(edx & (1 << 25 | 1 << 9), 0);
    }

    #[test]
    fn the_tsc_leaves_agree() {
        let [denominator, numerator, crystal, _] = get(0x15, 0, false);
        let shown = u64::from(crystal) * u64::from(numerator) / u64::from(denominator);
        assert_eq!(shown, OFFER.tsc_hz);
        assert_eq!(get(0x16, 0, false)[0], 50);
        assert_eq!(get(HYPERVISOR_TIMING, 0, false)[0], 50_000);
    }

    #[test]
    fn a_paravirtual_clock_stands_in_for_the_tsc() {
        let offer = Offer {
            paravirtual_clock: true,
            ..OFFER
        };
        let cpuid = Cpuid::new(&offer);
        let get = |leaf| {
            cpuid.get(leaf, 0, || Live {
                osxsave: false,
                xcr0: 1,
                apic_id: 0,
            })
        };
        assert_eq!(get(KVM_FEATURES)[0], 0x0100_0008);
        assert_eq!(get(0x8000_0007), [0; 4]);
    }

    #[test]
    fn unknown_leaves_are_zero() {
        for leaf in [
            0x3,
            0x5,
            0x6,
            0xa,
            0xb,
            0x12,
            0x14,
            0x17,
            0x1f,
            0x8000_0009,
            0x4000_0001,
            !0,
        ] {
            assert_eq!(get(leaf, 0, false), [0; 4], "leaf {leaf:#x}");
        }
        assert_eq!(get(7, 1, false), [0; 4]);
        assert_eq!(get(0xd, 63, false), [0; 4]);
    }

    #[test]
    fn the_xsave_size_follows_xcr0() {
        assert_eq!(get(0xd, 0, false)[1], 576);
        assert_eq!(get(0xd, 0, false)[0], 7);
        // No compacted form is offered.
        assert_eq!(get(0xd, 1, false)[0] & 0b1010, 0);
    }
}

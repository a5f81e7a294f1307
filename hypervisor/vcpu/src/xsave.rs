//! The x87, SSE, AVX and further user state: XSAVE areas (Intel SDM volume 1, chapter 13).

use crate::error::RestoreError;
use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use alloc::vec;
use alloc::vec::Vec;
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::ptr::NonNull;
use serde::{Deserialize, Serialize};

/// Alignment of an XSAVE area (section 13.4).
const ALIGN: usize = 64;
/// Legacy region and header: the least an XSAVE area can be.
const MIN: usize = 576;
/// What of the legacy region has a meaning: x87 and SSE registers (table 13-1).
const LEGACY: usize = 416;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
/// XSTATE_BV, the first word of the header: the components that are not in their initial state.
const XSTATE_BV: usize = 512;
/// The x87 and SSE components, which the legacy region holds.
const X87_AND_SSE: u64 = 0b11;
/// The first component behind the header, and the end of those that the shell switches.
const COMPONENTS: core::ops::Range<u8> = 2..10;
/// The bounds configuration and status registers.
const BNDCSR: u8 = 4;

/// The state components that both this processor and the shells can switch (CPUID leaf 0xD).
#[must_use]
pub fn supported_xcr0() -> u64 {
    let leaf = __cpuid_count(0xd, 0);
    let all = (u64::from(leaf.edx) << 32) | u64::from(leaf.eax);
    // x87, SSE, AVX, MPX, AVX-512 and PKRU: the components that XSAVE alone can move.
    all & 0x2ff
}

/// Whether XSETBV takes this value for XCR0 where `supported` is what there is (section 13.3).
#[must_use]
pub fn xcr0_is_valid(value: u64, supported: u64) -> bool {
    const X87: u64 = 1 << 0;
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const MPX: u64 = 0b11 << 3;
    const AVX512: u64 = 0b111 << 5;
    let all_or_none = |mask: u64| value & mask == 0 || value & mask == mask;
    value & !supported == 0
        && value & X87 != 0
        && (value & AVX == 0 || value & SSE != 0)
        && all_or_none(MPX)
        && all_or_none(AVX512)
        && (value & AVX512 == 0 || value & AVX != 0)
}

/// Where a processor keeps the state components in an area of standard format (CPUID leaf 0xD).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaLayout {
    /// Bytes that the area must have for every component of the processor.
    pub(crate) size: usize,
    /// Offset and size in bytes of components 2 to 9; size 0 for those that are not switched.
    pub(crate) components: [(usize, usize); COMPONENTS.end as usize],
}

impl AreaLayout {
    /// The layout of this processor, for the components in `xcr0`.
    #[must_use]
    pub fn probe(xcr0: u64) -> Self {
        let mut components = [(0, 0); COMPONENTS.end as usize];
        for (number, component) in components.iter_mut().enumerate().skip(2) {
            if xcr0 & (1 << number) != 0 {
                let leaf = __cpuid_count(0xd, number as u32);
                *component = (leaf.ebx as usize, leaf.eax as usize);
            }
        }
        Self {
            size: __cpuid_count(0xd, 0).ecx as usize,
            components,
        }
    }

    fn component(&self, number: u8) -> (usize, usize) {
        self.components
            .get(usize::from(number))
            .copied()
            .unwrap_or((0, 0))
    }
}

/// The saved user state of a vCPU, by component: another processor may keep them elsewhere in its area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendedStateV1 {
    /// The x87 and SSE registers: the first 416 bytes of the legacy region (table 13-1), MXCSR_MASK zero.
    pub legacy: Vec<u8>,
    /// The other components that are not in their initial state, in rising order.
    pub components: Vec<ComponentV1>,
}

/// A saved state component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentV1 {
    /// Its bit in XCR0.
    pub number: u8,
    /// What it holds, as XSAVE writes it.
    pub bytes: Vec<u8>,
}

impl ExtendedStateV1 {
    /// Every component in its initial state.
    pub(crate) fn initial() -> Self {
        const FCW_INITIAL: u16 = 0x37f;
        const MXCSR_INITIAL: u32 = 0x1f80;
        let mut legacy = vec![0; LEGACY];
        legacy[..2].copy_from_slice(&FCW_INITIAL.to_le_bytes());
        legacy[MXCSR..MXCSR + 4].copy_from_slice(&MXCSR_INITIAL.to_le_bytes());
        Self {
            legacy,
            components: Vec::new(),
        }
    }

    /// Refuses what XRSTOR would fault on, or what has no place in this processor's area.
    pub(crate) fn check(&self, layout: &AreaLayout, linear_bits: u32) -> Result<(), RestoreError> {
        /// Every processor with XSAVE implements bits 0 to 15 of MXCSR, and no more.
        const MXCSR_DEFINED: u32 = 0xffff;
        let mxcsr =
            word(&self.legacy, MXCSR).ok_or(RestoreError::Invalid("size of the x87 state"))?;
        if self.legacy.len() != LEGACY {
            return Err(RestoreError::Invalid("size of the x87 state"));
        }
        if mxcsr & !MXCSR_DEFINED != 0 {
            return Err(RestoreError::Invalid("MXCSR"));
        }
        if word(&self.legacy, MXCSR_MASK) != Some(0) {
            return Err(RestoreError::Invalid("MXCSR_MASK"));
        }
        let mut next = COMPONENTS.start;
        for component in &self.components {
            if component.number < next {
                return Err(RestoreError::Invalid("order of the state components"));
            }
            next = component.number.saturating_add(1);
            match layout.component(component.number).1 {
                0 => return Err(RestoreError::Unsupported("a state component")),
                size if size != component.bytes.len() => {
                    return Err(RestoreError::Invalid("size of a state component"));
                }
                _ => {}
            }
            if is_initial(&component.bytes) {
                return Err(RestoreError::Invalid(
                    "a state component in its initial state",
                ));
            }
            if component.number == BNDCSR && !bounds_are_valid(&component.bytes, linear_bits) {
                return Err(RestoreError::Invalid("BNDCFGU"));
            }
        }
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn double_word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// The initial state of every component behind the header is all zeroes (section 13.6).
fn is_initial(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// BNDCFGU has reserved bits and an address (volume 1, appendix E).
fn bounds_are_valid(bndcsr: &[u8], linear_bits: u32) -> bool {
    const RESERVED: u64 = 0xffc;
    double_word(bndcsr, 0).is_some_and(|config| {
        config & RESERVED == 0 && crate::saved::is_canonical(config, linear_bits)
    })
}

/// An XSAVE area in standard format.
#[derive(Debug)]
pub(crate) struct Area {
    bytes: NonNull<u8>,
    layout: Layout,
    of: AreaLayout,
}

// SAFETY: the area is plain memory owned by this value.
unsafe impl Send for Area {}

impl Area {
    /// An area in which every component is in its initial state.
    pub(crate) fn new(of: &AreaLayout) -> Self {
        let size = of.size.max(MIN).next_multiple_of(ALIGN);
        let Ok(layout) = Layout::from_size_align(size, ALIGN) else {
            unreachable!("the processor reports an XSAVE area of {size} bytes")
        };
        // SAFETY: the layout's size is not zero.
        let Some(bytes) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        let mut new = Self {
            bytes,
            layout,
            of: *of,
        };
        new.set(&ExtendedStateV1::initial());
        new
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: allocated with this size, initialized, and borrowed as `self` is.
        unsafe { core::slice::from_raw_parts(self.bytes.as_ptr(), self.layout.size()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.layout.size()) }
    }

    /// What the last [`Area::save`] or [`Area::set`] left here.
    pub(crate) fn state(&self) -> ExtendedStateV1 {
        let bytes = self.bytes();
        let mut legacy = bytes.get(..LEGACY).unwrap_or_default().to_vec();
        if let Some(mask) = legacy.get_mut(MXCSR_MASK..MXCSR_MASK + 4) {
            // A property of the processor, and ignored by XRSTOR.
            mask.fill(0);
        }
        let in_use = double_word(bytes, XSTATE_BV).unwrap_or(0);
        let components = COMPONENTS
            .filter(|number| in_use & (1 << number) != 0)
            .filter_map(|number| {
                let (offset, size) = self.of.component(number);
                let bytes = bytes.get(offset..offset + size)?;
                // A component may count as in use with its initial values in it.
                (!is_initial(bytes)).then(|| ComponentV1 {
                    number,
                    bytes: bytes.to_vec(),
                })
            })
            .collect();
        ExtendedStateV1 { legacy, components }
    }

    /// Puts a state here that [`ExtendedStateV1::check`] let through for this area's layout.
    pub(crate) fn set(&mut self, state: &ExtendedStateV1) {
        let of = self.of;
        let bytes = self.bytes_mut();
        bytes.fill(0);
        let mut put = |offset: usize, from: &[u8]| {
            if let Some(to) = bytes.get_mut(offset..offset + from.len()) {
                to.copy_from_slice(from);
            }
        };
        put(0, &state.legacy);
        let mut in_use = X87_AND_SSE;
        for component in &state.components {
            in_use |= 1 << component.number;
            put(of.component(component.number).0, &component.bytes);
        }
        put(XSTATE_BV, &in_use.to_le_bytes());
    }

    /// XSAVE of every component enabled in XCR0.
    ///
    /// # Safety
    ///
    /// CR4.OSXSAVE must be set, and the area be as large as the components in XCR0 need.
    pub(crate) unsafe fn save(&mut self) {
        // SAFETY: by contract the area is large enough; it is 64-byte aligned.
        unsafe {
            asm!("xsave64 [{area}]", area = in(reg) self.bytes.as_ptr(), in("eax") !0u32, in("edx") !0u32,
                options(nostack, preserves_flags));
        }
    }

    /// XRSTOR of every component enabled in XCR0.
    ///
    /// # Safety
    ///
    /// As [`Area::save`], with every component of the area enabled; the hypervisor's code must not use
    /// the registers that change.
    pub(crate) unsafe fn restore(&self) {
        // SAFETY: the area holds what `save` or `set` put there, so header and MXCSR are valid.
        unsafe {
            asm!("xrstor64 [{area}]", area = in(reg) self.bytes.as_ptr(), in("eax") !0u32, in("edx") !0u32,
                options(nostack, preserves_flags));
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout and not freed before.
        unsafe { dealloc(self.bytes.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A processor with AVX at a usual place and PKRU at an unusual one.
    fn layout() -> AreaLayout {
        let mut components = [(0, 0); 10];
        components[2] = (576, 256);
        components[9] = (1024, 8);
        AreaLayout {
            size: 1032,
            components,
        }
    }

    fn pkru(bytes: &[u8]) -> ExtendedStateV1 {
        ExtendedStateV1 {
            components: vec![ComponentV1 {
                number: 9,
                bytes: bytes.to_vec(),
            }],
            ..ExtendedStateV1::initial()
        }
    }

    #[test]
    fn components_go_where_the_processor_wants_them() {
        let mut area = Area::new(&layout());
        area.set(&pkru(&[1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(area.bytes()[1024..1032], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(double_word(area.bytes(), XSTATE_BV), Some(0x203));
        // Standard format, reserved words zero: XRSTOR faults on anything else.
        assert!(area.bytes()[520..576].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_xrstor_would_fault_on_is_refused() {
        let check = |state: &ExtendedStateV1| state.check(&layout(), 48);
        assert_eq!(check(&ExtendedStateV1::initial()), Ok(()));
        let mut mxcsr = ExtendedStateV1::initial();
        mxcsr.legacy[MXCSR + 2] = 1;
        assert_eq!(check(&mxcsr), Err(RestoreError::Invalid("MXCSR")));
        let mut short = ExtendedStateV1::initial();
        short.legacy.pop();
        assert!(check(&short).is_err());
        assert!(check(&pkru(&[1; 7])).is_err());
        let mut twice = pkru(&[1; 8]);
        twice.components.push(twice.components[0].clone());
        assert!(check(&twice).is_err());
        let mut absent = pkru(&[1; 8]);
        for number in [0, 1, 3, 10, 62, 63, 255] {
            absent.components[0].number = number;
            assert!(check(&absent).is_err(), "{number}");
        }
    }

    #[test]
    fn bounds_configuration_is_checked() {
        let bndcsr = |config: u64| {
            let mut bytes = [0; 64];
            bytes[..8].copy_from_slice(&config.to_le_bytes());
            bounds_are_valid(&bytes, 48)
        };
        assert!(bndcsr(0x7fff_ffff_f003));
        assert!(!bndcsr(0x4));
        assert!(!bndcsr(0x8000_0000_0000));
    }

    proptest! {
        #[test]
        fn a_state_comes_back_as_it_was_put(
            legacy in prop::collection::vec(any::<u8>(), LEGACY),
            avx in prop::collection::vec(any::<u8>(), 256),
            with_avx: bool,
        ) {
            let mut state = ExtendedStateV1 { legacy, components: Vec::new() };
            state.legacy[MXCSR + 2..MXCSR_MASK + 4].fill(0);
            if with_avx && !is_initial(&avx) {
                state.components.push(ComponentV1 { number: 2, bytes: avx });
            }
            prop_assert_eq!(state.check(&layout(), 48), Ok(()));
            let mut area = Area::new(&layout());
            area.set(&state);
            prop_assert_eq!(area.state(), state);
        }

        #[test]
        fn accepted_values_of_xcr0_enable_whole_groups(value: u64, supported in 0u64..0x400) {
            if xcr0_is_valid(value, supported | 1) {
                prop_assert_eq!(value & 1, 1);
                prop_assert_eq!(value & !(supported | 1), 0);
                prop_assert!(matches!(value >> 3 & 3, 0 | 3));
                prop_assert!(matches!(value >> 5 & 7, 0 | 7));
            }
        }
    }
}

use super::*;
use crate::error::RestoreError;
use crate::state::EventKind;
use proptest::prelude::*;

/// A processor with AVX, PKRU and most of CR4.
fn limits() -> Limits {
    let mut components = [(0, 0); 10];
    components[2] = (576, 256);
    components[9] = (2688, 8);
    Limits {
        cr4: 0x77_0fff & !(1 << 13),
        physical_bits: 40,
        linear_bits: 48,
        xcr0: 0x207,
        tsc_aux: true,
        area: AreaLayout {
            size: 2696,
            components,
        },
    }
}

fn real() -> VcpuStateV1 {
    VcpuStateV1::at_start(&StartState::RealMode { page: 0x9f })
}

fn protected() -> VcpuStateV1 {
    VcpuStateV1::at_start(&StartState::Protected32 {
        eip: 0x10_0000,
        eax: 0x2bad_b002,
        ebx: 0x9000,
    })
}

fn long() -> VcpuStateV1 {
    VcpuStateV1::at_start(&StartState::Long64 {
        rip: 0xffff_ffff_8100_0000,
        rsi: 0x9_0000,
        cr3: 0x1000,
        gdt_base: 0x500,
        gdt_limit: 31,
        code: 0x10,
        data: 0x18,
    })
}

/// Protected mode with PAE paging, virtual-8086 code.
fn virtual_8086() -> VcpuStateV1 {
    let mut state = protected();
    state.cr0 |= 1 << 31;
    state.cr4 |= 1 << 5;
    state.pdptes = [0x2001, 0, 0, 0xff_ffff_f001];
    state.rflags |= 1 << 17;
    for register in &SegmentRegister::ALL[..6] {
        *state.segment_mut(*register) = Segment {
            selector: 0x1234,
            base: 0x1_2340,
            limit: 0xffff,
            access: 0xf3,
        };
    }
    state
}

fn interrupt(state: VcpuStateV1) -> VcpuStateV1 {
    VcpuStateV1 {
        rflags: state.rflags | 1 << 9,
        event: Some(QueuedEvent {
            event: Event::interrupt(0x31),
            instruction_length: 0,
        }),
        ..state
    }
}

fn exception(vector: u8, error_code: Option<u32>) -> Option<QueuedEvent> {
    Some(QueuedEvent {
        event: Event {
            kind: EventKind::HardwareException,
            vector,
            error_code,
        },
        instruction_length: 0,
    })
}

#[test]
fn a_start_up_ipi_starts_at_its_page_in_real_mode() {
    let state = real();
    let code = state.segment(SegmentRegister::Cs);
    assert_eq!((code.selector, code.base), (0x9f00, 0x9_f000));
    assert_eq!((code.limit, state.rip), (0xffff, 0));
    let data = state.segment(SegmentRegister::Ds);
    assert_eq!((data.selector, data.base, data.limit), (0, 0, 0xffff));
    // Table 10-1: caches off, real mode.
    assert_eq!((state.cr0, state.cr4, state.efer), (0x6000_0010, 0, 0));
    assert_eq!((state.dr6, state.dr7), (0xffff_0ff0, 0x400));
    assert_ne!(state.gprs.rdx, 0);
    let rest = Gprs {
        rdx: 0,
        ..state.gprs
    };
    assert_eq!(rest, Gprs::default());
}

#[test]
fn states_that_guests_are_in_are_accepted() {
    for (name, state) in [
        ("real", real()),
        ("protected", protected()),
        ("long", long()),
        ("virtual 8086", virtual_8086()),
        ("interrupt", interrupt(long())),
    ] {
        assert_eq!(state.check(&limits()), Ok(()), "{name}");
    }
}

/// One change to a good state, and what it is refused for.
#[test]
fn states_that_entry_would_refuse_are_refused() {
    type Start = fn() -> VcpuStateV1;
    type Change = fn(&mut VcpuStateV1);
    let invalid = RestoreError::Invalid;
    let unsupported = RestoreError::Unsupported;
    let of = RestoreError::Segment;
    use SegmentRegister::{Cs, Ds, Fs, Ldtr, Ss, Tr};
    let cases: &[(Start, Change, RestoreError)] = &[
        (long, |s| s.cr0 |= 1 << 32, invalid("reserved bits of CR0")),
        (long, |s| s.cr0 |= 1 << 6, invalid("reserved bits of CR0")),
        (
            long,
            |s| s.cr0 &= !1,
            invalid("CR0: paging outside protected mode"),
        ),
        (long, |s| s.cr0 |= 1 << 29, invalid("CR0: NW without CD")),
        (long, |s| s.cr4 |= 1 << 13, unsupported("bits of CR4")),
        (
            protected,
            |s| s.cr4 |= 1 << 17,
            invalid("CR4: PCIDE outside IA-32e mode"),
        ),
        (
            long,
            |s| s.efer |= 1 << 9,
            invalid("reserved bits of IA32_EFER"),
        ),
        (long, |s| s.efer &= !(1 << 10), invalid("IA32_EFER.LMA")),
        (protected, |s| s.efer |= 1 << 10, invalid("IA32_EFER.LMA")),
        (
            long,
            |s| s.cr4 &= !(1 << 5),
            invalid("IA-32e mode without CR4.PAE"),
        ),
        (long, |s| s.cr3 = 1 << 40, invalid("CR3")),
        (
            virtual_8086,
            |s| s.pdptes[1] = 3,
            invalid("page-directory-pointer entries"),
        ),
        (
            long,
            |s| s.pdptes[0] = 1,
            invalid("page-directory-pointer entries"),
        ),
        (long, |s| s.dr6 |= 1 << 32, invalid("DR6")),
        (long, |s| s.dr6 = 0, invalid("DR6")),
        (long, |s| s.dr7 |= 1 << 32, invalid("DR7")),
        (long, |s| s.lstar = 1 << 47, invalid("IA32_LSTAR")),
        (
            long,
            |s| s.kernel_gs_base = 1 << 63,
            invalid("IA32_KERNEL_GS_BASE"),
        ),
        (
            long,
            |s| s.sysenter_esp = 1 << 48,
            invalid("IA32_SYSENTER_ESP"),
        ),
        (long, |s| s.fmask = 1 << 32, invalid("IA32_FMASK")),
        (long, |s| s.tsc_aux = 1 << 32, invalid("IA32_TSC_AUX")),
        (long, |s| s.pat = 2, invalid("IA32_PAT")),
        (long, |s| s.xcr0 = 0, invalid("XCR0")),
        (long, |s| s.xcr0 = 0b101, invalid("XCR0")),
        (long, |s| s.xcr0 = 0x1f, unsupported("bits of XCR0")),
        (
            long,
            |s| s.segment_mut(Cs).access |= 1 << 16,
            of(Cs, "absence"),
        ),
        (
            long,
            |s| s.segment_mut(Cs).access &= !(1 << 7),
            of(Cs, "access rights"),
        ),
        (
            long,
            |s| s.segment_mut(Cs).access |= 1 << 14,
            of(Cs, "size"),
        ),
        (long, |s| s.segment_mut(Cs).base = 1 << 32, of(Cs, "base")),
        (
            long,
            |s| s.segment_mut(Cs).access |= 3 << 5,
            of(Cs, "privilege level"),
        ),
        (
            real,
            |s| s.segment_mut(Ss).access |= 3 << 5,
            of(Ss, "privilege level"),
        ),
        (long, |s| s.segment_mut(Fs).base = 1 << 47, of(Fs, "base")),
        (long, |s| s.segment_mut(Ds).access &= !1, of(Ds, "type")),
        (
            long,
            |s| s.segment_mut(Ds).access |= 1 << 8,
            of(Ds, "access rights"),
        ),
        (long, |s| s.segment_mut(Ds).limit = 0x1000, of(Ds, "limit")),
        (long, |s| s.segment_mut(Tr).access = 0x83, of(Tr, "type")),
        (
            long,
            |s| s.segment_mut(Tr).access |= 1 << 16,
            of(Tr, "absence"),
        ),
        (long, |s| s.segment_mut(Tr).selector = 4, of(Tr, "selector")),
        (
            long,
            |s| s.segment_mut(Ldtr).access = 0x92,
            of(Ldtr, "type"),
        ),
        (virtual_8086, |s| s.segment_mut(Ds).base = 0, of(Ds, "base")),
        (
            virtual_8086,
            |s| s.segment_mut(Ss).access = 0x93,
            of(Ss, "access rights"),
        ),
        (long, |s| s.gdtr.base = 1 << 47, invalid("GDTR")),
        (long, |s| s.idtr.limit = 0x1_0000, invalid("IDTR")),
        (protected, |s| s.rip = 1 << 32, invalid("RIP")),
        (long, |s| s.rip = 1 << 48, invalid("RIP")),
        (long, |s| s.rflags = 0, invalid("RFLAGS")),
        (long, |s| s.rflags |= 1 << 15, invalid("RFLAGS")),
        (
            real,
            |s| s.rflags |= 1 << 17,
            of(SegmentRegister::Es, "access rights"),
        ),
        (
            long,
            |s| s.interruptibility = blocking::STI,
            invalid("interruptibility"),
        ),
        (
            long,
            |s| s.interruptibility = 1 << 2,
            invalid("interruptibility"),
        ),
        (
            long,
            |s| s.pending_debug = 1 << 15,
            invalid("pending debug exceptions"),
        ),
        (
            long,
            |s| {
                s.interruptibility = blocking::MOV_SS;
                s.rflags |= 1 << 8;
            },
            invalid("pending debug exceptions"),
        ),
        (
            || interrupt(long()),
            |s| s.rflags = 2,
            invalid("queued event"),
        ),
        (
            || interrupt(long()),
            |s| s.interruptibility = blocking::STI,
            invalid("queued event"),
        ),
        (
            long,
            |s| s.event = exception(32, None),
            invalid("queued event"),
        ),
        (
            long,
            |s| s.event = exception(13, None),
            invalid("error code of the queued event"),
        ),
        (
            real,
            |s| s.event = exception(13, Some(0)),
            invalid("error code of the queued event"),
        ),
        (
            long,
            |s| {
                s.event = exception(6, None);
                s.event.as_mut().unwrap().event.kind = EventKind::SoftwareException;
            },
            invalid("instruction length of the queued event"),
        ),
        (long, |s| s.extended.legacy[27] = 1, invalid("MXCSR")),
    ];
    for (number, (state, change, error)) in cases.iter().enumerate() {
        let mut state = state();
        assert_eq!(state.check(&limits()), Ok(()), "case {number}, unchanged");
        change(&mut state);
        assert_eq!(state.check(&limits()), Err(*error), "case {number}");
    }
}

#[test]
fn messages_name_the_cause() {
    assert_eq!(
        RestoreError::Segment(SegmentRegister::Cs, "type").to_string(),
        "invalid state of a virtual processor: type of segment register Cs"
    );
    assert_eq!(
        RestoreError::Unsupported("bits of CR4").to_string(),
        "this processor lacks what the state uses: bits of CR4"
    );
}

fn state() -> impl Strategy<Value = VcpuStateV1> {
    (
        prop::sample::select(vec![
            real(),
            protected(),
            long(),
            virtual_8086(),
            interrupt(long()),
        ]),
        any::<[u64; 4]>(),
    )
        .prop_map(|(state, [rax, star, cr2, dr0])| VcpuStateV1 {
            gprs: Gprs { rax, ..state.gprs },
            star,
            cr2,
            breakpoints: [dr0, 0, 0, 0],
            ..state
        })
}

proptest! {
    #[test]
    fn a_state_survives_its_encoding(state in state()) {
        let bytes = postcard::to_allocvec(&state).unwrap();
        prop_assert_eq!(postcard::from_bytes::<VcpuStateV1>(&bytes), Ok(state.clone()));
        prop_assert_eq!(state.check(&limits()), Ok(()));
    }

    #[test]
    fn a_damaged_state_is_decoded_or_refused(
        state in state(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = postcard::to_allocvec(&state).unwrap();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(state) = postcard::from_bytes::<VcpuStateV1>(&bytes)
            && state.check(&limits()).is_ok()
        {
            // What is accepted can be put into an area without loss.
            let mut area = crate::xsave::Area::new(&limits().area);
            area.set(&state.extended);
            prop_assert_eq!(area.state(), state.extended);
        }
    }

    #[test]
    fn canonical_addresses_sign_extend(address: u64) {
        let upper = address >> 47;
        prop_assert_eq!(is_canonical(address, 48), upper == 0 || upper == 0x1_ffff);
        prop_assert_eq!(is_canonical(address, 57), matches!(address >> 56, 0 | 0xff));
    }
}

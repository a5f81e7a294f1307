mod forms;
mod model;
#[cfg(target_arch = "x86_64")]
mod native;

use super::*;
use Event::{Read, Write};
use proptest::prelude::*;

/// What the device sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Read(u32),
    Write(u32, u64),
}

/// A device that reads as the same 64 bits whatever the size.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Device {
    value: u64,
    events: Vec<Event>,
}

impl Device {
    fn new(value: u64) -> Self {
        Self {
            value,
            events: vec![],
        }
    }
}

impl Target for Device {
    fn read(&mut self, size: u32) -> u64 {
        self.events.push(Read(size));
        self.value
    }

    fn write(&mut self, size: u32, value: u64) {
        self.events.push(Write(size, value));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cpu {
    gprs: [u64; 16],
    rflags: u64,
}

impl Cpu {
    /// Each register holds its encoding in every digit.
    fn new() -> Self {
        Self {
            gprs: core::array::from_fn(|encoding| encoding as u64 * 0x1111_1111_1111_1111),
            rflags: 2,
        }
    }
}

impl Registers for Cpu {
    fn gpr(&self, encoding: u8) -> u64 {
        self.gprs[usize::from(encoding)]
    }

    fn set_gpr(&mut self, encoding: u8, value: u64) {
        self.gprs[usize::from(encoding)] = value;
    }

    fn rflags(&self) -> u64 {
        self.rflags
    }

    fn set_rflags(&mut self, value: u64) {
        self.rflags = value;
    }
}

struct Case {
    text: &'static str,
    bitness: u32,
    bytes: &'static [u8],
    events: &'static [Event],
    /// Registers that change.
    changed: &'static [(u8, u64)],
}

const fn case(
    bitness: u32,
    text: &'static str,
    bytes: &'static [u8],
    events: &'static [Event],
    changed: &'static [(u8, u64)],
) -> Case {
    Case {
        text,
        bitness,
        bytes,
        events,
        changed,
    }
}

/// What the device reads as in the cases.
const VALUE: u64 = 0x8765_4321_fedc_ba98;

/// The bytes are as an assembler makes them.
#[rustfmt::skip]
const CASES: &[Case] = &[
    // How Linux reaches the local APIC: through a fixed mapping or a pointer, and with an exchange
    // for the erratum of the first Pentiums.
    case(64, "mov eax, [0xffffffffff5fc020]", &[0x8b, 0x04, 0x25, 0x20, 0xc0, 0x5f, 0xff], &[Read(4)], &[(0, 0xfedc_ba98)]),
    case(64, "mov eax, [rdi - 0xa03fe0]", &[0x8b, 0x87, 0x20, 0xc0, 0x5f, 0xff], &[Read(4)], &[(0, 0xfedc_ba98)]),
    case(64, "mov [rdi - 0xa04000], esi", &[0x89, 0xb7, 0x00, 0xc0, 0x5f, 0xff], &[Write(4, 0x6666_6666)], &[]),
    case(64, "mov dword [0xffffffffff5fc0b0], 0", &[0xc7, 0x04, 0x25, 0xb0, 0xc0, 0x5f, 0xff, 0, 0, 0, 0], &[Write(4, 0)], &[]),
    case(64, "mov dword [rip + 8], 0x1ff", &[0xc7, 0x05, 8, 0, 0, 0, 0xff, 0x01, 0, 0], &[Write(4, 0x1ff)], &[]),
    case(64, "xchg [rdi], esi", &[0x87, 0x37], &[Read(4), Write(4, 0x6666_6666)], &[(6, 0xfedc_ba98)]),
    case(32, "mov eax, [0xfee00020]", &[0xa1, 0x20, 0x00, 0xe0, 0xfe], &[Read(4)], &[(0, 0xfedc_ba98)]),
    case(32, "mov [0xfee000b0], eax", &[0xa3, 0xb0, 0x00, 0xe0, 0xfe], &[Write(4, 0)], &[]),
    case(32, "mov ecx, [0xfee00030]", &[0x8b, 0x0d, 0x30, 0x00, 0xe0, 0xfe], &[Read(4)], &[(1, 0xfedc_ba98)]),
    case(32, "mov dword [0xfffff0b0], 0", &[0xc7, 0x05, 0xb0, 0xf0, 0xff, 0xff, 0, 0, 0, 0], &[Write(4, 0)], &[]),
    case(32, "xchg [0xfffff0b0], eax", &[0x87, 0x05, 0xb0, 0xf0, 0xff, 0xff], &[Read(4), Write(4, 0)], &[(0, 0xfedc_ba98)]),
    case(32, "mov al, [0xfec00010]", &[0xa0, 0x10, 0x00, 0xc0, 0xfe], &[Read(1)], &[(0, 0x98)]),
    case(32, "mov [0xfec00000], al", &[0xa2, 0x00, 0x00, 0xc0, 0xfe], &[Write(1, 0)], &[]),
    case(32, "mov ax, [0xfec00010]", &[0x66, 0xa1, 0x10, 0x00, 0xc0, 0xfe], &[Read(2)], &[(0, 0xba98)]),
    case(32, "or dword [0xfee000f0], 0x100", &[0x81, 0x0d, 0xf0, 0x00, 0xe0, 0xfe, 0x00, 0x01, 0, 0], &[Read(4), Write(4, 0xfedc_bb98)], &[]),
    case(32, "and dword [ebx], -2", &[0x83, 0x23, 0xfe], &[Read(4), Write(4, 0xfedc_ba98)], &[]),
    case(32, "and byte [ebx], 0x0f", &[0x80, 0x23, 0x0f], &[Read(1), Write(1, 0x08)], &[]),
    case(32, "lock or dword [ebx], 1", &[0xf0, 0x83, 0x0b, 0x01], &[Read(4), Write(4, 0xfedc_ba99)], &[]),
    case(32, "test dword [ebx + 0x300], 0x1000", &[0xf7, 0x83, 0, 3, 0, 0, 0, 0x10, 0, 0], &[Read(4)], &[]),
    // Sizes and extensions.
    case(64, "mov rax, [0x1122334455667788]", &[0x48, 0xa1, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11], &[Read(8)], &[(0, VALUE)]),
    case(64, "mov [rsi], rdx", &[0x48, 0x89, 0x16], &[Write(8, 0x2222_2222_2222_2222)], &[]),
    case(64, "mov qword [rsi], -2", &[0x48, 0xc7, 0x06, 0xfe, 0xff, 0xff, 0xff], &[Write(8, 0xffff_ffff_ffff_fffe)], &[]),
    case(64, "mov word [rsi], 0x8001", &[0x66, 0xc7, 0x06, 0x01, 0x80], &[Write(2, 0x8001)], &[]),
    case(64, "mov byte [rsi], 0x80", &[0xc6, 0x06, 0x80], &[Write(1, 0x80)], &[]),
    case(64, "mov r15d, [rax]", &[0x44, 0x8b, 0x38], &[Read(4)], &[(15, 0xfedc_ba98)]),
    case(64, "mov dx, [rax]", &[0x66, 0x8b, 0x10], &[Read(2)], &[(2, 0x2222_2222_2222_ba98)]),
    case(64, "mov dh, [rax]", &[0x8a, 0x30], &[Read(1)], &[(2, 0x2222_2222_2222_9822)]),
    case(64, "mov sil, [rax]", &[0x40, 0x8a, 0x30], &[Read(1)], &[(6, 0x6666_6666_6666_6698)]),
    case(64, "mov [rax], ch", &[0x88, 0x28], &[Write(1, 0x11)], &[]),
    case(64, "mov esp, [rax]", &[0x8b, 0x20], &[Read(4)], &[(4, 0xfedc_ba98)]),
    case(64, "movzx esi, byte [rax]", &[0x0f, 0xb6, 0x30], &[Read(1)], &[(6, 0x98)]),
    case(64, "movzx ecx, word [rax]", &[0x0f, 0xb7, 0x08], &[Read(2)], &[(1, 0xba98)]),
    case(64, "movzx cx, byte [rax]", &[0x66, 0x0f, 0xb6, 0x08], &[Read(1)], &[(1, 0x1111_1111_1111_0098)]),
    case(64, "movsx ecx, byte [rax]", &[0x0f, 0xbe, 0x08], &[Read(1)], &[(1, 0xffff_ff98)]),
    case(64, "movsx rcx, word [rax]", &[0x48, 0x0f, 0xbf, 0x08], &[Read(2)], &[(1, 0xffff_ffff_ffff_ba98)]),
    case(64, "movsxd r9, dword [rax]", &[0x4c, 0x63, 0x08], &[Read(4)], &[(9, 0xffff_ffff_fedc_ba98)]),
    case(64, "movbe ecx, [rax]", &[0x0f, 0x38, 0xf0, 0x08], &[Read(4)], &[(1, 0x98ba_dcfe)]),
    case(64, "movnti [rax], r8", &[0x4c, 0x0f, 0xc3, 0x00], &[Write(8, 0x8888_8888_8888_8888)], &[]),
    // Both written; the accumulator, which does not match, is loaded.
    case(64, "lock xadd [rax], ebp", &[0xf0, 0x0f, 0xc1, 0x28], &[Read(4), Write(4, 0x5432_0fed)], &[(5, 0xfedc_ba98)]),
    case(64, "lock cmpxchg [rbx], rcx", &[0xf0, 0x48, 0x0f, 0xb1, 0x0b], &[Read(8), Write(8, VALUE)], &[(0, VALUE)]),
    case(64, "xchg [rax], bh", &[0x86, 0x38], &[Read(1), Write(1, 0x33)], &[(3, 0x3333_3333_3333_9833)]),
    // 16-bit code, with its own address forms and prefixes.
    case(16, "mov [bx + si + 4], cx", &[0x89, 0x48, 0x04], &[Write(2, 0x1111)], &[]),
    case(16, "mov eax, [fs:edi]", &[0x64, 0x67, 0x66, 0x8b, 0x07], &[Read(4)], &[(0, 0xfedc_ba98)]),
    case(16, "mov al, [0x0400]", &[0xa0, 0x00, 0x04], &[Read(1)], &[(0, 0x98)]),
    case(16, "add [bx], dl", &[0x00, 0x17], &[Read(1), Write(1, 0xba)], &[]),
];

#[test]
fn cases_do_what_they_say() {
    for case in CASES {
        let mut expected = Cpu::new();
        for (encoding, value) in case.changed {
            expected.set_gpr(*encoding, *value);
        }
        let (mut cpu, mut device) = (Cpu::new(), Device::new(VALUE));
        let length = execute(case.bytes, case.bitness, &mut cpu, &mut device);
        assert_eq!(length, Ok(case.bytes.len() as u8), "{}", case.text);
        assert_eq!(device.events, case.events, "{}", case.text);
        assert_eq!(cpu.gprs, expected.gprs, "{}", case.text);
    }
}

#[test]
fn what_follows_does_not_matter_and_what_is_missing_does() {
    for case in CASES {
        let (mut cpu, mut device) = (Cpu::new(), Device::new(VALUE));
        let mut bytes = case.bytes.to_vec();
        bytes.resize(32, 0xcc);
        let length = execute(&bytes, case.bitness, &mut cpu, &mut device);
        assert_eq!(length, Ok(case.bytes.len() as u8), "{}", case.text);
        for available in 0..case.bytes.len() {
            refused(&case.bytes[..available], case.bitness, None);
        }
    }
}

/// Nothing changes; none means that the bytes cannot be decoded.
fn refused(bytes: &[u8], bitness: u32, mnemonic: Option<Mnemonic>) {
    let (mut cpu, mut device) = (Cpu::new(), Device::new(VALUE));
    let expected = mnemonic.map_or(Unsupported::Undecodable, Unsupported::Instruction);
    let result = execute(bytes, bitness, &mut cpu, &mut device);
    assert_eq!(result, Err(expected), "{bytes:02x?}");
    assert_eq!(cpu, Cpu::new());
    assert_eq!(device.events, []);
}

#[test]
fn other_instructions_are_refused() {
    let cases: &[(&[u8], Mnemonic)] = &[
        (&[0xff, 0x30], Mnemonic::Push),
        (&[0x8f, 0x00], Mnemonic::Pop),
        (&[0xff, 0x10], Mnemonic::Call),
        (&[0xff, 0x20], Mnemonic::Jmp),
        (&[0xd1, 0x20], Mnemonic::Shl),
        (&[0x0f, 0xaf, 0x00], Mnemonic::Imul),
        (&[0xf7, 0x20], Mnemonic::Mul),
        (&[0x0f, 0x94, 0x00], Mnemonic::Sete),
        (&[0x0f, 0x44, 0x00], Mnemonic::Cmove),
        (&[0x0f, 0xc7, 0x08], Mnemonic::Cmpxchg8b),
        (&[0x0f, 0x28, 0x00], Mnemonic::Movaps),
        (&[0xdd, 0x00], Mnemonic::Fld),
        // String instructions: the memory is no explicit operand.
        (&[0xf3, 0xab], Mnemonic::Stosd),
        (&[0xa4], Mnemonic::Movsb),
        (&[0xa5], Mnemonic::Movsd),
        (&[0xad], Mnemonic::Lodsd),
        (&[0xd7], Mnemonic::Xlatb),
        // Operands other than general-purpose registers: mov [rax], ds and back, mov rax, cr0.
        (&[0x8c, 0x18], Mnemonic::Mov),
        (&[0x8e, 0x18], Mnemonic::Mov),
        (&[0x0f, 0x20, 0xc0], Mnemonic::Mov),
        // No memory: the fault was about something else.
        (&[0x01, 0xd8], Mnemonic::Add),
        (&[0xb0, 0x01], Mnemonic::Mov),
        (&[0xff, 0xc0], Mnemonic::Inc),
        (&[0x90], Mnemonic::Nop),
        (&[0x8d, 0x00], Mnemonic::Lea),
        // bt [rax], ecx with the bit elsewhere.
        (&[0x0f, 0xa3, 0x08], Mnemonic::Bt),
    ];
    for (bytes, mnemonic) in cases {
        refused(bytes, 64, Some(*mnemonic));
    }
}

#[test]
fn what_is_no_instruction_is_refused() {
    refused(&[], 64, None);
    refused(&[0x0f, 0x0b], 64, Some(Mnemonic::Ud2));
    // lock mov [rax], eax.
    refused(&[0xf0, 0x89, 0x00], 64, None);
    // 16 bytes with the prefixes.
    let mut long = [0x66; 16];
    long[14..].copy_from_slice(&[0x89, 0x00]);
    refused(&long, 32, None);
    // There is no such code.
    refused(&[0x89, 0x00], 8, None);
}

#[test]
fn a_bit_index_in_a_register_stays_within_the_operand() {
    // bts [rax], ecx; bts [rax], rcx.
    for (bytes, bits) in [
        (&[0x0f, 0xab, 0x08][..], 32),
        (&[0x48, 0x0f, 0xab, 0x08], 64),
    ] {
        for index in [0, 1, bits - 1, bits, u64::MAX] {
            let (mut cpu, mut device) = (Cpu::new(), Device::new(0));
            cpu.gprs[1] = index;
            let result = execute(bytes, 64, &mut cpu, &mut device);
            if index < bits {
                let size = bits as u32 / 8;
                assert_eq!(result, Ok(bytes.len() as u8));
                assert_eq!(device.events, [Read(size), Write(size, 1 << index)]);
            } else {
                assert_eq!(result, Err(Unsupported::Instruction(Mnemonic::Bts)));
                assert_eq!(device.events, []);
            }
        }
    }
}

#[test]
fn refusals_are_told_apart() {
    warm_up();
    let unsupported = Unsupported::Instruction(Mnemonic::Cmpxchg16b).to_string();
    assert_eq!(unsupported, "an unsupported instruction");
    assert_ne!(unsupported, Unsupported::Undecodable.to_string());
}

/// Bytes that often make an instruction with a memory operand.
fn likely_bytes() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop::sample::select(vec![0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x64, 0x40, 0x48, 0x4d]);
    let opcode = prop_oneof![
        any::<u8>().prop_map(|opcode| vec![opcode]),
        any::<u8>().prop_map(|opcode| vec![0x0f, opcode]),
        any::<[u8; 2]>().prop_map(|[map, opcode]| vec![0x0f, 0x38 | map & 2, opcode]),
    ];
    let parts = (
        prop::collection::vec(prefix, 0..4),
        opcode,
        prop::collection::vec(any::<u8>(), 0..13),
    );
    parts.prop_map(|(prefixes, opcode, rest)| [prefixes, opcode, rest].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_bytes_are_executed_or_refused(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..20), likely_bytes()],
        bitness in prop::sample::select(vec![16, 32, 64]),
        value: u64,
    ) {
        let (mut cpu, mut device) = (Cpu::new(), Device::new(value));
        match execute(&bytes, bitness, &mut cpu, &mut device) {
            Ok(length) => {
                prop_assert!((1..=15).contains(&length) && usize::from(length) <= bytes.len());
                let size = match device.events[..] {
                    [Read(size)] => size,
                    [Write(size, value)] => {
                        prop_assert_eq!(value, truncated(size, value));
                        size
                    }
                    [Read(size), Write(same, value)] => {
                        prop_assert_eq!(size, same);
                        prop_assert_eq!(value, truncated(size, value));
                        size
                    }
                    _ => return Err(TestCaseError::fail(format!("{:?}", device.events))),
                };
                prop_assert!([1, 2, 4, 8].contains(&size));
            }
            Err(_) => {
                prop_assert_eq!(cpu, Cpu::new());
                prop_assert_eq!(&device.events[..], &[]);
            }
        }
    }
}

fn truncated(size: u32, value: u64) -> u64 {
    (u128::from(value) % (1 << (8 * size))) as u64
}

//! Every form with a memory operand that the encoder knows of every claimed instruction, against the
//! model.

use super::model::{Model, Operand};
use super::{Cpu, Device, execute};
use iced_x86::{Code, Encoder, EncodingKind, Instruction, Mnemonic, OpCodeOperandKind};
use iced_x86::{OpKind, Register};
use proptest::prelude::*;
use std::collections::BTreeMap;

const CLAIMED: [Mnemonic; 26] = [
    Mnemonic::Mov,
    Mnemonic::Movzx,
    Mnemonic::Movsx,
    Mnemonic::Movsxd,
    Mnemonic::Movbe,
    Mnemonic::Movnti,
    Mnemonic::Xchg,
    Mnemonic::Cmpxchg,
    Mnemonic::Xadd,
    Mnemonic::Add,
    Mnemonic::Adc,
    Mnemonic::Sub,
    Mnemonic::Sbb,
    Mnemonic::And,
    Mnemonic::Or,
    Mnemonic::Xor,
    Mnemonic::Cmp,
    Mnemonic::Test,
    Mnemonic::Inc,
    Mnemonic::Dec,
    Mnemonic::Neg,
    Mnemonic::Not,
    Mnemonic::Bt,
    Mnemonic::Bts,
    Mnemonic::Btr,
    Mnemonic::Btc,
];

/// The registers of a size in the order of their encodings, and for bytes AH to BH at the end.
fn registers(bytes: u32) -> Vec<Register> {
    let (first, last) = match bytes {
        1 => (Register::AL, Register::R15L),
        2 => (Register::AX, Register::R15W),
        4 => (Register::EAX, Register::R15D),
        _ => (Register::RAX, Register::R15),
    };
    let all = Register::values();
    let mut found: Vec<_> = all.filter(|at| (first..=last).contains(at)).collect();
    if bytes == 1 {
        let high: Vec<_> = found.drain(4..8).collect();
        found.extend(high);
    }
    found
}

/// What an operand may be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The size is that of the other operand.
    Memory,
    MemoryOf(u32),
    /// The same, at an address that the instruction holds.
    Offset,
    Register(u32),
    Accumulator(u32),
    /// An immediate of so many bytes.
    Immediate(OpKind, u32),
}

impl Kind {
    /// None is no operand of a claimed form.
    fn of(kind: OpCodeOperandKind) -> Option<Self> {
        Some(match kind {
            OpCodeOperandKind::mem => Self::Memory,
            OpCodeOperandKind::mem_offs => Self::Offset,
            OpCodeOperandKind::r8_or_mem => Self::MemoryOf(1),
            OpCodeOperandKind::r16_or_mem => Self::MemoryOf(2),
            OpCodeOperandKind::r32_or_mem => Self::MemoryOf(4),
            OpCodeOperandKind::r64_or_mem => Self::MemoryOf(8),
            OpCodeOperandKind::r8_reg => Self::Register(1),
            OpCodeOperandKind::r16_reg => Self::Register(2),
            OpCodeOperandKind::r32_reg => Self::Register(4),
            OpCodeOperandKind::r64_reg => Self::Register(8),
            OpCodeOperandKind::al => Self::Accumulator(1),
            OpCodeOperandKind::ax => Self::Accumulator(2),
            OpCodeOperandKind::eax => Self::Accumulator(4),
            OpCodeOperandKind::rax => Self::Accumulator(8),
            OpCodeOperandKind::imm8 => Self::Immediate(OpKind::Immediate8, 1),
            OpCodeOperandKind::imm8sex16 => Self::Immediate(OpKind::Immediate8to16, 1),
            OpCodeOperandKind::imm8sex32 => Self::Immediate(OpKind::Immediate8to32, 1),
            OpCodeOperandKind::imm8sex64 => Self::Immediate(OpKind::Immediate8to64, 1),
            OpCodeOperandKind::imm16 => Self::Immediate(OpKind::Immediate16, 2),
            OpCodeOperandKind::imm32 => Self::Immediate(OpKind::Immediate32, 4),
            OpCodeOperandKind::imm32sex64 => Self::Immediate(OpKind::Immediate32to64, 4),
            _ => return None,
        })
    }

    fn is_memory(self) -> bool {
        matches!(self, Self::Memory | Self::MemoryOf(_) | Self::Offset)
    }
}

#[derive(Clone, Debug)]
struct Form {
    code: Code,
    bitness: u32,
    operands: Vec<Kind>,
}

fn forms() -> Vec<Form> {
    let mut forms = vec![];
    for code in Code::values().filter(|code| CLAIMED.contains(&code.mnemonic())) {
        let info = code.op_code();
        let kinds: Option<Vec<_>> = info.op_kinds().iter().map(|kind| Kind::of(*kind)).collect();
        let Some(operands) = kinds.filter(|kinds| kinds.iter().any(|kind| kind.is_memory())) else {
            continue;
        };
        // Some processors had their own codes, which are decoded on demand only.
        let common = info.decoder_option() == 0 && info.encoding() == EncodingKind::Legacy;
        let modes = [
            (16, info.mode16()),
            (32, info.mode32()),
            (64, info.mode64()),
        ];
        for (bitness, _) in modes.into_iter().filter(|(_, valid)| common && *valid) {
            forms.push(Form {
                code,
                bitness,
                operands: operands.clone(),
            });
        }
    }
    forms
}

/// What the machine is before.
#[derive(Clone, Debug)]
struct Start {
    cpu: Cpu,
    value: u64,
    immediate: i64,
    /// Selects registers.
    choice: usize,
    /// Makes CMPXCHG succeed.
    equal: bool,
}

/// Often on the edges.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0_u64..3, 0_u32..64).prop_map(|(value, by)| value.wrapping_sub(1).rotate_left(by)),
        (0_u32..64).prop_map(|bits| (1 << bits) - 1),
    ]
}

fn start() -> impl Strategy<Value = Start> {
    let parts = (
        prop::array::uniform16(number()),
        any::<u64>(),
        number(),
        number(),
        any::<usize>(),
        any::<bool>(),
    );
    parts.prop_map(|(gprs, rflags, value, immediate, choice, equal)| Start {
        cpu: Cpu { gprs, rflags },
        value,
        immediate: immediate as i64,
        choice,
        equal,
    })
}

/// The instruction of a form, and its operands as the model sees them.
fn build(form: &Form, start: &Start) -> (Instruction, Vec<Operand>) {
    let sizes = form.operands.iter().filter_map(|kind| match kind {
        Kind::MemoryOf(bytes) | Kind::Register(bytes) | Kind::Accumulator(bytes) => Some(*bytes),
        _ => None,
    });
    let other = sizes.max().unwrap_or(0);
    let wide = form.bitness == 64;
    let mut instruction = Instruction::default();
    instruction.set_code(form.code);
    let mut operands = vec![];
    for (index, kind) in (0..).zip(&form.operands) {
        operands.push(match *kind {
            Kind::Memory | Kind::MemoryOf(_) => {
                instruction.set_op_kind(index, OpKind::Memory);
                instruction.set_memory_base(match form.bitness {
                    16 => Register::BX,
                    32 => Register::EBX,
                    _ => Register::RBX,
                });
                let bytes = match *kind {
                    Kind::MemoryOf(bytes) => bytes,
                    _ => other,
                };
                Operand::Memory { bytes }
            }
            Kind::Offset => {
                instruction.set_op_kind(index, OpKind::Memory);
                instruction.set_memory_displ_size(form.bitness / 8);
                instruction.set_memory_displacement64(0x1234);
                Operand::Memory { bytes: other }
            }
            Kind::Register(bytes) => {
                let all = registers(bytes);
                // Eight without a prefix, which there is in 64-bit code only.
                let encoding = match (wide, bytes) {
                    (true, _) => start.choice % all.len(),
                    (false, 1) => [0, 1, 2, 3, 16, 17, 18, 19][start.choice % 8],
                    (false, _) => start.choice % 8,
                };
                instruction.set_op_kind(index, OpKind::Register);
                instruction.set_op_register(index, all[encoding]);
                Operand::Register {
                    encoding: encoding % 16,
                    high: encoding >= 16,
                    bytes,
                }
            }
            Kind::Accumulator(bytes) => {
                instruction.set_op_kind(index, OpKind::Register);
                instruction.set_op_register(index, registers(bytes)[0]);
                Operand::Register {
                    encoding: 0,
                    high: false,
                    bytes,
                }
            }
            Kind::Immediate(op_kind, bytes) => {
                let value = match bytes {
                    1 => i64::from(start.immediate as i8),
                    2 => i64::from(start.immediate as i16),
                    _ => i64::from(start.immediate as i32),
                };
                instruction.set_op_kind(index, op_kind);
                instruction.set_immediate_i64(index, value);
                Operand::Immediate { value }
            }
        });
    }
    (instruction, operands)
}

/// Whether there is such an instruction: AH to BH exclude the prefix that a 64-bit operand takes.
fn check(form: &Form, start: &Start) -> Result<bool, TestCaseError> {
    let (instruction, operands) = build(form, start);
    let (destination, source) = (operands[0], operands[operands.len() - 1]);
    let mut encoder = Encoder::new(form.bitness);
    if encoder.encode(&instruction, 0).is_err() {
        return Ok(false);
    }
    let bytes = encoder.take_buffer();
    let mut start = start.clone();
    let mnemonic = form.code.mnemonic();
    let bits = 8 * u64::from(destination.bytes());
    if mnemonic == Mnemonic::Cmpxchg && start.equal {
        start.cpu.gprs[0] = start.value;
    }
    if let (Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc, Kind::Register(_)) =
        (mnemonic, form.operands[form.operands.len() - 1])
        && let Operand::Register { encoding, .. } = source
    {
        start.cpu.gprs[encoding] %= bits;
    }
    let mut model = Model {
        cpu: start.cpu,
        value: start.value,
        events: vec![],
    };
    model.execute(mnemonic, destination, source);
    let (mut cpu, mut device) = (start.cpu, Device::new(start.value));
    let length = execute(&bytes, form.bitness, &mut cpu, &mut device);
    prop_assert_eq!(length, Ok(bytes.len() as u8), "{:?} {:02x?}", form, bytes);
    prop_assert_eq!(device.events, model.events, "{:?} {:02x?}", form, bytes);
    prop_assert_eq!(cpu, model.cpu, "{:?} {:02x?}", form, bytes);
    Ok(true)
}

proptest! {
    #[test]
    fn every_form_does_as_the_model(start in start()) {
        for form in forms() {
            check(&form, &start)?;
        }
    }
}

#[test]
fn the_forms_are_all_there() {
    let start = Start {
        cpu: Cpu::new(),
        value: 0,
        immediate: 0,
        choice: 0,
        equal: false,
    };
    let mut counts = BTreeMap::new();
    for form in forms() {
        assert!(check(&form, &start).unwrap(), "{form:?}");
        *counts
            .entry((form.code.mnemonic() as u32, form.bitness))
            .or_insert(0) += 1;
    }
    let count = |mnemonic, bitness| counts.get(&(mnemonic as u32, bitness)).copied();
    for mnemonic in CLAIMED {
        let long_only = mnemonic == Mnemonic::Movsxd;
        assert_eq!(count(mnemonic, 16).is_none(), long_only, "{mnemonic:?}");
        assert!(count(mnemonic, 64).is_some(), "{mnemonic:?}");
    }
    // 8 plain ones, 8 at offsets, 4 immediates.
    assert_eq!(count(Mnemonic::Mov, 64), Some(20));
    assert_eq!(count(Mnemonic::Mov, 32), Some(15));
    // 8 plain ones, 4 immediates, 3 short immediates.
    assert_eq!(count(Mnemonic::Adc, 64), Some(15));
    assert_eq!(count(Mnemonic::Bts, 16), Some(4));
}

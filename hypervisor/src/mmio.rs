//! Executing the instruction by which a guest touched a device that is mapped into memory.
//!
//! Such an access exits before the instruction did anything. The instruction is decoded, done with
//! the device in place of its memory operand, and its length told, so that the guest goes on behind
//! it. What is claimed here is exact: results, flags, and the order and sizes of the accesses. All
//! else is refused before the device or a register is touched.

mod arithmetic;
#[cfg(test)]
mod tests;

use arithmetic::{Binary, Outcome, Size, Unary, flag};
use core::fmt;
use iced_x86::{Decoder, DecoderOptions, Instruction, MemorySize, Mnemonic, OpKind, Register};

/// What executing needs of the vCPU. General-purpose registers go by their encoding: 0 is RAX, 4 is
/// RSP, 15 is R15.
pub(crate) trait Registers {
    /// All 64 bits of a general-purpose register.
    fn gpr(&self, encoding: u8) -> u64;
    /// Replaces all 64 bits of a general-purpose register.
    fn set_gpr(&mut self, encoding: u8, value: u64);
    /// RFLAGS.
    fn rflags(&self) -> u64;
    /// Replaces RFLAGS; only status flags differ from what was read.
    fn set_rflags(&mut self, value: u64);
}

/// The device behind the address. Accesses have 1, 2, 4 or 8 bytes.
pub(crate) trait Target {
    /// Reads; bits beyond the size are ignored.
    fn read(&mut self, size: u32) -> u64;
    /// Writes; bits beyond the size are 0.
    fn write(&mut self, size: u32, value: u64);
}

/// Why an instruction was not executed. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsupported {
    /// The bytes are no instruction, or too few.
    Undecodable,
    /// The instruction, or this form of it, is not one of those that are claimed.
    Instruction(Mnemonic),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecodable => write!(f, "an instruction that cannot be decoded"),
            // The bytes say which; a table of all names would be a tenth of the image.
            Self::Instruction(_) => write!(f, "an unsupported instruction"),
        }
    }
}

impl core::error::Error for Unsupported {}

/// Builds the decoder's tables, which takes a while and 94 KB of heap: better at boot than during a
/// guest's first access.
pub(crate) fn warm_up() {
    let nop = [0x90];
    let _ = decode(&nop, 64);
}

/// Executes the instruction that `bytes` begin with and returns its length. `bitness` is that of the
/// code segment: 16, 32 or 64.
///
/// The address of the memory operand is not computed: it is the one that the guest faulted at.
///
/// # Errors
///
/// [`Unsupported`] where the instruction is none of the claimed ones; nothing has changed then.
pub(crate) fn execute(
    bytes: &[u8],
    bitness: u32,
    registers: &mut impl Registers,
    target: &mut impl Target,
) -> Result<u8, Unsupported> {
    let instruction = decode(bytes, bitness)?;
    let mut executor = Executor { registers, target };
    Plan::of(&instruction)
        .and_then(|plan| executor.perform(&plan))
        .ok_or(Unsupported::Instruction(instruction.mnemonic()))?;
    // Decoding stops at 15 bytes.
    Ok(instruction.len() as u8)
}

fn decode(bytes: &[u8], bitness: u32) -> Result<Instruction, Unsupported> {
    // Used where it was made: it is large to move.
    let mut decoder = Decoder::try_new(bitness, bytes, DecoderOptions::NONE);
    let decoder = decoder.as_mut().map_err(|_| Unsupported::Undecodable)?;
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        Err(Unsupported::Undecodable)
    } else {
        Ok(instruction)
    }
}

/// A general-purpose register or a part of one.
#[derive(Clone, Copy)]
struct Gpr {
    encoding: u8,
    /// Where the part begins: 8 for AH to BH, else 0.
    shift: u32,
    size: Size,
}

impl Gpr {
    const fn accumulator(size: Size) -> Self {
        Self {
            encoding: 0,
            shift: 0,
            size,
        }
    }

    /// The decoder numbers registers by size, and by encoding within a size. Among the byte registers
    /// AH to BH come after BL.
    fn of(register: Register) -> Option<Self> {
        let number = register as usize;
        let from = |first: Register| number.checked_sub(first as usize);
        let (index, shift, size) = if let Some(index) = from(Register::RAX) {
            (index, 0, Size::Qword)
        } else if let Some(index) = from(Register::EAX) {
            (index, 0, Size::Dword)
        } else if let Some(index) = from(Register::AX) {
            (index, 0, Size::Word)
        } else if let Some(index) = from(Register::SPL) {
            (index + 4, 0, Size::Byte)
        } else if let Some(index) = from(Register::AH) {
            (index, 8, Size::Byte)
        } else {
            (from(Register::AL)?, 0, Size::Byte)
        };
        let encoding = u8::try_from(index).ok().filter(|index| *index < 16)?;
        Some(Self {
            encoding,
            shift,
            size,
        })
    }
}

#[derive(Clone, Copy)]
enum Operand {
    Register(Gpr),
    Memory(Size),
    /// Sign-extended to 64 bits.
    Immediate(u64),
}

impl Operand {
    fn of(instruction: &Instruction, index: u32) -> Option<Self> {
        Some(match instruction.op_kind(index) {
            OpKind::Register => Self::Register(Gpr::of(instruction.op_register(index))?),
            OpKind::Memory => Self::Memory(match instruction.memory_size() {
                MemorySize::UInt8 | MemorySize::Int8 => Size::Byte,
                MemorySize::UInt16 | MemorySize::Int16 => Size::Word,
                MemorySize::UInt32 | MemorySize::Int32 => Size::Dword,
                MemorySize::UInt64 | MemorySize::Int64 => Size::Qword,
                _ => return None,
            }),
            OpKind::Immediate8 => Self::signed(instruction.immediate8() as i8),
            OpKind::Immediate16 => Self::signed(instruction.immediate16() as i16),
            OpKind::Immediate32 => Self::signed(instruction.immediate32() as i32),
            OpKind::Immediate8to16 => Self::signed(instruction.immediate8to16()),
            OpKind::Immediate8to32 => Self::signed(instruction.immediate8to32()),
            OpKind::Immediate8to64 => Self::signed(instruction.immediate8to64()),
            OpKind::Immediate32to64 => Self::signed(instruction.immediate32to64()),
            _ => return None,
        })
    }

    fn signed(value: impl Into<i64>) -> Self {
        Self::Immediate(value.into() as u64)
    }

    const fn is_memory(self) -> bool {
        matches!(self, Self::Memory(_))
    }

    const fn size(self) -> Option<Size> {
        match self {
            Self::Register(register) => Some(register.size),
            Self::Memory(size) => Some(size),
            Self::Immediate(_) => None,
        }
    }
}

/// What an instruction does with its destination and, but for [`Operation::Unary`], its source.
#[derive(Clone, Copy)]
enum Operation {
    Move,
    MoveSignExtended,
    MoveSwapped,
    Exchange,
    CompareExchange,
    ExchangeAdd,
    Unary(Unary),
    Binary(Binary),
    Bit(Binary),
}

impl Operation {
    fn of(mnemonic: Mnemonic) -> Option<Self> {
        Some(match mnemonic {
            Mnemonic::Mov | Mnemonic::Movnti | Mnemonic::Movzx => Self::Move,
            Mnemonic::Movsx | Mnemonic::Movsxd => Self::MoveSignExtended,
            Mnemonic::Movbe => Self::MoveSwapped,
            Mnemonic::Xchg => Self::Exchange,
            Mnemonic::Cmpxchg => Self::CompareExchange,
            Mnemonic::Xadd => Self::ExchangeAdd,
            Mnemonic::Inc => Self::Unary(Unary::Increment),
            Mnemonic::Dec => Self::Unary(Unary::Decrement),
            Mnemonic::Neg => Self::Unary(Unary::Negate),
            Mnemonic::Not => Self::Unary(Unary::Not),
            Mnemonic::Add => Self::Binary(Binary::Add),
            Mnemonic::Adc => Self::Binary(Binary::AddCarry),
            Mnemonic::Sub => Self::Binary(Binary::Subtract),
            Mnemonic::Sbb => Self::Binary(Binary::SubtractBorrow),
            Mnemonic::Cmp => Self::Binary(Binary::Compare),
            Mnemonic::And => Self::Binary(Binary::And),
            Mnemonic::Or => Self::Binary(Binary::Or),
            Mnemonic::Xor => Self::Binary(Binary::Xor),
            Mnemonic::Test => Self::Binary(Binary::Test),
            Mnemonic::Bt => Self::Bit(Binary::BitTest),
            Mnemonic::Bts => Self::Bit(Binary::BitSet),
            Mnemonic::Btr => Self::Bit(Binary::BitReset),
            Mnemonic::Btc => Self::Bit(Binary::BitComplement),
            _ => return None,
        })
    }

    const fn operands(self) -> u32 {
        match self {
            Self::Unary(_) => 1,
            _ => 2,
        }
    }
}

/// An instruction that is claimed.
struct Plan {
    operation: Operation,
    destination: Operand,
    /// The destination once more if there is no other.
    source: Operand,
    size: Size,
}

impl Plan {
    /// Exactly one operand must be the memory, the other a general-purpose register or an immediate.
    fn of(instruction: &Instruction) -> Option<Self> {
        let operation = Operation::of(instruction.mnemonic())?;
        let count = instruction.op_count();
        if count != operation.operands() {
            return None;
        }
        let destination = Operand::of(instruction, 0)?;
        let source = Operand::of(instruction, count - 1)?;
        let one_is_memory = match operation {
            Operation::Unary(_) => destination.is_memory(),
            _ => destination.is_memory() != source.is_memory(),
        };
        one_is_memory.then_some(Self {
            operation,
            destination,
            source,
            size: destination.size()?,
        })
    }
}

struct Executor<'a, R, T> {
    registers: &'a mut R,
    target: &'a mut T,
}

impl<R: Registers, T: Target> Executor<'_, R, T> {
    /// Nothing where the plan turns out to be none of the claimed ones.
    fn perform(&mut self, plan: &Plan) -> Option<()> {
        let Plan {
            operation,
            destination,
            source,
            size,
        } = *plan;
        match operation {
            Operation::Move => {
                let value = self.read(source);
                self.write(destination, value);
            }
            Operation::MoveSignExtended => {
                let value = source.size()?.sign_extend(self.read(source));
                self.write(destination, value);
            }
            Operation::MoveSwapped => {
                let value = size.swap(self.read(source));
                self.write(destination, value);
            }
            Operation::Exchange => {
                let old = self.read(destination);
                let new = self.read(source);
                self.write(destination, new);
                self.write(source, old);
            }
            Operation::CompareExchange => self.compare_exchange(size, destination, source),
            Operation::ExchangeAdd => {
                let old = self.read(destination);
                let sum = Binary::Add.apply(size, old, self.read(source), false);
                self.write(source, old);
                self.finish(destination, sum);
            }
            Operation::Unary(unary) => {
                let outcome = unary.apply(size, self.read(destination));
                self.finish(destination, outcome);
            }
            Operation::Binary(binary) => {
                let left = self.read(destination);
                let right = self.read(source);
                let carry = self.registers.rflags() & flag::CARRY != 0;
                self.finish(destination, binary.apply(size, left, right, carry));
            }
            Operation::Bit(binary) => {
                let index = self.bit_index(size, source)?;
                let outcome = binary.apply(size, self.read(destination), index, false);
                self.finish(destination, outcome);
            }
        }
        Some(())
    }

    /// The destination is written in any case, as the bus sees it from a processor.
    fn compare_exchange(&mut self, size: Size, destination: Operand, source: Operand) {
        let accumulator = Operand::Register(Gpr::accumulator(size));
        let old = self.read(destination);
        let expected = self.read(accumulator);
        if old == expected {
            let new = self.read(source);
            self.write(destination, new);
        } else {
            self.write(destination, old);
            self.write(accumulator, old);
        }
        let comparison = Binary::Compare.apply(size, expected, old, false);
        self.finish(destination, comparison);
    }

    /// An immediate index wraps within the operand. One in a register may also select a bit before or
    /// behind it, which is not claimed.
    fn bit_index(&self, size: Size, source: Operand) -> Option<u64> {
        let bits = u64::from(size.bits());
        match source {
            Operand::Register(register) => Some(self.read_gpr(register)).filter(|at| *at < bits),
            Operand::Immediate(value) => Some(value % bits),
            Operand::Memory(_) => None,
        }
    }

    /// Writes what an operation leaves.
    fn finish(&mut self, destination: Operand, outcome: Outcome) {
        if let Some(value) = outcome.value {
            self.write(destination, value);
        }
        if outcome.affected != 0 {
            let kept = self.registers.rflags() & !outcome.affected;
            self.registers.set_rflags(kept | outcome.flags);
        }
    }

    fn read(&mut self, operand: Operand) -> u64 {
        match operand {
            Operand::Register(register) => self.read_gpr(register),
            Operand::Memory(size) => size.truncate(self.target.read(size.bytes())),
            Operand::Immediate(value) => value,
        }
    }

    fn write(&mut self, operand: Operand, value: u64) {
        match operand {
            Operand::Register(register) => self.write_gpr(register, value),
            Operand::Memory(size) => self.target.write(size.bytes(), size.truncate(value)),
            // No destination is an immediate.
            Operand::Immediate(_) => {}
        }
    }

    fn read_gpr(&self, register: Gpr) -> u64 {
        let whole = self.registers.gpr(register.encoding);
        register.size.truncate(whole >> register.shift)
    }

    /// A 32-bit value clears the upper half; shorter ones leave the rest alone.
    fn write_gpr(&mut self, register: Gpr, value: u64) {
        let value = register.size.truncate(value);
        let whole = match register.size {
            Size::Dword | Size::Qword => value,
            Size::Byte | Size::Word => {
                let part = register.size.truncate(u64::MAX) << register.shift;
                self.registers.gpr(register.encoding) & !part | value << register.shift
            }
        };
        self.registers.set_gpr(register.encoding, whole);
    }
}

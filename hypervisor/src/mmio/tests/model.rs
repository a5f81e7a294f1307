//! What each instruction does, told once more: on wide integers, straight from the manual.

use super::Event::{self, Read, Write};
use super::{Cpu, truncated};
use iced_x86::Mnemonic;

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
const ALL: u64 = CF | PF | AF | ZF | SF | OF;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Memory {
        bytes: u32,
    },
    Register {
        encoding: usize,
        high: bool,
        bytes: u32,
    },
    Immediate {
        value: i64,
    },
}

impl Operand {
    pub(super) fn bytes(self) -> u32 {
        match self {
            Self::Memory { bytes } | Self::Register { bytes, .. } => bytes,
            Self::Immediate { .. } => 8,
        }
    }
}

/// The machine, and what its device saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) cpu: Cpu,
    pub(super) value: u64,
    pub(super) events: Vec<Event>,
}

impl Model {
    fn read(&mut self, operand: Operand) -> u64 {
        match operand {
            Operand::Memory { bytes } => {
                self.events.push(Read(bytes));
                truncated(bytes, self.value)
            }
            Operand::Register {
                encoding,
                high,
                bytes,
            } => {
                let whole = self.cpu.gprs[encoding].to_le_bytes();
                let from = usize::from(high);
                let mut part = [0; 8];
                part[..bytes as usize].copy_from_slice(&whole[from..from + bytes as usize]);
                u64::from_le_bytes(part)
            }
            Operand::Immediate { value } => value as u64,
        }
    }

    fn write(&mut self, operand: Operand, value: u64) {
        match operand {
            Operand::Memory { bytes } => self.events.push(Write(bytes, truncated(bytes, value))),
            Operand::Register {
                encoding,
                high,
                bytes,
            } => {
                let mut whole = self.cpu.gprs[encoding].to_le_bytes();
                if bytes == 4 {
                    whole = [0; 8];
                }
                let from = usize::from(high);
                whole[from..from + bytes as usize]
                    .copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
                self.cpu.gprs[encoding] = u64::from_le_bytes(whole);
            }
            Operand::Immediate { .. } => unreachable!(),
        }
    }

    fn set(&mut self, flag: u64, on: bool) {
        if on {
            self.cpu.rflags |= flag;
        } else {
            self.cpu.rflags &= !flag;
        }
    }

    fn result_flags(&mut self, bytes: u32, value: u64) {
        self.set(ZF, value == 0);
        self.set(SF, signed(bytes, value) < 0);
        let ones = (0..8).filter(|bit| value >> bit & 1 == 1).count();
        self.set(PF, ones.is_multiple_of(2));
    }

    fn add(&mut self, bytes: u32, a: u64, b: u64, carry: u64) -> u64 {
        let sum = u128::from(a) + u128::from(b) + u128::from(carry);
        let value = truncated(bytes, sum as u64);
        let exact = signed(bytes, a) + signed(bytes, b) + i128::from(carry);
        self.result_flags(bytes, value);
        self.set(CF, sum != u128::from(value));
        self.set(AF, a % 16 + b % 16 + carry >= 16);
        self.set(OF, exact != signed(bytes, value));
        value
    }

    fn subtract(&mut self, bytes: u32, a: u64, b: u64, borrow: u64) -> u64 {
        let difference = i128::from(a) - i128::from(b) - i128::from(borrow);
        let value = truncated(bytes, difference as u64);
        let exact = signed(bytes, a) - signed(bytes, b) - i128::from(borrow);
        self.result_flags(bytes, value);
        self.set(CF, difference < 0);
        self.set(AF, a % 16 < b % 16 + borrow);
        self.set(OF, exact != signed(bytes, value));
        value
    }

    fn logic(&mut self, bytes: u32, value: u64) -> u64 {
        self.cpu.rflags &= !ALL;
        self.result_flags(bytes, value);
        value
    }

    /// Does an instruction whose operands these are; those with one operand have it twice.
    pub(super) fn execute(&mut self, mnemonic: Mnemonic, destination: Operand, source: Operand) {
        let bytes = destination.bytes();
        let carry = self.cpu.rflags & CF;
        match mnemonic {
            Mnemonic::Mov | Mnemonic::Movnti | Mnemonic::Movzx => {
                let value = self.read(source);
                self.write(destination, value);
            }
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                let value = self.read(source);
                self.write(destination, signed(source.bytes(), value) as u64);
            }
            Mnemonic::Movbe => {
                let mut value = self.read(source).to_le_bytes();
                value[..bytes as usize].reverse();
                self.write(destination, u64::from_le_bytes(value));
            }
            Mnemonic::Xchg => {
                let old = self.read(destination);
                let new = self.read(source);
                self.write(destination, new);
                self.write(source, old);
            }
            Mnemonic::Xadd => {
                let old = self.read(destination);
                let addend = self.read(source);
                let sum = self.add(bytes, old, addend, 0);
                self.write(source, old);
                self.write(destination, sum);
            }
            Mnemonic::Cmpxchg => {
                let accumulator = Operand::Register {
                    encoding: 0,
                    high: false,
                    bytes,
                };
                let old = self.read(destination);
                let expected = self.read(accumulator);
                let new = self.read(source);
                self.subtract(bytes, expected, old, 0);
                if self.cpu.rflags & ZF != 0 {
                    self.write(destination, new);
                } else {
                    self.write(destination, old);
                    self.write(accumulator, old);
                }
            }
            Mnemonic::Not => {
                let old = self.read(destination);
                self.write(destination, !old);
            }
            Mnemonic::Neg => {
                let old = self.read(destination);
                let value = self.subtract(bytes, 0, old, 0);
                self.write(destination, value);
            }
            Mnemonic::Inc | Mnemonic::Dec => {
                let old = self.read(destination);
                let value = if mnemonic == Mnemonic::Inc {
                    self.add(bytes, old, 1, 0)
                } else {
                    self.subtract(bytes, old, 1, 0)
                };
                self.set(CF, carry != 0);
                self.write(destination, value);
            }
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => {
                let old = self.read(destination);
                let bit = 1 << (self.read(source) % u64::from(8 * bytes));
                self.set(CF, old & bit != 0);
                match mnemonic {
                    Mnemonic::Bts => self.write(destination, old | bit),
                    Mnemonic::Btr => self.write(destination, old & !bit),
                    Mnemonic::Btc => self.write(destination, old ^ bit),
                    _ => {}
                }
            }
            _ => {
                let a = self.read(destination);
                let b = truncated(bytes, self.read(source));
                let value = match mnemonic {
                    Mnemonic::Add => self.add(bytes, a, b, 0),
                    Mnemonic::Adc => self.add(bytes, a, b, carry),
                    Mnemonic::Sub | Mnemonic::Cmp => self.subtract(bytes, a, b, 0),
                    Mnemonic::Sbb => self.subtract(bytes, a, b, carry),
                    Mnemonic::And | Mnemonic::Test => self.logic(bytes, a & b),
                    Mnemonic::Or => self.logic(bytes, a | b),
                    Mnemonic::Xor => self.logic(bytes, a ^ b),
                    _ => panic!("{mnemonic:?} has no model"),
                };
                if !matches!(mnemonic, Mnemonic::Cmp | Mnemonic::Test) {
                    self.write(destination, value);
                }
            }
        }
    }
}

fn signed(bytes: u32, value: u64) -> i128 {
    let value = i128::from(truncated(bytes, value));
    let modulus = 1 << (8 * bytes);
    if value >= modulus / 2 {
        value - modulus
    } else {
        value
    }
}

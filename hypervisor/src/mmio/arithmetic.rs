//! Integer operations on operands of each size, with the status flags they leave (Intel SDM volume
//! 1, section 3.4.3.1 and appendix A).

/// The status flags in RFLAGS.
pub(super) mod flag {
    pub(in crate::mmio) const CARRY: u64 = 1 << 0;
    pub(in crate::mmio) const PARITY: u64 = 1 << 2;
    pub(in crate::mmio) const AUXILIARY: u64 = 1 << 4;
    pub(in crate::mmio) const ZERO: u64 = 1 << 6;
    pub(in crate::mmio) const SIGN: u64 = 1 << 7;
    pub(in crate::mmio) const OVERFLOW: u64 = 1 << 11;
    pub(in crate::mmio) const ALL: u64 = CARRY | PARITY | AUXILIARY | ZERO | SIGN | OVERFLOW;
}

/// The size of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Byte,
    Word,
    Dword,
    Qword,
}

impl Size {
    pub(super) const fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }

    pub(super) const fn bits(self) -> u32 {
        self.bytes() * 8
    }

    /// Clears what is beyond the size.
    pub(super) const fn truncate(self, value: u64) -> u64 {
        value & u64::MAX >> (64 - self.bits())
    }

    pub(super) const fn sign_extend(self, value: u64) -> u64 {
        let unused = 64 - self.bits();
        ((value << unused) as i64 >> unused) as u64
    }

    /// Reverses the bytes.
    pub(super) const fn swap(self, value: u64) -> u64 {
        value.swap_bytes() >> (64 - self.bits())
    }
}

/// What an operation leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The result, unless only the flags count.
    pub(super) value: Option<u64>,
    /// The flags that are replaced.
    pub(super) affected: u64,
    /// Those of them that are set then.
    pub(super) flags: u64,
}

impl Outcome {
    const fn without_value(self) -> Self {
        Self {
            value: None,
            ..self
        }
    }

    const fn without_carry(self) -> Self {
        Self {
            affected: self.affected & !flag::CARRY,
            flags: self.flags & !flag::CARRY,
            ..self
        }
    }
}

/// An operation on one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    Increment,
    Decrement,
    Negate,
    Not,
}

impl Unary {
    pub(super) fn apply(self, size: Size, value: u64) -> Outcome {
        match self {
            Self::Increment => add(size, value, 1, false).without_carry(),
            Self::Decrement => subtract(size, value, 1, false).without_carry(),
            Self::Negate => subtract(size, 0, value, false),
            Self::Not => Outcome {
                value: Some(size.truncate(!value)),
                affected: 0,
                flags: 0,
            },
        }
    }
}

/// An operation on two operands. Those on bits take the index of the bit, which is within the left
/// operand, as the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    AddCarry,
    Subtract,
    SubtractBorrow,
    Compare,
    And,
    Or,
    Xor,
    Test,
    BitTest,
    BitSet,
    BitReset,
    BitComplement,
}

impl Binary {
    /// `carry` is the carry flag before.
    pub(super) fn apply(self, size: Size, left: u64, right: u64, carry: bool) -> Outcome {
        match self {
            Self::Add => add(size, left, right, false),
            Self::AddCarry => add(size, left, right, carry),
            Self::Subtract => subtract(size, left, right, false),
            Self::SubtractBorrow => subtract(size, left, right, carry),
            Self::Compare => subtract(size, left, right, false).without_value(),
            Self::And => logic(size, left & right),
            Self::Or => logic(size, left | right),
            Self::Xor => logic(size, left ^ right),
            Self::Test => logic(size, left & right).without_value(),
            Self::BitTest => bit(left, right, |_, _| None),
            Self::BitSet => bit(left, right, |left, mask| Some(left | mask)),
            Self::BitReset => bit(left, right, |left, mask| Some(left & !mask)),
            Self::BitComplement => bit(left, right, |left, mask| Some(left ^ mask)),
        }
    }
}

fn add(size: Size, left: u64, right: u64, carry: bool) -> Outcome {
    let sum = left.wrapping_add(right).wrapping_add(u64::from(carry));
    // A bit carries out if both operands have it, or if one has it and the sum does not.
    arithmetic(size, sum, left & right | (left | right) & !sum)
}

fn subtract(size: Size, left: u64, right: u64, borrow: bool) -> Outcome {
    let difference = left.wrapping_sub(right).wrapping_sub(u64::from(borrow));
    let borrows = !left & right | (!left | right) & difference;
    arithmetic(size, difference, borrows)
}

/// `carries` are the carries or borrows out of each bit.
fn arithmetic(size: Size, value: u64, carries: u64) -> Outcome {
    let out_of = |bit: u32| carries >> bit & 1 != 0;
    let top = size.bits() - 1;
    let mut outcome = logic(size, value);
    for (set, flag) in [
        (out_of(top), flag::CARRY),
        (out_of(3), flag::AUXILIARY),
        (out_of(top) != out_of(top - 1), flag::OVERFLOW),
    ] {
        if set {
            outcome.flags |= flag;
        }
    }
    outcome
}

/// Carry and overflow are cleared, and so is the auxiliary carry, which is undefined by the manual.
fn logic(size: Size, value: u64) -> Outcome {
    let value = size.truncate(value);
    let mut flags = 0;
    for (set, flag) in [
        (value == 0, flag::ZERO),
        (value >> (size.bits() - 1) != 0, flag::SIGN),
        ((value as u8).count_ones().is_multiple_of(2), flag::PARITY),
    ] {
        if set {
            flags |= flag;
        }
    }
    Outcome {
        value: Some(value),
        affected: flag::ALL,
        flags,
    }
}

/// Only the carry flag is touched: it becomes the bit as it was.
fn bit(left: u64, index: u64, change: fn(u64, u64) -> Option<u64>) -> Outcome {
    Outcome {
        value: change(left, 1 << (index & 63)),
        affected: flag::CARRY,
        flags: if left >> (index & 63) & 1 != 0 {
            flag::CARRY
        } else {
            0
        },
    }
}

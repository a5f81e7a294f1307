//! The arithmetic against the processor that the tests run on.

use crate::mmio::arithmetic::{Binary, Outcome, Size, Unary, flag};
use core::arch::asm;
use proptest::prelude::*;

/// Operands of an instruction, and the status flags before it.
#[derive(Clone, Copy, Debug)]
struct Start {
    size: Size,
    left: u64,
    right: u64,
    flags: u64,
}

/// Executes an instruction on registers; gives the left one and the status flags.
macro_rules! run {
    ($text:expr, $class:ident, $type:ty, $start:expr) => {{
        let mut left = $start.left as $type;
        let mut flags = $start.flags;
        // SAFETY: only status flags and operands change, and the stack is as before.
        unsafe {
            asm!(
                "push {flags}",
                "popfq",
                $text,
                "pushfq",
                "pop {flags}",
                flags = inout(reg) flags,
                a = inout($class) left,
                b = in($class) $start.right as $type,
            );
        }
        (u64::from(left), flags & flag::ALL)
    }};
}

/// The instruction at the size that is wanted, with `$between` after its first operand: a comma, or
/// what hides the second one.
macro_rules! native {
    ($name:literal, $between:literal, $start:expr) => {
        match $start.size {
            Size::Byte => run!(
                concat!($name, " {a}", $between, "{b}"),
                reg_byte,
                u8,
                $start
            ),
            _ => native_wide!($name, $between, $start),
        }
    };
}

/// The same for what has no 8-bit form.
macro_rules! native_wide {
    ($name:literal, $between:literal, $start:expr) => {
        match $start.size {
            Size::Word => run!(
                concat!($name, " {a:x}", $between, "{b:x}"),
                reg,
                u16,
                $start
            ),
            Size::Dword => run!(
                concat!($name, " {a:e}", $between, "{b:e}"),
                reg,
                u32,
                $start
            ),
            _ => run!(
                concat!($name, " {a:r}", $between, "{b:r}"),
                reg,
                u64,
                $start
            ),
        }
    };
}

fn native_unary(operation: Unary, start: Start) -> (u64, u64) {
    match operation {
        Unary::Increment => native!("inc", " # ", start),
        Unary::Decrement => native!("dec", " # ", start),
        Unary::Negate => native!("neg", " # ", start),
        Unary::Not => native!("not", " # ", start),
    }
}

fn native_binary(operation: Binary, start: Start) -> (u64, u64) {
    match operation {
        Binary::Add => native!("add", ", ", start),
        Binary::AddCarry => native!("adc", ", ", start),
        Binary::Subtract => native!("sub", ", ", start),
        Binary::SubtractBorrow => native!("sbb", ", ", start),
        Binary::Compare => native!("cmp", ", ", start),
        Binary::And => native!("and", ", ", start),
        Binary::Or => native!("or", ", ", start),
        Binary::Xor => native!("xor", ", ", start),
        Binary::Test => native!("test", ", ", start),
        Binary::BitTest => native_wide!("bt", ", ", start),
        Binary::BitSet => native_wide!("bts", ", ", start),
        Binary::BitReset => native_wide!("btr", ", ", start),
        Binary::BitComplement => native_wide!("btc", ", ", start),
    }
}

/// Flags that the manual leaves undefined are not compared.
fn compare(
    start: Start,
    outcome: Outcome,
    native: (u64, u64),
    undefined: u64,
) -> Result<(), TestCaseError> {
    let value = outcome.value.unwrap_or(start.left);
    let flags = start.flags & !outcome.affected | outcome.flags;
    prop_assert_eq!(value, native.0);
    prop_assert_eq!(flags & !undefined, native.1 & !undefined);
    Ok(())
}

fn start() -> impl Strategy<Value = Start> {
    let size = prop::sample::select(vec![Size::Byte, Size::Word, Size::Dword, Size::Qword]);
    let number = || {
        prop_oneof![
            any::<u64>(),
            (0_u64..4, any::<bool>()).prop_map(|(value, high)| {
                let value = value.wrapping_sub(2);
                // On either side of the sign's edge, whatever the size.
                value ^ if high { 0x8000_0000_8000_8080 } else { 0 }
            }),
        ]
    };
    (size, number(), number(), any::<u64>()).prop_map(|(size, left, right, flags)| Start {
        size,
        left: size.truncate(left),
        right: size.truncate(right),
        flags: flags & flag::ALL,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn operations_are_those_of_the_processor(start in start()) {
        let carry = start.flags & flag::CARRY != 0;
        for operation in [Unary::Increment, Unary::Decrement, Unary::Negate, Unary::Not] {
            let outcome = operation.apply(start.size, start.left);
            compare(start, outcome, native_unary(operation, start), 0)?;
        }
        for (operation, undefined) in [
            (Binary::Add, 0),
            (Binary::AddCarry, 0),
            (Binary::Subtract, 0),
            (Binary::SubtractBorrow, 0),
            (Binary::Compare, 0),
            (Binary::And, flag::AUXILIARY),
            (Binary::Or, flag::AUXILIARY),
            (Binary::Xor, flag::AUXILIARY),
            (Binary::Test, flag::AUXILIARY),
        ] {
            let outcome = operation.apply(start.size, start.left, start.right, carry);
            compare(start, outcome, native_binary(operation, start), undefined)?;
        }
        if start.size == Size::Byte {
            return Ok(());
        }
        let index = Start { right: start.right % u64::from(start.size.bits()), ..start };
        for operation in [
            Binary::BitTest,
            Binary::BitSet,
            Binary::BitReset,
            Binary::BitComplement,
        ] {
            let outcome = operation.apply(start.size, index.left, index.right, carry);
            let undefined = flag::ALL & !(flag::CARRY | flag::ZERO);
            compare(index, outcome, native_binary(operation, index), undefined)?;
        }
    }
}

//! What exits do not tell on every processor: the length of the instruction that exited, and its operands.
//!
//! Processors with NRIP save tell the length. The operands of string I/O and of accesses to control registers, which decode
//! assists tell in part, are always read from the instruction: it is one way for all, and they are rare.

use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind, Register};
use vcpu::{ControlRegisterAccess, SegmentRegister};

/// The longest instruction in bytes.
pub(crate) const INSTRUCTION_MAX: usize = 15;

/// The instruction in `bytes`, in code of 16, 32 or 64 bits; `None` if it is none.
pub(crate) fn instruction(bytes: &[u8], bits: u32) -> Option<Instruction> {
    let instruction = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

/// The operands of MOV to or from a control register.
pub(crate) fn control_register(instruction: &Instruction) -> Option<ControlRegisterAccess> {
    let (first, second) = (instruction.op0_register(), instruction.op1_register());
    let gpr = |register| {
        let long = among_sixteen(register, Register::RAX);
        long.or_else(|| among_sixteen(register, Register::EAX))
    };
    if let Some(register) = among_sixteen(first, Register::CR0) {
        let gpr = gpr(second)?;
        return Some(ControlRegisterAccess::Write { register, gpr });
    }
    let register = among_sixteen(second, Register::CR0)?;
    let gpr = gpr(first)?;
    Some(ControlRegisterAccess::Read { register, gpr })
}

/// The number of a register in the file of sixteen whose first is `first`.
fn among_sixteen(register: Register, first: Register) -> Option<u8> {
    let number = (register as u32).checked_sub(first as u32)?;
    u8::try_from(number).ok().filter(|number| *number < 16)
}

/// The memory operand of INS or OUTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StringOperand {
    pub(crate) address_bits: u32,
    pub(crate) segment: SegmentRegister,
}

/// The memory operand of INS or OUTS.
pub(crate) fn string_operand(instruction: &Instruction) -> Option<StringOperand> {
    let kind = [instruction.op0_kind(), instruction.op1_kind()]
        .into_iter()
        .find(|kind| !matches!(kind, OpKind::Register))?;
    let address_bits = match kind {
        OpKind::MemoryESDI | OpKind::MemorySegSI => 16,
        OpKind::MemoryESEDI | OpKind::MemorySegESI => 32,
        OpKind::MemoryESRDI | OpKind::MemorySegRSI => 64,
        _ => return None,
    };
    let ins = matches!(
        kind,
        OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI
    );
    let segment = match instruction.memory_segment() {
        _ if ins => SegmentRegister::Es,
        Register::ES => SegmentRegister::Es,
        Register::CS => SegmentRegister::Cs,
        Register::SS => SegmentRegister::Ss,
        Register::FS => SegmentRegister::Fs,
        Register::GS => SegmentRegister::Gs,
        _ => SegmentRegister::Ds,
    };
    Some(StringOperand {
        address_bits,
        segment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_count_prefixes() {
        let length = |bytes: &[u8], bits| instruction(bytes, bits).map(|found| found.len());
        assert_eq!(length(&[0x0f, 0xa2, 0x90], 64), Some(2));
        assert_eq!(length(&[0x66, 0x0f, 0xa2], 16), Some(3));
        assert_eq!(length(&[0xf4], 32), Some(1));
        assert_eq!(length(&[0xf3, 0x90], 32), Some(2));
        assert_eq!(length(&[0x0f, 0x01, 0xd1], 64), Some(3));
        assert_eq!(length(&[0x0f], 64), None);
    }

    #[test]
    fn control_registers_and_their_partners_are_found() {
        let access = |bytes: &[u8]| control_register(&instruction(bytes, 64)?);
        // mov cr4, rbx; mov r9, cr8; mov cr8, rsp; nop
        let write = |register, gpr| Some(ControlRegisterAccess::Write { register, gpr });
        assert_eq!(access(&[0x0f, 0x22, 0xe3]), write(4, 3));
        assert_eq!(access(&[0x44, 0x0f, 0x22, 0xc4]), write(8, 4));
        let read = Some(ControlRegisterAccess::Read {
            register: 8,
            gpr: 9,
        });
        assert_eq!(access(&[0x45, 0x0f, 0x20, 0xc1]), read);
        assert_eq!(access(&[0x90]), None);
    }

    #[test]
    fn string_operands_have_sizes_and_segments() {
        let operand = |bytes: &[u8], bits| string_operand(&instruction(bytes, bits)?);
        let expected = |address_bits, segment| {
            Some(StringOperand {
                address_bits,
                segment,
            })
        };
        // rep insw; outsb; gs outsd with 16-bit addresses; fs insb, whose segment stays ES; in al, dx
        assert_eq!(
            operand(&[0xf3, 0x66, 0x6d], 64),
            expected(64, SegmentRegister::Es)
        );
        assert_eq!(operand(&[0x6e], 32), expected(32, SegmentRegister::Ds));
        assert_eq!(
            operand(&[0x65, 0x67, 0x6f], 32),
            expected(16, SegmentRegister::Gs)
        );
        assert_eq!(
            operand(&[0x64, 0x6c], 16),
            expected(16, SegmentRegister::Es)
        );
        assert_eq!(operand(&[0xec], 32), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..=INSTRUCTION_MAX), mode in 0usize..3) {
            if let Some(found) = instruction(&bytes, [16, 32, 64][mode]) {
                prop_assert!((1..=bytes.len()).contains(&found.len()));
                let _ = control_register(&found);
                let _ = string_operand(&found);
            }
        }
    }
}

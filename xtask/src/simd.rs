//! Proof that the hypervisor never touches a guest's floating-point or vector registers.
//!
//! A guest's FPU, MMX, SSE and AVX registers stay in the processor while the hypervisor runs, so
//! one vector instruction in it would corrupt guests silently. The built code is disassembled and
//! any instruction that uses such a register is an error. Saving and restoring that state as a
//! whole is what the hypervisor is there for, and allowed.

use crate::elf::{Code, Image, Symbol, symbol_at};
use anyhow::{Result, bail};
use iced_x86::{
    CpuidFeature, Decoder, DecoderOptions, Formatter, Instruction, InstructionInfoFactory,
    Mnemonic, NasmFormatter, Register,
};

/// How many violations are told; more would only hide the first.
const SHOWN: usize = 10;

/// Fails where the code uses a vector or floating-point register.
///
/// # Errors
///
/// The first violations with their addresses and functions.
pub(crate) fn check(image: &Image<'_>) -> Result<()> {
    let symbols = image.symbols()?;
    let mut found = Vec::new();
    for code in image.code()? {
        found.extend(violations(&code, &symbols));
    }
    if found.is_empty() {
        return Ok(());
    }
    let mut text = format!(
        "{} instructions use vector or floating-point registers, which belong to the guests:",
        found.len()
    );
    for (address, instruction) in found.iter().take(SHOWN) {
        let function = symbol_at(&symbols, *address);
        text += &format!("\n    {address:#x}  {instruction}  in {function}");
    }
    if found.len() > SHOWN {
        text += "\n    ...";
    }
    bail!("{text}");
}

/// Addresses and texts of the instructions that are not allowed.
///
/// Decoding starts anew at every symbol, because data between two functions, such as the boot
/// loader's header, may look like the start of a long instruction.
fn violations(code: &Code<'_>, symbols: &[Symbol]) -> Vec<(u64, String)> {
    // The way from the boot loader into 64-bit mode is 32-bit code, in sections that say so.
    let bitness = if code.section.ends_with("32") { 32 } else { 64 };
    let length = code.bytes.len();
    let mut starts = vec![0];
    let offsets = symbols
        .iter()
        .filter_map(|symbol| symbol.address.checked_sub(code.address))
        .filter_map(|offset| usize::try_from(offset).ok());
    starts.extend(offsets.filter(|offset| *offset > 0 && *offset < length));
    let ends = starts.iter().skip(1).copied().chain([length]);
    let mut factory = InstructionInfoFactory::new();
    let mut formatter = NasmFormatter::new();
    let mut found = Vec::new();
    let mut instruction = Instruction::default();
    for (start, end) in starts.iter().copied().zip(ends) {
        let bytes = &code.bytes[start..end];
        let address = code.address.wrapping_add(start as u64);
        let mut decoder = Decoder::with_ip(bitness, bytes, address, DecoderOptions::NONE);
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if !is_allowed(&instruction, &mut factory) {
                let mut text = String::new();
                formatter.format(&instruction, &mut text);
                found.push((instruction.ip(), text));
            }
        }
    }
    found
}

fn is_allowed(instruction: &Instruction, factory: &mut InstructionInfoFactory) -> bool {
    if manages_state(instruction.mnemonic()) {
        return true;
    }
    let features = instruction.code().cpuid_features();
    let legacy = |feature: &CpuidFeature| {
        matches!(
            feature,
            CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387 | CpuidFeature::MMX
        )
    };
    if features.iter().any(legacy) {
        return false;
    }
    let info = factory.info(instruction);
    info.used_registers()
        .iter()
        .all(|used| !is_guest_register(used.register()))
}

fn is_guest_register(register: Register) -> bool {
    register.is_vector_register()
        || register.is_mm()
        || register.is_st()
        || register.is_k()
        || register.is_tmm()
}

/// Instructions that save, restore or initialise the state as a whole.
fn manages_state(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Fxsave
            | Mnemonic::Fxsave64
            | Mnemonic::Fxrstor
            | Mnemonic::Fxrstor64
            | Mnemonic::Xsave
            | Mnemonic::Xsave64
            | Mnemonic::Xsavec
            | Mnemonic::Xsavec64
            | Mnemonic::Xsaveopt
            | Mnemonic::Xsaveopt64
            | Mnemonic::Xsaves
            | Mnemonic::Xsaves64
            | Mnemonic::Xrstor
            | Mnemonic::Xrstor64
            | Mnemonic::Xrstors
            | Mnemonic::Xrstors64
            | Mnemonic::Fninit
            | Mnemonic::Fnclex
            | Mnemonic::Ldmxcsr
            | Mnemonic::Stmxcsr
            | Mnemonic::Wait
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(section: &str, bytes: &[u8]) -> Vec<(u64, String)> {
        texts_with(section, bytes, &[])
    }

    fn texts_with(section: &str, bytes: &[u8], symbols: &[u64]) -> Vec<(u64, String)> {
        let symbols: Vec<_> = symbols
            .iter()
            .map(|address| Symbol {
                address: *address,
                name: "x".into(),
            })
            .collect();
        let code = Code {
            section: section.into(),
            address: 0x1000,
            bytes,
        };
        violations(&code, &symbols)
    }

    #[test]
    fn vector_and_floating_point_instructions_are_found() {
        let code: &[u8] = &[
            0x90, // nop
            0x0f, 0x28, 0xc1, // movaps xmm0, xmm1
            0xc5, 0xf4, 0x58, 0xc2, // vaddps ymm0, ymm1, ymm2
            0x62, 0xf1, 0x74, 0x48, 0x58, 0xc2, // vaddps zmm0, zmm1, zmm2
            0xd9, 0xe8, // fld1
            0x0f, 0x6f, 0xc1, // movq mm0, mm1
            0xd9, 0x2c, 0x24, // fldcw [rsp]
            0x0f, 0x77, // emms
            0x66, 0x48, 0x0f, 0x6e, 0xc0, // movq xmm0, rax
        ];
        let found = texts(".text", code);
        let addresses: Vec<_> = found.iter().map(|(address, _)| *address).collect();
        assert_eq!(
            addresses,
            [
                0x1001, 0x1004, 0x1008, 0x100e, 0x1010, 0x1013, 0x1016, 0x1018
            ],
            "{found:?}"
        );
        assert_eq!(found[0].1, "movaps xmm0,xmm1");
    }

    #[test]
    fn state_management_and_integer_code_is_allowed() {
        let code: &[u8] = &[
            0x0f, 0xae, 0x00, // fxsave [rax]
            0x48, 0x0f, 0xae, 0x08, // fxrstor64 [rax]
            0x0f, 0xae, 0x20, // xsave [rax]
            0x48, 0x0f, 0xc7, 0x28, // xsaves64 [rax]
            0xdb, 0xe3, // fninit
            0x0f, 0xae, 0x10, // ldmxcsr [rax]
            0x0f, 0xae, 0x18, // stmxcsr [rax]
            0x0f, 0x01, 0xd1, // xsetbv
            0x0f, 0xae, 0xf0, // mfence
            0x0f, 0xc3, 0x00, // movnti [rax], eax
            0x0f, 0x01, 0xc3, // vmresume
            0x48, 0x89, 0xd8, // mov rax, rbx
        ];
        assert_eq!(texts(".text", code), []);
    }

    #[test]
    fn decoding_starts_anew_at_symbols() {
        // The start of `mov rax, imm64`, then a function that begins with movaps.
        let code = [0x48, 0xb8, 0x01, 0x0f, 0x28, 0xc1, 0x90, 0x90, 0x90, 0x90];
        assert_eq!(texts(".text", &code), []);
        assert_eq!(
            texts_with(".text", &code, &[0x0ff0, 0x1003, 0x9000])[0].0,
            0x1003
        );
    }

    #[test]
    fn sections_of_32_bit_code_are_read_as_such() {
        // inc eax; then movaps xmm0, xmm1. In 64-bit mode the first byte would be a prefix.
        let code = [0x40, 0x0f, 0x28, 0xc1];
        assert_eq!(texts(".text32", &code)[0].0, 0x1001);
        assert_eq!(texts(".text", &code)[0].0, 0x1000);
    }
}

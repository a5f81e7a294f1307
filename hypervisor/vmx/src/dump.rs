//! A VMCS in words, for the log.

use crate::controls::{
    EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls,
};
use crate::fields::{self, Field16, Field32, Field64, FieldNatural};
use crate::vmcs::Current;
use alloc::vec::Vec;
use bitflags::Flags;
use core::fmt;
use vcpu::{Gprs, Registers, Segment, SegmentRegister, TableRegister};

/// Every field that could be read, and the general-purpose registers.
#[derive(Debug)]
pub(crate) struct VmcsDump {
    gprs: Gprs,
    fields: Vec<(Name, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    F16(Field16),
    F32(Field32),
    F64(Field64),
    Natural(FieldNatural),
}

impl VmcsDump {
    pub(crate) fn take(vmcs: &Current, gprs: Gprs) -> Self {
        let mut fields = Vec::new();
        let mut add = |name, value| {
            if let Ok(value) = value {
                fields.push((name, value));
            }
        };
        for field in Field16::ALL {
            add(Name::F16(*field), vmcs.read16(*field).map(u64::from));
        }
        for field in Field32::ALL {
            add(Name::F32(*field), vmcs.read32(*field).map(u64::from));
        }
        for field in Field64::ALL {
            add(Name::F64(*field), vmcs.read64(*field));
        }
        for field in FieldNatural::ALL {
            add(Name::Natural(*field), vmcs.read_natural(*field));
        }
        Self { gprs, fields }
    }

    fn get(&self, name: Name) -> u64 {
        self.fields
            .iter()
            .find(|(other, _)| *other == name)
            .map_or(0, |(_, value)| *value)
    }

    /// The guest's registers alone.
    pub(crate) fn registers(&self) -> Registers {
        let natural = |field| self.get(Name::Natural(field));
        let segment = |register| {
            let (selector, base, limit, access) = fields::of_segment(register);
            Segment {
                selector: self.get(Name::F16(selector)) as u16,
                base: natural(base),
                limit: self.get(Name::F32(limit)) as u32,
                access: self.get(Name::F32(access)) as u32,
            }
        };
        let table = |base, limit| TableRegister {
            base: natural(base),
            limit: self.get(Name::F32(limit)) as u32,
        };
        Registers {
            gprs: self.gprs,
            rsp: natural(FieldNatural::GuestRsp),
            rip: natural(FieldNatural::GuestRip),
            rflags: natural(FieldNatural::GuestRflags),
            cr0: natural(FieldNatural::GuestCr0),
            cr3: natural(FieldNatural::GuestCr3),
            cr4: natural(FieldNatural::GuestCr4),
            efer: self.get(Name::F64(Field64::GuestEfer)),
            dr7: natural(FieldNatural::GuestDr7),
            segments: SegmentRegister::ALL.map(segment),
            gdtr: table(FieldNatural::GuestGdtrBase, Field32::GuestGdtrLimit),
            idtr: table(FieldNatural::GuestIdtrBase, Field32::GuestIdtrLimit),
        }
    }
}

impl fmt::Display for VmcsDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.registers())?;
        for (name, value) in &self.fields {
            match name {
                Name::F16(field) => writeln!(f, "  {field:?} = {value:#06x}")?,
                Name::F32(field) => {
                    write!(f, "  {field:?} = {value:#010x}")?;
                    write_flags(f, *field, *value as u32)?;
                    writeln!(f)?;
                }
                Name::F64(field) => writeln!(f, "  {field:?} = {value:#018x}")?,
                Name::Natural(field) => writeln!(f, "  {field:?} = {value:#018x}")?,
            }
        }
        Ok(())
    }
}

/// Names the flags that are set in a field of controls.
fn write_flags(f: &mut fmt::Formatter<'_>, field: Field32, value: u32) -> fmt::Result {
    fn names<F: Flags>(f: &mut fmt::Formatter<'_>, flags: F) -> fmt::Result {
        flags
            .iter_names()
            .try_for_each(|(name, _)| write!(f, " {name}"))
    }
    match field {
        Field32::PinControls => names(f, PinControls::from_bits_retain(value)),
        Field32::PrimaryControls => names(f, PrimaryControls::from_bits_retain(value)),
        Field32::SecondaryControls => names(f, SecondaryControls::from_bits_retain(value)),
        Field32::ExitControls => names(f, ExitControls::from_bits_retain(value)),
        Field32::EntryControls => names(f, EntryControls::from_bits_retain(value)),
        _ => Ok(()),
    }
}

/// VM-instruction error numbers (Intel SDM volume 3, section 31.4).
pub(crate) fn instruction_error(number: u32) -> &'static str {
    match number {
        0 => "no current VMCS (VMfailInvalid)",
        4 => "VMLAUNCH with a VMCS that is not clear",
        5 => "VMRESUME with a VMCS that is not launched",
        7 => "invalid control fields (error 7)",
        8 => "invalid host-state fields (error 8)",
        26 => "events blocked by MOV SS (error 26)",
        _ => "VM-instruction error of another kind",
    }
}

/// Exit reasons of entries that failed late (Intel SDM volume 3, section 27.8).
pub(crate) fn entry_failure(reason: u32) -> &'static str {
    match reason & 0xffff {
        33 => "invalid guest state",
        34 => "an MSR could not be loaded",
        41 => "machine check during entry",
        _ => "for an unknown reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_names_fields_and_flags() {
        let dump = VmcsDump {
            gprs: Gprs {
                rax: 0x1234,
                ..Gprs::default()
            },
            fields: vec![
                (Name::F32(Field32::PinControls), 0x47),
                (Name::Natural(FieldNatural::GuestRip), 0xfff0),
            ],
        };
        let text = dump.to_string();
        assert!(text.contains("rip 000000000000fff0"));
        assert!(text.contains("rax 0000000000001234"));
        assert!(
            text.contains("PinControls = 0x00000047 EXTERNAL_INTERRUPT_EXITING PREEMPTION_TIMER")
        );
        assert!(text.contains("GuestRip = 0x000000000000fff0"));
    }
}

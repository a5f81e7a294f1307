//! A vCPU's registers in words, for the log.

use crate::saved::TableRegister;
use crate::state::{Gprs, Segment, SegmentRegister};
use core::fmt;

/// The registers that a crash report shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the manual's")]
pub struct Registers {
    pub gprs: Gprs,
    pub rsp: u64,
    pub rip: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub dr7: u64,
    /// In the order of [`SegmentRegister::ALL`].
    pub segments: [Segment; 8],
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let g = &self.gprs;
        writeln!(
            f,
            "  rip {:016x}  rsp {:016x}  rflags {:08x}",
            self.rip, self.rsp, self.rflags
        )?;
        writeln!(
            f,
            "  rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}",
            g.rax, g.rbx, g.rcx, g.rdx
        )?;
        writeln!(
            f,
            "  rsi {:016x}  rdi {:016x}  rbp {:016x}  r8  {:016x}",
            g.rsi, g.rdi, g.rbp, g.r8
        )?;
        writeln!(
            f,
            "  r9  {:016x}  r10 {:016x}  r11 {:016x}  r12 {:016x}",
            g.r9, g.r10, g.r11, g.r12
        )?;
        writeln!(
            f,
            "  r13 {:016x}  r14 {:016x}  r15 {:016x}",
            g.r13, g.r14, g.r15
        )?;
        writeln!(
            f,
            "  cr0 {:08x}  cr3 {:08x}  cr4 {:08x}  efer {:x}  dr7 {:x}",
            self.cr0, self.cr3, self.cr4, self.efer, self.dr7
        )?;
        for (name, register) in [
            ("cs", SegmentRegister::Cs),
            ("ss", SegmentRegister::Ss),
            ("ds", SegmentRegister::Ds),
            ("tr", SegmentRegister::Tr),
        ] {
            let segment = self.segments[register as usize];
            writeln!(
                f,
                "  {name} {:04x}  base {:08x}  limit {:08x}  access {:05x}",
                segment.selector, segment.base, segment.limit, segment.access
            )?;
        }
        write!(
            f,
            "  gdt {:08x}+{:04x}  idt {:08x}+{:04x}",
            self.gdtr.base, self.gdtr.limit, self.idtr.base, self.idtr.limit
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_named() {
        let table = TableRegister {
            base: 0x500,
            limit: 0x1f,
        };
        let registers = Registers {
            gprs: Gprs {
                rax: 0x1234,
                ..Gprs::default()
            },
            rsp: 0,
            rip: 0xfff0,
            rflags: 2,
            cr0: 0x10,
            cr3: 0,
            cr4: 0,
            efer: 0,
            dr7: 0x400,
            segments: [Segment::real_mode(0xf000); 8],
            gdtr: table,
            idtr: table,
        };
        let text = registers.to_string();
        assert!(text.contains("rip 000000000000fff0"));
        assert!(text.contains("rax 0000000000001234"));
        assert!(text.contains("cs f000  base 000f0000  limit 0000ffff  access 00093"));
        assert!(text.contains("gdt 00000500+001f"));
    }
}

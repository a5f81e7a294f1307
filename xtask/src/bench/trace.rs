//! Counts what an exit costs on silicon, from Bochs's instruction trace.
//!
//! Bochs prices every instruction at one tick. On silicon some cost hundreds of cycles: VMREAD and
//! VMWRITE, MSR accesses, saving extended state, invalidations, atomic memory accesses. They are
//! counted in the trace between two magic breakpoints of a guest.

use std::io::{self, BufRead};

/// Addresses from here on are the hypervisor's.
const HYPERVISOR: u64 = 0xffff_ffff_8000_0000;

/// What ran between two magic breakpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    /// Instructions of the hypervisor.
    pub instructions: u64,
    /// Entries into the guest: as many as exits.
    pub entries: u64,
    /// VMREAD.
    pub vmread: u64,
    /// VMWRITE.
    pub vmwrite: u64,
    /// RDMSR.
    pub rdmsr: u64,
    /// WRMSR.
    pub wrmsr: u64,
    /// XSAVE, XRSTOR, FXSAVE, FXRSTOR in all forms.
    pub xsave: u64,
    /// INVEPT and INVVPID.
    pub invalidate: u64,
    /// Instructions with a lock prefix, and exchanges with memory, which lock by themselves.
    pub atomic: u64,
    /// Port accesses to the board's hardware.
    pub port: u64,
}

/// Reads the emulator's output to its end and returns what each trace held, in order.
///
/// # Errors
///
/// Where the output cannot be read.
pub(super) fn sections(output: impl BufRead) -> io::Result<Vec<Section>> {
    let mut sections = Vec::new();
    let mut current: Option<Section> = None;
    for line in output.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_start_matches(|c: char| c != 'T' && c != '(');
        if line.starts_with("Tracing enabled") {
            current = Some(Section::default());
        } else if line.starts_with("Tracing disabled") {
            sections.extend(current.take());
        } else if let Some(section) = current.as_mut()
            && let Some((address, text)) = instruction(line)
            && address >= HYPERVISOR
        {
            section.count(text);
        }
    }
    Ok(sections)
}

/// Address and text of a trace line of processor 0:
/// `(0).[244174805] [0x000000100041] 0010:0000000000100041 (unk. ctxt): mov eax, 3 ; b803000000`.
fn instruction(line: &str) -> Option<(u64, &str)> {
    let rest = line.strip_prefix("(0).[")?;
    let (_, rest) = rest.split_once("] [")?;
    let (_, rest) = rest.split_once("] ")?;
    let (place, rest) = rest.split_once(" (")?;
    let (_, address) = place.split_once(':')?;
    let (_, text) = rest.split_once("): ")?;
    let text = text.rsplit_once(';').map_or(text, |(text, _)| text);
    Some((u64::from_str_radix(address, 16).ok()?, text.trim()))
}

impl Section {
    fn count(&mut self, text: &str) {
        self.instructions += 1;
        let mut words = text.split_whitespace();
        let mut name = words.next().unwrap_or_default();
        let locked = name == "lock";
        if locked {
            name = words.next().unwrap_or_default();
        }
        let slot = match name {
            "vmresume" | "vmlaunch" => &mut self.entries,
            "vmread" => &mut self.vmread,
            "vmwrite" => &mut self.vmwrite,
            "rdmsr" => &mut self.rdmsr,
            "wrmsr" => &mut self.wrmsr,
            "invept" | "invvpid" => &mut self.invalidate,
            "in" | "out" => &mut self.port,
            _ if is_state(name) => &mut self.xsave,
            _ if locked || (name == "xchg" && text.contains('[')) => &mut self.atomic,
            "xchg" if text.contains("ptr") => &mut self.atomic,
            _ => return,
        };
        *slot += 1;
    }
}

fn is_state(name: &str) -> bool {
    ["xsave", "xrstor", "fxsave", "fxrstor"]
        .iter()
        .any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_between_the_marks_only() {
        let line = |address: &str, text: &str| {
            format!("(0).[244174805] [0x000000100041] 0010:{address} (unk. ctxt): {text} ; 0f01\n")
        };
        let host = |text: &str| line("ffffffff80201000", text);
        let output = [
            host("vmread rax, rbx"),
            "Tracing enabled for CPU0\n".into(),
            line("0000000000101000", "cpuid"),
            host("vmread rax, rbx"),
            host("vmread qword ptr ds:[rdi], rbx"),
            host("vmwrite rax, rbx"),
            host("lock cmpxchg qword ptr ds:[rdi], rcx"),
            host("xchg byte ptr ds:[rdi], al"),
            host("xchg bx, bx"),
            host("xsaves ds:[rdi]"),
            host("fxrstor ds:[rdi]"),
            host("wrmsr "),
            host("rdmsr "),
            host("invept rax, ds:[rsp]"),
            host("in al, dx"),
            host("mov eax, 0x00000003"),
            host("vmresume "),
            "(1).[7] [0x0] 0010:ffffffff80201000 (unk. ctxt): wrmsr ; 0f30\n".into(),
            "(0) Magic breakpoint\n".into(),
            "Tracing disabled for CPU0\n".into(),
            host("wrmsr "),
            "Tracing enabled for CPU0\nTracing disabled for CPU0\n".into(),
            "Tracing enabled for CPU0\n".into(),
        ]
        .concat();
        let sections = sections(output.as_bytes()).unwrap();
        let expected = Section {
            instructions: 14,
            entries: 1,
            vmread: 2,
            vmwrite: 1,
            rdmsr: 1,
            wrmsr: 1,
            xsave: 2,
            invalidate: 1,
            atomic: 2,
            port: 1,
        };
        assert_eq!(sections, [expected, Section::default()]);
    }

    #[test]
    fn lines_of_bochs_are_read() {
        let line = "(0).[244174805] [0x000000100046] 0010:0000000000100046 (unk. ctxt): lock inc \
                    dword ptr ds:0x00007000 ; f0ff0500700000";
        assert_eq!(
            instruction(line),
            Some((0x10_0046, "lock inc dword ptr ds:0x00007000"))
        );
        assert_eq!(instruction("(0) [0x1] 0010:1 (x): nop ; 90"), None);
        assert_eq!(instruction("(0) Magic breakpoint"), None);
    }
}

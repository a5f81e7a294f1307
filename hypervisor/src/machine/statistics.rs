//! Counting exits.

use core::fmt;

/// Kinds of exits that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Kind {
    Cpuid,
    PortIn,
    PortOut,
    StringIo,
    ReadMsr,
    WriteMsr,
    Halt,
    Deadline,
    HostInterrupt,
    InterruptWindow,
    ControlRegister,
    Other,
}

const NAMES: [&str; 12] = [
    "cpuid",
    "in",
    "out",
    "string-io",
    "rdmsr",
    "wrmsr",
    "hlt",
    "deadline",
    "interrupt",
    "window",
    "cr",
    "other",
];

/// How often each kind of exit came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Statistics {
    counts: [u64; NAMES.len()],
    /// Interrupts delivered to the guest.
    pub(super) injected: u64,
    /// Accesses to MSRs that do not exist.
    pub(super) unknown_msrs: u64,
}

impl Statistics {
    #[inline(always)]
    pub(super) fn count(&mut self, kind: Kind) {
        self.counts[kind as usize] += 1;
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} exits:", self.counts.iter().sum::<u64>())?;
        for (name, count) in NAMES
            .iter()
            .zip(self.counts)
            .filter(|(_, count)| *count > 0)
        {
            write!(f, " {name} {count}")?;
        }
        write!(
            f,
            "; {} interrupts, {} unknown MSRs",
            self.injected, self.unknown_msrs
        )
    }
}

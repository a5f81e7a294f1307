//! Why a guest cannot go on.

use super::memory_access::INSTRUCTION_MAX;
use crate::cpu;
use crate::mmio::Unsupported;
use core::fmt;
use vcpu::{AccessKind, EntryFailure, MemoryFault, RareExit, ShellError, TablesError};

/// Why a guest cannot go on.
pub(super) enum Crash {
    TripleFault,
    Memory(MemoryFault),
    TaskSwitchOutside(u64),
    StringIoOutside(u64),
    MappedAccess {
        what: Unsupported,
        bytes: [u8; INSTRUCTION_MAX],
        address: u64,
    },
    CodeOutside(u64),
    Unexpected(RareExit),
    Entry(EntryFailure),
    Shell(ShellError),
    PageTables(TablesError),
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripleFault => write!(f, "triple fault"),
            Self::Memory(fault) => {
                let what = match fault.kind {
                    AccessKind::Read => "read",
                    AccessKind::Write => "write",
                    AccessKind::Fetch => "instruction fetch",
                };
                write!(
                    f,
                    "{what} of memory it does not own at {:#x}",
                    fault.physical
                )?;
                fault
                    .linear
                    .map_or(Ok(()), |linear| write!(f, " (linear {linear:#x})"))
            }
            Self::TaskSwitchOutside(address) => {
                write!(f, "task switch in memory it does not own at {address:#x}")
            }
            Self::StringIoOutside(address) => {
                write!(f, "string I/O on memory it does not own at {address:#x}")
            }
            Self::MappedAccess {
                what,
                bytes,
                address,
            } => {
                write!(f, "{what} ({bytes:02x?}) on the device at {address:#x}")
            }
            Self::CodeOutside(address) => {
                write!(
                    f,
                    "code at {address:#x} (linear), which cannot be read, touched a device"
                )
            }
            Self::Unexpected(exit) => write!(f, "unexpected exit {exit:?}"),
            Self::Entry(failure) => failure.fmt(f),
            Self::Shell(error) => error.fmt(f),
            Self::PageTables(error) => error.fmt(f),
        }
    }
}

impl From<ShellError> for Crash {
    fn from(error: ShellError) -> Self {
        Self::Shell(error)
    }
}

impl From<EntryFailure> for Crash {
    fn from(failure: EntryFailure) -> Self {
        if matches!(failure, EntryFailure::MachineCheck) {
            cpu::machine_check("while a guest was entered");
        }
        Self::Entry(failure)
    }
}

impl From<TablesError> for Crash {
    fn from(error: TablesError) -> Self {
        Self::PageTables(error)
    }
}

//! What can go wrong between the layers above and the processor.

use crate::state::SegmentRegister;
use alloc::string::String;
use core::fmt;

/// An operation on a vCPU failed in the processor: the vCPU cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShellError {
    /// An instruction of the virtualization extension failed.
    Instruction {
        /// Its name.
        name: &'static str,
        /// What it was to work on: a field's encoding or a physical address.
        operand: u64,
    },
    /// Another vCPU's state is in the processor: it must be parked first.
    Occupied,
}

impl fmt::Display for ShellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instruction { name, operand } => write!(f, "{name} of {operand:#06x} failed"),
            Self::Occupied => write!(f, "another vCPU's state is in the processor"),
        }
    }
}

impl core::error::Error for ShellError {}

/// Why a vCPU could not be made or set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuError {
    /// No memory for the structures that the processor needs.
    OutOfMemory,
    /// The processor refused an operation.
    Shell(ShellError),
}

impl fmt::Display for VcpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => write!(f, "no memory for a virtual processor"),
            Self::Shell(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for VcpuError {}

impl From<ShellError> for VcpuError {
    fn from(error: ShellError) -> Self {
        Self::Shell(error)
    }
}

/// Why an entry did not lead to an exit.
#[derive(Debug)]
pub enum EntryFailure {
    /// The hardware failed, not the guest.
    MachineCheck,
    /// The processor refused the entry: why, and what it was given.
    Refused(String),
    /// The vCPU could not be read or written.
    Shell(ShellError),
}

impl From<ShellError> for EntryFailure {
    fn from(error: ShellError) -> Self {
        Self::Shell(error)
    }
}

impl fmt::Display for EntryFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MachineCheck => write!(f, "machine check during VM entry"),
            Self::Refused(what) => write!(f, "VM entry refused: {what}"),
            Self::Shell(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for EntryFailure {}

/// Why a saved state cannot be restored. Nothing has changed then, but for [`RestoreError::Shell`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// No vCPU can be in such a state: what is wrong.
    Invalid(&'static str),
    /// As [`RestoreError::Invalid`], in a segment register.
    Segment(SegmentRegister, &'static str),
    /// This processor lacks something that the state uses.
    Unsupported(&'static str),
    /// The processor refused an operation.
    Shell(ShellError),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(what) => write!(f, "invalid state of a virtual processor: {what}"),
            Self::Segment(register, what) => write!(
                f,
                "invalid state of a virtual processor: {what} of segment register {register:?}"
            ),
            Self::Unsupported(what) => {
                write!(f, "this processor lacks what the state uses: {what}")
            }
            Self::Shell(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RestoreError {}

impl From<ShellError> for RestoreError {
    fn from(error: ShellError) -> Self {
        Self::Shell(error)
    }
}

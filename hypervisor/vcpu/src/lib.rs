//! What a virtual processor is, whichever extension of the hardware runs it.
//!
//! Two thin shells, `vmx` over Intel VT-x and `svm` over AMD-V, run virtual processors. Here is the
//! vocabulary that both speak to the layers above: a vCPU's state ([`VcpuStateV1`]), why it left its guest
//! ([`Exit`], [`RareExit`]), what is delivered into the guest ([`Event`]), the second level of page tables
//! ([`NestedTables`]), and the traits that each shell implements ([`Shell`], [`Vcpu`], [`Active`]). Also what
//! is alike beneath both: the registers that neither extension switches.

#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

mod error;
mod exit;
mod memory;
pub mod msr;
mod nested;
mod paging;
mod registers;
mod resident;
mod saved;
mod shell;
mod state;
mod xsave;

pub use error::{EntryFailure, RestoreError, ShellError, VcpuError};
pub use exit::{
    AccessKind, ControlRegisterAccess, Direction, Exit, IoAccess, MemoryFault, RareExit,
    RareReason, SwitchSource, TaskSwitch, Vector, Width,
};
#[cfg(any(test, feature = "fake-frames"))]
pub use memory::fake;
pub use memory::{DirectMap, FRAME_SIZE, Frame, FrameSource};
pub use nested::{
    Encoding, Format, Method, NestedTables, PageSet, Permissions, REGION_SIZE, TablesError,
};
pub use paging::{CodeAndTask, Paging};
pub use registers::Registers;
pub use resident::{AddressWidths, Barriers, Resident};
pub use saved::{Limits, QueuedEvent, TableRegister, VcpuStateV1, blocking};
pub use shell::{
    Active, ApicLending, ApicState, ControlRegisters, DeadlineTimer, Events, Facts, GuestView,
    Shell, TaskSwitching, Vcpu, WriteLog, listed,
};
pub use state::{
    Event, EventKind, Gprs, HostState, Segment, SegmentRegister, StartState, exception, rflags,
};
pub use xsave::{AreaLayout, ComponentV1, ExtendedStateV1, supported_xcr0, xcr0_is_valid};

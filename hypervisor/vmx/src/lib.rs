//! A thin shell over Intel VT-x (Intel SDM volume 3, chapters 24 to 33).
//!
//! The shell owns everything that only VT-x knows: capability MSRs, the VMCS and its fields, EPT,
//! entering and leaving a guest. It decodes a raw VM exit once into [`Exit`], which names what the
//! guest did and nothing of VT-x; what to do about it is decided above.
//!
//! This is the one room whose subject is `unsafe` code. The rules that make it sound:
//!
//! * A [`VmxCpu`] exists only while its processor is in VMX operation, and cannot leave it.
//! * VMCS fields are read and written only through [`Active`], which proves that the VMCS is the
//!   current one of this processor.
//! * Host-state fields are written here only; the layers above reach guest state and controls.

#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

mod active;
mod bitmaps;
mod caps;
mod controls;
mod cpu;
mod dump;
mod enter;
mod ept;
mod exit;
mod fields;
mod memory;
pub mod msr;
mod residency;
mod saved;
mod setup;
mod state;
mod vcpu;
mod virtual_apic;
mod vmcs;
mod xsave;

pub use active::{Active, Paging};
pub use bitmaps::{IoBitmaps, MsrBitmap};
pub use caps::{Capabilities, Unsupported};
pub use controls::{EntryControls, ExitControls, PinControls, PrimaryControls, SecondaryControls};
pub use cpu::{HostState, StartError, VmxCpu};
pub use dump::VmcsDump;
pub use ept::{Ept, EptError, MemoryType, Permissions};
pub use exit::{
    AccessKind, ControlRegisterAccess, Direction, Exit, IoAccess, MemoryFault, RareExit,
    RareReason, SwitchSource, TaskSwitch, Vector, Width,
};
pub use fields::{Field16, Field32, Field64, FieldNatural};
pub use memory::{DirectMap, FRAME_SIZE, Frame, FrameSource};
pub use saved::{QueuedEvent, RestoreError, TableRegister, VcpuStateV1};
pub use state::{Event, EventKind, Gprs, Segment, SegmentRegister, StartState};
pub use vcpu::{EntryFailure, Refusal, Vcpu, VcpuError};
pub use virtual_apic::ApicState;
pub use vmcs::VmcsError;
pub use xsave::{ComponentV1, ExtendedStateV1};

//! The virtual PC: device models as plain structs.
//!
//! Register accesses go in together with the guest's time; effects on the world outside come out through
//! [`Effects`]. No device keeps a hidden clock, allocates on an access or can be made to panic by a guest.

#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acpi;
pub mod ioapic;
pub mod keyboard;
pub mod lapic;
pub mod msi;
pub mod ne2000;
pub mod nic;
pub mod pc;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod power;
pub mod rtc;
pub mod system;
pub mod time;
pub mod uart;
pub mod virtio;
pub mod watchdog;

pub use ioapic::{IoApic, IoApicStateV1};
pub use lapic::{LocalApic, LocalApicConfig, LocalApicStateV1};
pub use pc::{
    CLOCK_TOLERANCE, DiskError, Effects, MemoryAccess, OutsideMemory, Pc, PcConfig, PcStateV1,
    ResetCause, StateError, Width,
};
pub use time::{Rate, Ticks};
pub use virtio::VirtioConfig;
pub use watchdog::WatchdogConfig;

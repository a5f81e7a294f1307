//! Physical hardware behind small interfaces.
//!
//! Drivers know registers and nothing of guests. Each type stands for one piece of hardware and is
//! made by an `unsafe` constructor whose contract is that the hardware is there and nobody else's;
//! after that its methods are safe.

#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod dma;
pub mod entropy;
pub mod io_apic;
pub mod local_apic;
pub mod nic;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod port;
pub mod power;
pub mod rtc;
pub mod serial;
pub mod tsc;

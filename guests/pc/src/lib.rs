//! What our 32-bit guests share: the multiboot1 entry, ports, descriptor tables, polled serial output.
//!
//! The guests are freestanding programs of one flat address space: no paging, no privilege levels, one
//! processor. Everything that touches the machine exists only on `x86`; parsing is plain code that the host
//! tests too.
#![cfg_attr(target_arch = "x86", no_std)]

pub mod cmdline;
pub mod multiboot;

#[cfg(target_arch = "x86")]
mod boot;
#[cfg(target_arch = "x86")]
pub mod cpu;
#[cfg(target_arch = "x86")]
pub mod handover;
#[cfg(target_arch = "x86")]
pub mod idt;
#[cfg(target_arch = "x86")]
mod memory;
#[cfg(target_arch = "x86")]
mod panic;
#[cfg(target_arch = "x86")]
pub mod port;
#[cfg(target_arch = "x86")]
pub mod power;
#[cfg(target_arch = "x86")]
pub mod serial;

#[cfg(target_arch = "x86")]
pub use boot::image;

//! A thin shell over Intel VT-x (Intel SDM volume 3, chapters 24 to 33).
//!
//! The shell owns everything that only VT-x knows: capability MSRs, the VMCS and its fields,
//! entering and leaving a guest. It decodes a raw VM exit once into [`vcpu::Exit`], which names what the
//! guest did and nothing of VT-x; what to do about it is decided above.
//!
//! This is a room whose subject is `unsafe` code. The rules that make it sound:
//!
//! * A [`VmxCpu`] exists only while its processor is in VMX operation, and cannot leave it.
//! * VMCS fields are read and written only through [`VmxActive`], which proves that the VMCS is the
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
mod exit;
mod fields;
mod residency;
mod setup;
mod virtual_apic;
mod vmcs;
mod vmx_vcpu;
mod write_log;

pub use active::VmxActive;
pub use caps::Unsupported;
pub use cpu::{StartError, VmxCpu};
pub use vmx_vcpu::VmxVcpu;

//! A thin shell over AMD-V (AMD64 Architecture Programmer's Manual, APM, volume 2, chapter 15 and appendices B and C).
//!
//! The shell owns everything that only AMD-V knows: the VMCB, the permission maps, GIF, entering and
//! leaving a guest. It decodes a raw #VMEXIT once into [`vcpu::Exit`], which names what the guest did and
//! nothing of AMD-V; what to do about it is decided above.
//!
//! This is a room whose subject is `unsafe` code. The rules that make it sound:
//!
//! * An [`SvmCpu`] exists only while EFER.SVME is set on its processor, and that is never cleared.
//! * A guest runs only through [`SvmActive`], whose VMCB says where it may reach: every field that decides that is
//!   written here, from the nested page tables and the permission maps; the layers above reach guest state.
//! * GIF is set whenever Rust code runs; only the few instructions around VMRUN run without.

#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

mod active;
mod bitmaps;
mod caps;
mod cpu;
mod decode;
mod enter;
mod exit;
mod segments;
mod setup;
mod svm_vcpu;
mod vmcb;

pub use active::SvmActive;
pub use caps::Unsupported;
pub use cpu::{StartError, SvmCpu};
pub use svm_vcpu::SvmVcpu;

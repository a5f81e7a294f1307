//! Small guests that probe or attack the hypervisor. The words of the command line name them, and they run in
//! that order.
//!
//! A probe prints what it finds, and ends with `probe NAME: passed` or `probe NAME: FAILED why` and a
//! power-off. One that must not survive says what it is about to do, and does it.
#![cfg_attr(target_arch = "x86", no_std, no_main)]

#[cfg(target_arch = "x86")]
mod apic;
#[cfg(target_arch = "x86")]
mod bench;
#[cfg(target_arch = "x86")]
mod code;
#[cfg(target_arch = "x86")]
mod console;
#[cfg(target_arch = "x86")]
mod control;
#[cfg(target_arch = "x86")]
mod cpuid;
#[cfg(target_arch = "x86")]
mod debug;
#[cfg(target_arch = "x86")]
mod endings;
#[cfg(target_arch = "x86")]
mod fpu;
#[cfg(target_arch = "x86")]
mod instructions;
#[cfg(target_arch = "x86")]
mod lengths;
#[cfg(target_arch = "x86")]
mod memory;
#[cfg(target_arch = "x86")]
mod modes;
#[cfg(target_arch = "x86")]
mod msrs;
#[cfg(target_arch = "x86")]
mod net;
#[cfg(target_arch = "x86")]
mod paging;
#[cfg(target_arch = "x86")]
mod ports;
#[cfg(target_arch = "x86")]
mod probe;
#[cfg(target_arch = "x86")]
mod spaces;
#[cfg(target_arch = "x86")]
mod storm;
#[cfg(target_arch = "x86")]
mod strings;
#[cfg(target_arch = "x86")]
mod tables;
#[cfg(target_arch = "x86")]
mod tasks;
#[cfg(target_arch = "x86")]
mod time;
#[cfg(target_arch = "x86")]
mod vectors;
#[cfg(target_arch = "x86")]
mod writes;
#[cfg(target_arch = "x86")]
mod writing;

#[cfg(target_arch = "x86")]
pc::entry!(probe::main);

#[cfg(not(target_arch = "x86"))]
fn main() {
    eprintln!("this program is a multiboot image: build it for i586-unknown-linux-gnu and boot it");
}

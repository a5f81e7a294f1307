//! A legacy uniprocessor real-time system with a telephone exchange on it.
//!
//! It is written as such systems were: for one processor of an old PC, with a kernel of its own, and without a
//! thought of virtual machines or of a second machine that might take over.
#![cfg_attr(target_arch = "x86", no_std, no_main)]

#[cfg(target_arch = "x86")]
mod console;
#[cfg(target_arch = "x86")]
mod diagnosis;
#[cfg(target_arch = "x86")]
mod executive;
#[cfg(target_arch = "x86")]
mod jitter;
#[cfg(target_arch = "x86")]
mod machine;
#[cfg(target_arch = "x86")]
mod network;
#[cfg(target_arch = "x86")]
mod phone;
#[cfg(target_arch = "x86")]
mod selftest;
#[cfg(target_arch = "x86")]
mod system;

#[cfg(target_arch = "x86")]
use executive::BOOT;

#[cfg(target_arch = "x86")]
pc::entry!(executive::main);

#[cfg(not(target_arch = "x86"))]
fn main() {
    eprintln!("this program is a multiboot image: build it for i586-unknown-linux-gnu and boot it");
}

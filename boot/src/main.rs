//! The bootable image: from the boot loader to the hypervisor.
//!
//! The boot code finds out what the board has (memory, processors, ACPI tables, modules), builds the
//! address space, starts every processor and hands all of it to the hypervisor as one description.

#![cfg_attr(target_os = "none", no_std, no_main)]

// On a host the image can only be linted: it is linked for the bare target alone.
#[cfg(any(target_os = "none", clippy))]
extern crate alloc;
#[cfg(any(target_os = "none", clippy))]
mod bare;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is the hypervisor's image; build it with `cargo xtask build`");
    std::process::exit(2);
}

//! A distribution's Linux without a hypervisor under it, in the same emulated machine.

use crate::emulator::{Setup, Watch};
use crate::image;
use crate::paths;
use anyhow::{Context, Result};
use std::path::Path;

/// Makes a CD in `folder` that boots a kernel by GRUB, and sets up a machine with one processor for it.
///
/// # Errors
///
/// Where the CD cannot be made.
pub(crate) fn machine(
    folder: &Path,
    kernel: &[u8],
    initrd: &[u8],
    command_line: &str,
    megabytes: u32,
) -> Result<Setup> {
    let cd = folder.join("cd");
    paths::fresh_folder(&cd.join("boot/grub"))?;
    paths::write(&cd.join("boot/vmlinuz"), kernel)?;
    paths::write(&cd.join("boot/initrd"), initrd)?;
    paths::write(
        &cd.join("boot/grub/grub.cfg"),
        format!("set timeout=0\nlinux /boot/vmlinuz {command_line}\ninitrd /boot/initrd\nboot\n"),
    )?;
    let iso = folder.join("native.iso");
    image::mkrescue(&cd, &iso)?;
    Ok(Setup::new(iso, 1, megabytes))
}

/// Has Bochs tell when the kernel is entered: where GRUB puts it is where the kernel would like to be.
///
/// # Errors
///
/// Where the kernel does not say.
pub(super) fn watch_entry(kernel: &[u8]) -> Result<Watch> {
    // pref_address of Documentation/x86/boot.rst, since protocol version 2.10.
    let place = kernel
        .get(0x258..0x260)
        .and_then(|place| place.try_into().ok());
    let place = place.context("the kernel is too short")?;
    Ok(Watch::Address(u64::from_le_bytes(place)))
}

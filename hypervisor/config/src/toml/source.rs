//! The files that a board file names.

use std::path::PathBuf;

/// A file that a board file names; its position in the list is its boot module's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSource {
    /// Where its bytes come from.
    pub origin: Origin,
    /// The line of the board file that names it first.
    pub line: usize,
    /// What it is to the board, for messages: `image of guest "rtos"`.
    pub purpose: String,
}

/// Where a boot module's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file; a relative path starts at the board file's folder.
    File(PathBuf),
    /// Something that the build tool makes.
    Built(BuiltImage),
}

/// The images that the build tool makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltImage {
    /// `@rtos`: the legacy real-time system.
    Rtos,
    /// `@probes`: the small guests that probe the hypervisor.
    Probes,
    /// `@linux`: the kernel of the distribution that the Linux guest is made of.
    Linux,
    /// `@initramfs`: the Linux guest's initial file system, a module for `@linux`.
    Initramfs,
    /// `@linux-generic`: the distribution's kernel for real hardware, which drives old cards, too.
    LinuxGeneric,
    /// `@initramfs-generic`: the same file system with that kernel's modules, a module for `@linux-generic`.
    InitramfsGeneric,
}

impl BuiltImage {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Rtos,
        Self::Probes,
        Self::Linux,
        Self::Initramfs,
        Self::LinuxGeneric,
        Self::InitramfsGeneric,
    ];
    /// Those that are programs of this project.
    pub const PROGRAMS: [Self; 2] = [Self::Rtos, Self::Probes];

    /// The name behind the `@`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rtos => "rtos",
            Self::Probes => "probes",
            Self::Linux => "linux",
            Self::Initramfs => "initramfs",
            Self::LinuxGeneric => "linux-generic",
            Self::InitramfsGeneric => "initramfs-generic",
        }
    }
}

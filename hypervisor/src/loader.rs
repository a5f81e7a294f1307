//! Putting a kernel into a guest's memory, by open protocols.

pub mod multiboot;

/// How the guest's processor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Instruction pointer.
    pub eip: u32,
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
}

/// A file for the guest's kernel.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its command line.
    pub command_line: &'a str,
}

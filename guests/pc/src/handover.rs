//! What the loader hands over: the multiboot1 information, read where it lies.

use core::{ptr, slice};

use crate::{
    cmdline::CommandLine,
    multiboot::{LOADER_MAGIC, MemoryMap},
};

const HAS_COMMAND_LINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MEMORY_MAP: u32 = 1 << 6;
const LONGEST_COMMAND_LINE: usize = 4096;

/// A module: where the loader put it, and the text behind its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Module<'a> {
    /// First address.
    pub start: u32,
    /// The address after the last.
    pub end: u32,
    /// Its command line.
    pub command_line: &'a str,
}

/// What the loader handed over; empty if no multiboot1 loader started us.
///
/// The information lies in memory that the map calls free. Copy what is needed before that memory is used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boot {
    flags: u32,
    command_line: u32,
    modules: u32,
    module_table: u32,
    map_length: u32,
    map: u32,
}

impl Boot {
    /// Reads what the loader left.
    ///
    /// # Safety
    /// If `magic` is [`LOADER_MAGIC`], `address` must point to multiboot1 information, which stays
    /// unchanged with all that it points to.
    pub(crate) unsafe fn from_loader(magic: u32, address: u32) -> Self {
        if magic != LOADER_MAGIC {
            return Self::default();
        }
        let word = |offset: u32| {
            // SAFETY: the caller says that the structure is there; it has at least 88 bytes.
            unsafe { ptr::read_unaligned((address + offset) as *const u32) }
        };
        Self {
            flags: word(0),
            command_line: word(16),
            modules: word(20),
            module_table: word(24),
            map_length: word(44),
            map: word(48),
        }
    }

    /// The command line.
    #[must_use]
    pub fn command_line(&self) -> CommandLine<'static> {
        let has = self.flags & HAS_COMMAND_LINE != 0;
        CommandLine::new(if has { text(self.command_line) } else { "" })
    }

    /// The memory map.
    #[must_use]
    pub fn memory_map(&self) -> MemoryMap<'static> {
        if self.flags & HAS_MEMORY_MAP == 0 {
            return MemoryMap::new(&[]);
        }
        // SAFETY: `from_loader`'s caller vouches for the structure, and the flag says that the map is there.
        MemoryMap::new(unsafe {
            slice::from_raw_parts(self.map as *const u8, self.map_length as usize)
        })
    }

    /// The modules.
    pub fn modules(&self) -> impl Iterator<Item = Module<'static>> {
        let has = self.flags & HAS_MODULES != 0;
        let (table, count) = (self.module_table, self.modules);
        (0..if has { count } else { 0 }).map(move |index| {
            let word = |offset: u32| {
                // SAFETY: as in `memory_map`; the table has `count` entries of 16 bytes.
                unsafe { ptr::read_unaligned((table + index * 16 + offset) as *const u32) }
            };
            Module {
                start: word(0),
                end: word(4),
                command_line: text(word(8)),
            }
        })
    }
}

/// The text that ends with a zero byte at an address the loader gave; empty if it is not UTF-8.
fn text(address: u32) -> &'static str {
    let start = address as *const u8;
    // SAFETY: `from_loader`'s caller vouches for what the structure points to; the search stops at the
    // zero that the protocol demands.
    let byte = |at: usize| unsafe { start.add(at).read() };
    let length = (0..LONGEST_COMMAND_LINE)
        .find(|&at| byte(at) == 0)
        .unwrap_or(0);
    // SAFETY: these bytes have just been read.
    let bytes = unsafe { slice::from_raw_parts(start, length) };
    core::str::from_utf8(bytes).unwrap_or("")
}

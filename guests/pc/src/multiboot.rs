//! The multiboot1 protocol: what the loader tells the guest.

use crate::cmdline::CommandLine;

/// The first word of a multiboot1 header.
pub const HEADER_MAGIC: u32 = 0x1bad_b002;
/// What our header asks for: modules on page boundaries, and memory information.
pub const HEADER_FLAGS: u32 = 0b11;
/// What a multiboot1 loader leaves in EAX.
pub const LOADER_MAGIC: u32 = 0x2bad_b002;

const HAS_COMMAND_LINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MEMORY_MAP: u32 = 1 << 6;
const LONGEST_COMMAND_LINE: usize = 4096;

/// One range of the memory map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MemoryRange {
    /// First address.
    pub base: u64,
    /// Size in bytes.
    pub length: u64,
    /// 1 is RAM; everything else is not to be used.
    pub kind: u32,
}

impl MemoryRange {
    /// Whether this is RAM.
    #[must_use]
    pub fn is_ram(&self) -> bool {
        self.kind == 1
    }

    /// The address after the last.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.base.saturating_add(self.length)
    }
}

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

/// The ranges of a memory map, as its bytes tell. It ends at the first entry that is cut off.
#[derive(Clone, Copy, Debug)]
pub struct MemoryMap<'a>(&'a [u8]);

impl<'a> MemoryMap<'a> {
    /// Takes the bytes of the map.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl Iterator for MemoryMap<'_> {
    type Item = MemoryRange;

    fn next(&mut self) -> Option<MemoryRange> {
        let (size, rest) = self.0.split_first_chunk::<4>()?;
        let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
        let entry = rest.get(..size)?;
        let (base, tail) = entry.split_first_chunk::<8>()?;
        let (length, tail) = tail.split_first_chunk::<8>()?;
        let (kind, _) = tail.split_first_chunk::<4>()?;
        self.0 = &rest[size..];
        Some(MemoryRange {
            base: u64::from_le_bytes(*base),
            length: u64::from_le_bytes(*length),
            kind: u32::from_le_bytes(*kind),
        })
    }
}

/// The words of the information structure that we use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Information {
    flags: u32,
    command_line: u32,
    modules: u32,
    module_table: u32,
    map_length: u32,
    map: u32,
}

/// What the loader handed over; empty if no multiboot1 loader started us.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boot {
    information: Information,
}

impl Boot {
    /// Whether a multiboot1 loader started us.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.information != Information::default()
    }
}

#[cfg(target_arch = "x86")]
mod memory {
    use core::{ptr, slice};

    use super::{
        Boot, CommandLine, HAS_COMMAND_LINE, HAS_MEMORY_MAP, HAS_MODULES, Information,
        LOADER_MAGIC, LONGEST_COMMAND_LINE, MemoryMap, Module,
    };

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
            let information = Information {
                flags: word(0),
                command_line: word(16),
                modules: word(20),
                module_table: word(24),
                map_length: word(44),
                map: word(48),
            };
            Self { information }
        }

        /// The command line.
        #[must_use]
        pub fn command_line(&self) -> CommandLine<'static> {
            let has = self.information.flags & HAS_COMMAND_LINE != 0;
            CommandLine::new(if has {
                text(self.information.command_line)
            } else {
                ""
            })
        }

        /// The memory map.
        #[must_use]
        pub fn memory_map(&self) -> MemoryMap<'static> {
            if self.information.flags & HAS_MEMORY_MAP == 0 {
                return MemoryMap::new(&[]);
            }
            // SAFETY: `from_loader`'s caller vouches for the structure, and the flag says that the map is there.
            MemoryMap::new(unsafe {
                slice::from_raw_parts(
                    self.information.map as *const u8,
                    self.information.map_length as usize,
                )
            })
        }

        /// The modules.
        pub fn modules(&self) -> impl Iterator<Item = Module<'static>> {
            let has = self.information.flags & HAS_MODULES != 0;
            let (table, count) = (self.information.module_table, self.information.modules);
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
        // zero that the protocol demands, or at a length that RAM below 4 GiB surely holds.
        let length = (0..LONGEST_COMMAND_LINE).find(|&at| unsafe { start.add(at).read() } == 0);
        // SAFETY: these bytes have just been read.
        let bytes = unsafe { slice::from_raw_parts(start, length.unwrap_or(0)) };
        core::str::from_utf8(bytes).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::{MemoryMap, MemoryRange};

    fn entry(base: u64, length: u64, kind: u32, padding: usize) -> Vec<u8> {
        let mut bytes = (20 + u32::try_from(padding).expect("small"))
            .to_le_bytes()
            .to_vec();
        bytes.extend(base.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(vec![0xee; padding]);
        bytes
    }

    #[test]
    fn ranges_of_any_size() {
        let bytes = [
            entry(0, 0x9_f000, 1, 0),
            entry(0x10_0000, 0xff0_0000, 1, 4),
            entry(0xf0_0000_0000, 1, 2, 0),
        ];
        let ranges: Vec<_> = MemoryMap::new(&bytes.concat()).collect();
        assert_eq!(
            ranges[1],
            MemoryRange {
                base: 0x10_0000,
                length: 0xff0_0000,
                kind: 1
            }
        );
        assert_eq!(ranges.len(), 3);
        assert!(ranges[0].is_ram() && !ranges[2].is_ram());
        assert_eq!(ranges[1].end(), 0x1000_0000);
    }

    #[test]
    fn a_cut_map_ends() {
        let bytes = [entry(0, 1, 1, 0), entry(2, 3, 1, 0)].concat();
        for length in 0..bytes.len() {
            assert_eq!(
                MemoryMap::new(&bytes[..length]).count(),
                usize::from(length >= 24)
            );
        }
        assert_eq!(MemoryMap::new(&[0; 64]).count(), 0);
        assert_eq!(MemoryMap::new(&[0xff; 64]).count(), 0);
    }
}

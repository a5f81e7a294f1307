//! The multiboot1 protocol: its numbers, and the memory map.

/// The first word of a multiboot1 header.
pub const HEADER_MAGIC: u32 = 0x1bad_b002;
/// What our header asks for: modules on page boundaries, and memory information.
pub const HEADER_FLAGS: u32 = 0b11;
/// What a multiboot1 loader leaves in EAX.
pub const LOADER_MAGIC: u32 = 0x2bad_b002;

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

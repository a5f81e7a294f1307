//! A digest of all that a guest's memory and disks hold: two boards compare what they have by it.

use super::Machine;
use alloc::boxed::Box;
use vcpu::FRAME_SIZE;

/// A digest that is being made, while nobody writes. It finds mistakes, not forgeries.
#[derive(Debug)]
pub(crate) struct Digest {
    hash: u64,
    /// What comes next: an area, and where in it.
    area: u8,
    from: u64,
    page: Box<[u8; FRAME_SIZE]>,
}

impl Digest {
    /// One of nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            hash: 0,
            area: 0,
            from: 0,
            page: Box::new([0; FRAME_SIZE]),
        }
    }

    /// Adds so many pages; the digest, once all are in it.
    pub(crate) fn step(&mut self, machine: &Machine, pages: usize) -> Option<u64> {
        for _ in 0..pages {
            let Some(memory) = machine.area(self.area) else {
                return Some(self.hash);
            };
            if memory.read(self.from, &mut *self.page).is_ok() {
                self.hash = mix(self.hash, &self.page);
                self.from += FRAME_SIZE as u64;
            } else {
                (self.area, self.from) = (self.area.checked_add(1)?, 0);
            }
        }
        None
    }
}

/// Adds a page to a hash. No two words count alike.
fn mix(hash: u64, page: &[u8; FRAME_SIZE]) -> u64 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let (words, _) = page.as_chunks();
    words.iter().fold(hash, |hash, word| {
        (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(MULTIPLIER)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_and_each_place_counts() {
        let page = [0; FRAME_SIZE];
        let plain = mix(0, &page);
        let mut seen = alloc::vec![plain, mix(1, &page)];
        for at in [0, 1, 7, 8, 2048, FRAME_SIZE - 1] {
            for bit in [1, 0x80] {
                let mut other = page;
                other[at] = bit;
                seen.push(mix(0, &other));
            }
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}

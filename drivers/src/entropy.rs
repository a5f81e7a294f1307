//! The processor's random number generator, RDRAND (Intel SDM volume 1, section 7.3.17).

use x86_64::instructions::random::RdRand;

/// Tries for a number before the generator counts as exhausted, as the SDM advises.
const TRIES: usize = 10;

/// The generator, the same on every processor of a board.
#[derive(Clone, Copy, Debug)]
pub struct Generator(RdRand);

impl Generator {
    /// The generator, if the processor has one.
    #[must_use]
    pub fn new() -> Option<Self> {
        RdRand::new().map(Self)
    }

    /// Fills `bytes` from the front on; returns how many there are. Fewer than asked for means that the generator has
    /// no more now.
    pub fn fill(self, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for chunk in bytes.chunks_mut(size_of::<u64>()) {
            let Some(number) = (0..TRIES).find_map(|_| self.0.get_u64()) else {
                break;
            };
            for (byte, random) in chunk.iter_mut().zip(number.to_le_bytes()) {
                *byte = random;
            }
            done += chunk.len();
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_filled() {
        let Some(generator) = Generator::new() else {
            return;
        };
        let mut seen = [0_u8; 13];
        for _ in 0..100 {
            let mut bytes = [0; 13];
            assert_eq!(generator.fill(&mut bytes), 13);
            for (seen, byte) in seen.iter_mut().zip(bytes) {
                *seen |= byte;
            }
        }
        assert_eq!(seen, [0xff; 13]);
    }
}

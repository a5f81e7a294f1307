//! Frames that somebody wants to look at, in the form of libpcap's files.
//!
//! Source: the Internet draft "PCAP Capture File Format" (draft-ietf-opsawg-pcap), little-endian, with nanoseconds.

use crate::FrameQueue;

/// Bytes of a frame that are kept.
const SNAP: usize = 512;
/// Bytes of a record's header.
const RECORD: usize = 16;

/// What a file begins with: magic number, version 2.4, snap length, Ethernet.
const HEADER: [u32; 6] = [0xA1B2_3C4D, 4 << 16 | 2, 0, 0, SNAP as u32, 1];

/// The newest frames that were captured.
#[derive(Clone, Debug)]
pub struct Capture {
    records: FrameQueue,
    /// Frames that were captured and are no longer there.
    forgotten: u64,
}

impl Capture {
    /// An empty one, of `size` bytes.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            records: FrameQueue::new(size),
            forgotten: 0,
        }
    }

    /// Captures a frame of `length` bytes at a time in nanoseconds. `read` writes its first bytes and says how many.
    pub fn push(&mut self, nanoseconds: u64, length: usize, read: impl FnOnce(&mut [u8]) -> usize) {
        const SECOND: u64 = 1_000_000_000;
        let mut bytes = [0; RECORD + SNAP];
        let (header, frame) = bytes.split_at_mut(RECORD);
        let kept = frame.get_mut(..length.min(SNAP)).unwrap_or(&mut []);
        let kept = read(kept).min(SNAP);
        let words = [
            (nanoseconds / SECOND) as u32,
            (nanoseconds % SECOND) as u32,
            kept as u32,
            u32::try_from(length).unwrap_or(u32::MAX),
        ];
        for (place, word) in header.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        let record = bytes.get(..RECORD + kept).unwrap_or(&[]);
        while !self
            .records
            .push(record.len(), |place| place.copy_from_slice(record))
        {
            if !self.records.pop_if(|_| true) {
                return;
            }
            self.forgotten += 1;
        }
    }

    /// Forgets everything.
    pub const fn clear(&mut self) {
        self.records.clear();
        self.forgotten = 0;
    }

    /// How many frames there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many older ones gave way to them.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Writes a file that Wireshark reads, piece by piece.
    pub fn write(&self, mut write: impl FnMut(&[u8])) {
        for word in HEADER {
            write(&word.to_le_bytes());
        }
        self.records.visit(write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    }

    #[test]
    fn the_newest_frames_are_kept() {
        let mut capture = Capture::new(3 * (RECORD + 4 + 60));
        for number in 0..10_u8 {
            capture.push(1_500_000_000 * u64::from(number), 60, |into| {
                into.fill(number);
                into.len()
            });
        }
        assert_eq!((capture.len(), capture.forgotten()), (3, 7));
        let mut file = Vec::new();
        capture.write(|bytes| file.extend_from_slice(bytes));
        assert_eq!(word(&file, 0), 0xA1B2_3C4D);
        assert_eq!((word(&file, 16), word(&file, 20)), (512, 1));
        let mut at = 24;
        for number in 7..10_u32 {
            let time = u64::from(word(&file, at)) * 1_000_000_000 + u64::from(word(&file, at + 4));
            assert_eq!(time, 1_500_000_000 * u64::from(number));
            assert_eq!((word(&file, at + 8), word(&file, at + 12)), (60, 60));
            assert!(
                file[at + 16..at + 76]
                    .iter()
                    .all(|b| u32::from(*b) == number)
            );
            at += 76;
        }
        assert_eq!(at, file.len());
    }

    #[test]
    fn long_frames_are_cut() {
        let mut capture = Capture::new(4096);
        capture.push(0, 9000, |into| into.len());
        let mut file = Vec::new();
        capture.write(|bytes| file.extend_from_slice(bytes));
        assert_eq!(file.len(), 24 + RECORD + SNAP);
        assert_eq!((word(&file, 32), word(&file, 36)), (512, 9000));
        // What does not fit at all is not kept.
        let mut small = Capture::new(100);
        small.push(0, 9000, |into| into.len());
        assert!(small.is_empty());
    }
}

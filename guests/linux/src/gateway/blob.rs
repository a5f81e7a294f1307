//! Bytes for tests of transfers: the same every time, and different everywhere.

use std::io::{self, Write};

/// The largest.
const SIZE_MAX: u64 = 4 << 30;
/// Words that are written at once.
const PIECE: usize = 8192;

/// Reads a size: a number of bytes, or of K, M or G; none where it is no such number, or too large.
pub(super) fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let size = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (size <= SIZE_MAX).then_some(size)
}

/// The word at a place: the numbers, mixed (the finalizer of SplitMix64).
const fn word(at: u64) -> u64 {
    let mut value = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Writes all bytes.
///
/// # Errors
///
/// Where they cannot be written.
pub(super) fn write(size: u64, output: &mut impl Write) -> io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE * 8);
    let (mut left, mut at) = (size, 0);
    while left > 0 {
        piece.clear();
        for number in at..at + PIECE as u64 {
            piece.extend(word(number).to_le_bytes());
        }
        at += PIECE as u64;
        // What is left is more than a piece, or fits its length.
        let length = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        output.write_all(&piece[..length])?;
        left -= length as u64;
    }
    Ok(())
}

/// The checksum of all bytes: CRC-32 as Ethernet and zip have it.
pub(super) fn checksum(size: u64) -> u32 {
    struct Sum(crc32fast::Hasher);
    impl Write for Sum {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sum = Sum(crc32fast::Hasher::new());
    // Nothing can fail here.
    let _ = write(size, &mut sum);
    sum.0.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, expected) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("3K", Some(3072)),
            ("100M", Some(100 << 20)),
            ("4G", Some(4 << 30)),
            ("5G", None),
            ("99999999999999999999", None),
            ("18446744073709551615G", None),
            ("", None),
            ("K", None),
            ("+5", None),
            ("5k", None),
            ("5é", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn blobs_begin_alike_and_repeat_nothing() {
        let blob = |size| {
            let mut bytes = Vec::new();
            write(size, &mut bytes).unwrap();
            bytes
        };
        let large = blob(3 * PIECE as u64 * 8 + 5);
        assert_eq!(large.len(), 3 * PIECE * 8 + 5);
        for size in [0, 1, 9, PIECE as u64 * 8, PIECE as u64 * 8 + 1] {
            assert!(large.starts_with(&blob(size)));
        }
        let mut words: Vec<_> = large.chunks_exact(8).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 3 * PIECE);
        assert_eq!(checksum(large.len() as u64), crc32fast::hash(&large));
    }
}

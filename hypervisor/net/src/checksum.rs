//! The Internet checksum (RFC 1071).

use crate::PartialChecksum;
use crate::offload::BadOffload;

/// The sum of big-endian words, not yet folded: of all bytes but the last if they are odd, which counts as if a zero
/// followed.
#[must_use]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    // Which byte order is used does not matter as long as the result is turned (RFC 1071, 2.B).
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum = 0_u64;
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    sum += u64::from(u32::from_ne_bytes(last));
    u64::from(fold(sum).to_be())
}

/// Folds a sum to 16 bits.
#[must_use]
pub(crate) const fn fold(mut sum: u64) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

/// Completes a checksum in a frame that is whole. One that comes out as zero is stored as all ones, which means the same for TCP
/// and is demanded for UDP (RFC 768).
///
/// # Errors
///
/// [`BadOffload::Checksum`], if it is not inside the frame.
pub fn complete_checksum(frame: &mut [u8], checksum: PartialChecksum) -> Result<(), BadOffload> {
    let start = usize::from(checksum.start);
    let covered = frame.get_mut(start..).ok_or(BadOffload::Checksum)?;
    let result = match !fold(sum(covered)) {
        0 => 0xFFFF,
        result => result,
    };
    let place = covered
        .get_mut(usize::from(checksum.offset)..)
        .and_then(<[u8]>::first_chunk_mut)
        .ok_or(BadOffload::Checksum)?;
    *place = result.to_be_bytes();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_sum_of_words(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut expected = 0_u32;
            for pair in bytes.chunks(2) {
                expected += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
                expected = (expected & 0xFFFF) + (expected >> 16);
            }
            let found = fold(sum(&bytes));
            // Zero has two forms.
            prop_assert!(u32::from(found) % 0xFFFF == expected % 0xFFFF);
        }

        #[test]
        fn what_is_completed_sums_up_to_nothing(
            mut frame in prop::collection::vec(any::<u8>(), 0..200),
            start in 0u16..220,
            offset in 0u16..220,
        ) {
            let checksum = PartialChecksum { start, offset: offset & !1 };
            let from = usize::from(start);
            let place = from + usize::from(checksum.offset);
            let inside = place + 2 <= frame.len();
            let seed = if inside { u64::from(frame[place]) << 8 | u64::from(frame[place + 1]) } else { 0 };
            prop_assert_eq!(complete_checksum(&mut frame, checksum).is_ok(), inside);
            if inside {
                prop_assert!(frame[place..][..2] != [0, 0]);
                // With what was in the checksum's place, which stands for a pseudo-header.
                prop_assert_eq!(fold(sum(&frame[from..]) + seed), 0xFFFF);
            }
        }
    }
}

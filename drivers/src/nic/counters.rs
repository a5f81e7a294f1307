//! What a card counts. Its counters are cleared by being read, so they are added up here.

use super::Statistics;
use super::registers::{Register, Registers, counter};

/// Adds a card's counters to `totals`.
pub(super) fn collect(registers: &impl Registers, totals: &mut Statistics) {
    let count = |register| u64::from(registers.read(register));
    // The low half is to be read first: reading the high one clears both.
    let wide = |low: Register| {
        let low_half = count(low);
        low_half | count(low.nth(1)) << 32
    };
    totals.received_frames += count(counter::GOOD_RECEIVED);
    totals.received_bytes += wide(counter::BYTES_RECEIVED);
    totals.transmitted_frames += count(counter::GOOD_TRANSMITTED);
    totals.transmitted_bytes += wide(counter::BYTES_TRANSMITTED);
    totals.missed += count(counter::MISSED);
    totals.no_buffer += count(counter::NO_BUFFER);
    totals.crc_errors += count(counter::CRC_ERRORS);
    totals.symbol_errors += count(counter::ALIGNMENT_ERRORS) + count(counter::RECEIVE_ERRORS);
    totals.length_errors += count(counter::LENGTH_ERRORS)
        + count(counter::UNDERSIZED)
        + count(counter::FRAGMENTS)
        + count(counter::OVERSIZED)
        + count(counter::JABBER);
    totals.collisions += count(counter::COLLISIONS);
}

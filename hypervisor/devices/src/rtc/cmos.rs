//! What firmware leaves in the clock's memory for an operating system to find.

use super::MEMORY_SIZE;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const BLOCK: u64 = 64 * KIB;

/// Where memory below 4 GiB ends, in bytes: from here to 4 GiB is room for devices.
pub(super) const LOW_MEMORY_END: u64 = 3 << 30;

/// Equipment byte: there is a coprocessor; no floppy drive, no display.
const EQUIPMENT: (usize, u8) = (0x14, 0x02);

/// The bytes that the checksum at 0x2E (high byte first) covers.
const CHECKED: core::ops::Range<usize> = 0x10..0x2E;
const CHECKSUM: usize = 0x2E;

/// The memory of a PC with `memory_bytes` of RAM: sizes, equipment and the checksum over them.
pub(super) fn contents(memory_bytes: u64) -> [u8; MEMORY_SIZE] {
    let low = memory_bytes.min(LOW_MEMORY_END);
    let high = memory_bytes - low;
    let base = (low / KIB).min(640) as u16;
    let extended = (low.saturating_sub(MIB) / KIB).min(0xFFFF) as u16;
    let above_16_mib = (low.saturating_sub(16 * MIB) / BLOCK).min(0xFFFF) as u16;
    let above_4_gib = (high / BLOCK).min(0xFF_FFFF) as u32;

    let mut memory = [0; MEMORY_SIZE];
    memory[EQUIPMENT.0] = EQUIPMENT.1;
    // Sizes, least significant byte first: base and extended memory in KiB (the latter twice, as set up and as found),
    // then memory above 16 MiB and above 4 GiB in blocks of 64 KiB.
    memory[0x15..0x17].copy_from_slice(&base.to_le_bytes());
    memory[0x17..0x19].copy_from_slice(&extended.to_le_bytes());
    memory[0x30..0x32].copy_from_slice(&extended.to_le_bytes());
    memory[0x34..0x36].copy_from_slice(&above_16_mib.to_le_bytes());
    memory[0x5B..0x5E].copy_from_slice(&above_4_gib.to_le_bytes()[..3]);
    let sum = memory[CHECKED]
        .iter()
        .fold(0u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
    memory[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(memory: &[u8; MEMORY_SIZE], at: usize) -> u16 {
        u16::from_le_bytes([memory[at], memory[at + 1]])
    }

    #[test]
    fn sizes_of_a_small_board() {
        let memory = contents(32 * MIB);
        assert_eq!(word(&memory, 0x15), 640);
        assert_eq!(word(&memory, 0x17), 31 * 1024);
        assert_eq!(word(&memory, 0x30), 31 * 1024);
        assert_eq!(word(&memory, 0x34), 256);
        assert_eq!(memory[0x5B..0x5E], [0, 0, 0]);
        let sum: u16 = memory[0x10..0x2E].iter().map(|byte| u16::from(*byte)).sum();
        assert_eq!(u16::from_be_bytes([memory[0x2E], memory[0x2F]]), sum);
    }

    #[test]
    fn sizes_of_a_big_board_are_split_and_capped() {
        let memory = contents(5 << 30);
        assert_eq!(word(&memory, 0x17), 0xFFFF);
        assert_eq!(
            word(&memory, 0x34),
            ((LOW_MEMORY_END - 16 * MIB) / BLOCK) as u16
        );
        assert_eq!(memory[0x5B..0x5E], [0x00, 0x80, 0x00], "2 GiB above 4 GiB");
        let _ = contents(u64::MAX);
        let _ = contents(0);
    }
}

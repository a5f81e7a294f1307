//! The board's own 8259s, which only have to keep quiet.

use crate::port;

const DATA: [u16; 2] = [0x21, 0xa1];
const COMMAND: [u16; 2] = [0x20, 0xa0];

/// Moves both controllers' vectors to `vector_base..vector_base + 16` (a multiple of 8, so that a
/// spurious interrupt cannot be taken for an exception) and masks every input.
///
/// # Safety
///
/// The caller must own the board's 8259s.
pub unsafe fn silence(vector_base: u8) {
    const ICW1_INIT_ICW4: u8 = 0x11;
    const ICW4_8086: u8 = 0x01;
    const CASCADE: [u8; 2] = [0x04, 0x02];
    for chip in 0..2 {
        let vector = vector_base + 8 * chip as u8;
        // SAFETY: the initialization sequence of the 8259A datasheet; the chips are the caller's.
        unsafe {
            port::write_u8(COMMAND[chip], ICW1_INIT_ICW4);
            port::write_u8(DATA[chip], vector);
            port::write_u8(DATA[chip], CASCADE[chip]);
            port::write_u8(DATA[chip], ICW4_8086);
            port::write_u8(DATA[chip], 0xff);
        }
    }
}

//! The board's 8254, as a ruler for the TSC.

use crate::{port, tsc};

/// The 8254's clock in Hz: a third of the colour burst.
pub const FREQUENCY: u64 = 1_193_182;

const COUNTER_2: u16 = 0x42;
const CONTROL: u16 = 0x43;
const PORT_B: u16 = 0x61;

const GATE_2: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const OUT_2: u8 = 1 << 5;

/// Counts TSC ticks during `count` ticks of the 8254; `None` when the counter does not count.
///
/// # Safety
///
/// The caller must own counter 2 and port 0x61.
#[must_use]
pub unsafe fn tsc_ticks_during(count: u16) -> Option<u64> {
    /// Counter 2, low then high byte, mode 0 (output rises at the end), binary.
    const COUNTER_2_MODE_0: u8 = 0b1011_0000;
    /// A second or so, whatever the processor.
    const PATIENCE: u64 = 4_000_000_000;
    let [low, high] = count.to_le_bytes();
    // SAFETY: counter 2 drives nothing but the speaker, which is switched off.
    unsafe {
        let gate = port::read_u8(PORT_B) & !SPEAKER | GATE_2;
        port::write_u8(PORT_B, gate);
        port::write_u8(CONTROL, COUNTER_2_MODE_0);
        port::write_u8(COUNTER_2, low);
        // Counting starts with the high byte; read before, so that a pause only lengthens the count.
        let start = tsc::read();
        port::write_u8(COUNTER_2, high);
        if port::read_u8(PORT_B) & OUT_2 != 0 {
            // The output must be low while the counter counts: there is no 8254 that does.
            return None;
        }
        loop {
            let done = port::read_u8(PORT_B) & OUT_2 != 0;
            let ticks = tsc::read().wrapping_sub(start);
            if done {
                return Some(ticks);
            }
            if ticks > PATIENCE {
                return None;
            }
        }
    }
}

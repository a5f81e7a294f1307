//! Tests of the board: memory and the chips.

use pc::cpu;

use super::{Objects, Verdict, ensure};
use crate::{
    BOOT,
    machine::{pit, rtc, uart},
    system,
};

/// Words that are tested with interrupts off at a time.
const BLOCK: u32 = 1024;
/// One block is tested in each of so many bytes.
const STRIDE: u32 = 256 * 1024;

/// Tests a block and leaves it as it was. Returns the first address that is wrong.
fn test_block(start: u32) -> Option<u32> {
    const PATTERNS: [u32; 4] = [0, !0, 0x5555_aaaa, 0x1234_5678];
    cpu::without_interrupts(|| {
        (0..BLOCK).map(|index| start + 4 * index).find(|&address| {
            let word = address as *mut u32;
            // SAFETY: the address is in RAM (the caller asks only for what the map shows, above the image);
            // nothing else runs, and the word is what it was when others run again.
            unsafe {
                let kept = word.read_volatile();
                let wrong = PATTERNS.iter().any(|pattern| {
                    let value = pattern ^ address;
                    word.write_volatile(value);
                    word.read_volatile() != value
                });
                word.write_volatile(kept);
                wrong || word.read_volatile() != kept
            }
        })
    })
}

/// Memory above the image keeps what is written.
pub(super) fn memory(_: Objects) -> Verdict {
    let Some(boot) = BOOT.get() else {
        return Ok(());
    };
    let lowest = pc::image().1.next_multiple_of(4096);
    let mut tested = 0;
    for range in boot.memory_map().filter(|range| range.is_ram()) {
        let end = u32::try_from(range.end()).unwrap_or(u32::MAX);
        let mut at = u32::try_from(range.base).unwrap_or(u32::MAX).max(lowest);
        while at < end && end - at >= 4 * BLOCK {
            let wrong = test_block(at);
            ensure!(wrong.is_none(), "at {:#x}", wrong.unwrap_or(0));
            tested += 1;
            at = at.saturating_add(STRIDE);
        }
    }
    ensure!(tested > 0, "there is none");
    Ok(())
}

/// The counter counts, within its range.
pub(super) fn pit(_: Objects) -> Verdict {
    let (first, _) = pit::latch();
    let mut changes = 0;
    for _ in 0..1000 {
        let (count, _) = pit::latch();
        ensure!(
            (1..=pit::DIVISOR).contains(&count),
            "count {count} of {}",
            pit::DIVISOR
        );
        changes += u32::from(count != first);
    }
    ensure!(changes > 0, "the counter stands at {first}");
    Ok(())
}

/// The clock tells a time, and it goes on.
pub(super) fn rtc(_: Objects) -> Verdict {
    let (first, start) = (rtc::date(), system::now());
    ensure!(first.is_some(), "no time of day");
    while rtc::date() == first {
        ensure!(system::now() - start < 1200, "it stands still");
    }
    ensure!(rtc::date().is_some(), "the time of day is lost");
    Ok(())
}

/// The port keeps its registers.
pub(super) fn uart(_: Objects) -> Verdict {
    ensure!(
        uart::scratch_works(),
        "the scratch register does not keep what is written"
    );
    Ok(())
}

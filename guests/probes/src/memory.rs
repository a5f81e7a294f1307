//! Memory: what the map claims, and what lies beyond it.

use pc::{handover::Boot, println, serial};

use crate::probe::{Failure, Verdict, ensure};

const MIB: u32 = 1 << 20;
/// Far above the RAM of any probe, and no device of an old PC.
const WILD_ADDRESS: u32 = 0xc000_0000;

/// Touches memory that is not there. That must end the guest.
pub(crate) fn wild(_: &Boot) -> Verdict {
    println!("probe wild-memory: about to touch {WILD_ADDRESS:#x}");
    serial::drain();
    let word = WILD_ADDRESS as *mut u32;
    // SAFETY: no object of this program lies there.
    let read = unsafe { word.read_volatile() };
    println!("probe wild-memory: read {read:#x}, about to write");
    serial::drain();
    // SAFETY: as above.
    unsafe { word.write_volatile(!read) };
    Err(Failure {
        what: "survived, read",
        found: read,
    })
}

/// Whether a word keeps what is written; it is as before afterwards.
fn keeps(address: u32) -> bool {
    let word = address as *mut u32;
    // SAFETY: the caller asks only for RAM outside of this program, and nothing else runs.
    unsafe {
        let kept = word.read_volatile();
        let right = [0, !0, 0x5555_aaaa, address].into_iter().all(|pattern| {
            word.write_volatile(pattern);
            word.read_volatile() == pattern
        });
        word.write_volatile(kept);
        right
    }
}

/// All RAM of the map is there: each MiB's first word, and each range's last.
pub(crate) fn map(boot: &Boot) -> Verdict {
    let (start, end) = pc::image();
    let mut words = 0;
    for range in boot.memory_map() {
        let kind = if range.is_ram() { "ram" } else { "reserved" };
        println!(
            "probe memory-map: {:#x} to {:#x} {kind}",
            range.base,
            range.end()
        );
        if !range.is_ram() || range.length < 8 {
            continue;
        }
        let base = u32::try_from(range.base)
            .unwrap_or(u32::MAX)
            .next_multiple_of(4);
        let last = u32::try_from(range.end() - 4).unwrap_or(0xffff_fffc) & !3;
        let next = |at: &u32| (at / MIB).checked_add(1)?.checked_mul(MIB);
        let steps = core::iter::successors(Some(base), next).take_while(|&at| at < last);
        for address in steps
            .chain([last])
            .filter(|address| !(start..end).contains(address))
        {
            ensure(keeps(address), "does not keep what is written", address)?;
            words += 1;
        }
    }
    println!("probe memory-map: {words} words tested");
    ensure(words > 0, "words", words)
}

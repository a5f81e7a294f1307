//! Memory: what the map claims, and what lies beyond it.

use pc::{handover::Boot, println, serial};

use crate::{
    code::{self, Registers},
    probe::{Failure, Verdict, ensure},
    tables,
};

const MIB: u32 = 1 << 20;
/// Far above the RAM of any probe, and no device of an old PC.
const WILD_ADDRESS: u32 = 0xc000_0000;

/// Says what comes, does it, and is not there any more. What survives reads zero, or hurts nobody.
fn last_words(what: &str, code: &[u8], registers: Registers) -> Verdict {
    println!("probe wild: about to {what} {WILD_ADDRESS:#x}");
    serial::drain();
    // SAFETY: no object of this program lies there.
    let result = unsafe { code::run(code, registers) };
    let vector = result.err().map_or(0, |fault| fault.vector);
    Err(Failure {
        what: "survived, by exception",
        found: vector,
    })
}

const AT_WILD: Registers = Registers {
    eax: WILD_ADDRESS,
    ecx: WILD_ADDRESS,
    edx: 0x21,
    ebx: 0,
    esi: WILD_ADDRESS,
    edi: WILD_ADDRESS,
};

/// Reads.
pub(crate) fn read(_: &Boot) -> Verdict {
    last_words("read", &[0x8b, 0x01], AT_WILD)
}

/// Writes.
pub(crate) fn write(_: &Boot) -> Verdict {
    last_words("write", &[0x89, 0x01], AT_WILD)
}

/// Calls.
pub(crate) fn fetch(_: &Boot) -> Verdict {
    last_words("execute", &[0xff, 0xd1], AT_WILD)
}

/// Takes an exception on a stack there: MOV ESP, ECX; INT3.
pub(crate) fn stack(_: &Boot) -> Verdict {
    last_words("use a stack at", &[0x89, 0xcc, 0xcc], AT_WILD)
}

/// Reads by string I/O.
pub(crate) fn string(_: &Boot) -> Verdict {
    last_words("do string input to", &[0xf3, 0x6c], AT_WILD)
}

/// Has its page tables there: MOV CR3, EAX; MOV EAX, CR0; OR EAX, PG; MOV CR0, EAX.
pub(crate) fn tables(_: &Boot) -> Verdict {
    let code = [
        0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xc0, 0x0d, 0, 0, 0, 0x80, 0x0f, 0x22, 0xc0,
    ];
    last_words("have page tables at", &code, AT_WILD)
}

/// Has its task-state segment there.
pub(crate) fn task(_: &Boot) -> Verdict {
    let selector = tables::FREE + 0x80;
    tables::set(selector, tables::descriptor(WILD_ADDRESS, 103, 0x89));
    let [low, high] = selector.to_le_bytes();
    last_words(
        "switch to a task at",
        &[0x9a, 0, 0, 0, 0, low, high],
        AT_WILD,
    )
}

/// Has its interrupt descriptors there: LIDT [EBX]; INT3.
pub(crate) fn interrupt_table(_: &Boot) -> Verdict {
    // The limit, and the base behind it.
    const POINTER: u32 = 0x8000;
    let pointer = u64::from(WILD_ADDRESS) << 16 | 0x7ff;
    // SAFETY: conventional memory that nothing uses.
    unsafe { (POINTER as *mut u64).write_volatile(pointer) }
    let registers = Registers {
        ebx: POINTER,
        ..AT_WILD
    };
    last_words(
        "have interrupt descriptors at",
        &[0x0f, 0x01, 0x1b, 0xcc],
        registers,
    )
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

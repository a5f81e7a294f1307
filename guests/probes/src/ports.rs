//! Every port, read and written in every width.

use pc::{
    handover::Boot,
    port::{inb, inl, inw, outb, outl, outw},
    println,
};

use crate::probe::{Verdict, ensure};

/// No device of any board has these.
const UNCLAIMED: [u16; 4] = [0x2f0, 0x1234, 0x9998, 0xeee0];

/// Ports whose devices a probe depends on, or that have side effects: the old PC's, PCI's, and the power
/// management block.
const CLAIMED: [(u16, u16); 13] = [
    (0x20, 0x21),
    (0x40, 0x43),
    (0x60, 0x61),
    (0x64, 0x64),
    (0x70, 0x71),
    (0x80, 0x80),
    (0x92, 0x92),
    (0xa0, 0xa1),
    (0xed, 0xed),
    (0x3f8, 0x3ff),
    (0x4d0, 0x4d1),
    (0x600, 0x60b),
    (0xcf8, 0xcff),
];

/// Whether an access of so many bytes touches a claimed port, or goes beyond the last.
fn claimed(port: u16, bytes: u16) -> bool {
    port.checked_add(bytes - 1)
        .is_none_or(|last| CLAIMED.iter().any(|&(from, to)| port <= to && from <= last))
}

/// Every port in the widths that are left, and written where nobody is.
fn widths() -> Verdict {
    for port in 0..=u16::MAX {
        let (word, double) = (inw(port), inl(port));
        let right = claimed(port, 2) || word == 0xffff;
        ensure(right, "an unclaimed port answers a word", port.into())?;
        let right = claimed(port, 4) || double == u32::MAX;
        ensure(
            right,
            "an unclaimed port answers a double word",
            port.into(),
        )?;
        match port % 3 {
            0 if !claimed(port, 1) => outb(port, 0xa5),
            1 if !claimed(port, 2) => outw(port, 0x5aa5),
            2 if !claimed(port, 4) => outl(port, 0xa5a5_5a5a),
            _ => {}
        }
    }
    println!("probe ports: all read in three widths, and written");
    Ok(())
}

/// Reads all, and prints the ranges that answer.
pub(crate) fn all(_: &Boot) -> Verdict {
    let (mut answers, mut since) = (0, None);
    for port in 0..=u16::MAX {
        let answered = inb(port) != 0xff;
        answers += u32::from(answered);
        match (answered, since) {
            (true, None) => since = Some(port),
            (false, Some(first)) => {
                println!("probe ports: {first:#06x} to {:#06x} answer", port - 1);
                since = None;
            }
            _ => {}
        }
    }
    if let Some(first) = since {
        println!("probe ports: {first:#06x} to 0xffff answer");
    }
    println!("probe ports: {answers} of 65536 answer");
    for port in UNCLAIMED {
        ensure(inb(port) == 0xff, "an unclaimed port answers", port.into())?;
        ensure(
            inw(port) == 0xffff,
            "an unclaimed port answers a word",
            port.into(),
        )?;
        ensure(
            inl(port) == 0xffff_ffff,
            "an unclaimed port answers a double word",
            port.into(),
        )?;
    }
    widths()?;
    // Beyond the last port: whatever it reads, it must not hurt.
    println!(
        "probe ports: a double word at 0xfffe reads {:#x}",
        inl(0xfffe)
    );
    ensure(
        inb(0x3fd) != 0xff,
        "com1 does not answer",
        inb(0x3fd).into(),
    )?;
    ensure(
        inb(0x40) != 0xff || inb(0x40) != 0xff,
        "the pit does not answer",
        0x40,
    )
}

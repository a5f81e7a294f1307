//! Every port, read once.

use pc::{
    handover::Boot,
    port::{inb, inl, inw},
    println,
};

use crate::probe::{Verdict, ensure};

/// No device of any board has these.
const UNCLAIMED: [u16; 4] = [0x2f0, 0x1234, 0x9998, 0xeee0];

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

//! The MC146818.

use pc::{
    cpu,
    port::{inb, outb},
};
use rtos::calendar::{DateTime, Registers};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
const UPDATE_IN_PROGRESS: u8 = 0x80;

fn read(register: u8) -> u8 {
    cpu::without_interrupts(|| {
        outb(INDEX, register);
        inb(DATA)
    })
}

/// The seconds register, as it is.
pub(crate) fn seconds() -> u8 {
    read(0)
}

/// The time of day, read twice and found the same; `None` if the clock tells none.
pub(crate) fn date() -> Option<DateTime> {
    let registers = || Registers {
        time: [read(0), read(2), read(4)],
        date: [read(7), read(8), read(9)],
        century: read(0x32),
        mode: read(0x0b),
    };
    let mut previous = Registers::default();
    for _ in 0..10_000 {
        if read(0x0a) & UPDATE_IN_PROGRESS != 0 {
            continue;
        }
        let current = registers();
        if current == previous {
            return current.decode();
        }
        previous = current;
    }
    None
}

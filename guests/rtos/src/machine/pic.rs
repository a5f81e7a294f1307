//! The pair of 8259 interrupt controllers.

use pc::{
    cpu,
    idt::{self, TrapFrame},
    port::{inb, outb},
};

use super::shared::Shared;
use crate::system;

/// Vector of the first interrupt line.
const BASE: u8 = 0x20;
const MASTER: u16 = 0x20;
const SLAVE: u16 = 0xa0;
const CASCADE: u8 = 2;
const END_OF_INTERRUPT: u8 = 0x20;
const READ_REQUESTS: u8 = 0x0a;
const READ_SERVICE: u8 = 0x0b;
/// Which lines are level-triggered, one bit to a line, in two ports.
const EDGE_LEVEL: u16 = 0x4d0;

struct Lines {
    handlers: [Option<fn()>; 16],
    spurious: u32,
}

static LINES: Shared<Lines> = Shared::new(Lines {
    handlers: [None; 16],
    spurious: 0,
});

/// Maps the lines to vectors 0x20 to 0x2f, all of them masked.
pub(crate) fn init() {
    for (chip, base, wiring) in [(MASTER, BASE, 1 << CASCADE), (SLAVE, BASE + 8, CASCADE)] {
        outb(chip, 0x11);
        outb(chip + 1, base);
        outb(chip + 1, wiring);
        outb(chip + 1, 0x01);
        outb(chip + 1, 0xff);
    }
    outb(MASTER + 1, !(1 << CASCADE));
    for line in 0..16 {
        idt::set_handler(BASE + line, interrupt);
    }
}

/// Names the handler of a line, and lets its interrupts through.
pub(crate) fn connect(line: u8, handler: fn()) {
    LINES.with(|lines| {
        lines.handlers[usize::from(line)] = Some(handler);
        let (chip, bit) = place(line);
        outb(chip + 1, inb(chip + 1) & !bit);
    });
}

/// Makes a line level-triggered, as PCI's are.
pub(crate) fn set_level(line: u8) {
    let port = EDGE_LEVEL + u16::from(line / 8);
    cpu::without_interrupts(|| outb(port, inb(port) | 1 << (line % 8)));
}

/// Whether an interrupt of the line waits for service.
pub(crate) fn requested(line: u8) -> bool {
    let (chip, bit) = place(line);
    outb(chip, READ_REQUESTS);
    inb(chip) & bit != 0
}

/// Interrupts that no line had asked for when the processor took them.
pub(crate) fn spurious() -> u32 {
    LINES.with(|lines| lines.spurious)
}

fn place(line: u8) -> (u16, u8) {
    (if line < 8 { MASTER } else { SLAVE }, 1 << (line % 8))
}

fn interrupt(frame: &mut TrapFrame) {
    let line = (frame.vector as u8).wrapping_sub(BASE) & 15;
    let (chip, bit) = place(line);
    if line % 8 == 7 {
        // The lowest line of a chip also stands for a request that went away.
        outb(chip, READ_SERVICE);
        if inb(chip) & bit == 0 {
            LINES.with(|lines| lines.spurious += 1);
            if line > 8 {
                outb(MASTER, END_OF_INTERRUPT);
            }
            return;
        }
    }
    if let Some(handler) = LINES.with(|lines| lines.handlers[usize::from(line)]) {
        system::interrupt(handler);
    }
    if line >= 8 {
        outb(SLAVE, END_OF_INTERRUPT);
    }
    outb(MASTER, END_OF_INTERRUPT);
    system::after_interrupt();
}

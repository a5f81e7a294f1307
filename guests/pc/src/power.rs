//! Leaving: power-off and the old PC's ways to reset.

use core::arch::asm;

use crate::{
    cpu,
    port::{inb, outb, outw},
    serial,
};

/// The ACPI PM1a control register, where the board's firmware puts it.
const PM1A_CONTROL: u16 = 0x604;
const SLEEP_ENABLE: u16 = 1 << 13;
const SLEEP_TYPE_SOFT_OFF: u16 = 5 << 10;

/// Switches the machine off. Where nothing answers, halts.
pub fn off() -> ! {
    serial::drain();
    cpu::disable_interrupts();
    outw(PM1A_CONTROL, SLEEP_ENABLE | SLEEP_TYPE_SOFT_OFF);
    cpu::halt_forever()
}

/// Pulses the reset line through the keyboard controller.
pub fn reset_by_keyboard_controller() {
    for _ in 0..0x1_0000 {
        if inb(0x64) & 2 == 0 {
            break;
        }
    }
    outb(0x64, 0xfe);
}

/// Pulses the reset line through system control port A.
pub fn reset_by_port_92() {
    let value = inb(0x92);
    outb(0x92, value & !1);
    outb(0x92, value | 1);
}

/// Asks the chipset's reset control register for a hard reset.
pub fn reset_by_cf9() {
    outb(0xcf9, 0x02);
    outb(0xcf9, 0x06);
}

/// Shuts the processor down: an exception with an empty descriptor table, and again, and again.
pub fn triple_fault() -> ! {
    let empty = [0_u8; 6];
    // SAFETY: nothing runs after this: an IDT of limit 0 makes UD2 a triple fault.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) empty.as_ptr(), options(noreturn)) }
}

//! Last words.

use core::panic::PanicInfo;

use crate::{cpu, serial};

/// Prints the message on COM1 and stops the processor.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cpu::disable_interrupts();
    crate::println!("\npanic: {info}");
    serial::drain();
    cpu::halt_forever()
}

//! The start of the executive.

use pc::{handover::Boot, idt};

use crate::{
    console, jitter,
    machine::{pic, pit, shared::Late},
    network, phone, selftest, system,
};

/// What the loader handed over.
pub(crate) static BOOT: Late<Boot> = Late::new();

const WORK_PRIORITY: u8 = 2;
const CHARGING_PRIORITY: u8 = 8;
/// The console task's priority.
pub(crate) const CONSOLE_PRIORITY: u8 = 20;

/// Starts everything, and becomes the idle task.
pub(crate) fn main(boot: Boot) -> ! {
    BOOT.set(boot);
    idt::load();
    pic::init();
    pc::println!(
        "\nLX-200 real-time executive, release {}",
        env!("CARGO_PKG_VERSION")
    );
    pc::println!("tsc: {} Hz", pit::calibrate());
    pit::start();
    console::init();
    phone::init();
    jitter::init();
    selftest::init();
    // Each runs at once until it waits; the console's first words come last.
    system::spawn("work", WORK_PRIORITY, system::work, 0);
    system::spawn("charging", CHARGING_PRIORITY, phone::charge, 0);
    network::init();
    system::spawn("console", CONSOLE_PRIORITY, console::run, 0);
    system::idle()
}

//! The log: lines with the time since the board's entry, on the console.

use core::sync::atomic::{AtomicU64, Ordering};
use drivers::tsc;
use log::{LevelFilter, Log, Metadata, Record};

/// TSC ticks per second; 0 until it is known.
static FREQUENCY: AtomicU64 = AtomicU64::new(0);

struct Console;

impl Log for Console {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let microseconds = match FREQUENCY.load(Ordering::Relaxed) {
            0 => 0,
            hz => (u128::from(tsc::read()) * 1_000_000 / u128::from(hz)) as u64,
        };
        let (seconds, fraction) = (microseconds / 1_000_000, microseconds % 1_000_000);
        hypervisor::console::write_log(format_args!(
            "[{seconds:5}.{fraction:06}] {:<5} {}\n",
            record.level(),
            record.args()
        ));
    }

    fn flush(&self) {}
}

pub(super) fn start() {
    // Fails only when a logger is set already.
    if log::set_logger(&Console).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

pub(super) fn set_frequency(hz: u64) {
    FREQUENCY.store(hz, Ordering::Relaxed);
}

/// Obeys `log=LEVEL` on the command line; warns of what it does not know.
pub(super) fn obey(command_line: &str) {
    for word in command_line.split_ascii_whitespace() {
        match word.strip_prefix("log=").map(str::parse::<LevelFilter>) {
            Some(Ok(level)) => log::set_max_level(level),
            _ => log::warn!("command line: \"{word}\" means nothing (log=LEVEL does)"),
        }
    }
}

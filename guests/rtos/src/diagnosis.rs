//! What the console tells of the system itself.

use core::fmt;

use pc::cpu;
use rtos::{
    kernel::{State, TASKS, TaskId},
    latency::PIT_HZ,
};

use crate::{
    BOOT,
    console::say,
    machine::{pic, pit, rtc, stacks, uart},
    system,
};

/// Where no old PC has memory.
const WILD_ADDRESS: u32 = 0xc000_0000;
/// A second of the RTC is there within so many ticks.
const LONG_SECOND: u64 = 2500;

struct Shown(State);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self.0 {
            State::Free => "ended",
            State::Ready => "ready",
            State::Sleeping => "sleeping",
            State::Semaphore(_) => "semaphore",
            State::Mutex(_) => "mutex",
            State::Receive(_) => "receiving",
            State::Send(_) => "sending",
        })
    }
}

/// Lists the tasks.
pub(crate) fn tasks() {
    say!("id name       prio base state           ticks   switches  free stack");
    for (id, task) in (0..TASKS).filter_map(system::task_at) {
        // Idle runs on the stack of the boot.
        let free = if id == TaskId::IDLE {
            0
        } else {
            cpu::without_interrupts(|| stacks::unused(id))
        };
        say!(
            "{:2} {:10} {:4} {:4} {:10} {:10} {:10} {:10}",
            id.index(),
            task.name(),
            task.priority(),
            task.base_priority(),
            Shown(task.state()),
            task.ticks(),
            task.switches(),
            free,
        );
    }
    say!(
        "tasks: {} spurious interrupts, {} bytes lost",
        pic::spurious(),
        uart::lost()
    );
}

/// Prints the time since the start.
pub(crate) fn uptime() {
    let (ticks, time) = (system::now(), system::milliseconds());
    say!(
        "uptime: {}.{:03} s, {ticks} ticks",
        time / 1000,
        time % 1000
    );
}

/// Prints the time of day.
pub(crate) fn date() {
    match rtc::date() {
        Some(date) => say!("date: {date}"),
        None => say!("date: the clock tells none"),
    }
}

/// Prints what memory there is.
pub(crate) fn memory() {
    let Some(boot) = BOOT.get() else { return };
    for range in boot.memory_map() {
        let kind = if range.is_ram() { "ram" } else { "reserved" };
        say!("mem: {:#011x} to {:#011x} {kind}", range.base, range.end());
    }
    let (start, end) = pc::image();
    say!("mem: image {start:#x} to {end:#x}, {} bytes", end - start);
    say!("mem: {TASKS} stacks of {} bytes", stacks::STACK_SIZE);
}

/// Waits for the RTC's next second; the clocks and time stamp of that instant.
fn second() -> Option<(u64, u64, u64)> {
    let (before, start) = (rtc::seconds(), system::now());
    while rtc::seconds() == before {
        if system::now() - start > LONG_SECOND {
            return None;
        }
    }
    Some(pit::now())
}

/// Compares the clocks over some seconds of the RTC.
pub(crate) fn clock(seconds: u32) {
    let first = second();
    let last = (0..seconds).fold(first, |at, _| at.and_then(|_| second()));
    let (Some((ticks, clocks, time)), Some((last_ticks, last_clocks, last_time))) = (first, last)
    else {
        return say!("clock: FAILED the rtc stands still");
    };
    let (ticks, clocks, time) = (last_ticks - ticks, last_clocks - clocks, last_time - time);
    let expected = i128::from(PIT_HZ) * i128::from(seconds);
    let error = (i128::from(clocks) - expected) * 1_000_000 / expected;
    say!(
        "clock: {seconds} s by rtc, {ticks} ticks by pit (1000 Hz), {time} tsc ticks, pit/rtc error {error} ppm"
    );
}

/// Touches memory that is not there.
pub(crate) fn wild_access() {
    let address = WILD_ADDRESS as *mut u32;
    // SAFETY: no object of this program lies there; if the machine lets it pass, nothing has changed.
    let value = unsafe {
        address.write_volatile(0x5717_ab1e);
        address.read_volatile()
    };
    say!("crash: memory at {WILD_ADDRESS:#x} took a write and says {value:#x}");
}

//! Tests of timers, and of the clock beneath them.

use pc::cpu;
use rtos::kernel::{Message, timers::Action};

use super::{Objects, Verdict, ensure};
use crate::{machine::pit, system};

/// A sleep is as long as it should be.
pub(super) fn sleep(_: Objects) -> Verdict {
    for ticks in [1_u32, 7, 64, 65, 100] {
        let start = system::now();
        system::sleep(ticks);
        let slept = system::now() - start;
        let expected = u64::from(ticks);
        ensure!(
            (expected..=expected + 2).contains(&slept),
            "slept {slept} ticks instead of {ticks}"
        );
    }
    Ok(())
}

/// A one-shot timer fires once, in time.
pub(super) fn once(objects: Objects) -> Verdict {
    let timer = system::timer(Action::Signal(objects.semaphore));
    let start = system::now();
    system::start_timer(timer, 30, None);
    let fired = system::take(objects.semaphore, Some(100));
    let waited = system::now() - start;
    let again = system::take(objects.semaphore, Some(70));
    let count = system::finish_timer(timer);
    ensure!(fired, "it never fired");
    ensure!(
        (30..=32).contains(&waited),
        "fired after {waited} ticks instead of 30"
    );
    ensure!(!again && count == 1, "fired {count} times");
    Ok(())
}

/// A periodic timer fires at each period, and each firing's message arrives.
pub(super) fn periodic(objects: Objects) -> Verdict {
    let timer = system::timer(Action::Post(objects.mailbox, Message([5; 4])));
    let start = system::now();
    system::start_timer(timer, 10, Some(10));
    let mut received = 0;
    let arrived = (0..20).all(|_| {
        let message = system::receive(objects.mailbox, Some(100));
        received += u32::from(message == Some(Message([5; 4])));
        message.is_some()
    });
    let waited = system::now() - start;
    let fired = system::finish_timer(timer);
    ensure!(arrived && received == 20, "{received} messages of 20");
    ensure!(
        (200..=202).contains(&waited) && fired == 20,
        "fired {fired} times in {waited} ticks"
    );
    Ok(())
}

/// The tick keeps the rate of the chip, by the processor's clock.
pub(super) fn tick_rate(_: Objects) -> Verdict {
    const TICKS: u64 = 200;
    system::sleep(1);
    let (before, start) = (system::now(), cpu::tsc());
    system::sleep(TICKS as u32);
    let (ticks, passed) = (system::now() - before, cpu::tsc() - start);
    let expected = pit::tsc_hz() * u64::from(pit::DIVISOR) / rtos::latency::PIT_HZ * ticks;
    let tolerance = expected / 50;
    ensure!(
        passed.abs_diff(expected) <= tolerance,
        "{ticks} ticks took {passed} tsc ticks, not {expected}"
    );
    Ok(())
}

/// Neither the chip's time nor the processor's ever runs backwards.
pub(super) fn order(_: Objects) -> Verdict {
    let (_, mut clocks, mut time) = pit::now();
    let start = system::now();
    while system::now() - start < 50 {
        let (_, next_clocks, next_time) = pit::now();
        ensure!(
            next_clocks >= clocks,
            "from {clocks} back to {next_clocks} pit clocks"
        );
        ensure!(
            next_time > time,
            "from {time} back to {next_time} tsc ticks"
        );
        (clocks, time) = (next_clocks, next_time);
    }
    Ok(())
}

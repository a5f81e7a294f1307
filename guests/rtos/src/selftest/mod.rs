//! The executive tests itself, in the field as in the factory.

mod board;
mod scheduling;
mod time;

use core::fmt::{self, Write};

use rtos::{
    kernel::{MailboxId, MutexId, SemaphoreId},
    ring::Ring,
};

use crate::{
    console::say,
    machine::shared::{Late, Shared},
    system,
};

/// What the tests wait for; made once, so that they can be run again and again.
#[derive(Clone, Copy)]
struct Objects {
    semaphore: SemaphoreId,
    done: SemaphoreId,
    mutex: MutexId,
    mailbox: MailboxId,
}

static OBJECTS: Late<Objects> = Late::new();
/// The order in which things happened: each notes a letter.
static LOG: Shared<Ring<u8, 64>> = Shared::new(Ring::new(0));

/// Why a test failed.
struct Failure {
    text: [u8; 96],
    length: usize,
}

impl Failure {
    fn new(arguments: fmt::Arguments<'_>) -> Self {
        let mut failure = Self {
            text: [0; 96],
            length: 0,
        };
        // What does not fit is left out.
        let _ = failure.write_fmt(arguments);
        failure
    }
}

impl Write for Failure {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().filter(u8::is_ascii) {
            *self.text.get_mut(self.length).ok_or(fmt::Error)? = byte;
            self.length += 1;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.text[..self.length]).unwrap_or(""))
    }
}

type Verdict = Result<(), Failure>;

/// Ends a test that has found something wrong.
macro_rules! ensure {
    ($condition:expr, $($argument:tt)*) => {
        if !$condition {
            return Err($crate::selftest::Failure::new(format_args!($($argument)*)));
        }
    };
}
use ensure;

const TESTS: &[(&str, fn(Objects) -> Verdict)] = &[
    ("preemption", scheduling::preemption),
    ("equals", scheduling::equals),
    ("mailbox-order", scheduling::mailbox_order),
    ("mailbox-wait", scheduling::mailbox_wait),
    ("semaphore", scheduling::semaphore),
    ("inheritance", scheduling::inheritance),
    ("deferred-work", scheduling::deferred_work),
    ("context", scheduling::context),
    ("sleep", time::sleep),
    ("timer-once", time::once),
    ("timer-periodic", time::periodic),
    ("tick-rate", time::tick_rate),
    ("time-order", time::order),
    ("memory", board::memory),
    ("pit", board::pit),
    ("rtc", board::rtc),
    ("uart", board::uart),
];

/// Makes what the tests need.
pub(crate) fn init() {
    OBJECTS.set(Objects {
        semaphore: system::semaphore(0),
        done: system::semaphore(0),
        mutex: system::mutex(),
        mailbox: system::mailbox(),
    });
}

/// Runs all tests.
pub(crate) fn run() {
    let Some(objects) = OBJECTS.get() else { return };
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS {
        empty(objects);
        match test(objects) {
            Ok(()) => {
                passed += 1;
                say!("selftest: {name} ok");
            }
            Err(failure) => {
                failed += 1;
                say!("selftest: {name} FAILED ({failure})");
            }
        }
    }
    say!("selftest: {passed} passed, {failed} failed");
}

/// Takes away what an earlier test may have left.
fn empty(objects: Objects) {
    for semaphore in [objects.semaphore, objects.done] {
        while system::take(semaphore, Some(0)) {}
    }
    while system::receive(objects.mailbox, Some(0)).is_some() {}
    while LOG.with(Ring::pop).is_some() {}
}

/// Notes a letter.
fn log(letter: u8) {
    // A full log is found out by the test that looks at it.
    let _ = LOG.with(|log| log.push(letter));
}

/// Ends well if exactly these letters were noted, in this order.
fn expect_log(expected: &[u8]) -> Verdict {
    let mut found = [0_u8; 64];
    let mut length = 0;
    while let Some(letter) = LOG.with(Ring::pop) {
        found[length] = letter;
        length += 1;
    }
    let show = |letters| core::str::from_utf8(letters).unwrap_or("?");
    let found = &found[..length];
    ensure!(
        found == expected,
        "order {} instead of {}",
        show(found),
        show(expected)
    );
    Ok(())
}

//! Tests of the order in which tasks run.

use core::{
    arch::{asm, naked_asm},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use pc::idt::{self, TrapFrame};
use rtos::kernel::{MAILBOX_DEPTH, Message, Work};

use super::{OBJECTS, Objects, Verdict, ensure, expect_log, log};
use crate::{executive::CONSOLE_PRIORITY, system};

const ABOVE: u8 = CONSOLE_PRIORITY - 5;
const BELOW: u8 = CONSOLE_PRIORITY + 5;

/// What the tasks of a test tell it.
static NOTE: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

fn log_argument(letter: u32) {
    log(letter as u8);
}

/// A more urgent task runs at once, a less urgent one when the others wait.
pub(super) fn preemption(_: Objects) -> Verdict {
    system::spawn("above", ABOVE, log_argument, u32::from(b'h'));
    log(b'm');
    let low = system::spawn("below", BELOW, log_argument, u32::from(b'l'));
    log(b'n');
    system::sleep(3);
    expect_log(b"hmnl")?;
    ensure!(system::ended(low), "the task has not ended");
    Ok(())
}

fn log_thrice(letter: u32) {
    for _ in 0..3 {
        log(letter as u8);
        system::sleep(0);
    }
}

/// Tasks of one priority run in turn, when they give way.
pub(super) fn equals(_: Objects) -> Verdict {
    system::spawn("first", BELOW, log_thrice, u32::from(b'a'));
    system::spawn("second", BELOW, log_thrice, u32::from(b'b'));
    system::sleep(3);
    expect_log(b"ababab")
}

const MESSAGES: u32 = 3 * MAILBOX_DEPTH as u32 - 5;

fn receive_all(_: u32) {
    let Some(objects) = OBJECTS.get() else { return };
    for number in 0..MESSAGES {
        let expected = Message([number, !number, number << 8, 7]);
        if system::receive(objects.mailbox, Some(100)) == Some(expected) {
            NOTE.fetch_add(1, Ordering::Relaxed);
        }
    }
    system::signal(objects.done);
}

/// Messages arrive whole and in order, though the sender has to wait for room.
pub(super) fn mailbox_order(objects: Objects) -> Verdict {
    NOTE.store(0, Ordering::Relaxed);
    system::spawn("receiver", BELOW, receive_all, 0);
    for number in 0..MESSAGES {
        let message = Message([number, !number, number << 8, 7]);
        ensure!(
            system::send(objects.mailbox, message, Some(100)),
            "no room for message {number}"
        );
    }
    ensure!(system::take(objects.done, Some(500)), "the receiver hangs");
    let right = NOTE.load(Ordering::Relaxed);
    ensure!(right == MESSAGES, "{right} of {MESSAGES} messages");
    Ok(())
}

fn receive_one(_: u32) {
    let Some(objects) = OBJECTS.get() else { return };
    log(b'w');
    let message = system::receive(objects.mailbox, None);
    log(if message == Some(Message([9; 4])) {
        b'r'
    } else {
        b'?'
    });
}

/// A waiting receiver runs as soon as a message is there, or when its time is up.
pub(super) fn mailbox_wait(objects: Objects) -> Verdict {
    system::spawn("receiver", ABOVE, receive_one, 0);
    log(b's');
    ensure!(
        system::send(objects.mailbox, Message([9; 4]), None),
        "not sent"
    );
    log(b't');
    expect_log(b"wsrt")?;
    let start = system::now();
    ensure!(
        system::receive(objects.mailbox, Some(20)).is_none(),
        "a message from nowhere"
    );
    let waited = system::now() - start;
    ensure!(
        (20..=22).contains(&waited),
        "waited {waited} ticks instead of 20"
    );
    Ok(())
}

fn take_three(_: u32) {
    let Some(objects) = OBJECTS.get() else { return };
    for _ in 0..3 {
        log(if system::take(objects.semaphore, None) {
            b't'
        } else {
            b'?'
        });
    }
}

/// A semaphore gives as often as it was given to.
pub(super) fn semaphore(objects: Objects) -> Verdict {
    system::signal(objects.semaphore);
    system::signal(objects.semaphore);
    system::spawn("taker", ABOVE, take_three, 0);
    log(b's');
    system::signal(objects.semaphore);
    log(b'e');
    expect_log(b"ttste")?;
    ensure!(!system::take(objects.semaphore, Some(5)), "one too many");
    Ok(())
}

/// Works for some ticks of the clock.
fn work_for(ticks: u64) {
    let start = system::now();
    while system::now() - start < ticks {}
}

fn own_for_long(_: u32) {
    let Some(objects) = OBJECTS.get() else { return };
    system::locked(objects.mutex, || {
        log(b'o');
        work_for(10);
        NOTE.store(
            u32::from(system::task(system::running()).priority()),
            Ordering::Relaxed,
        );
        log(b'u');
    });
}

fn own_urgently(_: u32) {
    let Some(objects) = OBJECTS.get() else { return };
    system::locked(objects.mutex, || log(b'h'));
}

fn disturb(_: u32) {
    log(b'd');
    while !STOP.load(Ordering::Relaxed) {}
}

/// An urgent task waits for a mutex of a slow one, and a third task in between cannot prolong that.
pub(super) fn inheritance(_: Objects) -> Verdict {
    STOP.store(false, Ordering::Relaxed);
    NOTE.store(99, Ordering::Relaxed);
    let slow = system::spawn("slow", BELOW + 2, own_for_long, 0);
    system::sleep(3);
    let disturber = system::spawn("disturber", BELOW, disturb, 0);
    let start = system::now();
    let urgent = system::spawn("urgent", ABOVE, own_urgently, 0);
    // The urgent task waits now, and the slow one, at its priority, has worked on before us.
    let (waited, order) = (system::now() - start, expect_log(b"ouh"));
    let done = system::ended(urgent);
    STOP.store(true, Ordering::Relaxed);
    system::sleep(3);
    order?;
    ensure!(done, "the urgent task still waits");
    ensure!(waited <= 12, "the urgent task has waited {waited} ticks");
    let boosted = NOTE.load(Ordering::Relaxed);
    ensure!(
        boosted == u32::from(ABOVE),
        "the owner ran at priority {boosted}"
    );
    ensure!(
        system::ended(slow) && system::ended(disturber),
        "a task has not ended"
    );
    expect_log(b"d")
}

/// No device has this vector.
const VECTOR: u8 = 0x70;

fn interrupt(_: &mut TrapFrame) {
    system::interrupt(|| {
        log(b'i');
        let work = Work {
            run: log_argument,
            argument: u32::from(b'w'),
        };
        if system::defer(work).is_err() {
            log(b'?');
        }
        log(b'j');
    });
    system::after_interrupt();
}

/// What an interrupt leaves to be done is done after it, and before the interrupted task goes on.
pub(super) fn deferred_work(_: Objects) -> Verdict {
    idt::set_handler(VECTOR, interrupt);
    // SAFETY: the handler is there, and keeps all registers.
    unsafe { asm!("int {}", const VECTOR) };
    log(b'm');
    idt::clear_handler(VECTOR);
    expect_log(b"ijwm")
}

/// Holds a pattern in all general registers through a loop of so many rounds, while whatever interrupts.
/// Returns how often a register had changed.
// SAFETY: keeps to the C calling convention: the registers that a call keeps are pushed and popped.
#[unsafe(naked)]
extern "C" fn hold_pattern(pattern: u32, rounds: u32) -> u32 {
    naked_asm!(
        "push ebp",
        "push ebx",
        "push esi",
        "push edi",
        "mov eax, [esp + 20]",
        "push 0",                    // changes
        "push dword ptr [esp + 28]", // rounds left
        "push eax",                  // the pattern
        "3:",
        "mov eax, [esp]",
        "lea ebx, [eax + 1]",
        "lea ecx, [eax + 2]",
        "lea edx, [eax + 3]",
        "lea esi, [eax + 4]",
        "lea edi, [eax + 5]",
        "lea ebp, [eax + 6]",
        "nop",
        "nop",
        "nop",
        "nop",
        "cmp eax, [esp]",
        "jne 4f",
        "lea eax, [ebx - 1]",
        "cmp eax, [esp]",
        "jne 4f",
        "lea eax, [ecx - 2]",
        "cmp eax, [esp]",
        "jne 4f",
        "lea eax, [edx - 3]",
        "cmp eax, [esp]",
        "jne 4f",
        "lea eax, [esi - 4]",
        "cmp eax, [esp]",
        "jne 4f",
        "lea eax, [edi - 5]",
        "cmp eax, [esp]",
        "jne 4f",
        "lea eax, [ebp - 6]",
        "cmp eax, [esp]",
        "je 5f",
        "4:",
        "inc dword ptr [esp + 8]",
        "5:",
        "dec dword ptr [esp + 4]",
        "jnz 3b",
        "add esp, 8",
        "pop eax",
        "pop edi",
        "pop esi",
        "pop ebx",
        "pop ebp",
        "ret",
    )
}

/// Rounds of the pattern loop between two looks at the clock.
const ROUNDS: u32 = 200;
const TEST_TICKS: u64 = 150;

fn hold(pattern: u32) {
    let Some(objects) = OBJECTS.get() else { return };
    let start = system::now();
    while system::now() - start < TEST_TICKS {
        NOTE.fetch_add(hold_pattern(pattern, ROUNDS), Ordering::Relaxed);
        if pattern & 1 == 1 {
            // The more urgent of the two: it comes back by the clock, in the midst of the other's loop.
            system::sleep(1);
        }
    }
    system::signal(objects.done);
}

/// Registers survive interrupts and switches.
pub(super) fn context(objects: Objects) -> Verdict {
    NOTE.store(0, Ordering::Relaxed);
    let often = system::spawn("urgent", BELOW, hold, 0x8111_1111);
    let before = system::task(often).switches();
    system::spawn("lasting", BELOW + 1, hold, 0x7eee_eee0);
    for _ in 0..2 {
        ensure!(system::take(objects.done, Some(1000)), "a task hangs");
    }
    let changes = NOTE.load(Ordering::Relaxed);
    ensure!(changes == 0, "{changes} registers changed");
    let switches = system::task(often).switches() - before;
    ensure!(switches > TEST_TICKS / 3, "only {switches} switches");
    Ok(())
}

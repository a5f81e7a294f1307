//! The console: one serial line that carries the hypervisor's log and shell and every guest's console, which is its
//! COM1 and its virtio console together.
//!
//! Output goes through a queue that the transmit interrupt drains, so nobody ever waits for the
//! line. What the operator types goes to the selected guest, or to the shell.

mod ring;

use crate::guest::GuestHandle;
use core::fmt::{self, Write};
use drivers::serial::Serial;
use ring::Ring;
use spin::Mutex;

/// The escape key: Ctrl-O.
const ESCAPE: u8 = 0x0f;

/// Bytes that wait for the line.
const TRANSMIT_SIZE: usize = 64 * 1024;
/// Part of them that guests leave to the hypervisor: none of them can silence its log.
const RESERVED: usize = 16 * 1024;
/// The longest notice of lost bytes.
const NOTICE_MAX: usize = 64;
/// Bytes of text that the line is taken for at once.
const TERMINAL_CHUNK: usize = 128;
/// Polls without progress after which a waiting sender gives up: far beyond one character's time.
const PATIENCE: u32 = 1_000_000;
/// How much of each guest's output is kept.
pub(crate) const HISTORY_SIZE: usize = 16 * 1024;

/// Where what the operator types goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Focus {
    /// The hypervisor's shell.
    Shell,
    /// The guest with this number.
    Guest(usize),
}

/// What a typed byte means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Nothing for anybody.
    Nothing,
    /// For the shell.
    Shell(u8),
    /// For a guest.
    Guest(usize, u8),
    /// The focus moved.
    Switched(Focus),
}

struct Line {
    serial: Option<Serial>,
    /// The transmit interrupt is routed; before that, the queue is drained by polling.
    interrupts: bool,
    /// The transmit interrupt is awaited.
    armed: bool,
    queue: Ring,
    /// Bytes that did not fit into the queue since the last one that did.
    dropped: u64,
    focus: Focus,
    escape: bool,
    at_line_start: bool,
    /// How often the UART was told to interrupt again, since it last had no cause.
    renewals: u32,
}

static LINE: Mutex<Line> = Mutex::new(Line {
    serial: None,
    interrupts: false,
    armed: false,
    queue: Ring::new(),
    dropped: 0,
    focus: Focus::Shell,
    escape: false,
    at_line_start: true,
    renewals: 0,
});

impl Line {
    /// Queues what fits of `bytes` when `reserve` bytes are left free for others.
    fn put(&mut self, bytes: &[u8], reserve: usize) {
        let Some(last) = bytes.last() else { return };
        self.at_line_start = *last == b'\n';
        if self.serial.is_none() {
            return;
        }
        if !self.interrupts {
            self.put_waiting(bytes);
            return;
        }
        if self.dropped > 0 && self.queue.room() > reserve + NOTICE_MAX {
            let _ = write!(
                QueueWriter(&mut self.queue),
                "\r\n[{} bytes lost]\r\n",
                self.dropped
            );
            self.dropped = 0;
        }
        let fits = bytes.len().min(self.queue.room().saturating_sub(reserve));
        self.dropped += (bytes.len() - self.queue.push(&bytes[..fits])) as u64;
        // While the transmit interrupt is awaited, it sends the rest.
        if !self.armed {
            self.drain();
        }
    }

    /// Sends at once, waiting for the line as long as it takes to send a character at its speed, and
    /// no longer: a broken UART must not hang the board.
    fn put_waiting(&mut self, bytes: &[u8]) {
        let Some(serial) = self.serial.as_mut() else {
            return;
        };
        let mut left = bytes;
        let mut patience = PATIENCE;
        while !(left.is_empty() && self.queue.front().is_empty()) && patience > 0 {
            let waiting = self.queue.push(left);
            left = &left[waiting..];
            let sent = serial.send(self.queue.front());
            self.queue.consume(sent);
            patience = if sent > 0 { PATIENCE } else { patience - 1 };
        }
    }

    /// Moves from the queue to the line what the line takes now.
    fn drain(&mut self) {
        let Some(serial) = self.serial.as_mut() else {
            return;
        };
        loop {
            let sent = serial.send(self.queue.front());
            self.queue.consume(sent);
            if sent == 0 {
                break;
            }
        }
        let wanted = self.interrupts && !self.queue.front().is_empty();
        if wanted != self.armed {
            serial.interrupt_on_transmit(wanted);
            self.armed = wanted;
        }
    }
}

struct QueueWriter<'a>(&'a mut Ring);

impl Write for QueueWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push(text.as_bytes());
        Ok(())
    }
}

/// Collects text up to a line's end, translates that for the terminal, and holds the line only while
/// it passes on what it has: nobody waits for another's formatting.
struct Terminal {
    bytes: [u8; TERMINAL_CHUNK],
    length: usize,
    /// Whether the first chunk must start on a line of its own.
    fresh_line: bool,
}

impl Terminal {
    const fn new(fresh_line: bool) -> Self {
        Self {
            bytes: [0; TERMINAL_CHUNK],
            length: 0,
            fresh_line,
        }
    }

    fn add(&mut self, byte: u8) {
        if self.length == TERMINAL_CHUNK {
            self.pass_on();
        }
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn pass_on(&mut self) {
        let mut line = LINE.lock();
        if self.fresh_line && !line.at_line_start {
            line.put(b"\r\n", 0);
        }
        self.fresh_line = false;
        line.put(&self.bytes[..self.length], 0);
        self.length = 0;
    }
}

impl Write for Terminal {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.add(b'\r');
                self.add(b'\n');
                self.pass_on();
            } else {
                self.add(byte);
            }
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.length > 0 {
            self.pass_on();
        }
    }
}

/// Gives the console its line. Until [`start_interrupts`], output waits for the line.
pub fn attach(serial: Option<Serial>) {
    LINE.lock().serial = serial;
}

/// Gives the console its queue, drained by interrupts: from now on output does not wait.
pub(crate) fn start_interrupts() {
    let mut line = LINE.lock();
    line.queue.allocate(TRANSMIT_SIZE);
    line.interrupts = true;
    if let Some(serial) = line.serial.as_mut() {
        serial.interrupt_on_receive();
    }
    line.drain();
}

/// Writes text of the hypervisor's.
pub(crate) fn write(arguments: fmt::Arguments<'_>) {
    let _ = Terminal::new(false).write_fmt(arguments);
}

/// Writes a log line; it starts on a line of its own.
pub fn write_log(arguments: fmt::Arguments<'_>) {
    let _ = Terminal::new(true).write_fmt(arguments);
}

/// Writes from a panic: takes the line by force and waits for it.
///
/// # Safety
///
/// All other processors must be stopped, and the caller must never return.
pub unsafe fn write_last_words(arguments: fmt::Arguments<'_>) {
    // The holder of the lock, and those that wait for it: each has a ticket.
    while LINE.is_locked() {
        // SAFETY: none of them runs again, by contract.
        unsafe { LINE.force_unlock() };
    }
    LINE.lock().interrupts = false;
    let _ = Terminal::new(true).write_fmt(arguments);
}

/// A guest's output.
pub(crate) fn write_guest(guest: &GuestHandle, bytes: &[u8]) {
    let mut history = guest.history.lock();
    for byte in bytes {
        history.push_over(*byte);
    }
    drop(history);
    let mut line = LINE.lock();
    if line.focus == Focus::Guest(guest.index) {
        line.put(bytes, RESERVED);
    }
}

/// Shows what is kept of a guest's output.
pub(crate) fn show_history(guest: &GuestHandle) {
    let mut chunk = [0; TERMINAL_CHUNK];
    let mut from = 0;
    loop {
        // A copy at a time, so that the guest does not wait for the line.
        let count = guest.history.lock().peek(from, &mut chunk);
        if count == 0 {
            return;
        }
        LINE.lock().put(&chunk[..count], 0);
        from += count;
    }
}

/// Moves the focus.
pub(crate) fn set_focus(focus: Focus) {
    LINE.lock().focus = focus;
}

/// Handles the line's interrupt: sends what waits, and passes on what was typed. Goes on until the
/// UART has no cause left, since its interrupt is an edge that comes only then; or for so long that the processor must do something
/// else, and then has the UART make a new edge.
pub(crate) fn service(mut typed: impl FnMut(Typed)) {
    const ROUNDS: usize = 64;
    /// A UART that has had a cause for so many times that long always has one: it is broken.
    const RENEWALS_MAX: u32 = 10_000;
    for _ in 0..ROUNDS {
        let more = {
            let mut line = LINE.lock();
            let more = line.serial.as_mut().is_some_and(Serial::acknowledge);
            line.drain();
            if !more {
                line.renewals = 0;
            }
            more
        };
        // One byte at a time with the line unlocked: its consumer may write.
        while let Some(what) = next_typed() {
            typed(what);
        }
        if !more {
            return;
        }
    }
    let mut line = LINE.lock();
    line.renewals = line.renewals.saturating_add(1);
    if line.renewals < RENEWALS_MAX
        && let Some(serial) = &mut line.serial
    {
        serial.renew_interrupts();
    }
}

fn next_typed() -> Option<Typed> {
    let mut line = LINE.lock();
    let byte = line.serial.as_mut()?.receive()?;
    if !line.escape {
        if byte == ESCAPE {
            line.escape = true;
            return Some(Typed::Nothing);
        }
        return Some(deliver(line.focus, byte));
    }
    line.escape = false;
    Some(match byte {
        ESCAPE => deliver(line.focus, ESCAPE),
        b'h' | b'0' => {
            line.focus = Focus::Shell;
            Typed::Switched(Focus::Shell)
        }
        b'1'..=b'8' => {
            let guest = usize::from(byte - b'1');
            if guest >= crate::guest::all().len() {
                return Some(Typed::Nothing);
            }
            line.focus = Focus::Guest(guest);
            Typed::Switched(Focus::Guest(guest))
        }
        _ => Typed::Nothing,
    })
}

fn deliver(focus: Focus, byte: u8) -> Typed {
    match focus {
        Focus::Shell => Typed::Shell(byte),
        Focus::Guest(guest) => Typed::Guest(guest, byte),
    }
}

/// Waits until everything has left the line, but no longer than that takes at its speed.
pub(crate) fn flush() {
    let mut line = LINE.lock();
    line.put_waiting(&[]);
    if let Some(serial) = line.serial.as_mut() {
        for _ in 0..PATIENCE {
            if serial.is_idle() {
                return;
            }
            core::hint::spin_loop();
        }
    }
}

pub(crate) use ring::Ring as History;

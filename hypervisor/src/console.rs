//! The console: one serial line that carries the hypervisor's log and shell and every guest's COM1.
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
    queue: Ring,
    /// Bytes that did not fit into the queue since the last one that did.
    dropped: u64,
    focus: Focus,
    escape: bool,
    at_line_start: bool,
}

static LINE: Mutex<Line> = Mutex::new(Line {
    serial: None,
    interrupts: false,
    queue: Ring::new(),
    dropped: 0,
    focus: Focus::Shell,
    escape: false,
    at_line_start: true,
});

impl Line {
    fn put(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.at_line_start = *last == b'\n';
        if self.serial.is_none() {
            return;
        }
        if self.dropped > 0 && self.queue.room() > 64 {
            let _ = write!(
                QueueWriter(&mut self.queue),
                "\r\n[{} bytes lost]\r\n",
                self.dropped
            );
            self.dropped = 0;
        }
        self.dropped += (bytes.len() - self.queue.push(bytes)) as u64;
        self.drain();
    }

    /// Moves from the queue to the line what the line takes now.
    fn drain(&mut self) {
        let Some(serial) = self.serial.as_mut() else {
            return;
        };
        loop {
            let chunk = self.queue.front();
            if chunk.is_empty() {
                break;
            }
            let sent = serial.send(chunk);
            self.queue.consume(sent);
            if sent == 0 && self.interrupts {
                break;
            }
        }
        if self.interrupts {
            serial.interrupt_on_transmit(!self.queue.front().is_empty());
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

/// Translates line ends for the terminal.
struct Terminal<'a>(&'a mut Line);

impl Write for Terminal<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.0.put(b"\r\n");
            }
            self.0.put(line.as_bytes());
        }
        Ok(())
    }
}

/// Gives the console its line. Until [`start_interrupts`], output waits for the line.
pub fn attach(serial: Option<Serial>) {
    let mut line = LINE.lock();
    line.queue.allocate(0);
    line.serial = serial;
}

/// Gives the console its queue; from now on output does not wait once interrupts are on.
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
    let _ = Terminal(&mut LINE.lock()).write_fmt(arguments);
}

/// Writes a log line; it starts on a line of its own.
pub fn write_log(arguments: fmt::Arguments<'_>) {
    let mut line = LINE.lock();
    if !line.at_line_start {
        line.put(b"\r\n");
    }
    let _ = Terminal(&mut line).write_fmt(arguments);
}

/// Writes from a panic: takes the line by force and waits for it.
///
/// # Safety
///
/// All other processors must be stopped or about to be, and the caller must never return.
pub unsafe fn write_last_words(arguments: fmt::Arguments<'_>) {
    // SAFETY: the holder of the lock, if any, does not run again, by contract.
    unsafe { LINE.force_unlock() };
    let mut line = LINE.lock();
    line.interrupts = false;
    line.drain();
    let _ = Terminal(&mut line).write_fmt(arguments);
}

/// A guest's output.
pub(crate) fn write_guest(guest: &GuestHandle, byte: u8) {
    guest.history.lock().push_over(byte);
    let mut line = LINE.lock();
    if line.focus == Focus::Guest(guest.index) {
        line.put(&[byte]);
    }
}

/// Moves the focus.
pub(crate) fn set_focus(focus: Focus) {
    LINE.lock().focus = focus;
}

/// Handles the line's interrupt: sends what waits, and passes on what was typed.
pub(crate) fn service(mut typed: impl FnMut(Typed)) {
    {
        let mut line = LINE.lock();
        if let Some(serial) = line.serial.as_mut() {
            serial.acknowledge();
        }
        line.drain();
    }
    // One byte at a time with the line unlocked: its consumer may write.
    while let Some(what) = next_typed() {
        typed(what);
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

pub(crate) use ring::Ring as History;

/// Waits until everything has left the line, but no longer than that takes at its speed.
pub(crate) fn flush() {
    const PATIENCE: u32 = 10_000_000;
    let mut line = LINE.lock();
    line.interrupts = false;
    line.drain();
    if let Some(serial) = line.serial.as_mut() {
        for _ in 0..PATIENCE {
            if serial.is_idle() {
                return;
            }
            core::hint::spin_loop();
        }
    }
}

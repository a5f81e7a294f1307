//! The user's terminal as the board's console, and its way back to normal.

use anyhow::{Context, Result};
use nix::sys::termios::{self, LocalFlags, OutputFlags, SetArg, Termios};
use std::io::{self, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Ctrl-], which ends the session as it does in telnet.
const END_KEY: u8 = 0x1d;

/// How the terminal was, while it is raw.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode; dropping it restores the terminal.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    /// Sets raw mode where standard input is a terminal; else does nothing.
    ///
    /// # Errors
    ///
    /// Where the terminal refuses.
    pub(crate) fn set() -> Result<Self> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            let original = termios::tcgetattr(&stdin).context("cannot ask the terminal")?;
            let mut raw = original.clone();
            termios::cfmakeraw(&mut raw);
            // Lines that end in a bare line feed, such as this tool's own, still look right.
            raw.output_flags
                .insert(OutputFlags::OPOST | OutputFlags::ONLCR);
            raw.local_flags.remove(LocalFlags::ISIG);
            if let Ok(mut slot) = ORIGINAL.lock() {
                *slot = Some(original);
            }
            termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw).context("cannot set raw mode")?;
        }
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was. Every exit path may call this, any number of times.
pub(crate) fn restore() {
    // try_lock: a panic handler must not wait for a lock that its own thread may hold.
    if let Ok(mut slot) = ORIGINAL.try_lock()
        && let Some(original) = slot.take()
    {
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &original);
    }
}

/// Sends what is typed to the board until the end key; the flag tells when that was pressed.
///
/// # Errors
///
/// Where no thread can be started.
pub(crate) fn forward(mut serial: TcpStream) -> Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    thread::Builder::new()
        .name("keyboard".into())
        .spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(length) = io::stdin().read(&mut buffer) {
                let typed = &buffer[..length];
                let end = typed.iter().position(|byte| *byte == END_KEY);
                let sent = serial.write_all(&typed[..end.unwrap_or(length)]);
                if end.is_some() {
                    flag.store(true, Ordering::Relaxed);
                }
                if end.is_some() || sent.is_err() || length == 0 {
                    break;
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(ended)
}

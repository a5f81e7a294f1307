//! A board in an emulator: started, listened to, typed to, and ended for sure.
//!
//! The board's serial port is a TCP connection to this tool. One thread takes what it says into
//! `console.log` and a buffer in which [`Machine::expect`] searches.

pub(crate) mod bochs;
mod choice;
pub(crate) mod console;
pub(crate) mod process;
mod qemu;
mod setup;
mod slow;

pub(crate) use choice::{Choice, Emulator, Virtualization};
pub(crate) use setup::{CardModel, Chipset, NetworkCard, Pace, Setup, Watch};

use crate::paths;
use crate::progress;
use crate::wire::Share;
use anyhow::{Context, Result, bail};
use console::{Console, Echo, Wait};
use process::Guarded;
use slow::Slow;
use std::fmt;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The file with what the emulator prints.
const OUTPUT: &str = "emulator.out";
/// The file with what it complains of.
const ERRORS: &str = "emulator.err";
/// How long an emulator may take to connect the serial port.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an emulator may take to end once its serial port is closed.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a board is no longer running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It powered itself off.
    PowerOff,
    /// The debugger's commands came to their end.
    Quit,
    /// The emulator gave up, for this reason.
    Fault(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("the board powered off"),
            Self::Quit => f.write_str("the emulator was ended by its debugger"),
            Self::Fault(reason) => write!(f, "the emulator stopped: {reason}"),
        }
    }
}

/// A running board.
#[derive(Debug)]
pub(crate) struct Machine {
    emulator: Emulator,
    /// Before the child, which it must not outlive.
    slow: Option<Slow>,
    child: Guarded,
    /// The serial port.
    pub console: Console,
    folder: PathBuf,
}

impl Machine {
    /// Powers a board on. Its logs go into `folder`, which is emptied first.
    ///
    /// # Errors
    ///
    /// Where the emulator does not start.
    pub(crate) fn start(
        emulator: Emulator,
        setup: &Setup,
        folder: &Path,
        echo: Echo,
    ) -> Result<Self> {
        paths::fresh_folder(folder)?;
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .context("cannot open a port for the board's serial line")?;
        let port = listener.local_addr()?.port();
        let mut command = match emulator {
            Emulator::Bochs => bochs::command(setup, folder, port)?,
            Emulator::Qemu(accelerator) => qemu::command(accelerator, setup, port),
        };
        let log = |name: &str| {
            let file = folder.join(name);
            File::create(&file).with_context(|| format!("cannot write {}", file.display()))
        };
        if setup.debugger {
            command.stdin(Stdio::inherit()).stdout(Stdio::inherit());
        } else {
            command.stdin(Stdio::null());
            command.stderr(log(ERRORS)?);
            if matches!(setup.watch, Watch::Traces(_)) {
                command.stdout(Stdio::piped());
            } else {
                command.stdout(log(OUTPUT)?);
            }
        }
        let mut child = Guarded::spawn(command)?;
        let serial = accept(&listener, &mut child)
            .with_context(|| format!("the emulator did not start: {}", complaint(folder)))?;
        let console = Console::start(serial, &folder.join("console.log"), echo)?;
        Ok(Self {
            emulator,
            slow: None,
            child,
            console,
            folder: folder.to_path_buf(),
        })
    }

    /// Waits until the board has said `text`, and returns what it said up to there.
    ///
    /// # Errors
    ///
    /// Where it ends or the time is up before; the text has the last lines it said.
    pub(crate) fn expect(&mut self, text: &str, timeout: Duration) -> Result<String> {
        match self.console.wait_for(text, timeout) {
            Wait::Found(said) => Ok(said),
            Wait::TimedOut => bail!(
                "\"{text}\" did not appear within {}; the console's last lines:\n{}",
                progress::seconds(timeout),
                self.console.tail()
            ),
            Wait::Closed => {
                let end = self.end()?;
                bail!(
                    "{end} before \"{text}\" appeared; the console's last lines:\n{}",
                    self.console.tail()
                );
            }
        }
    }

    /// Types on the console.
    ///
    /// # Errors
    ///
    /// Where the board is gone.
    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        self.console.send(text.as_bytes())
    }

    /// Stops the board where it stands, as if all of it were in the firmware's hands, or lets it go on, at its full speed.
    ///
    /// # Errors
    ///
    /// Where the emulator has ended.
    pub(crate) fn pause(&mut self, stopped: bool) -> Result<()> {
        self.slow = None;
        self.child.group().pause(stopped)
    }

    /// Lets the board go on for this share of the time only, in turns of 100 ms.
    ///
    /// # Errors
    ///
    /// Where the emulator has ended.
    pub(crate) fn slow_down(&mut self, share: Share) -> Result<()> {
        self.pause(false)?;
        if share < Share::ALL {
            self.slow = Some(Slow::down(self.child.group(), share)?);
        }
        Ok(())
    }

    /// Waits until the board is off.
    ///
    /// # Errors
    ///
    /// Where it runs on, or ended otherwise.
    pub(crate) fn wait_power_off(&mut self, timeout: Duration) -> Result<()> {
        match self.wait_end(timeout)? {
            Some(End::PowerOff) => Ok(()),
            Some(end) => bail!("{end}; the console's last lines:\n{}", self.console.tail()),
            None => bail!(
                "the board did not power off within {}; the console's last lines:\n{}",
                progress::seconds(timeout),
                self.console.tail()
            ),
        }
    }

    /// Waits until the board ends in whichever way; none where it runs on.
    ///
    /// # Errors
    ///
    /// Where the emulator closed the serial port but hangs.
    pub(crate) fn wait_end(&mut self, timeout: Duration) -> Result<Option<End>> {
        if self.console.wait_closed(timeout) {
            self.end().map(Some)
        } else {
            Ok(None)
        }
    }

    /// The emulator's standard output, where traces are taken.
    pub(crate) fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.take_output()
    }

    /// The ticks since power-on at which [`Watch::Marks`] or [`Watch::Address`] made the debugger stop so
    /// far.
    ///
    /// # Errors
    ///
    /// Where the emulator's output cannot be read.
    pub(crate) fn stops(&self) -> Result<Vec<u64>> {
        let output = paths::read(&self.folder.join(OUTPUT))?;
        Ok(bochs::stops(&String::from_utf8_lossy(&output)))
    }

    /// Why the emulator ended; its serial port is closed already.
    fn end(&mut self) -> Result<End> {
        self.slow = None;
        let Some(status) = self.child.wait(END_TIMEOUT) else {
            bail!("the emulator closed the serial port but does not end");
        };
        Ok(match self.emulator {
            Emulator::Qemu(_) => qemu::end(status, &complaint(&self.folder)),
            Emulator::Bochs => {
                let log = fs::read(self.folder.join("bochs.log")).unwrap_or_default();
                bochs::end(&String::from_utf8_lossy(&log))
            }
        })
    }
}

/// The last of what the emulator complained of, and where all of it is.
fn complaint(folder: &Path) -> String {
    let file = folder.join(ERRORS);
    let said = fs::read(&file).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().last().unwrap_or_default();
    format!("{last} (see {})", paths::shown(&file))
}

/// Waits for the emulator to connect the serial port.
fn accept(listener: &TcpListener, child: &mut Guarded) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("the serial line failed"),
        }
        if let Some(status) = child.status() {
            bail!("it ended at once with {status}");
        }
        if Instant::now() >= deadline {
            bail!("it did not connect the serial line");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

//! A board in an emulator: started, listened to, typed to, and ended for sure.
//!
//! The board's serial port is a TCP connection to this tool. One thread takes what it says into
//! `console.log` and a buffer in which [`Machine::expect`] searches.

pub(crate) mod bochs;
mod choice;
pub(crate) mod console;
pub(crate) mod process;
mod qemu;

pub(crate) use choice::{Choice, Emulator, Virtualization};

use crate::paths;
use crate::progress;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use console::{Console, Echo, Wait};
use process::Guarded;
use std::fmt;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The file with what the emulator prints.
const OUTPUT: &str = "emulator.out";
/// How long an emulator may take to connect the serial port.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an emulator may take to end once its serial port is closed.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// How board time passes in Bochs, and in QEMU with TCG; KVM knows real time only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Counted in instructions, as fast as it goes; idle time is skipped. Two such runs are identical in Bochs.
    Fast,
    /// No faster than the clock on the wall.
    RealTime,
}

/// What Bochs's debugger does while the board runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Nothing.
    Nothing,
    /// Traces the instructions between two magic breakpoints (`xchg bx,bx`), so many times.
    Traces(u32),
    /// Tells the tick of so many magic breakpoints; see [`Machine::stops`].
    Marks(u32),
    /// Tells the tick at which the instruction at this physical address is first come to.
    Address(u64),
}

/// The chipset around the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Chipset {
    /// Intel's 440FX of 1996: PCI. Bochs has this one alone.
    Pc,
    /// Intel's Q35 of 2007: PCI Express.
    Q35,
}

/// What a board is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The CD image.
    pub iso: PathBuf,
    /// The emulator's name of the processor model; none for the one that has all that the hypervisor can use.
    pub cpu_model: Option<String>,
    /// The chipset; none for the emulator's usual one.
    pub chipset: Option<Chipset>,
    /// Processors.
    pub cpus: u32,
    /// RAM in MiB.
    pub megabytes: u32,
    /// How time passes.
    pub pace: Pace,
    /// Bochs's debugger gets this terminal.
    pub debugger: bool,
    /// What Bochs's debugger does, where the terminal is not its own.
    pub watch: Watch,
}

impl Setup {
    /// A board that runs as fast as it goes.
    pub(crate) fn new(iso: PathBuf, cpus: u32, megabytes: u32) -> Self {
        Self {
            iso,
            cpu_model: None,
            chipset: None,
            cpus,
            megabytes,
            pace: Pace::Fast,
            debugger: false,
            watch: Watch::Nothing,
        }
    }
}

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
            command.stderr(log("emulator.err")?);
            if matches!(setup.watch, Watch::Traces(_)) {
                command.stdout(Stdio::piped());
            } else {
                command.stdout(log(OUTPUT)?);
            }
        }
        let mut child = Guarded::spawn(command)?;
        let serial = accept(&listener, &mut child).with_context(|| {
            format!(
                "the emulator did not start; see {}",
                paths::shown(&folder.join("emulator.err"))
            )
        })?;
        let console = Console::start(serial, &folder.join("console.log"), echo)?;
        Ok(Self {
            emulator,
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
        let Some(status) = self.child.wait(END_TIMEOUT) else {
            bail!("the emulator closed the serial port but does not end");
        };
        Ok(match self.emulator {
            Emulator::Qemu(_) => qemu::end(status),
            Emulator::Bochs => {
                let log = fs::read(self.folder.join("bochs.log")).unwrap_or_default();
                bochs::end(&String::from_utf8_lossy(&log))
            }
        })
    }
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

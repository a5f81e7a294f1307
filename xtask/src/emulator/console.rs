//! The board's serial line as seen from outside: heard, kept, searched, typed on.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that [`Console::tail`] shows.
const TAIL_LINES: usize = 25;

/// Whether what the board says is also shown to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Kept only.
    Off,
    /// Written to standard output as it comes.
    On,
    /// Written to standard output by whole lines, each behind this.
    Lines(&'static str),
}

/// What a board says on its way to the user.
struct Screen {
    echo: Echo,
    /// The beginning of a line that is not whole yet.
    line: Vec<u8>,
}

impl Screen {
    const fn new(echo: Echo) -> Self {
        Self {
            echo,
            line: Vec::new(),
        }
    }

    fn show(&mut self, bytes: &[u8], to: &mut impl Write) -> io::Result<()> {
        match self.echo {
            Echo::Off => return Ok(()),
            Echo::On => to.write_all(bytes)?,
            Echo::Lines(prefix) => {
                self.line.extend(bytes);
                while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                    let rest = self.line.split_off(end + 1);
                    to.write_all(prefix.as_bytes())?;
                    to.write_all(&std::mem::replace(&mut self.line, rest))?;
                }
            }
        }
        to.flush()
    }
}

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The text came; this is all that was said since the last wait, up to its end.
    Found(String),
    /// It did not come in time.
    TimedOut,
    /// The line was closed before.
    Closed,
}

/// One serial line.
#[derive(Debug)]
pub(crate) struct Console {
    serial: TcpStream,
    shared: Arc<Shared>,
    /// How far waits have consumed what was said.
    position: usize,
}

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Heard>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Heard {
    /// Everything said, without carriage returns.
    text: Vec<u8>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console {
    /// Starts to listen; every byte goes into the file `log`.
    ///
    /// # Errors
    ///
    /// Where the log cannot be written.
    pub(crate) fn start(serial: TcpStream, log: &Path, echo: Echo) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let shared = Arc::new(Shared::default());
        let line = serial.try_clone().context("cannot share the serial line")?;
        let listener = Arc::clone(&shared);
        thread::Builder::new()
            .name("console".into())
            .spawn(move || listen(line, file, echo, &listener))
            .context("cannot start a thread")?;
        Ok(Self {
            serial,
            shared,
            position: 0,
        })
    }

    /// Waits until `text` has been said after the end of the last text waited for.
    pub(crate) fn wait_for(&mut self, text: &str, timeout: Duration) -> Wait {
        let wanted = text.as_bytes();
        let deadline = Instant::now() + timeout;
        let mut searched = self.position;
        let mut heard = self.shared.lock();
        loop {
            if let Some(at) = find(&heard.text[searched..], wanted) {
                let end = searched + at + wanted.len();
                let said = String::from_utf8_lossy(&heard.text[self.position..end]).into_owned();
                self.position = end;
                return Wait::Found(said);
            }
            if heard.closed {
                return Wait::Closed;
            }
            let whole = (heard.text.len() + 1).saturating_sub(wanted.len());
            searched = searched.max(whole).min(heard.text.len());
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Wait::TimedOut;
            }
            let waited = self.shared.news.wait_timeout(heard, left);
            (heard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What was said up to now is waited for no longer.
    pub(crate) fn skip(&mut self) {
        self.position = self.shared.lock().text.len();
    }

    /// Waits until the line is closed, and says whether it is.
    pub(crate) fn wait_closed(&self, timeout: Duration) -> bool {
        let heard = self.shared.lock();
        let waited = self
            .shared
            .news
            .wait_timeout_while(heard, timeout, |heard| !heard.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// Types.
    ///
    /// # Errors
    ///
    /// Where the line is closed.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.serial
            .write_all(bytes)
            .context("the board's serial line is closed")
    }

    /// A second handle for typing.
    ///
    /// # Errors
    ///
    /// Where the system has no more file handles.
    pub(crate) fn typist(&self) -> Result<TcpStream> {
        self.serial
            .try_clone()
            .context("cannot share the serial line")
    }

    /// All that was said, without carriage returns.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().text).into_owned()
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        let shown = lines[from..].iter().map(|line| format!("    | {line}"));
        let shown: Vec<_> = shown.collect();
        if shown.is_empty() {
            return "    (it said nothing)".into();
        }
        shown.join("\n")
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.serial.shutdown(Shutdown::Both);
    }
}

fn listen(mut serial: TcpStream, mut log: File, echo: Echo, shared: &Shared) {
    let mut buffer = [0; 4096];
    let mut screen = Screen::new(echo);
    loop {
        let bytes = match serial.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        // A full disk or a closed pipe must not end the listening: the board would block.
        let _ = log.write_all(bytes);
        let _ = screen.show(bytes, &mut io::stdout().lock());
        let mut heard = shared.lock();
        heard
            .text
            .extend(bytes.iter().filter(|byte| **byte != b'\r'));
        drop(heard);
        shared.news.notify_all();
    }
    shared.lock().closed = true;
    shared.news.notify_all();
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    text.windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Console, TcpStream, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let board = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (serial, _) = listener.accept().unwrap();
        let log = folder.path().join("console.log");
        let console = Console::start(serial, &log, Echo::Off).unwrap();
        (console, board, folder)
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn texts_are_found_once_and_in_order() {
        let (mut console, mut board, folder) = pair();
        board.write_all(b"one two\r\ntw").unwrap();
        assert_eq!(console.wait_for("one", SOON), Wait::Found("one".into()));
        assert_eq!(
            console.wait_for("two\n", SOON),
            Wait::Found(" two\n".into())
        );
        let soon = Duration::from_millis(50);
        assert_eq!(console.wait_for("two", soon), Wait::TimedOut);
        board.write_all(b"o end").unwrap();
        assert_eq!(console.wait_for("two", SOON), Wait::Found("two".into()));
        drop(board);
        assert_eq!(console.wait_for("three", SOON), Wait::Closed);
        assert!(console.wait_closed(SOON));
        assert_eq!(console.text(), "one two\ntwo end");
        let log = std::fs::read(folder.path().join("console.log")).unwrap();
        assert_eq!(log, b"one two\r\ntwo end", "the log keeps every byte");
    }

    #[test]
    fn lines_of_several_boards_stay_whole() {
        let mut shown = Vec::new();
        let mut boards = [Echo::Lines("a| "), Echo::Lines("b| ")].map(Screen::new);
        for (board, text) in [(0, "one\r\nt"), (1, "three\n"), (0, "wo\n> ")] {
            boards[board].show(text.as_bytes(), &mut shown).unwrap();
        }
        assert_eq!(shown, b"a| one\r\nb| three\na| two\n");
        let mut shown = Vec::new();
        Screen::new(Echo::On).show(b"> ", &mut shown).unwrap();
        Screen::new(Echo::Off).show(b"> ", &mut shown).unwrap();
        assert_eq!(shown, b"> ");
    }

    #[test]
    fn typing_reaches_the_board() {
        let (mut console, mut board, _folder) = pair();
        console.send(b"help\r").unwrap();
        let mut got = [0; 5];
        board.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"help\r");
    }
}

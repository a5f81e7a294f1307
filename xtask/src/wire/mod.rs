//! Virtual wires: what is sent at one end comes out at the others, unless it is to be lost, late or changed.
//!
//! Ends are cards of emulated boards or taps in this program. Both emulators put each frame into one UDP datagram, without its
//! checksum. Bochs fixes where to: a card with port N binds 127.0.0.1:N and sends to N + 1; so do ours in QEMU. A wire
//! therefore binds the port behind that of each of its cards. Bochs hands its card only what is sent to that card's own address
//! or to all, however the card is set: guests behind a card are reached in QEMU alone, or by [`Wire::suit_bochs`].

mod capture;
mod line;
mod packets;
mod random;
mod script;
mod segment;
mod spells;
mod tap;

pub(crate) use packets::read as read_capture;
pub(crate) use random::{Random, Share};
pub(crate) use script::{HELP, Script, ScriptError, read_actions, read_share, read_time};
pub(crate) use segment::{Action, Counts, Target};
pub(crate) use spells::Spells;
pub(crate) use tap::Tap;

use anyhow::{Context, Result, bail};
use capture::Capture;
use script::Play;
use segment::Segment;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use tap::Inbox;

/// Where ports are looked for: below those that systems give out by themselves.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// The longest frame: a jumbo one with room to spare.
const FRAME_MAX: usize = 16 << 10;
/// Frames that are kept for [`Wire::wait_for`] and [`Wire::recent`].
const KEPT: usize = 4096;
/// The address of all stations.
const BROADCAST: [u8; 6] = [0xff; 6];
/// How often a thread looks whether the wire is gone.
const LOOK: Duration = Duration::from_millis(100);

/// An emulated card's place on a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plug {
    /// The number of this end, which scripts and counts know it by.
    pub(crate) end: usize,
    /// The UDP port that the card binds. Even; the wire has the odd one behind it.
    pub(crate) port: u16,
}

impl Plug {
    /// The port that the card sends to.
    pub(crate) const fn remote(self) -> u16 {
        self.port + 1
    }
}

/// A frame that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The end that sent it.
    pub(crate) from: usize,
    /// Its bytes from the destination's address on, without the checksum.
    pub(crate) bytes: Vec<u8>,
}

/// A wire; among more than two ends it is a switch. Dropping it cuts it.
#[derive(Debug)]
pub(crate) struct Wire {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Where frames for an end go.
#[derive(Debug)]
enum Sink {
    /// An emulator.
    Card(UdpSocket, Plug),
    /// This program.
    Tap(Arc<Inbox>),
    /// Nowhere: the tap is gone.
    Nobody,
}

#[derive(Debug)]
struct State {
    segment: Segment,
    /// By the ends' numbers.
    sinks: Vec<Sink>,
    /// What is for another station than this one comes to cards as for all.
    own: Option<[u8; 6]>,
    plays: Vec<Play>,
    capture: Option<Capture>,
    /// The last frames of all directions, as they were sent.
    frames: VecDeque<Frame>,
    gone: bool,
}

#[derive(Debug)]
struct Shared {
    laid: Instant,
    state: Mutex<State>,
    /// A frame was sent.
    news: Condvar,
    /// There is something to do in time.
    clock: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame that an end sends, and brings to their ends all that are due.
    fn send(&self, from: usize, bytes: &[u8]) {
        let mut state = self.lock();
        // Within the lock, so that times never run backwards.
        let now = self.laid.elapsed();
        state.play(now);
        let fate = state.segment.send(from, bytes.to_vec(), now);
        if let Some(capture) = &mut state.capture {
            let time = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            // A full disk must not end what the wire is there for.
            if capture.add(from, time, bytes, &fate.to_string()).is_err() {
                state.capture = None;
            }
        }
        if state.frames.len() == KEPT {
            state.frames.pop_front();
        }
        let bytes = bytes.to_vec();
        state.frames.push_back(Frame { from, bytes });
        state.deliver(now);
        let later = state.next_due().is_some();
        drop(state);
        self.news.notify_all();
        if later {
            self.clock.notify_all();
        }
    }

    /// Nobody listens at this end any more.
    fn abandon(&self, end: usize) {
        self.lock().sinks[end] = Sink::Nobody;
    }
}

impl State {
    /// Takes the steps of scripts that are due.
    fn play(&mut self, now: Duration) {
        for play in &mut self.plays {
            while let Some((target, actions)) = play.take(now) {
                for action in actions {
                    self.segment.apply(target, action, now);
                }
            }
        }
    }

    /// Brings the frames that are due to their ends. A card that is not there yet, or no longer, misses them.
    fn deliver(&mut self, now: Duration) {
        while let Some((end, mut bytes)) = self.segment.deliver(now) {
            match &self.sinks[end] {
                Sink::Card(socket, plug) => {
                    if let Some(own) = self.own
                        && let Some(destination) = bytes.first_chunk_mut()
                        && *destination != own
                    {
                        *destination = BROADCAST;
                    }
                    let _ = socket.send_to(&bytes, (Ipv4Addr::LOCALHOST, plug.port));
                }
                Sink::Tap(inbox) => inbox.put(bytes),
                Sink::Nobody => {}
            }
        }
    }

    /// How many frames were sent so far.
    fn sent(&self) -> u64 {
        let ends = 0..self.sinks.len();
        ends.map(|end| self.segment.counts(end).sent).sum()
    }

    /// When there is something to do next.
    fn next_due(&self) -> Option<Duration> {
        let plays = self.plays.iter().filter_map(Play::next_due);
        plays.chain(self.segment.next_due()).min()
    }
}

impl Wire {
    /// Lays a wire without ends.
    ///
    /// # Errors
    ///
    /// Where no thread can be started.
    pub(crate) fn lay() -> Result<Self> {
        let shared = Arc::new(Shared {
            laid: Instant::now(),
            state: Mutex::new(State {
                segment: Segment::new(),
                sinks: Vec::new(),
                own: None,
                plays: Vec::new(),
                capture: None,
                frames: VecDeque::new(),
                gone: false,
            }),
            news: Condvar::new(),
            clock: Condvar::new(),
        });
        let wire = Self {
            shared: Arc::clone(&shared),
            threads: Mutex::new(Vec::new()),
        };
        wire.start(move || keep_time(&shared))?;
        Ok(wire)
    }

    /// Adds an end for an emulator's card.
    ///
    /// # Errors
    ///
    /// Where no ports are free.
    pub(crate) fn plug(&self) -> Result<Plug> {
        let (port, socket) = socket()?;
        let source = socket.try_clone().context("cannot share a socket")?;
        let plug = {
            let mut state = self.shared.lock();
            let end = state.segment.add_end();
            let plug = Plug { end, port };
            state.sinks.push(Sink::Card(socket, plug));
            plug
        };
        let shared = Arc::clone(&self.shared);
        self.start(move || carry(plug.end, &source, &shared))?;
        Ok(plug)
    }

    /// Adds an end in this program.
    pub(crate) fn tap(&self) -> Tap {
        let inbox = Arc::new(Inbox::default());
        let mut state = self.shared.lock();
        let end = state.segment.add_end();
        state.sinks.push(Sink::Tap(Arc::clone(&inbox)));
        Tap {
            shared: Arc::clone(&self.shared),
            end,
            inbox,
        }
    }

    /// For the cards of Bochs, all of which have the address `own`: nothing is learnt of where that is, and what is for other
    /// stations behind the cards comes to these as for all. smoltcp takes that, Linux does not.
    pub(crate) fn suit_bochs(&self, own: [u8; 6]) {
        let mut state = self.shared.lock();
        state.segment.flood();
        state.own = Some(own);
    }

    /// How many ends it has.
    pub(crate) fn ends(&self) -> usize {
        self.shared.lock().sinks.len()
    }

    /// Changes what the wire does to frames that are sent from now on.
    pub(crate) fn set(&self, target: Target, action: Action) {
        let mut state = self.shared.lock();
        let now = self.shared.laid.elapsed();
        state.segment.apply(target, action, now);
    }

    /// Begins the sequences of chance anew.
    pub(crate) fn seed(&self, seed: u64) {
        self.shared.lock().segment.seed(seed);
    }

    /// Plays a script, whose time starts now.
    pub(crate) fn play(&self, script: Script) {
        if let Some(seed) = script.seed {
            self.seed(seed);
        }
        let mut state = self.shared.lock();
        let now = self.shared.laid.elapsed();
        state.plays.push(Play::new(script, now));
        state.play(now);
        drop(state);
        self.shared.clock.notify_all();
    }

    /// Captures what is sent from now on into a file that Wireshark opens.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub(crate) fn capture(&self, file: &Path) -> Result<()> {
        let capture = Capture::create(file)?;
        self.shared.lock().capture = Some(capture);
        Ok(())
    }

    /// Waits until a frame has been sent that is as wanted, and returns it; among those sent already, the last 4096 count.
    pub(crate) fn wait_for(
        &self,
        wanted: impl Fn(&Frame) -> bool,
        timeout: Duration,
    ) -> Option<Frame> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        let mut seen = 0;
        loop {
            let total = state.sent();
            let new = usize::try_from(total - seen).unwrap_or(usize::MAX);
            let old = state.frames.len().saturating_sub(new);
            if let Some(frame) = state.frames.range(old..).find(|frame| wanted(frame)) {
                return Some(frame.clone());
            }
            seen = total;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.shared.news.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The last frames that were sent, 4096 at most, whatever became of them.
    pub(crate) fn recent(&self) -> Vec<Frame> {
        self.shared.lock().frames.iter().cloned().collect()
    }

    /// What became of an end's frames so far.
    pub(crate) fn counts(&self, end: usize) -> Counts {
        self.shared.lock().segment.counts(end)
    }

    fn start(&self, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new()
            .name("wire".into())
            .spawn(work)
            .context("cannot start a thread")?;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push(thread);
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.lock().gone = true;
        self.shared.clock.notify_all();
        let threads = self.threads.get_mut();
        for thread in threads.unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}

/// Carries what a card sends.
fn carry(from: usize, source: &UdpSocket, shared: &Shared) {
    let mut buffer = vec![0; FRAME_MAX];
    loop {
        // A time-out comes here, too, and so does the complaint that a card is not there.
        if let Ok(length) = source.recv(&mut buffer) {
            shared.send(from, &buffer[..length]);
        } else if shared.lock().gone {
            return;
        }
    }
}

/// Does what time brings: steps of scripts, and frames that were late.
fn keep_time(shared: &Shared) {
    let mut state = shared.lock();
    while !state.gone {
        let now = shared.laid.elapsed();
        state.play(now);
        state.deliver(now);
        let left = match state.next_due() {
            Some(due) => due.saturating_sub(shared.laid.elapsed()),
            None => Duration::MAX,
        };
        let waited = shared.clock.wait_timeout(state, left);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    }
}

/// Finds a free pair of ports. The odd one stays bound and so keeps the even one from other wires, until the card binds that.
fn socket() -> Result<(u16, UdpSocket)> {
    for port in PORTS.step_by(2) {
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        match UdpSocket::bind((Ipv4Addr::LOCALHOST, port + 1)) {
            Ok(socket) if free => {
                socket.set_read_timeout(Some(LOOK))?;
                return Ok((port, socket));
            }
            _ => {}
        }
    }
    bail!(
        "no pair of UDP ports between {} and {} is free",
        PORTS.start,
        PORTS.end
    )
}

#[cfg(test)]
mod tests;

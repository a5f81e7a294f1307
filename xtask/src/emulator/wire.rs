//! Virtual wires: what a board's network card sends comes out of the card at the other end.
//!
//! Both emulators put each frame into one UDP datagram, without its checksum. Bochs fixes where to: a card with port N binds
//! 127.0.0.1:N and sends to N + 1; so do ours in QEMU. A wire therefore binds the port behind that of each of its two cards
//! and carries over what comes there.

use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Where ports are looked for: below those that systems give out by themselves.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// The longest frame: a jumbo one with room to spare.
const FRAME_MAX: usize = 16 << 10;
/// Frames that are kept for [`Wire::wait_for`].
const KEPT: usize = 4096;
/// How often a carrier looks whether the wire is gone.
const LOOK: Duration = Duration::from_millis(100);

/// A card's place on a wire: the UDP port that it binds. Even; the wire has the odd one behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plug(pub(crate) u16);

impl Plug {
    /// The port that the card sends to.
    pub(crate) const fn remote(self) -> u16 {
        self.0 + 1
    }
}

/// A frame that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The end that sent it, 0 or 1.
    pub(crate) from: usize,
    /// Its bytes from the destination's address on, without the checksum.
    pub(crate) bytes: Vec<u8>,
}

/// A wire between two cards. Dropping it cuts it.
#[derive(Debug)]
pub(crate) struct Wire {
    plugs: [Plug; 2],
    shared: Arc<Shared>,
    carriers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The first frames of both directions, as they came.
    frames: Mutex<Vec<Frame>>,
    cut: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Frame>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    /// Lays a wire; cards are put on by [`Wire::plug`].
    ///
    /// # Errors
    ///
    /// Where no ports are free.
    pub(crate) fn lay() -> Result<Self> {
        let ((first, first_socket), (second, second_socket)) = (socket()?, socket()?);
        let shared = Arc::new(Shared::default());
        let mut carriers = Vec::new();
        let sockets = [Arc::new(first_socket), Arc::new(second_socket)];
        for (from, to) in [(0, second), (1, first)] {
            let (source, sink) = (Arc::clone(&sockets[from]), Arc::clone(&sockets[1 - from]));
            let shared = Arc::clone(&shared);
            let carrier = thread::Builder::new()
                .name("wire".into())
                .spawn(move || carry(from, &source, &sink, to, &shared))
                .context("cannot start a thread")?;
            carriers.push(carrier);
        }
        Ok(Self {
            plugs: [first, second],
            shared,
            carriers,
        })
    }

    /// An end of the wire, 0 or 1.
    pub(crate) const fn plug(&self, end: usize) -> Plug {
        self.plugs[end]
    }

    /// Waits until a frame has been sent that is as wanted, and returns it.
    pub(crate) fn wait_for(
        &self,
        wanted: impl Fn(&Frame) -> bool,
        timeout: Duration,
    ) -> Option<Frame> {
        let deadline = Instant::now() + timeout;
        loop {
            let found = self
                .shared
                .lock()
                .iter()
                .find(|frame| wanted(frame))
                .cloned();
            if found.is_some() || Instant::now() >= deadline {
                return found;
            }
            thread::sleep(LOOK);
        }
    }

    /// How many frames either end has sent, of the first 4096.
    pub(crate) fn counts(&self) -> [usize; 2] {
        let frames = self.shared.lock();
        [0, 1].map(|end| frames.iter().filter(|frame| frame.from == end).count())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.cut.store(true, Ordering::Relaxed);
        for carrier in self.carriers.drain(..) {
            let _ = carrier.join();
        }
    }
}

/// Carries what one end sends to the card at the other. A card that is not there yet, or no longer, misses it.
fn carry(from: usize, source: &UdpSocket, sink: &UdpSocket, to: Plug, shared: &Shared) {
    let mut buffer = vec![0; FRAME_MAX];
    while !shared.cut.load(Ordering::Relaxed) {
        // A time-out comes here, too, and so does the complaint that a card is not there.
        let Ok(length) = source.recv(&mut buffer) else {
            continue;
        };
        let bytes = buffer[..length].to_vec();
        let mut frames = shared.lock();
        let _ = sink.send_to(&bytes, (Ipv4Addr::LOCALHOST, to.0));
        if frames.len() < KEPT {
            frames.push(Frame { from, bytes });
        }
    }
}

/// Finds a free pair of ports. The odd one stays bound and so keeps the even one from other wires, until the card binds that.
fn socket() -> Result<(Plug, UdpSocket)> {
    for port in PORTS.step_by(2) {
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        let plug = Plug(port);
        match UdpSocket::bind((Ipv4Addr::LOCALHOST, plug.remote())) {
            Ok(socket) if free => {
                socket.set_read_timeout(Some(LOOK))?;
                return Ok((plug, socket));
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
mod tests {
    use super::*;

    fn card(plug: Plug) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, plug.0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket
            .connect((Ipv4Addr::LOCALHOST, plug.remote()))
            .unwrap();
        socket
    }

    #[test]
    fn frames_come_out_at_the_other_end_whole_and_are_kept() {
        let wire = Wire::lay().unwrap();
        let cards = [card(wire.plug(0)), card(wire.plug(1))];
        let mut buffer = vec![0; FRAME_MAX];
        for (from, length) in [(0, 60), (1, 1514), (0, 9014)] {
            let sent = vec![from as u8 + 1; length];
            cards[from].send(&sent).unwrap();
            let received = cards[1 - from].recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..received], sent);
        }
        assert_eq!(wire.counts(), [2, 1]);
        let short = wire.wait_for(|frame| frame.bytes.len() == 60, LOOK);
        assert_eq!(short.unwrap().from, 0);
        assert_eq!(wire.wait_for(|frame| frame.bytes.is_empty(), LOOK), None);
    }

    #[test]
    fn wires_side_by_side_have_ports_of_their_own_and_give_them_back() {
        let wires = [Wire::lay().unwrap(), Wire::lay().unwrap()];
        let mut plugs: Vec<_> = wires
            .iter()
            .flat_map(|wire| [wire.plug(0).0, wire.plug(1).0])
            .collect();
        let last = plugs[3];
        plugs.sort_unstable();
        plugs.dedup();
        assert_eq!(plugs.len(), 4);
        drop(wires);
        assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, last + 1)).is_ok());
    }
}

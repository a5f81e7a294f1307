//! A station on a wire that is no emulated board: an IPv4 stack in this program, with calls that wait.
//!
//! The stack is smoltcp's. A thread of its own moves it on, so the station answers pings and keeps its connections also
//! while nobody waits.

mod card;
mod http;
pub(crate) mod ledger;
mod stream;
mod udp;

pub(crate) use stream::Stream;
pub(crate) use udp::{Retry, UdpPort};

use crate::wire::{Tap, Wire};
use anyhow::{Context, Result, bail};
use card::Card;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, Ipv4Cidr,
};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::Ipv4Addr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The first port that calls take by themselves (RFC 6335, 6).
const PORTS_START: u16 = 49_152;
/// How many times faster than the wall's the stack's clock runs. Its shortest time-out for a retransmission, a second, becomes
/// that of Linux, and a wire that loses frames does not stop a station for minutes.
const HASTE: u32 = 5;
/// How long the thread sleeps at most.
const LOOK: Duration = Duration::from_millis(500);
/// Identifies this station's pings.
const IDENT: u16 = 0x554e;

/// What a station is: its MAC address, its IPv4 address, the length of the net's prefix, and a VLAN where its frames
/// carry a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Station {
    /// The MAC address.
    pub(crate) mac: [u8; 6],
    /// The IPv4 address.
    pub(crate) address: Ipv4Addr,
    /// How many bits of the address are the net's.
    pub(crate) prefix: u8,
    /// The tag of all its frames (IEEE 802.1Q), where they have one.
    pub(crate) vlan: Option<u16>,
}

impl Station {
    /// A station of a net of 256 addresses, without a VLAN. Its MAC address is 02:00 and the IPv4 address, which no board has.
    pub(crate) const fn new(address: [u8; 4]) -> Self {
        let [a, b, c, d] = address;
        Self {
            mac: [2, 0, a, b, c, d],
            address: Ipv4Addr::new(a, b, c, d),
            prefix: 24,
            vlan: None,
        }
    }
}

/// A station that is on a wire. Dropping it takes it off.
#[derive(Debug)]
pub(crate) struct Client {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

struct Inner {
    tap: Arc<Tap>,
    stack: Mutex<Stack>,
    /// A socket's state may have changed.
    changed: Condvar,
    start: Instant,
}

struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    card: Card,
    /// TCP sockets that nobody holds any more, but that have not said good-bye.
    closing: Vec<SocketHandle>,
    next_port: u16,
    gone: bool,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("tap", &self.tap).finish()
    }
}

impl Client {
    /// Puts a station on a wire.
    ///
    /// # Errors
    ///
    /// Where no thread can be started.
    pub(crate) fn attach(wire: &Wire, station: Station) -> Result<Self> {
        let tap = Arc::new(wire.tap());
        let mut card = Card::new(Arc::clone(&tap), station.vlan);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(station.mac)));
        // A station that takes the place of another must not be taken for it.
        let random = RandomState::new().build_hasher().finish();
        config.random_seed = random;
        let mut interface = Interface::new(config, &mut card, StackInstant::ZERO);
        let cidr = IpCidr::Ipv4(Ipv4Cidr::new(station.address, station.prefix));
        interface.update_ip_addrs(|addresses| {
            // An empty list has room for one.
            let _ = addresses.push(cidr);
        });
        let inner = Arc::new(Inner {
            tap,
            stack: Mutex::new(Stack {
                interface,
                sockets: SocketSet::new(Vec::new()),
                card,
                closing: Vec::new(),
                next_port: PORTS_START | random as u16,
                gone: false,
            }),
            changed: Condvar::new(),
            start: Instant::now(),
        });
        let shared = Arc::clone(&inner);
        let thread = thread::Builder::new()
            .name("station".into())
            .spawn(move || shared.run())
            .context("cannot start a thread")?;
        Ok(Self {
            inner,
            thread: Some(thread),
        })
    }

    /// The number of its end of the wire.
    pub(crate) fn end(&self) -> usize {
        self.inner.tap.end()
    }

    /// Sends a ping with so many bytes, and returns how long the answer took.
    ///
    /// # Errors
    ///
    /// Where no right answer comes in time.
    pub(crate) fn ping(&self, to: Ipv4Addr, size: usize, timeout: Duration) -> Result<Duration> {
        let inner = &self.inner;
        let buffer = || {
            let metadata = vec![icmp::PacketMetadata::EMPTY; 4];
            icmp::PacketBuffer::new(metadata, vec![0; 4 * (size + 64)])
        };
        let mut socket = icmp::Socket::new(buffer(), buffer());
        let number = inner.lock().port();
        let data: Vec<u8> = (0..size)
            .map(|at| (at + usize::from(number)) as u8)
            .collect();
        let request = Icmpv4Repr::EchoRequest {
            ident: IDENT,
            seq_no: number,
            data: &data,
        };
        socket
            .bind(icmp::Endpoint::Ident(IDENT))
            .context("cannot listen for answers")?;
        let place = socket
            .send(request.buffer_len(), IpAddress::Ipv4(to))
            .context("cannot send")?;
        request.emit(
            &mut Icmpv4Packet::new_unchecked(place),
            &ChecksumCapabilities::default(),
        );
        let start = Instant::now();
        let handle = inner.act(|stack| stack.sockets.add(socket));
        let answered = inner.wait(timeout, |stack| {
            let socket = stack.sockets.get_mut::<icmp::Socket<'_>>(handle);
            while let Ok((packet, from)) = socket.recv() {
                let Ok(packet) = Icmpv4Packet::new_checked(packet) else {
                    continue;
                };
                // With the checksum checked, as the hardware does not.
                let reply = Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default());
                if let Ok(Icmpv4Repr::EchoReply {
                    seq_no, data: got, ..
                }) = reply
                    && (seq_no, got, from) == (number, &data[..], IpAddress::Ipv4(to))
                {
                    return Some(());
                }
            }
            None
        });
        inner.act(|stack| stack.sockets.remove(handle));
        match answered {
            Some(()) => Ok(start.elapsed()),
            None => bail!("{to} did not answer a ping of {size} bytes within {timeout:?}"),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.inner.lock().gone = true;
        self.inner.tap.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> StackInstant {
        let passed = self.start.elapsed() * HASTE;
        let micros = i64::try_from(passed.as_micros());
        StackInstant::from_micros(micros.unwrap_or(i64::MAX))
    }

    /// Does something to the stack, and at once what follows from it.
    fn act<T>(&self, work: impl FnOnce(&mut Stack) -> T) -> T {
        let mut stack = self.lock();
        let result = work(&mut stack);
        if stack.poll(self.now()) {
            self.changed.notify_all();
        }
        drop(stack);
        // The next deadline may be another.
        self.tap.wake();
        result
    }

    /// Waits until this finds something; it is asked whenever a socket may have changed.
    fn wait<T>(
        &self,
        timeout: Duration,
        mut look: impl FnMut(&mut Stack) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut stack = self.lock();
        loop {
            if let Some(found) = look(&mut stack) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.changed.wait_timeout(stack, left);
            (stack, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Moves the stack on until the station is gone.
    fn run(&self) {
        loop {
            let mut stack = self.lock();
            if stack.gone {
                return;
            }
            if stack.poll(self.now()) {
                self.changed.notify_all();
            }
            let Stack {
                interface, sockets, ..
            } = &mut *stack;
            let delay = interface.poll_delay(self.now(), sockets);
            drop(stack);
            let delay = delay.map_or(LOOK, |delay| Duration::from(delay) / HASTE);
            self.tap.wait(delay.min(LOOK));
        }
    }
}

impl Stack {
    /// Takes what has come, and sends what is to be sent. Returns whether a socket may have changed.
    fn poll(&mut self, now: StackInstant) -> bool {
        let Self {
            interface,
            sockets,
            card,
            closing,
            ..
        } = self;
        let result = interface.poll(now, card, sockets);
        closing.retain(|handle| {
            let state = sockets.get::<tcp::Socket<'_>>(*handle).state();
            let over = matches!(state, tcp::State::Closed | tcp::State::TimeWait);
            if over {
                sockets.remove(*handle);
            }
            !over
        });
        result == PollResult::SocketStateChanged
    }

    /// A port that no call has used lately.
    fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(PORTS_START);
        port
    }
}

#[cfg(test)]
mod tests;

//! The hypervisor's own station on the network: it answers pings, serves what can be read of the board over HTTP, and carries the
//! hypervisor's own datagrams.
//!
//! A state machine: frames and the time come in, frames and the time of the next look come out. What it serves is
//! somebody else's ([`Content`]), and none of it can be changed from here.

#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod body;
mod card;
mod connection;
mod datagrams;
mod http;

use alloc::vec;
use alloc::vec::Vec;

pub use body::Body;
pub use datagrams::Peer;

use card::Card;
use connection::Connection;
use datagrams::Datagrams;
use net::MacAddress;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address, Ipv4Cidr};

/// Connections at a time.
const CONNECTIONS: usize = 4;
/// Bytes of a connection's buffers: what is received, and what waits to be acknowledged.
const RECEIVE: usize = 1 << 10;
const TRANSMIT: usize = 8 << 10;
/// Bytes of memory that all answers together may take.
const ANSWERS: usize = 576 << 10;

/// What the station is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManageConfig {
    /// Its hardware address.
    pub mac: MacAddress,
    /// Its IPv4 address.
    pub address: [u8; 4],
    /// Bits of that which name the network, at most 32.
    pub prefix: u8,
    /// The way to other networks.
    pub gateway: Option<[u8; 4]>,
    /// A number that others cannot guess.
    pub seed: u64,
    /// The UDP port for datagrams; none if 0.
    pub datagram_port: u16,
}

/// What can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/metrics`: in Prometheus' text format.
    Metrics,
    /// `/status`: as JSON.
    Status,
    /// `/capture.pcap`: captured frames.
    Capture,
}

/// What the station serves.
pub trait Content {
    /// Appends what is to be read on a page.
    fn write(&self, page: Page, to: &mut Body);
}

/// The station.
pub struct Manage {
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    datagrams: Option<Datagrams>,
}

impl Manage {
    /// A station at time 0.
    #[must_use]
    pub fn new(config: &ManageConfig) -> Self {
        let mut card = Card::default();
        let address = HardwareAddress::Ethernet(EthernetAddress(config.mac.0));
        let mut options = Config::new(address);
        options.random_seed = config.seed;
        let mut interface = Interface::new(options, &mut card, Instant::ZERO);
        let own = Ipv4Cidr::new(Ipv4Address::from(config.address), config.prefix.min(32));
        interface.update_ip_addrs(|addresses| {
            // An empty list has room for one.
            let _ = addresses.push(IpCidr::Ipv4(own));
        });
        if let Some(gateway) = config.gateway {
            // So has that of routes.
            let _ = interface
                .routes_mut()
                .add_default_ipv4_route(Ipv4Address::from(gateway));
        }
        let mut sockets = SocketSet::new(Vec::with_capacity(CONNECTIONS + 1));
        let connections = (0..CONNECTIONS)
            .map(|_| {
                let buffer = |size| tcp::SocketBuffer::new(vec![0; size]);
                let socket = tcp::Socket::new(buffer(RECEIVE), buffer(TRANSMIT));
                Connection::new(sockets.add(socket))
            })
            .collect();
        let datagrams = Datagrams::open(&mut sockets, config.datagram_port);
        Self {
            card,
            interface,
            sockets,
            connections,
            datagrams,
        }
    }

    /// A frame has come; [`Manage::turn`] is to be called. Returns whether there was room for it.
    pub fn receive(&mut self, frame: &[u8]) -> bool {
        self.card.put(frame)
    }

    /// A datagram is to be sent; [`Manage::turn`] is to be called. Returns whether there was room for it, and a port.
    pub fn send_datagram(&mut self, to: Peer, bytes: &[u8]) -> bool {
        let datagrams = self.datagrams.as_ref();
        datagrams.is_some_and(|datagrams| datagrams.send(&mut self.sockets, to, bytes))
    }

    /// Shows the first datagram that came, in a turn, to `take`; whether there was one.
    pub fn take_datagram(&mut self, take: impl FnOnce(Peer, &[u8])) -> bool {
        let datagrams = self.datagrams.as_ref();
        datagrams.is_some_and(|datagrams| datagrams.take(&mut self.sockets, take))
    }

    /// Does what is to be done at a time in milliseconds, a few frames' worth and one page at most, and sends frames. Returns when it is to be
    /// called again although no frame has come, if ever.
    pub fn turn(
        &mut self,
        now: u64,
        content: &impl Content,
        mut send: impl FnMut(&[u8]),
    ) -> Option<u64> {
        let Self {
            card,
            interface,
            sockets,
            connections,
            ..
        } = self;
        let time = Instant::from_millis(i64::try_from(now).unwrap_or(i64::MAX));
        card.begin();
        interface.poll(time, card, sockets);
        let mut next = None::<u64>;
        let held: usize = connections.iter().map(Connection::held).sum();
        let mut room = Some(ANSWERS.saturating_sub(held));
        for connection in connections.iter_mut() {
            let deadline = connection.turn(sockets, now, &mut room, content);
            next = next.into_iter().chain(deadline).min();
        }
        // What the connections had to say.
        interface.poll(time, card, sockets);
        card.sent(&mut send);
        let stack = interface
            .poll_at(time, sockets)
            .map(|at| u64::try_from(at.total_millis()).unwrap_or(now));
        next.into_iter().chain(stack).min()
    }
}

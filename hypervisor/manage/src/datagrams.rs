//! Datagrams that the hypervisor sends to somebody and gets from there.

use alloc::vec;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::udp;
use smoltcp::wire::{IpAddress, IpEndpoint, Ipv4Address};

/// Datagrams that may wait in each direction, and bytes of them all.
const WAITING: usize = 4;
const BYTES: usize = 1 << 10;

/// Another station's place: its IPv4 address and UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address.
    pub address: [u8; 4],
    /// The port.
    pub port: u16,
}

/// The port for datagrams.
pub(crate) struct Datagrams(SocketHandle);

impl Datagrams {
    /// Opens this UDP port; 0 cannot be opened.
    pub(crate) fn open(sockets: &mut SocketSet<'static>, port: u16) -> Option<Self> {
        let buffer = || {
            let metadata = vec![udp::PacketMetadata::EMPTY; WAITING];
            udp::PacketBuffer::new(metadata, vec![0; BYTES])
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).ok()?;
        Some(Self(sockets.add(socket)))
    }

    /// Sends a datagram with the next turn; whether there is room for it.
    pub(crate) fn send(&self, sockets: &mut SocketSet<'static>, to: Peer, bytes: &[u8]) -> bool {
        let address = IpAddress::Ipv4(Ipv4Address::from(to.address));
        let endpoint = IpEndpoint::new(address, to.port);
        let socket = sockets.get_mut::<udp::Socket<'static>>(self.0);
        socket.send_slice(bytes, endpoint).is_ok()
    }

    /// Shows the first datagram that came to `take`; whether there was one.
    pub(crate) fn take(
        &self,
        sockets: &mut SocketSet<'static>,
        take: impl FnOnce(Peer, &[u8]),
    ) -> bool {
        let socket = sockets.get_mut::<udp::Socket<'static>>(self.0);
        let Ok((bytes, from)) = socket.recv() else {
            return false;
        };
        let IpAddress::Ipv4(address) = from.endpoint.addr;
        let peer = Peer {
            address: address.octets(),
            port: from.endpoint.port,
        };
        take(peer, bytes);
        true
    }
}

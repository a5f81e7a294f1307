//! UDP: ports of a station, and questions that are asked again until they are answered.

use super::{Client, Inner};
use anyhow::{Context, Result, bail};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{IpAddress, IpEndpoint};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Datagrams that wait in each direction, and their bytes.
const WAITING: usize = 64;
const BUFFER: usize = 64 << 10;

/// How often a question is asked, and how long each time an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Times, at least 1.
    pub(crate) attempts: u32,
    /// Each time.
    pub(crate) wait: Duration,
}

/// An answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What it says.
    pub(crate) bytes: Vec<u8>,
    /// How often the question was asked.
    pub(crate) attempts: u32,
    /// From the first time it was asked on.
    pub(crate) took: Duration,
}

/// A port of a station. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct UdpPort {
    inner: Arc<Inner>,
    handle: SocketHandle,
}

impl Client {
    /// Opens a port; none for any.
    ///
    /// # Errors
    ///
    /// Where the port is 0.
    pub(crate) fn udp(&self, port: Option<u16>) -> Result<UdpPort> {
        let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; WAITING], vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        let handle = self.inner.act(|stack| {
            let port = port.unwrap_or_else(|| stack.port());
            socket.bind(port).map(|()| stack.sockets.add(socket))
        });
        Ok(UdpPort {
            inner: Arc::clone(&self.inner),
            handle: handle.context("cannot open the port")?,
        })
    }

    /// Asks a question until it is answered from where it was sent to. A late answer to an earlier attempt counts.
    ///
    /// # Errors
    ///
    /// Where no answer comes to any attempt.
    pub(crate) fn udp_request(
        &self,
        to: Ipv4Addr,
        port: u16,
        question: &[u8],
        retry: Retry,
    ) -> Result<Answer> {
        let own = self.udp(None)?;
        let to = SocketAddrV4::new(to, port);
        let start = Instant::now();
        for attempts in 1..=retry.attempts {
            own.send_to(question, to)?;
            let deadline = Instant::now() + retry.wait;
            while let Some((bytes, from)) =
                own.receive(deadline.saturating_duration_since(Instant::now()))
            {
                if from == to {
                    return Ok(Answer {
                        bytes,
                        attempts,
                        took: start.elapsed(),
                    });
                }
            }
        }
        bail!("{to} answered none of {} datagrams", retry.attempts)
    }
}

impl UdpPort {
    /// Sends a datagram.
    ///
    /// # Errors
    ///
    /// Where too many wait to be sent, or the address is none.
    pub(crate) fn send_to(&self, bytes: &[u8], to: SocketAddrV4) -> Result<()> {
        let endpoint = IpEndpoint::new(IpAddress::Ipv4(*to.ip()), to.port());
        self.inner
            .act(|stack| {
                let socket = stack.sockets.get_mut::<Socket<'_>>(self.handle);
                socket.send_slice(bytes, endpoint)
            })
            .with_context(|| format!("cannot send {} bytes to {to}", bytes.len()))
    }

    /// The next datagram that comes within this time, or has come already, and who sent it.
    pub(crate) fn receive(&self, timeout: Duration) -> Option<(Vec<u8>, SocketAddrV4)> {
        self.inner.wait(timeout, |stack| {
            let socket = stack.sockets.get_mut::<Socket<'_>>(self.handle);
            let (bytes, from) = socket.recv().ok()?;
            let IpAddress::Ipv4(address) = from.endpoint.addr;
            let from = SocketAddrV4::new(address, from.endpoint.port);
            Some((bytes.to_vec(), from))
        })
    }
}

impl Drop for UdpPort {
    fn drop(&mut self) {
        self.inner.act(|stack| stack.sockets.remove(self.handle));
    }
}

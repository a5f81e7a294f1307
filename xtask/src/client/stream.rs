//! TCP connections of a station, to be read from and written to as those of the standard library are.

use super::{Client, Inner, Stack};
use anyhow::{Context, Result, bail};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Bytes under way to the station.
const RECEIVE: usize = 256 << 10;
/// Bytes under way from it. The stack repeats one lost segment at a time, so that many in a window would cost it much time.
const TRANSMIT: usize = 16 << 10;

/// A connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Stream {
    inner: Arc<Inner>,
    handle: SocketHandle,
    timeout: Duration,
}

fn new_socket() -> Socket<'static> {
    let buffer = |length| SocketBuffer::new(vec![0; length]);
    let mut socket = Socket::new(buffer(RECEIVE), buffer(TRANSMIT));
    socket.set_nagle_enabled(false);
    socket
}

impl Client {
    /// Connects; every wait for the connection, for bytes and for room takes this long at most.
    ///
    /// # Errors
    ///
    /// Where the other does not answer in time, or refuses.
    pub(crate) fn connect(&self, to: Ipv4Addr, port: u16, timeout: Duration) -> Result<Stream> {
        let handle = self.inner.act(|stack| {
            let mut socket = new_socket();
            let own = stack.port();
            let connected = socket.connect(stack.interface.context(), (to, port), own);
            connected.map(|()| stack.sockets.add(socket))
        });
        let handle = handle.with_context(|| format!("cannot connect to {to}"))?;
        // From here on, dropping it puts the socket away.
        let stream = Stream {
            inner: Arc::clone(&self.inner),
            handle,
            timeout,
        };
        let connected = stream.wait(|socket| match socket.state() {
            State::SynSent => None,
            state => Some(state != State::Closed),
        });
        match connected {
            Some(true) => Ok(stream),
            Some(false) => bail!("{to} refuses connections to its port {port}"),
            None => bail!("{to} did not answer at its port {port} within {timeout:?}"),
        }
    }

    /// Lets somebody connect to a port.
    #[cfg(test)]
    pub(crate) fn listen(&self, port: u16, timeout: Duration) -> Stream {
        let mut socket = new_socket();
        socket.listen(port).expect("the port is none");
        Stream {
            inner: Arc::clone(&self.inner),
            handle: self.inner.act(|stack| stack.sockets.add(socket)),
            timeout,
        }
    }
}

impl Stream {
    /// How long waits take at most from now on.
    pub(crate) const fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Says that nothing more will be written.
    pub(crate) fn finish(&self) {
        self.inner.act(|stack| stack.socket(self.handle).close());
    }

    /// Waits until somebody has connected.
    #[cfg(test)]
    pub(crate) fn accepted(self) -> Self {
        let connected = self.wait(|socket| socket.may_send().then_some(()));
        connected.expect("nobody connects");
        self
    }

    fn wait<T>(&self, look: impl Fn(&Socket<'_>) -> Option<T>) -> Option<T> {
        let handle = self.handle;
        self.inner
            .wait(self.timeout, |stack| look(stack.socket(handle)))
    }

    fn too_late(&self) -> io::Error {
        let text = format!("nothing moved for {:?}", self.timeout);
        io::Error::new(io::ErrorKind::TimedOut, text)
    }
}

impl Stack {
    fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.wait(|socket| (socket.can_recv() || !socket.may_recv()).then_some(()))
            .ok_or_else(|| self.too_late())?;
        let read = self
            .inner
            .act(|stack| stack.socket(self.handle).recv_slice(buffer));
        match read {
            Ok(length) => Ok(length),
            Err(RecvError::Finished) => Ok(0),
            Err(RecvError::InvalidState) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.wait(|socket| (socket.can_send() || !socket.may_send()).then_some(()))
            .ok_or_else(|| self.too_late())?;
        self.inner
            .act(|stack| stack.socket(self.handle).send_slice(buffer))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.inner.act(|stack| {
            stack.socket(self.handle).close();
            stack.closing.push(self.handle);
        });
    }
}

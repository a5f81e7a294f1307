//! Connections: a thread each, of which there are not too many, and none that lasts for ever.

use super::blob;
use super::http::{self, Body, Refusal, Request, Response};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The longest head of a request.
const HEAD_MAX: usize = 8 << 10;
/// What is read and thrown away behind a refused request, so that the refusal is not lost with the connection.
const DRAIN_MAX: u64 = 64 << 10;
/// How long the listener rests where the system has no more handles or threads.
const REST: Duration = Duration::from_millis(100);

/// What a connection may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time; more are refused.
    pub(super) connections: usize,
    /// From the connection to the end of the request's head, however it trickles.
    pub(super) request: Duration,
    /// For which nothing of the response can be sent.
    pub(super) stall: Duration,
}

/// Those of the gateway.
pub(super) const LIMITS: Limits = Limits {
    connections: 32,
    request: Duration::from_secs(10),
    stall: Duration::from_secs(20),
};

/// One of the connections that there are.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(count: &Arc<AtomicUsize>) -> (Self, usize) {
        let before = count.fetch_add(1, Ordering::Relaxed);
        (Self(Arc::clone(count)), before)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves connections, and never returns.
pub(super) fn serve(
    listener: &TcpListener,
    limits: Limits,
    answer: impl Fn(&Request) -> Response + Clone + Send + 'static,
) -> ! {
    let count = Arc::new(AtomicUsize::new(0));
    loop {
        // Some connections end before they are taken; otherwise there is a want that may pass.
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(REST);
            continue;
        };
        let (place, before) = Place::take(&count);
        if before >= limits.connections {
            // A few bytes always fit the socket's buffer, so this does not wait.
            let _ = respond(&mut stream, &Refusal::Crowded.into(), false);
            continue;
        }
        let answer = answer.clone();
        let started = thread::Builder::new().spawn(move || {
            let _place = place;
            // Whatever fails is over for this connection alone.
            let _ = attend(stream, limits, &answer);
        });
        if started.is_err() {
            thread::sleep(REST);
        }
    }
}

fn attend(
    mut stream: TcpStream,
    limits: Limits,
    answer: &dyn Fn(&Request) -> Response,
) -> io::Result<()> {
    stream.set_write_timeout(Some(limits.stall))?;
    let request = read_head(&mut stream, limits.request)?.and_then(|head| http::parse(&head));
    match request {
        Ok(request) => respond(&mut stream, &answer(&request), request.is_head),
        Err(refusal) => {
            respond(&mut stream, &refusal.into(), false)?;
            drain(stream)
        }
    }
}

/// Reads a request's head.
fn read_head(stream: &mut TcpStream, patience: Duration) -> io::Result<Result<Vec<u8>, Refusal>> {
    let deadline = Instant::now() + patience;
    let (mut head, mut buffer) = (Vec::new(), [0; 2048]);
    loop {
        if let Some(end) = http::end_of_head(&head) {
            head.truncate(end);
            return Ok(Ok(head));
        }
        if head.len() >= HEAD_MAX {
            return Ok(Err(Refusal::TooLong));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err(Refusal::Slow));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => head.extend(&buffer[..length]),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}

fn respond(stream: &mut TcpStream, response: &Response, is_head: bool) -> io::Result<()> {
    stream.write_all(response.head().as_bytes())?;
    match &response.body {
        _ if is_head => {}
        Body::Bytes(bytes) => stream.write_all(bytes)?,
        Body::Blob(size) => blob::write(*size, stream)?,
    }
    stream.shutdown(Shutdown::Write)
}

/// Takes what is still coming: closing a connection with unread bytes would reset it, and the response with it.
fn drain(stream: TcpStream) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_millis(500);
    stream.set_read_timeout(Some(PATIENCE))?;
    let deadline = Instant::now() + PATIENCE;
    let (mut rest, mut buffer) = (stream.take(DRAIN_MAX), [0; 2048]);
    while Instant::now() < deadline && rest.read(&mut buffer)? > 0 {}
    Ok(())
}

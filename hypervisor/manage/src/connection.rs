//! One connection at a time: a request, and its answer.

use alloc::vec::Vec;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Duration;

use crate::http::{REQUEST_MAX, Request};
use crate::{Body, Content};

const PORT: u16 = 80;
/// Milliseconds in which a request must have come, and for which a client may take nothing of its answer. Each byte that it takes
/// gives back one, so that nobody keeps others out by taking less than that.
const PATIENCE: u64 = 10_000;

/// Where a connection is.
#[derive(Debug)]
enum Stage {
    /// Nobody is there.
    Free,
    /// A request is coming.
    Asking(Vec<u8>),
    /// It has come.
    Asked(Request),
    /// Its answer goes out.
    Answering(Body),
    /// All is said, and the client is to close.
    Closing,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: SocketHandle,
    stage: Stage,
    /// When patience is over.
    deadline: u64,
}

impl Connection {
    pub(crate) const fn new(socket: SocketHandle) -> Self {
        Self {
            socket,
            stage: Stage::Free,
            deadline: 0,
        }
    }

    /// Bytes of memory that its answer takes.
    pub(crate) fn held(&self) -> usize {
        match &self.stage {
            Stage::Answering(answer) => answer.held(),
            Stage::Free | Stage::Asking(_) | Stage::Asked(_) | Stage::Closing => 0,
        }
    }

    /// Does what is to be done at a time in milliseconds; an answer is made up if there is `room` for one, which it takes away
    /// from others. Returns when there is something to do again, if somebody is there.
    pub(crate) fn turn(
        &mut self,
        sockets: &mut SocketSet<'_>,
        now: u64,
        room: &mut Option<usize>,
        content: &impl Content,
    ) -> Option<u64> {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        if !socket.is_open() {
            self.stage = Stage::Free;
            socket.set_timeout(Some(Duration::from_millis(PATIENCE)));
            // It is not open, and the port is one.
            let _ = socket.listen(PORT);
        }
        if matches!(self.stage, Stage::Free) {
            if !socket.is_active() {
                return None;
            }
            self.go_to(Stage::Asking(Vec::new()), now);
        }
        if now >= self.deadline {
            socket.abort();
            self.stage = Stage::Free;
            // The next turn listens again, once the reset has been sent.
            return Some(now + 1);
        }
        self.listen_to(socket, now);
        if let Stage::Asked(request) = self.stage {
            // Another one's answer was enough for now.
            let Some(room) = room.take() else {
                return Some(now);
            };
            self.go_to(Stage::Answering(request.answer(room, content)), now);
        }
        self.say(socket, now);
        Some(self.deadline)
    }

    fn go_to(&mut self, stage: Stage, now: u64) {
        self.stage = stage;
        self.deadline = now + PATIENCE;
    }

    fn listen_to(&mut self, socket: &mut tcp::Socket<'_>, now: u64) {
        while socket.can_recv() {
            let Stage::Asking(request) = &mut self.stage else {
                // What comes behind the request is of no interest.
                let _ = socket.recv(|bytes| (bytes.len(), ()));
                continue;
            };
            let room = REQUEST_MAX.saturating_sub(request.len());
            let took = socket.recv(|bytes| {
                let count = bytes.len().min(room);
                request.extend(bytes.iter().take(count));
                (count, ())
            });
            if took.is_err() {
                break;
            }
            if let Some(request) = Request::read(request) {
                self.go_to(Stage::Asked(request), now);
            }
        }
        // The client closed before it had said what it wants.
        let closed = socket.state() == tcp::State::CloseWait;
        if closed && matches!(self.stage, Stage::Asking(_)) {
            socket.close();
            self.go_to(Stage::Closing, now);
        }
    }

    fn say(&mut self, socket: &mut tcp::Socket<'_>, now: u64) {
        let Stage::Answering(answer) = &mut self.stage else {
            return;
        };
        while let Ok(said @ 1..) = socket.send_slice(answer.next()) {
            answer.advance(said);
            self.deadline = (self.deadline + said as u64).min(now + PATIENCE);
        }
        if answer.len() == 0 {
            socket.close();
            self.go_to(Stage::Closing, now);
        }
    }
}

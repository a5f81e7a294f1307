//! One connection at a time: a request, and its answer.

use alloc::vec::Vec;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Duration;

use crate::Content;
use crate::http::{REQUEST_MAX, Request};

const PORT: u16 = 80;
/// Milliseconds in which a request must have come, or the client must have taken something of its answer; and in which it must
/// have taken all of that.
const PATIENCE: u64 = 10_000;
const ANSWER_PATIENCE: u64 = 60_000;

/// Where a connection is.
#[derive(Debug)]
enum Stage {
    /// Nobody is there.
    Free,
    /// A request is coming.
    Asking(Vec<u8>),
    /// Its answer goes out, from this byte on.
    Answering(Vec<u8>, usize),
    /// All is said, and the client is to close.
    Closing,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: SocketHandle,
    stage: Stage,
    /// When patience is over, and when it is over however much the client takes.
    deadline: u64,
    end: u64,
}

impl Connection {
    pub(crate) const fn new(socket: SocketHandle) -> Self {
        Self {
            socket,
            stage: Stage::Free,
            deadline: 0,
            end: 0,
        }
    }

    /// Does what is to be done at a time in milliseconds; returns when patience is over, if somebody is there.
    pub(crate) fn turn(
        &mut self,
        sockets: &mut SocketSet<'_>,
        now: u64,
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
        self.listen_to(socket, now, content);
        self.say(socket, now);
        Some(self.deadline)
    }

    fn go_to(&mut self, stage: Stage, now: u64) {
        self.stage = stage;
        self.deadline = now + PATIENCE;
        self.end = now + ANSWER_PATIENCE;
    }

    fn listen_to(&mut self, socket: &mut tcp::Socket<'_>, now: u64, content: &impl Content) {
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
                let answer = request.answer(content);
                self.go_to(Stage::Answering(answer, 0), now);
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
        let Stage::Answering(answer, done) = &mut self.stage else {
            return;
        };
        let rest = answer.get(*done..).unwrap_or(&[]);
        let said = socket.send_slice(rest).unwrap_or(0);
        *done += said;
        let over = *done == answer.len();
        if said > 0 {
            self.deadline = self.end.min(now + PATIENCE);
        }
        if over {
            socket.close();
            self.go_to(Stage::Closing, now);
        }
    }
}

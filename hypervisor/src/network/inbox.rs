//! Frames for somebody who takes them later.

use super::frame::Frame;
use net::FrameQueue;
use spin::Mutex;

/// Bytes that may wait.
const SIZE: usize = 64 << 10;

/// A bounded queue of whole frames.
pub(super) struct Inbox(Mutex<FrameQueue>);

impl Inbox {
    pub(super) fn new() -> Self {
        Self(Mutex::new(FrameQueue::new(SIZE)))
    }

    /// Puts a frame in, to which nothing is left to be done; whether there was room.
    pub(super) fn put(&self, frame: &Frame<'_>) -> bool {
        let mut read = true;
        let room = self.0.lock().push(frame.length(), |into| {
            read = frame.read(0, into).is_ok();
        });
        room && read
    }

    /// Hands the first frame to `take`, if there is one; it is gone if that says so. Returns whether it is.
    pub(super) fn take(&self, take: impl FnOnce(&[u8]) -> bool) -> bool {
        self.0.lock().pop_if(take)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

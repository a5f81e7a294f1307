//! Frames for somebody who takes them later.

use super::frame::Frame;
use net::FrameQueue;
use spin::Mutex;

/// Bytes that may wait.
const SIZE: usize = 32 << 10;

/// A bounded queue of whole frames.
pub(super) struct Inbox(Mutex<Content>);

struct Content {
    frames: FrameQueue,
    open: bool,
}

impl Inbox {
    /// An empty one, which is closed.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Content {
            frames: FrameQueue::new(SIZE),
            open: false,
        }))
    }

    /// Puts a frame in, to which nothing is left to be done; whether it is open and there was room.
    pub(super) fn put(&self, frame: &Frame<'_>) -> bool {
        let mut read = true;
        let mut content = self.0.lock();
        let taken = content.open
            && content.frames.push(frame.length(), |into| {
                read = frame.read(0, into).is_ok();
            });
        taken && read
    }

    /// Hands the first frame to `take`, if there is one; it is gone if that says so. Returns whether it is.
    pub(super) fn take(&self, take: impl FnOnce(&[u8]) -> bool) -> bool {
        self.0.lock().frames.pop_if(take)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().frames.is_empty()
    }

    /// Opens or closes it; it is empty then.
    pub(super) fn open(&self, open: bool) {
        let mut content = self.0.lock();
        content.open = open;
        content.frames.clear();
    }
}

//! Frames for somebody who takes them later.

use super::frame::Frame;
use net::FrameQueue;
use spin::Mutex;

/// A bounded queue of whole frames.
pub(super) struct Inbox(Mutex<Content>);

struct Content {
    frames: FrameQueue,
    open: bool,
    /// Who took them went to the other board: they are for that, whether it is open or not.
    follow: bool,
}

impl Inbox {
    /// An empty one, which is closed. So many bytes may wait in it.
    pub(super) fn new(size: usize) -> Self {
        Self(Mutex::new(Content {
            frames: FrameQueue::new(size),
            open: false,
            follow: false,
        }))
    }

    /// Puts a frame in, to which nothing is left to be done; whether it is open and there was room.
    pub(super) fn put(&self, frame: &Frame<'_>) -> bool {
        let mut read = true;
        let mut content = self.0.lock();
        let taken = (content.open || content.follow)
            && content.frames.push(frame.length(), |into| {
                read = frame.read(0, into).is_ok();
            });
        taken && read
    }

    /// Hands the first frame to `take`, if there is one; it is gone if that says so. Returns whether it is.
    pub(super) fn take(&self, take: impl FnOnce(&[u8]) -> bool) -> bool {
        let mut content = self.0.lock();
        !content.follow && content.frames.pop_if(take)
    }

    /// Shows the first frame to `look` that was not shown. It stays, if its taker may want it still.
    pub(super) fn pass(&self, look: impl FnOnce(&[u8])) -> bool {
        let mut content = self.0.lock();
        let shown = content.frames.pass(look).is_some();
        if content.follow {
            content.frames.drop_passed();
        }
        shown
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().frames.is_empty()
    }

    /// Opens or closes it; it is empty then, unless it is closed and its frames follow their taker.
    pub(super) fn open(&self, open: bool) {
        let mut content = self.0.lock();
        content.open = open;
        content.follow &= !open;
        if !content.follow {
            content.frames.clear();
        }
    }

    /// From here on frames follow who took them; or they do no longer, and it is empty.
    pub(super) fn follow(&self, follow: bool) {
        let mut content = self.0.lock();
        content.follow = follow;
        if follow {
            content.frames.drop_passed();
        } else {
            content.frames.clear();
        }
    }
}

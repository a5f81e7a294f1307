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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use net::Offload;

    fn put(inbox: &Inbox, value: u8) -> bool {
        inbox.put(&Frame::of_bytes(&[value; 60], Offload::default()))
    }

    fn shown(inbox: &Inbox) -> Vec<u8> {
        let mut all = Vec::new();
        while inbox.pass(|frame| all.push(frame[0])) {}
        all
    }

    fn taken(inbox: &Inbox) -> Vec<u8> {
        let mut all = Vec::new();
        while inbox.take(|frame| {
            all.push(frame[0]);
            true
        }) {}
        all
    }

    #[test]
    fn who_goes_on_gets_what_was_shown() {
        let inbox = Inbox::new(1000);
        assert!(!put(&inbox, 0));
        inbox.open(true);
        assert!(put(&inbox, 1) && put(&inbox, 2));
        assert_eq!(shown(&inbox), [1, 2]);
        assert!(put(&inbox, 3));
        assert_eq!(shown(&inbox), [3]);
        assert_eq!(taken(&inbox), [1, 2, 3]);
    }

    #[test]
    fn frames_follow_who_has_gone() {
        let inbox = Inbox::new(1000);
        inbox.open(true);
        assert!(put(&inbox, 1));
        assert_eq!(shown(&inbox), [1]);
        assert!(put(&inbox, 2));
        inbox.follow(true);
        inbox.open(false);
        assert!(put(&inbox, 3) && taken(&inbox).is_empty());
        assert_eq!(shown(&inbox), [2, 3]);
        // There is always room for more.
        for value in 0..100 {
            assert!(put(&inbox, value));
            assert_eq!(shown(&inbox), [value]);
        }
        assert!(put(&inbox, 4));
        inbox.follow(false);
        assert!(!put(&inbox, 5) && shown(&inbox).is_empty());
        inbox.follow(true);
        assert!(put(&inbox, 6));
        inbox.open(true);
        assert!(put(&inbox, 7));
        assert_eq!(taken(&inbox), [7]);
    }
}

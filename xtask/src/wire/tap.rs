//! An end of a wire in this program: raw frames in and out.

use super::Shared;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Frames that wait to be received; what comes beyond is lost, as in a card whose ring is full.
const WAITING: usize = 4096;

/// An end of a wire in this program. It hears everything that comes along, whomever it is for.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(super) shared: Arc<Shared>,
    pub(super) end: usize,
    pub(super) inbox: Arc<Inbox>,
}

/// What has come.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    content: Mutex<Content>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Content {
    frames: VecDeque<Vec<u8>>,
    /// Somebody wants who waits to look.
    woken: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, timeout: Duration, idle: fn(&mut Content) -> bool) -> MutexGuard<'_, Content> {
        let waited = self.news.wait_timeout_while(self.lock(), timeout, idle);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn put(&self, frame: Vec<u8>) {
        let mut content = self.lock();
        if content.frames.len() < WAITING {
            content.frames.push_back(frame);
            drop(content);
            self.news.notify_all();
        }
    }
}

impl Tap {
    /// The number of this end, which scripts and counts know it by.
    pub(crate) const fn end(&self) -> usize {
        self.end
    }

    /// Sends a frame: from the destination's address on, without the checksum.
    pub(crate) fn send(&self, frame: &[u8]) {
        self.shared.send(self.end, frame);
    }

    /// The next frame that comes within this time, or has come already.
    pub(crate) fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        let mut content = self
            .inbox
            .wait(timeout, |content| content.frames.is_empty());
        content.frames.pop_front()
    }

    /// Waits until there is a frame to be received, somebody calls [`Tap::wake`], or the time is up.
    pub(crate) fn wait(&self, timeout: Duration) {
        let idle = |content: &mut Content| content.frames.is_empty() && !content.woken;
        self.inbox.wait(timeout, idle).woken = false;
    }

    /// Ends the wait of whoever waits, or else the next one's.
    pub(crate) fn wake(&self) {
        self.inbox.lock().woken = true;
        self.inbox.news.notify_all();
    }

    /// The next frame for which this gives something; others are dropped.
    pub(crate) fn find<T>(
        &self,
        timeout: Duration,
        wanted: impl Fn(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(found) = wanted(&self.receive(left)?) {
                return Some(found);
            }
        }
    }

    /// Sends so many frames a second for a while, evenly but for this host's own pauses, which are made up for. Returns how
    /// many it sent.
    pub(crate) fn flood(&self, frame: &[u8], per_second: u32, length: Duration) -> u64 {
        let start = Instant::now();
        let mut sent = 0;
        loop {
            let passed = start.elapsed().min(length);
            let due = (passed.as_secs_f64() * f64::from(per_second)) as u64;
            while sent < due {
                self.send(frame);
                sent += 1;
            }
            if passed >= length {
                return sent;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.abandon(self.end);
    }
}

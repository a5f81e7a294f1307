//! A card of the board as a port of the switch.

use super::Turn;
use super::frame::Frame;
use super::port::Given;
use super::software;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use drivers::nic::{Causes, Link, Nic, Received, TransmitError};
use drivers::tsc;
use log::{info, warn};
use net::Offload;

/// Room in the card's transmit ring that frames which are not urgent leave free.
const RESERVE: u16 = 64;
/// Most pieces of a frame for which there must be room at once; others are sent as far as there is room.
const AT_ONCE: usize = 128;
/// Milliseconds between two looks at a card's health.
const WATCH_MILLISECONDS: u64 = 100;

/// How a card's interrupts come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupting {
    Message,
    /// At this global interrupt number.
    Pin(u32),
    Never,
}

impl fmt::Display for Interrupting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message => f.write_str("interrupts by messages"),
            Self::Pin(input) => write!(f, "interrupts at {input}"),
            Self::Never => f.write_str("its interrupts come nowhere: it is polled"),
        }
    }
}

/// A card.
pub(crate) struct Uplink {
    name: String,
    nic: Box<dyn Nic>,
    /// It asked for attention, or there is more than the last turn took.
    waits: AtomicBool,
    /// When, in the board's TSC, its health is looked after again.
    next_watch: AtomicU64,
    /// When, in the board's TSC, frames are taken from it again: the operator lets them wait.
    held_until: AtomicU64,
    ticks_per_millisecond: u64,
    interrupting: Interrupting,
    /// Its interrupts come no more, or never did.
    polled: AtomicBool,
    /// How many came.
    interrupted: AtomicU64,
}

impl Uplink {
    pub(super) fn new(
        name: String,
        nic: Box<dyn Nic>,
        interrupting: Interrupting,
        ticks_per_millisecond: u64,
    ) -> Self {
        Self {
            name,
            nic,
            waits: AtomicBool::new(true),
            next_watch: AtomicU64::new(0),
            held_until: AtomicU64::new(0),
            ticks_per_millisecond,
            interrupting,
            polled: AtomicBool::new(interrupting == Interrupting::Never),
            interrupted: AtomicU64::new(0),
        }
    }

    /// The card itself.
    pub(crate) fn nic(&self) -> &dyn Nic {
        &*self.nic
    }

    /// Sends a frame of the hypervisor's own, before others'; whether there was room.
    pub(crate) fn send_bytes(&self, frame: &[u8]) -> bool {
        self.transmit(&Frame::of_bytes(frame, Offload::default()), true) == Given::Taken
    }

    /// Interrupts of the card so far.
    pub(super) fn interrupted(&self) -> u64 {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Leaves what the card receives in the card for so many milliseconds from `now` on, as far as there is room.
    pub(super) fn hold(&self, now: u64, milliseconds: u64) {
        let until = now.saturating_add(milliseconds.saturating_mul(self.ticks_per_millisecond));
        self.held_until.store(until, Ordering::Relaxed);
    }

    /// An interrupt that may be the card's; whether it was.
    pub(crate) fn interrupt(&self) -> bool {
        let causes = self.nic.handle_interrupt();
        if causes.contains(Causes::LINK) {
            self.next_watch.store(0, Ordering::Relaxed);
        }
        if causes.contains(Causes::RECEIVE) {
            self.waits.store(true, Ordering::Release);
        }
        let own = !causes.is_empty();
        if own {
            self.interrupted.fetch_add(1, Ordering::Relaxed);
        }
        own
    }

    /// The input at which the card interrupts, if it does so by its pin.
    pub(super) fn pin(&self) -> Option<u32> {
        match self.interrupting {
            Interrupting::Pin(input) => Some(input),
            Interrupting::Message | Interrupting::Never => None,
        }
    }

    /// The card's interrupts do not come from here on: it is polled.
    pub(super) fn poll(&self) {
        self.polled.store(true, Ordering::Relaxed);
    }

    /// Looks after the card, if it is time; returns whether the link is up, if that changed.
    pub(crate) fn watch(&self, now: u64) -> Option<bool> {
        if now < self.next_watch.load(Ordering::Relaxed) {
            return None;
        }
        let next = now + WATCH_MILLISECONDS * self.ticks_per_millisecond;
        self.next_watch.store(next, Ordering::Relaxed);
        let name = &self.name;
        let seen = self.nic.watch(now / self.ticks_per_millisecond);
        self.waits.fetch_or(seen.frames_wait, Ordering::AcqRel);
        if let Some(delay) = seen.again_ms {
            // A repair goes on in short steps.
            let next = now + delay * self.ticks_per_millisecond;
            self.next_watch.store(next, Ordering::Relaxed);
        }
        if let Some(fault) = seen.fault {
            warn!("uplink {name}: {fault}");
            // What the card has received meanwhile, it told nobody.
            self.waits.store(true, Ordering::Release);
        }
        let link = seen.link?;
        info!("uplink {name}: link {link}");
        Some(link != Link::Down)
    }

    /// Hands received frames to `take` until the board's TSC is `until`.
    pub(crate) fn turn(&self, now: u64, until: u64, mut take: impl FnMut(&Frame<'_>)) -> Turn {
        let mut next = self.next_watch.load(Ordering::Relaxed);
        let held_until = self.held_until.load(Ordering::Relaxed);
        if now < held_until {
            // It may have interrupted before it was held, and then does not again.
            self.waits.store(true, Ordering::Relaxed);
            next = next.min(held_until);
            return Turn { more: false, next };
        }
        if self.polled.load(Ordering::Relaxed) {
            next = next.min(now + self.ticks_per_millisecond);
        } else if !self.waits.swap(false, Ordering::AcqRel) {
            return Turn { more: false, next };
        }
        let mut receive = |received: Received<'_>| {
            let offload = Offload {
                verified: received.checksum_valid,
                ..Offload::default()
            };
            take(&Frame::of_bytes(received.frame, offload));
        };
        loop {
            if !self.nic.receive(&mut receive) && !self.nic.listen() {
                return Turn { more: false, next };
            }
            if tsc::read() >= until {
                self.waits.store(true, Ordering::Release);
                return Turn { more: true, next };
            }
        }
    }

    /// Sends a frame.
    pub(super) fn transmit(&self, frame: &Frame<'_>, urgent: bool) -> Given {
        let reserve = if urgent { 0 } else { RESERVE };
        if frame.offload.segmentation.is_none() {
            return given(
                self.nic
                    .transmit(frame.length(), None, reserve, &mut |into| {
                        software::write_whole(frame, into);
                    }),
            );
        }
        let mut result = Given::Taken;
        let mut first = true;
        let sound = software::cut(frame, |piece| {
            // There is room for all of them, or none is sent now.
            let behind = match piece.behind {
                behind @ ..AT_ONCE if first => behind as u16,
                _ => 0,
            };
            let sent = self
                .nic
                .transmit(piece.length(), None, reserve + behind, &mut |into| {
                    piece.write(into);
                });
            result = match given(sent) {
                Given::Busy if !first => Given::Refused,
                other => other,
            };
            first = false;
            result == Given::Taken
        });
        if sound || result != Given::Taken {
            result
        } else {
            Given::Refused
        }
    }
}

fn given(sent: Result<(), TransmitError>) -> Given {
    match sent {
        Ok(()) => Given::Taken,
        Err(TransmitError::Full) => Given::Busy,
        Err(TransmitError::Down | TransmitError::TooLong | TransmitError::Checksum) => {
            Given::Refused
        }
    }
}

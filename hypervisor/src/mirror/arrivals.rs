//! Guests that have come to this board are made known to the network: its switches still take them to be on the other one.

use crate::guest::{GuestHandle, GuestState};
use crate::network::GuestNetwork;
use alloc::vec::Vec;
use core::time::Duration;
use mirror::{Gate, Instant};

/// Pauses between announcements: one may be lost, or come while a switch does not listen.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(250),
    Duration::from_millis(350),
];
/// When to look again at a guest that does not run yet, or whose frames may not leave.
const SOON: Duration = Duration::from_millis(1);

struct Arrival {
    guest: &'static GuestHandle,
    due: Instant,
    announced: usize,
}

/// The guests that are being announced.
pub(super) struct Arrivals(Vec<Arrival>);

impl Arrivals {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// A guest is about to run here that others know to be elsewhere.
    pub(super) fn add(&mut self, guest: &'static GuestHandle, now: Instant) {
        self.leave(guest);
        self.0.push(Arrival {
            guest,
            due: now,
            announced: 0,
        });
    }

    /// A guest is here no longer.
    pub(super) fn leave(&mut self, guest: &'static GuestHandle) {
        self.0.retain(|it| it.guest.index != guest.index);
    }

    /// Announces who is to be announced now; when to look again.
    pub(super) fn turn(&mut self, gate: Gate, now: Instant) -> Option<Instant> {
        self.0.retain_mut(|arrival| {
            if arrival.due > now {
                return true;
            }
            if arrival.guest.state() != GuestState::Running || !gate.open(now) {
                arrival.due = now + SOON;
                return true;
            }
            GuestNetwork::of(arrival.guest).announce();
            let pause = PAUSES.get(arrival.announced);
            arrival.announced += 1;
            pause.is_some_and(|pause| {
                arrival.due = now + *pause;
                true
            })
        });
        self.0.iter().map(|arrival| arrival.due).min()
    }
}

//! What of a world counts for its future.

use super::TICK;
use super::world::{Data, Message, Run, World};
use crate::role::{Heartbeat, RoleMachine};
use crate::{Gate, Instant};

impl Run {
    /// The world as it looks from now on: when things were, not later than any rule looks back, and which states are the newest.
    pub(super) fn seen(&self) -> World {
        let mut world = self.world.clone();
        let newest = world.newest;
        let state = |state: &mut u32| *state = u32::from(*state == newest);
        for board in world.boards.iter_mut().flatten() {
            state(&mut board.own);
            if let Some((_, image)) = &mut board.image {
                state(image);
            }
            board.last = board.last.map(|last| self.seen_beat(last));
            board.machine = board.machine.seen(&|at| self.seen_at(at));
        }
        for (_, data) in world.data.iter_mut().flatten() {
            if let Data::Complete(_, complete) = data {
                state(complete);
            }
        }
        for (_, message) in world.beats.iter_mut().flatten() {
            match message {
                Message::Beat(beat) | Message::Dying(beat) => *beat = self.seen_beat(*beat),
            }
        }
        world.newest = 0;
        world
    }

    fn seen_at(&self, at: Instant) -> Instant {
        const FAR: u64 = 12 * TICK;
        Instant((at.0 + FAR).saturating_sub(self.now.0).min(2 * FAR))
    }

    fn seen_beat(&self, beat: Heartbeat) -> Heartbeat {
        Heartbeat {
            made: self.seen_at(beat.made),
            echo: self.seen_at(beat.echo),
            ..beat
        }
    }
}

impl RoleMachine {
    /// Itself, with all its times as they are seen from now.
    fn seen(&self, at: &impl Fn(Instant) -> Instant) -> Self {
        let mut seen = self.clone();
        let beat = |beat: Heartbeat| Heartbeat {
            made: at(beat.made),
            echo: at(beat.echo),
            ..beat
        };
        for time in [
            &mut seen.since,
            &mut seen.bound_from,
            &mut seen.resync_at,
            &mut seen.quiet,
            &mut seen.ran,
            &mut seen.ask_again,
            &mut seen.record.next,
        ] {
            *time = at(*time);
        }
        seen.unknown = seen.unknown.map(|(last, since)| (last, at(since)));
        seen.release = seen.release.map(at);
        seen.uplink_down = seen.uplink_down.map(at);
        seen.peer.paths = seen.peer.paths.map(|heard| heard.map(at));
        seen.peer.last = seen.peer.last.map(beat);
        seen.sent = seen.sent.map(beat);
        seen.lease = seen.lease.seen(at);
        if let Gate::Until(end) = seen.gate {
            seen.gate = Gate::Until(at(end));
        }
        if let Some(claim) = &mut seen.claim {
            claim.next = at(claim.next);
            claim.alone = claim.alone.map(at);
        }
        seen
    }
}

//! Drills: a board that ends at a given step of the mirror's work, as it would if it broke just then.

use core::sync::atomic::{AtomicU8, Ordering};

/// A step, on the board that serves or on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    /// A pass of a resync is handed over by the guest's lead.
    Pass = 1,
    /// The guest is to be frozen.
    Freeze,
    /// It stands still: the epoch ends.
    Seal,
    /// The first page of it was put on the link.
    Page,
    /// All pages were, and the guest's state is next.
    State,
    /// The backup has the epoch.
    Acknowledge,
    /// An output has left that was held for it.
    Release,
    /// The guest is to be frozen for the last time, for a switchover.
    HandOver,
    /// On the backup: a page comes.
    Stage,
    /// On the backup: the epoch is there, and its first page is put in place.
    Flip,
}

impl Step {
    /// All of them, in the order of an epoch.
    pub(super) const ALL: [Self; 10] = [
        Self::Pass,
        Self::Freeze,
        Self::Seal,
        Self::Page,
        Self::State,
        Self::Acknowledge,
        Self::Release,
        Self::HandOver,
        Self::Stage,
        Self::Flip,
    ];

    /// Its name, as an operator types it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Freeze => "freeze",
            Self::Seal => "seal",
            Self::Page => "page",
            Self::State => "state",
            Self::Acknowledge => "acknowledge",
            Self::Release => "release",
            Self::HandOver => "hand-over",
            Self::Stage => "stage",
            Self::Flip => "flip",
        }
    }

    /// The step of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }
}

/// The step at which the board is to end; zero for none.
static WANTED: AtomicU8 = AtomicU8::new(0);

/// The board ends as soon as it comes to a step.
pub(super) fn end_at(step: Step) {
    WANTED.store(step as u8, Ordering::Relaxed);
}

/// The mirror's work is at a step.
#[inline]
pub(super) fn at(step: Step) {
    if WANTED.load(Ordering::Relaxed) == step as u8 {
        end(step);
    }
}

#[cold]
fn end(step: Step) -> ! {
    panic!("the board was to end at the step {}", step.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_known_by_their_names() {
        for step in Step::ALL {
            assert_eq!(Step::named(step.name()), Some(step));
        }
        assert_eq!(Step::named("never"), None);
    }
}

//! What is remembered of a card that is brought up, again or for the first time.

use super::OpenError;
use super::phy::Connect;
use super::reset::Reset;
use super::steps::{Looks, Progress};

/// Milliseconds until it is looked whether a card that was gone is back.
pub(super) const GONE_MS: u64 = 100;
/// Milliseconds until a card that could not be brought up is reset again; after each failure twice as many, up to 32 times.
const RETRY_MS: u64 = 1000;
const DOUBLINGS: u32 = 5;

/// What is to be done next to bring a card up.
#[derive(Clone, Copy)]
pub(super) enum BringUp {
    Reset(Reset),
    Prepare,
    Connect(Connect),
    Rings,
    /// The rings are being enabled.
    Enable(Looks),
    Run,
}

/// A card that is brought up again.
pub(super) struct Repair {
    pub(super) next: BringUp,
    /// When that may be done.
    pub(super) due_ms: u64,
    failures: u32,
}

impl Repair {
    /// From the beginning, at a time.
    pub(super) fn at(due_ms: u64) -> Self {
        Self {
            next: BringUp::Reset(Reset::default()),
            due_ms,
            failures: 0,
        }
    }

    /// Takes notice of what a step came to; returns whether it was the last one.
    ///
    /// # Errors
    ///
    /// What made it fail. It begins anew after some time.
    pub(super) fn note(
        &mut self,
        result: Result<Progress, OpenError>,
        now_ms: u64,
    ) -> Result<bool, OpenError> {
        match result {
            Ok(Progress::Done) => return Ok(true),
            Ok(Progress::Pause(0)) => self.due_ms = now_ms,
            // The millisecond that it is may be nearly over.
            Ok(Progress::Pause(microseconds)) => {
                self.due_ms = now_ms + 1 + u64::from(microseconds.div_ceil(1000));
            }
            Err(error) => {
                let delay = RETRY_MS << self.failures.min(DOUBLINGS);
                *self = Self {
                    failures: self.failures.saturating_add(1),
                    ..Self::at(now_ms + delay)
                };
                return Err(error);
            }
        }
        Ok(false)
    }
}

//! Bringing a card up takes tens of milliseconds, nearly all of them of waiting. So it is done in steps that are short: who has
//! time waits between them, and who has not comes again for the next.

use super::OpenError;
use super::registers::Registers;

/// Microseconds between two looks at something that is awaited.
pub(super) const PAUSE_MICROSECONDS: u32 = 1000;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The next step may be taken after so many microseconds.
    Pause(u32),
    /// That was the last one.
    Done,
}

/// Looks at something that is awaited, [`PAUSE_MICROSECONDS`] apart.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looks(u32);

impl Looks {
    /// It did not come about: the pause until the next look, if there is to be one; there are `most` at most.
    pub(super) fn again(&mut self, most: u32) -> Option<Progress> {
        self.0 += 1;
        (self.0 < most).then_some(Progress::Pause(PAUSE_MICROSECONDS))
    }
}

/// Takes all steps that are left, and waits between them.
pub(super) fn complete(
    registers: &impl Registers,
    mut step: impl FnMut() -> Result<Progress, OpenError>,
) -> Result<(), OpenError> {
    loop {
        match step()? {
            Progress::Pause(microseconds) => registers.wait(microseconds),
            Progress::Done => return Ok(()),
        }
    }
}

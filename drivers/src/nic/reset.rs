//! Resetting a card (8254x chapter 14; 82574 section 4.6; 82576 section 4.5).

use super::ownership::{self, Resource};
use super::registers::{CAUSES, Control, EepromControl, MASK_CLEAR, Registers};
use super::steps::{Looks, Progress};
use super::{Model, OpenError, hardware};

/// Microseconds in which what is on the wire ends.
const WIRE: u32 = 10_000;
/// Microseconds in which a card that is being reset is left alone.
const RESET: u32 = 5000;
/// Microseconds in which an 82574 sets its PHY up; it does not say when it is through.
const PHY: u32 = 25_000;

/// What is to be done next.
#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Silence,
    /// Accesses to memory that are under way end.
    Bus,
    /// An 82574's PHY is made ours: the reset leaves it to firmware, which may be about to use it.
    Claim,
    Reset,
    /// The card comes out of it.
    Return,
    /// It reads its configuration again.
    Read,
    Finish,
}

/// A reset that is under way, up to when the card has read its configuration again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reset {
    stage: Stage,
    looks: Looks,
    claimed: bool,
}

impl Reset {
    /// Takes a step.
    ///
    /// # Errors
    ///
    /// [`OpenError::Reset`] if the card does not come out of it.
    pub(super) fn step(
        &mut self,
        registers: &impl Registers,
        model: Model,
    ) -> Result<Progress, OpenError> {
        Ok(match self.stage {
            Stage::Silence => {
                hardware::quieten(registers, model);
                self.go_to(Stage::Bus, 0)
            }
            Stage::Bus => {
                let quiet = hardware::is_quiet(registers, model);
                // What does not end by itself ends with the reset.
                match self.looks.again(80) {
                    Some(pause) if !quiet => pause,
                    _ => self.go_to(Stage::Claim, WIRE),
                }
            }
            Stage::Claim => {
                let needed = model == Model::I82574l;
                self.claimed = needed && ownership::try_take(registers, model, Resource::Phy);
                match self.looks.again(20) {
                    Some(pause) if needed && !self.claimed => pause,
                    _ => self.go_to(Stage::Reset, 0),
                }
            }
            Stage::Reset => {
                let control = registers.get::<Control>() | Control::RESET;
                registers.write_control_for_reset(control.bits());
                self.go_to(Stage::Return, RESET)
            }
            Stage::Return => {
                if self.claimed {
                    self.claimed = false;
                    ownership::give_back(registers, model, Resource::Phy);
                }
                if registers.get::<Control>().contains(Control::RESET) {
                    return self.looks.again(20).ok_or(OpenError::Reset);
                }
                self.go_to(Stage::Read, 0)
            }
            Stage::Read => {
                let read = !model.is_express()
                    || registers
                        .get::<EepromControl>()
                        .contains(EepromControl::AUTO_READ_DONE);
                match self.looks.again(20) {
                    Some(pause) if !read => pause,
                    // A newer card without an EEPROM never says so, and is well all the same.
                    None if !read && model == Model::I82574l => return Err(OpenError::Reset),
                    _ => self.go_to(Stage::Finish, if model == Model::I82574l { PHY } else { 0 }),
                }
            }
            Stage::Finish => {
                registers.write(MASK_CLEAR, u32::MAX);
                registers.read(CAUSES);
                Progress::Done
            }
        })
    }

    fn go_to(&mut self, stage: Stage, pause_microseconds: u32) -> Progress {
        self.stage = stage;
        self.looks = Looks::default();
        Progress::Pause(pause_microseconds)
    }
}

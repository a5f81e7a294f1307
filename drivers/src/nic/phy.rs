//! The PHY, by the management data interface (IEEE 802.3, clause 22; 8254x section 13.4.7).

use super::Model;
use super::ownership::{self, Resource};
use super::registers::{MDI_CONTROL, Registers, Status};
use super::steps::{Looks, Progress};

/// The control register (IEEE 802.3, 22.2.4.1).
const CONTROL: u32 = 0;
const POWER_DOWN: u16 = 1 << 11;
const NEGOTIATE: u16 = 1 << 12;
const RESTART_NEGOTIATION: u16 = 1 << 9;

const READ: u32 = 0b10 << 26;
const WRITE: u32 = 0b01 << 26;
const READY: u32 = 1 << 28;
const ERROR: u32 = 1 << 30;

/// Looks at a transfer: it takes 26 microseconds and more.
const TRANSFER_LOOKS: u32 = 3;

/// What is to be done next.
#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Begin,
    /// The PHY is made ours.
    Take,
    /// Its control register is being read.
    Read,
    /// It is being written.
    Write,
    GiveBack,
}

/// Lets a PHY agree on a link, and wakes it where a former system has put it to sleep. One that has a link is left alone: to
/// agree anew takes seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Connect {
    stage: Stage,
    looks: Looks,
}

impl Connect {
    /// Takes a step. A PHY that cannot be reached is not waited for for ever: the card may have a link for all that.
    pub(super) fn step(&mut self, registers: &impl Registers, model: Model) -> Progress {
        match self.stage {
            Stage::Begin => {
                if registers.get::<Status>().contains(Status::LINK_UP) {
                    return Progress::Done;
                }
                self.go_to(Stage::Take)
            }
            Stage::Take => {
                if ownership::try_take(registers, model, Resource::Phy) {
                    begin(registers, READ, 0);
                    return self.go_to(Stage::Read);
                }
                self.looks.again(ownership::TAKE_LOOKS).unwrap_or_else(|| {
                    log::warn!("{model}: its firmware keeps the PHY");
                    Progress::Done
                })
            }
            Stage::Read => match answer(registers) {
                Some(answer) if answer & ERROR == 0 => {
                    let control = answer as u16;
                    let awake = control & !POWER_DOWN | NEGOTIATE | RESTART_NEGOTIATION;
                    begin(registers, WRITE, awake);
                    self.go_to(Stage::Write)
                }
                answer => self.miss(answer, model),
            },
            Stage::Write => match answer(registers) {
                Some(answer) if answer & ERROR == 0 => self.go_to(Stage::GiveBack),
                answer => self.miss(answer, model),
            },
            Stage::GiveBack => {
                if ownership::try_give_back(registers, model, Resource::Phy) {
                    return Progress::Done;
                }
                let again = self.looks.again(ownership::GIVE_BACK_LOOKS);
                again.unwrap_or_else(|| {
                    ownership::give_back(registers, model, Resource::Phy);
                    Progress::Done
                })
            }
        }
    }

    fn go_to(&mut self, stage: Stage) -> Progress {
        self.stage = stage;
        self.looks = Looks::default();
        Progress::Pause(match stage {
            // By then the transfer is over.
            Stage::Read | Stage::Write => 100,
            _ => 0,
        })
    }

    /// There was no answer, or one that tells of an error.
    fn miss(&mut self, answer: Option<u32>, model: Model) -> Progress {
        let again = self.looks.again(TRANSFER_LOOKS);
        match again.filter(|_| answer.is_none()) {
            Some(pause) => pause,
            None => {
                log::warn!("{model}: its PHY does not answer");
                self.go_to(Stage::GiveBack)
            }
        }
    }
}

/// Begins a transfer of the control register.
fn begin(registers: &impl Registers, operation: u32, value: u16) {
    /// The one on the card.
    const PHY: u32 = 1 << 21;
    registers.write(
        MDI_CONTROL,
        operation | PHY | CONTROL << 16 | u32::from(value),
    );
}

/// What a transfer came to, if it is over.
fn answer(registers: &impl Registers) -> Option<u32> {
    let answer = registers.read(MDI_CONTROL);
    (answer & READY != 0).then_some(answer)
}

//! The PHY, by the management data interface (IEEE 802.3, clause 22; 8254x section 13.4.7).

use super::Model;
use super::ownership::{self, Resource};
use super::registers::{MDI_CONTROL, Registers, Status};

/// The control register (IEEE 802.3, 22.2.4.1).
const CONTROL: u32 = 0;
const POWER_DOWN: u16 = 1 << 11;
const NEGOTIATE: u16 = 1 << 12;
const RESTART_NEGOTIATION: u16 = 1 << 9;

const READY: u32 = 1 << 28;
const ERROR: u32 = 1 << 30;

/// Lets a PHY agree on a link, and wakes it where a former system has put it to sleep. One that has a link is left alone: to
/// agree anew takes seconds.
pub(super) fn connect(registers: &impl Registers, model: Model) {
    if registers.get::<Status>().contains(Status::LINK_UP) {
        return;
    }
    let done = ownership::with(registers, model, Resource::Phy, |registers| {
        let control = read(registers, CONTROL)?;
        let awake = control & !POWER_DOWN | NEGOTIATE | RESTART_NEGOTIATION;
        write(registers, CONTROL, awake)
    });
    match done {
        Ok(Some(())) => {}
        Ok(None) => log::warn!("{model}: its PHY does not answer"),
        Err(error) => log::warn!("{model}: its PHY cannot be had: {error}"),
    }
}

fn read(registers: &impl Registers, register: u32) -> Option<u16> {
    const READ: u32 = 0b10 << 26;
    transfer(registers, READ, register, 0)
}

fn write(registers: &impl Registers, register: u32, value: u16) -> Option<()> {
    const WRITE: u32 = 0b01 << 26;
    transfer(registers, WRITE, register, value).map(|_| ())
}

fn transfer(registers: &impl Registers, operation: u32, register: u32, value: u16) -> Option<u16> {
    /// The one on the card.
    const PHY: u32 = 1 << 21;
    registers.write(
        MDI_CONTROL,
        operation | PHY | register << 16 | u32::from(value),
    );
    let mut answer = 0;
    // A transfer takes 26 microseconds and more.
    let ready = registers.wait_until(100, 10, || {
        answer = registers.read(MDI_CONTROL);
        answer & READY != 0
    });
    (ready && answer & ERROR == 0).then_some(answer as u16)
}

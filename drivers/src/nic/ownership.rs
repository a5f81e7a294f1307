//! Sharing a card's EEPROM and PHY with its firmware, and with its other port.

use super::registers::{ExtendedConfiguration, OWNERS, Registers, Semaphore, Status};
use super::steps::PAUSE_MICROSECONDS;
use super::{Model, OpenError};

/// What firmware may be using.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Eeprom,
    Phy,
}

/// Tries to take a resource, and to give it back, [`PAUSE_MICROSECONDS`] apart.
pub(super) const TAKE_LOOKS: u32 = 1000;
pub(super) const GIVE_BACK_LOOKS: u32 = 10;

/// Runs `access` while the resource is ours. Waits, for up to a second.
///
/// # Errors
///
/// [`OpenError::Firmware`] if firmware keeps it; `access` is not run then.
pub(super) fn with<R: Registers, T>(
    registers: &R,
    model: Model,
    resource: Resource,
    access: impl FnOnce(&R) -> T,
) -> Result<T, OpenError> {
    let wait_until = |looks, done: fn(&R, Model, Resource) -> bool| {
        registers.wait_until(looks, PAUSE_MICROSECONDS, || {
            done(registers, model, resource)
        })
    };
    if !wait_until(TAKE_LOOKS, try_take) {
        return Err(OpenError::Firmware);
    }
    let result = access(registers);
    if !wait_until(GIVE_BACK_LOOKS, try_give_back) {
        give_back(registers, model, resource);
    }
    Ok(result)
}

/// Makes a resource ours, if nobody has it now. Whoever does so is to give it back.
pub(super) fn try_take(registers: &impl Registers, model: Model, resource: Resource) -> bool {
    match model {
        // It has no firmware.
        Model::I82540em => true,
        // Its PHY and EEPROM go together (section 10.2.2.10).
        Model::I82574l => {
            let value: ExtendedConfiguration = registers.get();
            registers.set(value | ExtendedConfiguration::SOFTWARE_OWNS);
            let taken = registers
                .get::<ExtendedConfiguration>()
                .contains(ExtendedConfiguration::SOFTWARE_OWNS);
            if !taken {
                give_back(registers, model, resource);
            }
            taken
        }
        Model::I82576 | Model::I210 | Model::I350 => {
            if !try_take_semaphore(registers) {
                return false;
            }
            let ours = owner_bit(resource, registers.get());
            let owners = registers.read(OWNERS);
            let free = owners & (ours | ours << 16) == 0;
            if free {
                registers.write(OWNERS, owners | ours);
            }
            put_semaphore(registers);
            free
        }
    }
}

/// The opposite of [`try_take`]; not done while somebody else has the semaphore that it needs.
pub(super) fn try_give_back(registers: &impl Registers, model: Model, resource: Resource) -> bool {
    let guarded = matches!(model, Model::I82576 | Model::I210 | Model::I350);
    if guarded && !try_take_semaphore(registers) {
        return false;
    }
    give_back(registers, model, resource);
    if guarded {
        put_semaphore(registers);
    }
    true
}

/// The same without the semaphore: should that not be had, it is better than to keep the resource.
pub(super) fn give_back(registers: &impl Registers, model: Model, resource: Resource) {
    match model {
        Model::I82540em => {}
        Model::I82574l => {
            let value: ExtendedConfiguration = registers.get();
            registers.set(value - ExtendedConfiguration::SOFTWARE_OWNS);
        }
        Model::I82576 | Model::I210 | Model::I350 => {
            let ours = owner_bit(resource, registers.get());
            registers.write(OWNERS, registers.read(OWNERS) & !ours);
        }
    }
}

/// Software's bit of a resource; firmware's is 16 bits higher.
fn owner_bit(resource: Resource, status: Status) -> u32 {
    match resource {
        Resource::Eeprom => 1 << 0,
        Resource::Phy => match port(status) {
            0 => 1 << 1,
            1 => 1 << 2,
            2 => 1 << 5,
            _ => 1 << 6,
        },
    }
}

/// Which of a card's ports it is, 0 to 3.
pub(super) fn port(status: Status) -> u32 {
    (status & Status::PORT).bits() >> 2
}

fn try_take_semaphore(registers: &impl Registers) -> bool {
    // Reading it takes software's half, if that is free.
    if registers.get::<Semaphore>().contains(Semaphore::SOFTWARE) {
        return false;
    }
    let value: Semaphore = registers.get();
    registers.set(value | Semaphore::FIRMWARE);
    let taken = registers.get::<Semaphore>().contains(Semaphore::FIRMWARE);
    if !taken {
        put_semaphore(registers);
    }
    taken
}

fn put_semaphore(registers: &impl Registers) {
    let value: Semaphore = registers.get();
    registers.set(value - (Semaphore::SOFTWARE | Semaphore::FIRMWARE));
}

//! Sharing a card's EEPROM and PHY with its firmware, and with its other port.

use super::registers::{ExtendedConfiguration, OWNERS, Registers, Semaphore, Status};
use super::{Model, OpenError};

/// What firmware may be using.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Eeprom,
    Phy,
}

/// Runs `access` while the resource is ours.
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
    match model {
        // It has no firmware.
        Model::I82540em => Ok(access(registers)),
        Model::I82574l => {
            claim(registers)?;
            let result = access(registers);
            release(registers);
            Ok(result)
        }
        Model::I82576 | Model::I210 | Model::I350 => {
            let ours = owner_bit(resource, registers.get());
            let owned = registers.wait_until(200, 5000, || try_own(registers, ours));
            if !owned {
                return Err(OpenError::Firmware);
            }
            let result = access(registers);
            // Should the semaphore not be had, it is better to give the resource back without it than to keep it.
            let held = take_semaphore(registers);
            registers.write(OWNERS, registers.read(OWNERS) & !ours);
            if held {
                put_semaphore(registers);
            }
            Ok(result)
        }
    }
}

/// Makes the 82574's PHY and EEPROM ours (section 10.2.2.10).
pub(super) fn claim(registers: &impl Registers) -> Result<(), OpenError> {
    let claimed = registers.wait_until(10, 2000, || {
        let value: ExtendedConfiguration = registers.get();
        registers.set(value | ExtendedConfiguration::SOFTWARE_OWNS);
        registers
            .get::<ExtendedConfiguration>()
            .contains(ExtendedConfiguration::SOFTWARE_OWNS)
    });
    if !claimed {
        release(registers);
        return Err(OpenError::Firmware);
    }
    Ok(())
}

/// The opposite of [`claim`].
pub(super) fn release(registers: &impl Registers) {
    let value: ExtendedConfiguration = registers.get();
    registers.set(value - ExtendedConfiguration::SOFTWARE_OWNS);
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

fn try_own(registers: &impl Registers, ours: u32) -> bool {
    if !take_semaphore(registers) {
        return false;
    }
    let owners = registers.read(OWNERS);
    let free = owners & (ours | ours << 16) == 0;
    if free {
        registers.write(OWNERS, owners | ours);
    }
    put_semaphore(registers);
    free
}

fn take_semaphore(registers: &impl Registers) -> bool {
    let software = registers.wait_until(100, 50, || {
        !registers.get::<Semaphore>().contains(Semaphore::SOFTWARE)
    });
    let taken = software
        && registers.wait_until(100, 50, || {
            let value: Semaphore = registers.get();
            registers.set(value | Semaphore::FIRMWARE);
            registers.get::<Semaphore>().contains(Semaphore::FIRMWARE)
        });
    if software && !taken {
        put_semaphore(registers);
    }
    taken
}

fn put_semaphore(registers: &impl Registers) {
    let value: Semaphore = registers.get();
    registers.set(value - (Semaphore::SOFTWARE | Semaphore::FIRMWARE));
}

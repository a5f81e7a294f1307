//! A card's own address.

use super::ownership::{self, Resource};
use super::registers::{AddressHigh, EEPROM_READ, RECEIVE_ADDRESSES, Registers};
use super::{Model, OpenError};

/// Reads a card's own address: from the first receive address, where cards put it when they come out of a reset (8254x section
/// 5.6.1; 82576 section 8.10.15), or else from the EEPROM.
///
/// # Errors
///
/// [`OpenError`] if there is none.
pub(super) fn mac(registers: &impl Registers, model: Model) -> Result<[u8; 6], OpenError> {
    let low = registers.read(RECEIVE_ADDRESSES);
    let high = AddressHigh::from_bits_retain(registers.read(RECEIVE_ADDRESSES.nth(1)));
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, ..] = high.bits().to_le_bytes();
    let address = [a, b, c, d, e, f];
    if high.contains(AddressHigh::VALID) && is_station(address) {
        return Ok(address);
    }
    let words = ownership::with(registers, model, Resource::Eeprom, |registers| {
        let first = first_word(registers, model);
        let mut words = [0; 3];
        for (word, address) in words.iter_mut().zip(first..) {
            *word = read_word(registers, model, address)?;
        }
        Some(words)
    })?;
    let [[a, b], [c, d], [e, f]] = words.ok_or(OpenError::NoAddress)?.map(u16::to_le_bytes);
    let address = [a, b, c, d, e, f];
    is_station(address)
        .then_some(address)
        .ok_or(OpenError::NoAddress)
}

fn is_station(address: [u8; 6]) -> bool {
    address != [0; 6] && address[0] & 1 == 0
}

/// Where in the EEPROM a port's address is, in words (82576, section 6.2; I350, section 6.2.1).
fn first_word(registers: &impl Registers, model: Model) -> u16 {
    match model {
        Model::I82540em | Model::I82574l | Model::I210 => 0,
        Model::I82576 | Model::I350 => match ownership::port(registers.get()) {
            0 => 0,
            port => 0x40 + 0x40 * port as u16,
        },
    }
}

/// Reads a word of the EEPROM; `None` if the card does not come to it (8254x section 13.4.4; 82574 section 10.2.2.4).
fn read_word(registers: &impl Registers, model: Model, address: u16) -> Option<u16> {
    const START: u32 = 1 << 0;
    let (done, shift) = match model {
        Model::I82540em => (1 << 4, 8),
        _ => (1 << 1, 2),
    };
    registers.write(EEPROM_READ, START | u32::from(address) << shift);
    let mut value = 0;
    registers
        .wait_until(1000, 5, || {
            value = registers.read(EEPROM_READ);
            value & done != 0
        })
        .then_some((value >> 16) as u16)
}

//! A card's link: read, and as a number that can be changed at once.

use super::Link;
use super::card::is_gone;
use super::registers::{Registers, Status};

/// The link as a card tells of it.
pub(super) fn read(registers: &impl Registers) -> Link {
    let status: Status = registers.get();
    if !status.contains(Status::LINK_UP) || is_gone(registers) {
        return Link::Down;
    }
    let megabits = if status.contains(Status::SPEED_1000) {
        1000
    } else if status.contains(Status::SPEED_100) {
        100
    } else {
        10
    };
    Link::Up {
        megabits,
        full_duplex: status.contains(Status::FULL_DUPLEX),
    }
}

/// A link as a number: 0 when it is down.
pub(super) fn pack(link: Link) -> u32 {
    match link {
        Link::Down => 0,
        Link::Up {
            megabits,
            full_duplex,
        } => u32::from(megabits) | u32::from(full_duplex) << 16,
    }
}

/// The opposite of [`pack`].
pub(super) fn unpack(link: u32) -> Link {
    match link {
        0 => Link::Down,
        up => Link::Up {
            megabits: up as u16,
            full_duplex: up >> 16 != 0,
        },
    }
}

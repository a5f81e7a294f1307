//! The interrupt command register (SDM 11.6.1, 11.12.9).

use bitflags::bitflags;

use super::register::Errors;
use super::{Effect, LocalApic, Mode};
use crate::msi::{DeliveryMode, Destination, Dispatch, FIRST_VECTOR, Message};

bitflags! {
    /// The low half of the register.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Command: u32 {
        /// The vector.
        const VECTOR = 0xFF;
        /// The delivery mode.
        const DELIVERY = 7 << 8;
        /// The destination is a logical one.
        const LOGICAL = 1 << 11;
        /// Delivery status: always idle; read only.
        const STATUS = 1 << 12;
        /// Assert.
        const ASSERT = 1 << 14;
        /// Trigger mode; only has a meaning for the de-assertion of INIT.
        const LEVEL = 1 << 15;
        /// The destination shorthand.
        const SHORTHAND = 3 << 18;
    }
}

impl LocalApic {
    /// A write to the low half of the interrupt command register: sends what both halves say.
    #[inline]
    pub(super) fn send(&mut self, value: u32) -> Option<Effect> {
        let command = Command::from_bits_truncate(value).difference(Command::STATUS);
        self.command = command;
        let logical = command.contains(Command::LOGICAL);
        let destination = match command.intersection(Command::SHORTHAND).bits() >> 18 {
            0 if self.mode() == Mode::X2Apic => {
                Destination::wide(logical, self.command_destination)
            }
            0 => Destination::narrow(logical, (self.command_destination >> 24) as u8),
            1 => Destination::Itself,
            2 => Destination::Everyone,
            _ => Destination::Others,
        };
        let vector = value as u8;
        let mode = DeliveryMode::decode(value)?;
        match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                if vector < FIRST_VECTOR {
                    let _ = self.raise(Errors::SEND_ILLEGAL_VECTOR);
                    return None;
                }
                if destination == Destination::Itself {
                    let _ = self.accept(Message::fixed(vector));
                    return None;
                }
            }
            // The de-assertion of INIT does nothing since there is no APIC bus.
            DeliveryMode::Init
                if command.contains(Command::LEVEL) && !command.contains(Command::ASSERT) =>
            {
                return None;
            }
            DeliveryMode::ExtInt => return None,
            DeliveryMode::Smi | DeliveryMode::Nmi | DeliveryMode::Init | DeliveryMode::StartUp => {}
        }
        Some(Effect::Ipi(Dispatch {
            destination,
            message: Message {
                mode,
                vector,
                level: false,
            },
        }))
    }

    /// A write to the self-IPI register.
    #[inline]
    pub(super) fn send_to_self(&mut self, vector: u8) {
        if vector < FIRST_VECTOR {
            let _ = self.raise(Errors::SEND_ILLEGAL_VECTOR);
        } else {
            let _ = self.accept(Message::fixed(vector));
        }
    }
}

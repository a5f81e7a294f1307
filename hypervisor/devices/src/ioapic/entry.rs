//! An entry of the redirection table (82093AA data sheet, 3.2.4).

use bitflags::bitflags;

use crate::msi::{DeliveryMode, Destination, Dispatch, Message};

bitflags! {
    /// An entry of the redirection table.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Entry: u64 {
        /// The vector.
        const VECTOR = 0xFF;
        /// The delivery mode.
        const DELIVERY = 7 << 8;
        /// The destination is a logical one.
        const LOGICAL = 1 << 11;
        /// Delivery status: always idle; read only.
        const STATUS = 1 << 12;
        /// Active low. No effect.
        const POLARITY = 1 << 13;
        /// A local APIC took the level and has not ended it; read only.
        const REMOTE_IRR = 1 << 14;
        /// Level-triggered.
        const LEVEL = 1 << 15;
        /// Held back.
        const MASKED = 1 << 16;
        /// The destination.
        const DESTINATION = 0xFF << 56;

        /// What a write to the low half changes.
        const WRITABLE_LOW = 0x1_AFFF;
    }
}

impl Entry {
    /// An entry after a reset.
    pub(super) const RESET: Self = Self::MASKED;

    /// An entry in a saved state.
    pub(super) fn restore(bits: u64) -> Option<Self> {
        let entry = Self::from_bits(bits)?;
        let possible =
            !entry.contains(Self::STATUS) && (entry.level() || !entry.contains(Self::REMOTE_IRR));
        possible.then_some(entry)
    }

    pub(super) const fn masked(self) -> bool {
        self.contains(Self::MASKED)
    }

    pub(super) const fn level(self) -> bool {
        self.contains(Self::LEVEL)
    }

    /// Whether the entry sends for as long as its input is asserted. Only interrupts do: the other modes are edges
    /// whatever the trigger mode says, for nothing ends them.
    pub(super) const fn holds(self) -> bool {
        let mode = DeliveryMode::decode(self.bits() as u32);
        let interrupt = matches!(
            mode,
            Some(DeliveryMode::Fixed | DeliveryMode::LowestPriority)
        );
        interrupt && self.level()
    }

    /// Writes the low half. Remote IRR goes with the level trigger: that is how software drops it on versions without an
    /// EOI register.
    pub(super) fn set_low(&mut self, value: u32) {
        let value = Self::from_bits_truncate(u64::from(value)) & Self::WRITABLE_LOW;
        *self = (*self - Self::WRITABLE_LOW) | value;
        if !self.level() {
            self.remove(Self::REMOTE_IRR);
        }
    }

    /// Writes the high half.
    pub(super) fn set_high(&mut self, value: u32) {
        let value = Self::from_bits_truncate(u64::from(value) << 32);
        *self = (*self - Self::DESTINATION) | (value & Self::DESTINATION);
    }

    /// The input is asserted: the message that goes out, unless the entry holds it back.
    #[inline]
    pub(super) fn fire(&mut self) -> Option<Dispatch> {
        if self.intersects(Self::MASKED | Self::REMOTE_IRR) {
            return None;
        }
        let bits = self.bits();
        let mode = DeliveryMode::decode(bits as u32)?;
        let level = match mode {
            DeliveryMode::StartUp => return None,
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => self.level(),
            // These are edges whatever the trigger mode says; nothing ends them.
            DeliveryMode::Smi | DeliveryMode::Nmi | DeliveryMode::Init | DeliveryMode::ExtInt => {
                false
            }
        };
        if level {
            self.insert(Self::REMOTE_IRR);
        }
        Some(Dispatch {
            destination: Destination::narrow(self.contains(Self::LOGICAL), (bits >> 56) as u8),
            message: Message {
                mode,
                vector: bits as u8,
                level,
            },
        })
    }

    /// Whether the end of an interrupt of this vector is what the entry waits for.
    #[inline]
    pub(super) const fn waits_for(self, vector: u8) -> bool {
        self.contains(Self::REMOTE_IRR) && self.bits() as u8 == vector
    }

    /// An end of interrupt; returns whether the entry waited for it.
    #[inline]
    pub(super) fn end(&mut self, vector: u8) -> bool {
        let waited = self.waits_for(vector);
        if waited {
            self.remove(Self::REMOTE_IRR);
        }
        waited
    }
}

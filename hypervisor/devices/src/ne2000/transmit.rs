//! Frames to the wire.
//!
//! Source: DP8390D data sheet, "Packet Transmission" and "Loopback Diagnostics".

use net::Offload;

use super::registers::{Command, Interrupts, TransmitConfig, TransmitStatus};
use super::{HEADER, LONGEST, Ne2000};
use crate::nic::{Outgoing, Sent};
use crate::pc::Effects;

/// Bytes of a check sequence that the driver brings.
const CHECK: usize = 4;

impl Ne2000 {
    /// The loopback mode, 0 where what is sent goes to the wire.
    pub(super) const fn loopback(&self) -> u8 {
        (self.transmit_config.bits() & TransmitConfig::LOOPBACK.bits()) >> 1
    }

    /// Whether a frame waits for room on the wire.
    pub(crate) const fn working(&self) -> bool {
        self.command.contains(Command::TRANSMIT)
    }

    /// Sends the frame that the driver prepared, or goes on waiting.
    pub(crate) fn work(&mut self, effects: &mut impl Effects) {
        let status = match self.loopback() {
            0 => {
                if self.send(effects) == Sent::Busy {
                    return;
                }
                TransmitStatus::empty()
            }
            // The way back is in the controller, at the encoder or on the wire: what lies behind is not heard.
            1 => TransmitStatus::NO_CARRIER | TransmitStatus::NO_HEARTBEAT,
            2 => TransmitStatus::NO_HEARTBEAT,
            _ => TransmitStatus::empty(),
        };
        self.command -= Command::TRANSMIT;
        self.transmit_status = status | TransmitStatus::SENT | TransmitStatus::ALWAYS;
        self.interrupts |= Interrupts::TRANSMITTED;
    }

    fn send(&self, effects: &mut impl Effects) -> Sent {
        let brought = self.transmit_config.contains(TransmitConfig::NO_CHECK);
        let check = if brought { CHECK } else { 0 };
        let length = usize::from(self.transmit_count).saturating_sub(check);
        // A wire brings nobody what is no frame.
        if !(HEADER..=LONGEST).contains(&length) {
            return Sent::DROPPED;
        }
        let address = u16::from(self.transmit_page) << 8;
        let Some(head) = self.memory.frame(address, length) else {
            return Sent::DROPPED;
        };
        let frame = Outgoing {
            head,
            rest: &[],
            offload: Offload::default(),
        };
        // No part of it is in guest memory.
        effects
            .send_frame(self.nic, &frame)
            .unwrap_or(Sent::DROPPED)
    }
}

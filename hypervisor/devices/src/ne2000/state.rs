//! The saved state of a card.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::registers::{
    Command, Config2, Config3, DataConfig, EepromCommand, Interrupts, ReceiveConfig, ReceiveStatus,
    TransmitConfig, TransmitStatus,
};
use super::{Ne2000, Realtek, memory};
use crate::pc::StateError;

/// The saved state of an NE2000.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ne2000StateV1 {
    /// Memory for frames, 16 KiB.
    pub memory: Vec<u8>,
    /// CR.
    pub command: u8,
    /// PSTART.
    pub page_start: u8,
    /// PSTOP.
    pub page_stop: u8,
    /// BNRY.
    pub boundary: u8,
    /// CURR.
    pub current: u8,
    /// TPSR.
    pub transmit_page: u8,
    /// TBCR.
    pub transmit_count: u16,
    /// TSR.
    pub transmit_status: u8,
    /// RSR.
    pub receive_status: u8,
    /// ISR.
    pub interrupts: u8,
    /// IMR.
    pub mask: u8,
    /// CRDA.
    pub remote_address: u16,
    /// What is left of RBCR.
    pub remote_count: u16,
    /// The remote next packet pointer.
    pub remote_next: u8,
    /// RCR.
    pub receive_config: u8,
    /// TCR.
    pub transmit_config: u8,
    /// DCR.
    pub data_config: u8,
    /// CNTR0 to CNTR2.
    pub tallies: [u8; 3],
    /// PAR0 to PAR5.
    pub station: [u8; 6],
    /// MAR0 to MAR7.
    pub groups: [u8; 8],
    /// What an RTL8029 has more.
    pub realtek: Option<RealtekStateV1>,
}

/// The saved state of what Realtek added.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealtekStateV1 {
    /// 9346CR.
    pub eeprom: u8,
    /// CONFIG2.
    pub config2: u8,
    /// CONFIG3.
    pub config3: u8,
}

impl Ne2000 {
    pub(crate) fn save(&self) -> Ne2000StateV1 {
        Ne2000StateV1 {
            memory: self.memory.ram().to_vec(),
            command: self.command.bits(),
            page_start: self.page_start,
            page_stop: self.page_stop,
            boundary: self.boundary,
            current: self.current,
            transmit_page: self.transmit_page,
            transmit_count: self.transmit_count,
            transmit_status: self.transmit_status.bits(),
            receive_status: self.receive_status.bits(),
            interrupts: self.interrupts.bits(),
            mask: self.mask.bits(),
            remote_address: self.remote_address,
            remote_count: self.remote_count,
            remote_next: self.remote_next,
            receive_config: self.receive_config.bits(),
            transmit_config: self.transmit_config.bits(),
            data_config: self.data_config.bits(),
            tallies: self.tallies,
            station: self.station,
            groups: self.groups,
            realtek: self.realtek.map(|chip| RealtekStateV1 {
                eeprom: chip.eeprom.bits(),
                config2: chip.config2.bits(),
                config3: chip.config3.bits(),
            }),
        }
    }

    /// Takes on a saved state.
    ///
    /// # Errors
    ///
    /// [`StateError`] for another kind of card, or for what no card can be in.
    pub(crate) fn restore(&mut self, state: &Ne2000StateV1) -> Result<(), StateError> {
        let invalid = StateError::Invalid("NE2000: registers");
        self.realtek = match (self.realtek, state.realtek) {
            (Some(_), Some(saved)) => Some(Realtek {
                eeprom: EepromCommand::from_bits(saved.eeprom).ok_or(invalid)?,
                config2: Config2::from_bits(saved.config2).ok_or(invalid)?,
                config3: Config3::from_bits(saved.config3).ok_or(invalid)?,
            }),
            (None, None) => None,
            _ => return Err(StateError::Devices),
        };
        if state.memory.len() != memory::SIZE {
            return Err(StateError::Invalid("NE2000: memory"));
        }
        self.memory.ram_mut().copy_from_slice(&state.memory);
        self.command = Command::from_bits_retain(state.command);
        self.interrupts = Interrupts::from_bits_retain(state.interrupts);
        self.mask = Interrupts::from_bits_retain(state.mask);
        let stopped = self.command.contains(Command::STOP);
        if !self.command.intersects(Command::START | Command::STOP)
            || self.working() && !self.command.online()
            || stopped && !self.interrupts.contains(Interrupts::RESET)
            || self.mask.contains(Interrupts::RESET)
            || !state.tallies.iter().all(|tally| Self::is_tally(*tally))
        {
            return Err(invalid);
        }
        self.transmit_status = TransmitStatus::from_bits(state.transmit_status).ok_or(invalid)?;
        self.receive_status = ReceiveStatus::from_bits(state.receive_status).ok_or(invalid)?;
        self.receive_config = ReceiveConfig::from_bits(state.receive_config).ok_or(invalid)?;
        self.transmit_config = TransmitConfig::from_bits(state.transmit_config).ok_or(invalid)?;
        self.data_config = DataConfig::from_bits(state.data_config).ok_or(invalid)?;
        self.page_start = state.page_start;
        self.page_stop = state.page_stop;
        self.boundary = state.boundary;
        self.current = state.current;
        self.transmit_page = state.transmit_page;
        self.transmit_count = state.transmit_count;
        self.remote_address = state.remote_address;
        self.remote_count = state.remote_count;
        self.remote_next = state.remote_next;
        self.tallies = state.tallies;
        self.station = state.station;
        self.groups = state.groups;
        Ok(())
    }
}

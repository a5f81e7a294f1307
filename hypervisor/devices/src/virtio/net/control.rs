//! Commands of the driver (5.1.6.5).

use net::MacAddress;

use super::super::chain::Chain;
use super::super::{Budget, Fault, Progress};
use super::Net;
use super::features::Features;
use super::filter::{Addresses, Modes, TABLE_MAX};
use crate::pc::Effects;

/// What a command costs, in units of a budget.
const COMMAND_COST: u32 = 1024;
/// Bytes of an address.
const ADDRESS: u32 = 6;

/// How a command ended.
const OK: u8 = 0;
const ERROR: u8 = 1;

/// A command.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Command {
    /// Switches something about what is received on or off.
    Mode(Modes),
    /// Replaces the tables of addresses.
    Tables,
    /// Replaces the card's address.
    Address,
    /// The driver announced itself.
    Announced,
    /// Says how many pairs of queues are in use.
    Pairs,
}

impl Command {
    /// The command of this class and number, if the driver agreed to use it.
    fn decode(class: u8, number: u8, chosen: Features) -> Option<Self> {
        let (command, needed) = match (class, number) {
            (0, 0) => (Self::Mode(Modes::PROMISCUOUS), Features::CTRL_RX),
            (0, 1) => (Self::Mode(Modes::ALL_MULTICAST), Features::CTRL_RX),
            (0, 2) => (Self::Mode(Modes::ALL_UNICAST), Features::CTRL_RX_EXTRA),
            (0, 3) => (Self::Mode(Modes::NO_MULTICAST), Features::CTRL_RX_EXTRA),
            (0, 4) => (Self::Mode(Modes::NO_UNICAST), Features::CTRL_RX_EXTRA),
            (0, 5) => (Self::Mode(Modes::NO_BROADCAST), Features::CTRL_RX_EXTRA),
            (1, 0) => (Self::Tables, Features::CTRL_RX),
            (1, 1) => (Self::Address, Features::CTRL_MAC_ADDR),
            (3, 0) => (Self::Announced, Features::GUEST_ANNOUNCE),
            (4, 0) => (Self::Pairs, Features::MQ),
            _ => return None,
        };
        chosen.contains(needed).then_some(command)
    }
}

impl Net {
    /// Does what a command asks for, and says whether it was done.
    pub(super) fn control(
        &mut self,
        chain: &mut Chain,
        chosen: Features,
        budget: &mut Budget,
        effects: &mut impl Effects,
    ) -> Result<Progress, Fault> {
        budget.spend(COMMAND_COST);
        if chain.to_write() == 0 {
            return Err(Fault::Request);
        }
        let [class, number] = take(chain, effects)?.ok_or(Fault::Request)?;
        let done = match Command::decode(class, number, chosen) {
            Some(command) => self.perform(command, chain, effects)?,
            None => None,
        };
        if done.is_some() {
            self.tell(effects);
        }
        chain.write(&[done.map_or(ERROR, |()| OK)], effects)?;
        Ok(Progress::Done)
    }

    /// Does what a command asks for, if that can be.
    fn perform(
        &mut self,
        command: Command,
        chain: &mut Chain,
        effects: &mut impl Effects,
    ) -> Result<Option<()>, Fault> {
        Ok(match command {
            Command::Mode(mode) => {
                take(chain, effects)?.map(|[on]| self.filter.modes.set(mode, on != 0))
            }
            Command::Tables => {
                let unicast = table(chain, effects)?;
                let multicast = table(chain, effects)?;
                unicast.zip(multicast).map(|tables| {
                    (self.filter.unicast, self.filter.multicast) = tables;
                })
            }
            Command::Address => take(chain, effects)?
                .map(MacAddress)
                .filter(|address| address.is_station())
                .map(|address| self.filter.mac = address),
            Command::Announced => {
                self.announce = false;
                Some(())
            }
            Command::Pairs => take(chain, effects)?
                .map(u16::from_le_bytes)
                .filter(|pairs| (1..=self.pairs).contains(pairs))
                .map(|pairs| self.active = pairs),
        })
    }

    /// Lets whoever has the receive queues know.
    fn tell(&self, effects: &mut impl Effects) {
        if let Some(mut receiver) = effects.take_receiver(self.nic) {
            receiver.set(&self.filter, self.active);
            effects.lend_receiver(self.nic, receiver);
        }
    }
}

/// Reads the next bytes of a command, if it has as many.
fn take<const COUNT: usize>(
    chain: &mut Chain,
    effects: &mut impl Effects,
) -> Result<Option<[u8; COUNT]>, Fault> {
    let mut bytes = [0; COUNT];
    let count = chain.read(&mut bytes, effects)?;
    Ok((count == COUNT).then_some(bytes))
}

/// Reads a table of addresses: their number, then they.
fn table(chain: &mut Chain, effects: &mut impl Effects) -> Result<Option<Addresses>, Fault> {
    let Some(count) = take(chain, effects)?.map(u32::from_le_bytes) else {
        return Ok(None);
    };
    let length = match count.checked_mul(ADDRESS) {
        Some(length) if length <= chain.to_read() => length,
        _ => return Ok(None),
    };
    let mut bytes = [0; TABLE_MAX * ADDRESS as usize];
    let held = bytes.len().min(length as usize);
    let bytes = bytes.get_mut(..held).unwrap_or_default();
    chain.read(bytes, effects)?;
    chain.skip(length - held as u32);
    Ok(Some(Addresses::new(bytes, count as usize > TABLE_MAX)))
}

//! Which frames a network card receives (5.1.6.5.1, 5.1.6.5.2).

use alloc::vec::Vec;

use bitflags::bitflags;
use net::MacAddress;
use serde::{Deserialize, Serialize};

use crate::pc::StateError;

/// Most addresses of a table. One that has more stands for all.
pub(super) const TABLE_MAX: usize = 32;

bitflags! {
    /// What the driver asked for beyond, or less than, its addresses.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Modes: u8 {
        /// All frames.
        const PROMISCUOUS = 1 << 0;
        /// All to groups.
        const ALL_MULTICAST = 1 << 1;
        /// All to stations.
        const ALL_UNICAST = 1 << 2;
        /// None to groups, but those to all stations.
        const NO_MULTICAST = 1 << 3;
        /// None to stations.
        const NO_UNICAST = 1 << 4;
        /// None to all stations.
        const NO_BROADCAST = 1 << 5;
    }
}

/// The saved state of a table of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressesStateV1 {
    /// The addresses, at most 32.
    pub list: Vec<MacAddress>,
    /// Whether the table was longer and stands for all addresses.
    pub overflow: bool,
}

/// A table of addresses.
#[derive(Copy, Clone, Debug)]
pub(super) struct Addresses {
    list: [MacAddress; TABLE_MAX],
    count: usize,
    overflow: bool,
}

impl Addresses {
    const NONE: Self = Self {
        list: [MacAddress([0; 6]); TABLE_MAX],
        count: 0,
        overflow: false,
    };

    /// Addresses one behind the other, at most [`TABLE_MAX`] of them, of a table that had perhaps more.
    pub(super) fn new(bytes: &[u8], overflow: bool) -> Self {
        let mut table = Self {
            overflow,
            ..Self::NONE
        };
        for (to, from) in table.list.iter_mut().zip(bytes.as_chunks().0) {
            *to = MacAddress(*from);
            table.count += 1;
        }
        table
    }

    fn list(&self) -> &[MacAddress] {
        self.list.get(..self.count).unwrap_or(&self.list)
    }

    fn holds(&self, address: MacAddress) -> bool {
        self.overflow || self.list().contains(&address)
    }

    fn save(&self) -> AddressesStateV1 {
        AddressesStateV1 {
            list: self.list().to_vec(),
            overflow: self.overflow,
        }
    }

    fn restore(state: &AddressesStateV1) -> Result<Self, StateError> {
        if state.list.len() > TABLE_MAX {
            return Err(StateError::Invalid("virtio: table of addresses"));
        }
        let mut table = Self {
            count: state.list.len(),
            overflow: state.overflow,
            ..Self::NONE
        };
        for (to, from) in table.list.iter_mut().zip(&state.list) {
            *to = *from;
        }
        Ok(table)
    }
}

/// The saved state of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterStateV1 {
    /// The card's address.
    pub mac: MacAddress,
    /// What the driver asked for beyond it: all, all to groups, all to stations, none to groups, none to stations, no
    /// broadcast, from bit 0 on.
    pub modes: u8,
    /// More stations' addresses.
    pub unicast: AddressesStateV1,
    /// Groups' addresses.
    pub multicast: AddressesStateV1,
}

/// What is received.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) mac: MacAddress,
    pub(super) modes: Modes,
    pub(super) unicast: Addresses,
    pub(super) multicast: Addresses,
}

impl Filter {
    /// Frames to `mac` and to all stations.
    pub(super) const fn new(mac: MacAddress) -> Self {
        Self {
            mac,
            modes: Modes::empty(),
            unicast: Addresses::NONE,
            multicast: Addresses::NONE,
        }
    }

    /// Whether a frame to this address is received.
    #[inline]
    pub(super) fn passes(&self, to: MacAddress) -> bool {
        let modes = self.modes;
        if modes.contains(Modes::PROMISCUOUS) {
            true
        } else if to == MacAddress::BROADCAST {
            !modes.contains(Modes::NO_BROADCAST)
        } else if to.is_group() {
            !modes.contains(Modes::NO_MULTICAST)
                && (modes.contains(Modes::ALL_MULTICAST) || self.multicast.holds(to))
        } else {
            !modes.contains(Modes::NO_UNICAST)
                && (to == self.mac || modes.contains(Modes::ALL_UNICAST) || self.unicast.holds(to))
        }
    }

    pub(super) fn save(&self) -> FilterStateV1 {
        FilterStateV1 {
            mac: self.mac,
            modes: self.modes.bits(),
            unicast: self.unicast.save(),
            multicast: self.multicast.save(),
        }
    }

    pub(super) fn restore(state: &FilterStateV1) -> Result<Self, StateError> {
        let invalid = StateError::Invalid("virtio: receive filter");
        if !state.mac.is_station() {
            return Err(invalid);
        }
        Ok(Self {
            mac: state.mac,
            modes: Modes::from_bits(state.modes).ok_or(invalid)?,
            unicast: Addresses::restore(&state.unicast)?,
            multicast: Addresses::restore(&state.multicast)?,
        })
    }
}

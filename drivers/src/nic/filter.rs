//! Which frames a card lets in: its receive addresses, its table of hashed groups (8254x sections 13.5.1 to 13.5.3).

use super::Filter;
use super::registers::{
    AddressHigh, MULTICAST_TABLE, RECEIVE_ADDRESSES, ReceiveControl, Registers,
};

/// Receive addresses that are used: all known cards have 16, of which firmware may hold the last.
const ADDRESSES: usize = 15;
/// Double words of the table of groups.
const TABLE_WORDS: usize = 128;
/// Broadcasts come in anyway.
const BROADCAST: [u8; 6] = [0xFF; 6];

/// A filter as a card holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// The card's own address comes first.
    addresses: [Option<[u8; 6]>; ADDRESSES],
    groups: [u32; TABLE_WORDS],
    flags: ReceiveControl,
}

impl Table {
    /// Lets in frames for `own`, and what `filter` says.
    pub(super) fn new(own: [u8; 6], filter: &Filter<'_>) -> Self {
        let mut table = Self {
            addresses: [None; ADDRESSES],
            groups: [0; TABLE_WORDS],
            flags: ReceiveControl::empty(),
        };
        table.addresses[0] = Some(own);
        let others = filter.unicast.iter().filter(|address| **address != own);
        let mut places = table.addresses[1..].iter_mut();
        for address in others {
            match places.next() {
                Some(place) => *place = Some(*address),
                None => table.flags |= ReceiveControl::PROMISCUOUS,
            }
        }
        if filter.promiscuous {
            table.flags |= ReceiveControl::PROMISCUOUS | ReceiveControl::ALL_MULTICAST;
        }
        if filter.all_multicast {
            table.flags |= ReceiveControl::ALL_MULTICAST;
        }
        for group in filter.multicast.iter().filter(|group| **group != BROADCAST) {
            let hash = hash(*group);
            table.groups[usize::from(hash / 32)] |= 1 << (hash % 32);
        }
        table
    }

    /// Its part of the receive control register.
    pub(super) fn flags(&self) -> ReceiveControl {
        self.flags
    }

    /// Writes the addresses and the table of groups.
    pub(super) fn write(&self, registers: &impl Registers) {
        for (index, address) in (0..).zip(&self.addresses) {
            write_address(registers, index, *address);
        }
        for (index, word) in (0..).zip(&self.groups) {
            registers.write(MULTICAST_TABLE.nth(index), *word);
        }
    }
}

fn write_address(registers: &impl Registers, index: u32, address: Option<[u8; 6]>) {
    let [a, b, c, d, e, f] = address.unwrap_or_default();
    let low = u32::from_le_bytes([a, b, c, d]);
    let high = match address {
        Some(_) => AddressHigh::VALID.bits() | u32::from(u16::from_le_bytes([e, f])),
        None => 0,
    };
    // The low half first: writing the high half makes both valid.
    registers.write(RECEIVE_ADDRESSES.nth(2 * index), low);
    registers.write(RECEIVE_ADDRESSES.nth(2 * index + 1), high);
}

/// A group's place in the table: the upper twelve bits of the address, in the order of bits on the wire.
fn hash(group: [u8; 6]) -> u16 {
    (u16::from(group[4]) >> 4 | u16::from(group[5]) << 4) & 0xFFF
}

#[cfg(test)]
mod tests {
    use super::{Filter, ReceiveControl, Table, hash};

    const OWN: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

    #[test]
    fn groups_are_hashed_as_the_manual_has_it() {
        // Section 13.5.1: 12:34:56:78:9A:BC gives 0xBC9.
        assert_eq!(hash([0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC]), 0xBC9);
    }

    #[test]
    fn a_filter_has_an_entry_for_each_address() {
        let group = [0x01, 0x00, 0x5E, 0x00, 0x00, 0xFB];
        let other = [0x52, 0x54, 0, 0, 0, 2];
        let table = Table::new(
            OWN,
            &Filter {
                unicast: &[OWN, other],
                multicast: &[group, [0xFF; 6]],
                ..Filter::default()
            },
        );
        assert_eq!(table.flags(), ReceiveControl::empty());
        assert_eq!(table.addresses[..3], [Some(OWN), Some(other), None]);
        let bits: u32 = table.groups.iter().map(|word| word.count_ones()).sum();
        assert_eq!(bits, 1, "broadcasts need none");
        assert_eq!(table.groups[0xFB0 / 32], 1 << (0xFB0 % 32));
    }

    #[test]
    fn too_many_addresses_let_everything_in() {
        let many: Vec<[u8; 6]> = (2..=16).map(|last| [0x52, 0x54, 0, 0, 0, last]).collect();
        let with = |unicast: &[[u8; 6]]| {
            let filter = Filter {
                unicast,
                ..Filter::default()
            };
            Table::new(OWN, &filter)
        };
        assert_eq!(with(&many[..14]).flags(), ReceiveControl::empty());
        assert_eq!(with(&many).flags(), ReceiveControl::PROMISCUOUS);
        let all = Filter {
            promiscuous: true,
            ..Filter::default()
        };
        let flags = ReceiveControl::PROMISCUOUS | ReceiveControl::ALL_MULTICAST;
        assert_eq!(Table::new(OWN, &all).flags(), flags);
    }
}

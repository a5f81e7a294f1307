//! Which station is behind which port.

use alloc::boxed::Box;
use alloc::vec;

use crate::{MacAddress, PortId, VlanId};

/// Sets of entries, a power of two, and entries in a set.
const SETS: usize = 256;
const WAYS: usize = 4;
/// Sets that are looked through for stations that are gone whenever a port has all it may have, a divisor of [`SETS`].
const SWEPT: usize = 8;

/// An entry.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Address and VLAN.
    key: u64,
    port: PortId,
    /// When a frame of the station's came last.
    seen: u64,
}

impl Entry {
    fn is_of(&self, station: MacAddress) -> bool {
        let [_, _, address @ ..] = self.key.to_be_bytes();
        address == station.0
    }
}

/// What came of learning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learnt {
    /// It is known to be here, or there is no room to know it.
    Here,
    /// It was somewhere else before.
    Moved,
}

/// A table of stations that were heard of.
#[derive(Clone, Debug)]
pub(crate) struct Stations {
    sets: Box<[[Option<Entry>; WAYS]]>,
    /// How many entries each port has, and how many it may have.
    counts: [u16; PortId::COUNT_MAX],
    quotas: [u16; PortId::COUNT_MAX],
    /// Ticks after which one that was not heard of is forgotten.
    ageing: u64,
    /// What makes hashes differ from board to board, so that nobody can aim at a set.
    seed: u64,
    /// The next set that is looked through.
    broom: usize,
}

const fn key(station: MacAddress, vlan: VlanId) -> u64 {
    (vlan.number() as u64) << 48 | station.bits()
}

impl Stations {
    pub(crate) fn new(ageing: u64, seed: u64) -> Self {
        Self {
            sets: vec![[None; WAYS]; SETS].into_boxed_slice(),
            counts: [0; PortId::COUNT_MAX],
            quotas: [0; PortId::COUNT_MAX],
            ageing,
            seed,
            broom: 0,
        }
    }

    /// Most stations that are learnt behind a port.
    pub(crate) fn set_quota(&mut self, port: PortId, quota: u16) {
        if let Some(place) = self.quotas.get_mut(port.index()) {
            *place = quota;
        }
    }

    #[inline]
    fn place(&self, key: u64) -> usize {
        const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
        let mixed = (key ^ self.seed).wrapping_mul(MULTIPLIER);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(MULTIPLIER);
        (mixed >> 56) as usize & (SETS - 1)
    }

    /// Where a station is, if it was heard of lately.
    #[inline]
    pub(crate) fn find(&self, station: MacAddress, vlan: VlanId, now: u64) -> Option<PortId> {
        let key = key(station, vlan);
        let set = self.sets.get(self.place(key))?;
        let entry = set.iter().flatten().find(|entry| entry.key == key)?;
        (now.saturating_sub(entry.seen) < self.ageing).then_some(entry.port)
    }

    /// A frame of a station's came in at a port.
    #[inline]
    pub(crate) fn learn(
        &mut self,
        station: MacAddress,
        vlan: VlanId,
        port: PortId,
        now: u64,
    ) -> Learnt {
        let key = key(station, vlan);
        let place = self.place(key);
        let known = self
            .sets
            .get_mut(place)
            .and_then(|set| set.iter_mut().flatten().find(|entry| entry.key == key));
        if let Some(entry) = known
            && entry.port == port
        {
            entry.seen = entry.seen.max(now);
            return Learnt::Here;
        }
        let new = Entry {
            key,
            port,
            seen: now,
        };
        self.insert(place, new, now)
    }

    #[cold]
    fn insert(&mut self, place: usize, new: Entry, now: u64) -> Learnt {
        if self.is_full(new.port) {
            self.sweep(now);
        }
        let full = self.is_full(new.port);
        let old = |entry: &Entry| now.saturating_sub(entry.seen) >= self.ageing;
        let Some(set) = self.sets.get_mut(place) else {
            return Learnt::Here;
        };
        // Where it was before, until it is gone from there, if there is no room for it here.
        if let Some(entry) = set.iter_mut().flatten().find(|entry| entry.key == new.key) {
            if full {
                return Learnt::Here;
            }
            let before = core::mem::replace(entry, new);
            self.change_count(before.port, false);
            self.change_count(new.port, true);
            return Learnt::Moved;
        }
        // A free place, or one of a station that is gone; or else the port's own oldest one.
        let free = set
            .iter()
            .position(|entry| entry.as_ref().is_none_or(old))
            .filter(|way| {
                !full
                    || set
                        .get(*way)
                        .copied()
                        .flatten()
                        .is_some_and(|e| e.port == new.port)
            });
        let own = || {
            let own = set.iter().enumerate();
            let own = own.filter_map(|(way, entry)| Some((way, (*entry)?)));
            own.filter(|(_, entry)| entry.port == new.port)
                .min_by_key(|(_, entry)| entry.seen)
                .map(|(way, _)| way)
        };
        let way = free.or_else(own);
        if let Some(slot) = way.and_then(|way| set.get_mut(way)) {
            if let Some(before) = slot.replace(new) {
                self.change_count(before.port, false);
            }
            self.change_count(new.port, true);
        }
        Learnt::Here
    }

    /// Whether a port has all the stations that it may have.
    fn is_full(&self, port: PortId) -> bool {
        self.counts.get(port.index()) >= self.quotas.get(port.index())
    }

    /// Forgets the stations of a few sets that were not heard of lately.
    fn sweep(&mut self, now: u64) {
        for place in self.broom..self.broom + SWEPT {
            let Some(set) = self.sets.get_mut(place) else {
                continue;
            };
            let old = |slot: &mut Option<Entry>| {
                slot.take_if(|entry| now.saturating_sub(entry.seen) >= self.ageing)
            };
            let gone = set.each_mut().map(old);
            for entry in gone.into_iter().flatten() {
                self.change_count(entry.port, false);
            }
        }
        self.broom = (self.broom + SWEPT) % SETS;
    }

    fn change_count(&mut self, port: PortId, more: bool) {
        if let Some(count) = self.counts.get_mut(port.index()) {
            *count = if more {
                count.saturating_add(1)
            } else {
                count.saturating_sub(1)
            };
        }
    }

    /// Forgets the stations behind a port.
    pub(crate) fn forget(&mut self, port: PortId) {
        for slot in self.sets.iter_mut().flatten() {
            if slot.is_some_and(|entry| entry.port == port) {
                *slot = None;
            }
        }
        if let Some(count) = self.counts.get_mut(port.index()) {
            *count = 0;
        }
    }

    /// Forgets a station, in all VLANs, wherever it is.
    pub(crate) fn forget_station(&mut self, station: MacAddress) {
        for slot in self.sets.iter_mut().flatten() {
            if let Some(entry) = slot.take_if(|entry| entry.is_of(station))
                && let Some(count) = self.counts.get_mut(entry.port.index())
            {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// How many stations are known behind a port.
    pub(crate) fn count(&self, port: PortId) -> u16 {
        self.counts.get(port.index()).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn station(number: u32) -> MacAddress {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddress([2, 0, a, b, c, d])
    }

    fn port(index: usize) -> PortId {
        PortId::new(index).expect("a port")
    }

    const VLAN: VlanId = VlanId::new(1).expect("a VLAN");
    const AGEING: u64 = 1000;

    const QUOTA: u16 = 256;

    fn table() -> Stations {
        let mut stations = Stations::new(AGEING, 7);
        for index in 0..PortId::COUNT_MAX {
            stations.set_quota(port(index), QUOTA);
        }
        stations
    }

    #[test]
    fn stations_are_found_until_they_are_old() {
        let mut stations = table();
        stations.learn(station(1), VLAN, port(3), 10);
        assert_eq!(stations.find(station(1), VLAN, 11), Some(port(3)));
        let other = VlanId::new(2).expect("a VLAN");
        assert_eq!(stations.find(station(1), other, 11), None);
        assert_eq!(stations.find(station(1), VLAN, 1009), Some(port(3)));
        assert_eq!(stations.find(station(1), VLAN, 1010), None);
        // A clock that lags a little makes nobody old.
        assert_eq!(stations.find(station(1), VLAN, 5), Some(port(3)));
    }

    #[test]
    fn a_station_moves() {
        let mut stations = table();
        assert_eq!(stations.learn(station(1), VLAN, port(0), 1), Learnt::Here);
        assert_eq!(stations.learn(station(1), VLAN, port(1), 2), Learnt::Moved);
        assert_eq!(stations.find(station(1), VLAN, 3), Some(port(1)));
        assert_eq!((stations.count(port(0)), stations.count(port(1))), (0, 1));
        stations.forget(port(1));
        assert_eq!(stations.find(station(1), VLAN, 3), None);
        assert_eq!(stations.count(port(1)), 0);
    }

    #[test]
    fn who_floods_crowds_nobody_out() {
        let mut stations = table();
        for number in 0..100 {
            stations.learn(station(number), VLAN, port(0), 1);
        }
        let known = |stations: &Stations, now| {
            let found = |number: &u32| stations.find(station(*number), VLAN, now) == Some(port(0));
            (0..100).filter(found).count()
        };
        let before = known(&stations, 2);
        assert!(before > 90, "{before}");
        for number in 1000..100_000 {
            stations.learn(station(number), VLAN, port(1), 3);
        }
        assert_eq!(known(&stations, 4), before);
        assert_eq!(stations.count(port(1)), QUOTA);
        // Nor does it get theirs.
        for number in 0..100 {
            stations.learn(station(number), VLAN, port(1), 5);
        }
        assert_eq!(known(&stations, 6), before);
        assert_eq!(stations.count(port(1)), QUOTA);
    }

    #[test]
    fn who_is_gone_takes_no_place() {
        let mut stations = table();
        for number in 0..10_000 {
            stations.learn(station(number), VLAN, port(0), 1);
        }
        let full = stations.count(port(0));
        assert!(full >= QUOTA * 3 / 4, "{full}");
        // Others take their places behind the same port, a few of which lie in sets where nobody's were.
        let later = 1 + AGEING;
        let found = |stations: &Stations| {
            let found = |number: &u32| stations.find(station(*number), VLAN, later).is_some();
            (20_000..20_100).filter(found).count()
        };
        for _ in 0..4 {
            for number in 20_000..20_100 {
                stations.learn(station(number), VLAN, port(0), later);
            }
        }
        assert_eq!(found(&stations), 100);
        assert!(stations.count(port(0)) <= QUOTA);
    }
}

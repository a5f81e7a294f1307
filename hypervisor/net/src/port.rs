//! Ports of a switch, by number and in sets.

/// The number of a port, below [`PortId::COUNT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(u8);

impl PortId {
    /// Most ports of a switch.
    pub const COUNT_MAX: usize = 32;

    pub(crate) fn new(index: usize) -> Option<Self> {
        (index < Self::COUNT_MAX).then_some(Self(index as u8))
    }

    /// Its place among the switch's ports.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    const fn bit(self) -> u32 {
        1 << self.0
    }
}

/// A set of ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSet(u32);

impl PortSet {
    /// No port.
    pub const EMPTY: Self = Self(0);

    /// Whether a port is in it.
    #[must_use]
    pub const fn contains(self, port: PortId) -> bool {
        self.0 & port.bit() != 0
    }

    /// How many ports are in it.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether none is.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set of one port.
    #[must_use]
    pub const fn of(port: PortId) -> Self {
        Self(port.bit())
    }

    /// Puts a port in or takes it out.
    pub const fn set(&mut self, port: PortId, within: bool) {
        if within {
            self.0 |= port.bit();
        } else {
            self.0 &= !port.bit();
        }
    }

    /// The ports that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Its ports that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Its ports, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = PortId> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let number = left.trailing_zeros();
            left &= left.checked_sub(1)?;
            Some(PortId(number as u8))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let ports: Vec<_> = [0, 5, 31].into_iter().filter_map(PortId::new).collect();
        let mut set = PortSet::EMPTY;
        assert!(set.is_empty() && set.iter().next().is_none());
        for port in &ports {
            set.set(*port, true);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), ports);
        assert_eq!(set.len(), 3);
        set.set(ports[1], false);
        assert!(!set.contains(ports[1]) && set.contains(ports[2]));
        assert_eq!(set.without(PortSet::of(ports[0])), PortSet::of(ports[2]));
        assert_eq!(set.and(PortSet::of(ports[0])), PortSet::of(ports[0]));
        assert_eq!(PortId::new(32), None);
    }
}

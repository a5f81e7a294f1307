//! Counts of accesses to ports that no device claims, for whoever wonders what a guest looks for.

/// Ports that are counted one by one; accesses to further ones are counted together.
const PORTS: usize = 64;

/// A bounded table of ports.
#[derive(Clone, Debug)]
pub(super) struct Unclaimed {
    ports: [(u16, u64); PORTS],
    used: usize,
    others: u64,
}

impl Unclaimed {
    pub(super) const fn new() -> Self {
        Self {
            ports: [(0, 0); PORTS],
            used: 0,
            others: 0,
        }
    }

    /// Counts an access.
    #[cold]
    pub(super) fn count(&mut self, port: u16) {
        let used = self.ports.iter_mut().take(self.used);
        if let Some((_, accesses)) = used.into_iter().find(|(known, _)| *known == port) {
            *accesses = accesses.saturating_add(1);
        } else if let Some(free) = self.ports.get_mut(self.used) {
            *free = (port, 1);
            self.used += 1;
        } else {
            self.others = self.others.saturating_add(1);
        }
    }

    /// The ports, in the order of their first access.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.ports.iter().take(self.used).copied()
    }

    /// Accesses to ports beyond the table.
    pub(super) const fn others(&self) -> u64 {
        self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded() {
        let mut unclaimed = Unclaimed::new();
        for port in 0..100 {
            unclaimed.count(port);
            unclaimed.count(port);
        }
        assert_eq!(unclaimed.iter().count(), PORTS);
        assert!(unclaimed.iter().all(|(_, accesses)| accesses == 2));
        assert_eq!(unclaimed.others(), 2 * (100 - PORTS as u64));
    }
}

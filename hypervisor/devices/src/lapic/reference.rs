//! Naive models of a local APIC: sets for its vectors, a stepped counter for its timer.

use std::collections::BTreeSet;

/// Vectors and priorities (SDM 11.8.3, 11.8.4).
#[derive(Clone, Debug, Default)]
pub(super) struct Priorities {
    pub(super) requested: BTreeSet<u8>,
    pub(super) served: BTreeSet<u8>,
    pub(super) levels: BTreeSet<u8>,
    pub(super) task: u8,
}

impl Priorities {
    pub(super) fn processor(&self) -> u8 {
        let served = self.served.last().map_or(0, |vector| vector / 16);
        if self.task / 16 >= served {
            self.task
        } else {
            served * 16
        }
    }

    pub(super) fn pending(&self) -> Option<u8> {
        let priority = self.processor() / 16;
        self.requested
            .iter()
            .copied()
            .filter(|vector| vector / 16 > priority)
            .max()
    }

    pub(super) fn request(&mut self, vector: u8, level: bool) {
        if vector < 16 {
            return;
        }
        self.requested.insert(vector);
        if level {
            self.levels.insert(vector);
        } else {
            self.levels.remove(&vector);
        }
    }

    pub(super) fn acknowledge(&mut self) -> u8 {
        let Some(vector) = self.pending() else {
            return 0xFF;
        };
        self.requested.remove(&vector);
        self.served.insert(vector);
        vector
    }

    /// Returns the vector of a level.
    pub(super) fn end(&mut self) -> Option<u8> {
        self.served
            .pop_last()
            .filter(|vector| self.levels.contains(vector))
    }
}

/// The counting timer, a tick at a time.
#[derive(Clone, Debug)]
pub(super) struct Stepped {
    pub(super) periodic: bool,
    pub(super) initial: u32,
    pub(super) count: u32,
    divider: u64,
    phase: u64,
}

impl Stepped {
    pub(super) fn new() -> Self {
        Self {
            periodic: false,
            initial: 0,
            count: 0,
            divider: 16,
            phase: 0,
        }
    }

    pub(super) fn start(&mut self, count: u32) {
        self.initial = count;
        self.count = count;
        self.phase = 0;
    }

    pub(super) fn set_divide(&mut self, code: u8) {
        let divider = 8 * match code & 0xB {
            0x0 => 2,
            0x1 => 4,
            0x2 => 8,
            0x3 => 16,
            0x8 => 32,
            0x9 => 64,
            0xA => 128,
            _ => 1,
        };
        if divider != self.divider {
            self.divider = divider;
            self.phase = 0;
        }
    }

    /// A tick; returns whether the count is up.
    pub(super) fn tick(&mut self) -> bool {
        if self.count == 0 {
            return false;
        }
        self.phase += 1;
        if self.phase < self.divider {
            return false;
        }
        self.phase = 0;
        self.count -= 1;
        if self.count > 0 {
            return false;
        }
        if self.periodic {
            self.count = self.initial;
        }
        true
    }
}

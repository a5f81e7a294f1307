//! Many accesses to one port at once: string instructions.
//!
//! What moves much through one port is a network card's data port. All other ports are accessed one element at a time.

use super::{Effects, Pc, Width};
use crate::time::Ticks;

impl Pc {
    /// Whether what is at a port can move many elements at once.
    pub fn moves_strings(&mut self, port: u16) -> bool {
        self.data_port(port).is_some()
    }

    /// As many reads of `width` from `port` as fill `bytes`, or fewer; returns the bytes that were read. 0 says that
    /// [`read`](Self::read) is to do it.
    pub fn read_string(
        &mut self,
        port: u16,
        width: Width,
        bytes: &mut [u8],
        now: Ticks,
        effects: &mut impl Effects,
    ) -> usize {
        self.tick(now);
        let Some(card) = self.data_port(port) else {
            return 0;
        };
        let count = card.read_string(width, bytes, effects);
        self.settle_bus(now);
        count
    }

    /// As many writes of `width` to `port` as `bytes` are enough for, or fewer; returns the bytes that were written. 0
    /// says that [`write`](Self::write) is to do it.
    pub fn write_string(&mut self, port: u16, width: Width, bytes: &[u8], now: Ticks) -> usize {
        self.tick(now);
        let Some(card) = self.data_port(port) else {
            return 0;
        };
        let count = card.write_string(width, bytes);
        self.settle_bus(now);
        count
    }
}

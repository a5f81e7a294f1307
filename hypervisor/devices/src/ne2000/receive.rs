//! Frames from the wire: the address filter and the ring of buffers.
//!
//! Source: DP8390D data sheet, "Packet Reception" and "Buffer Ring". A buffer is a page. The ring is from the page start
//! register to the page stop register; the current page register is where the controller stores next, and the boundary
//! register where the driver is. Where they are the same, the ring is empty.

use super::memory::PAGE;
use super::registers::{Interrupts, ReceiveConfig, ReceiveStatus};
use super::{HEADER, LONGEST, Ne2000, SHORTEST};

/// Bytes that are stored before a frame: status, next page, and a count of 16 bits.
const PREFIX: usize = 4;
/// Bytes of the frame check sequence, which the controller stores behind a frame.
const CHECK: usize = 4;
/// Where a tally counter stops, and from where on it asks for an interrupt.
const TALLY_MAX: u8 = 0xC0;
const TALLY_HALF: u8 = 0x80;
/// The counter of frames that found no buffer.
const MISSED: usize = 2;

impl Ne2000 {
    /// Whether a frame would not be lost for want of buffers: there is room for the longest, or the card takes none at
    /// all.
    pub(crate) fn room(&self) -> bool {
        let listens = self.listens() && !self.receive_config.contains(ReceiveConfig::MONITOR);
        !listens || self.next_frame(pages(LONGEST)).is_some()
    }

    /// Whether frames from the wire reach the controller.
    fn listens(&self) -> bool {
        self.command.online() && self.loopback() == 0
    }

    /// A frame comes from the wire, without its check sequence. Returns whether it was not lost: the filter may drop it,
    /// but a card that is off line or has no room loses it.
    pub(crate) fn receive(&mut self, frame: &[u8]) -> bool {
        if !self.listens() {
            return false;
        }
        // A station on such a wire sends no such frames.
        if !(HEADER..=LONGEST).contains(&frame.len()) {
            return true;
        }
        let Some(group) = self.accepts(frame) else {
            return true;
        };
        let mut status = ReceiveStatus::empty();
        status.set(ReceiveStatus::GROUP, group);
        if self.receive_config.contains(ReceiveConfig::MONITOR) {
            self.receive_status = status | ReceiveStatus::MISSED | ReceiveStatus::DISABLED;
            self.miss();
            return true;
        }
        let length = frame.len().max(SHORTEST) + CHECK;
        let Some(next) = self.next_frame(pages(length - CHECK)) else {
            self.receive_status = status | ReceiveStatus::MISSED;
            self.interrupts |= Interrupts::OVERWRITE | Interrupts::RESET;
            self.miss();
            return false;
        };
        status |= ReceiveStatus::INTACT;
        let [low, high] = (length as u16).to_le_bytes();
        let prefix = [status.bits(), next, low, high];
        self.store(&prefix, frame, length);
        self.current = next;
        self.receive_status = status;
        self.interrupts |= Interrupts::RECEIVED;
        true
    }

    /// Whether the filter lets a frame pass, and then whether it is for more than one station.
    fn accepts(&self, frame: &[u8]) -> Option<bool> {
        let (destination, _) = frame.split_first_chunk::<6>()?;
        let config = self.receive_config;
        let [first, ..] = *destination;
        if first & 1 == 0 {
            let ours = *destination == self.station;
            return (ours || config.contains(ReceiveConfig::PROMISCUOUS)).then_some(false);
        }
        let all = *destination == [0xFF; 6] && config.contains(ReceiveConfig::BROADCAST);
        let accepted = all || config.contains(ReceiveConfig::MULTICAST) && self.hashed(destination);
        accepted.then_some(true)
    }

    /// Whether the filter of group addresses has the bit of this one: that which the first six bits of the address's
    /// check sequence name.
    fn hashed(&self, destination: &[u8; 6]) -> bool {
        let hash = check_sequence(destination) >> 26;
        let byte = self.groups.get(hash as usize / 8).copied().unwrap_or(0);
        byte & 1 << (hash % 8) != 0
    }

    /// The page behind a frame of `pages`, if no page before or there is the driver's.
    fn next_frame(&self, pages: usize) -> Option<u8> {
        let mut page = self.current;
        for _ in 0..pages {
            page = self.next_page(page);
            if page == self.boundary {
                return None;
            }
        }
        Some(page)
    }

    const fn next_page(&self, page: u8) -> u8 {
        let next = page.wrapping_add(1);
        if next == self.page_stop {
            self.page_start
        } else {
            next
        }
    }

    /// Stores `prefix` and then `length` bytes: the frame, with zeroes behind it, which are its padding and in place of
    /// the check sequence, that no driver looks at. A page outside memory is a page that is not stored.
    fn store(&mut self, prefix: &[u8; PREFIX], frame: &[u8], length: usize) {
        let (mut frame, mut left) = (frame, length);
        let (mut page, mut start) = (self.current, PREFIX);
        if let Some(to) = self.memory.frame_mut(u16::from(page) << 8, PREFIX) {
            to.copy_from_slice(prefix);
        }
        while left > 0 {
            let count = left.min(PAGE - start);
            let (chunk, behind) = frame.split_at(frame.len().min(count));
            let address = u16::from(page) << 8 | start as u16;
            if let Some(to) = self.memory.frame_mut(address, count) {
                let (to, padding) = to.split_at_mut(chunk.len());
                to.copy_from_slice(chunk);
                padding.fill(0);
            }
            frame = behind;
            left -= count;
            page = self.next_page(page);
            start = 0;
        }
    }

    /// Counts a frame that found no buffer.
    fn miss(&mut self) {
        let Some(tally) = self.tallies.get_mut(MISSED) else {
            return;
        };
        *tally = (*tally + 1).min(TALLY_MAX);
        if *tally >= TALLY_HALF {
            self.interrupts |= Interrupts::COUNTER;
        }
    }

    /// Whether a tally counter can have this value.
    pub(super) const fn is_tally(value: u8) -> bool {
        value <= TALLY_MAX
    }
}

/// Pages for a frame of `length` bytes with what is stored before and behind it.
fn pages(length: usize) -> usize {
    (PREFIX + length.max(SHORTEST) + CHECK).div_ceil(PAGE)
}

/// The register of the check sequence after these bytes, the first bit to be sent the highest (IEEE 802.3, 3.2.9; without
/// the complement at the end).
fn check_sequence(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x04C1_1DB7;
    let bits = bytes
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| u32::from(byte >> bit & 1)));
    bits.fold(u32::MAX, |register, bit| {
        let out = register >> 31 ^ bit;
        register << 1 ^ if out == 1 { POLYNOMIAL } else { 0 }
    })
}

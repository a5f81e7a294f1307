//! Remote DMA: the way between the controller's memory and the data port.
//!
//! Source: DP8390D data sheet, "Remote DMA".

use super::Ne2000;
use super::memory::PAGE;
use super::registers::{DataConfig, Interrupts, Remote};
use crate::pc::Width;

impl Ne2000 {
    /// The command register was written to: a transfer begins.
    pub(super) fn start_remote(&mut self) {
        let remote = self.command.remote();
        if remote == Remote::Send {
            // The oldest frame, with its header: how long it is, and where the one behind it begins.
            self.remote_address = u16::from(self.boundary) << 8;
            let [next, low, high] = [1, 2, 3].map(|at| self.memory.read(self.remote_address + at));
            self.remote_next = next;
            self.remote_count = u16::from_le_bytes([low, high]);
        }
        if remote != Remote::Off && self.remote_count == 0 {
            self.remote_done(remote);
        }
    }

    fn remote_done(&mut self, remote: Remote) {
        if remote == Remote::Send {
            self.boundary = self.remote_next;
        }
        self.interrupts |= Interrupts::REMOTE_DONE;
    }

    /// Whether the data port gives data now.
    fn gives(&self) -> bool {
        self.remote_count != 0 && matches!(self.command.remote(), Remote::Read | Remote::Send)
    }

    /// Whether the data port takes data now.
    fn takes(&self) -> bool {
        self.remote_count != 0 && self.command.remote() == Remote::Write
    }

    /// Bytes that the controller moves at once.
    fn unit(&self) -> u16 {
        if self.data_config.contains(DataConfig::WORD) {
            2
        } else {
            1
        }
    }

    /// Goes on by `count` bytes, which do not reach beyond a page. The end of the ring is followed by its start.
    fn advance(&mut self, count: u16) {
        let [before, _] = self.remote_address.to_be_bytes();
        let next = self.remote_address.wrapping_add(count);
        let [page, offset] = next.to_be_bytes();
        self.remote_address = if page != before && page == self.page_stop {
            u16::from_be_bytes([self.page_start, offset])
        } else {
            next
        };
        self.remote_count = self.remote_count.saturating_sub(count);
        if self.remote_count == 0 {
            self.remote_done(self.command.remote());
        }
    }

    /// A read of the data port. An access that is wider than what the controller moves at once makes it move as often;
    /// one that is narrower sees the low byte.
    pub(super) fn read_data(&mut self, width: Width) -> u32 {
        let unit = self.unit();
        let mut value = 0;
        let mut at = 0;
        while at < u16::from(width.bytes()) {
            let moved = if self.gives() {
                let address = self.remote_address & !(unit - 1);
                let bytes = [self.memory.read(address), self.memory.read(address | 1)];
                self.advance(unit);
                u32::from(u16::from_le_bytes(bytes)) & ((1 << (8 * unit)) - 1)
            } else {
                (1 << (8 * unit)) - 1
            };
            value |= moved << (8 * at);
            at += unit;
        }
        value & width.mask()
    }

    /// A write to the data port.
    pub(super) fn write_data(&mut self, width: Width, value: u32) {
        let unit = self.unit();
        let bytes = (value & width.mask()).to_le_bytes();
        let mut at = 0;
        while at < width.bytes() {
            if !self.takes() {
                return;
            }
            let address = self.remote_address & !(unit - 1);
            for (offset, byte) in (0..unit).zip(bytes.iter().skip(usize::from(at))) {
                self.memory.write(address | offset, *byte);
            }
            self.advance(unit);
            at += unit as u8;
        }
    }

    /// How much of `length` bytes accesses of `width` can move before anything else happens.
    fn run(&self, width: Width, length: usize) -> usize {
        let unit = self.unit();
        let size = usize::from(width.bytes());
        if size < usize::from(unit) || !self.remote_address.is_multiple_of(unit) {
            return 0;
        }
        let most = length.min(usize::from(self.remote_count));
        most - most % size
    }

    /// Bytes up to the end of the page that remote DMA is in, but not more than `left`.
    fn chunk(&self, left: usize) -> u16 {
        let [_, offset] = self.remote_address.to_be_bytes();
        left.min(PAGE - usize::from(offset)) as u16
    }

    /// As many reads of `width` from the data port as fill `bytes` or as there are data for; returns the bytes that were
    /// read.
    pub(super) fn read_run(&mut self, width: Width, bytes: &mut [u8]) -> usize {
        let moves = self.gives();
        let total = if moves {
            self.run(width, bytes.len())
        } else {
            0
        };
        let mut rest = bytes.get_mut(..total).unwrap_or_default();
        while !rest.is_empty() {
            let count = self.chunk(rest.len());
            let (chunk, behind) = rest.split_at_mut(usize::from(count));
            match self.memory.frame(self.remote_address, chunk.len()) {
                Some(from) => chunk.copy_from_slice(from),
                None => {
                    for (byte, offset) in chunk.iter_mut().zip(0..) {
                        *byte = self.memory.read(self.remote_address + offset);
                    }
                }
            }
            self.advance(count);
            rest = behind;
        }
        total
    }

    /// As many writes of `width` to the data port as `bytes` are enough for or as are awaited; returns the bytes that
    /// were written.
    pub(crate) fn write_string(&mut self, width: Width, bytes: &[u8]) -> usize {
        let moves = self.takes();
        let total = if moves {
            self.run(width, bytes.len())
        } else {
            0
        };
        let mut rest = bytes.get(..total).unwrap_or_default();
        while !rest.is_empty() {
            let count = self.chunk(rest.len());
            let (chunk, behind) = rest.split_at(usize::from(count));
            // What is no memory for frames cannot be written to.
            if let Some(to) = self.memory.frame_mut(self.remote_address, chunk.len()) {
                to.copy_from_slice(chunk);
            }
            self.advance(count);
            rest = behind;
        }
        total
    }
}

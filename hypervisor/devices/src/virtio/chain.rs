//! A descriptor chain, copied out of the guest's tables: buffers to read, then buffers to write.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::Fault;
use crate::pc::{MemoryAccess, StateError};

/// A piece of guest memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Guest-physical address, as the guest gave it: nothing says that there is memory.
    pub address: u64,
    /// Bytes.
    pub length: u32,
}

/// The saved state of a chain that is being worked on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainStateV1 {
    /// The descriptor that it began with.
    pub head: u16,
    /// Its buffers.
    pub parts: Vec<Part>,
    /// How many of them are to be read: the first ones.
    pub readable: u16,
    /// Bytes that were read.
    pub read: u32,
    /// Bytes that were written.
    pub written: u32,
}

/// A position in the buffers.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Cursor {
    part: usize,
    offset: u32,
}

impl Cursor {
    /// The next piece before the part `end`, of at most `limit` bytes; empty parts are passed over.
    #[inline]
    pub(super) fn next(&mut self, parts: &[Part], end: usize, limit: u32) -> Option<Part> {
        if limit == 0 {
            return None;
        }
        while self.part < end {
            let part = parts.get(self.part)?;
            let left = part.length.saturating_sub(self.offset);
            if left > 0 {
                let piece = Part {
                    // An address beyond 64 bits is no memory either.
                    address: part.address.saturating_add(u64::from(self.offset)),
                    length: left.min(limit),
                };
                self.offset += piece.length;
                return Some(piece);
            }
            self.part += 1;
            self.offset = 0;
        }
        None
    }
}

/// A chain. It is made once for each queue, with room for the longest, and used again and again.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// Most buffers.
    max: u16,
    head: u16,
    parts: Vec<Part>,
    readable: usize,
    reader: Cursor,
    writer: Cursor,
    to_read: u32,
    to_write: u32,
    read: u32,
    written: u32,
}

impl Chain {
    pub(super) fn new(max: u16) -> Self {
        Self {
            max,
            head: 0,
            parts: Vec::with_capacity(usize::from(max)),
            readable: 0,
            reader: Cursor::default(),
            writer: Cursor::default(),
            to_read: 0,
            to_write: 0,
            read: 0,
            written: 0,
        }
    }

    /// Starts over with a chain that begins with descriptor `head`.
    pub(super) fn begin(&mut self, head: u16) {
        self.parts.clear();
        *self = Self {
            max: self.max,
            head,
            parts: core::mem::take(&mut self.parts),
            ..Self::new(0)
        };
    }

    /// Adds a buffer; there must be no more of them than the queue is long.
    pub(super) fn push(&mut self, part: Part, writable: bool) -> Result<(), Fault> {
        if self.parts.len() >= usize::from(self.max) {
            return Err(Fault::Loop);
        }
        if !writable && self.readable != self.parts.len() {
            return Err(Fault::Order);
        }
        let total = if writable {
            &mut self.to_write
        } else {
            &mut self.to_read
        };
        *total = total.checked_add(part.length).ok_or(Fault::Length)?;
        if self.to_read.checked_add(self.to_write).is_none() {
            return Err(Fault::Length);
        }
        self.parts.push(part);
        if !writable {
            self.readable = self.parts.len();
            self.writer.part = self.readable;
        }
        Ok(())
    }

    pub(super) const fn head(&self) -> u16 {
        self.head
    }

    /// Bytes that are left to read.
    pub(super) const fn to_read(&self) -> u32 {
        self.to_read
    }

    /// Bytes that are left to write.
    pub(super) const fn to_write(&self) -> u32 {
        self.to_write
    }

    /// Bytes that were written.
    pub(super) const fn written(&self) -> u32 {
        self.written
    }

    /// Takes the next piece to read, of at most `limit` bytes.
    pub(super) fn next_readable(&mut self, limit: u32) -> Option<Part> {
        let piece = self.reader.next(&self.parts, self.readable, limit)?;
        self.to_read -= piece.length;
        self.read += piece.length;
        Some(piece)
    }

    /// Takes the next piece to write, of at most `limit` bytes, which counts as written then.
    pub(super) fn next_writable(&mut self, limit: u32) -> Option<Part> {
        let piece = self.writer.next(&self.parts, self.parts.len(), limit)?;
        self.to_write -= piece.length;
        self.written += piece.length;
        Some(piece)
    }

    /// Reads into `bytes`, as far as there is something to read; returns how many it were.
    pub(super) fn read(
        &mut self,
        bytes: &mut [u8],
        memory: &mut impl MemoryAccess,
    ) -> Result<usize, Fault> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..)
            && let Some(piece) = self.next_readable(length(rest))
        {
            let (now, _) = rest.split_at_mut(piece.length as usize);
            memory.read_memory(piece.address, now)?;
            done += now.len();
        }
        Ok(done)
    }

    /// Passes over bytes to read, as far as there are so many.
    pub(super) fn skip(&mut self, mut bytes: u32) {
        while let Some(piece) = self.next_readable(bytes) {
            bytes -= piece.length;
        }
    }

    /// The buffers that are left to read. From then on they count as the first ones.
    pub(super) fn unread(&mut self) -> &[Part] {
        let Cursor { part, offset } = self.reader;
        if let Some(part) = self.parts.get_mut(part) {
            part.address = part.address.saturating_add(u64::from(offset));
            part.length = part.length.saturating_sub(offset);
        }
        self.reader.offset = 0;
        self.parts.get(part..self.readable).unwrap_or_default()
    }

    /// Writes `bytes`, as far as there is room; returns how many it were.
    pub(super) fn write(
        &mut self,
        bytes: &[u8],
        memory: &mut impl MemoryAccess,
    ) -> Result<usize, Fault> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..)
            && let Some(piece) = self.next_writable(length(rest))
        {
            let (now, _) = rest.split_at(piece.length as usize);
            memory.write_memory(piece.address, now)?;
            done += now.len();
        }
        Ok(done)
    }

    /// Writes the last byte that there is to write. It counts as written if all before it was.
    pub(super) fn write_last(
        &mut self,
        byte: u8,
        memory: &mut impl MemoryAccess,
    ) -> Result<(), Fault> {
        let last = self
            .parts
            .get(self.readable..)
            .and_then(|parts| parts.iter().rfind(|part| part.length > 0))
            .ok_or(Fault::Request)?;
        let address = last.address.saturating_add(u64::from(last.length - 1));
        memory.write_memory(address, &[byte])?;
        if self.to_write == 1 {
            self.to_write = 0;
            self.written += 1;
        }
        Ok(())
    }

    /// The state of a chain that is being worked on.
    pub(super) fn save(&self) -> ChainStateV1 {
        ChainStateV1 {
            head: self.head,
            parts: self.parts.clone(),
            readable: self.readable as u16,
            read: self.read,
            written: self.written,
        }
    }

    /// Takes on a saved state; the chain has at most as many buffers as it was made for.
    pub(super) fn restore(&mut self, state: &ChainStateV1) -> Result<(), StateError> {
        let invalid = StateError::Invalid("virtio: descriptor chain");
        self.begin(state.head);
        for (index, part) in state.parts.iter().enumerate() {
            self.push(*part, index >= usize::from(state.readable))
                .map_err(|_| invalid)?;
        }
        if usize::from(state.readable) > state.parts.len()
            || state.read > self.to_read
            || state.written > self.to_write
        {
            return Err(invalid);
        }
        while let left @ 1.. = state.read - self.read {
            self.next_readable(left).ok_or(invalid)?;
        }
        while let left @ 1.. = state.written - self.written {
            self.next_writable(left).ok_or(invalid)?;
        }
        Ok(())
    }
}

/// The length of what is left of a buffer of ours, which is never anywhere near 4 GiB.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

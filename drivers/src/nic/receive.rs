//! The receiving half: a ring of descriptors, each with a buffer for a whole frame.

use super::descriptors::{DESCRIPTOR_BYTES, Format};
use super::registers::{Queue, Register, Registers, receive_queue};
use super::{RING, Received};
use crate::dma::Dma;
use core::sync::atomic::{Ordering, fence};

/// Descriptors are given back to the card in batches of so many: telling it is slow.
const BATCH: usize = 16;

/// What the receiver found in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// A frame that is damaged or too long; it was dropped.
    Damaged,
    Frame,
}

/// The receiving half of a card.
pub(super) struct Receiver {
    ring: Dma,
    buffers: Dma,
    format: Format,
    buffer_bytes: usize,
    frame_max: usize,
    /// The descriptor that the card fills next.
    next: usize,
    /// Descriptors before it that the card does not know of yet.
    kept: usize,
    /// The frame that ends next began in another buffer.
    continued: bool,
    /// Frames taken.
    frames: u64,
}

impl Receiver {
    /// `ring` holds [`RING`] descriptors, and `buffers` as many buffers.
    pub(super) fn new(ring: Dma, buffers: Dma, format: Format, frame_max: usize) -> Self {
        Self {
            buffer_bytes: buffers.length() / RING,
            ring,
            buffers,
            format,
            frame_max,
            next: 0,
            kept: 0,
            continued: false,
            frames: 0,
        }
    }

    /// Bytes of a buffer.
    pub(super) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Makes every buffer the card's and tells the card where the ring is. The card must be idle; it has the ring when
    /// [`Receiver::give`] was called and it is enabled.
    pub(super) fn start(&mut self, registers: &impl Registers) {
        for index in 0..RING {
            self.prepare(index);
        }
        self.next = 0;
        // All but one: a full ring would look empty.
        self.kept = RING - 1;
        self.continued = false;
        set_ring(registers, &self.ring, receive_queue);
    }

    fn prepare(&mut self, index: usize) {
        let buffer = self.buffers.physical() + (index * self.buffer_bytes) as u64;
        let [address, status] = Format::empty(buffer);
        self.ring.set_word(2 * index, address);
        self.ring.set_word(2 * index + 1, status);
    }

    /// Looks at the next descriptor, and lets `take` see the frame in it.
    pub(super) fn receive(
        &mut self,
        registers: &impl Registers,
        take: &mut dyn FnMut(Received<'_>),
    ) -> Found {
        let index = self.next;
        let Some(written) = self.format.written(self.ring.word(2 * index + 1)) else {
            self.give(registers);
            return Found::Nothing;
        };
        // The card writes the frame before the descriptor.
        fence(Ordering::Acquire);
        let whole = written.last && !self.continued;
        self.continued = !written.last;
        let found = if whole && !written.damaged && written.length <= self.frame_max {
            let start = index * self.buffer_bytes;
            // SAFETY: the card has written the descriptor, so the buffer is not its own until it is given back below.
            let frame = unsafe { self.buffers.slice(start..start + written.length) };
            take(Received {
                frame,
                checksum_valid: written.checksum_valid,
            });
            self.frames += 1;
            Found::Frame
        } else {
            Found::Damaged
        };
        self.prepare(index);
        self.next = (index + 1) % RING;
        self.kept += 1;
        if self.kept >= BATCH {
            self.give(registers);
        }
        found
    }

    /// Gives the card what was kept back.
    pub(super) fn give(&mut self, registers: &impl Registers) {
        if self.kept != 0 {
            self.kept = 0;
            // The descriptors are complete before the card hears of them.
            fence(Ordering::Release);
            let tail = (self.next + RING - 1) % RING;
            registers.write(receive_queue(Queue::Tail), tail as u32);
        }
    }

    /// Whether a frame waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.format
            .written(self.ring.word(2 * self.next + 1))
            .is_some()
    }

    /// Frames taken so far.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }
}

/// Tells a card where a ring is, with nothing in it.
pub(super) fn set_ring(registers: &impl Registers, ring: &Dma, at: impl Fn(Queue) -> Register) {
    let physical = ring.physical();
    registers.write(at(Queue::BaseLow), physical as u32);
    registers.write(at(Queue::BaseHigh), (physical >> 32) as u32);
    registers.write(at(Queue::Length), (RING * DESCRIPTOR_BYTES) as u32);
    registers.write(at(Queue::Head), 0);
    registers.write(at(Queue::Tail), 0);
}

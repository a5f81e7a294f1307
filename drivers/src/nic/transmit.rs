//! The transmitting half: a ring of descriptors, each with a buffer that frames are copied into.

use super::descriptors::{Context, Format};
use super::receive::set_ring;
use super::registers::{Queue, Registers, transmit_queue};
use super::{Checksum, FRAME_MIN, RING, TransmitError};
use crate::dma::Dma;
use core::sync::atomic::{Ordering, fence};

/// So long a card may take to send the next frame while its link is up, in milliseconds.
const HANG_MS: u64 = 1000;

/// The transmitting half of a card.
pub(super) struct Transmitter {
    ring: Dma,
    buffers: Dma,
    format: Format,
    buffer_bytes: usize,
    frame_max: usize,
    /// The next descriptor to be filled.
    next: usize,
    /// The oldest one that is the card's.
    oldest: usize,
    /// Descriptors that are contexts: the card does not report these, but goes on to the frame behind.
    is_context: [bool; RING],
    /// What the card knows.
    context: Option<Context>,
    /// Where `oldest` was when it moved last, or when there was nothing to wait for.
    stood: Option<Stood>,
}

#[derive(Clone, Copy)]
struct Stood {
    oldest: usize,
    since_ms: u64,
}

impl Transmitter {
    /// `ring` holds [`RING`] descriptors, and `buffers` as many buffers.
    pub(super) fn new(ring: Dma, buffers: Dma, format: Format, frame_max: usize) -> Self {
        Self {
            buffer_bytes: buffers.length() / RING,
            ring,
            buffers,
            format,
            frame_max,
            next: 0,
            oldest: 0,
            is_context: [false; RING],
            context: None,
            stood: None,
        }
    }

    /// Empties the ring and tells the card where it is. The card must be idle.
    pub(super) fn start(&mut self, registers: &impl Registers) {
        self.next = 0;
        self.oldest = 0;
        self.is_context = [false; RING];
        self.context = None;
        self.stood = None;
        set_ring(registers, &self.ring, transmit_queue);
    }

    /// See [`super::Nic::transmit`].
    pub(super) fn transmit(
        &mut self,
        registers: &impl Registers,
        length: usize,
        checksum: Option<Checksum>,
        reserve: u16,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), TransmitError> {
        if length > self.frame_max {
            return Err(TransmitError::TooLong);
        }
        self.reclaim();
        let needed = 1 + usize::from(checksum.is_some());
        if self.free() < needed + usize::from(reserve) {
            return Err(TransmitError::Full);
        }
        let mut slot = self.next;
        let start = slot * self.buffer_bytes;
        // SAFETY: the buffer's last frame was sent, and no descriptor that the card has names it.
        let buffer = unsafe { self.buffers.slice_mut(start..start + self.buffer_bytes) };
        let padded = length.max(FRAME_MIN);
        fill(&mut buffer[..length]);
        if length < padded {
            buffer[length..padded].fill(0);
        }

        if let Some(checksum) = checksum {
            let context = self
                .format
                .context(checksum, &buffer[..length])
                .ok_or(TransmitError::Checksum)?;
            if self.context != Some(context) {
                self.context = Some(context);
                self.write(slot, context.words());
                self.is_context[slot] = true;
                slot = (slot + 1) % RING;
            }
        }
        let address = self.buffers.physical() + start as u64;
        self.write(
            slot,
            self.format
                .frame(address, padded as u16, checksum.is_some()),
        );
        self.is_context[slot] = false;
        self.next = (slot + 1) % RING;
        // The descriptors and the frame are complete before the card hears of them.
        fence(Ordering::Release);
        registers.write(transmit_queue(Queue::Tail), self.next as u32);
        Ok(())
    }

    fn write(&mut self, slot: usize, [first, second]: [u64; 2]) {
        self.ring.set_word(2 * slot, first);
        self.ring.set_word(2 * slot + 1, second);
    }

    /// Takes back what the card has sent.
    fn reclaim(&mut self) {
        while self.oldest != self.next {
            // A context comes with the frame that follows it.
            let frame = (self.oldest + usize::from(self.is_context[self.oldest])) % RING;
            if !Format::sent(self.ring.word(2 * frame + 1)) {
                break;
            }
            self.oldest = (frame + 1) % RING;
        }
        // The card is done with the buffers before they are written.
        fence(Ordering::Acquire);
    }

    /// Descriptors that can be filled: all but one, since a full ring would look empty.
    fn free(&self) -> usize {
        RING - 1 - (self.next + RING - self.oldest) % RING
    }

    /// Whether the card has frames to send.
    pub(super) fn is_busy(&mut self) -> bool {
        self.reclaim();
        self.oldest != self.next
    }

    /// Whether the card has had frames for too long without sending one. `may_send` is whether it could.
    pub(super) fn hangs(&mut self, now_ms: u64, may_send: bool) -> bool {
        if !self.is_busy() || !may_send {
            self.stood = None;
            return false;
        }
        match self.stood {
            Some(stood) if stood.oldest == self.oldest => {
                now_ms.saturating_sub(stood.since_ms) >= HANG_MS
            }
            _ => {
                self.stood = Some(Stood {
                    oldest: self.oldest,
                    since_ms: now_ms,
                });
                false
            }
        }
    }
}

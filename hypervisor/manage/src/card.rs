//! The stack's network card: two short queues.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// The longest frame, without a tag.
const FRAME_MAX: usize = 1514;
/// Frames that wait for the stack, and frames that it may send in one go.
const WAITING: usize = 8;
const SENDING: usize = 8;

/// The card.
#[derive(Debug, Default)]
pub(crate) struct Card {
    received: VecDeque<Vec<u8>>,
    sending: Vec<Vec<u8>>,
}

impl Card {
    /// A frame has come; whether there was room for it. One that is longer than any that is for this station is dropped.
    pub(crate) fn put(&mut self, frame: &[u8]) -> bool {
        if frame.len() > FRAME_MAX {
            return true;
        }
        let room = self.received.len() < WAITING;
        if room {
            self.received.push_back(frame.to_vec());
        }
        room
    }

    /// A new turn: some frames may be sent.
    pub(crate) fn begin(&mut self) {
        self.sending.clear();
    }

    /// Hands out the frames that were sent since.
    pub(crate) fn sent(&mut self, send: &mut impl FnMut(&[u8])) {
        for frame in self.sending.drain(..) {
            send(&frame);
        }
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sender<'_>)> {
        // What is received may have to be answered.
        if self.sending.len() >= SENDING {
            return None;
        }
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sender(&mut self.sending)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        let room = self.sending.len() < SENDING;
        room.then_some(Sender(&mut self.sending))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_MAX;
        capabilities
    }
}

/// A frame that has come.
pub(crate) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

/// The right to send a frame.
pub(crate) struct Sender<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, work: F) -> R {
        let mut frame = vec![0; length];
        let result = work(&mut frame);
        self.0.push(frame);
        result
    }
}

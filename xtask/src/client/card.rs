//! The station's network card: an end of the wire, as the stack sees it.

use crate::wire::Tap;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use std::sync::Arc;
use std::time::Duration;

/// The longest frame that it sends, without a tag.
const FRAME: usize = 1514;
/// Where a frame's tag is: behind both addresses (IEEE 802.1Q, 9.6).
const TAG: usize = 12;
/// What a tag begins with.
const TAGGED: [u8; 2] = [0x81, 0x00];

/// The card.
#[derive(Debug)]
pub(super) struct Card {
    tap: Arc<Tap>,
    vlan: Option<u16>,
}

impl Card {
    pub(super) const fn new(tap: Arc<Tap>, vlan: Option<u16>) -> Self {
        Self { tap, vlan }
    }

    /// The next frame of its VLAN, without the tag.
    fn next(&self) -> Option<Vec<u8>> {
        loop {
            let mut frame = self.tap.receive(Duration::ZERO)?;
            match (self.vlan, vlan_of(&frame)) {
                (None, None) => return Some(frame),
                (Some(own), Some(vlan)) if own == vlan => {
                    frame.drain(TAG..TAG + 4);
                    return Some(frame);
                }
                _ => {}
            }
        }
    }
}

/// The VLAN in a frame's tag.
fn vlan_of(frame: &[u8]) -> Option<u16> {
    match frame.get(TAG..TAG + 4)? {
        [0x81, 0x00, high, low] => Some(u16::from_be_bytes([*high, *low]) & 0xfff),
        _ => None,
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sender<'_>)> {
        let frame = self.next()?;
        Some((Received(frame), Sender(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        Some(Sender(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}

/// A frame that has come.
pub(super) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

/// The right to send a frame.
pub(super) struct Sender<'a>(&'a Card);

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, work: F) -> R {
        let mut frame = vec![0; length];
        let result = work(&mut frame);
        if let Some(vlan) = self.0.vlan {
            let [high, low] = vlan.to_be_bytes();
            frame.splice(TAG..TAG, [TAGGED[0], TAGGED[1], high, low]);
        }
        self.0.tap.send(&frame);
        result
    }
}

//! A port of the virtual switch.

use super::Network;
use super::frame::Frame;
use super::guest_end::GuestEnd;
use super::inbox::Inbox;
use super::software;
use super::uplink::Uplink;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use devices::virtio::Takes;
use net::PortId;
use spin::Mutex;

/// A port.
pub(crate) struct Port {
    pub(super) id: PortId,
    /// Its name, for people: `lan`, `linux.0`, `management`.
    pub(super) name: String,
    /// Whether its frames go before others'.
    pub(super) urgent: bool,
    pub(super) end: End,
    /// Frames that what is behind the port had no room for.
    pub(super) refused: AtomicU64,
    /// Where frames from here are put together that their taker cannot take as they are.
    pub(super) workbench: Mutex<Vec<u8>>,
}

/// What is behind a port.
pub(super) enum End {
    Uplink(Uplink),
    Guest(GuestEnd),
    /// The hypervisor's own station.
    Station(Inbox),
}

/// What came of giving a frame to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// It is where it was to go.
    Taken,
    /// There is no room now, and will be.
    Busy,
    /// It is lost.
    Refused,
}

impl Port {
    pub(super) fn new(id: PortId, name: String, urgent: bool, end: End) -> Self {
        Self {
            id,
            name,
            urgent,
            end,
            refused: AtomicU64::new(0),
            workbench: Mutex::new(Vec::new()),
        }
    }

    /// Gives a frame that came in at port `from` to what is behind this one.
    pub(super) fn give(&self, network: &Network, frame: &Frame<'_>, from: &Self) -> Given {
        let taken = match &self.end {
            End::Uplink(uplink) => return uplink.transmit(frame, from.urgent),
            End::Guest(guest) => guest.deliver(frame, &from.workbench),
            End::Station(inbox) => {
                let taken = software::give(frame, Takes::empty(), &from.workbench, |frame| {
                    inbox.put(frame)
                });
                network.attend();
                taken
            }
        };
        if taken { Given::Taken } else { Given::Refused }
    }
}

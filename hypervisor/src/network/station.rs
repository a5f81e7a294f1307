//! The hypervisor's own station, on its port.

use super::frame::Frame;
use super::port::End;
use super::report::Report;
use super::{Network, Turn};
use config::Management;
use manage::{Manage, ManageConfig, Peer};
use net::{Offload, PortId};
use spin::Mutex;

/// Frames that it takes in one turn.
const BATCH: usize = 4;

/// The station.
pub(super) struct Station {
    port: PortId,
    /// For the tender alone.
    state: Mutex<State>,
    ticks_per_millisecond: u64,
}

struct State {
    manage: Manage,
    /// When, in the board's TSC, it has something to do by itself.
    next: u64,
}

impl Station {
    pub(super) fn new(
        port: PortId,
        config: &Management,
        tsc_hz: u64,
        seed: u64,
        datagram_port: u16,
    ) -> Self {
        let manage = Manage::new(&ManageConfig {
            mac: config.mac,
            address: config.address,
            prefix: config.prefix,
            gateway: config.gateway,
            seed,
            datagram_port,
        });
        Self {
            port,
            state: Mutex::new(State { manage, next: 0 }),
            ticks_per_millisecond: (tsc_hz / 1000).max(1),
        }
    }

    /// Sends a datagram of the hypervisor's own with the next turn.
    pub(super) fn send(&self, to: Peer, bytes: &[u8]) {
        let mut state = self.state.lock();
        // What there is no room for is lost, as on a wire.
        if state.manage.send_datagram(to, bytes) {
            state.next = 0;
        }
    }

    /// Does what is to be done now.
    pub(super) fn turn(&self, network: &Network, now: u64) -> Turn {
        let mut state = self.state.lock();
        let port = network.port(self.port);
        let (Some(port), Some(End::Station(inbox))) = (port, port.map(|port| &port.end)) else {
            return Turn::default();
        };
        let mut came = 0;
        while came < BATCH && inbox.take(|frame| state.manage.receive(frame)) {
            came += 1;
        }
        if came > 0 || !inbox.is_empty() || now >= state.next {
            let report = Report(network);
            let next = state
                .manage
                .turn(now / self.ticks_per_millisecond, &report, |frame| {
                    network.forward(port, &Frame::of_bytes(frame, Offload::default()));
                });
            let answer = |_, bytes: &[u8]| {
                if let Some(mirror) = network.mirror() {
                    mirror.answer(bytes, now);
                }
            };
            while state.manage.take_datagram(answer) {}
            state.next = next.map_or(u64::MAX, |at| at.saturating_mul(self.ticks_per_millisecond));
        }
        Turn {
            more: !inbox.is_empty(),
            next: state.next,
        }
    }
}

//! The board's network: ports, and the way of a frame between them.
//!
//! Whoever has a frame takes it all the way: the processor of the guest that sends it, or the one that tends the board's
//! cards. [`Switch`] says where to; each port has a lock of its own, held while one frame is put behind it. The first
//! processor tends the cards and the hypervisor's own station.

mod frame;
mod guest_end;
mod inbox;
pub(crate) mod operator;
mod pins;
mod port;
pub(crate) mod report;
mod setup;
mod software;
mod station;
mod turns;
mod uplink;

pub(crate) use frame::{Frame, Rest};
pub(crate) use port::Port;
pub(crate) use setup::{Parts, set_up};
pub(crate) use uplink::Uplink;

use crate::cpu;
use crate::guest::GuestHandle;
use crate::mirror::{Mirror, Put};
use core::sync::atomic::{AtomicUsize, Ordering};
use devices::nic::Sent;
use devices::virtio::Receiver;
use devices::{Effects, Pc, Ticks};
use drivers::tsc;
use log::warn;
use mirror::Path;
use net::{Capture, Forwarding, MacAddress, PortId, PortSet, Switch};
use pins::Pins;
use port::{End, Given};
use spin::{Mutex, Once};
use station::Station;
use turns::{Limits, Turns};

/// The processor that tends cards and station.
pub(crate) const TENDER: usize = 0;

/// What came of a turn of somebody's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// There is more to be done at once.
    pub(crate) more: bool,
    /// When, in the board's TSC, the next one is due.
    pub(crate) next: u64,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            more: false,
            next: u64::MAX,
        }
    }
}

/// The network of the board.
pub(crate) struct Network {
    switch: Mutex<Switch>,
    /// By their numbers: uplinks, guests' cards, the station.
    ports: alloc::vec::Vec<Port>,
    /// The ports of the uplinks of the board file; none for those that have no card.
    uplinks: alloc::vec::Vec<Option<PortId>>,
    capture: Mutex<Capture>,
    station: Option<Station>,
    mirror: Option<Mirror>,
    pins: Pins,
    turns: Turns,
    /// Which of [`Network::look_after`]'s parts the next turn begins with.
    first: AtomicUsize,
    tsc_hz: u64,
    /// The board's TSC at its start, for the times of captured frames.
    start: u64,
}

static NETWORK: Once<Network> = Once::new();

/// The network, where the board has one.
pub(crate) fn network() -> Option<&'static Network> {
    NETWORK.get()
}

impl Network {
    fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.index())
    }

    /// The mirror, where the board is one of a pair.
    pub(crate) fn mirror(&self) -> Option<&Mirror> {
        self.mirror.as_ref()
    }

    /// The card of an uplink, by its place in the board file; none if it is not there.
    pub(crate) fn uplink(&self, number: usize) -> Option<&Uplink> {
        match &self.port_of(number)?.end {
            End::Uplink(uplink) => Some(uplink),
            End::Guest(_) | End::Station(_) => None,
        }
    }

    fn port_of(&self, uplink: usize) -> Option<&Port> {
        self.port((*self.uplinks.get(uplink)?)?)
    }

    /// Whether an uplink has a carrier.
    pub(crate) fn uplink_is_up(&self, number: usize) -> bool {
        self.port_of(number)
            .is_some_and(|port| self.switch.lock().is_up(port.id))
    }

    /// Asks the witness of the mirror something, by the hypervisor's own station.
    pub(crate) fn ask_witness(&self, address: [u8; 4], port: u16, datagram: &[u8]) {
        if let Some(station) = &self.station {
            station.send(manage::Peer { address, port }, datagram);
        }
    }

    /// Takes a frame from a port to wherever it is to go.
    fn forward(&self, from: &Port, frame: &Frame<'_>) -> Sent {
        let now = tsc::read();
        let (head, length) = (frame.head(), frame.length());
        let way = self.switch.lock().forward(from.id, head, length, now);
        self.send_by(&way, from, frame, now)
    }

    /// The same, if it is to go to some of these ports alone, and nobody captures it.
    fn forward_within(&self, within: PortSet, from: &Port, frame: &Frame<'_>) -> Option<Sent> {
        let now = tsc::read();
        let (head, length) = (frame.head(), frame.length());
        let mut switch = self.switch.lock();
        let way = switch.forward(from.id, head, length, now);
        if way.captured || !way.ports.without(within).is_empty() {
            switch.take_back(from.id, &way, length);
            return None;
        }
        drop(switch);
        Some(self.send_by(&way, from, frame, now))
    }

    fn send_by(&self, way: &Forwarding, from: &Port, frame: &Frame<'_>, now: u64) -> Sent {
        let alone = way.ports.len() == 1;
        for id in way.ports.iter() {
            let Some(port) = self.port(id) else { continue };
            let given = match way.rewritten(id, frame.head()) {
                None => port.give(self, frame, from),
                Some(header) => {
                    let frame = frame.with_header(header.bytes(), header.replaces());
                    port.give(self, &frame, from)
                }
            };
            match given {
                Given::Taken => {}
                Given::Busy if alone => {
                    self.switch.lock().take_back(from.id, way, frame.length());
                    return Sent::Busy;
                }
                Given::Busy | Given::Refused => {
                    port.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if way.captured {
            self.capture(frame, now);
        }
        Sent::Done {
            takers: way.ports.len(),
        }
    }

    #[cold]
    fn capture(&self, frame: &Frame<'_>, now: u64) {
        let ticks = u128::from(now.saturating_sub(self.start));
        let nanoseconds = (ticks * 1_000_000_000 / u128::from(self.tsc_hz.max(1))) as u64;
        self.capture
            .lock()
            .push(nanoseconds, frame.length(), |into| {
                frame.read(0, into).unwrap_or(0)
            });
    }

    /// Takes the cards off the bus for good. The peer, if there is one, is told first: on the LAN, where guests' frames may be on
    /// their way, and when those are, on the link. Waits for no lock.
    pub(crate) fn stop_cards(&self) {
        if let Some(mirror) = &self.mirror {
            mirror.die(self, Path::Lan);
        }
        for port in &self.ports {
            if let End::Uplink(uplink) = &port.end {
                uplink.nic().stop();
            }
        }
        if let Some(mirror) = &self.mirror {
            mirror.die(self, Path::Link);
            mirror.stop_card();
        }
    }

    /// Makes the tender look soon.
    fn attend(&self) {
        if self.turns.want() {
            cpu::attend(TENDER);
        }
    }

    /// An interrupt of a card.
    pub(crate) fn interrupt(&self) {
        let mut claimed = false;
        for port in &self.ports {
            if let End::Uplink(uplink) = &port.end {
                claimed |= uplink.interrupt();
            }
        }
        if let Some(mirror) = &self.mirror {
            claimed |= mirror.interrupt();
        }
        self.turns.want();
        if self.pins.note(claimed) {
            self.give_pins_up();
        }
    }

    /// Something else holds an input that a card shares with it, and nobody here can quiet that: such cards are polled.
    #[cold]
    fn give_pins_up(&self) {
        for port in &self.ports {
            if let End::Uplink(uplink) = &port.end
                && let Some(input) = uplink.pin()
            {
                self.pins.mask(input);
                uplink.poll();
                warn!(
                    "uplink {}: interrupts at {input} that are no card's: masked, and the card is polled",
                    port.name
                );
            }
        }
    }

    /// For the tender: does what is to be done now, for some microseconds at most, and not when it would make one of these timers, in the
    /// board's TSC, late.
    #[inline]
    pub(crate) fn tend(&self, now: u64, timers: impl Iterator<Item = u64>) {
        if self.turns.are_due(now) {
            self.take_turn(now, timers);
        }
    }

    /// For the tender: when, in the board's TSC, it must look at the latest.
    #[inline]
    pub(crate) fn next_look(&self) -> u64 {
        self.turns.next_look()
    }

    /// For the tender, where no guest wants to run: whether it is to go on at once with what the last turn left.
    pub(crate) fn hurries(&self) -> bool {
        self.turns.hurry()
    }

    #[cold]
    fn take_turn(&self, now: u64, timers: impl Iterator<Item = u64>) {
        if let Some(limits) = self.turns.begin(now, timers) {
            cpu::before_look(TENDER, || {
                let turn = self.look_after_all(now, limits);
                self.turns.end(turn);
            });
        }
    }

    /// Looks after one part of the network after the other. Where there is no time for all of them, the next turn begins with the first
    /// that had none.
    fn look_after_all(&self, now: u64, limits: Limits) -> Turn {
        let parts = self.ports.len() + 2;
        let first = self.first.swap(0, Ordering::Relaxed);
        let mut all = Turn::default();
        for part in (first..parts).chain(0..first) {
            if tsc::read() >= limits.last {
                self.first.store(part, Ordering::Relaxed);
                all.more = true;
                break;
            }
            let turn = self.look_after(part, now, limits.until);
            all.more |= turn.more;
            all.next = all.next.min(turn.next);
        }
        all
    }

    /// Looks after a port by its number, or behind those the mirror and the station.
    fn look_after(&self, part: usize, now: u64, until: u64) -> Turn {
        let Some(port) = self.ports.get(part) else {
            let turn = if part == self.ports.len() {
                self.mirror.as_ref().map(|it| it.turn(self, now, until))
            } else {
                self.station.as_ref().map(|it| it.turn(self, now))
            };
            return turn.unwrap_or_default();
        };
        let End::Uplink(uplink) = &port.end else {
            return Turn::default();
        };
        if let Some(up) = uplink.watch(now) {
            self.switch.lock().set_carrier(port.id, up);
        }
        uplink.turn(now, until, |frame| {
            let taken = self.mirror.as_ref().is_some_and(|it| it.takes(frame, now));
            if !taken {
                self.forward(port, frame);
            }
        })
    }
}

/// A guest's cards, from the other side of the switch.
#[derive(Clone, Copy)]
pub(crate) struct GuestNetwork {
    /// One for each card, in their order.
    ports: &'static [Port],
}

impl GuestNetwork {
    /// The cards of a guest.
    pub(crate) fn of(guest: &GuestHandle) -> Self {
        let all = network().map_or(&[][..], |network| &network.ports);
        let own =
            |port: &Port| matches!(&port.end, End::Guest(end) if end.guest.index == guest.index);
        let first = all.iter().position(own).unwrap_or(0);
        let count = all.iter().filter(|port| own(port)).count();
        Self {
            ports: all.get(first..first + count).unwrap_or(&[]),
        }
    }

    fn end(self, nic: u8) -> Option<&'static guest_end::GuestEnd> {
        match &self.ports.get(usize::from(nic))?.end {
            End::Guest(end) => Some(end),
            End::Uplink(_) | End::Station(_) => None,
        }
    }

    /// A frame leaves a card: it is sent, or held as long as it may not be seen.
    pub(crate) fn put(self, guest: &GuestHandle, nic: u8, frame: &Frame<'_>) -> Sent {
        let Some(outputs) = &guest.outputs else {
            return self.send(nic, frame);
        };
        if let Some(within) = outputs.inside(frame)
            && let Some(sent) = self.send_within(within, nic, frame)
        {
            outputs.passed_inside();
            return sent;
        }
        match outputs.put_frame(nic, frame) {
            Put::Passes => self.send(nic, frame),
            Put::Held => Sent::Done { takers: 1 },
            Put::Full => Sent::Busy,
        }
    }

    /// Sends a frame from a card, if it goes by no other ports than these.
    fn send_within(self, within: PortSet, nic: u8, frame: &Frame<'_>) -> Option<Sent> {
        let (Some(network), Some(port)) = (network(), self.ports.get(usize::from(nic))) else {
            return Some(Sent::DROPPED);
        };
        network.forward_within(within, port, frame)
    }

    /// The ports of the cards, and the stations behind them.
    pub(crate) fn stations(self) -> impl Iterator<Item = (PortId, MacAddress)> {
        self.ports.iter().filter_map(|port| match &port.end {
            End::Guest(end) => Some((port.id, end.mac)),
            End::Uplink(_) | End::Station(_) => None,
        })
    }

    /// Sends a frame from a card.
    pub(crate) fn send(self, nic: u8, frame: &Frame<'_>) -> Sent {
        let (Some(network), Some(port)) = (network(), self.ports.get(usize::from(nic))) else {
            return Sent::DROPPED;
        };
        network.forward(port, frame)
    }

    /// Lets everybody know that the guest's cards are here now.
    pub(crate) fn announce(self) {
        for (nic, port) in (0..).zip(self.ports) {
            if let End::Guest(end) = &port.end {
                let bytes = net::announcement(end.mac);
                self.send(nic, &Frame::of_bytes(&bytes, net::Offload::default()));
            }
        }
    }

    /// A card lends its receive queues: frames come from here on.
    pub(crate) fn lend(self, nic: u8, receiver: Receiver) {
        if let Some(end) = self.end(nic) {
            end.lend(receiver);
        }
    }

    /// A card gets its queues back: nobody works on them from here on.
    pub(crate) fn take_back(self, nic: u8) -> Option<Receiver> {
        self.end(nic)?.take_back()
    }

    /// Whether frames wait for a card to have room.
    pub(crate) fn waits_for_room(self, nic: u8) -> bool {
        self.end(nic)
            .is_some_and(guest_end::GuestEnd::waits_for_room)
    }

    /// Shows the cards what has come for them. Returns whether they are to be shown more.
    pub(crate) fn feed(self, pc: &mut Pc, now: Ticks, effects: &mut impl Effects) -> bool {
        let mut more = false;
        for port in self.ports {
            if let End::Guest(end) = &port.end {
                more |= end.feed(pc, now, effects);
            }
        }
        more
    }

    /// A run of the guest begins: its stations are here, and nowhere else.
    pub(crate) fn open(self) {
        self.set_open(true);
        for port in self.ports {
            if let End::Guest(end) = &port.end {
                end.open();
            }
        }
    }

    /// The guest's run is over: nothing reaches it any more. What it has not noticed of what came is kept for a guest that
    /// `goes_on`.
    pub(crate) fn close(self, goes_on: bool) {
        self.set_open(false);
        for port in self.ports {
            if let End::Guest(end) = &port.end {
                end.close(goes_on);
            }
        }
    }

    /// From here on, what comes for the cards is kept, until they have their queues again ([`Self::release`]).
    pub(crate) fn hold(self) {
        for port in self.ports {
            if let End::Guest(end) = &port.end {
                end.hold();
            }
        }
    }

    /// Gives the cards what was kept for them.
    pub(crate) fn release(self) {
        for port in self.ports {
            if let End::Guest(end) = &port.end {
                end.release();
            }
        }
    }

    /// The guest, whose cards are [held](Self::hold), stands still for longer than a moment.
    pub(crate) fn stand(self) {
        for port in self.ports {
            if let End::Guest(end) = &port.end {
                end.stand();
            }
        }
    }

    /// Puts the next frame that came for one of the cards since the guest stands still, or went to the other board, into `frame`; for which card. It stays
    /// for a guest that may go on.
    pub(crate) fn pass(self, frame: &mut alloc::vec::Vec<u8>) -> Option<u8> {
        let mut numbers = (0..).zip(self.ports);
        numbers.find_map(|(nic, port)| match &port.end {
            End::Guest(end) if end.pass(|bytes| frame.extend_from_slice(bytes)) => Some(nic),
            _ => None,
        })
    }

    /// From here on what comes for the cards of a guest that stands still is kept for the other board; or it is no longer.
    pub(crate) fn follow(self, follow: bool) {
        for port in self.ports {
            if let End::Guest(end) = &port.end {
                end.follow(follow);
            }
        }
    }

    /// Gives a card a whole frame that came for it on the other board; whether that is done with, or it has no room yet.
    pub(crate) fn bring(self, nic: u8, frame: &[u8]) -> bool {
        let frame = Frame::of_bytes(frame, net::Offload::default());
        self.end(nic).is_none_or(|end| end.bring(&frame))
    }

    fn set_open(self, open: bool) {
        let Some(network) = network() else { return };
        let mut switch = network.switch.lock();
        for port in self.ports {
            switch.open(port.id, open);
        }
    }
}

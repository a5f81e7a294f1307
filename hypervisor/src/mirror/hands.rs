//! What a node of the mirror has done by the board.

use super::arrivals::Arrivals;
use super::drill::{self, Step};
use super::group::{Group, Outcome};
use super::kept::Kept;
use super::outputs::{Output, Outputs};
use super::state::MirroredV1;
use super::{ETHERNET_HEADER, broadcast_header};
use crate::console;
use crate::cpu;
use crate::guest::{self, Command, GuestHandle, GuestState};
use crate::machine::PageId;
use crate::memory::PhysicalMemory;
use crate::network::{GuestNetwork, network};
use alloc::vec::Vec;
use core::time::Duration;
use devices::nic::Sent;
use log::{error, info, warn};
use mirror::{
    Area, Board, Epoch, Gate, Inspection, Instant, Memory, Order, Path, Place, Protection, Report,
    Tell,
};
use spin::Mutex;

/// Frames of each guest that leave in one turn at most.
const BATCH: usize = 32;

/// The board, as a node sees it.
pub(super) struct Hands {
    /// Guests whose state is mirrored, and those of which only the image is kept.
    groups: Vec<Group>,
    pub(super) cold: Vec<&'static GuestHandle>,
    pub(super) gate: Gate,
    /// The guests were stopped, to serve no longer.
    stopped: bool,
    /// The guest whose lead was called and has not come yet, and since when, by the board's TSC.
    calls: Option<(&'static GuestHandle, u64)>,
    /// The board's TSC when that was looked at last.
    looked: u64,
    pub(super) arrivals: Arrivals,
    /// Something for the witness.
    pub(super) question: Vec<u8>,
    frame: Vec<u8>,
    frames: &'static Mutex<PhysicalMemory>,
    /// The board's TSC when the node was called, and what the node was told it is.
    now: (u64, Instant),
    /// When a frame of the peer's came last that was not dropped, on whichever path.
    heard: Option<Instant>,
}

impl Hands {
    pub(super) fn new(
        groups: Vec<Group>,
        cold: Vec<&'static GuestHandle>,
        frames: &'static Mutex<PhysicalMemory>,
    ) -> Self {
        Self {
            groups,
            cold,
            gate: Gate::Closed,
            stopped: false,
            calls: None,
            looked: 0,
            arrivals: Arrivals::new(),
            question: Vec::new(),
            frame: Vec::new(),
            frames,
            now: (0, Instant(0)),
            heard: None,
        }
    }

    /// The node is about to be called, at this time.
    pub(super) const fn be_called(&mut self, tsc: u64, instant: Instant) {
        self.now = (tsc, instant);
    }

    /// The peer is heard.
    pub(super) const fn hear(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// All guests whose state is mirrored.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Kept> {
        self.groups.iter().flat_map(Group::members)
    }

    fn kept_mut(&mut self, guest: u8) -> Option<&mut Kept> {
        let mut all = self.groups.iter_mut().flat_map(Group::members_mut);
        all.find(|kept| kept.number() == guest)
    }

    fn group(&mut self, number: u8) -> Option<&mut Group> {
        let mut groups = self.groups.iter_mut();
        groups.find(|group| group.number() == number)
    }

    /// The same, each with the number of its group.
    pub(super) fn by_groups(&self) -> impl Iterator<Item = (u8, &Kept)> {
        self.groups.iter().flat_map(|group| {
            let members = group.members().iter();
            members.map(|kept| (group.number(), kept))
        })
    }

    /// The next thing that has come of an order: of which group.
    pub(super) fn poll(&mut self) -> Option<(u8, Outcome)> {
        let frames = self.frames;
        self.groups
            .iter_mut()
            .find_map(|group| Some((group.number(), group.poll(frames)?)))
    }

    /// The guest whose lead was called so many ticks ago or more, and does not come. Time in which the whole board did not run
    /// does not count.
    pub(super) fn stuck(&mut self, tsc: u64, patience: u64) -> Option<&'static GuestHandle> {
        let called = self.kept().find(|kept| kept.calls());
        let called = called.map(|kept| kept.guest);
        let rested = tsc.saturating_sub(self.looked) >= patience / 4;
        self.looked = tsc;
        self.calls = match (called, self.calls) {
            (Some(guest), Some((before, since))) if before.index == guest.index && !rested => {
                Some((guest, since))
            }
            (called, _) => called.map(|guest| (guest, tsc)),
        };
        let late = |(_, since): &(_, u64)| tsc.saturating_sub(*since) >= patience;
        self.calls.filter(late).map(|(guest, _)| guest)
    }

    /// Whether something is under way with a guest's lead.
    pub(super) fn is_busy(&self) -> bool {
        self.groups.iter().any(Group::is_busy)
    }

    /// Lets out what may leave. Whether there may be more.
    pub(super) fn release(&self, now: Instant) -> bool {
        let mut more = false;
        for kept in self.kept() {
            let Some(outputs) = kept.guest.outputs.as_ref().filter(|it| it.waits()) else {
                continue;
            };
            let cards = GuestNetwork::of(kept.guest);
            let mut count = 0;
            outputs.release(|output| {
                // The last look before it is on its way.
                if count == BATCH || !self.gate.open(now) {
                    more |= count == BATCH;
                    return false;
                }
                if count > 0 {
                    drill::at(Step::Release);
                }
                count += 1;
                match output {
                    Output::Frame(nic, frame) => cards.send(*nic, frame) != Sent::Busy,
                    Output::Console(text) => {
                        console::write_guest(kept.guest, text);
                        true
                    }
                }
            });
        }
        more
    }

    fn all(&self) -> impl Iterator<Item = &'static GuestHandle> + '_ {
        let warm = self.kept().map(|kept| kept.guest);
        warm.chain(self.cold.iter().copied())
    }
}

fn start(guest: &GuestHandle) {
    if !guest.command(Command::Start) {
        error!("{}: too many commands wait for its processor", guest.name);
    }
}

fn page(place: Place) -> PageId {
    let Area(area) = place.area;
    PageId {
        area,
        number: u64::from(place.number),
    }
}

/// What is staged is inside, since the node was told how large the guests are; should it not be, the understudy is as it was, and its
/// digest differs.
impl Memory for Hands {
    fn clear(&mut self, place: Place) {
        if let Some(kept) = self.kept_mut(place.guest) {
            let _ = kept.understudy.clear(page(place));
        }
    }

    fn bring(&mut self, place: Place) {
        if let Some(kept) = self.kept_mut(place.guest) {
            let _ = kept.understudy.bring(page(place));
        }
    }

    fn write(&mut self, place: Place, offset: usize, bytes: &[u8]) {
        drill::at(Step::Stage);
        if let Some(kept) = self.kept_mut(place.guest) {
            let _ = kept.understudy.amend(page(place), offset, bytes);
        }
    }

    fn flip(&mut self, place: Place) {
        drill::at(Step::Flip);
        if let Some(kept) = self.kept_mut(place.guest) {
            let _ = kept.understudy.flip(page(place));
        }
    }
}

impl Board for Hands {
    type Checkpoint = Group;

    fn send(&mut self, path: Path, frame: &[u8]) {
        let Some((network, mirror)) = network().and_then(|it| Some((it, it.mirror()?))) else {
            return;
        };
        let Some(uplink) = mirror.uplink(network, path) else {
            return;
        };
        self.frame.clear();
        self.frame.extend_from_slice(&broadcast_header(uplink));
        self.frame.extend_from_slice(frame);
        let length = self.frame.len().max(drivers::nic::FRAME_MIN);
        self.frame.resize(length, 0);
        debug_assert!(length > ETHERNET_HEADER);
        // What cannot be sent now is lost, as on a wire.
        uplink.send_bytes(&self.frame);
    }

    fn ask(&mut self, datagram: &[u8]) {
        self.question.clear();
        self.question.extend_from_slice(datagram);
    }

    fn order(&mut self, group: u8, order: Order) {
        match order {
            Order::Freeze => drill::at(Step::Freeze),
            Order::FreezeForGood => drill::at(Step::HandOver),
            Order::Track | Order::Pass | Order::Untrack => {}
        }
        let Some(group) = self.group(group) else {
            return;
        };
        group.order(order);
        if order == Order::Untrack {
            let guests = group.members().iter().map(|kept| kept.guest);
            let outputs = guests.filter_map(|guest| guest.outputs.as_ref());
            outputs.for_each(Outputs::let_go);
        }
    }

    fn checkpoint(&mut self, group: u8) -> Option<&mut Group> {
        self.group(group)
    }

    fn presses(&mut self, group: u8) -> bool {
        self.group(group).is_some_and(|group| group.presses())
    }

    fn acknowledge(&mut self, group: u8, epoch: Epoch) {
        drill::at(Step::Acknowledge);
        if let Some(group) = self.group(group) {
            group.acknowledge(epoch);
        }
    }

    fn inspect(&mut self, guest: u8, state: &[u8], first: bool) -> Inspection {
        self.kept_mut(guest)
            .map_or(Inspection::Good, |kept| kept.inspect(state, first))
    }

    fn gate(&mut self, gate: Gate) {
        self.gate = gate;
    }

    fn start(&mut self) {
        self.all().for_each(start);
    }

    fn resume(&mut self, guest: u8, state: &[u8], time: u64) {
        let (tsc, now) = self.now;
        let Some(kept) = self.kept_mut(guest) else {
            return;
        };
        kept.leave_inspection();
        let guest = kept.guest;
        match MirroredV1::decode(state) {
            Ok(MirroredV1::Stays) => return info!("{}: did not run, and does not", guest.name),
            Ok(MirroredV1::Starts) => start(guest),
            Ok(MirroredV1::Runs { machine, ahead, .. }) => {
                let time = time.saturating_add_signed(ahead);
                kept.machine.resume(machine.to_vec(), time, tsc);
            }
            Err(error) => return error!("{}: cannot be resumed: {error}", guest.name),
        }
        self.arrivals.add(guest, now);
    }

    fn start_cold(&mut self) {
        let (_, now) = self.now;
        for guest in &self.cold {
            start(guest);
            self.arrivals.add(guest, now);
        }
    }

    fn go_on(&mut self) {
        self.groups.iter_mut().for_each(Group::go_on);
        let free = self.groups.iter().filter(|group| !group.is_tracked());
        for kept in free.flat_map(Group::members) {
            if let Some(outputs) = &kept.guest.outputs {
                outputs.let_go();
            }
        }
        // Those that were stopped have no state to go on from but their images.
        if core::mem::take(&mut self.stopped) {
            self.all()
                .filter(|guest| guest.state() != GuestState::Running)
                .for_each(start);
        }
    }

    fn suspend(&mut self) {
        // They come as far as there is room for what they put out.
        for kept in self.kept() {
            if let Some(outputs) = &kept.guest.outputs {
                outputs.hold();
            }
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
        for kept in self.groups.iter().flat_map(Group::members) {
            self.arrivals.leave(kept.guest);
            if kept.keeps_inputs {
                GuestNetwork::of(kept.guest).follow(true);
            }
            kept.machine.fence();
            if let Some(outputs) = &kept.guest.outputs {
                outputs.drop_all();
            }
        }
        for guest in &self.cold {
            self.arrivals.leave(guest);
            guest.command(Command::Stop);
        }
        cpu::attend(crate::network::TENDER);
    }

    fn releases(&mut self, group: u8) -> bool {
        self.group(group).is_some_and(|group| group.releases())
    }

    fn input(&mut self, group: u8, frame: &mut Vec<u8>) -> Option<(u8, u8)> {
        self.group(group)?.input(frame)
    }

    fn end_inputs(&mut self, group: u8) {
        if let Some(group) = self.group(group) {
            group.end_inputs();
        }
    }

    fn deliver(&mut self, guest: u8, card: u8, frame: &[u8]) -> bool {
        // One that does not run yet will.
        self.kept_mut(guest).is_some_and(|kept| {
            kept.guest.state() == GuestState::Running
                && GuestNetwork::of(kept.guest).bring(card, frame)
        })
    }

    fn tell(&mut self, report: Report) {
        match report {
            // How long it took to see that the peer is gone.
            Report::Role(Tell::Asking { .. } | Tell::Serves(_)) if self.heard.is_some() => {
                let (_, now) = self.now;
                let silence = self.heard.map_or(0, |heard| now.0.saturating_sub(heard.0));
                let silence = Duration::from_micros(silence / 1000);
                info!("mirror: {report}; the peer was heard {silence:?} ago");
            }
            Report::Role(
                Tell::Role { .. }
                | Tell::Serves(_)
                | Tell::Path { .. }
                | Tell::PeerStarted(_)
                | Tell::Protection(Protection::Protected),
            ) => info!("mirror: {report}"),
            Report::Role(_) | Report::Refused(_) | Report::Nonsense(_) => warn!("mirror: {report}"),
        }
    }
}

/// The guests that a pair carries, by how they are mirrored.
pub(super) fn mirrored(
    guests: &[config::Guest],
) -> impl Iterator<Item = (&config::Guest, config::GuestMirror, &'static GuestHandle)> {
    let all = guests.iter().zip(guest::all());
    all.filter_map(|(config, handle)| Some((config, config.mirror?, handle)))
}

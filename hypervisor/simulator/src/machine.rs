//! What a board does for its node: guests, their checkpoints, and the queues of what they put out.

use crate::guest::{Execution, Guest, Reply, Request};
use crate::scenario::{GROUPS, Mutation};
use mirror::{
    Board, Checkpoint, Epoch, Gate, Inspection, Instant, Memory, Order, OutputGate, PAGE_SIZE,
    Page, Path, Place, Report,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long it takes until a guest that is resumed runs.
const READY: Duration = Duration::from_millis(2);
/// Most requests that are kept for a group.
const KEPT: usize = 100;
/// The guests' only card.
const CARD: u8 = 0;

/// A group that has written more pages than these ends its epoch early.
const PRESSING: usize = 6;

/// A group's checkpoint. The pages are copies.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    /// What the backup has.
    known: BTreeMap<Place, Box<Page>>,
    pages: VecDeque<(Place, Box<Page>)>,
    states: VecDeque<(u8, Vec<u8>)>,
    /// Bytes of the first state that are told.
    told: usize,
}

impl Checkpoint for Captured {
    fn front(&self) -> Option<Place> {
        self.pages.front().map(|(place, _)| *place)
    }

    fn look<R>(&self, look: impl FnOnce(&Page, Option<&Page>) -> R) -> R {
        match self.pages.front() {
            Some((place, page)) => look(page, self.known.get(place).map(AsRef::as_ref)),
            None => look(&[0; PAGE_SIZE], None),
        }
    }

    fn told(&mut self) {
        if let Some((place, page)) = self.pages.pop_front() {
            self.known.insert(place, page);
        }
    }

    fn state(&mut self, out: &mut [u8]) -> Option<(u8, u32, usize)> {
        let (guest, state) = self.states.front()?;
        let (guest, from) = (*guest, self.told);
        let length = out.len().min(state.len() - from);
        out[..length].copy_from_slice(&state[from..from + length]);
        self.told += length;
        if self.told == state.len() {
            self.states.pop_front();
            self.told = 0;
        }
        Some((guest, from as u32, length))
    }
}

/// Something that a guest puts out, and the epoch that it belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) group: u8,
    pub(crate) reply: Reply,
    pub(crate) epoch: Epoch,
}

#[derive(Debug)]
struct Group {
    number: u8,
    guests: Vec<Guest>,
    /// What the guests put out is held for the sake of epochs.
    holding: bool,
    /// They are frozen for good.
    frozen: bool,
    /// They went to the other board, and what still comes for them is kept.
    gone: bool,
    /// What was kept for them, and how many of these were told.
    inputs: VecDeque<Request>,
    told: usize,
    /// Epochs that ended.
    sealed: Epoch,
    gate: OutputGate,
    outputs: VecDeque<Output>,
    captured: Captured,
    /// Orders that are not carried out yet.
    orders: VecDeque<Order>,
}

/// What the guests do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// Nothing: there are none, or somebody else's.
    Stopped,
    /// They run.
    Running,
    /// They wait.
    Suspended,
}

/// How the guests came to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// From nothing.
    Started,
    /// From the understudy.
    Resumed,
    /// From where they were.
    WentOn,
}

/// A checkpoint that was taken, for the judge.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) group: u8,
    pub(crate) epoch: Epoch,
    /// Of the group's guests, in nanoseconds.
    pub(crate) time: u64,
    /// Of each guest of the group.
    pub(crate) guests: Vec<Past>,
}

/// What a guest's state is as of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) guest: u8,
    /// Of the last execution.
    pub(crate) name: u64,
    /// Of memory and state.
    pub(crate) digest: u64,
}

/// What the node wants, to be done by the world.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) frames: Vec<(Path, Vec<u8>)>,
    pub(crate) asks: Vec<Vec<u8>>,
    /// Groups with a new order.
    pub(crate) orders: Vec<u8>,
    pub(crate) reports: Vec<Report>,
    pub(crate) served: Vec<Served>,
    /// Guests as they went on from their understudies.
    pub(crate) resumed: Vec<Past>,
    pub(crate) executions: Vec<Execution>,
}

/// What a carried-out order leads to.
#[derive(Debug)]
pub(crate) enum Done {
    /// So many pages were handed over.
    Passed(u32),
    /// The group is frozen, or was.
    Frozen(Snapshot),
}

/// A board beside its node.
#[derive(Debug)]
pub(crate) struct Machine {
    mutation: Option<Mutation>,
    /// What the board's clock shows.
    pub(crate) now: Instant,
    /// Makes names for what stands before a guest's first execution.
    names: u64,
    groups: Vec<Group>,
    pub(crate) run: Run,
    /// From when on resumed guests run and take frames.
    ready: Instant,
    pub(crate) gate: Gate,
    pub(crate) wishes: Wishes,
}

impl Machine {
    pub(crate) fn new(names: u64, mutation: Option<Mutation>, now: Instant) -> Self {
        let groups = GROUPS.iter().map(|group| Group {
            number: group.number,
            guests: group
                .guests
                .iter()
                .map(|(number, areas)| Guest::new(*number, areas))
                .collect(),
            holding: false,
            frozen: false,
            gone: false,
            inputs: VecDeque::new(),
            told: 0,
            sealed: Epoch::default(),
            gate: OutputGate::new(),
            outputs: VecDeque::new(),
            captured: Captured::default(),
            orders: VecDeque::new(),
        });
        Self {
            mutation,
            now,
            names,
            groups: groups.collect(),
            run: Run::Stopped,
            ready: now,
            gate: Gate::Closed,
            wishes: Wishes::default(),
        }
    }

    fn guest(&mut self, number: u8) -> Option<&mut Guest> {
        let mut guests = self.groups.iter_mut().flat_map(|group| &mut group.guests);
        guests.find(|guest| guest.number == number)
    }

    fn group(&mut self, number: u8) -> Option<&mut Group> {
        let mut groups = self.groups.iter_mut();
        groups.find(|group| group.number == number)
    }

    /// Each guest's last execution.
    pub(crate) fn names(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        let guests = self.groups.iter().flat_map(|group| &group.guests);
        guests.map(|guest| (guest.number, guest.name()))
    }

    /// A request comes by the network.
    pub(crate) fn request(&mut self, request: Request) {
        let keeps = self.mutation != Some(Mutation::LostInputs);
        let (run, ready) = (self.run, self.now >= self.ready);
        let Some(group) = self
            .groups
            .iter_mut()
            .find(|group| group.has(request.guest))
        else {
            return;
        };
        if group.gone || group.frozen && run != Run::Stopped {
            if keeps && group.inputs.len() < KEPT {
                group.inputs.push_back(request);
            }
        } else if run == Run::Running && ready {
            group.receive(request);
        }
    }

    /// Lets the guests run for a little.
    pub(crate) fn run(&mut self) {
        if self.run != Run::Running || self.now < self.ready {
            return;
        }
        let early = self.mutation == Some(Mutation::EarlyRelease);
        let Self {
            groups,
            wishes,
            now,
            ..
        } = self;
        for group in groups.iter_mut().filter(|group| !group.frozen) {
            let Group {
                number,
                guests,
                holding,
                sealed,
                gate,
                outputs,
                ..
            } = group;
            for guest in guests {
                let executed = |execution| wishes.executions.push(execution);
                guest.run(now.0, executed, |reply| {
                    gate.put();
                    if !*holding || early {
                        gate.release();
                    }
                    outputs.push_back(Output {
                        group: *number,
                        reply,
                        epoch: sealed.next(),
                    });
                });
            }
        }
    }

    /// Takes an output out that may leave now.
    pub(crate) fn output(&mut self) -> Option<Output> {
        if !self.gate.open(self.now) || self.run == Run::Stopped {
            return None;
        }
        let mut groups = self.groups.iter_mut();
        let group = groups.find(|group| group.gate.free() > 0)?;
        group.gate.take();
        group.outputs.pop_front()
    }

    /// Carries out a group's next order.
    pub(crate) fn obey(&mut self, number: u8) -> Option<Done> {
        let now = self.now.0;
        let omitted = self.mutation == Some(Mutation::OmittedMarks);
        let group = self.group(number)?;
        let order = group.orders.pop_front()?;
        let Captured { pages, .. } = &mut group.captured;
        for guest in &mut group.guests {
            let marked = |mark: crate::guest::Mark| mark.hardware || mark.hypervisor && !omitted;
            guest.collect(marked, |place, page| {
                pages.push_back((place, Box::new(*page)))
            });
        }
        if order == Order::Pass {
            return Some(Done::Passed(group.captured.pages.len() as u32));
        }
        group.holding = true;
        group.frozen |= order == Order::FreezeForGood;
        group.sealed = group.gate.seal();
        let time = group.guests.iter().map(|guest| guest.time(now)).max();
        let mut guests = Vec::new();
        for guest in &group.guests {
            let state = guest.save();
            guests.push(Past {
                guest: guest.number,
                name: guest.name(),
                digest: guest.digest(&state),
            });
            group.captured.states.push_back((guest.number, state));
        }
        Some(Done::Frozen(Snapshot {
            group: number,
            epoch: group.sealed,
            time: time.unwrap_or(0),
            guests,
        }))
    }
}

impl Group {
    fn has(&self, guest: u8) -> bool {
        self.guests.iter().any(|it| it.number == guest)
    }

    fn receive(&mut self, request: Request) {
        let mut guests = self.guests.iter_mut();
        if let Some(guest) = guests.find(|guest| guest.number == request.guest) {
            guest.receive(request);
        }
    }

    /// They go on from where they stood still, with what was kept for them.
    fn thaw(&mut self) {
        if core::mem::take(&mut self.frozen) {
            for request in core::mem::take(&mut self.inputs) {
                self.receive(request);
            }
        }
        self.forget();
    }

    /// Nothing is kept any more.
    fn forget(&mut self) {
        (self.gone, self.told) = (false, 0);
        self.inputs.clear();
    }
}

impl Memory for Machine {
    fn clear(&mut self, place: Place) {
        let unstaged = self.mutation == Some(Mutation::Unstaged);
        if let Some((live, staged)) = self.guest(place.guest).and_then(|guest| guest.page(place)) {
            if unstaged {
                live.fill(0);
            }
            staged.fill(0);
        }
    }

    fn bring(&mut self, place: Place) {
        if let Some((live, staged)) = self.guest(place.guest).and_then(|guest| guest.page(place)) {
            *staged = *live;
        }
    }

    fn write(&mut self, place: Place, offset: usize, bytes: &[u8]) {
        let unstaged = self.mutation == Some(Mutation::Unstaged);
        if let Some((live, staged)) = self.guest(place.guest).and_then(|guest| guest.page(place)) {
            if unstaged {
                live[offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            staged[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn flip(&mut self, place: Place) {
        if let Some((live, staged)) = self.guest(place.guest).and_then(|guest| guest.page(place)) {
            *live = *staged;
        }
    }
}

impl Board for Machine {
    type Checkpoint = Captured;

    fn send(&mut self, path: Path, frame: &[u8]) {
        self.wishes.frames.push((path, frame.to_vec()));
    }

    fn inspect(&mut self, _: u8, _: &[u8], _: bool) -> Inspection {
        // The judge looks at it when it is gone on from.
        Inspection::Good
    }

    fn ask(&mut self, datagram: &[u8]) {
        self.wishes.asks.push(datagram.to_vec());
    }

    fn order(&mut self, number: u8, order: Order) {
        let Some(group) = self.group(number) else {
            return;
        };
        match order {
            Order::Track | Order::Untrack => {
                group.orders.clear();
                group.captured = Captured::default();
                if !group.gone {
                    group.thaw();
                }
                group.holding = false;
                group.gate.release();
                group.guests.iter_mut().for_each(Guest::mark_all);
            }
            Order::Pass | Order::Freeze | Order::FreezeForGood => {
                group.orders.push_back(order);
                self.wishes.orders.push(number);
            }
        }
    }

    fn checkpoint(&mut self, number: u8) -> Option<&mut Captured> {
        self.group(number).map(|group| &mut group.captured)
    }

    fn presses(&mut self, number: u8) -> bool {
        self.group(number)
            .is_some_and(|group| group.guests.iter().map(Guest::marked).sum::<usize>() > PRESSING)
    }

    fn acknowledge(&mut self, number: u8, epoch: Epoch) {
        if let Some(group) = self.group(number) {
            group.gate.acknowledge(epoch);
        }
    }

    fn gate(&mut self, gate: Gate) {
        self.gate = gate;
    }

    fn start(&mut self) {
        let now = self.now.0;
        for group in &mut self.groups {
            group.frozen = false;
            group.forget();
            for guest in &mut group.guests {
                self.names = self.names.wrapping_add(1);
                guest.start(crate::chance::mix(self.names), now);
            }
        }
        self.run = Run::Running;
        self.wishes.served.push(Served::Started);
    }

    fn resume(&mut self, number: u8, state: &[u8], time: u64) {
        let now = self.now.0;
        self.ready = self.now + READY;
        if let Some(group) = self.groups.iter_mut().find(|group| group.has(number)) {
            group.frozen = false;
            group.forget();
        }
        if let Some(guest) = self.guest(number) {
            guest.load(state, time, now);
            let past = Past {
                guest: number,
                name: guest.name(),
                digest: guest.digest(state),
            };
            self.wishes.resumed.push(past);
        }
    }

    fn start_cold(&mut self) {
        self.run = Run::Running;
        self.wishes.served.push(Served::Resumed);
    }

    fn go_on(&mut self) {
        for group in &mut self.groups {
            group.thaw();
            for order in &mut group.orders {
                if *order == Order::FreezeForGood {
                    *order = Order::Freeze;
                }
            }
        }
        self.run = Run::Running;
        self.wishes.served.push(Served::WentOn);
    }

    fn suspend(&mut self) {
        self.run = Run::Suspended;
    }

    fn stop(&mut self) {
        self.run = Run::Stopped;
        for group in &mut self.groups {
            group.outputs.clear();
            group.gate.forget();
            if core::mem::take(&mut group.frozen) {
                group.inputs.drain(..group.told);
                (group.told, group.gone) = (0, true);
            }
        }
    }

    fn releases(&mut self, number: u8) -> bool {
        self.group(number)
            .is_some_and(|group| group.gate.free() > 0)
    }

    fn input(&mut self, number: u8, frame: &mut Vec<u8>) -> Option<(u8, u8)> {
        let group = self.group(number)?;
        let request = *group.inputs.get(group.told)?;
        if group.gone {
            group.inputs.pop_front();
        } else {
            group.told += 1;
        }
        request.write(frame);
        Some((request.guest, CARD))
    }

    fn end_inputs(&mut self, number: u8) {
        if let Some(group) = self.group(number) {
            group.forget();
        }
    }

    fn deliver(&mut self, guest: u8, card: u8, frame: &[u8]) -> bool {
        let request = Request::read(frame).filter(|request| request.guest == guest);
        let known = request.filter(|_| card == CARD);
        if self.run != Run::Running || self.now < self.ready {
            return false;
        }
        // The judge hears of what was not asked.
        let nobody = Request {
            guest,
            client: u8::MAX,
            number: 0,
        };
        let request = known.unwrap_or(nobody);
        if let Some(group) = self.groups.iter_mut().find(|group| group.has(guest)) {
            group.receive(request);
        }
        true
    }

    fn tell(&mut self, report: Report) {
        self.wishes.reports.push(report);
    }
}

//! Everything there is in a run, and the order in which it happens.

mod boards;
mod faults;
mod operator;

use crate::blade::{Blade, Inbound};
use crate::chance::Chance;
use crate::guest::{CLIENTS, Reply, Request};
use crate::judge::Judge;
use crate::machine::Output;
use crate::scenario::{DEAD, Fault, GROUPS, Scenario};
use crate::wire::{Quality, Wire, drop_it};
use crate::witness::Witness;
use mirror::{Path, Side, Term};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::time::Duration;

/// How long a client waits for an answer, in nanoseconds.
const CLIENT_PATIENCE: u64 = 30_000_000;
/// How long one waits that has patience: longer than any switchover takes.
const LONG_PATIENCE: u64 = 1_000_000_000;
/// How long it thinks at most.
const CLIENT_PAUSE: u64 = 40_000_000;
/// Turns in a row in which nothing else happens, at most.
const SPINS: u32 = 10_000;
/// Lines of the log that a failure shows.
const LINES: usize = 60;
/// The longest time that a frame is under way.
pub(crate) const LATE: Duration = Duration::from_millis(250);

const SIDES: [Side; 2] = [Side::A, Side::B];

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Events.
    pub steps: u64,
    /// Time of the simulation.
    pub time: Duration,
    /// Replies that clients saw.
    pub replies: u64,
    /// Understudies that went on.
    pub takeovers: u64,
    /// Times that the guests came to be protected.
    pub protections: u64,
    /// When they first did.
    pub first_protection: Option<Duration>,
    /// Boards that were killed while they said that the guests were protected.
    pub proofs: u64,
    /// Times that an operator had to decide.
    pub decisions: u64,
    /// Starts from nothing.
    pub starts: u64,
}

impl Figures {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.time += other.time;
        self.replies += other.replies;
        self.takeovers += other.takeovers;
        self.protections += other.protections;
        self.first_protection = self.first_protection.or(other.first_protection);
        self.proofs += other.proofs;
        self.decisions += other.decisions;
        self.starts += other.starts;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps in {:.0} s of boards' time, {} replies, {} takeovers, protected {} times, {} times killed then, \
             {} decisions of the operator, {} starts from nothing",
            self.steps,
            self.time.as_secs_f64(),
            self.replies,
            self.takeovers,
            self.protections,
            self.proofs,
            self.decisions,
            self.starts
        )
    }
}

/// Why the judge ended a run.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The run's.
    pub seed: u64,
    /// The event at which it was found.
    pub step: u64,
    /// The time of the simulation.
    pub time: Duration,
    /// What is wrong.
    pub what: String,
    /// What was told before, the last lines.
    pub log: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.log {
            writeln!(f, "{line}")?;
        }
        write!(
            f,
            "seed {}, step {}, {:?}: {}",
            self.seed, self.step, self.time, self.what
        )
    }
}

impl std::error::Error for Failure {}

#[derive(Debug)]
enum Event {
    /// A board's node has its turn.
    Turn { side: Side, life: u64 },
    /// A board's guests run a little.
    Run { side: Side, life: u64 },
    /// A group carries out an order.
    Obey { side: Side, life: u64, group: u8 },
    /// A frame of a guest's goes onto the wire; its term is that at the look at the gate.
    Transmit {
        side: Side,
        life: u64,
        output: Output,
        term: Term,
        held: bool,
    },
    /// Something arrives at a board.
    Arrive { side: Side, what: Inbound },
    /// A question arrives at the witness.
    Ask { side: Side, datagram: Vec<u8> },
    /// A reply arrives at its client.
    Reply(Reply),
    /// A client has its turn.
    Client(usize),
    /// A board tells the LAN that the guests are there.
    Announce { side: Side, life: u64 },
    /// The next thing goes wrong, or right again.
    Fault(Fault),
    /// The operator looks at the boards.
    Operator,
    /// A board is to have taken over by now.
    Expect { side: Side, life: u64 },
}

struct Timed {
    at: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

struct Client {
    request: Request,
    /// When it has its turn; none other counts.
    due: u64,
    /// The request is not asked for the first time, and was asked once the guests were protected.
    asked: bool,
    safe: bool,
    /// Answers that it got.
    answers: u64,
}

/// The wires of one board.
struct Wires {
    /// To the other board.
    link: Wire,
    lan: Wire,
    /// From and to clients and the witness.
    incoming: Wire,
    outgoing: Wire,
}

/// How links are, in a run each.
const LINKS: [Quality; 3] = [
    Quality::good(15, 40),
    Quality::good(200, 900),
    Quality::good(1000, 3000),
];
const LAN: Quality = Quality::good(60, 250);

impl Wires {
    const fn new(link: Quality) -> Self {
        Self {
            link: Wire::new(link),
            lan: Wire::new(LAN),
            incoming: Wire::new(LAN),
            outgoing: Wire::new(LAN),
        }
    }
}

struct World {
    scenario: Scenario,
    chance: Chance,
    now: u64,
    steps: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<Timed>>,
    blades: [Blade; 2],
    wires: [Wires; 2],
    /// The link, when it is well.
    link: Quality,
    /// It takes long until guests are frozen.
    slow_orders: bool,
    /// The link's cards see each other.
    carrier: bool,
    /// The link carries short frames only.
    short: bool,
    witness: Witness,
    clients: Vec<Client>,
    judge: Judge,
    lives: u64,
    spins: u32,
    /// When something was cut, off or standing still last.
    impaired: u64,
    /// Until when nothing new goes wrong.
    lull: u64,
    /// Nothing goes wrong any more.
    ended: bool,
    /// When a board served last.
    served: u64,
    /// Behind which board a switched LAN heard the guests last.
    heard: Option<Side>,
    /// The operator had a board go on, from whatever state.
    forced: Option<Side>,
    figures: Figures,
    log: VecDeque<String>,
}

const fn index(side: Side) -> usize {
    match side {
        Side::A => 0,
        Side::B => 1,
    }
}

const fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// Makes a run.
///
/// # Errors
///
/// [`Failure`] as soon as the judge finds something.
pub fn run(scenario: &Scenario) -> Result<Figures, Box<Failure>> {
    let mut world = World::new(scenario.clone());
    let result = world.all();
    let figures = Figures {
        steps: world.steps,
        time: Duration::from_nanos(world.now),
        replies: world.judge.seen,
        ..world.figures
    };
    match result {
        Ok(()) => Ok(figures),
        Err(what) => Err(Box::new(Failure {
            seed: scenario.seed,
            step: world.steps,
            time: figures.time,
            what,
            log: world.log.into(),
        })),
    }
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let guests = GROUPS.iter().flat_map(|group| group.guests);
        let requests = guests.flat_map(|(guest, _)| {
            (0..CLIENTS as u8).map(|client| Request {
                guest: *guest,
                client,
                number: 1,
            })
        });
        let clients = requests.map(|request| Client {
            request,
            due: 0,
            asked: false,
            safe: false,
            answers: 0,
        });
        let mut chance = Chance::new(scenario.seed);
        let link = chance.pick(&LINKS);
        let slow_orders = chance.permille(300);
        Self {
            chance,
            link,
            slow_orders,
            now: 0,
            steps: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            blades: [Blade::new(), Blade::new()],
            wires: [Wires::new(link), Wires::new(link)],
            carrier: true,
            short: false,
            witness: Witness::new(scenario.mutation),
            clients: clients.collect(),
            judge: Judge::default(),
            lives: 0,
            spins: 0,
            impaired: 0,
            lull: 0,
            ended: false,
            served: 0,
            heard: None,
            forced: None,
            figures: Figures::default(),
            log: VecDeque::new(),
            scenario,
        }
    }

    fn all(&mut self) -> Result<(), String> {
        for (at, fault) in self.scenario.faults.clone() {
            self.after(nanoseconds(at), Event::Fault(fault));
        }
        for side in SIDES {
            let at = self.chance.below(nanoseconds(DEAD) * 2);
            self.after(at, Event::Fault(Fault::Start(side)));
        }
        for client in 0..self.clients.len() {
            self.client_at(client, self.now + 1);
        }
        self.after(nanoseconds(DEAD), Event::Operator);
        let end = nanoseconds(self.scenario.length);
        self.until(end)?;
        self.recover()
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.log.len() == LINES {
            self.log.pop_front();
        }
        let time = Duration::from_nanos(self.now);
        self.log
            .push_back(format!("{:>10.3} ms {}", time.as_secs_f64() * 1e3, line()));
    }

    fn after(&mut self, delay: u64, event: Event) {
        let (at, sequence) = (self.now.saturating_add(delay), self.sequence);
        self.sequence += 1;
        self.queue.push(Reverse(Timed {
            at,
            sequence,
            event,
        }));
    }

    /// Lets everything happen up to a time.
    fn until(&mut self, end: u64) -> Result<(), String> {
        while let Some(Reverse(next)) = self.queue.peek()
            && next.at <= end
            && let Some(Reverse(next)) = self.queue.pop()
        {
            self.now = next.at;
            self.steps += 1;
            self.happens(next.event)?;
        }
        self.now = end;
        Ok(())
    }

    fn happens(&mut self, event: Event) -> Result<(), String> {
        if !matches!(event, Event::Turn { .. }) {
            self.spins = 0;
        }
        match event {
            Event::Turn { side, life } => self.turn(side, life),
            Event::Run { side, life } => self.guests(side, life),
            Event::Obey { side, life, group } => self.obey(side, life, group),
            Event::Transmit {
                side,
                life,
                output,
                term,
                held,
            } => self.transmit(side, life, &output, term, held),
            Event::Arrive { side, what } => self.arrive(side, what),
            Event::Ask { side, datagram } => self.ask(side, &datagram),
            Event::Reply(reply) => self.reply(&reply),
            Event::Client(client) => self.client(client),
            Event::Announce { side, life } => {
                if self.boot(side) == Some(life) {
                    self.heard = Some(side);
                }
                Ok(())
            }
            Event::Fault(fault) => self.fault(fault),
            Event::Operator => self.operator_looks(),
            Event::Expect { side, life } => self.expect(side, life),
        }
    }

    /// A question comes to the witness.
    fn ask(&mut self, side: Side, datagram: &[u8]) -> Result<(), String> {
        if !self.witness.reachable {
            return Ok(());
        }
        if let Some(answer) = self.witness.answer(datagram)? {
            self.send_in(side, Inbound::Answer(answer));
        }
        Ok(())
    }

    /// Puts something on a wire.
    fn carry<T: Clone>(
        &mut self,
        wire: Wire,
        what: T,
        damage: impl Fn(&mut T, &mut Chance) -> bool,
        arrives: impl Fn(T) -> Event,
    ) {
        for (delay, what) in wire.carry(what, &mut self.chance, damage) {
            self.after(nanoseconds(delay), arrives(what));
        }
    }

    /// Clients and the witness send to a board.
    fn send_in(&mut self, side: Side, what: Inbound) {
        let wire = self.wires[index(side)].incoming;
        if self.blades[index(side)].uplink {
            self.carry(wire, what, drop_it, |what| Event::Arrive { side, what });
        }
    }

    fn client_at(&mut self, client: usize, at: u64) {
        if let Some(of) = self.clients.get_mut(client) {
            of.due = at;
        }
        self.after(at.saturating_sub(self.now), Event::Client(client));
    }

    /// A client asks, or asks again.
    fn client(&mut self, client: usize) -> Result<(), String> {
        let protected = self.figures.first_protection.is_some();
        let Some(of) = self
            .clients
            .get_mut(client)
            .filter(|client| client.due == self.now)
        else {
            return Ok(());
        };
        let request = of.request;
        if !core::mem::replace(&mut of.asked, true) {
            of.safe = protected;
        } else if of.safe && self.scenario.lossless {
            return Err(format!("{request:?} must be asked again"));
        }
        let switched = self.scenario.switched;
        let heard = self.heard.filter(|_| switched);
        for side in SIDES {
            if heard.is_none_or(|heard| heard == side) {
                self.send_in(side, Inbound::Request(request));
            }
        }
        let longest = if self.scenario.lossless {
            LONG_PATIENCE
        } else {
            CLIENT_PATIENCE
        };
        let patience = self.chance.between(longest / 2, longest);
        self.client_at(client, self.now + patience);
        Ok(())
    }

    /// A client sees a reply.
    fn reply(&mut self, reply: &Reply) -> Result<(), String> {
        let serving = SIDES.into_iter().find_map(|side| {
            let blade = &self.blades[index(side)];
            let life = blade.life.as_ref()?;
            life.serves(blade.clock.shows(self.now))
                .then_some(&life.machine)
        });
        let states = serving.map(crate::machine::Machine::names);
        self.judge.sees(reply, states, self.now)?;
        let position = self
            .clients
            .iter()
            .position(|client| client.request == reply.request);
        if let Some(client) = position {
            let of = &mut self.clients[client];
            of.request.number += 1;
            of.asked = false;
            of.answers += 1;
            let pause = self.chance.between(100_000, CLIENT_PAUSE);
            self.client_at(client, self.now + pause);
        }
        Ok(())
    }

    /// Whether something is cut, off or standing still.
    fn is_impaired(&self) -> bool {
        let cut = self.wires.iter().any(|wires| {
            [&wires.link, &wires.lan]
                .iter()
                .any(|wire| wire.cut || wire.quality.loss > 0)
        });
        let boards = self
            .blades
            .iter()
            .any(|blade| blade.life.is_none() || blade.frozen || !blade.uplink);
        cut || boards || !self.carrier || self.short || !self.witness.reachable
    }

    const fn wire(&mut self, path: Path, from: Side) -> &mut Wire {
        let wires = &mut self.wires[index(from)];
        match path {
            Path::Link => &mut wires.link,
            Path::Lan => &mut wires.lan,
        }
    }
}

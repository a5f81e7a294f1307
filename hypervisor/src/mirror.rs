//! The mirror on this board: its node, by the board's clock, cards and guests.
//!
//! The tender of the network drives it ([`Network`]): frames of the link's card and of the LAN go to the node, and what the node wants
//! done is done by [`hands`].

mod arrivals;
mod drill;
mod facts;
mod figures;
mod group;
mod hands;
mod kept;
pub(crate) mod operator;
mod outputs;
mod report;
mod state;

pub(crate) use outputs::{Outputs, Put};

use crate::cpu::{self, Shared};
use crate::guest::GuestHandle;
use crate::machine::{Machine, StartFailure};
use crate::network::{Frame, Network, TENDER, Turn, Uplink, network};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use config::{Arbiter, Board, MirrorMode, OnSilence};
use core::hash::Hash;
use core::num::NonZeroU128;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use drill::Step;
use group::{Group, Outcome};
use hands::{Hands, mirrored};
use kept::Kept;
use log::{error, info};
use mirror::Side;
use mirror::witness::{Boot, Pair};
use mirror::{
    Command, ETHER_TYPE, Gate, GroupConfig, Instant, LinkConfig, Node, NodeConfig, Nonce, PairKey,
    PairingConfig, Path,
};
use siphasher::sip128::{Hasher128, SipHasher24};
use spin::Mutex;

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;
/// Segments of the link that may be under way.
const WINDOW: usize = 128;
/// Nanoseconds after which the tender looks again while guests' leads are at work for the mirror.
const SOON: u64 = 20_000;
/// In so many times the time after which a silent board counts as dead, a processor counts as stuck.
const STUCK: u64 = 2;
/// This part of a second a card gets to send what it has when the board ends.
const LAST_BREATH: u64 = 1000;
/// Rounds of work in one turn.
const ROUNDS: usize = 8;

/// The mirror.
pub(crate) struct Mirror {
    config: config::Mirror,
    /// The link's card, if it is there.
    card: Option<Uplink>,
    stage: Mutex<Stage>,
    /// A guest has failed that may do better on the other board.
    gives_way: AtomicBool,
    /// TSC ticks after which a processor that does not answer counts as stuck.
    patience: u64,
    tsc_hz: u64,
}

/// Where it is.
enum Stage {
    /// The guests' machines are being made.
    Waiting(Box<Board>),
    Running(Box<State>),
    /// There is no memory for it, or a guest could not be set up.
    Failed,
}

struct State {
    node: Node,
    hands: Hands,
    /// Whether the uplink was up when the node was last told.
    uplink: bool,
}

impl State {
    /// The node and the board as it sees it, to be called at this time of the board's TSC.
    fn call(&mut self, mirror: &Mirror, tsc: u64) -> (&mut Node, &mut Hands, Instant) {
        let instant = mirror.instant(tsc);
        self.hands.be_called(tsc, instant);
        (&mut self.node, &mut self.hands, instant)
    }
}

/// A guest has failed: the guests are handed over, if the peer can take them.
pub(crate) fn give_way() {
    if let Some(mirror) = network().and_then(Network::mirror) {
        mirror.gives_way.store(true, Ordering::Relaxed);
        cpu::attend(TENDER);
    }
}

/// The header of a frame for everybody behind a card.
fn broadcast_header(card: &Uplink) -> [u8; ETHERNET_HEADER] {
    let mut header = [0xff; ETHERNET_HEADER];
    header[6..12].copy_from_slice(&card.nic().mac());
    header[12..].copy_from_slice(&ETHER_TYPE.to_be_bytes());
    header
}

/// Hands a frame to the node. What that drops it counts.
fn receive(node: &mut Node, hands: &mut Hands, path: Path, bytes: &[u8], now: Instant) {
    if node.receive(path, bytes, now, hands).is_ok() {
        hands.hear(now);
    }
}

/// The mirror's part of a frame, if it is one of the mirror's.
fn payload<'f>(frame: &Frame<'f>) -> Option<&'f [u8]> {
    let (header, payload) = frame.head().split_at_checked(ETHERNET_HEADER)?;
    (header.get(12..) == Some(&ETHER_TYPE.to_be_bytes())).then_some(payload)
}

impl Mirror {
    /// The mirror of the board file.
    pub(crate) fn new(
        board: &Board,
        config: &config::Mirror,
        card: Option<Uplink>,
        tsc_hz: u64,
    ) -> Self {
        let tsc_hz = tsc_hz.max(1);
        Self {
            config: config.clone(),
            card,
            stage: Mutex::new(Stage::Waiting(Box::new(board.clone()))),
            gives_way: AtomicBool::new(false),
            patience: u64::from(config.dead_after) * STUCK * tsc_hz / 1_000_000,
            tsc_hz,
        }
    }

    fn instant(&self, tsc: u64) -> Instant {
        let time = u128::from(tsc) * 1_000_000_000 / u128::from(self.tsc_hz);
        Instant(u64::try_from(time).unwrap_or(u64::MAX))
    }

    fn tsc(&self, at: Instant) -> u64 {
        let tsc = u128::from(at.0) * u128::from(self.tsc_hz) / 1_000_000_000;
        u64::try_from(tsc).unwrap_or(u64::MAX)
    }

    /// The card of a path.
    fn uplink<'n>(&'n self, network: &'n Network, path: Path) -> Option<&'n Uplink> {
        match path {
            Path::Link => self.card.as_ref(),
            Path::Lan => network.uplink(usize::from(self.config.lan)),
        }
    }

    /// An interrupt that may be the link's card's.
    pub(crate) fn interrupt(&self) -> bool {
        self.card.as_ref().is_some_and(Uplink::interrupt)
    }

    /// Takes the link's card off the bus for good.
    pub(crate) fn stop_card(&self) {
        if let Some(card) = &self.card {
            card.nic().stop();
        }
    }

    /// For the board's last breath: tells the peer on a path that guests put out nothing any more, if nobody is just at the node.
    pub(crate) fn die(&self, network: &Network, path: Path) {
        const BYTES: usize = ETHERNET_HEADER + mirror::OVERHEAD + mirror::HEARTBEAT_BYTES;
        let Some(uplink) = self.uplink(network, path) else {
            return;
        };
        let Some(mut stage) = self.stage.try_lock() else {
            return;
        };
        if let Stage::Running(state) = &mut *stage {
            // What is held for the backup's sake leaves no more.
            state.hands.gate = Gate::Closed;
            let mut frame = [0; BYTES];
            let (header, body) = frame.split_at_mut(ETHERNET_HEADER);
            header.copy_from_slice(&broadcast_header(uplink));
            if state.node.dying(path, body).is_some() {
                let patience = self.tsc_hz / LAST_BREATH;
                let _ = uplink.nic().transmit_last(&frame, patience);
            }
        }
    }

    /// A frame came by an uplink; whether it is the mirror's.
    pub(crate) fn takes(&self, frame: &Frame<'_>, now: u64) -> bool {
        let Some(bytes) = payload(frame) else {
            return false;
        };
        if let Stage::Running(state) = &mut *self.stage.lock() {
            let (node, hands, instant) = state.call(self, now);
            receive(node, hands, Path::Lan, bytes, instant);
        }
        true
    }

    /// An answer of the witness's came.
    pub(crate) fn answer(&self, bytes: &[u8], now: u64) {
        if let Stage::Running(state) = &mut *self.stage.lock() {
            let (node, hands, instant) = state.call(self, now);
            let _ = node.answer(bytes, instant, hands);
        }
    }

    /// Does what is to be done now, until the board's TSC is `until` or somewhat longer.
    pub(crate) fn turn(&self, network: &Network, now: u64, until: u64) -> Turn {
        let mut stage = self.stage.lock();
        if let Stage::Waiting(board) = &*stage {
            let Some(shared) = cpu::shared() else {
                return Turn::default();
            };
            match self.begin(board, shared, now) {
                Ok(None) => {
                    return Turn {
                        more: false,
                        next: now + self.tsc_hz / 1000,
                    };
                }
                Ok(Some(state)) => *stage = Stage::Running(Box::new(state)),
                Err(failure) => {
                    error!("mirror: there is none: {failure}");
                    *stage = Stage::Failed;
                }
            }
        }
        let Stage::Running(state) = &mut *stage else {
            return Turn::default();
        };
        let turn = self.run(state, network, now, until);
        let stuck = state.hands.stuck(now, self.patience);
        drop(stage);
        if let Some(guest) = stuck {
            // The board cannot serve any more. Its peer is told so on the way.
            panic!("the processor of {} does not answer", guest.name);
        }
        turn
    }

    fn run(&self, state: &mut State, network: &Network, now: u64, until: u64) -> Turn {
        let up = network.uplink_is_up(usize::from(self.config.lan));
        let uplink_changed = core::mem::replace(&mut state.uplink, up) != up;
        let (node, hands, instant) = state.call(self, now);
        let mut turn = Turn::default();
        if let Some(card) = &self.card {
            if let Some(up) = card.watch(now) {
                node.set_carrier(up);
            }
            turn = card.turn(now, until, |frame| {
                if let Some(bytes) = payload(frame) {
                    receive(node, hands, Path::Link, bytes, instant);
                }
            });
        }
        if self.gives_way.swap(false, Ordering::Relaxed) {
            node.command(Command::Switchover, instant, hands);
        }
        if uplink_changed {
            node.set_uplink(up, instant, hands);
        }
        let mut next = instant;
        for _ in 0..ROUNDS {
            while let Some((group, came)) = hands.poll() {
                match came {
                    Outcome::Passed(pages) => {
                        drill::at(Step::Pass);
                        node.passed(group, pages);
                    }
                    Outcome::Frozen(epoch, time) => node.frozen(group, epoch, time),
                    Outcome::Failed => node.failed(instant, hands),
                }
            }
            next = node.turn(instant, hands);
            turn.more |= hands.release(instant);
            if next > instant {
                break;
            }
        }
        turn.more |= next <= instant;
        if let Some(due) = hands.arrivals.turn(hands.gate, instant) {
            next = next.min(due);
        }
        if hands.is_busy() {
            next = next.min(Instant(instant.0 + SOON));
        }
        if !hands.question.is_empty()
            && let Arbiter::Witness { address, port } = self.config.arbiter
        {
            network.ask_witness(address, port, &hands.question);
            hands.question.clear();
        }
        turn.next = turn.next.min(self.tsc(next));
        turn
    }

    /// Makes the node once all machines are there.
    fn begin(
        &self,
        board: &Board,
        shared: &'static Shared,
        now: u64,
    ) -> Result<Option<State>, StartFailure> {
        let mut machines = Vec::new();
        for (_, mirror, handle) in mirrored(&board.guests) {
            match handle.machine.get() {
                None => return Ok(None),
                Some(None) => {
                    return Err(StartFailure::new(&alloc::format!(
                        "{} could not be set up",
                        handle.name
                    )));
                }
                Some(Some(machine)) => machines.push((mirror, handle, *machine)),
            }
        }
        let mut cold: Vec<&GuestHandle> = Vec::new();
        let mut warm: BTreeMap<u8, (u32, Vec<Kept>)> = BTreeMap::new();
        for (mirror, handle, machine) in &machines {
            if mirror.mode == MirrorMode::Cold {
                cold.push(handle);
                continue;
            }
            let one = Kept::new(handle, machine, &shared.memory)?;
            let (_, members) = warm
                .entry(mirror.group)
                .or_insert((mirror.epoch, Vec::new()));
            members.push(one);
        }
        let groups = warm
            .into_iter()
            .map(|(number, (epoch, members))| Group::new(number, epoch, members));
        let groups: Vec<Group> = groups.collect();
        let all = machines.iter().map(|(_, _, machine)| *machine);
        let config = self.node_config(board, all, groups.iter().map(Group::config).collect())?;
        let nonce = Nonce(nonce(now, self.config.side, self.card.as_ref()));
        let (side, instant) = (self.config.side, self.instant(now));
        info!("mirror: side {side} of the pair {}", board.name);
        let config = NodeConfig {
            role: mirror::Config {
                boot: Boot(nonce.0.get()),
                ..config.role
            },
            ..config
        };
        Ok(Some(State {
            node: Node::new(config, nonce, instant),
            hands: Hands::new(groups, cold, &shared.memory),
            uplink: true,
        }))
    }

    fn node_config<'m>(
        &self,
        board: &Board,
        machines: impl Iterator<Item = &'m Machine>,
        groups: Vec<GroupConfig>,
    ) -> Result<NodeConfig, StartFailure> {
        let own = &self.config;
        let time = |microseconds: u32| Duration::from_micros(u64::from(microseconds));
        let (key, dead) = (PairKey::new(&own.key), time(own.dead_after));
        let arbiter = match own.arbiter {
            Arbiter::Witness { .. } => mirror::Arbiter::Witness,
            Arbiter::OnSilence(rule) => mirror::Arbiter::Rule(match rule {
                OnSilence::Hold => mirror::OnSilence::Hold,
                OnSilence::Backup => mirror::OnSilence::Backup,
                OnSilence::AssumeDead => mirror::OnSilence::AssumeDead,
            }),
        };
        let usual = mirror::Config::usual(own.side, Boot(0), Pair(key.id()), arbiter, dead);
        let role = mirror::Config {
            heartbeat: time(own.heartbeat),
            ..usual
        };
        role.check()?;
        Ok(NodeConfig {
            role,
            pairing: PairingConfig {
                side: own.side,
                facts: facts::facts(board, own.images, machines, self.tsc_hz),
                key,
                clock_tolerance: devices::CLOCK_TOLERANCE,
                hello_interval: dead / 2,
                silence: dead,
            },
            link: LinkConfig {
                mtu: own.mtu,
                window: WINDOW,
                answer_delay: Duration::from_micros(200),
                retransmit_floor: Duration::from_millis(2),
                retransmit_ceiling: dead / 2,
            },
            groups,
        })
    }
}

/// A number for this boot of the board, which nobody else has: boards that come up together have at least different cards.
fn nonce(now: u64, side: Side, card: Option<&Uplink>) -> NonZeroU128 {
    let mut random = [0; 16];
    if let Some(generator) = drivers::entropy::Generator::new() {
        generator.fill(&mut random);
    }
    let address = card.map(|card| card.nic().mac());
    let mut hasher = SipHasher24::new_with_key(&random);
    (now, side, address).hash(&mut hasher);
    NonZeroU128::new(hasher.finish128().as_u128()).unwrap_or(NonZeroU128::MIN)
}

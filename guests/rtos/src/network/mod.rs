//! The network task: it serves the exchange's UDP port, and answers ARP and pings by smoltcp.
//!
//! Call processing, timers and everything measured is more urgent than it. Interrupts of the card only wake it, and silence
//! the card until it has looked. It takes frames for no more than half of the time, so that no flood keeps the console, which is
//! less urgent, from its work.

mod ethernet;
mod ne2000;
mod stack;
mod virtio;

use core::fmt;

use pc::cpu;
use rtos::{
    kernel::SemaphoreId,
    net::{
        FRAME_MAX, Mac,
        frame::{Arrived, Place},
        server::{Counters, Server},
        settings::{Cards, IsaPlace, Settings},
    },
};

use crate::{
    BOOT,
    console::say,
    machine::{
        pci::Function,
        pit,
        shared::{Late, Own, Shared},
    },
    phone, system,
};
use ethernet::{Ethernet, Fault};
use ne2000::Ne2000;
use stack::Stack;
use virtio::VirtioNet;

/// Less urgent than charging, more than the console.
const PRIORITY: u8 = 12;
/// Part of a tick that frames may take: one half.
const SHARE: u64 = 2;
const TICKS_PER_SECOND: u64 = 1000;
/// While a frame is being sent, the card is looked at again after so many ticks, even if it does not interrupt.
const SEND_WATCH: u32 = 100;

static ARRIVED: Late<SemaphoreId> = Late::new();
static MEMORY: Own<Memory> = Own::new(Memory {
    server: Server::new(),
    received: [0; FRAME_MAX],
    to_send: [0; FRAME_MAX],
});
static STATE: Shared<Option<State>> = Shared::new(None);

/// What is too large for the task's stack.
struct Memory {
    server: Server,
    received: [u8; FRAME_MAX],
    to_send: [u8; FRAME_MAX],
}

/// Frames since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frames {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Pauses that a flood made necessary.
    pauses: u64,
}

/// What the console shows.
#[derive(Clone, Copy)]
struct State {
    card: Found,
    mac: Mac,
    line: u8,
    settings: Settings,
    frames: Frames,
    served: Counters,
    faults: (u32, Option<Fault>),
}

/// The card that was found, and where.
#[derive(Clone, Copy, Debug)]
enum Found {
    Virtio(Function),
    Rtl8029(Function),
    Ne2000(IsaPlace),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Virtio(function) => write!(f, "virtio at pci {function}"),
            Self::Rtl8029(function) => write!(f, "rtl8029 at pci {function}"),
            Self::Ne2000(place) => write!(f, "ne2000 at port {:#x}", place.port),
        }
    }
}

impl Found {
    /// Looks for a card.
    fn search(settings: &Settings) -> Option<Self> {
        let virtio = || virtio::search().map(Self::Virtio);
        let rtl8029 = || ne2000::search().map(Self::Rtl8029);
        let isa = settings.isa.map(Self::Ne2000);
        match settings.cards {
            Cards::Virtio => virtio(),
            Cards::Ne2000 => isa.or_else(rtl8029).or(Some(Self::Ne2000(IsaPlace::USUAL))),
            Cards::Any => virtio().or_else(rtl8029).or(isa),
        }
    }
}

struct Address(Mac);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Starts the network, if the command line asks for it.
pub(crate) fn init() {
    let Some(boot) = BOOT.get() else { return };
    let line = boot.command_line();
    match Settings::read(|name| line.option(name)) {
        Ok(None) => {}
        Ok(Some(_)) => {
            ARRIVED.set(system::semaphore(0));
            system::spawn("network", PRIORITY, run, 0);
        }
        Err(wrong) => say!("net: {wrong}"),
    }
}

/// Wakes the network task. For interrupts.
fn wake() {
    if let Some(arrived) = ARRIVED.get()
        && system::count(arrived) == 0
    {
        system::signal(arrived);
    }
}

/// The network task.
fn run(_: u32) {
    let Some(boot) = BOOT.get() else { return };
    let line = boot.command_line();
    let Ok(Some(settings)) = Settings::read(|name| line.option(name)) else {
        return;
    };
    let Some(found) = Found::search(&settings) else {
        return say!("net: no card");
    };
    let Some(memory) = MEMORY.take() else { return };
    let started = match found {
        Found::Virtio(function) => VirtioNet::start(function)
            .map(|(mut card, line)| serve(&mut card, line, found, settings, memory)),
        Found::Rtl8029(function) => Ne2000::start_pci(function)
            .map(|(mut card, line)| serve(&mut card, line, found, settings, memory)),
        Found::Ne2000(place) => Ne2000::start_isa(place)
            .map(|mut card| serve(&mut card, place.line, found, settings, memory)),
    };
    if let Err(fault) = started {
        say!("net: {found} cannot be used: {fault}");
    }
}

/// Handles frames, for ever.
fn serve(card: &mut dyn Ethernet, line: u8, found: Found, settings: Settings, memory: &mut Memory) {
    let Some(arrived) = ARRIVED.get() else { return };
    let us = Place {
        mac: card.mac(),
        address: settings.address,
    };
    let mut state = State {
        card: found,
        mac: us.mac,
        line,
        settings,
        frames: Frames::default(),
        served: memory.server.counters(),
        faults: (0, None),
    };
    STATE.with(|place| *place = Some(state));
    say!("net: {found}, {}, line {line}", Address(us.mac));
    let mut stack = Stack::new(&settings, us.mac);
    let mut turn = Turn::begin();
    loop {
        let begun = cpu::tsc();
        // Whatever comes may have to be answered.
        let can_send = card.can_send();
        let received = if can_send {
            card.receive(&mut memory.received)
        } else {
            None
        };
        if let Some(length) = received {
            state.frames.received += 1;
            let frame = &memory.received[..length];
            let answered = match Arrived::find(frame, us) {
                Some(arrived) => answer(&mut memory.server, arrived, us, &mut memory.to_send),
                None => stack.handle(frame, &mut memory.to_send),
            };
            if let Some(length) = answered {
                state.frames.sent += 1;
                card.send(&memory.to_send[..length]);
            }
            if turn.is_over_after(begun) {
                state.frames.pauses += 1;
                system::sleep(1);
                turn = Turn::begin();
            }
        }
        state.served = memory.server.counters();
        state.faults = card.faults();
        STATE.with(|place| *place = Some(state));
        if received.is_none() && card.rest() {
            let limit = if can_send { None } else { Some(SEND_WATCH) };
            // Whether woken or not, we look.
            let _ = system::take(arrived, limit);
        }
    }
}

/// Lets the server answer a datagram; the length of the frame with the answer.
fn answer(
    server: &mut Server,
    arrived: Arrived<'_>,
    us: Place,
    frame: &mut [u8; FRAME_MAX],
) -> Option<usize> {
    let answer = phone::serve(server, arrived.address, arrived.payload)?;
    Some(arrived.answer(us, &answer, frame))
}

/// The task's part of one tick.
struct Turn {
    tick: u64,
    /// Time stamps that frames have taken in it.
    spent: u64,
}

impl Turn {
    fn begin() -> Self {
        Self {
            tick: system::now(),
            spent: 0,
        }
    }

    /// Counts a frame that was begun at a time stamp; whether the task has had its part of this tick.
    fn is_over_after(&mut self, begun: u64) -> bool {
        let took = cpu::tsc() - begun;
        if system::now() != self.tick {
            *self = Self::begin();
        }
        self.spent += took;
        self.spent > pit::tsc_hz() / TICKS_PER_SECOND / SHARE
    }
}

/// What has come and gone so far; `None` without a card.
pub(crate) fn frames() -> Option<Frames> {
    STATE.with(|state| state.as_ref().map(|state| state.frames))
}

/// Prints what there is to know about the network.
pub(crate) fn show() {
    let Some(state) = STATE.with(|state| *state) else {
        return say!("net: none");
    };
    let State {
        card,
        mac,
        line,
        settings,
        frames,
        served,
        faults: (faults, last_fault),
    } = state;
    let [a, b, c, d] = settings.address;
    say!("net: {card}, {}, line {line}", Address(mac));
    say!("net: {a}.{b}.{c}.{d}/{}", settings.prefix);
    let Frames {
        received,
        sent,
        pauses,
    } = frames;
    say!("net: {received} frames received, {sent} sent, {pauses} pauses");
    let Counters {
        executed,
        duplicates,
        outdated,
        malformed,
        crowded,
    } = served;
    say!(
        "net: {executed} questions executed, {duplicates} repeated, {outdated} outdated, {malformed} malformed, {crowded} crowded out"
    );
    match last_fault {
        Some(fault) => say!("net: {faults} faults, the last: {fault}"),
        None => say!("net: no faults"),
    }
}

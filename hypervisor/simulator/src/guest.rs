//! The guests of the simulation: a few pages of memory, and a program that does each numbered request of a client's once.
//!
//! Requests come by a ring in memory, which the hypervisor writes. What the program remembers is in memory too: each client's last
//! request with the reply, and how many there were. All executions are a chain: each has a name that follows from the one before
//! it, so that two states with the same name have the same past.

use crate::chance::{Chance, mix};
use mirror::{Area, PAGE_SIZE, Page, Place};
use std::hash::{DefaultHasher, Hasher};

/// Clients of a guest.
pub(crate) const CLIENTS: usize = 3;
/// Pages of a guest that the program gives a meaning: the ring, the clients, and the total on the disk.
const RING: (u8, u32) = (0, 0);
const TABLE: (u8, u32) = (0, 1);
const TOTAL: (u8, u32) = (1, 0);
/// Requests in the ring.
const SLOTS: u64 = 16;
/// Words of a client in the table.
const ENTRY: usize = 4;
/// Most bytes of a state that stand for devices.
const DEVICES: u64 = 3000;

/// A client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) guest: u8,
    /// Which client of the guest's.
    pub(crate) client: u8,
    pub(crate) number: u32,
}

impl Request {
    /// Writes it as a frame, which is long now and then.
    pub(crate) fn write(self, frame: &mut Vec<u8>) {
        let length = if self.number % 4 == 3 { 4000 } else { 60 };
        frame.extend([self.guest, self.client]);
        frame.extend(self.number.to_le_bytes());
        frame.resize(length, self.client);
    }

    /// The one that a frame is.
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        let (head, rest) = frame.split_first_chunk()?;
        let [guest, client, n0, n1, n2, n3] = *head;
        let request = Self {
            guest,
            client,
            number: u32::from_le_bytes([n0, n1, n2, n3]),
        };
        let mut whole = Vec::new();
        request.write(&mut whole);
        (whole.get(head.len()..) == Some(rest)).then_some(request)
    }
}

/// What a guest replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) request: Request,
    /// The name of the execution.
    pub(crate) name: u64,
    /// The client's executions up to this one.
    pub(crate) count: u64,
    /// All executions of the guest.
    pub(crate) total: u64,
    /// The guest's time, in nanoseconds.
    pub(crate) time: u64,
}

/// An execution, for the judge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Execution {
    /// The name of the one before it.
    pub(crate) before: u64,
    pub(crate) reply: Reply,
}

/// A page as the processor and the hypervisor mark it. Neither sees the other's writes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) hardware: bool,
    pub(crate) hypervisor: bool,
}

#[derive(Clone, Debug)]
struct Frame {
    live: Page,
    staged: Page,
    mark: Mark,
}

/// What a processor holds.
#[derive(Clone, Copy, Debug)]
struct Registers {
    /// The name of the last execution.
    name: u64,
    random: u64,
    /// Requests that were taken from the ring.
    taken: u64,
}

/// A guest on one of the boards.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) number: u8,
    areas: Vec<Vec<Frame>>,
    registers: Registers,
    /// The guest's time at a moment of the board's, both in nanoseconds.
    clock: (u64, u64),
}

const fn blank() -> Frame {
    Frame {
        live: [0; PAGE_SIZE],
        staged: [0; PAGE_SIZE],
        mark: Mark {
            hardware: false,
            hypervisor: false,
        },
    }
}

impl Guest {
    pub(crate) fn new(number: u8, areas: &[u32]) -> Self {
        let area = |pages: &u32| (0..*pages).map(|_| blank()).collect();
        Self {
            number,
            areas: areas.iter().map(area).collect(),
            registers: Registers {
                name: 0,
                random: 0,
                taken: 0,
            },
            clock: (0, 0),
        }
    }

    /// Boots: `name` stands before the first execution.
    pub(crate) fn start(&mut self, name: u64, now: u64) {
        for frame in self.areas.iter_mut().flatten() {
            (frame.live, frame.mark) = ([0; PAGE_SIZE], Mark::default());
        }
        self.registers = Registers {
            name,
            random: name,
            taken: 0,
        };
        self.clock = (0, now);
    }

    /// The name of the last execution.
    pub(crate) const fn name(&self) -> u64 {
        self.registers.name
    }

    pub(crate) const fn time(&self, now: u64) -> u64 {
        self.clock.0 + now.saturating_sub(self.clock.1)
    }

    fn frame(&mut self, place: Place) -> Option<&mut Frame> {
        let area = self.areas.get_mut(usize::from(place.area.0))?;
        area.get_mut(place.number as usize)
    }

    fn at(&mut self, (area, number): (u8, u32)) -> &mut Frame {
        &mut self.areas[usize::from(area)][number as usize]
    }

    fn word(&mut self, page: (u8, u32), at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.at(page).live[at * 8..at * 8 + 8]);
        u64::from_le_bytes(bytes)
    }

    /// The processor writes.
    fn store(&mut self, page: (u8, u32), at: usize, word: u64) {
        let frame = self.at(page);
        frame.live[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
        frame.mark.hardware = true;
    }

    /// The hypervisor writes.
    fn put(&mut self, page: (u8, u32), at: usize, word: u64) {
        let frame = self.at(page);
        frame.live[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
        frame.mark.hypervisor = true;
    }

    /// A request comes in. It is lost if there is no room.
    pub(crate) fn receive(&mut self, request: Request) {
        let produced = self.word(RING, 0);
        if produced.wrapping_sub(self.registers.taken) < SLOTS {
            let slot = (produced % SLOTS) as usize;
            let word = u64::from(request.client) << 32 | u64::from(request.number);
            self.put(RING, 8 + slot, word);
            self.put(RING, 0, produced + 1);
        }
    }

    /// Runs a little: does what is in the ring, and writes here and there.
    pub(crate) fn run(
        &mut self,
        now: u64,
        mut executed: impl FnMut(Execution),
        mut out: impl FnMut(Reply),
    ) {
        while self.word(RING, 0) != self.registers.taken {
            let slot = (self.registers.taken % SLOTS) as usize;
            let word = self.word(RING, 8 + slot);
            self.registers.taken += 1;
            let request = Request {
                guest: self.number,
                client: (word >> 32) as u8,
                number: word as u32,
            };
            if usize::from(request.client) < CLIENTS {
                self.execute(request, now, &mut executed, &mut out);
            }
        }
        self.scribble();
    }

    fn execute(
        &mut self,
        request: Request,
        now: u64,
        executed: &mut impl FnMut(Execution),
        out: &mut impl FnMut(Reply),
    ) {
        let entry = usize::from(request.client) * (ENTRY + 1);
        let last = self.word(TABLE, entry) as u32;
        if request.number < last {
            return;
        }
        if request.number > last {
            let before = self.registers.name;
            let what = u64::from(request.client) << 32 | u64::from(request.number);
            self.registers.name = mix(before ^ mix(what ^ u64::from(self.number) << 56));
            let count = self.word(TABLE, entry + 2) + 1;
            let total = self.word(TOTAL, 0) + 1;
            self.store(TABLE, entry, u64::from(request.number));
            self.store(TABLE, entry + 1, self.registers.name);
            self.store(TABLE, entry + 2, count);
            self.store(TABLE, entry + 3, total);
            self.store(TABLE, entry + 4, self.time(now));
            self.put(TOTAL, 0, total);
            let reply = self.reply(request, entry);
            executed(Execution { before, reply });
        }
        out(self.reply(request, entry));
    }

    /// The reply to a client's last request.
    fn reply(&mut self, request: Request, entry: usize) -> Reply {
        Reply {
            request,
            name: self.word(TABLE, entry + 1),
            count: self.word(TABLE, entry + 2),
            total: self.word(TABLE, entry + 3),
            time: self.word(TABLE, entry + 4),
        }
    }

    /// Writes where nothing has a meaning, mostly a little.
    fn scribble(&mut self) {
        let mut chance = Chance::new(self.registers.random);
        self.registers.random = chance.number();
        let pages = self.areas[0].len() as u64;
        for _ in 0..chance.below(3) {
            let page = (0, chance.between(2, pages - 1) as u32);
            let (at, word) = (chance.below(512) as usize, chance.number());
            self.store(page, at, word);
        }
        if chance.permille(100) {
            self.put((1, 1), chance.below(512) as usize, chance.number());
        }
        if chance.permille(20) {
            let page = (0, chance.between(2, pages - 1) as u32);
            let fill = if chance.permille(500) {
                0
            } else {
                chance.number()
            };
            for at in 0..PAGE_SIZE / 8 {
                self.store(page, at, fill.wrapping_mul(at as u64));
            }
        }
    }

    /// The state beside memory.
    pub(crate) fn save(&self) -> Vec<u8> {
        let Registers {
            name,
            random,
            taken,
        } = self.registers;
        let mut state: Vec<u8> = [name, random, taken]
            .into_iter()
            .flat_map(u64::to_le_bytes)
            .collect();
        let devices = random % DEVICES;
        state.extend((0..devices).map(|at| mix(at ^ name) as u8));
        state
    }

    /// Goes on from a state, with the memory that there is. What it says of devices is not looked at but has a digest.
    pub(crate) fn load(&mut self, state: &[u8], time: u64, now: u64) {
        let word = |at: usize| {
            let bytes = state.get(at * 8..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        self.registers = Registers {
            name: word(0),
            random: word(1),
            taken: word(2),
        };
        self.clock = (time, now);
        for frame in self.areas.iter_mut().flatten() {
            frame.mark = Mark::default();
        }
    }

    /// What tells memory and a state from others.
    pub(crate) fn digest(&self, state: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        for frame in self.areas.iter().flatten() {
            hasher.write(&frame.live);
        }
        hasher.write(state);
        hasher.finish()
    }

    pub(crate) fn mark_all(&mut self) {
        for frame in self.areas.iter_mut().flatten() {
            frame.mark.hardware = true;
        }
    }

    /// Pages that are marked.
    pub(crate) fn marked(&self) -> usize {
        let frames = self.areas.iter().flatten();
        frames
            .filter(|frame| frame.mark.hardware || frame.mark.hypervisor)
            .count()
    }

    /// Shows the pages to `take` that are marked, and takes the marks off.
    pub(crate) fn collect(
        &mut self,
        marked: impl Fn(Mark) -> bool,
        mut take: impl FnMut(Place, &Page),
    ) {
        for (area, frames) in (0..).map(Area).zip(&mut self.areas) {
            for (number, frame) in (0..).zip(frames) {
                if marked(core::mem::take(&mut frame.mark)) {
                    let place = Place {
                        guest: self.number,
                        area,
                        number,
                    };
                    take(place, &frame.live);
                }
            }
        }
    }

    /// A page that takeovers find, and what is staged for it.
    pub(crate) fn page(&mut self, place: Place) -> Option<(&mut Page, &mut Page)> {
        let frame = self.frame(place)?;
        Some((&mut frame.live, &mut frame.staged))
    }
}

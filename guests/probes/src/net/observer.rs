//! The guest that tells how busy the processor is with frames.
//!
//! On its console it says `net phase`, before something else is measured, `ask frames=N length=BYTES`, when the far end of the wire
//! is to send frames, and waits for an answer each time. A result is `net WAY length=BYTES frames=N ticks=N`; where and
//! how often a phase begins, the counts of exits and interrupts are to be read by whoever reads these lines.

use pc::{cpu, handover::Boot, println, serial};

use super::{COMMAND, Came, Command, FAR_END, FIRST, SECOND, Work, card::Card};
use crate::{
    bench,
    probe::{Failure, Verdict, ensure},
};

/// Ticks until the last consequence of frames is over: 5 ms in Bochs.
const SETTLE: u64 = 250_000;
/// Ticks in which frames from the wire come, that wait in the card for a while: 300 ms.
const COLLECT: u64 = 15_000_000;
/// Ticks in which nothing happens.
const QUIET: u64 = 50_000_000;
const MILLION: i64 = 1_000_000;
/// Frames that are many.
const MANY: u16 = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    ToWire,
    FromWire,
    ToGuest,
}

struct Way {
    name: &'static str,
    path: Path,
    work: Work,
    /// In a window.
    frames: u16,
    windows: u16,
}

const fn way(name: &'static str, path: Path, work: Work, frames: u16, windows: u16) -> Way {
    Way {
        name,
        path,
        work,
        frames,
        windows,
    }
}

const WAYS: [Way; 8] = [
    way("to-wire single", Path::ToWire, Work::Batch, 1, 64),
    way("to-wire each", Path::ToWire, Work::Each, MANY, 8),
    way("to-wire batch", Path::ToWire, Work::Batch, MANY, 8),
    way("from-wire single", Path::FromWire, Work::Batch, 1, 16),
    way("from-wire batch", Path::FromWire, Work::Batch, MANY, 4),
    way("to-guest single", Path::ToGuest, Work::Batch, 1, 64),
    way("to-guest each", Path::ToGuest, Work::Each, MANY, 8),
    way("to-guest batch", Path::ToGuest, Work::Batch, MANY, 8),
];

const LENGTHS: [u16; 2] = [64, 1500];

struct Observer {
    card: Card,
    /// Ticks of one turn of the loop that counts.
    turn: u64,
    /// Frames to the wire.
    sent: u32,
}

/// Time in which somebody else ran, and all of it.
#[derive(Clone, Copy, Default)]
struct Ticks {
    busy: i64,
    all: u64,
}

impl Ticks {
    fn add(&mut self, other: Self) {
        self.busy += other.busy;
        self.all += other.all;
    }
}

/// Counts the turns of a loop for so many ticks.
#[inline(never)]
fn spin(ticks: u64) -> (u64, u64) {
    let start = cpu::tsc();
    let mut turns = 0;
    loop {
        turns += 1;
        let all = cpu::tsc() - start;
        if all >= ticks {
            return (turns, all);
        }
    }
}

/// Says something that has to be answered before this guest goes on.
macro_rules! ask {
    ($($what:tt)*) => {{
        println!($($what)*);
        serial::drain();
        while serial::receive() != Some(b'\r') {}
    }};
}

impl Observer {
    fn watch(&self, ticks: u64) -> Ticks {
        let (turns, all) = spin(ticks);
        Ticks {
            busy: all as i64 - (turns * self.turn) as i64,
            all,
        }
    }

    /// One window, in which so many frames go their way.
    fn window(&mut self, way: &Way, frames: u16, length: u16) -> Ticks {
        let (to, ticks) = match way.path {
            Path::FromWire => {
                ask!("ask frames={frames} length={length}");
                return self.watch(COLLECT);
            }
            Path::ToWire => {
                self.sent += u32::from(frames);
                (FAR_END, SETTLE)
            }
            Path::ToGuest => (SECOND, SETTLE),
        };
        let command = Command {
            work: way.work,
            to,
            frames,
            length,
        };
        self.card.fill(&command.frame(FIRST, self.card.mac));
        let start = cpu::tsc();
        self.card.send(1, COMMAND as u32, false);
        // The workers may have run already.
        let before = cpu::tsc() - start;
        let mut seen = self.watch(ticks);
        seen.all += before;
        seen.busy += before as i64;
        seen
    }

    /// What came to a worker since it was last asked.
    fn came(&mut self, worker: u8) -> Result<Came, Failure> {
        let report = Command {
            work: Work::Report,
            to: 0,
            frames: 0,
            length: 0,
        };
        self.card.fill(&report.frame(worker, self.card.mac));
        self.card.send(1, COMMAND as u32, false);
        let end = cpu::tsc() + QUIET;
        while cpu::tsc() < end {
            if let Some(frame) = self.card.take(|frame| frame.read()) {
                return Ok(Came::read(&frame));
            }
        }
        Err(Failure {
            what: "no report",
            found: worker.into(),
        })
    }

    /// `share` is the part of the time in which the machine is busy with nothing, in millionths.
    fn measure(&mut self, way: &Way, length: u16, share: i64) -> Verdict {
        // The first ones fill rings and tables.
        self.window(way, way.frames, length);
        self.window(way, 0, length);
        let (mut with, mut without) = (Ticks::default(), Ticks::default());
        ask!("net phase");
        for _ in 0..way.windows {
            with.add(self.window(way, way.frames, length));
        }
        ask!("net phase");
        for _ in 0..way.windows {
            without.add(self.window(way, 0, length));
        }
        ask!("net phase");
        let wanted = (u32::from(way.windows) + 1) * u32::from(way.frames);
        let receiver = match way.path {
            Path::ToWire => None,
            Path::FromWire => Some(FIRST),
            Path::ToGuest => Some(SECOND),
        };
        if let Some(receiver) = receiver {
            let came = self.came(receiver)?;
            ensure(came.frames == wanted, "frames that came", came.frames)?;
            let bytes = wanted * u32::from(length);
            ensure(came.bytes == bytes, "bytes that came", came.bytes)?;
        }
        let longer = with.all as i64 - without.all as i64;
        let ticks = with.busy - without.busy - longer * share / MILLION;
        println!(
            "net {} length={length} frames={} ticks={ticks}",
            way.name,
            u32::from(way.frames) * u32::from(way.windows)
        );
        Ok(())
    }
}

/// Measures all ways.
pub(crate) fn observe(_: &Boot) -> Verdict {
    bench::start_apic();
    let turn = (0..8).map(|_| spin(SETTLE)).map(|(turns, all)| all / turns);
    let mut observer = Observer {
        card: Card::start()?,
        turn: turn.min().unwrap_or(1),
        sent: 0,
    };
    // The workers start meanwhile.
    spin(QUIET);
    observer.came(FIRST)?;
    observer.came(SECOND)?;
    // The switch is to know where everybody is, the far end too.
    ask!("ask frames=1 length={}", LENGTHS[0]);
    observer.watch(COLLECT);
    let came = observer.came(FIRST)?;
    ensure(came.frames == 1, "frames of the far end's", came.frames)?;
    let quiet = observer.watch(QUIET);
    println!("net quiet ticks={} of={}", quiet.busy, quiet.all);
    let share = quiet.busy * MILLION / quiet.all as i64;
    for length in LENGTHS {
        for way in &WAYS {
            observer.measure(way, length, share)?;
        }
    }
    println!("end sent={}", observer.sent);
    serial::drain();
    Ok(())
}

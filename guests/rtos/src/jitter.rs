//! Measures how late the most urgent task is released by the clock interrupt; [`rtos::latency`] says how.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering},
};

use pc::cpu;
use rtos::{
    kernel::{SemaphoreId, timers::Action},
    latency::{self, MOST_RELEASES, Release},
};

use crate::{
    console::say,
    machine::{
        pit,
        shared::{Late, Shared},
        uart,
    },
    network::{self, Frames},
    system,
};

/// More urgent than everything else.
const PRIORITY: u8 = 0;
/// Releases before the first that counts: caches and buffers are then as they will be.
const WARM_UP: usize = 16;

struct Record(UnsafeCell<[Release; MOST_RELEASES]>);

// SAFETY: the measuring task writes it, and the console task reads it only after that task has ended; there is
// one console task.
unsafe impl Sync for Record {}

static RECORD: Record = Record(UnsafeCell::new(
    [Release {
        released: 0,
        latched: 0,
        phase: 0,
    }; MOST_RELEASES],
));
static RELEASED: Late<SemaphoreId> = Late::new();
static DONE: Late<SemaphoreId> = Late::new();
static NOTED: AtomicUsize = AtomicUsize::new(0);
/// The network's frames at the first release that counts and at the last, if there is a card.
static FRAMES: Shared<[Option<Frames>; 2]> = Shared::new([None; 2]);

/// Makes the semaphores.
pub(crate) fn init() {
    RELEASED.set(system::semaphore(0));
    DONE.set(system::semaphore(0));
}

/// Measures so many releases, and prints the figures.
pub(crate) fn measure(releases: usize) {
    let (Some(released), Some(done)) = (RELEASED.get(), DONE.get()) else {
        return;
    };
    let count = releases.min(MOST_RELEASES);
    // The console's own output shall not disturb.
    uart::flush();
    while system::count(released) > 0 {
        // Signals that an earlier run left.
        let _ = system::take(released, Some(0));
    }
    NOTED.store(0, Ordering::Relaxed);
    let timer = system::timer(Action::Signal(released));
    system::spawn("jitter", PRIORITY, note, count as u32);
    system::start_timer(timer, 1, Some(1));
    let _ = system::take(done, None);
    system::finish_timer(timer);
    // SAFETY: the measuring task has signalled its end, and only this task starts another.
    let record = unsafe { &mut *RECORD.0.get() };
    let noted = NOTED.load(Ordering::Relaxed).min(count);
    match latency::analyse(&mut record[..noted], pit::DIVISOR, pit::tsc_hz()) {
        Some(figures) if noted == count => {
            let latency::Statistics {
                count,
                min,
                mean,
                p50,
                p99,
                p999,
                max,
                overruns,
                period,
            } = figures;
            say!(
                "jitter: n={count} min={min} mean={mean} p50={p50} p99={p99} p99.9={p999} max={max} tsc ticks"
            );
            if let [Some(first), Some(last)] = FRAMES.with(|frames| *frames) {
                let (received, sent) = (last.received - first.received, last.sent - first.sent);
                say!("jitter: meanwhile {received} frames received, {sent} sent");
            }
            say!("jitter: period={period} tsc ticks, {overruns} overruns");
        }
        _ => say!("jitter: FAILED {noted} of {count} releases"),
    }
}

/// The measuring task.
fn note(count: u32) {
    let (Some(released), Some(done)) = (RELEASED.get(), DONE.get()) else {
        return;
    };
    let record = RECORD.0.get().cast::<Release>();
    for number in 0..WARM_UP + count as usize {
        if !system::take(released, Some(1000)) {
            break;
        }
        let time = cpu::tsc();
        let (phase, latched) = pit::phase();
        if let Some(place) = number.checked_sub(WARM_UP) {
            let release = Release {
                released: time,
                latched,
                phase,
            };
            // SAFETY: `measure` asks for no more than there is room for, and does not touch the record now.
            unsafe { record.add(place).write(release) };
            NOTED.store(place + 1, Ordering::Relaxed);
            if place == 0 {
                FRAMES.with(|frames| frames[0] = network::frames());
            }
        }
    }
    FRAMES.with(|frames| frames[1] = network::frames());
    system::signal(done);
}

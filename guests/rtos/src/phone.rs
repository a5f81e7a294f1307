//! The exchange at work: its state, the task that charges, and its console commands.

use core::cell::UnsafeCell;

use protocol::Datagram;
use rtos::{
    exchange::{Exchange, Load, Request},
    kernel::MutexId,
    net::server::Server,
};

use crate::{console::say, machine::shared::Late, system};

/// Ticks between two rounds of charging.
const ROUND: u32 = 100;
/// The exchange's own random calls are always the same.
const SEED: u32 = 20_010_909;
/// Operations of a load between two pauses of a tick.
const BURST: u64 = 16;

struct Place(UnsafeCell<Exchange>);

// SAFETY: `with` is the only user, and holds the exchange's mutex.
unsafe impl Sync for Place {}

static EXCHANGE: Place = Place(UnsafeCell::new(Exchange::new()));
static MUTEX: Late<MutexId> = Late::new();

/// Makes the exchange ready for use.
pub(crate) fn init() {
    MUTEX.set(system::mutex());
}

/// Uses the exchange, as no other task does meanwhile; the second argument is the time.
fn with<T>(user: impl FnOnce(&mut Exchange, u64) -> T) -> Option<T> {
    let mutex = MUTEX.get()?;
    Some(system::locked(mutex, || {
        // SAFETY: the mutex is locked, and a task that locks it again is stopped: this is the only reference.
        let exchange = unsafe { &mut *EXCHANGE.0.get() };
        user(exchange, system::milliseconds())
    }))
}

/// The charging task.
pub(crate) fn charge(_: u32) {
    loop {
        with(|exchange, now| exchange.tick(now));
        system::sleep(ROUND);
    }
}

/// Asks the exchange, and prints what it says.
pub(crate) fn ask(request: Request) {
    match with(|exchange, now| exchange.handle(now, request)) {
        Some(Ok(reply)) => say!("exchange: {reply}"),
        Some(Err(error)) => say!("exchange: refused, {error}"),
        None => {}
    }
}

/// Lets the server take a datagram from an address; its answer, if there is one.
pub(crate) fn serve(server: &mut Server, from: [u8; 4], datagram: &[u8]) -> Option<Datagram> {
    with(|exchange, now| server.serve(now, from, datagram, exchange)).flatten()
}

/// Prints the exchange's state.
pub(crate) fn traffic() {
    let state = |exchange: &mut Exchange, _| {
        (
            exchange.numbers().count(),
            exchange.traffic(),
            exchange.check(),
        )
    };
    if let Some((subscribers, (ringing, connected), check)) = with(state) {
        say!("exchange: {subscribers} subscribers, {ringing} calls ringing, {connected} connected");
        if let Err(wrong) = check {
            say!("exchange: FAILED {wrong}");
        }
    }
}

/// Makes random calls.
pub(crate) fn load(calls: u32) {
    let mut load = match with(|exchange, _| Load::new(exchange, u64::from(calls), SEED)) {
        Some(Ok(load)) => load,
        Some(Err(error)) => return say!("load: refused, {error}"),
        None => return,
    };
    for operation in 1.. {
        match with(|exchange, now| load.step(exchange, now)) {
            Some(Ok(None)) => {}
            Some(Ok(Some(summary))) => return say!("load: {summary}, invariants ok"),
            Some(Err(wrong)) => return say!("load: FAILED {wrong}"),
            None => return,
        }
        if operation % BURST == 0 {
            system::sleep(1);
        }
    }
}

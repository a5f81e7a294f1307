//! The composition: processors, guests and their memory, the console and its shell.
//!
//! The boot code finds the board and hands it over as a [`Host`]; [`start`] reads the board file
//! that came with the image, and each processor then enters [`run`] for good.
//!
//! Each guest is owned by the processor that runs it, so the path from an exit back into the guest
//! takes no lock and shares no cache line. Other processors reach a guest through its mailbox only.

#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod console;
mod cpu;
mod cpuid;
mod guest;
pub mod host;
pub mod loader;
mod machine;
pub mod memory;
mod mirror;
mod mmio;
mod msrs;
mod network;
mod power;
mod shell;
mod task;
mod timer;
mod translate;

pub use cpu::{host_interrupt, host_nmi, vector};
pub use host::{BootModule, Host, Interrupts, IsaOverride};

use alloc::vec::Vec;
use config::Board;
use core::fmt;
use log::{info, warn};
use spin::Once;
use vcpu::HostState;

/// The boot module that holds the board description.
const BOARD_MODULE: &str = "board";

/// Why there is nothing to run.
#[derive(Debug)]
pub enum StartError {
    /// The boot loader brought no board description.
    NoBoard,
    /// The board description is broken.
    BadBoard(config::blob::BlobError),
    /// The board file wants more processors than run.
    TooFewCpus {
        /// Processors that the board file wants.
        wanted: u32,
        /// Processors that run.
        found: usize,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBoard => write!(f, "the boot loader brought no module \"{BOARD_MODULE}\""),
            Self::BadBoard(error) => write!(f, "the board description is broken: {error}"),
            Self::TooFewCpus { wanted, found } => {
                write!(
                    f,
                    "the board file wants {wanted} processors, but {found} run"
                )
            }
        }
    }
}

impl core::error::Error for StartError {}

struct Plan {
    shared: &'static cpu::Shared,
    board: Board,
    modules: Vec<BootModule>,
}

static PLAN: Once<Plan> = Once::new();

/// Reads the board description and prepares everything that processors share.
///
/// # Errors
///
/// [`StartError`] says what is missing.
pub fn start(mut host: Host) -> Result<(), StartError> {
    let blob = host
        .modules
        .iter()
        .find(|module| module.name == BOARD_MODULE)
        .ok_or(StartError::NoBoard)?
        .bytes;
    let board = config::blob::decode(blob).map_err(StartError::BadBoard)?;
    if host.cpus.len() < board.cpus as usize {
        return Err(StartError::TooFewCpus {
            wanted: board.cpus,
            found: host.cpus.len(),
        });
    }
    info!(
        "board {}: {} guests on {} of {} processors",
        board.name,
        board.guests.len(),
        board.cpus,
        host.cpus.len()
    );
    guest::register(&board.guests);
    mmio::warm_up();
    if !board.guests.is_empty() {
        console::set_focus(console::Focus::Guest(0));
        info!(
            "console: Ctrl-O h for the hypervisor's shell, Ctrl-O 1 to {} for guests",
            board.guests.len()
        );
    }
    if host.wall_clock.is_none() {
        warn!("the board's clock cannot be read: guests start in 1970");
    }
    let facts = machine::BoardFacts {
        tsc_hz: host.tsc_hz,
        entry_tsc: host.entry_tsc,
        wall_clock_at_zero: host
            .wall_clock
            .map(|now| now as i64 - (host.wall_clock_tsc / host.tsc_hz.max(1)) as i64),
    };
    info!(
        "memory: hypervisor uses {} KiB",
        (host.image_bytes + host.memory.own()) / 1024
    );
    host.interrupts
        .route_isa(drivers::serial::COM1_IRQ, host.cpus[0], vector::SERIAL);
    console::start_interrupts();
    let power = power::Power {
        soft_off: host.soft_off,
        when_all_off: board.when_all_off,
    };
    let tender = host.cpus[network::TENDER];
    let shared = cpu::share(facts, host.memory, host.local_apic, host.cpus, power);
    network::set_up(network::Parts {
        board: &board,
        cards: host.nics,
        memory: &mut shared.memory.lock(),
        local_apic: host.local_apic,
        interrupts: host.interrupts,
        tender,
        tsc_hz: host.tsc_hz,
    });
    PLAN.call_once(|| Plan {
        shared,
        board,
        modules: host.modules,
    });
    Ok(())
}

/// Takes the board's network cards off the bus, so that none of them writes memory while it is looked at, and nobody hears of the
/// board any more; the peer of a pair learns that it is alone. For the board's end: it waits for no lock for long.
pub fn stop_network() {
    if let Some(network) = network::network() {
        network.stop_cards();
    }
}

/// Runs a processor for good, once [`start`] is through; waits for that.
///
/// # Safety
///
/// Once per processor, in 64-bit mode at privilege level 0 with interrupts off; `host` must describe
/// this processor's descriptor tables, which stay as they are.
pub unsafe fn run(number: usize, host: HostState) -> ! {
    let plan = PLAN.wait();
    // SAFETY: passed on to the caller.
    unsafe { cpu::run(number, plan.shared, host, &plan.board.guests, &plan.modules) }
}

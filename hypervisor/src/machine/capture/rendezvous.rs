//! Where guests that are checkpointed together wait for each other: none goes on before all stand still, so that what one
//! got from another before its checkpoint, that one sent before its own.

use crate::cpu;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

/// The meeting of some guests.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    /// Guests that do not stand still yet.
    missing: AtomicUsize,
    /// The processors of the guests' leads.
    cpus: Vec<usize>,
}

impl Rendezvous {
    /// One for guests whose leads have these processors.
    pub(crate) const fn new(cpus: Vec<usize>) -> Self {
        Self {
            missing: AtomicUsize::new(0),
            cpus,
        }
    }

    /// So many guests will come; all of those that came before have gone on.
    pub(crate) fn expect(&self, guests: usize) {
        self.missing.store(guests, Ordering::SeqCst);
    }

    /// A guest stands still, or will not come.
    pub(super) fn arrive(&self) {
        if self.missing.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.cpus.iter().copied().for_each(cpu::attend);
        }
    }

    /// Whether all are there.
    pub(super) fn is_complete(&self) -> bool {
        self.missing.load(Ordering::SeqCst) == 0
    }
}

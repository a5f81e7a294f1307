//! What must be the same on both boards of a pair.

use crate::machine::Machine;
use config::Board;
use core::hash::Hash;
use mirror::{Facts, Software};
use siphasher::sip128::{Hasher128, SipHasher24};

/// The version of saved states, and of what tells of them.
const FORMAT: u16 = 2;

/// The board's facts. `images` is a digest of all files that the boot loader brought, but the board's own.
pub(super) fn facts<'m>(
    board: &Board,
    images: u64,
    machines: impl Iterator<Item = &'m Machine>,
    tsc_hz: u64,
) -> Facts {
    // What each board has of its own is left out.
    let mut common = board.clone();
    (common.uplinks, common.management, common.mirror) = (alloc::vec::Vec::new(), None, None);
    common.cpus = 0;
    let bytes = postcard::to_allocvec(&common).unwrap_or_default();
    let mut configuration = SipHasher24::new();
    (bytes, images).hash(&mut configuration);
    let mut cpu = SipHasher24::new();
    for machine in machines {
        machine.hash_processor(&mut cpu);
    }
    Facts {
        format: FORMAT,
        configuration: configuration.finish128().as_u128(),
        cpu: cpu.finish128().as_u128(),
        tsc_hz,
        software: Software::new(concat!("understudy ", env!("CARGO_PKG_VERSION"))),
    }
}

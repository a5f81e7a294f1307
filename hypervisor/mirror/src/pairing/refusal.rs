//! Why two boards are no pair.

use core::fmt;

use crate::Side;

use super::hello::{Facts, Software};

/// Why this board does not pair with the one that it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its frames are of another version.
    Version {
        /// This board's.
        own: u16,
        /// The peer's.
        peer: u16,
    },
    /// Its records and saved states are of another version.
    Format {
        /// This board's.
        own: (u16, Software),
        /// The peer's.
        peer: (u16, Software),
    },
    /// Its board file differs in what must be equal.
    Configuration {
        /// This board's digest.
        own: u128,
        /// The peer's.
        peer: u128,
    },
    /// Its processor shows guests something else.
    Cpu {
        /// This board's digest.
        own: u128,
        /// The peer's.
        peer: u128,
    },
    /// Its time-stamp counter has another rate.
    Clock {
        /// This board's, in Hz.
        own: u64,
        /// The peer's, in Hz.
        peer: u64,
        /// What they may differ by, in millionths.
        tolerance: u32,
    },
    /// It is the same side of the pair.
    Side(Side),
    /// It has another key.
    Key {
        /// The number of the pair by this board's key.
        own: u64,
        /// By the peer's.
        peer: u64,
    },
}

impl Refusal {
    /// What in `peer` keeps it from being a pair with `own`.
    pub(super) fn of(own: &Facts, peer: &Facts, tolerance: u32) -> Option<Self> {
        let allowed = u128::from(own.tsc_hz.max(peer.tsc_hz)) * u128::from(tolerance) / 1_000_000;
        if own.format != peer.format {
            Some(Self::Format {
                own: (own.format, own.software),
                peer: (peer.format, peer.software),
            })
        } else if own.configuration != peer.configuration {
            Some(Self::Configuration {
                own: own.configuration,
                peer: peer.configuration,
            })
        } else if own.cpu != peer.cpu {
            Some(Self::Cpu {
                own: own.cpu,
                peer: peer.cpu,
            })
        } else if u128::from(own.tsc_hz.abs_diff(peer.tsc_hz)) > allowed {
            Some(Self::Clock {
                own: own.tsc_hz,
                peer: peer.tsc_hz,
                tolerance,
            })
        } else {
            None
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { own, peer } => write!(
                f,
                "the peer's frames are of version {peer}, this board's of version {own}"
            ),
            Self::Format { own, peer } => write!(
                f,
                "the peer's software {} has states of version {}, this board's software {} of version {}",
                peer.1, peer.0, own.1, own.0
            ),
            Self::Configuration { own, peer } => write!(
                f,
                "the boards' files differ: the peer's has the digest {peer:032x}, this board's {own:032x}"
            ),
            Self::Cpu { own, peer } => write!(
                f,
                "the boards' processors differ for guests: the peer's has the digest {peer:032x}, this board's {own:032x}"
            ),
            Self::Clock {
                own,
                peer,
                tolerance,
            } => write!(
                f,
                "the peer's time-stamp counter has {peer} Hz, this board's {own} Hz: more than {tolerance} millionths apart"
            ),
            Self::Side(side) => write!(
                f,
                "both boards are side {side}: one must be side {}",
                side.peer()
            ),
            Self::Key { own, peer } => write!(
                f,
                "the boards' keys differ: the peer's is of the pair {peer:016x}, this board's of the pair {own:016x}"
            ),
        }
    }
}

impl core::error::Error for Refusal {}

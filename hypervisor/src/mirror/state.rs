//! What is told of a guest beside its memory and its disks.

use crate::guest::GuestState;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A mirrored guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum MirroredV1<'a> {
    /// It does not run, until an operator starts it.
    Stays,
    /// It has reset itself or crashed, and starts afresh.
    Starts,
    /// It runs.
    Runs {
        /// A digest of its memory and its disks, if that is to be compared.
        digest: Option<u64>,
        /// Its time, less that of its group, in nanoseconds.
        ahead: i64,
        /// Its machine's state.
        machine: &'a [u8],
    },
}

impl<'a> MirroredV1<'a> {
    /// A guest in this state; none if it runs.
    pub(super) const fn at_rest(state: GuestState) -> Option<Self> {
        match state {
            GuestState::Running => None,
            GuestState::Restarting => Some(Self::Starts),
            GuestState::Stopped | GuestState::Off | GuestState::Crashed | GuestState::Frozen => {
                Some(Self::Stays)
            }
        }
    }

    /// As bytes.
    ///
    /// # Errors
    ///
    /// Where there is no memory for them.
    pub(super) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    /// From bytes.
    ///
    /// # Errors
    ///
    /// Where these are something else.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_come_across_as_they_are() {
        for guest in [
            MirroredV1::Stays,
            MirroredV1::Starts,
            MirroredV1::Runs {
                digest: Some(u64::MAX),
                ahead: -7_000_000_000,
                machine: &[1; 300],
            },
            MirroredV1::Runs {
                digest: None,
                ahead: 0,
                machine: &[],
            },
        ] {
            let bytes = guest.encode().unwrap();
            assert_eq!(MirroredV1::decode(&bytes), Ok(guest));
        }
        assert!(MirroredV1::decode(&[7]).is_err());
        assert!(MirroredV1::decode(&[]).is_err());
        assert_eq!(MirroredV1::at_rest(GuestState::Running), None);
    }
}

//! The state of a guest that does not run: also that is mirrored.

use crate::guest::GuestState;

/// What a guest that is at rest does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing, until an operator starts it.
    Stays,
    /// It has reset itself or crashed, and starts afresh.
    Starts,
}

impl Rest {
    /// Of a guest in this state; none if it runs.
    pub(super) const fn of(state: GuestState) -> Option<Self> {
        match state {
            GuestState::Running => None,
            GuestState::Restarting => Some(Self::Starts),
            GuestState::Stopped | GuestState::Off | GuestState::Crashed | GuestState::Frozen => {
                Some(Self::Stays)
            }
        }
    }

    /// In place of a machine's state, which is longer.
    pub(super) const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Stays => &[0],
            Self::Starts => &[1],
        }
    }

    /// The opposite of [`Self::bytes`]; none for a machine's state.
    pub(super) const fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(Self::Stays),
            [1] => Some(Self::Starts),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_rest_is_read_as_that() {
        assert_eq!(Rest::of(GuestState::Running), None);
        assert_eq!(Rest::read(&[0; 1000]), None);
        for state in [GuestState::Off, GuestState::Restarting] {
            let rest = Rest::of(state).unwrap();
            assert_eq!(Rest::read(rest.bytes()), Some(rest));
        }
        assert_ne!(Rest::Stays.bytes(), Rest::Starts.bytes());
    }
}

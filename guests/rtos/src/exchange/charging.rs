//! Charging: pulses on the caller's meter, one for every time unit that a call has begun.

use super::{CALLS, Exchange, Number, RING_LIMIT};

/// How fast the pulses come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tariff {
    /// Within an area: numbers of equal length and first digit.
    Local,
    /// Between areas.
    Trunk,
    /// To a number that begins with 9.
    Service,
}

impl Tariff {
    /// The tariff of a call.
    #[must_use]
    pub fn between(from: Number, to: Number) -> Self {
        if to.first_digit() == 9 {
            Self::Service
        } else if (from.digits(), from.first_digit()) == (to.digits(), to.first_digit()) {
            Self::Local
        } else {
            Self::Trunk
        }
    }

    /// Milliseconds of connected time that one pulse pays for.
    #[must_use]
    pub const fn unit(self) -> u64 {
        match self {
            Self::Local => 3000,
            Self::Trunk => 1000,
            Self::Service => 250,
        }
    }

    /// Pulses for a connected time: the first comes with the answer.
    #[must_use]
    pub const fn pulses(self, connected: u64) -> u64 {
        connected / self.unit() + 1
    }
}

/// What a subscriber has used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Meter {
    /// Pulses to pay for.
    pub pulses: u64,
    /// Milliseconds of connected time, of calls he made.
    pub connected: u64,
    /// Calls he made that were answered.
    pub calls: u64,
}

impl Exchange {
    /// Brings all meters up to the time, and ends calls that nobody answers.
    pub fn tick(&mut self, now: u64) {
        for path in 0..CALLS {
            let Some(call) = self.calls[path] else {
                continue;
            };
            if call.answered {
                self.meter(now, path);
            } else if now.saturating_sub(call.since) >= RING_LIMIT {
                self.end(now, path);
                self.set(usize::from(call.caller), None, true);
            }
        }
    }

    /// Brings the caller's meter up to the time.
    pub(super) fn meter(&mut self, now: u64, path: usize) {
        let Some(call) = &mut self.calls[path] else {
            return;
        };
        if !call.answered {
            return;
        }
        // Time that has been metered stays so.
        let connected = now.saturating_sub(call.since).max(call.metered);
        let pulses = call.tariff.pulses(connected);
        let (more_time, more_pulses) = (connected - call.metered, pulses - call.pulses);
        (call.metered, call.pulses) = (connected, pulses);
        if let Some(caller) = &mut self.subscribers[usize::from(call.caller)] {
            caller.meter.connected += more_time;
            caller.meter.pulses += more_pulses;
        }
    }
}

//! Charging: pulses on the caller's meter, one for every time unit that a call has begun.

use super::{CALLS, Exchange, Meter, RING_LIMIT};

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

    /// What all subscribers have used.
    #[must_use]
    pub fn usage(&self) -> Meter {
        let meters = self.subscribers.iter().flatten();
        meters.fold(Meter::default(), |sum, subscriber| Meter {
            pulses: sum.pulses + subscriber.meter.pulses,
            connected: sum.connected + subscriber.meter.connected,
            calls: sum.calls + subscriber.meter.calls,
        })
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

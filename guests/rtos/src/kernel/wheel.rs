//! The timer wheel: deadlines in ticks, armed and cancelled in constant time.

const SLOTS: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The tick it is due at; meaningful while armed.
    due: u64,
    armed: bool,
    previous: Option<u8>,
    next: Option<u8>,
}

/// `N` alarms, each armed for one tick or not armed. An alarm lies in the slot of its tick; alarms of one tick
/// come due in the order they were armed.
#[derive(Clone, Debug)]
pub struct Wheel<const N: usize> {
    entries: [Entry; N],
    first: [Option<u8>; SLOTS],
    last: [Option<u8>; SLOTS],
}

const fn slot(due: u64) -> usize {
    (due % SLOTS as u64) as usize
}

impl<const N: usize> Wheel<N> {
    /// A wheel with nothing armed.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N <= 256, "alarms are linked by bytes") };
        let entry = Entry {
            due: 0,
            armed: false,
            previous: None,
            next: None,
        };
        Self {
            entries: [entry; N],
            first: [None; SLOTS],
            last: [None; SLOTS],
        }
    }

    /// Arms an alarm, or moves it. `due` must lie after the tick that was last expired.
    pub fn arm(&mut self, alarm: u8, due: u64) {
        self.cancel(alarm);
        let slot = slot(due);
        let previous = self.last[slot];
        self.entries[usize::from(alarm)] = Entry {
            due,
            armed: true,
            previous,
            next: None,
        };
        match previous {
            Some(previous) => self.entries[usize::from(previous)].next = Some(alarm),
            None => self.first[slot] = Some(alarm),
        }
        self.last[slot] = Some(alarm);
    }

    /// Disarms an alarm, if it is armed.
    pub fn cancel(&mut self, alarm: u8) {
        let entry = self.entries[usize::from(alarm)];
        if !entry.armed {
            return;
        }
        let slot = slot(entry.due);
        match entry.previous {
            Some(previous) => self.entries[usize::from(previous)].next = entry.next,
            None => self.first[slot] = entry.next,
        }
        match entry.next {
            Some(next) => self.entries[usize::from(next)].previous = entry.previous,
            None => self.last[slot] = entry.previous,
        }
        self.entries[usize::from(alarm)].armed = false;
    }

    /// Disarms and returns an alarm that is due at tick `now`. To be called at every tick until `None`.
    pub fn expire(&mut self, now: u64) -> Option<u8> {
        let mut at = self.first[slot(now)];
        while let Some(alarm) = at {
            let entry = self.entries[usize::from(alarm)];
            if entry.due <= now {
                self.cancel(alarm);
                return Some(alarm);
            }
            at = entry.next;
        }
        None
    }

    /// The tick an armed alarm is due at.
    #[must_use]
    pub fn due(&self, alarm: u8) -> Option<u64> {
        let entry = self.entries[usize::from(alarm)];
        entry.armed.then_some(entry.due)
    }
}

impl<const N: usize> Default for Wheel<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Wheel;

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u8, u64),
        Cancel(u8),
        Tick,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0_u8..8, 1_u64..300).prop_map(|(alarm, delay)| Step::Arm(alarm, delay)),
            1 => (0_u8..8).prop_map(Step::Cancel),
            3 => Just(Step::Tick),
        ]
    }

    proptest! {
        /// Each alarm comes due at its tick, neither before nor after, and alarms of a tick in arming order.
        #[test]
        fn alarms_at_their_tick(steps in prop::collection::vec(step(), 0..400)) {
            let mut wheel = Wheel::<8>::new();
            let mut model: Vec<(u8, u64)> = Vec::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Arm(alarm, delay) => {
                        wheel.arm(alarm, now + delay);
                        model.retain(|&(other, _)| other != alarm);
                        model.push((alarm, now + delay));
                    }
                    Step::Cancel(alarm) => {
                        wheel.cancel(alarm);
                        model.retain(|&(other, _)| other != alarm);
                    }
                    Step::Tick => {
                        now += 1;
                        let expected: Vec<u8> =
                            model.iter().filter(|&&(_, due)| due == now).map(|&(alarm, _)| alarm).collect();
                        model.retain(|&(_, due)| due != now);
                        let mut expired = Vec::new();
                        while let Some(alarm) = wheel.expire(now) {
                            expired.push(alarm);
                        }
                        prop_assert_eq!(expired, expected);
                    }
                }
                for alarm in 0..8 {
                    let due = model.iter().find(|&&(other, _)| other == alarm).map(|&(_, due)| due);
                    prop_assert_eq!(wheel.due(alarm), due);
                }
            }
        }
    }
}

//! Which frames came already.

/// How far behind the newest a frame may come: more than wires put out of order.
const WINDOW: u64 = u128::BITS as u64;

/// The counters that came, of one sender, session and path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplayWindow {
    /// The highest; zero is before the first.
    newest: u64,
    /// Bit n: the one n before the highest came.
    came: u128,
}

impl ReplayWindow {
    /// Takes note of `counter`; whether it comes for the first time. One that is older than the window does not.
    pub(super) const fn first_time(&mut self, counter: u64) -> bool {
        if counter > self.newest {
            let ahead = counter - self.newest;
            self.came = if ahead < WINDOW {
                self.came << ahead | 1
            } else {
                1
            };
            self.newest = counter;
            return true;
        }
        let behind = self.newest - counter;
        if counter == 0 || behind >= WINDOW || self.came >> behind & 1 == 1 {
            return false;
        }
        self.came |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn each_counter_passes_once_and_all_of_the_window_do(
            steps in prop::collection::vec((-200i64..=200, any::<bool>()), 1..400),
        ) {
            let (mut window, mut came) = (ReplayWindow::default(), HashSet::new());
            let mut newest = 0_u64;
            for (step, near) in steps {
                let step = if near { step / 16 } else { step };
                let counter = newest.saturating_add_signed(step);
                let first = counter > 0 && newest.saturating_sub(counter) < WINDOW && !came.contains(&counter);
                prop_assert_eq!(window.first_time(counter), first);
                if first {
                    came.insert(counter);
                    newest = newest.max(counter);
                }
            }
        }
    }

    #[test]
    fn the_last_counters_are_counters_as_well() {
        let mut window = ReplayWindow::default();
        assert!(window.first_time(u64::MAX));
        assert!(window.first_time(u64::MAX - WINDOW + 1));
        assert!(!window.first_time(u64::MAX - WINDOW));
        assert!(!window.first_time(u64::MAX) && !window.first_time(0));
    }
}

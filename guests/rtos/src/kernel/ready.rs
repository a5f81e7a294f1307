//! Who could run: one first-in first-out list per priority, and a bit map of those that are not empty.

use super::{PRIORITIES, Priority, TASKS, TaskId};

/// The ready tasks. The running one is among them, at the front of its list.
#[derive(Clone, Debug)]
pub(super) struct ReadyQueue {
    /// Bit 31 is priority 0, so that the leading zeros count to the most urgent.
    occupied: u32,
    first: [Option<TaskId>; PRIORITIES],
    last: [Option<TaskId>; PRIORITIES],
    next: [Option<TaskId>; TASKS],
}

const fn bit(priority: Priority) -> u32 {
    0x8000_0000 >> priority
}

impl ReadyQueue {
    pub(super) const fn new() -> Self {
        Self {
            occupied: 0,
            first: [None; PRIORITIES],
            last: [None; PRIORITIES],
            next: [None; TASKS],
        }
    }

    /// The most urgent ready task.
    pub(super) fn peek(&self) -> Option<TaskId> {
        self.first
            .get(self.occupied.leading_zeros() as usize)
            .copied()
            .flatten()
    }

    pub(super) fn push_back(&mut self, task: TaskId, priority: Priority) {
        let list = usize::from(priority);
        self.next[task.index()] = None;
        match self.last[list] {
            Some(last) => self.next[last.index()] = Some(task),
            None => self.first[list] = Some(task),
        }
        self.last[list] = Some(task);
        self.occupied |= bit(priority);
    }

    pub(super) fn push_front(&mut self, task: TaskId, priority: Priority) {
        let list = usize::from(priority);
        self.next[task.index()] = self.first[list];
        if self.first[list].is_none() {
            self.last[list] = Some(task);
        }
        self.first[list] = Some(task);
        self.occupied |= bit(priority);
    }

    /// Takes a task out of its priority's list, if it is there.
    pub(super) fn remove(&mut self, task: TaskId, priority: Priority) {
        let list = usize::from(priority);
        let (mut before, mut at) = (None::<TaskId>, self.first[list]);
        while let Some(current) = at {
            let after = self.next[current.index()];
            if current == task {
                match before {
                    Some(before) => self.next[before.index()] = after,
                    None => self.first[list] = after,
                }
                if after.is_none() {
                    self.last[list] = before;
                }
                if self.first[list].is_none() {
                    self.occupied &= !bit(priority);
                }
                return;
            }
            (before, at) = (at, after);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::{ReadyQueue, TaskId};

    proptest! {
        /// Against a model of plain queues: the order within a priority, and the most urgent one first.
        #[test]
        fn behaves_as_queues(steps in prop::collection::vec((0_u8..24, 0_u8..4, 0_u8..3), 0..200)) {
            let mut queue = ReadyQueue::new();
            let mut model: [VecDeque<u8>; 4] = Default::default();
            for (task, priority, step) in steps {
                // Spread over the range, so that the ends of the bit map are met.
                let real = priority * 10 + priority / 3;
                let list = usize::from(priority);
                let present = model.iter().any(|list| list.contains(&task));
                match step {
                    0 if !present => {
                        queue.push_back(TaskId(task), real);
                        model[list].push_back(task);
                    }
                    1 if !present => {
                        queue.push_front(TaskId(task), real);
                        model[list].push_front(task);
                    }
                    _ => {
                        queue.remove(TaskId(task), real);
                        model[list].retain(|&other| other != task);
                    }
                }
                let first = model.iter().find_map(|list| list.front());
                prop_assert_eq!(queue.peek(), first.map(|&task| TaskId(task)));
            }
        }
    }
}

//! Which pages of its memory a guest writes, for the operator and for whoever copies the guest while it runs: passes
//! over all memory, in steps, while the guest's vCPUs stand still.

use super::{Machine, StartFailure};
use crate::guest::Tracking;
use crate::memory::{GuestMemory, PhysicalMemory};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use drivers::tsc;
use log::{error, info};
use vcpu::{PageSet, REGION_SIZE};

const PAGE: u64 = 4096;
/// So many ranges of pages are listed.
const RANGES_MAX: usize = 256;

/// What a pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// To begin, by write protection in any case or only where there is nothing better.
    Begin {
        protect: bool,
    },
    /// To find what was written, and perhaps list it.
    Collect {
        list: bool,
    },
    End,
}

/// A pass over a guest's memory.
#[derive(Debug)]
pub(super) struct Pass {
    task: Task,
    /// How far it is.
    at: u64,
    /// The TSC at which the guest was paused, or could have been.
    since: u64,
    /// TSC ticks that the steps took.
    ticks: u64,
    /// TSC ticks from the pause to the end of the last step.
    pause: u64,
    found: Found,
}

impl Pass {
    /// What the operator wants; `None` if there is nothing to do, which is said.
    pub(super) fn new(machine: &Machine, wanted: Tracking) -> Option<Self> {
        let name = &machine.handle.name;
        let task = match (wanted, machine.tables.lock().tracking()) {
            (Tracking::Report, None) => Task::Begin { protect: false },
            (Tracking::Protect, None) => Task::Begin { protect: true },
            (Tracking::Report, Some(_)) => Task::Collect { list: false },
            (Tracking::List, Some(_)) => Task::Collect { list: true },
            (Tracking::Off, Some(_)) => Task::End,
            (Tracking::Protect, Some(method)) => {
                info!("{name}: is tracked by {method} already");
                return None;
            }
            (Tracking::List | Tracking::Off, None) => {
                info!("{name}: is not tracked");
                return None;
            }
        };
        Some(Self::of(task))
    }

    /// For the sake of captures, which are to be possible from then on, or no more.
    pub(super) fn for_captures(on: bool) -> Self {
        Self::of(if on {
            Task::Begin { protect: false }
        } else {
            Task::End
        })
    }

    fn of(task: Task) -> Self {
        Self {
            task,
            at: 0,
            since: tsc::read(),
            ticks: 0,
            pause: 0,
            found: Found::default(),
        }
    }

    /// Does the next piece; whether that was the last. All vCPUs are parked.
    pub(super) fn step(&mut self, machine: &Machine, frames: &spin::Mutex<PhysicalMemory>) -> bool {
        let begin = tsc::read();
        let result = self.visit(machine, frames);
        let now = tsc::read();
        self.ticks += now - begin;
        self.pause = now - self.since;
        if let Err(failure) = result {
            error!("{}: cannot be tracked: {failure}", machine.handle.name);
            // What was begun is undone.
            (self.task, self.at) = (Task::End, 0);
            return false;
        }
        self.at += REGION_SIZE;
        self.at >= machine.memory.size()
    }

    /// Does what is to be done to the next region.
    fn visit(
        &mut self,
        machine: &Machine,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Result<(), StartFailure> {
        let (memory, mut tables) = (&machine.memory, machine.tables.lock());
        let first = self.at == 0;
        if first {
            machine.forget_translations();
        }
        match self.task {
            Task::Begin { protect } => {
                if first {
                    for area in machine.areas() {
                        area.begin_marking()?;
                        // Marks of an earlier time.
                        area.forget_marked();
                    }
                    tables.begin_tracking(protect);
                }
                tables.track(self.at, &mut *frames.lock())?;
            }
            Task::Collect { .. } => match memory.take_marked(self.at) {
                Some((region, pages)) => {
                    tables.clean(region, pages);
                    self.found.add(region / PAGE, pages);
                    self.at = region;
                }
                None => self.at = memory.size(),
            },
            Task::End => {
                if first {
                    machine.areas().for_each(GuestMemory::end_marking);
                    tables.end_tracking();
                }
                tables.untrack(self.at);
            }
        }
        Ok(())
    }

    /// Tells the operator what came of it.
    pub(super) fn report(&self, machine: &Machine) {
        let name = &machine.handle.name;
        let Self { ticks, pause, .. } = self;
        let times = format_args!("{ticks} ticks in a pause of {pause}");
        let Some(method) = machine.tables.lock().tracking() else {
            return info!("{name}: is tracked no more ({times})");
        };
        let Task::Collect { list } = self.task else {
            return info!("{name}: is tracked by {method} from now on ({times})");
        };
        let count = self.found.count;
        info!("{name}: {count} pages written, by {method} ({times})");
        if list {
            info!("{name}: pages{}", self.found);
        }
    }
}

/// Pages that were written.
#[derive(Debug, Default)]
struct Found {
    count: u64,
    /// The first of them, ascending, in ranges of page numbers.
    ranges: Vec<Range<u64>>,
}

impl Found {
    /// Adds pages, which are behind those that it has.
    fn add(&mut self, first: u64, pages: PageSet) {
        self.count += pages.count();
        for page in pages.iter().map(|page| first + page) {
            if let Some(range) = self.ranges.last_mut()
                && range.end == page
            {
                range.end += 1;
            } else if self.ranges.len() < RANGES_MAX {
                self.ranges.push(page..page + 1);
            } else {
                return;
            }
        }
    }
}

/// Page numbers and ranges of such, each behind a space.
impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Range { start, end } in &self.ranges {
            match end - start {
                1 => write!(f, " {start:#x}")?,
                _ => write!(f, " {start:#x}-{:#x}", end - 1)?,
            }
        }
        let listed: u64 = self
            .ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        match self.count - listed {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pages: impl IntoIterator<Item = usize>) -> PageSet {
        let mut set = PageSet::EMPTY;
        pages.into_iter().for_each(|page| set.insert(page));
        set
    }

    #[test]
    fn ranges_go_on_in_the_next_region() {
        let mut found = Found::default();
        found.add(0, set([0, 5, 6, 511]));
        found.add(512, set([0, 1, 9]));
        assert_eq!(found.to_string(), " 0x0 0x5-0x6 0x1ff-0x201 0x209");
        assert_eq!(found.count, 7);
    }

    #[test]
    fn too_many_are_counted_only() {
        let mut found = Found::default();
        found.add(0, set((0..512).step_by(2)));
        found.add(512, set([1, 3]));
        found.add(1024, PageSet::ALL);
        assert_eq!(found.count, 256 + 2 + 512);
        let text = found.to_string();
        assert!(text.starts_with(" 0x0 0x2 0x4 "), "{text}");
        assert!(text.ends_with(" 0x1fe and 514 more"), "{text}");
    }
}

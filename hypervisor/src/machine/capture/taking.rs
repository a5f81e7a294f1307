//! The lead's part of a capture: steps, in which nobody else gets its processor, while the guest's vCPUs stand still.

use super::{Capture, CapturedState, Captures, Missed, PageId, Wanted};
use crate::machine::{Machine, frozen};
use core::sync::atomic::Ordering;
use devices::Ticks;
use drivers::tsc;
use vcpu::{Frame, PageSet, REGION_SIZE};

const PAGE: u64 = 4096;
/// Pages that are copied in a step: some microseconds' worth.
const COPIES: usize = 16;
/// Regions that are looked at in a step where nothing is copied.
const REGIONS: usize = 16;

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::machine) enum Progress {
    More,
    /// There are no frames: the lead is called when there are.
    Stalled,
    /// The guest can run on.
    Done,
}

/// A survey or a checkpoint that is being taken.
#[derive(Debug)]
pub(in crate::machine) struct Taking {
    wanted: Wanted,
    /// The TSC since which the guest stands still.
    since: u64,
    begun: bool,
    guest_time: Ticks,
    state: Option<CapturedState>,
    /// The area that is being looked at, from this address on.
    area: u8,
    from: u64,
    /// Pages of the region before that, which are still to be copied.
    left: PageSet,
    pages: u64,
}

impl Taking {
    pub(in crate::machine) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            since: tsc::read(),
            begun: false,
            guest_time: Ticks(0),
            state: None,
            area: 0,
            from: 0,
            left: PageSet::EMPTY,
            pages: 0,
        }
    }

    /// Does the next piece. All vCPUs are parked. When it is done, the run can be resumed.
    pub(in crate::machine) fn step(&mut self, machine: &'static Machine) -> Progress {
        if !self.begun {
            self.begun = true;
            if let Err(missed) = self.begin(machine) {
                machine.captures.refuse(missed);
                return self.end(machine, None);
            }
        }
        match self.wanted {
            Wanted::Checkpoint => self.copy(machine),
            _ => self.look(machine),
        }
    }

    /// The moment of the capture.
    fn begin(&mut self, machine: &'static Machine) -> Result<(), Missed> {
        self.guest_time = Ticks(tsc::read().saturating_sub(machine.base()));
        machine.forget_translations();
        if self.wanted == Wanted::Checkpoint {
            machine.stand_still();
            let state = frozen::collect(machine).ok_or(Missed::Unreadable)?;
            self.state = Some(CapturedState(state));
            if let Some(seal) = machine.captures.shared.lock().seal {
                seal(machine.handle);
            }
        }
        Ok(())
    }

    /// The next pages that were written, all in one region; they count as clean from here on.
    fn next(&mut self, machine: &Machine) -> Option<(u64, PageSet)> {
        loop {
            let memory = machine.area(self.area)?;
            if let Some((region, pages)) = memory.take_marked(self.from) {
                if self.area == 0 {
                    machine.tables.lock().clean(region, pages);
                }
                self.from = region + REGION_SIZE;
                return Some((region, pages));
            }
            (self.area, self.from) = (self.area.checked_add(1)?, 0);
        }
    }

    /// Finds pages, without copying any.
    fn look(&mut self, machine: &'static Machine) -> Progress {
        for _ in 0..REGIONS {
            let Some((region, pages)) = self.next(machine) else {
                return self.finish(machine);
            };
            self.pages += pages.count();
            let mut shared = machine.captures.shared.lock();
            if let Some(found) = shared.found.get_mut(usize::from(self.area)) {
                found.add(region, pages);
            }
        }
        Progress::More
    }

    /// Copies pages, as far as there are frames.
    fn copy(&mut self, machine: &'static Machine) -> Progress {
        let captures = &machine.captures;
        let mut frames = [const { None::<Frame> }; COPIES];
        {
            let mut shared = captures.shared.lock();
            for frame in &mut frames {
                *frame = shared.free.pop();
            }
        }
        let mut copies = [const { None::<(PageId, Frame)> }; COPIES];
        let mut all = false;
        for (frame, copy) in frames.iter_mut().zip(&mut copies) {
            let Some(id) = (if frame.is_some() {
                self.next_page(machine)
            } else {
                None
            }) else {
                all = frame.is_some();
                break;
            };
            if let (Some(mut frame), Some(memory)) = (frame.take(), machine.area(id.area)) {
                // A marked page is inside.
                let _ = memory.read(id.range().start, frame.bytes_mut());
                *copy = Some((id, frame));
                self.pages += 1;
            }
        }
        let mut shared = captures.shared.lock();
        shared.copied.extend(copies.into_iter().flatten());
        let unused = frames.into_iter().flatten();
        let full = !all && shared.free.is_empty();
        shared.free.extend(unused);
        if full && shared.free.is_empty() {
            captures.waits.store(true, Ordering::Release);
            return Progress::Stalled;
        }
        drop(shared);
        if all {
            self.finish(machine)
        } else {
            Progress::More
        }
    }

    /// The next page to be copied.
    fn next_page(&mut self, machine: &Machine) -> Option<PageId> {
        if self.left == PageSet::EMPTY {
            self.left = self.next(machine)?.1;
        }
        let page = self.left.take_first()?;
        Some(PageId {
            area: self.area,
            number: (self.from - REGION_SIZE) / PAGE + page,
        })
    }

    fn finish(&mut self, machine: &'static Machine) -> Progress {
        let capture = Capture {
            guest_time: self.guest_time,
            pause: 0,
            pages: self.pages,
            state: self.state.take(),
        };
        self.end(machine, Some(capture))
    }

    /// What was taken back from the world is lent to it again.
    fn end(&self, machine: &'static Machine, capture: Option<Capture>) -> Progress {
        if self.wanted == Wanted::Checkpoint {
            machine.go_on();
        }
        if let Some(mut capture) = capture {
            capture.pause = tsc::read() - self.since;
            machine.captures.shared.lock().outcome = Some(Ok(capture));
        }
        Progress::Done
    }
}

impl Captures {
    /// For the lead: whether there are frames again, or it never waited.
    pub(in crate::machine) fn has_frames(&self) -> bool {
        !self.waits.load(Ordering::Acquire)
    }
}

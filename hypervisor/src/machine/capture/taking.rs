//! The lead's part of a capture: steps, in which nobody else gets its processor, while the guest's vCPUs stand still.

use super::{Capture, CapturedState, Missed, PageId, Wanted};
use crate::machine::{Digest, Machine, frozen};
use alloc::boxed::Box;
use core::sync::atomic::Ordering;
use devices::Ticks;
use drivers::tsc;
use vcpu::{PageSet, REGION_SIZE};

const PAGE: u64 = 4096;
/// Pages that are copied in a step: some microseconds' worth.
const COPIES: usize = 16;
/// Pages that are added to a digest in a step.
const DIGESTED: usize = 16;
/// Regions that are looked at in a step where nothing is copied.
const REGIONS: usize = 16;

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::machine) enum Progress {
    More,
    /// There are no frames, or others that are to stand still, too, do not yet: the lead is called when that changes.
    Stalled,
    /// The guest can run on.
    Done,
    /// The guest is to stand still from here on.
    Stands,
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
    digest: Option<Digest>,
}

impl Taking {
    /// The guest stands still, or soon will, since the board's TSC was `since`.
    pub(in crate::machine) fn new(wanted: Wanted, since: u64) -> Self {
        Self {
            wanted,
            since,
            begun: false,
            guest_time: Ticks(0),
            state: None,
            area: 0,
            from: 0,
            left: PageSet::EMPTY,
            pages: 0,
            digest: None,
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
        self.guest_time = machine.time();
        machine.forget_translations();
        machine.captures.relieve();
        if self.wanted == Wanted::Checkpoint {
            machine.captures.keep_from_taking();
            machine.stand_still();
            if machine.run.ending.lock().is_some() {
                return Err(Missed::Ended);
            }
            let state = frozen::collect(machine).ok_or(Missed::Unreadable)?;
            self.state = Some(CapturedState(Box::new(state)));
            let digests = machine.captures.digests.load(Ordering::Relaxed);
            let next = machine.captures.next_digest.load(Ordering::Relaxed);
            self.digest = (digests && self.since >= next).then(Digest::new);
            if let Some(seal) = machine.captures.shared.lock().seal {
                seal(machine.handle);
            }
            machine.captures.arrive();
        }
        Ok(())
    }

    /// The next pages that were written, all in the region that ends at `from`; they count as clean from here on.
    fn next(&mut self, machine: &Machine) -> Option<PageSet> {
        loop {
            let memory = machine.area(self.area)?;
            if let Some((region, pages)) = memory.take_marked(self.from) {
                if self.area == 0 {
                    machine.tables.lock().clean(region, pages);
                }
                self.from = region + REGION_SIZE;
                return Some(pages);
            }
            (self.area, self.from) = (self.area.checked_add(1)?, 0);
        }
    }

    /// Finds pages, without copying any.
    fn look(&mut self, machine: &'static Machine) -> Progress {
        for _ in 0..REGIONS {
            let Some(pages) = self.next(machine) else {
                return self.finish(machine);
            };
            self.pages += pages.count();
            let mut shared = machine.captures.shared.lock();
            if let Some(found) = shared.found.get_mut(usize::from(self.area)) {
                found.add(self.from - REGION_SIZE, pages);
            }
        }
        Progress::More
    }

    /// Copies pages, as far as there are frames.
    fn copy(&mut self, machine: &'static Machine) -> Progress {
        let shared = &machine.captures.shared;
        for _ in 0..COPIES {
            let Some(id) = self.next_page(machine) else {
                return self.finish(machine);
            };
            let Some(mut frame) = shared.lock().free.pop() else {
                self.left.insert(id.number as usize);
                machine.captures.stall();
                return Progress::Stalled;
            };
            if let Some(memory) = machine.area(id.area) {
                // A marked page is inside.
                let _ = memory.read(id.range().start, frame.bytes_mut());
            }
            shared.lock().copied.push_back((id, frame));
            self.pages += 1;
        }
        Progress::More
    }

    /// The next page to be copied.
    fn next_page(&mut self, machine: &Machine) -> Option<PageId> {
        let page = match self.left.take_first() {
            Some(page) => page,
            None => {
                self.left = self.next(machine)?;
                self.left.take_first()?
            }
        };
        Some(PageId {
            area: self.area,
            number: (self.from - REGION_SIZE) / PAGE + page,
        })
    }

    fn finish(&mut self, machine: &'static Machine) -> Progress {
        if self.wanted == Wanted::Checkpoint && !machine.captures.all_are_there() {
            return Progress::Stalled;
        }
        let mut made = None;
        if let Some(digest) = &mut self.digest {
            made = digest.step(machine, DIGESTED);
            if made.is_none() {
                return Progress::More;
            }
        }
        let capture = Capture {
            guest_time: self.guest_time,
            pause: 0,
            pages: self.pages,
            state: self.state.take(),
            digest: made,
        };
        self.end(machine, Some(capture))
    }

    /// What was taken back from the world is lent to it again, unless the guest is to stand still.
    fn end(&self, machine: &'static Machine, capture: Option<Capture>) -> Progress {
        let checkpoint = self.wanted == Wanted::Checkpoint;
        let stands = checkpoint && capture.is_some() && machine.captures.keep_standing();
        if stands {
            machine.network.stand();
        } else if checkpoint {
            machine.go_on();
        }
        if checkpoint {
            machine.captures.let_take();
        }
        if let Some(mut capture) = capture {
            let now = tsc::read();
            capture.pause = now - self.since;
            if capture.digest.is_some() {
                let next = now + capture.pause;
                machine.captures.next_digest.store(next, Ordering::Relaxed);
            }
            machine.captures.shared.lock().outcome = Some(Ok(capture));
        }
        if stands {
            Progress::Stands
        } else {
            Progress::Done
        }
    }
}

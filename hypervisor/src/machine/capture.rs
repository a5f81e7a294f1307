//! What a guest wrote and what it is, taken while it stands still for a moment: by its lead, for the processor that
//! carries it away.
//!
//! A *checkpoint* has the pages that were written since the last one, as they are at one moment, and the state that goes
//! with them. The pages are copied while the guest stands still, into frames of a pool that is made once; if there are
//! more pages than frames, the guest stands still until frames come back. A *survey* only finds what was written, and
//! the guest runs on at once: who takes the pages finds them as they are then, and those that change afterwards are found
//! by the next one. So a guest is copied a first time while it runs.
//!
//! A guest that is to be handed over to another board *stands still* behind its last checkpoint, until it is stopped, or goes on after all.

mod pages;
mod rendezvous;
mod taking;

pub(crate) use pages::PageId;
pub(crate) use rendezvous::Rendezvous;
pub(super) use taking::{Progress, Taking};

use super::frozen::MachineStateV1;
use super::{Machine, StartFailure};
use crate::cpu;
use crate::guest::{GuestHandle, GuestState};
use crate::memory::{GuestMemory, PhysicalMemory};
use crate::network::TENDER;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use devices::Ticks;
use pages::Pages;
use spin::{Mutex, Once};
use vcpu::{FRAME_SIZE, Frame, FrameSource};

/// Frames that are added to a pool in a step.
const FRAMES_STEP: usize = 16;

/// What may be asked of a guest's lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Wanted {
    /// To begin: all pages count as found, and what is written from now on is noted.
    Begin = 3,
    /// To note no more what is written.
    End = 4,
    /// What was written since the last time.
    Survey = 1,
    /// The same as copies of one moment, with the state of that moment.
    Checkpoint = 2,
    /// That the guest stands still until something else is wanted. It wants that itself: it has written as much as a checkpoint
    /// can hold.
    Halt = 5,
}

/// What came of it, once all of its pages were taken.
#[derive(Debug)]
pub(crate) struct Capture {
    /// The guest's time at the moment of it.
    pub(crate) guest_time: Ticks,
    /// TSC ticks that the guest stood still.
    pub(crate) pause: u64,
    /// So many pages were written.
    pub(crate) pages: u64,
    /// Of a checkpoint: the rest of the guest.
    pub(crate) state: Option<CapturedState>,
    /// Of all memory and disks, if that was wanted.
    pub(crate) digest: Option<u64>,
}

/// The state of a guest beside its memory and its disks.
#[derive(Debug)]
pub(crate) struct CapturedState(Box<MachineStateV1>);

impl CapturedState {
    /// The state as bytes, as [`Machine::resume`] takes them. That takes long: it is for a processor that has the time.
    ///
    /// # Errors
    ///
    /// [`StartFailure`] where there is no memory for them.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, StartFailure> {
        Ok(postcard::to_allocvec(&self.0)?)
    }
}

/// Why nothing came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The guest does not run; this is its state.
    NotRunning(GuestState),
    /// The guest has ended its run just now.
    Ended,
    /// The state of a virtual processor cannot be read.
    Unreadable,
    /// There is no memory to track what the guest writes.
    Untracked,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(state) => write!(f, "the guest is {state}"),
            Self::Ended => f.write_str("the guest has ended its run"),
            Self::Unreadable => f.write_str("a virtual processor's state cannot be read"),
            Self::Untracked => f.write_str("there is no memory to track what the guest writes"),
        }
    }
}

/// Called at the moment of a checkpoint, while the guest stands still: what it sent is before, what it will send is
/// behind.
pub(crate) type Seal = fn(&'static GuestHandle);

/// Where the captures of a guest go from its lead to who asked for them. One is under way at a time.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    /// 0, or a [`Wanted`].
    wanted: AtomicU8,
    /// What the guest writes is noted.
    on: AtomicBool,
    /// The lead copies pages: who takes them waits, so that the pause is not longer by that.
    copies: AtomicBool,
    /// The lead waits for frames.
    waits: AtomicBool,
    /// Checkpoints are to have digests.
    digests: AtomicBool,
    /// The board's TSC from which on the next may have one: the guest runs as long as it stood still for the last.
    next_digest: AtomicU64,
    /// The guest may write so many pages from one checkpoint to the next; 0 if that is not bounded.
    bound: AtomicUsize,
    /// Half of them are written, and who captures the guest was told.
    presses: AtomicBool,
    /// Where it meets those that are checkpointed with it, if there are any, and whether they wait for it.
    rendezvous: Once<&'static Rendezvous>,
    due: AtomicBool,
    /// The guest is to stand still behind a checkpoint.
    stands: AtomicBool,
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Frames that are empty.
    free: Vec<Frame>,
    /// Copies that were not taken yet.
    copied: VecDeque<(PageId, Frame)>,
    /// Pages that were found and not taken yet, by their areas.
    found: Vec<Pages>,
    outcome: Option<Result<Capture, Missed>>,
    seal: Option<Seal>,
}

impl Captures {
    /// For the lead: whether something is wanted.
    #[inline(always)]
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) != 0
    }

    pub(super) fn is_checkpoint_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) == Wanted::Checkpoint as u8
    }

    pub(super) fn take_wanted(&self) -> Option<Wanted> {
        match self.wanted.swap(0, Ordering::Acquire) {
            0 => None,
            wanted if wanted == Wanted::Begin as u8 => Some(Wanted::Begin),
            wanted if wanted == Wanted::End as u8 => Some(Wanted::End),
            wanted if wanted == Wanted::Survey as u8 => Some(Wanted::Survey),
            wanted if wanted == Wanted::Halt as u8 => Some(Wanted::Halt),
            _ => Some(Wanted::Checkpoint),
        }
    }

    /// Whether the guest's writes are noted for captures.
    pub(super) fn are_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// For the lead: the guest's writes are noted from here on, and all of its pages count as found; or no more.
    pub(super) fn turn(&self, on: bool, machine: &Machine) {
        self.on.store(on, Ordering::Relaxed);
        let mut shared = self.shared.lock();
        let mut pages = 0;
        for (area, found) in machine.areas().zip(&mut shared.found) {
            if on {
                let count = area.size() / FRAME_SIZE as u64;
                found.add_first(count);
                pages += count;
            }
        }
        shared.outcome = Some(Ok(Capture {
            guest_time: machine.time(),
            pause: 0,
            pages,
            state: None,
            digest: None,
        }));
    }

    /// For the lead: whether there are frames, or it has not asked for any.
    pub(super) fn has_frames(&self) -> bool {
        !self.waits.load(Ordering::Acquire)
    }

    /// For the lead: whether the guest is to stand still behind a checkpoint. What else is wanted of it lets it go on, but not what it wants itself.
    pub(super) fn keep_standing(&self) -> bool {
        let halts = || self.wanted.load(Ordering::Relaxed) == Wanted::Halt as u8;
        self.stands.load(Ordering::Acquire) && (!self.is_wanted() || halts())
    }

    fn keep_from_taking(&self) {
        self.copies.store(true, Ordering::Relaxed);
    }

    fn let_take(&self) {
        self.copies.store(false, Ordering::Relaxed);
    }

    /// The lead waits for frames.
    fn stall(&self) {
        self.waits.store(true, Ordering::Release);
        self.let_take();
    }

    /// Whether the guest may only write so much.
    #[inline(always)]
    pub(super) fn is_bounded(&self) -> bool {
        self.bound.load(Ordering::Relaxed) != 0
    }

    /// The guest is to stand still, if nothing else is wanted; whether that is so.
    fn want_to_halt(&self) -> bool {
        let (none, halt) = (0, Wanted::Halt as u8);
        let order = Ordering::Relaxed;
        self.wanted
            .compare_exchange(none, halt, order, order)
            .is_ok()
    }

    /// What the guest has written since the last checkpoint is about to be taken.
    fn relieve(&self) {
        self.presses.store(false, Ordering::Relaxed);
    }

    /// The guest stands still, or will not: nobody waits for it.
    fn arrive(&self) {
        if self.due.swap(false, Ordering::SeqCst)
            && let Some(rendezvous) = self.rendezvous.get()
        {
            rendezvous.arrive();
        }
    }

    /// Whether those that are checkpointed with it stand still, too.
    fn all_are_there(&self) -> bool {
        self.rendezvous
            .get()
            .is_none_or(|rendezvous| rendezvous.is_complete())
    }

    /// For the lead: nothing comes of what is wanted, or is under way.
    pub(super) fn refuse(&self, missed: Missed) {
        self.wanted.store(0, Ordering::Relaxed);
        self.arrive();
        self.waits.store(false, Ordering::Relaxed);
        self.let_take();
        self.shared.lock().outcome = Some(Err(missed));
    }
}

/// What a guest consists of beside its state: its memory and its disks, by the numbers of [`PageId::area`].
impl Machine {
    pub(crate) fn area(&self, number: u8) -> Option<&GuestMemory> {
        match number.checked_sub(1) {
            None => Some(&self.memory),
            Some(disk) => self.disks.get(usize::from(disk)).map(|disk| disk.sectors()),
        }
    }

    pub(crate) fn areas(&self) -> impl Iterator<Item = &GuestMemory> {
        (0..=u8::MAX).map_while(|number| self.area(number))
    }
}

/// For who captures the guest, one processor at a time.
impl Machine {
    /// Adds frames to the pool, until it has so many, in steps of some microseconds; whether it has. That is for before
    /// [`Self::prepare_captures`].
    ///
    /// # Errors
    ///
    /// [`StartFailure`] where there is no memory for it.
    pub(crate) fn fill_pool(
        &self,
        pool: usize,
        frames: &Mutex<PhysicalMemory>,
    ) -> Result<bool, StartFailure> {
        let mut shared = self.captures.shared.lock();
        while let Some((_, frame)) = shared.copied.pop_front() {
            shared.free.push(frame);
        }
        let missing = pool.saturating_sub(shared.free.len());
        shared.free.try_reserve(missing)?;
        for _ in 0..missing.min(FRAMES_STEP) {
            // One by one: they need not be in one piece.
            let frame = frames.lock().frame();
            let frame =
                frame.ok_or_else(|| StartFailure("no memory for copies of pages".into()))?;
            shared.free.push(frame);
        }
        Ok(missing <= FRAMES_STEP)
    }

    /// Makes captures possible, by the pool that there is; [`Wanted::Begin`] must be the first. What was not taken of an
    /// earlier capture is forgotten.
    ///
    /// # Errors
    ///
    /// [`StartFailure`] where there is no memory for it.
    pub(crate) fn prepare_captures(&self, seal: Seal) -> Result<(), StartFailure> {
        let mut found = Vec::new();
        for area in self.areas() {
            found.push(Pages::none_of(area.size())?);
        }
        let mut shared = self.captures.shared.lock();
        let pool = shared.free.len();
        shared.copied.try_reserve(pool)?;
        shared.found = found;
        shared.outcome = None;
        shared.seal = Some(seal);
        Ok(())
    }

    /// Asks the guest's lead for a capture. All of the last one must have been taken.
    pub(crate) fn capture(&self, wanted: Wanted) {
        self.captures.wanted.store(wanted as u8, Ordering::Release);
        cpu::attend(self.vcpus[0].cpu);
    }

    /// From now on its checkpoints are taken with those of others, which meet there.
    pub(crate) fn meet_at(&self, rendezvous: &'static Rendezvous) {
        self.captures.rendezvous.call_once(|| rendezvous);
    }

    /// Others wait for the checkpoint that will be asked for next.
    pub(crate) fn is_expected(&self) {
        self.captures.due.store(true, Ordering::SeqCst);
    }

    /// Bounds how many pages the guest may write from one checkpoint to the next, if it is not zero: at half of them it
    /// calls for the next one, and at all of them it stands still until that comes.
    pub(crate) fn bound_captures(&self, pages: usize) {
        self.captures.relieve();
        self.captures.bound.store(pages, Ordering::Relaxed);
        cpu::attend(self.vcpus[0].cpu);
    }

    /// Whether the next checkpoint should not wait, for what the guest has written.
    pub(crate) fn presses(&self) -> bool {
        self.captures.presses.load(Ordering::Relaxed)
    }

    /// For who has just noted the guest's writes: sees to it that there are not too many.
    #[inline]
    pub(super) fn heed_bound(&self) {
        if self.captures.is_bounded() && self.has_written(2) {
            self.press();
        }
    }

    #[cold]
    fn press(&self) {
        let captures = &self.captures;
        if !captures.presses.swap(true, Ordering::Relaxed) {
            cpu::attend(TENDER);
        }
        if self.overflows() && captures.want_to_halt() {
            cpu::attend(self.vcpus[0].cpu);
        }
    }

    /// Whether the guest has written as much as it may.
    pub(super) fn overflows(&self) -> bool {
        self.captures.is_bounded() && self.has_written(1)
    }

    /// Whether this part of the bound is written.
    fn has_written(&self, part: u64) -> bool {
        let written: u64 = self.areas().map(GuestMemory::marked).sum();
        written * part >= self.captures.bound.load(Ordering::Relaxed) as u64
    }

    /// Whether checkpoints from the next one on have digests of all memory and disks, for which the guest stands still for long: half of
    /// the time at most.
    pub(crate) fn digest_captures(&self, wanted: bool) {
        self.captures.digests.store(wanted, Ordering::Relaxed);
    }

    /// Whether the guest is to stand still behind checkpoints from the next one on; what comes for its cards is kept meanwhile. If it stands
    /// still already and is not to, it goes on.
    pub(crate) fn stand(&self, wanted: bool) {
        if self.captures.stands.swap(wanted, Ordering::AcqRel) && !wanted {
            cpu::attend(self.vcpus[0].cpu);
        }
    }

    /// Whether the guest is to stand still behind checkpoints.
    pub(crate) fn stands(&self) -> bool {
        self.captures.stands.load(Ordering::Relaxed)
    }

    /// Whether the guest's lead has not come yet to what was asked for last.
    pub(crate) fn is_called(&self) -> bool {
        self.captures.is_wanted()
    }

    /// Hands a page that was captured to `take`, which says whether it takes it: if not, the page comes again. Returns
    /// whether there was one and it was taken; there is none while the guest's lead copies pages. `scratch` is for pages
    /// that were not copied.
    pub(crate) fn take_page(
        &self,
        scratch: &mut [u8; FRAME_SIZE],
        take: impl FnOnce(PageId, &[u8; FRAME_SIZE]) -> bool,
    ) -> bool {
        let captures = &self.captures;
        if captures.copies.load(Ordering::Relaxed) {
            return false;
        }
        let copied = captures.shared.lock().copied.pop_front();
        let Some((id, frame)) = copied else {
            return self.take_found(scratch, take);
        };
        let taken = take(id, frame.bytes());
        let mut shared = captures.shared.lock();
        if taken {
            shared.free.push(frame);
            // Not for each frame: the lead goes on for a while.
            let enough = shared.free.len() > shared.copied.len();
            drop(shared);
            if enough && captures.waits.load(Ordering::Relaxed) {
                captures.keep_from_taking();
                captures.waits.store(false, Ordering::Release);
                cpu::attend(self.vcpus[0].cpu);
            }
        } else {
            shared.copied.push_front((id, frame));
        }
        taken
    }

    /// A page that was only found is read as it is now.
    fn take_found(
        &self,
        scratch: &mut [u8; FRAME_SIZE],
        take: impl FnOnce(PageId, &[u8; FRAME_SIZE]) -> bool,
    ) -> bool {
        let mut areas = self.areas().zip(0..);
        let next = {
            let mut shared = self.captures.shared.lock();
            let mut found = shared.found.iter_mut();
            areas.find_map(|(memory, area)| {
                let number = found.next()?.take()?;
                Some((memory, PageId { area, number }))
            })
        };
        let Some((memory, id)) = next else {
            return false;
        };
        let at = id.range().start;
        let read = memory.read(at, scratch).is_ok();
        let taken = read && take(id, scratch);
        if read && !taken {
            let mut page = vcpu::PageSet::EMPTY;
            page.insert(id.number as usize % 512);
            if let Some(found) = self
                .captures
                .shared
                .lock()
                .found
                .get_mut(usize::from(id.area))
            {
                found.add(at, page);
            }
        }
        taken
    }

    /// What came of the capture, once its last page was taken.
    pub(crate) fn take_capture(&self) -> Option<Result<Capture, Missed>> {
        if self.captures.copies.load(Ordering::Relaxed) {
            return None;
        }
        let mut shared = self.captures.shared.lock();
        let all = shared.copied.is_empty() && shared.found.iter_mut().all(Pages::is_empty);
        if all { shared.outcome.take() } else { None }
    }
}

//! A guest that is mirrored, on whichever board.

use super::Outputs;
use super::drill::{self, Step};
use super::figures::Epochs;
use super::state::MirroredV1;
use crate::guest::{GuestHandle, GuestState};
use crate::machine::{
    Capture, CapturedState, Digest, Machine, Missed, PageId, StartFailure, Understudy, Wanted,
};
use crate::memory::PhysicalMemory;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use devices::Ticks;
use log::{error, warn};
use mirror::{Area, Checkpoint, Epoch, Extent, Inspection, Order, PAGE_SIZE, Page, Place};
use spin::Mutex;

/// Pages that can be copied in one pause, which the guest may write from one checkpoint to the next.
const POOL: usize = 1024;

/// Pages that are compared in one go.
const DIGESTED: usize = 64;

/// What is to be done by the guest's lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// To note what it writes from now on, and to hand over everything, while it runs.
    Begin,
    /// To hand over what was written, while it runs.
    Pass,
    /// To hand over what was written, and its state, as of one moment.
    Freeze,
    /// To note nothing more.
    End,
}

/// What came of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// A pass handed over so many pages.
    Passed(u32),
    /// A checkpoint is handed over: the epoch that ended by it, and the guest's time in nanoseconds.
    Frozen(Epoch, u64),
    /// Nothing, and nothing will.
    Failed,
}

/// A guest whose state the peer keeps, or this board for the peer.
pub(super) struct Kept {
    pub(super) guest: &'static GuestHandle,
    pub(super) machine: &'static Machine,
    /// On the backup, what is staged; on the primary, what the backup has.
    pub(super) understudy: Understudy,
    /// What is under way, and whether anybody wants to know what comes of it.
    task: Option<(Task, bool)>,
    tasks: VecDeque<Task>,
    /// Writes are noted, or will be by then.
    tracked: bool,
    pages: Pages,
    state: Vec<u8>,
    state_told: usize,
    pub(super) epochs: Epochs,
    /// On the backup: what is being compared.
    digest: Option<Digest>,
}

/// The page that is being told, and what is known of the others.
struct Pages {
    front: Option<PageId>,
    page: Box<Page>,
    /// What the backup has of it, if that is known.
    last: Box<Page>,
    last_known: bool,
    scratch: Box<Page>,
    /// Pages that the backup has, by areas: a bit for each.
    known: Vec<Vec<u64>>,
}

impl Kept {
    pub(super) fn new(
        guest: &'static GuestHandle,
        machine: &'static Machine,
        frames: &Mutex<PhysicalMemory>,
    ) -> Result<Self, StartFailure> {
        let page = || Box::new([0; PAGE_SIZE]);
        let known = machine.areas().map(|area| {
            let pages = area.size().div_ceil(PAGE_SIZE as u64);
            vec![0; pages.div_ceil(64) as usize]
        });
        Ok(Self {
            guest,
            machine,
            understudy: Understudy::new(machine, frames)?,
            task: None,
            tasks: VecDeque::new(),
            tracked: false,
            pages: Pages {
                front: None,
                page: page(),
                last: page(),
                last_known: false,
                scratch: page(),
                known: known.collect(),
            },
            state: Vec::new(),
            state_told: 0,
            epochs: Epochs::default(),
            digest: None,
        })
    }

    /// What it consists of.
    pub(super) fn extent(&self) -> Extent {
        let pages =
            |bytes: u64| u32::try_from(bytes.div_ceil(PAGE_SIZE as u64)).unwrap_or(u32::MAX);
        Extent {
            guest: self.number(),
            areas: self
                .machine
                .areas()
                .map(|area| pages(area.size()))
                .collect(),
        }
    }

    /// Its number on the board.
    pub(super) const fn number(&self) -> u8 {
        self.guest.index as u8
    }

    /// What is to be done next.
    pub(super) fn order(&mut self, order: Order) {
        match order {
            // The first pass begins.
            Order::Track => self.tracked = false,
            Order::Pass if self.tracked => self.tasks.push_back(Task::Pass),
            Order::Pass => {
                self.tracked = true;
                self.tasks.push_back(Task::Begin);
            }
            Order::Freeze | Order::FreezeForGood => self.tasks.push_back(Task::Freeze),
            Order::Untrack => {
                // Nobody wants to know what comes of the rest.
                self.tasks.clear();
                if let Some((_, wanted)) = &mut self.task {
                    *wanted = false;
                }
                self.pages.front = None;
                self.epochs.interrupt();
                if core::mem::take(&mut self.tracked) {
                    self.tasks.push_back(Task::End);
                }
            }
        }
    }

    /// Whether its epochs say what may leave it.
    pub(super) const fn is_tracked(&self) -> bool {
        self.tracked
    }

    /// The backup has an epoch.
    pub(super) fn acknowledged(&mut self, epoch: Epoch) {
        let now = self.machine.nanoseconds(self.machine.time());
        self.epochs.acknowledge(epoch, now);
    }

    /// Whether its next checkpoint should not wait for its time.
    pub(super) fn presses(&self) -> bool {
        self.machine.presses()
    }

    /// Whether something is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.task.is_some() || !self.tasks.is_empty()
    }

    /// Sees to what is under way; what has come of it, if that is wanted.
    pub(super) fn poll(&mut self, frames: &Mutex<PhysicalMemory>) -> Option<Came> {
        let Some((task, wanted)) = self.task else {
            let task = self.tasks.pop_front()?;
            if task == Task::Freeze
                && let Some(rest) = MirroredV1::at_rest(self.guest.state())
            {
                return Some(self.rests(&rest));
            }
            return match self.begin(task, frames) {
                Ok(true) => {
                    self.task = Some((task, true));
                    None
                }
                Ok(false) => {
                    self.tasks.push_front(task);
                    None
                }
                Err(failure) => {
                    error!("{}: cannot be mirrored: {failure}", self.guest.name);
                    Some(Came::Failed)
                }
            };
        };
        if wanted && task != Task::End {
            self.fetch();
        } else {
            while self.machine.take_page(&mut self.pages.scratch, |_, _| true) {}
        }
        if self.pages.front.is_some() {
            return None;
        }
        let outcome = self.machine.take_capture()?;
        self.task = None;
        let came = match (task, outcome) {
            (Task::End, _) => return None,
            (Task::Begin | Task::Pass, Ok(capture)) => {
                Came::Passed(u32::try_from(capture.pages).unwrap_or(u32::MAX))
            }
            (Task::Freeze, Ok(capture)) => self.frozen(&capture),
            // What it is now is seen next time.
            (Task::Freeze, Err(Missed::NotRunning(_) | Missed::Ended)) if wanted => {
                self.tasks.push_front(Task::Freeze);
                return None;
            }
            (_, Err(missed)) => {
                warn!("{}: no checkpoint: {missed}", self.guest.name);
                Came::Failed
            }
        };
        wanted.then_some(came)
    }

    /// Has the guest's lead begin with a task; `false` as long as there are not enough frames for that.
    fn begin(&mut self, task: Task, frames: &Mutex<PhysicalMemory>) -> Result<bool, StartFailure> {
        let wanted = match task {
            Task::Begin => {
                if !self.machine.fill_pool(POOL, frames)? {
                    return Ok(false);
                }
                for words in &mut self.pages.known {
                    words.fill(0);
                }
                let seal = |guest: &'static GuestHandle| {
                    drill::at(Step::Seal);
                    if let Some(outputs) = &guest.outputs {
                        outputs.seal();
                    }
                };
                self.machine.prepare_captures(seal)?;
                self.machine.bound_captures(0);
                Wanted::Begin
            }
            Task::Pass => Wanted::Survey,
            Task::Freeze => {
                // Passes copy nothing; from here on all that it writes is to be copied.
                self.machine.bound_captures(POOL);
                Wanted::Checkpoint
            }
            Task::End => {
                self.machine.bound_captures(0);
                Wanted::End
            }
        };
        self.machine.capture(wanted);
        Ok(true)
    }

    fn frozen(&mut self, capture: &Capture) -> Came {
        let machine = match capture.state.as_ref().map(CapturedState::encode) {
            Some(Ok(machine)) => machine,
            Some(Err(failure)) => {
                error!("{}: no checkpoint: {failure}", self.guest.name);
                return Came::Failed;
            }
            None => return Came::Failed,
        };
        let state = MirroredV1::Runs {
            digest: capture.digest,
            machine: &machine,
        };
        let Ok(state) = state.encode() else {
            return Came::Failed;
        };
        (self.state, self.state_told) = (state, 0);
        self.epochs
            .cost
            .add(capture.pages, capture.pause, self.state.len());
        let time = self.machine.nanoseconds(capture.guest_time);
        let pause = self.machine.nanoseconds(Ticks(capture.pause));
        let outputs = self.guest.outputs.as_ref();
        let epoch = outputs.map_or_else(Epoch::default, Outputs::sealed);
        self.epochs.end(epoch, time, pause, capture.pages);
        Came::Frozen(epoch, time)
    }

    /// The guest does not run: that is all there is to say of it.
    fn rests(&mut self, rest: &MirroredV1<'_>) -> Came {
        let Ok(state) = rest.encode() else {
            return Came::Failed;
        };
        (self.state, self.state_told) = (state, 0);
        self.epochs.interrupt();
        let outputs = self.guest.outputs.as_ref();
        let epoch = outputs.map_or_else(Epoch::default, Outputs::seal);
        Came::Frozen(epoch, self.machine.nanoseconds(self.machine.time()))
    }

    /// Whether the guest's lead has been called, and does not come. What it then does itself may take its time.
    pub(super) fn calls(&self) -> bool {
        self.machine.is_called() && self.guest.state() == GuestState::Running
    }

    /// Changes a byte of the live image, its last, for a drill.
    pub(super) fn spoil(&self) {
        let last = PageId {
            area: 0,
            number: (self.machine.memory().size() / PAGE_SIZE as u64).saturating_sub(1),
        };
        let mut page = [0; PAGE_SIZE];
        let spoilt = self.understudy.live(last, &mut page).and_then(|()| {
            let byte = !page[PAGE_SIZE - 1];
            self.understudy.bring(last)?;
            self.understudy.amend(last, PAGE_SIZE - 1, &[byte])?;
            self.understudy.flip(last)
        });
        if let Err(error) = spoilt {
            error!("{}: {error}", self.guest.name);
        }
    }

    /// Looks at the image that has just been brought up to date, whose state this is.
    pub(super) fn inspect(&mut self, state: &[u8]) -> Inspection {
        let told = match MirroredV1::decode(state) {
            Ok(MirroredV1::Runs {
                digest: Some(told), ..
            }) => told,
            Ok(_) => return Inspection::Good,
            Err(error) => {
                error!("{}: its state is none: {error}", self.guest.name);
                return Inspection::Bad;
            }
        };
        let digest = self.digest.get_or_insert_with(Digest::new);
        let Some(own) = digest.step(self.machine, DIGESTED) else {
            return Inspection::Busy;
        };
        self.digest = None;
        self.epochs.inspected += 1;
        if own == told {
            return Inspection::Good;
        }
        self.epochs.differing += 1;
        error!(
            "{}: the understudy is not what it should be",
            self.guest.name
        );
        Inspection::Bad
    }

    /// The image is looked at no longer: the guest goes on from it.
    pub(super) fn leave_inspection(&mut self) {
        self.digest = None;
    }

    /// Gets the next page to the front, if there is one.
    fn fetch(&mut self) {
        let pages = &mut self.pages;
        if pages.front.is_some() {
            return;
        }
        let (front, page) = (&mut pages.front, &mut pages.page);
        self.machine.take_page(&mut pages.scratch, |id, bytes| {
            page.copy_from_slice(bytes);
            *front = Some(id);
            true
        });
        if let Some(id) = pages.front {
            let known = pages.knows(id);
            pages.last_known = known && self.understudy.staged(id, &mut pages.last).is_ok();
        }
    }
}

impl Checkpoint for Kept {
    fn front(&self) -> Option<Place> {
        let id = self.pages.front?;
        Some(Place {
            guest: self.number(),
            area: Area(id.area),
            number: id.number as u32,
        })
    }

    fn look<R>(&self, look: impl FnOnce(&Page, Option<&Page>) -> R) -> R {
        let pages = &self.pages;
        look(&pages.page, pages.last_known.then_some(&*pages.last))
    }

    fn told(&mut self) {
        if let Some(id) = self.pages.front.take() {
            drill::at(Step::Page);
            // A page that its lead handed over is inside.
            let _ = self.understudy.stage(id, &self.pages.page);
            self.pages.learn(id);
            self.fetch();
        }
    }

    fn state(&mut self, out: &mut [u8]) -> Option<(u8, u32, usize)> {
        let left = self.state.get(self.state_told..)?;
        if left.is_empty() {
            return None;
        }
        drill::at(Step::State);
        let length = left.len().min(out.len());
        out.get_mut(..length)?.copy_from_slice(left.get(..length)?);
        let offset = self.state_told as u32;
        self.state_told += length;
        Some((self.number(), offset, length))
    }
}

impl Pages {
    const fn bit(id: PageId) -> (usize, u64) {
        ((id.number / 64) as usize, 1 << (id.number % 64))
    }

    fn knows(&self, id: PageId) -> bool {
        let (word, bit) = Self::bit(id);
        let words = self.known.get(usize::from(id.area));
        let word = words.and_then(|words| words.get(word));
        word.is_some_and(|word| word & bit != 0)
    }

    fn learn(&mut self, id: PageId) {
        let (word, bit) = Self::bit(id);
        let words = self.known.get_mut(usize::from(id.area));
        if let Some(word) = words.and_then(|words| words.get_mut(word)) {
            *word |= bit;
        }
    }
}

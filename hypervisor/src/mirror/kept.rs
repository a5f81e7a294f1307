//! A guest that is mirrored, on whichever board.

use super::drill::{self, Step};
use super::figures::Epochs;
use super::state::MirroredV1;
use crate::guest::{GuestHandle, GuestState};
use crate::machine::{
    Capture, CapturedState, Digest, Machine, Missed, PageId, Rendezvous, StartFailure, Understudy,
    Wanted,
};
use crate::memory::PhysicalMemory;
use crate::network::GuestNetwork;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use devices::Ticks;
use log::{error, warn};
use mirror::{Area, Checkpoint, Epoch, Extent, Inspection, PAGE_SIZE, Page, Place};
use net::PortSet;
use spin::Mutex;

/// Pages that can be copied in one pause, which the guest may write from one checkpoint to the next.
const POOL: usize = 1024;

/// Pages that are compared in one go.
const DIGESTED: usize = 64;

/// What is to be done by the guest's lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// To note what it writes from now on, and to hand over everything, while it runs.
    Begin,
    /// To hand over what was written, while it runs.
    Pass,
    /// To hand over what was written, and its state, as of one moment.
    Freeze,
    /// To note nothing more.
    End,
}

/// What came of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// A pass handed over so many pages.
    Passed(u32),
    /// A checkpoint is handed over.
    Frozen,
    /// The guest does not run, which is all there is to say of it.
    Rests,
    /// Its run ended before it was frozen: it is something else now.
    Missed,
    /// Nothing, and nothing will.
    Failed,
}

/// A guest whose state the peer keeps, or this board for the peer.
pub(super) struct Kept {
    pub(super) guest: &'static GuestHandle,
    pub(super) machine: &'static Machine,
    /// On the backup, what is staged; on the primary, what the backup has.
    pub(super) understudy: Understudy,
    /// It stands still for good, or went to the other board from there, and what comes for it is kept.
    pub(super) keeps_inputs: bool,
    pages: Pages,
    /// What is to be told of it beside its pages, and its time then, in nanoseconds.
    last: Last,
    time: u64,
    state: Vec<u8>,
    state_told: usize,
    pub(super) epochs: Epochs,
    /// On the backup: what is being compared.
    digest: Option<Digest>,
}

/// What a guest was at the end of the last epoch.
enum Last {
    /// It did not run.
    Rests(MirroredV1<'static>),
    Ran(Box<Capture>),
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
            keeps_inputs: false,
            pages: Pages {
                front: None,
                page: page(),
                last: page(),
                last_known: false,
                scratch: page(),
                known: known.collect(),
            },
            last: Last::Rests(MirroredV1::Stays),
            time: 0,
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

    /// It is of a group, these guests, which meet there.
    pub(super) fn join(&self, group: &[Self], rendezvous: &'static Rendezvous) {
        self.machine.meet_at(rendezvous);
        let (mut ports, mut stations) = (PortSet::EMPTY, Vec::new());
        for other in group.iter().filter(|it| it.number() != self.number()) {
            for (port, station) in GuestNetwork::of(other.guest).stations() {
                ports.set(port, true);
                stations.push(station);
            }
        }
        if let Some(outputs) = &self.guest.outputs {
            outputs.join(ports, stations);
        }
    }

    /// Nothing of it is told any more.
    pub(super) fn forget(&mut self) {
        self.pages.front = None;
        self.epochs.interrupt();
        if let Some(outputs) = &self.guest.outputs {
            outputs.set_inside(false);
        }
    }

    /// It goes on, if it stands still.
    pub(super) fn go_on(&mut self) {
        self.machine.stand(false);
        self.keeps_inputs = false;
    }

    /// The backup has an epoch.
    pub(super) fn acknowledge(&mut self, epoch: Epoch) {
        if let Some(outputs) = &self.guest.outputs {
            outputs.acknowledge(epoch);
        }
        let now = self.machine.nanoseconds(self.machine.time());
        self.epochs.acknowledge(epoch, now);
    }

    /// Its time at the end of the last epoch, in nanoseconds.
    pub(super) const fn time(&self) -> u64 {
        self.time
    }

    /// Gets frames for copies of its pages; whether all are there now, and `None` if there are not so many.
    pub(super) fn fill_pool(&mut self, frames: &Mutex<PhysicalMemory>) -> Option<bool> {
        match self.machine.fill_pool(POOL, frames) {
            Ok(full) => Some(full),
            Err(failure) => self.cannot_be_mirrored(&failure),
        }
    }

    fn cannot_be_mirrored<T>(&self, failure: &StartFailure) -> Option<T> {
        error!("{}: cannot be mirrored: {failure}", self.guest.name);
        None
    }

    /// Ends this epoch if it does not run; else others wait for it to be frozen.
    pub(super) fn rests(&mut self, epoch: Epoch) -> Option<Came> {
        if let Some(outputs) = &self.guest.outputs {
            outputs.begin(epoch);
        }
        let rest = if self.machine.starts() {
            Some(MirroredV1::Starts)
        } else {
            MirroredV1::at_rest(self.guest.state())
        };
        let Some(rest) = rest else {
            self.machine.is_expected();
            return None;
        };
        if let Some(outputs) = &self.guest.outputs {
            outputs.seal();
        }
        self.last = Last::Rests(rest);
        self.time = self.machine.nanoseconds(self.machine.time());
        self.epochs.interrupt();
        Some(Came::Rests)
    }

    /// Has its lead begin with a task; whether it can be.
    pub(super) fn begin(&mut self, task: Task) -> bool {
        let wanted = match task {
            Task::Begin => {
                for words in &mut self.pages.known {
                    words.fill(0);
                }
                let seal = |guest: &'static GuestHandle| {
                    drill::at(Step::Seal);
                    if let Some(outputs) = &guest.outputs {
                        outputs.seal();
                    }
                };
                if let Err(failure) = self.machine.prepare_captures(seal) {
                    return self.cannot_be_mirrored(&failure).unwrap_or(false);
                }
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
        true
    }

    /// Sees to its task. What has come of that; its pages are only dropped, if nobody wants them.
    pub(super) fn poll(&mut self, wanted: bool) -> Option<Came> {
        if wanted {
            self.fetch();
        } else {
            while self.machine.take_page(&mut self.pages.scratch, |_, _| true) {}
        }
        if self.pages.front.is_some() {
            return None;
        }
        let outcome = self.machine.take_capture()?;
        Some(match outcome {
            Ok(capture) if capture.state.is_some() => {
                self.froze(capture);
                Came::Frozen
            }
            Ok(capture) => Came::Passed(u32::try_from(capture.pages).unwrap_or(u32::MAX)),
            Err(Missed::NotRunning(_) | Missed::Ended) => Came::Missed,
            Err(missed) => {
                warn!("{}: no checkpoint: {missed}", self.guest.name);
                Came::Failed
            }
        })
    }

    fn froze(&mut self, capture: Capture) {
        self.keeps_inputs = self.machine.stands();
        self.time = self.machine.nanoseconds(capture.guest_time);
        self.last = Last::Ran(Box::new(capture));
    }

    /// Has its state told as it was at the end of this epoch, when its group's time was `group`, in nanoseconds. Whether that can be.
    pub(super) fn tell_state(&mut self, epoch: Epoch, group: u64) -> bool {
        let machine;
        let mirrored = match &self.last {
            Last::Rests(rest) => *rest,
            Last::Ran(capture) => {
                match capture.state.as_ref().map(CapturedState::encode) {
                    Some(Ok(encoded)) => machine = encoded,
                    Some(Err(failure)) => {
                        error!("{}: no checkpoint: {failure}", self.guest.name);
                        return false;
                    }
                    None => return false,
                }
                MirroredV1::Runs {
                    digest: capture.digest,
                    ahead: self.time.wrapping_sub(group).cast_signed(),
                    machine: &machine,
                }
            }
        };
        let Ok(state) = mirrored.encode() else {
            return false;
        };
        if let Last::Ran(capture) = &self.last {
            let pause = self.machine.nanoseconds(Ticks(capture.pause));
            self.epochs.end(epoch, self.time, pause, capture.pages);
            self.epochs
                .cost
                .add(capture.pages, capture.pause, state.len());
        }
        // What the others send it and it sends them belongs to their common epochs from here on.
        if let Some(outputs) = &self.guest.outputs {
            outputs.set_inside(matches!(self.last, Last::Ran(_)));
        }
        (self.state, self.state_told) = (state, 0);
        true
    }

    /// Whether the guest's lead has been called, and does not come. What it then does itself may take its time.
    pub(super) fn calls(&self) -> bool {
        // While the guest is made ready to start, it comes behind that.
        self.machine.is_called()
            && self.guest.state() == GuestState::Running
            && !self.machine.starts()
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

    /// Looks at the image that has just been brought up to date, whose state this is. Whether this board could go on from the state is seen
    /// with the first of them.
    pub(super) fn inspect(&mut self, state: &[u8], first: bool) -> Inspection {
        let name = &self.guest.name;
        let (told, machine) = match MirroredV1::decode(state) {
            Ok(MirroredV1::Runs {
                digest, machine, ..
            }) => (digest, machine),
            Ok(MirroredV1::Stays | MirroredV1::Starts) => return Inspection::Good,
            Err(error) => {
                error!("{name}: its state is none: {error}");
                return Inspection::Bad;
            }
        };
        if first
            && self.digest.is_none()
            && let Err(failure) = self.machine.try_state(machine)
        {
            error!("{name}: could not be resumed here: {failure}");
            return Inspection::Bad;
        }
        let Some(told) = told else {
            return Inspection::Good;
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

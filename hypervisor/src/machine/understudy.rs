//! An understudy: all of a guest as it was at some moment, beside the guest itself. Its pages come one by one, and it can
//! take the guest's place.

use super::capture::PageId;
use super::{Awakening, Machine, StartFailure, frozen, guest_memory};
use crate::cpu;
use crate::guest::{Command, GuestState};
use crate::memory::{GuestMemory, OutOfBounds, PhysicalMemory};
use alloc::vec::Vec;
use spin::Mutex;
use vcpu::FRAME_SIZE;

/// Room for each page of a guest, beside the guest's own.
pub(crate) struct Understudy {
    machine: &'static Machine,
    /// As large as the guest's areas.
    stores: Vec<GuestMemory>,
}

impl Understudy {
    /// Takes room for all of a guest. What is in it is nobody's.
    ///
    /// # Errors
    ///
    /// [`StartFailure`] where there is no memory for it.
    pub(crate) fn new(
        machine: &'static Machine,
        frames: &Mutex<PhysicalMemory>,
    ) -> Result<Self, StartFailure> {
        let mut stores = Vec::new();
        for area in machine.areas() {
            stores.push(guest_memory(area.size(), &mut frames.lock())?.0);
        }
        Ok(Self { machine, stores })
    }

    fn store(&self, page: PageId) -> Result<&GuestMemory, OutOfBounds> {
        self.stores
            .get(usize::from(page.area))
            .ok_or_else(|| outside(page))
    }

    fn guest(&self, page: PageId) -> Result<&GuestMemory, OutOfBounds> {
        self.machine.area(page.area).ok_or_else(|| outside(page))
    }

    /// Puts a page aside.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] for a page that the guest does not have, as in all of these.
    pub(crate) fn stage(&self, page: PageId, bytes: &[u8; FRAME_SIZE]) -> Result<(), OutOfBounds> {
        self.store(page)?.write(page.range().start, bytes)
    }

    /// Puts zeroes aside for a page.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`].
    pub(crate) fn clear(&self, page: PageId) -> Result<(), OutOfBounds> {
        let store = self.store(page)?;
        if !store.contains(page.range().start, FRAME_SIZE as u64) {
            return Err(outside(page));
        }
        store.scrub(page.range());
        Ok(())
    }

    /// Puts a page aside as the guest itself has it.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`].
    pub(crate) fn bring(&self, page: PageId) -> Result<(), OutOfBounds> {
        let (guest, at) = (self.guest(page)?, page.range().start);
        self.store(page)?.transfer(at, guest, at, FRAME_SIZE)
    }

    /// Writes to a page that was put aside.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`].
    pub(crate) fn amend(
        &self,
        page: PageId,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), OutOfBounds> {
        let at = page.range().start.saturating_add(offset as u64);
        self.store(page)?.write(at, bytes)
    }

    /// Reads a page that was put aside.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`].
    pub(crate) fn staged(
        &self,
        page: PageId,
        bytes: &mut [u8; FRAME_SIZE],
    ) -> Result<(), OutOfBounds> {
        self.store(page)?.read(page.range().start, bytes)
    }

    /// Reads a page of the guest itself.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`].
    pub(crate) fn live(
        &self,
        page: PageId,
        bytes: &mut [u8; FRAME_SIZE],
    ) -> Result<(), OutOfBounds> {
        self.guest(page)?.read(page.range().start, bytes)
    }

    /// Gives the guest the page that was put aside. The guest must be [at rest](Machine::is_at_rest).
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`].
    pub(crate) fn flip(&self, page: PageId) -> Result<(), OutOfBounds> {
        let (store, at) = (self.store(page)?, page.range().start);
        self.guest(page)?.transfer(at, store, at, FRAME_SIZE)
    }
}

fn outside(page: PageId) -> OutOfBounds {
    OutOfBounds {
        address: page.range().start,
        length: FRAME_SIZE as u64,
    }
}

/// A guest's place, taken and given up, by another processor than its lead's.
impl Machine {
    /// Whether the guest has come to its rest: nobody touches its memory and its disks until it is started or resumed.
    pub(crate) fn is_at_rest(&self) -> bool {
        matches!(
            self.handle.state(),
            GuestState::Stopped | GuestState::Off | GuestState::Crashed
        )
    }

    /// Whether the guest could go on from a state here.
    ///
    /// # Errors
    ///
    /// [`StartFailure`] with the reason why not.
    pub(crate) fn try_state(&self, state: &[u8]) -> Result<(), StartFailure> {
        frozen::read(self, state).map(drop)
    }

    /// Lets the guest, which is at rest, go on from a state ([`CapturedState::encode`](super::capture::CapturedState::encode)) that belongs to what its
    /// memory and its disks hold now. Its time, in nanoseconds, was `time` when the board's TSC was `tsc`, and has gone on
    /// since. Its cards' drivers are asked to announce themselves. What is wrong with the state is told in the log.
    pub(crate) fn resume(&self, state: Vec<u8>, time: u64, tsc: u64) {
        *self.awakening.lock() = Some(Awakening { state, time, tsc });
        cpu::attend(self.vcpus[0].cpu);
    }

    /// Stops the guest at once: its vCPUs are made to leave it, and it [is at rest](Self::is_at_rest) as soon as they have.
    /// What a vCPU is just sending still goes out.
    pub(crate) fn fence(&self) {
        self.end_run(None);
        self.handle.command(Command::Stop);
    }
}

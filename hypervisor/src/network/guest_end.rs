//! A guest's network card, from the other side of the switch.

use super::frame::{ForGuest, Frame};
use super::inbox::Inbox;
use super::software;
use crate::cpu;
use crate::guest::GuestHandle;
use crate::machine::Machine;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use devices::virtio::{Fault, Receiver, Refusal, Takes};
use devices::{Effects, Pc, Ticks};
use net::{FrameQueue, MacAddress, Offload, flow_hash};
use spin::Mutex;

/// Among the bits of queues: one of them is broken.
const BROKEN: u32 = 1 << 31;
/// Bytes that may wait while a card takes its queues for a moment: a quarter of a millisecond's at a gigabit.
const WAITING: usize = 32 << 10;
/// The same of a guest that may be handed over to the other board, which takes longer.
const WAITING_MIRRORED: usize = 256 << 10;
/// Frames that may wait for a moment: as many as are put into the queues in one go.
const WAITING_FRAMES: usize = 512;
/// Frames that are put into a card's memory in one go.
const BATCH: usize = 4;

/// A guest's network card.
pub(super) struct GuestEnd {
    pub(super) guest: &'static GuestHandle,
    pub(super) mac: MacAddress,
    priority: u8,
    /// Which of its cards.
    nic: u8,
    /// Whether the operator left the cable in, and whether the card is still to be told.
    link: AtomicBool,
    link_changed: AtomicBool,
    card: Card,
}

/// How a card gets its frames.
enum Card {
    /// It lends its receive queues, for whoever has a frame to work on them.
    Lending(Box<Lent>),
    /// It has memory of its own, into which the guest's owner puts frames.
    Buffered(Inbox),
}

struct Lent {
    queues: Mutex<Queues>,
    /// Queues whose interrupt is wanted, a bit for each, and [`BROKEN`].
    events: AtomicU32,
    fault: Mutex<Option<Fault>>,
}

/// What is known of a card's receive queues.
struct Queues {
    /// They themselves, while they are lent.
    receiver: Option<Receiver>,
    keeps: Keeps,
    waiting: FrameQueue,
}

/// Whether what comes is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    Nothing,
    /// For the moment until the queues are lent again.
    Waits,
    /// Until the guest, which stands still, goes on or follows its state to the other board.
    Stands,
    /// For the other board, where the guest is now.
    Follows,
}

impl GuestEnd {
    pub(super) fn new(
        guest: &'static GuestHandle,
        priority: u8,
        nic: u8,
        config: &config::GuestNic,
    ) -> Self {
        let waiting = if guest.outputs.is_some() {
            WAITING_MIRRORED
        } else {
            WAITING
        };
        let card = match config.model {
            config::NicModel::Virtio => Card::Lending(Box::new(Lent::new(waiting))),
            config::NicModel::Rtl8029 | config::NicModel::Ne2000 { .. } => {
                Card::Buffered(Inbox::new(waiting))
            }
        };
        Self {
            guest,
            mac: config.mac,
            priority,
            nic,
            link: AtomicBool::new(true),
            link_changed: AtomicBool::new(false),
            card,
        }
    }

    /// Gives the guest a frame; whether it has it, or has no use for it. `workbench` is where a frame is put together that
    /// the card cannot take as it is.
    pub(super) fn deliver(&self, frame: &Frame<'_>, workbench: &Mutex<Vec<u8>>) -> bool {
        match &self.card {
            Card::Lending(lent) => {
                let machine = self.guest.machine.get().copied().flatten();
                let (put, events) = machine.map_or((Put::Refused, 0), |machine| {
                    lent.deliver(frame, machine, workbench)
                });
                self.note(lent, events);
                put == Put::Done
            }
            Card::Buffered(inbox) => {
                let mut tell = false;
                let taken = software::give(frame, Takes::empty(), workbench, |frame| {
                    // Who has frames already, was told.
                    tell |= inbox.is_empty();
                    inbox.put(frame)
                });
                if taken && tell {
                    self.tell();
                }
                taken
            }
        }
    }

    /// The guest's owner must see to these bits.
    fn note(&self, lent: &Lent, events: u32) {
        // Who is told already, looks.
        if events & !lent.events.fetch_or(events, Ordering::AcqRel) != 0 {
            self.tell();
        }
    }

    /// Makes the guest's owner look.
    fn tell(&self) {
        if self.guest.note_network()
            && let Some(cpu) = self.guest.cpus.first()
        {
            cpu::attend_vcpu(*cpu, self.priority);
        }
    }

    /// The cable goes in or out.
    pub(super) fn set_link(&self, up: bool) {
        self.link.store(up, Ordering::Relaxed);
        self.link_changed.store(true, Ordering::Release);
        self.tell();
    }

    /// The card lends its receive queues: frames come from here on.
    pub(super) fn lend(&self, receiver: Receiver) {
        if let Card::Lending(lent) = &self.card {
            lent.queues.lock().receiver = Some(receiver);
        }
    }

    /// The card gets its queues back: nobody works on them from here on.
    pub(super) fn take_back(&self) -> Option<Receiver> {
        match &self.card {
            Card::Lending(lent) => lent.queues.lock().receiver.take(),
            Card::Buffered(_) => None,
        }
    }

    /// The card takes its queues for a moment: what comes is kept. Frames for a card with memory of its own wait anyway.
    pub(super) fn hold(&self) {
        if let Card::Lending(lent) = &self.card {
            let mut queues = lent.queues.lock();
            if queues.keeps == Keeps::Nothing {
                queues.keeps = Keeps::Waits;
            }
        }
    }

    /// The moment is over: what was kept goes into the queues, if they are lent.
    pub(super) fn release(&self) {
        if let Card::Lending(lent) = &self.card
            && let Some(machine) = self.guest.machine.get().copied().flatten()
        {
            self.note(lent, lent.release(machine));
        }
    }

    /// For the guest's owner: shows the card what has come. Returns whether it is to be shown more.
    pub(super) fn feed(&self, pc: &mut Pc, now: Ticks, effects: &mut impl Effects) -> bool {
        if self.link_changed.swap(false, Ordering::Acquire) {
            pc.set_link(self.nic, self.link.load(Ordering::Relaxed), now);
        }
        match &self.card {
            Card::Lending(lent) => {
                let events = lent.events.swap(0, Ordering::AcqRel);
                if events != 0 {
                    let fault = lent.fault.lock().take();
                    pc.received(self.nic, events & !BROKEN, fault, now, effects);
                }
                false
            }
            Card::Buffered(inbox) => {
                let mut count = 0;
                while count < BATCH && pc.nic_room(self.nic) {
                    let given = inbox.take(|frame| {
                        // A card that is off line loses it, as one on a wire does.
                        pc.receive_frame(self.nic, frame, now);
                        true
                    });
                    if !given {
                        return false;
                    }
                    count += 1;
                }
                count == BATCH && !inbox.is_empty()
            }
        }
    }

    /// Whether frames wait for the card to have room.
    pub(super) fn waits_for_room(&self) -> bool {
        match &self.card {
            Card::Lending(_) => false,
            Card::Buffered(inbox) => !inbox.is_empty(),
        }
    }

    /// A run of the guest begins. The owner is to look: the cable may be out, and there may be something from before.
    pub(super) fn open(&self) {
        match &self.card {
            Card::Lending(lent) => lent.queues.lock().follow(false),
            Card::Buffered(inbox) => inbox.open(true),
        }
        if !self.link.load(Ordering::Relaxed) {
            self.link_changed.store(true, Ordering::Release);
        }
        self.guest.note_network();
    }

    /// The guest's run is over: nothing reaches it any more. Frames that wait are lost, unless they follow it; interrupts that are to come are kept for a
    /// guest that `goes_on`, whose rings say that they were asked for.
    pub(super) fn close(&self, goes_on: bool) {
        match &self.card {
            Card::Lending(lent) => {
                lent.queues.lock().close();
                if !goes_on {
                    lent.events.store(0, Ordering::Relaxed);
                    *lent.fault.lock() = None;
                }
            }
            Card::Buffered(inbox) => inbox.open(false),
        }
    }
}

/// For guests that are handed over from one board to the other.
impl GuestEnd {
    /// The guest stands still for longer than a moment.
    pub(super) fn stand(&self) {
        if let Card::Lending(lent) = &self.card {
            lent.queues.lock().keeps = Keeps::Stands;
        }
    }

    /// Shows the next frame that came since the guest stands still, or went, to `look`; whether there was one. It stays for a guest that may go on.
    pub(super) fn pass(&self, look: impl FnOnce(&[u8])) -> bool {
        match &self.card {
            Card::Lending(lent) => lent.queues.lock().pass(look),
            Card::Buffered(inbox) => inbox.pass(look),
        }
    }

    /// From here on what comes for the guest, which stands still, is for the other board, also when its run is over. Or it is no longer.
    pub(super) fn follow(&self, follow: bool) {
        match &self.card {
            Card::Lending(lent) => lent.queues.lock().follow(follow),
            Card::Buffered(inbox) => inbox.follow(follow),
        }
    }

    /// Gives the guest a frame that came for it on the other board; whether that is done with. If not, the card has no room yet.
    pub(super) fn bring(&self, frame: &Frame<'_>) -> bool {
        match &self.card {
            Card::Lending(lent) => {
                let Some(machine) = self.guest.machine.get().copied().flatten() else {
                    return false;
                };
                let mut queues = lent.queues.lock();
                let keeps = queues.keeps != Keeps::Nothing;
                let Some(receiver) = queues.receiver.as_mut().filter(|_| !keeps) else {
                    return false;
                };
                // Nothing is left to be done to it.
                let workbench = Mutex::new(Vec::new());
                let (put, events) = lent.put(frame, receiver, machine, &workbench);
                drop(queues);
                self.note(lent, events);
                put != Put::Full
            }
            Card::Buffered(inbox) => {
                let put = inbox.put(frame);
                if put {
                    self.tell();
                }
                put
            }
        }
    }
}

impl Queues {
    /// Nobody lends them, nor will. What follows the guest stays.
    fn close(&mut self) {
        self.receiver = None;
        if self.keeps != Keeps::Follows {
            self.follow(false);
        }
    }

    /// From here on what is kept follows the guest; or nothing is kept.
    fn follow(&mut self, follow: bool) {
        if follow {
            self.keeps = Keeps::Follows;
            self.waiting.drop_passed();
        } else {
            self.keeps = Keeps::Nothing;
            self.waiting.clear();
        }
    }

    /// See [`GuestEnd::pass`].
    fn pass(&mut self, look: impl FnOnce(&[u8])) -> bool {
        let shown = self.waiting.pass(look).is_some();
        if self.keeps == Keeps::Follows {
            self.waiting.drop_passed();
        }
        shown
    }
}

/// What came of putting a frame into a card's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    /// It is there, or kept, or the card has no use for it.
    Done,
    /// There is no room now.
    Full,
    /// The card does not take such a frame, or none.
    Refused,
}

impl Lent {
    fn new(waiting: usize) -> Self {
        Self {
            queues: Mutex::new(Queues {
                receiver: None,
                keeps: Keeps::Nothing,
                waiting: FrameQueue::new(waiting),
            }),
            events: AtomicU32::new(0),
            fault: Mutex::new(None),
        }
    }

    /// Gives the guest a frame; what came of it, and what its owner must see to.
    fn deliver(
        &self,
        frame: &Frame<'_>,
        machine: &'static Machine,
        workbench: &Mutex<Vec<u8>>,
    ) -> (Put, u32) {
        let mut queues = self.queues.lock();
        let queues = &mut *queues;
        if queues.keeps != Keeps::Nothing {
            let waiting = &mut queues.waiting;
            if queues.keeps == Keeps::Waits && waiting.len() >= WAITING_FRAMES {
                return (Put::Full, 0);
            }
            let kept = software::give(frame, Takes::empty(), workbench, |frame| {
                let mut read = true;
                let put = waiting.push(frame.length(), |into| {
                    read = frame.read(0, into).is_ok();
                });
                put && read
            });
            return (if kept { Put::Done } else { Put::Full }, 0);
        }
        match &mut queues.receiver {
            Some(receiver) => self.put(frame, receiver, machine, workbench),
            None => (Put::Refused, 0),
        }
    }

    /// Puts what was kept into the queues; returns what the owner must see to.
    fn release(&self, machine: &'static Machine) -> u32 {
        let mut queues = self.queues.lock();
        let Queues {
            receiver,
            keeps,
            waiting,
        } = &mut *queues;
        if *keeps == Keeps::Follows {
            return 0;
        }
        *keeps = Keeps::Nothing;
        let mut events = 0;
        // Nothing is left to be done to these frames.
        let workbench = Mutex::new(Vec::new());
        while let Some(receiver) = receiver
            && waiting.pop_if(|bytes| {
                let frame = Frame::of_bytes(bytes, Offload::default());
                events |= self.put(&frame, receiver, machine, &workbench).1;
                true
            })
        {}
        waiting.clear();
        events
    }

    /// Puts a frame into the queues; what came of it, and what the owner must see to.
    fn put(
        &self,
        frame: &Frame<'_>,
        receiver: &mut Receiver,
        machine: &'static Machine,
        workbench: &Mutex<Vec<u8>>,
    ) -> (Put, u32) {
        if !receiver.wants(frame.head()) {
            return (Put::Done, 0);
        }
        let hash = flow_hash(frame.head());
        let mut memory = machine.memory();
        let (mut events, mut refused) = (0, Put::Refused);
        let takes = receiver.takes();
        let taken = software::give(frame, takes, workbench, |frame| {
            let payload = ForGuest::new(*frame, machine.memory());
            match receiver.deliver(&payload, &frame.offload, hash, &mut memory) {
                Ok(delivery) => {
                    events |= u32::from(delivery.interrupt) << delivery.queue;
                    true
                }
                Err(Refusal::Fault(fault)) => {
                    self.fault.lock().get_or_insert(fault);
                    events |= BROKEN;
                    false
                }
                Err(Refusal::NoBuffers) => {
                    refused = Put::Full;
                    false
                }
                Err(Refusal::TooLong | Refusal::Offload) => false,
            }
        });
        (if taken { Put::Done } else { refused }, events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues() -> Queues {
        Queues {
            receiver: None,
            keeps: Keeps::Stands,
            waiting: FrameQueue::new(1000),
        }
    }

    fn put(queues: &mut Queues, value: u8) {
        assert!(queues.waiting.push(60, |into| into.fill(value)));
    }

    fn shown(queues: &mut Queues) -> Vec<u8> {
        let mut all = Vec::new();
        while queues.pass(|frame| all.push(frame[0])) {}
        all
    }

    #[test]
    fn what_was_shown_stays_for_a_guest_that_may_go_on() {
        let mut queues = queues();
        put(&mut queues, 1);
        put(&mut queues, 2);
        assert_eq!(shown(&mut queues), [1, 2]);
        assert_eq!(queues.waiting.len(), 2);
        put(&mut queues, 3);
        assert_eq!(shown(&mut queues), [3]);
        queues.close();
        assert!(queues.waiting.is_empty() && queues.keeps == Keeps::Nothing);
    }

    #[test]
    fn what_was_not_shown_follows_a_guest_that_went() {
        let mut queues = queues();
        put(&mut queues, 1);
        assert_eq!(shown(&mut queues), [1]);
        put(&mut queues, 2);
        queues.follow(true);
        queues.close();
        put(&mut queues, 3);
        assert_eq!(shown(&mut queues), [2, 3]);
        assert!(queues.waiting.is_empty() && queues.keeps == Keeps::Follows);
        put(&mut queues, 4);
        queues.follow(false);
        assert!(shown(&mut queues).is_empty() && queues.keeps == Keeps::Nothing);
    }
}
